"""Verify a run: do its figures follow from its stored replies and images?

Nothing is generated or judged again. Replies are parsed again and compared with the stored values, images are hashed,
keys and the selection are made again from the records, the columns of the database are compared with its records, and
`summary.json` and the tables with what the rows give. A leaderboard can call `verify` before it accepts a run.

Not found: a directory in which everything was invented consistently, and values of a scorer that measures (such as
`world_check`) that were changed together with every figure made from them; scoring the run again shows those.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from knowgen.core.errors import KnowgenError
from knowgen.core.records import (
    AgentAnswer,
    Generation,
    GenerationStatus,
    GroundTruth,
    ParsedScore,
    Sample,
    Score,
    ScoreStatus,
)
from knowgen.core.spec import RunSpec, ScorerSpec, answer_key, fingerprint, generation_key, score_key, select, text_hash
from knowgen.core.steps import counted
from knowgen.core.text import count, parse_json
from knowgen.engine.work_plan import WorkItem, image_key, inputs_hash, use_answer
from knowgen.scorers.contract import ScorerCapabilities, scorer_capabilities
from knowgen.stats.protocol import PROTOCOLS
from knowgen.store.run import RunStore
from knowgen.workflows import artifacts
from knowgen.workflows.described import described_capabilities
from knowgen.workflows.located import locate
from knowgen.workflows.plugin_process import is_foreign
from knowgen.workflows.run import Run, load_run

_TOLERANCE = 1e-9
"""Largest difference between a stored figure and the one that its rows give."""


@dataclass(frozen=True)
class Discrepancy:
    """Something in a run directory that does not follow from the rest of it.

    Attributes:
        check: What was checked: rows, selection, keys, images, replies, summary or tables.
        where: File, sample and scorer.
        what: What is wrong.
    """

    check: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.check}: {self.where}: {self.what}"


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Attributes:
        path: The run directory.
        findings: Everything that was found, in the order of the checks.
        checked: Number of checked samples, images, replies and so on.
        notes: What could not be checked, and why.
    """

    path: Path
    findings: tuple[Discrepancy, ...]
    checked: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "path": str(self.path),
            "ok": self.ok,
            "checked": dict(self.checked),
            "findings": [asdict(finding) for finding in self.findings],
            "notes": list(self.notes),
        }


def verify(path: Path | str) -> Verification:
    """Check that the figures of a run follow from its stored replies and images.

    Args:
        path: The run directory. It is only read.

    Raises:
        DataError: It is not a run directory, or `run.json` or `run.sqlite` cannot be read at all.

    Example:
        >>> import knowgen
        >>> run = knowgen.evaluate("knowgen_mini", "noise", scorers="pixels", limit=2, out="noise")
        >>> verification = verify("noise")
        >>> verification.ok, verification.checked["images"]
        (True, 2)
    """
    run = load_run(path)
    checker = _Checker(run)
    with RunStore.read(run.path) as store:
        rows = [Discrepancy("rows", f"run.sqlite, {fault.where}", fault.what) for fault in store.row_faults()]
        unreadable = any("cannot be read" in finding.what for finding in rows)
        rest = [] if unreadable else [*checker.selection(store), *checker.results(store)]
    written = [] if unreadable else [*checker.outputs()]
    if unreadable:
        checker.notes.append("damaged records: replies, keys, images and figures were not checked")
    return Verification(run.path, (*rows, *rest, *written), dict(checker.checked), tuple(dict.fromkeys(checker.notes)))


class _Checker:
    """The checks of one run; it counts what it has checked."""

    def __init__(self, run: Run) -> None:
        self.run, self.spec = run, run.spec
        self.checked: Counter[str] = Counter()
        self.notes: list[str] = []

    def selection(self, store: RunStore) -> Iterator[Discrepancy]:
        """Check that the samples are those of the specification."""
        ids = [sample.id for sample in store.samples()]
        self.checked["samples"] += len(ids)
        made = select(ids, self.spec.selection.kind)
        if made != self.spec.selection:
            what = f"the specification has {self.spec.selection.label}, the samples are {made.label}"
            yield Discrepancy("selection", "run.json", what)

    def results(self, store: RunStore) -> Iterator[Discrepancy]:
        """Check the current generations, and the scores of every scorer."""
        samples = {sample.id: sample for sample in store.samples()}
        hashes = {
            key: fingerprint([sample.model_dump(mode="json"), store.truth(key).model_dump(mode="json")])
            for key, sample in counted(samples.items(), "reading samples")
        }
        answers = {(each.sample_id, each.repeat): (key, each) for key, each in store.answers()}
        for answer_of_sample in counted(answers.values(), "checking images of answers"):
            yield from self._answer_images(store, answer_of_sample[1])
        current: dict[tuple[str, int], Generation] = {}
        for key, generation in counted(store.generations(), "checking generations"):
            current[generation.sample_id, generation.repeat] = generation
            answer = answers.get((generation.sample_id, generation.repeat))
            yield from self._generation(store, key, generation, samples[generation.sample_id], answer)
        for scorer in self.spec.scorers:
            capabilities = self._capabilities(scorer)
            for key, score in counted(store.scores(scorer.name), f"checking scores of {scorer.name}"):
                sample, generation = samples[score.sample_id], current[score.sample_id, score.repeat]
                where = f"sample {sample.id!r}, repeat {score.repeat}, scorer {scorer.name!r}"
                yield from self._score(scorer, score, where)
                if capabilities is not None:
                    yield from self._replies(capabilities, score, sample, where)
                    truth = inputs_hash(hashes[sample.id], capabilities.needs, generation)
                    yield from self._score_key(scorer, key, score, truth, where)

    def _generation(
        self, store: RunStore, key: str, generation: Generation, sample: Sample, answer: tuple[str, AgentAnswer] | None
    ) -> Iterator[Discrepancy]:
        where = f"sample {sample.id!r}, repeat {generation.repeat}"
        if generation.status is GenerationStatus.OK:
            self.checked["images"] += 1
            if generation.image is None:
                yield Discrepancy("images", where, "the generation is ok and has no image")
            elif not store.image_ok(generation.image):
                yield Discrepancy(
                    "images",
                    where,
                    f"the file of image {generation.image.sha256[:12]} is missing, or has other content",
                )
        if self.spec.agent is not None:
            yield from self._agent_keys(key, generation, sample, answer, where)
            return
        if self.spec.requests:
            self.notes.append(
                "keys of generations from agent answers were not checked: the answers are not stored here"
            )
            return
        self.checked["keys"] += 1
        expected = generation_key(
            self.spec,
            sample_id=sample.id,
            prompt_hash=text_hash(sample.prompt),
            references=(),
            repeat=generation.repeat,
        )
        if key != expected:
            yield Discrepancy("keys", where, "the key of the generation is not that of its sample and generator")

    def _answer_images(self, store: RunStore, answer: AgentAnswer) -> Iterator[Discrepancy]:
        self.checked["answers"] += 1
        for image in dict.fromkeys((*answer.references, *answer.images)):
            self.checked["images"] += 1
            if not store.image_ok(image):
                where = f"answer of sample {answer.sample_id!r}, repeat {answer.repeat}"
                what = f"the file of image {image.sha256[:12]} is missing, or has other content"
                yield Discrepancy("images", where, what)

    def _agent_keys(
        self,
        key: str,
        generation: Generation,
        sample: Sample,
        stored: tuple[str, AgentAnswer] | None,
        where: str,
    ) -> Iterator[Discrepancy]:
        """Check the keys of an answer, and of the generation that was made from it."""
        if stored is None:
            yield Discrepancy("keys", where, "there is a generation, and no answer of the agent that it was made from")
            return
        self.checked["keys"] += 2
        stored_key, answer = stored
        prompt_hash = text_hash(sample.prompt)
        made = answer_key(self.spec, sample_id=sample.id, prompt_hash=prompt_hash, repeat=generation.repeat)
        if stored_key != made:
            yield Discrepancy("keys", where, "the key of the answer is not that of its sample and agent")
        item = WorkItem(sample, GroundTruth(sample_id=sample.id), "", generation.repeat, answer=answer, answer_key=made)
        item.prompt = sample.prompt
        use_answer(item, self.spec.agent)
        if key != image_key(self.spec, item):
            what = "the key of the generation is not that of its sample, the agent's answer and the generator"
            yield Discrepancy("keys", where, what)

    def _capabilities(self, scorer: ScorerSpec) -> ScorerCapabilities | None:
        """Return what the scorer declares; None with a note if it cannot be loaded here, or has another version."""
        try:
            if is_foreign("scorers", scorer.name):
                capabilities = described_capabilities(scorer.name)
            else:
                capabilities = scorer_capabilities(locate("scorers", scorer.name).target)
        except (KnowgenError, ImportError) as error:
            reason = str(error)
            self.notes.append(
                f"replies and keys of {scorer.name} were not checked: it cannot be loaded here ({reason})"
            )
            return None
        if capabilities.reparse is None:
            self.notes.append(f"{scorer.name} measures and keeps no replies: `knowgen score` shows its values again")
        return capabilities

    def _score(self, scorer: ScorerSpec, score: Score, where: str) -> Iterator[Discrepancy]:
        """Check that the parts of a score agree."""
        self.checked["scores"] += 1
        if score.status is not score.strict.status:
            yield Discrepancy(
                "scores", where, f"the status is {score.status.value}, that of its values {score.strict.status.value}"
            )
        for name, parsed in (("strict", score.strict), ("lenient", score.lenient)):
            if parsed is None:
                continue
            if parsed.status is not ScoreStatus.OK and parsed.values:
                yield Discrepancy("scores", where, f"the {name} score is {parsed.status.value} and has values")
            outside = [each for each, value in parsed.values.items() if not 0 <= value <= 1]
            unknown = sorted(set(parsed.values) - set(scorer.dimensions))
            if outside or (unknown and scorer.dimensions):
                what = f"{', '.join(outside)} outside [0, 1]" if outside else f"unknown dimension {', '.join(unknown)}"
                yield Discrepancy("scores", where, f"the {name} score has {what}")

    def _replies(
        self, capabilities: ScorerCapabilities, score: Score, sample: Sample, where: str
    ) -> Iterator[Discrepancy]:
        """Parse the stored replies again, and compare the values."""
        if capabilities.reparse is None or score.status is ScoreStatus.NOT_APPLICABLE:
            return
        if score.parser and score.parser != capabilities.parser:
            self.notes.append(
                f"replies parsed by {score.parser} were not parsed again: this version has another parser"
            )
            return
        if not score.attempts:
            if score.status is ScoreStatus.OK:
                yield Discrepancy("replies", where, "there are values, and no reply that they were parsed from")
            return
        self.checked["replies"] += len(score.attempts)
        strict, lenient, _ = capabilities.reparse(score.attempts, sample)
        for name, stored, parsed in (("strict", score.strict, strict), ("lenient", score.lenient, lenient)):
            if stored is not None and (difference := _difference(stored, parsed)):
                yield Discrepancy("replies", where, f"the {name} score differs from its replies: {difference}")

    def _score_key(self, scorer: ScorerSpec, key: str, score: Score, truth: str, where: str) -> Iterator[Discrepancy]:
        self.checked["keys"] += 1
        expected = score_key(
            scorer,
            task_version=self.spec.task_version,
            sample_id=score.sample_id,
            truth_hash=truth,
            image=score.image,
            repeat=score.repeat,
            judge_repeat=score.judge_repeat,
        )
        if key != expected:
            yield Discrepancy(
                "keys", where, "the key of the score is not that of its sample, ground truth, image and scorer"
            )

    def outputs(self) -> Iterator[Discrepancy]:
        """Check summary.json and the tables against the rows."""
        file = self.run.path / artifacts.SUMMARY_FILE
        if not file.is_file():
            self.notes.append("summary.json is missing: no figures were compared")
            return
        try:
            written = parse_json(file.read_text(encoding="utf-8"))
            stored = {(each["scorer"], each["protocol"]): each for each in written["summaries"]}
        except (ValueError, KeyError, TypeError) as error:
            yield Discrepancy("summary", file.name, f"cannot be read ({error})")
            return
        if _spec_of(written) != self.spec:
            yield Discrepancy("summary", file.name, "was written for another specification than that of run.json")
        known = {scorer.name for scorer in self.spec.scorers}
        for (scorer, protocol), summary in stored.items():
            if scorer not in known or protocol not in PROTOCOLS:
                yield Discrepancy("summary", f"{file.name}, {scorer}, {protocol}", "unknown scorer or protocol")
            else:
                yield from self._summary(f"{file.name}, {scorer}, {protocol}", summary)
        if missing := known - {scorer for scorer, _ in stored}:
            yield Discrepancy("summary", file.name, f"has no figures of {', '.join(sorted(missing))}")
        with RunStore.read(self.run.path) as store:
            yield from self._tables(artifacts.agent_table_files(store))

    def _summary(self, where: str, stored: Mapping[str, Any]) -> Iterator[Discrepancy]:
        made = self.run.summarise(stored["protocol"], stored["scorer"])
        if stored.get("protocol_version") != made.protocol_version:
            self.notes.append(
                f"{where}: written under version {stored.get('protocol_version')} of the protocol, which is now "
                f"{made.protocol_version}; not compared"
            )
            return
        self.checked["summaries"] += 1
        name = made.system
        stored_plain = {key: value for key, value in stored.items() if key not in _NOT_COMPARED}
        made_plain = {key: value for key, value in made.model_dump(mode="json").items() if key not in _NOT_COMPARED}
        if difference := _first_difference(stored_plain, made_plain, ""):
            yield Discrepancy("summary", where, f"{difference} (from the rows)")
            return
        # a later call on the directory that found nothing to do took time as well, and wrote no tables
        shown = {key: stored[key] for key in _NOT_COMPARED if isinstance(stored.get(key), int | float)}
        yield from self._tables(artifacts.table_files(self.run.path, made.model_copy(update={"system": name, **shown})))

    def _tables(self, files: Mapping[Path, str]) -> Iterator[Discrepancy]:
        for file, text in files.items():
            if file.is_file() and file.read_text(encoding="utf-8") != text:
                self.checked["tables"] += 1
                yield Discrepancy("tables", f"{file.parent.name}/{file.name}", "differs from what the rows give")


def _spec_of(written: Mapping[str, Any]) -> RunSpec | None:
    """Return the specification in summary.json, which an earlier version may have written; None if it is none."""
    try:
        return RunSpec.model_validate(written.get("spec"))
    except ValidationError:
        return None


_NOT_COMPARED = frozenset({"seconds", "cost"})
"""Parts of a summary that are not figures and may change with an interrupted call on the directory."""


def _difference(stored: ParsedScore, parsed: ParsedScore) -> str:
    """Return how a stored score differs from one that was parsed again; empty if it does not."""
    if stored.status is not parsed.status:
        return f"{stored.status.value} is stored, the replies give {parsed.status.value}"
    for name in sorted(stored.values.keys() | parsed.values.keys()):
        there, own = stored.values.get(name), parsed.values.get(name)
        if there is None or own is None or not math.isclose(there, own, abs_tol=_TOLERANCE):
            return f"{name} {there} is stored, the replies give {own}"
    return "" if set(stored.na) == set(parsed.na) else f"N/A {list(stored.na)} is stored, the replies give {parsed.na}"


def _first_difference(stored: Any, made: Any, name: str) -> str:
    """Return the first difference of two plain values in words; empty if there is none."""
    if isinstance(stored, dict) and isinstance(made, dict):
        for key in sorted(stored.keys() | made.keys()):
            if difference := _first_difference(stored.get(key), made.get(key), f"{name}.{key}" if name else key):
                return difference
        return ""
    if isinstance(stored, list) and isinstance(made, list) and len(stored) == len(made):
        for place, (there, own) in enumerate(zip(stored, made, strict=True)):
            label = str(own.get("name") or own.get("kind")) if isinstance(own, dict) else str(place)
            if difference := _first_difference(there, own, f"{name}[{label}]"):
                return difference
        return ""
    numbers = isinstance(stored, int | float) and isinstance(made, int | float)
    same = math.isclose(stored, made, abs_tol=_TOLERANCE) if numbers else stored == made
    return "" if same else f"{name} is {stored!r} instead of {made!r}"


def closing_line(verification: Verification) -> str:
    """Return one line on what was checked and found."""
    checked = ", ".join(f"{number} {name}" for name, number in verification.checked.items())
    found = count(len(verification.findings), "finding") if verification.findings else "nothing found"
    return f"{found} ({checked} checked)"
