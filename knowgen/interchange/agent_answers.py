"""Stored agent answers as the source of prompts and references, so that one search serves many generators.

A source is a run directory whose generations have a rewritten prompt and reference images, or a results file of the
published agent: a JSON array, or JSON Lines, of records `{id, prompt, gen_prompt, reference_images: [{local_path, note,
title, …}]}` with paths relative to the file. A record may name its `repeat`, as those of exported trajectories do. If a
record has no rewritten prompt or no readable reference, the image is generated from the sample's own prompt, as in the
published system, and the reason is recorded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.records import AgentAnswer, AnswerStatus, Generation, ImageRef, UsagePart
from knowgen.core.sample_ids import SeenIds, comparable_id, id_text
from knowgen.core.spec import fingerprint
from knowgen.core.text_files import parse_strict_json, read_text, split_lines
from knowgen.generators.contract import AnswerSource
from knowgen.interchange.image_sources import image_facts
from knowgen.interchange.official import SUMMARY_MARK
from knowgen.interchange.recorded_images import RecordedImages
from knowgen.store.folder import is_run_directory
from knowgen.store.run import RunStore

MAX_REFERENCES = 5
"""Maximum number of reference images of an answer; further ones are dropped (source: the published agent)."""

_REFERENCE_FIELDS = ("img_id", "title", "note", "url", "page_url", "path", "sha256")

_FIX = "give a run directory or a results file of the agent"


def open_answers(path: Path) -> AnswerSource:
    """Open a source of agent answers.

    Args:
        path: A run directory, or a results file of the published agent.

    Raises:
        DataError: The path does not exist, or is neither.
    """
    if is_run_directory(path):
        return RunAnswers(path)
    if not path.exists():
        raise DataError("is missing", where=str(path), fix=_FIX)
    if path.is_dir():
        raise DataError("not a run directory (run.json is missing)", where=str(path), fix=_FIX)
    return FileAnswers(path)


def open_keyed_answers(path: Path, *, with_failed: bool = False) -> RunAnswers:
    """Open the stored answers of a run, which another run of the same agent takes over by key.

    Args:
        path: The run directory.
        with_failed: Whether answers that failed are taken over too, for a run that does not search.

    Raises:
        DataError: The path does not exist, or is not a run directory.
    """
    if not path.exists():
        raise DataError("is missing", where=str(path), fix=_FIX)
    if not is_run_directory(path):
        raise DataError(
            "has no stored answers of an agent",
            where=str(path),
            fix="name a run of this agent, or name an image model as generator to generate from a file",
        )
    return RunAnswers(path, with_failed=with_failed)


class _StoredAnswers(ABC):
    """Agent answers by sample id and repeat; each is read once."""

    def __init__(self, where: Path) -> None:
        self._where = where
        self._read: dict[tuple[str, int], AgentAnswer] = {}

    def answer(self, sample_id: str, repeat: int) -> AgentAnswer:
        """Return the agent answer for a sample and repeat."""
        place = (sample_id, repeat)
        if place not in self._read:
            self._read[place] = self._read_answer(sample_id, repeat)
        return self._read[place]

    @abstractmethod
    def _read_answer(self, sample_id: str, repeat: int) -> AgentAnswer:
        """Read the agent answer for a sample and repeat."""


class RunAnswers(_StoredAnswers):
    """The answers of a run directory: those of its agent, or what its generations record.

    Args:
        path: The run directory.
        with_failed: As in `open_keyed_answers`.
    """

    def __init__(self, path: Path, *, with_failed: bool = False) -> None:
        super().__init__(path)
        self._store = RunStore.read(path)
        self._with_failed = with_failed
        self._has_agent = self._store.spec.agent is not None

    @cached_property
    def identity(self) -> str:
        """Name of the agent or generator and hash of all answers."""
        spec = self._store.spec
        if spec.agent is not None:
            given = [
                [each.sample_id, each.repeat, each.prompt, [image.sha256 for image in each.references]]
                for _, each in self._store.answers()
            ]
            return f"{spec.agent.name} {fingerprint([spec.task_version, given])[:12]}"
        answers = [
            [generation.sample_id, generation.repeat, generation.used_prompt, _digests(generation.references)]
            for _, generation in self._store.generations()
        ]
        return f"{spec.generator.name} {fingerprint([spec.task_version, answers])[:12]}"

    @property
    def privileged(self) -> bool:
        """Whether the run's agent or generator received the ground truth."""
        return self._store.spec.privileged

    def _read_answer(self, sample_id: str, repeat: int) -> AgentAnswer:
        if self._has_agent:
            return self._agents_answer(self._store.latest_answer(sample_id, repeat))
        generation = self._store.latest_generation(sample_id, repeat)
        if generation is None:
            return AgentAnswer(reason=f"the prompt alone: {self._where.name} has no answer for it")
        names = [name for each in generation.references if (name := _recorded(each))]
        files = RecordedImages(self._where, truths=names)
        return _answer(generation.used_prompt, generation.references, files, generation)

    def _agents_answer(self, answer: AgentAnswer | None) -> AgentAnswer:
        """Return a stored answer for a generator without an agent; where it cannot be used, with a reason only."""
        if answer is None:
            return AgentAnswer(reason=f"the prompt alone: {self._where.name} has no answer for it")
        unused = answer.model_copy(update={"prompt": "", "references": (), "reference_notes": (), "images": ()})
        if answer.status is not AnswerStatus.OK:
            why = answer.ending or answer.reason
            reason = f"the prompt alone: the agent gave no answer ({why})"
            return unused.model_copy(update={"status": AnswerStatus.OK, "cause": None, "reason": reason})
        records = [dict(each) for each in answer.reference_notes] or [{} for _ in answer.references]
        named = [
            {**record, "path": str(image.path), "sha256": image.sha256}
            for record, image in zip(records, answer.references, strict=True)
        ]
        made = _answer(answer.prompt, named, RecordedImages(self._where), None)
        return made.model_copy(
            update={
                "reason": "; ".join(filter(None, (answer.reason, made.reason))),
                "ending": answer.ending,
                "evidence": answer.evidence,
                "trajectory": answer.trajectory,
            }
        )

    def take(self, key: str, store: RunStore) -> AgentAnswer | None:
        """Copy the answer of a key with its images into a run; see `generators.contract.KeyedAnswers`."""
        answer = self._store.answer(key)
        if answer is None or (answer.status is AnswerStatus.FAILED and not self._with_failed):
            return None
        references = [store.take_image(image, image.path) for image in answer.references if image.path is not None]
        if None in references:
            return None  # a file is missing or damaged, so the agent searches again
        seen = [store.take_image(image, image.path) for image in answer.images if image.path is not None]
        taken = answer.model_copy(
            update={
                "references": tuple(references),
                "images": tuple(image for image in seen if image is not None),
                "usage": tuple(map(_paid_elsewhere, answer.usage)),
            }
        )
        store.put_answer(key, taken)
        return taken


def _paid_elsewhere(part: UsagePart) -> UsagePart:
    """Return what a part used without its cost, which the other run has paid."""
    return part.model_copy(update={"usage": part.usage.model_copy(update={"cost": 0.0})})


class FileAnswers(_StoredAnswers):
    """The agent answers of a results file of the published agent, or of exported trajectories.

    A record without a `repeat` is used for every repeat of its sample.

    Args:
        path: The file.

    Raises:
        DataError: The file is not a results file, or an id is a duplicate.
    """

    privileged = False  # a results file does not say; the published agent receives no ground truth

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._records: dict[tuple[str, int | None], Mapping[str, Any]] = {}
        seen: dict[int | None, SeenIds] = {}
        for number, (place, record) in enumerate(_records(path)):
            where = f"{path}:{place}" if place else f"{path}, record {number}"
            if "id" not in record:
                raise DataError("has no id", where=where, fix="add the id of its sample")
            name = id_text(record["id"], where)
            repeat = _repeat(record, where)
            seen.setdefault(repeat, SeenIds()).add(name, f"line {place}" if place else f"record {number}", where)
            self._records[comparable_id(name), repeat] = record
        names = [name for record in self._records.values() for each in _references(record) if (name := _recorded(each))]
        self._files = RecordedImages(path.parent, truths=names)

    @cached_property
    def identity(self) -> str:
        """File name and hash of all answers."""
        answers = [
            [*name, record.get("gen_prompt"), [_image_digest(self._files, each) for each in _references(record)]]
            for name, record in self._records.items()
        ]
        return f"{self._where.stem} {fingerprint(answers)[:12]}"

    def _read_answer(self, sample_id: str, repeat: int) -> AgentAnswer:
        form = comparable_id(sample_id)
        record = self._records.get((form, repeat)) or self._records.get((form, None))
        if record is None:
            return AgentAnswer(reason=f"the prompt alone: {self._where.name} has no answer for it")
        prompt, ending, status, why = (_text(record, name) for name in ("gen_prompt", "ending", "status", "reason"))
        evidence = record.get("evidence")
        texts = evidence if isinstance(evidence, list) else []
        given = {"ending": ending, "evidence": tuple(each for each in texts if isinstance(each, dict))}
        if status == AnswerStatus.NONE:
            return AgentAnswer(reason=f"the prompt alone: the agent gave no answer ({ending or why})", **given)
        made = _answer(prompt, _references(record), self._files, None)
        return _updated(made, reason="; ".join(filter(None, (why, made.reason))), **given)


def _answer(
    prompt: str, references: Sequence[Mapping[str, Any]], files: RecordedImages, generation: Generation | None
) -> AgentAnswer:
    """Return an agent answer with its readable references; if it is unusable, with a reason only."""
    images: list[ImageRef] = []
    notes: list[dict[str, Any]] = []
    problems: list[str] = []
    for each in references[:MAX_REFERENCES]:
        path = _path(files, each)
        try:
            if path is None:
                raise DataError("names no file", where=str(each.get("img_id", "a reference")))
            image = image_facts(path)
        except DataError as error:
            problems.append(str(error))
            continue
        images.append(image)
        fields = {name: each[name] for name in _REFERENCE_FIELDS if isinstance(each.get(name), str)}
        notes.append(fields | {"path": str(path), "sha256": image.sha256})
    answer = AgentAnswer()
    if generation is not None:
        answer = AgentAnswer(evidence=generation.evidence, trajectory=generation.trajectory)
    if not prompt.strip():
        return _updated(answer, reason="the prompt alone: the agent returned no prompt")
    if not images:
        why = problems[0] if problems else "it names none"
        return _updated(answer, reason=f"the prompt alone: no reference of the agent is usable ({why})")
    reason = f"references left out: {'; '.join(problems)}" if problems else ""
    return _updated(answer, prompt=prompt, references=tuple(images), reference_notes=tuple(notes), reason=reason)


def _updated(answer: AgentAnswer, **fields: Any) -> AgentAnswer:
    return answer.model_copy(update=fields)


def _recorded(reference: Mapping[str, Any]) -> str:
    """Return the path of a reference as written; empty if there is none."""
    name = next((reference[name] for name in ("local_path", "path") if isinstance(reference.get(name), str)), "")
    return str(name) if name.strip() else ""


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""


def _repeat(record: Mapping[str, Any], where: str) -> int | None:
    """Return the repeat that a record is for; None for every one."""
    repeat = record.get("repeat")
    if repeat is not None and (not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 0):
        raise DataError(f"repeat must be a whole number >= 0, got {repeat!r}", where=where, fix=_FIX)
    return repeat


def _path(files: RecordedImages, reference: Mapping[str, Any]) -> Path | None:
    name = _recorded(reference)
    return (files.find(name, generated=False) or files.folder / name).absolute() if name else None


def _references(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    references = record.get("reference_images")
    return [each for each in references if isinstance(each, Mapping)] if isinstance(references, list) else []


def _digests(references: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(each.get("sha256") or each.get("path") or "") for each in references]


def _image_digest(files: RecordedImages, reference: Mapping[str, Any]) -> str:
    path = _path(files, reference)
    try:
        return image_facts(path).sha256 if path is not None else ""
    except DataError:
        return ""  # an unreadable image is not part of any request


def _records(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the records, each with its line number; 0 in a JSON array."""
    text = read_text(path, fix=_FIX)
    if text.lstrip().startswith("["):
        data = parse_strict_json(text, str(path))
        records = [(0, record) for record in data] if isinstance(data, list) else []
    else:
        lines = enumerate(split_lines(text), 1)
        records = [(number, parse_strict_json(line, f"{path}:{number}")) for number, line in lines if line.strip()]
    if not records or not all(isinstance(record, Mapping) for _, record in records):
        raise DataError("contains no records", where=str(path), fix="write a JSON array of records, or JSON Lines")
    return [(number, record) for number, record in records if SUMMARY_MARK not in record]
