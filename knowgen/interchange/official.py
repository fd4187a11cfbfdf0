"""The result files of the official evaluator, read to the letter: rows as they are, a task, and a source of drawings.

A row is `{id, success, prompt, meta {category, difficulty}, output_path, gt_image}`; paths are relative to the file.
Neighbouring benchmarks write the same under other names, which are read where the official one is absent.
What the official evaluator writes, `results_eval.json`, is read as well: its verdicts stay in the rows, its three
summary rows are kept apart. Writing is in `knowgen.interchange.official_export`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from knowgen.core.errors import DataError
from knowgen.core.records import GenerationStatus, GroundTruth, ImageRef, Sample, group_of
from knowgen.core.spec import fingerprint
from knowgen.interchange.image_sources import ImageSource, failed, file_digest, look_at, picture_facts

EMPTY_PROMPT = "empty_prompt"
NOT_EVALUATED = "not_evaluated"
SUMMARY_MARK = "summary_type"

PROMPTS = ("prompt", "question", "user_prompt", "image_prompt")
OUTPUTS = ("output_path", "image_path", "generated_image")
TRUTHS = ("gt_image", "ground_truth", "target_image", "reference_image")
EITHER = "gen_image"
"""An older official name of the ground truth, and elsewhere one of the generated picture."""


@dataclass(frozen=True)
class OfficialRow:
    """One row of a results file.

    Attributes:
        place: Its number in the file, from 0.
        fields: The row as it stands.
        base: Folder that its paths are relative to.
        was_judged: What `to_be_judged` was when the row was read first, where that is known.
    """

    place: int
    fields: dict[str, Any]
    base: Path
    was_judged: bool | None = None

    @property
    def id(self) -> str | None:
        """The id as text; None where the row has none."""
        return str(self.fields["id"]) if "id" in self.fields else None

    @property
    def prompt(self) -> str:
        """The prompt as the judge reads it: without white space around it."""
        prompt = next((self.fields[name] for name in PROMPTS if name in self.fields), None)
        return prompt.strip() if isinstance(prompt, str) else ""

    @property
    def meta(self) -> dict[str, Any]:
        """What the row says about its sample; empty where that is no object."""
        meta = self.fields.get("meta")
        return meta if isinstance(meta, dict) else {}

    @property
    def category(self) -> str:
        """The category in lower case, as groups are looked up."""
        category = self.meta.get("category")
        return category.strip().lower() if isinstance(category, str) else ""

    @property
    def success(self) -> bool:
        """Did the generator say it succeeded? Any true `success` counts, or, without one, the `image_status` ok."""
        if "success" in self.fields:
            return bool(self.fields["success"])
        return self.fields.get("image_status") == "ok"

    @property
    def output_name(self) -> str | None:
        """Name of the field that names the generated picture; None where there is none.

        `gen_image` is that field unless the row has another one for it and names no ground truth.
        """
        found = next((name for name in OUTPUTS if name in self.fields), None)
        return EITHER if found is None and EITHER in self.fields else found

    @property
    def truth_name(self) -> str | None:
        """Name of the field that names the ground truth; None where there is none."""
        found = next((name for name in TRUTHS if self._path(name) is not None), None)
        if found is None and self.output_name not in {None, EITHER} and self._path(EITHER) is not None:
            return EITHER
        return found

    @property
    def output(self) -> Path | None:
        """Where the generated picture should lie; None where the row names none."""
        return None if self.output_name is None else self._path(self.output_name)

    @property
    def truth(self) -> Path | None:
        """Where the ground truth should lie; None where the row names none."""
        return None if self.truth_name is None else self._path(self.truth_name)

    def _path(self, name: str) -> Path | None:
        value = self.fields.get(name)
        if not isinstance(value, str) or not value.strip():
            return None
        return self.base / value  # an absolute path stays as it is

    @property
    def to_be_judged(self) -> bool:
        """Would the official evaluator judge it? `success`, and both files are there."""
        if self.was_judged is not None:
            return self.was_judged
        return self.success and all(path is not None and _exists(path) for path in (self.output, self.truth))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def read_results(path: Path) -> OfficialResults:
    """Reads `results.json` or `results_eval.json`.

    Args:
        path: The file.

    Raises:
        DataError: It is missing, no JSON array, or a row is no object.
    """
    where = str(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise DataError("is missing", where=where) from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=where) from error
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", where=where) from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"is no JSON ({error})", where=where, fix="write it with a JSON library") from error
    if not isinstance(data, list):
        raise DataError("must be a JSON array of rows", where=where)
    return _results_of(data, path.resolve().parent, path.name)


def _results_of(data: list[Any], base: Path, name: str) -> OfficialResults:
    rows: list[OfficialRow] = []
    summaries: list[dict[str, Any]] = []
    for place, item in enumerate(data):
        if not isinstance(item, dict):
            raise DataError(f"row {place} is no object", where=str(base / name), fix="each row must be {…}")
        if SUMMARY_MARK in item:
            summaries.append(item)
        else:
            rows.append(OfficialRow(place, item, base))
    return OfficialResults(base / name, tuple(rows), tuple(summaries))


@dataclass(frozen=True)
class OfficialResults:
    """A results file.

    Attributes:
        path: The file.
        rows: In order, as they stand; ids may be text or numbers, be missing, or come twice.
        summaries: The summary rows of an evaluated file, as they stand.
    """

    path: Path
    rows: tuple[OfficialRow, ...]
    summaries: tuple[dict[str, Any], ...] = ()

    def by_id(self, duplicates: Literal["error", "last"] = "error") -> dict[str, OfficialRow]:
        """Returns the row that stands for each id, in the order of first appearance; rows without id are left out.

        Args:
            duplicates: `error`, or `last`: of several rows the last that would be judged, else the last.

        Raises:
            DataError: An id comes twice, and that is an error.
        """
        chosen: dict[str, OfficialRow] = {}
        for row in self.rows:
            if row.id is None:
                continue
            earlier = chosen.get(row.id)
            if earlier is not None and duplicates == "error":
                raise DataError(
                    f"id {row.id!r} comes twice, in rows {earlier.place} and {row.place}",
                    where=str(self.path),
                    fix="give each row its own id, or take the last of them with --duplicates last",
                )
            if earlier is None or row.to_be_judged or not earlier.to_be_judged:
                chosen[row.id] = row
        return chosen

    def task(self, name: str = "results", duplicates: Literal["error", "last"] = "error") -> OfficialTask:
        """Returns the prompts and ground truths of the file as a task.

        Raises:
            DataError: An id comes twice, and that is an error.
        """
        return OfficialTask(name, self.by_id(duplicates))

    def drawings(self, duplicates: Literal["error", "last"] = "error") -> OfficialGenerations:
        """Returns the generated pictures of the file as a source.

        Raises:
            DataError: An id comes twice, and that is an error.
        """
        return OfficialGenerations(self.path, self.by_id(duplicates))


@dataclass
class OfficialTask:
    """The prompts and ground truths of a results file; satisfies `knowgen.tasks.contract.Task`.

    A ground truth that is missing or does not open leaves its sample without one; `truth` says why in `extra`.

    Attributes:
        name: As users call it.
        chosen: The row of each sample.
        default_scorers: None of its own.
        search: None.
        search_version: None.
    """

    name: str
    chosen: dict[str, OfficialRow]
    default_scorers: tuple[str, ...] = ()
    search: str = ""
    search_version: str = ""
    _pictures: dict[str, ImageRef | str] = field(default_factory=dict, repr=False)

    @cached_property
    def version(self) -> str:
        """`official-` and a hash over ids, prompts, metas and the ground-truth pictures."""
        content = [
            [name, row.prompt, row.meta, file_digest(row.truth) if row.truth else ""]
            for name, row in self.chosen.items()
        ]
        try:
            return f"official-{fingerprint(json.loads(json.dumps(content)))[:12]}"
        except ValueError as error:
            fix = "write the file as UTF-8 JSON, without NaN"
            what = f"a prompt or meta cannot be stored ({error})"
            raise DataError(what, where=f"task {self.name}", fix=fix) from error

    def __len__(self) -> int:
        """Returns the number of samples."""
        return len(self.chosen)

    def samples(self) -> Iterator[Sample]:
        """Yields the samples in the order of the file."""
        for name, row in self.chosen.items():
            rest = {key: value for key, value in row.meta.items() if key not in {"category", "difficulty"}}
            difficulty = row.meta.get("difficulty")
            yield Sample(
                id=name,
                prompt=row.prompt,
                category=row.category,
                group=group_of(row.category),
                difficulty=str(difficulty) if difficulty is not None else "",
                meta=rest,
            )

    def truth(self, sample_id: str) -> GroundTruth:
        """Returns the ground truth of a sample.

        Raises:
            DataError: There is no such sample.
        """
        if sample_id not in self.chosen:
            raise DataError(f"there is no sample {sample_id!r}", where=f"task {self.name}")
        if sample_id not in self._pictures:
            self._pictures[sample_id] = _picture(self.chosen[sample_id])
        found = self._pictures[sample_id]
        if isinstance(found, str):
            return GroundTruth(sample_id=sample_id, extra={"image_fault": found})
        return GroundTruth(sample_id=sample_id, image=found)


def _picture(row: OfficialRow) -> ImageRef | str:
    if row.truth is None:
        return "the row names no ground-truth picture"
    try:
        return picture_facts(row.truth)
    except DataError as error:
        return f"{row.fields[row.truth_name or TRUTHS[0]]}: {error.what}"


@dataclass
class OfficialGenerations:
    """The generated pictures of a results file; satisfies the engine's drawing source but for `ImageSource`.

    Attributes:
        path: The file.
        chosen: The row of each sample.
    """

    path: Path
    chosen: dict[str, OfficialRow]

    @property
    def name(self) -> str:
        """Name of the file's folder, which says whose results they are."""
        return self.path.parent.name or self.path.stem

    @cached_property
    def revision(self) -> str:
        """Hash over what the rows say and the bytes of their pictures."""
        content = [
            [name, row.success, not row.prompt, file_digest(row.output) if row.output else ""]
            for name, row in self.chosen.items()
        ]
        return fingerprint(content)[:12]

    def generation(self, sample_id: str, repeat: int) -> ImageSource:
        """Returns the picture of a sample, or why there is none; a results file holds repeat 0 alone."""
        row = self.chosen.get(sample_id)
        if row is None:
            return failed(f"{self.path.name} has no row for sample {sample_id!r}")
        if repeat:
            return failed(f"{self.path.name} holds one picture a sample, not repeat {repeat}")
        if not row.success:
            return failed(f"{self.path.name}, row {row.place}: success is false{_own_words(row)}")
        if row.output is None:
            return failed(f"{self.path.name}, row {row.place}: names no picture")
        if not row.prompt:
            return failed(f"{self.path.name}, row {row.place}: the prompt is empty")
        found = look_at(row.output, str(row.fields[row.output_name or OUTPUTS[0]]))
        if found.status is GenerationStatus.OK:
            return found
        return failed(f"{self.path.name}, row {row.place}: {found.reason}")


def _own_words(row: OfficialRow) -> str:
    """Returns what the generator itself said about its failure."""
    words = row.fields.get("error")
    return f" ({' '.join(words.split())[:200]})" if isinstance(words, str) and words.strip() else ""
