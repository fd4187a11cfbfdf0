"""Run a submitted system again on some samples: does it make the same images, and do they get the same scores?

This runs the code that the submission names. Nothing is installed: what is missing or has another version is an error.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal

from knowgen.core.errors import MissingDependencyError, UsageError
from knowgen.core.images import UnreadableImageError, open_rgb
from knowgen.core.records import GenerationStatus
from knowgen.core.run_config import RunConfig
from knowgen.core.spec import RunSpec, canonical
from knowgen.core.text import count, one_line
from knowgen.leaderboards.checks.hashes import SAME_PICTURE, bits_apart
from knowgen.leaderboards.folder import Board, Submission
from knowgen.leaderboards.records import Adapter, SubmissionResult, SubmittedGeneration
from knowgen.leaderboards.rows import rows_of
from knowgen.search.leaks import perceptual_hash
from knowgen.stats.compare.inflation import InflationTest, inflation_test
from knowgen.stats.protocol import get_protocol
from knowgen.store.run import RunStore
from knowgen.workflows.execute import execute
from knowgen.workflows.plan import plan
from knowgen.workflows.rejudge import board_task, differences_of, draw_ids
from knowgen.workflows.resolve import ScorerRequest
from knowgen.workflows.run import Run

_PACKAGE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:==\s*([A-Za-z0-9][A-Za-z0-9.!+_-]*))?")

Likeness = Literal["identical", "looks the same", "different", "failed now", "failed then"]


@dataclass(frozen=True)
class RerunImage:
    """An image that was made again.

    Attributes:
        sample: Id of its sample.
        repeat: Its repeat.
        likeness: How it compares with the submitted one.
        bits: Number of different bits of the perceptual hashes, of 256; None where one of them is missing.
        reason: Why the image is missing; empty if it is not.
    """

    sample: str
    repeat: int
    likeness: Likeness
    bits: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Rerun:
    """The result of running a submitted system again.

    Attributes:
        board: Name of the board.
        key: `system/revision`.
        path: The run directory with the new images.
        images: The images, by sample and repeat.
        scores: Submitted minus new score of the samples.
        notes: In what the system here differs from the submitted one, where that was allowed.
    """

    board: str
    key: str
    path: Path
    images: tuple[RerunImage, ...]
    scores: InflationTest
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """`identical`, `looks the same`, `different`, or `incomplete` where an image could not be made."""
        found = {image.likeness for image in self.images}
        for verdict in ("different", "failed then"):
            if verdict in found:
                return "different"
        if "failed now" in found:
            return "incomplete"
        return "looks the same" if "looks the same" in found else "identical"

    def lines(self) -> list[str]:
        """Return the result in lines for a terminal: one for each image that is not identical, then the sums."""
        lines = []
        for image in self.images:
            if image.likeness != "identical":
                repeat = f", repeat {image.repeat}" if image.repeat else ""
                bits = f" ({image.bits} of 256 bits differ)" if image.bits is not None else ""
                reason = f": {one_line(image.reason, 120)}" if image.reason else ""
                lines.append(f"{image.likeness:<15} sample {one_line(image.sample, 60)!r}{repeat}{bits}{reason}")
        numbers = Counter(image.likeness for image in self.images)
        sums = ", ".join(f"{number} {name}" for name, number in sorted(numbers.items()))
        lines.append(f"{self.board}/{self.key}: {self.verdict}: {count(len(self.images), 'image')}: {sums}")
        test = self.scores
        if test.mean is not None:
            interval = "" if test.low is None else f" [{test.low:+.3f}, {test.high:+.3f}]"
            scored = count(test.n, "sample")
            lines.append(f"scores of {scored}: submitted - new is {test.mean:+.3f}{interval}, {test.differing} differ")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        scores = {name: value for name, value in asdict(self.scores).items() if name in _SCORES}
        images = [asdict(image) for image in self.images]
        return {
            "board": self.board,
            "submission": self.key,
            "path": str(self.path),
            "verdict": self.verdict,
            "images": images,
            "scores": scores,
            "notes": list(self.notes),
        }


_SCORES = frozenset({"n", "differing", "mean", "low", "high"})


def rerun(
    board: Board,
    submission: Submission,
    *,
    ids: Sequence[str] | None = None,
    samples: int | None = None,
    generator_args: Mapping[str, Any] | None = None,
    scorer_args: Mapping[str, Any] | None = None,
    config: RunConfig | None = None,
    out: Path | None = None,
    any_version: bool = False,
) -> Rerun:
    """Run a submitted system again on some samples, with its own seed, and compare images and scores.

    Args:
        board: The board.
        submission: The submission.
        ids: Ids of the samples.
        samples: Number of samples instead, some of every group.
        generator_args: Further arguments of the generator, such as its device; they replace those of the submission.
        scorer_args: Further arguments of the scorer.
        config: Options of the engine, such as budget and workers.
        out: Run directory; by default one below `reports/`.
        any_version: Whether to go on where the system here differs from the submitted one.

    Raises:
        UsageError: Both or none of `ids` and `samples` were given, an id is unknown, or the system here differs.
        MissingDependencyError: The package of the system is not installed.
        DataError: A file of the submission is not valid.
    """
    if (ids is None) == (samples is None):
        raise UsageError("which samples?", where="board rerun", fix="give --ids A,B or --samples N")
    result, adapter = submission.read_result(), submission.system.adapter
    notes = [*_other_package(adapter)]
    chosen = list(ids) if ids is not None else draw_ids(board, samples or 0, submission.key)
    spec = result.spec
    options = replace(
        config or RunConfig(),
        generator_args={**adapter.arguments, **(generator_args or {})},
        seed=spec.seed,
        repeats=spec.repeats,
        judge_repeats=spec.judge_repeats_of(result.scorer),
        ids=chosen,
        protocol=board.file.protocol,
    )
    scorer = ScorerRequest(board.beside(board.file.scorer.name), {**result.scorer.args, **(scorer_args or {})})
    planned = plan(board_task(board), adapter.generator, [scorer], options)
    notes += _other_system(spec, planned.spec)
    if notes and not any_version:
        fix = "install that version yourself, or give --any-version"
        raise UsageError(one_line("; ".join(notes)), where=f"{board.name}/{submission.key}", fix=fix)
    target = out or Path("reports") / f"rerun__{board.name}__{submission.slug}__{submission.revision}"
    run = execute(planned, target)
    return Rerun(
        board=board.name,
        key=submission.key,
        path=run.path,
        images=tuple(_compare_images(result, run, set(chosen))),
        scores=_compare_scores(result, board, run, set(chosen)),
        notes=tuple(notes),
    )


def _other_package(adapter: Adapter) -> list[str]:
    """Return in what the installed package differs from the submitted one.

    Raises:
        MissingDependencyError: It is not installed.
        UsageError: The submission does not name a package as pip does.
    """
    if not adapter.package:
        return []
    matched = _PACKAGE.fullmatch(adapter.package.strip())
    if matched is None:
        what = f"adapter.package is {one_line(adapter.package, 80)!r}, not NAME==VERSION"
        raise UsageError(what, where="system.yaml", fix="ask the submitter to correct it in a new revision")
    name, version = matched.groups()
    try:
        installed = distribution(name)
    except PackageNotFoundError as error:
        wanted = f"{name}=={version}" if version else name
        fix = f"look at its code, then install it in an environment of its own: pip install '{wanted}'"
        raise MissingDependencyError(
            f"needs the package {name!r}, which is not installed", where="board rerun", fix=fix
        ) from error
    notes = []
    if version and installed.version != version:
        notes.append(f"{name} has version {installed.version} here, the submission {version}")
    commit = _commit(installed.read_text("direct_url.json"))
    if adapter.commit and commit and not commit.startswith(adapter.commit):
        notes.append(f"{name} is of commit {commit[:12]} here, the submission of {one_line(adapter.commit, 40)}")
    return notes


def _commit(direct_url: str | None) -> str:
    """Return the commit that a package was installed from; empty if it was not installed from a repository."""
    try:
        return str(json.loads(direct_url or "{}").get("vcs_info", {}).get("commit_id", ""))
    except (ValueError, AttributeError):
        return ""


def _other_system(submitted: RunSpec, here: RunSpec) -> list[str]:
    """Return in what the system that was resolved here differs from the submitted one."""
    notes = []
    for part in ("agent", "generator"):
        own, wanted = getattr(here, part), getattr(submitted, part)
        if own is None or wanted is None:
            if own is not wanted:
                notes.append(f"{'without an' if own is None else 'with an'} {part} here, unlike the submission")
            continue
        mine, theirs = own.model_dump(mode="json"), wanted.model_dump(mode="json")
        for name in mine:
            if canonical(mine[name]) != canonical(theirs[name]):
                values = f"{_short(mine[name])} here, {_short(theirs[name])} in the submission"
                notes.append(f"{part} {wanted.name}: {name} is {values}")
    return notes


def _short(value: Any) -> str:
    return one_line(value if isinstance(value, str) else canonical(value), 100) or "empty"


def _compare_images(result: SubmissionResult, run: Run, ids: set[str]) -> list[RerunImage]:
    with RunStore.read(run.path) as store:
        made = {(each.sample_id, each.repeat): each for _, each in store.generations()}
        compared = []
        for sample in result.samples:
            for then in sample.generations if sample.id in ids else ():
                now = made.get((sample.id, then.repeat))
                place = RerunImage(sample.id, then.repeat, "failed now")
                if now is None or now.status is not GenerationStatus.OK or now.image is None:
                    compared.append(_both_failed(place, then, "" if now is None else now.reason))
                elif then.image is None:
                    compared.append(replace(place, likeness="failed then", reason=then.reason))
                elif now.image.sha256 == then.image.sha256:
                    compared.append(replace(place, likeness="identical", bits=0))
                else:
                    compared.append(_alike(place, store.image_path(now.image), then.image.perceptual))
    return compared


def _both_failed(place: RerunImage, then: SubmittedGeneration, reason: str) -> RerunImage:
    if then.image is None:
        return replace(place, likeness="identical", reason="without an image, as in the submission")
    return replace(place, reason=reason or "it was not generated")


def _alike(place: RerunImage, path: Path, perceptual: str) -> RerunImage:
    try:
        bits = bits_apart(perceptual_hash(open_rgb(path)).tobytes(), bytes.fromhex(perceptual))
    except (UnreadableImageError, ValueError) as error:
        return replace(place, likeness="different", reason=one_line(error, 120))
    return replace(place, likeness="looks the same" if bits <= SAME_PICTURE else "different", bits=bits)


def _compare_scores(result: SubmissionResult, board: Board, run: Run, ids: set[str]) -> InflationTest:
    claimed = [row for row in rows_of(result, board.samples) if row.sample_id in ids]
    again = run.rows(run.spec.scorers[0].name)
    protocol = get_protocol(board.file.protocol)
    return inflation_test(differences_of(claimed, again, protocol, board.file.scorer.dimensions))
