"""Judge some images of a submission again: can its claimed scores be true?

Images are drawn before it is known which of them can be found, so that a submitter cannot choose. Each file is compared
with the hash in the submission. The board's scorer judges them again through the engine, without earlier replies.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from knowgen.core.errors import UsageError
from knowgen.core.images import UnreadableImageError, open_rgb, read_image_file
from knowgen.core.records import GenerationStatus, ParsedScore, Row, ScoreStatus, group_of
from knowgen.core.run_config import RunConfig
from knowgen.core.spec import GeneratorSpec, fingerprint
from knowgen.interchange.image_sources import SourceImage, no_image, source_image
from knowgen.interchange.open_source import StoredGenerations
from knowgen.interchange.recorded_images import IMAGE_EXTENSIONS
from knowgen.leaderboards.checks.hashes import bits_apart
from knowgen.leaderboards.checks.pictures import SAME_FILE
from knowgen.leaderboards.checks.rejudged import OtherValue, Rejudged
from knowgen.leaderboards.folder import IMAGES, Board, Submission
from knowgen.leaderboards.records import SubmissionResult
from knowgen.leaderboards.rows import rows_of
from knowgen.scorers.contract import ScorerCapabilities
from knowgen.search.leaks import perceptual_hash
from knowgen.stats.combine import sample_overalls
from knowgen.stats.compare.inflation import LEVEL, inflation_test
from knowgen.stats.protocol import ScoringProtocol, get_protocol
from knowgen.stats.values import Floats, read_values
from knowgen.tasks.contract import Task
from knowgen.workflows.described import open_task
from knowgen.workflows.execute import execute
from knowgen.workflows.located import locate
from knowgen.workflows.plan import plan_images
from knowgen.workflows.plugin_process import is_foreign
from knowgen.workflows.resolve import ScorerRequest
from knowgen.workflows.run import Run

MEASURED_TOLERANCE = 1e-3
"""Largest difference between two values of a scorer that measures, on different machines."""


@dataclass(frozen=True)
class DrawnImage:
    """An image that was drawn.

    Attributes:
        sample: Id of its sample.
        repeat: Its repeat in the submission.
        sha256: Claimed digest of its file.
        perceptual: Claimed perceptual hash.
        file: Name of its file in the submission's folder of images; empty without one.
    """

    sample: str
    repeat: int
    sha256: str
    perceptual: str
    file: str


def rejudge(
    board: Board,
    submission: Submission,
    number: int,
    *,
    seed: int,
    images: Sequence[Path] = (),
    scorer_args: Mapping[str, Any] | None = None,
    budget: float | None = None,
    level: float = LEVEL,
    out: Path | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Rejudged:
    """Judge some images of a submission again and compare the scores with those that it claims.

    Args:
        board: The board.
        submission: The submission; its files must be valid.
        number: Number of images, at most one for each sample.
        seed: Seed of the draw. It must not be known to the submitter before the submission.
        images: Folders in which images are looked up besides that of the submission: run directories, or folders with
            files that are named by their SHA-256 digest or by anything else.
        scorer_args: Further arguments of the scorer, such as the address of its endpoint.
        budget: Maximum cost in US dollars; None for no limit.
        level: Level of the test: the share of honest submissions that it accuses.
        out: Run directory of the new scores; by default one below `reports/`.
        workers: Worker processes of a scorer that measures; 0 for none.
        progress: Whether to show progress.

    Raises:
        UsageError: An argument is wrong, or the scorer or task here has another version than the board.
        DataError: A file of the submission is not valid, or no image was found.
    """
    if number < 1:
        raise UsageError(f"{number} images cannot be judged again", where="--rejudge", fix="give 1 or more")
    result = submission.read_result()
    drawn = draw(result, board, number, f"{seed} {board.name} {submission.key}")
    finder = ImageFinder([submission.path / IMAGES, *images])
    files = {image.sample: path for image in drawn if (path := finder.find(image)) is not None}
    found = sorted((image for image in drawn if image.sample in files), key=lambda image: image.sample)
    other_looks = tuple(image.sample for image in found if not _looks(files[image.sample], image))
    config = RunConfig(
        ids=sorted(files) or None,
        judge_repeats=result.spec.judge_repeats_of(result.scorer),
        protocol=board.file.protocol,
        budget=budget,
        workers=workers,
        progress=progress,
    )
    target = out or Path("reports") / f"rejudge__{board.name}__{submission.slug}__{submission.revision}__{seed}"
    run = _score(board, result, files, config, scorer_args or {}, target) if files else None
    return _compared(
        Rejudged(
            board=board.name,
            key=submission.key,
            seed=seed,
            scorer=board.file.scorer.name,
            measured=_capabilities(board.beside(board.file.scorer.name)).reparse is None,
            drawn=len(drawn),
            without_file=tuple(image.sample for image in drawn if image.sample not in files),
            tampered=tuple(str(path) for path in finder.tampered),
            other_looks=other_looks,
            failed=(),
            unscored=(),
            other_values=(),
            other_judges=(),
            test=inflation_test(_no_differences(), level=level),
        ),
        result,
        board,
        {image.sample: image for image in found},
        run,
    )


def draw(result: SubmissionResult, board: Board, number: int, seed: str) -> list[DrawnImage]:
    """Draw images from every group in proportion to its size; at most one for each sample.

    Images without a claimed score are among them, because a score that lowers the mean may be claimed to be missing.

    Args:
        result: Result of the submission.
        board: Its board.
        number: Number of images.
        seed: Seed of the draw, as text.
    """
    groups = {sample.id: group_of(sample.category) for sample in board.samples}
    found: dict[str, dict[str, list[DrawnImage]]] = {}
    for sample in result.samples:
        for generation in sample.generations:
            image = generation.image
            if image is None:
                continue
            entry = DrawnImage(sample.id, generation.repeat, image.sha256, image.perceptual, image.file)
            found.setdefault(groups.get(sample.id, ""), {}).setdefault(sample.id, []).append(entry)
    chosen = []
    for group, ids in _stratified({group: sorted(samples) for group, samples in found.items()}, number, seed).items():
        generator = random.Random(f"{seed} {group} repeats")
        chosen += [generator.choice(found[group][each]) for each in ids]
    return chosen


def draw_ids(board: Board, number: int, seed: str) -> list[str]:
    """Draw ids of a board's samples, from every group in proportion to its size.

    Raises:
        UsageError: The number is below 1.
    """
    if number < 1:
        raise UsageError(f"{number} samples cannot be run", where="--samples", fix="give 1 or more")
    groups: dict[str, list[str]] = {}
    for sample in board.samples:
        groups.setdefault(group_of(sample.category), []).append(sample.id)
    return [each for ids in _stratified(groups, number, seed).values() for each in ids]


def _stratified(groups: Mapping[str, Sequence[str]], number: int, seed: str) -> dict[str, list[str]]:
    shares = _shares({group: len(ids) for group, ids in groups.items()}, number)
    return {group: random.Random(f"{seed} {group}").sample(groups[group], shares[group]) for group in sorted(groups)}


def _shares(sizes: Mapping[str, int], number: int) -> dict[str, int]:
    """Divide a number among groups in proportion to their sizes, by the largest remainders."""
    total = sum(sizes.values())
    number = min(number, total)
    exact = {name: number * size / total for name, size in sizes.items()} if total else {}
    shares = {name: int(value) for name, value in exact.items()}
    rest = sorted(exact, key=lambda name: (shares[name] - exact[name], name))
    for name in rest[: number - sum(shares.values())]:
        shares[name] += 1
    return shares


class ImageFinder:
    """Finds image files by the hash of their content.

    Args:
        folders: Folders with images, in the order in which they are searched; one that does not exist is empty.

    Attributes:
        tampered: Files that are named by a digest that was looked for, and have another content.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.tampered: list[Path] = []
        self._named: dict[str, list[Path]] = {}
        self._others: list[Path] = []
        self._hashed: dict[str, Path] | None = None
        for path in _image_files(folders):
            if len(path.stem) == 64 and set(path.stem) <= set("0123456789abcdef"):
                self._named.setdefault(path.stem, []).append(path)
            else:
                self._others.append(path)

    def find(self, image: DrawnImage) -> Path | None:
        """Return the file of an image; None if no file has its content."""
        for path in self._named.get(image.sha256, ()):
            if _digest(path) == image.sha256:
                return path
            self.tampered.append(path)
        if self._hashed is None:
            self._hashed = {_digest(path): path for path in self._others}
        return self._hashed.get(image.sha256)


def _image_files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for place, inner, names in os.walk(folder):
            inner.sort()
            for name in sorted(names):
                path = Path(place, name)
                if path.suffix.lower() in IMAGE_EXTENSIONS and not path.is_symlink():
                    yield path


def _looks(path: Path, image: DrawnImage) -> bool:
    """Return whether a file has the claimed perceptual hash; another one would hide a copy from the check."""
    try:
        own = perceptual_hash(open_rgb(path)).tobytes()
    except UnreadableImageError:
        return True  # scoring it again says so
    return bits_apart(own, bytes.fromhex(image.perceptual)) <= SAME_FILE


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(read_image_file(path)).hexdigest()
    except UnreadableImageError:
        return ""


def _score(
    board: Board,
    result: SubmissionResult,
    files: Mapping[str, Path],
    config: RunConfig,
    scorer_args: Mapping[str, Any],
    out: Path,
) -> Run:
    """Score the files again in a run directory of their own."""
    task = board_task(board)
    scorer, name = board.file.scorer, board.beside(board.file.scorer.name)
    arguments = {**scorer.args, **scorer_args}  # those of the board: the submission could name its own judge
    if "cache" in excluded_arguments(name):
        arguments.setdefault("cache", False)  # a stored reply would repeat the claimed score

    def look_up(sample_id: str, repeat: int) -> SourceImage:
        path = files.get(sample_id)
        return no_image("it was not drawn") if path is None or repeat else source_image(path, path.name)

    digest = fingerprint({name: path.stem for name, path in files.items()})[:12]
    planned = plan_images(
        task,
        StoredGenerations("images", digest, look_up),
        GeneratorSpec(name=f"{result.spec.generator.name}, judged again", revision=digest),
        [ScorerRequest(name, arguments)],
        config,
    )
    version = planned.spec.scorers[0].version
    if version not in scorer.versions:
        accepted = " or ".join(repr(each) for each in scorer.versions)
        what = f"{scorer.name} has version {version!r} here, the board accepts {accepted}"
        raise UsageError(what, where="--rejudge", fix="use the version of knowgen that the board was pinned with")
    return execute(planned, out)


def board_task(board: Board) -> Task:
    """Return the board's task, in the board's version.

    Raises:
        UsageError: It has another version here.
    """
    task = open_task(board.beside(board.file.task.name), in_worker=True)
    if task.version != board.file.task.version:
        what = f"task {task.name} has version {task.version} here, the board {board.file.task.version}"
        raise UsageError(
            what, where=f"board {board.name}", fix="use the version of knowgen that the board was pinned with"
        )
    return task


def _capabilities(scorer: str) -> ScorerCapabilities:
    from knowgen.scorers.contract import scorer_capabilities
    from knowgen.workflows.described import described_capabilities

    if is_foreign("scorers", scorer):
        return described_capabilities(scorer)
    return scorer_capabilities(locate("scorers", scorer).target)


def excluded_arguments(scorer: str) -> frozenset[str]:
    """Return the arguments of a bundled scorer that decide no score."""
    if is_foreign("scorers", scorer):
        return frozenset()
    return frozenset(getattr(locate("scorers", scorer).target, "identity_excludes", ()))


def _no_differences() -> Floats:
    import numpy as np

    return np.zeros(0)


def _compared(
    base: Rejudged, result: SubmissionResult, board: Board, drawn: Mapping[str, DrawnImage], run: Run | None
) -> Rejudged:
    """Return a result with the comparison of claimed and new scores."""
    if run is None:
        return base
    protocol, dimensions = get_protocol(board.file.protocol), board.file.scorer.dimensions
    again = run.rows(run.spec.scorers[0].name)
    claimed = [
        row.model_copy(update={"repeat": 0})
        for row in rows_of(result, board.samples)
        if row.sample_id in drawn and row.repeat == drawn[row.sample_id].repeat
    ]
    accepted = board.file.scorer.judges
    other_judges = {row.judge_returned for row in again if row.judge_returned} - set(accepted) if accepted else set()
    tested = differences_of(claimed, again, protocol, dimensions)
    seed, needed = base.seed, 1 if base.measured else None
    return replace(
        base,
        failed=tuple(_failures(again, protocol)),
        unscored=tuple(_unscored(claimed, again, protocol)),
        other_values=tuple(_other_values(claimed, again, protocol, dimensions)) if base.measured else (),
        other_judges=tuple(sorted(other_judges)),
        test=inflation_test(tested, level=base.test.level, seed=seed, needed=needed),
    )


def _reading(row: Row, protocol: ScoringProtocol) -> ParsedScore:
    return row.lenient if protocol.reading == "lenient" and row.lenient is not None else row.strict


def _failures(rows: Sequence[Row], protocol: ScoringProtocol) -> Iterator[tuple[str, str]]:
    """Yield the samples without a single new score, with the reason."""
    scored = {row.sample_id for row in rows if _reading(row, protocol).status is ScoreStatus.OK}
    named = set()
    for row in rows:
        if row.sample_id not in scored and row.sample_id not in named:
            named.add(row.sample_id)
            image = row.generation is GenerationStatus.OK
            reason = _reading(row, protocol).reason if image else row.generation_reason
            yield row.sample_id, reason or "it was not scored"


def _unscored(
    claimed: Sequence[Row], again: Sequence[Row], protocol: ScoringProtocol
) -> Iterator[tuple[str, ScoreStatus]]:
    """Yield the samples that are claimed to have no score, and have one now, with the claimed status."""
    scored = {row.sample_id for row in again if _reading(row, protocol).status is ScoreStatus.OK}
    statuses: dict[str, set[ScoreStatus]] = {}
    for row in claimed:
        statuses.setdefault(row.sample_id, set()).add(_reading(row, protocol).status)
    for name, stated in sorted(statuses.items()):
        if name in scored and ScoreStatus.OK not in stated:
            yield name, min(stated)


def _other_values(
    claimed: Sequence[Row], again: Sequence[Row], protocol: ScoringProtocol, dimensions: Sequence[str]
) -> Iterator[OtherValue]:
    """Yield the values of a scorer that measures which differ from the claimed ones."""
    new = {row.sample_id: _reading(row, protocol) for row in again}
    for row in claimed:
        measured, stated = new.get(row.sample_id), _reading(row, protocol)
        if measured is None or measured.status is not ScoreStatus.OK or stated.status is not ScoreStatus.OK:
            continue
        for name in dimensions:
            own, other = stated.values.get(name), measured.values.get(name)
            same = own is None and other is None
            if own is not None and other is not None:
                same = math.isclose(own, other, rel_tol=0, abs_tol=MEASURED_TOLERANCE)
            if not same:
                yield OtherValue(row.sample_id, name, own, other)


def differences_of(
    claimed: Sequence[Row], again: Sequence[Row], protocol: ScoringProtocol, dimensions: Sequence[str]
) -> Floats:
    """Return claimed minus new overall of each sample, shape (N,); NaN where one of them is missing."""
    import numpy as np

    before, now = (_overalls(rows, protocol, dimensions) for rows in (claimed, again))
    return np.array([before[name] - now[name] for name in sorted(before.keys() & now.keys())], dtype=np.float64)


def _overalls(rows: Sequence[Row], protocol: ScoringProtocol, dimensions: Sequence[str]) -> dict[str, float]:
    values = read_values(rows, protocol, dimensions)
    overalls = sample_overalls(values.table, dimensions, protocol)
    return {unit.id: float(value) for unit, value in zip(values.units, overalls, strict=True)}
