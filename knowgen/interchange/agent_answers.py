"""One search drawn by many painters: an agent's answers as the source of requests.

A source is a run directory whose generations carry a rewritten prompt and reference images, or a file of the published
agent: a JSON array, or an object a line, of records `{id, prompt, gen_prompt, reference_images: [{local_path, note,
title, …}]}` with paths relative to the file. Where a record has no prompt of the agent's or no reference that opens,
the sample's own prompt is drawn, as the published system does, and the reason is noted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.records import Generation, ImageRef
from knowgen.core.spec import fingerprint
from knowgen.generators.contract import AgentAnswer, AnswerSource
from knowgen.interchange.image_sources import picture_facts
from knowgen.store.folder import is_run_directory
from knowgen.store.run import RunStore

MOST_REFERENCES = 5
"""Reference images of one answer; further ones are dropped (source: the published agent)."""

_NOTED = ("img_id", "title", "note", "url", "page_url", "path", "sha256")


def open_requests(path: Path) -> AnswerSource:
    """Opens a source of requests.

    Args:
        path: A run directory, or a file of the published agent.

    Raises:
        DataError: There is nothing at the path, or it is neither.
    """
    if is_run_directory(path):
        return RunAnswers(path)
    if not path.exists():
        raise DataError("is missing", where=str(path), fix="name a run directory or an agent's results file")
    if path.is_dir():
        raise DataError("is no run directory", where=str(path), fix="name a run directory or an agent's results file")
    return FileAnswers(path)


class _Answers:
    """Answers by sample id and repeat, looked at once each."""

    def __init__(self, where: Path) -> None:
        self._where = where
        self._known: dict[tuple[str, int], AgentAnswer] = {}

    def answer(self, sample_id: str, repeat: int) -> AgentAnswer:
        """Returns what is to be drawn for a sample and repeat."""
        place = (sample_id, repeat)
        if place not in self._known:
            self._known[place] = self._look(sample_id, repeat)
        return self._known[place]

    def _look(self, sample_id: str, repeat: int) -> AgentAnswer:
        raise AssertionError("each source looks in its own way")


class RunAnswers(_Answers):
    """The answers of an agent that ran here.

    Args:
        path: Its run directory.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._store = RunStore.read(path)

    @cached_property
    def identity(self) -> str:
        """Tells these answers from any others."""
        said = [
            [generation.sample_id, generation.repeat, generation.used_prompt, _digests(generation.references)]
            for _, generation in self._store.generations()
        ]
        return f"{self._store.spec.generator.name} {fingerprint([self._store.spec.task_version, said])[:12]}"

    def _look(self, sample_id: str, repeat: int) -> AgentAnswer:
        answer = self._store.drawn(sample_id, repeat)
        if answer is None:
            return AgentAnswer(reason=f"the prompt alone: {self._where.name} has no answer for it")
        return _asked(answer.used_prompt, answer.references, self._where, answer)


class FileAnswers(_Answers):
    """The answers in a file of the published agent; it has one for each sample, which every repeat draws.

    Args:
        path: The file.

    Raises:
        DataError: It is no such file, or an id comes twice.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._records: dict[str, Mapping[str, Any]] = {}
        for number, record in enumerate(_records(path)):
            if "id" not in record:
                raise DataError(f"record {number} has no id", where=str(path), fix="give each record its sample's id")
            if (name := str(record["id"])) in self._records:
                raise DataError(f"the id {name!r} comes twice", where=str(path), fix="make ids unique")
            self._records[name] = record

    @cached_property
    def identity(self) -> str:
        """Tells these answers from any others."""
        said = [
            [name, record.get("gen_prompt"), [_picture_digest(self._where.parent, each) for each in _listed(record)]]
            for name, record in self._records.items()
        ]
        return f"{self._where.stem} {fingerprint(said)[:12]}"

    def _look(self, sample_id: str, repeat: int) -> AgentAnswer:
        record = self._records.get(sample_id)
        if record is None:
            return AgentAnswer(reason=f"the prompt alone: {self._where.name} has no answer for it")
        prompt = record.get("gen_prompt")
        return _asked(prompt if isinstance(prompt, str) else "", _listed(record), self._where.parent, None)


def _asked(prompt: str, listed: Sequence[Mapping[str, Any]], base: Path, answer: Generation | None) -> AgentAnswer:
    """Makes a request of an answer, or says why its prompt alone is drawn."""
    found: list[ImageRef] = []
    noted: list[dict[str, Any]] = []
    faults: list[str] = []
    for each in listed[:MOST_REFERENCES]:
        path = _path(base, each)
        try:
            if path is None:
                raise DataError("names no file", where=str(each.get("img_id", "a reference")))
            picture = picture_facts(path)
        except DataError as error:
            faults.append(str(error))
            continue
        found.append(picture)
        told = {name: each[name] for name in _NOTED if isinstance(each.get(name), str)}
        noted.append(told | {"path": str(path), "sha256": picture.sha256})
    gathered = AgentAnswer() if answer is None else AgentAnswer(evidence=answer.evidence, trajectory=answer.trajectory)
    if not prompt.strip():
        return replace(gathered, reason="the prompt alone: the agent gave none of its own")
    if not found:
        why = faults[0] if faults else "it names none"
        return replace(gathered, reason=f"the prompt alone: no reference of the agent's is usable ({why})")
    dropped = f"references left out: {'; '.join(faults)}" if faults else ""
    return replace(gathered, prompt=prompt, references=tuple(found), reference_notes=tuple(noted), reason=dropped)


def _path(base: Path, reference: Mapping[str, Any]) -> Path | None:
    named = next((reference[name] for name in ("local_path", "path") if isinstance(reference.get(name), str)), "")
    return (base / named).absolute() if named.strip() else None


def _listed(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed = record.get("reference_images")
    return [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []


def _digests(references: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(each.get("sha256") or each.get("path") or "") for each in references]


def _picture_digest(base: Path, reference: Mapping[str, Any]) -> str:
    path = _path(base, reference)
    try:
        return picture_facts(path).sha256 if path is not None else ""
    except DataError:
        return ""  # one that does not open is no part of any request


def _records(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as UTF-8 text ({error})", where=str(path)) from error
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else _lines(text, path)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no JSON ({error})", where=str(path)) from error
    if not found or not all(isinstance(record, Mapping) for record in found):
        raise DataError("holds no records", where=str(path), fix="write a JSON array of records, or one a line")
    return list(found)


def _lines(text: str, path: Path) -> list[Any]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if line.strip():
                found.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"is no JSON ({error})", where=f"{path}:{number}", fix="mend that line") from error
    return found
