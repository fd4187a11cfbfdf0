"""Read the result files of the official evaluator: their rows as written, a task, and the generated images.

A row is `{id, success, prompt, meta {category, difficulty}, output_path, gt_image}`; paths are relative to the file.
Related benchmarks use other field names, which are read if the official one is absent. The output of the official
evaluator, `results_eval.json`, can be read as well: its scores stay in the rows, its three summary rows are separate.
Writing is in `knowgen.interchange.official_export`.

Source of format, weights and constants: the KnowGen evaluator published with Gen-Searcher, arXiv 2603.28767.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from knowgen.core.errors import DataError
from knowgen.core.records import OFFICIAL_SKIP, GenerationStatus, GroundTruth, ImageRef, Sample, group_of
from knowgen.core.sample_ids import comparable_id, id_text
from knowgen.core.spec import fingerprint
from knowgen.core.text import clean_text, error_message, one_line
from knowgen.core.text_files import parse_strict_json, read_text
from knowgen.interchange.image_sources import SourceImage, digest_or_unreadable, image_facts, no_image, source_image
from knowgen.interchange.recorded_images import RecordedImages, is_file_name

EMPTY_PROMPT = "empty_prompt"
NOT_EVALUATED = "not_evaluated"
"""Values of `error` in rows that the official evaluator does not judge."""

SUMMARY_MARK = "summary_type"
"""Field that only summary rows have."""

PROMPTS = ("prompt", "question", "user_prompt", "image_prompt")
OUTPUTS = ("output_path", "image_path", "generated_image")
TRUTHS = ("gt_image", "ground_truth", "target_image", "reference_image")
"""Field names of prompt, generated image and ground truth; the first is the official one."""

GEN_IMAGE = "gen_image"
"""An older official name of the ground truth; in related benchmarks a name of the generated image."""


@dataclass(frozen=True)
class OfficialRow:
    """One row of a results file.

    Attributes:
        place: Row number in the file, from 0.
        fields: Fields of the row, unchanged.
        base: Folder that its paths are relative to.
        was_judged: Stored value of `to_be_judged` from when the row was first read, if known.
        files: Finds the files that its paths lead to; they are taken as written if None.
    """

    place: int
    fields: dict[str, Any]
    base: Path
    was_judged: bool | None = None
    files: RecordedImages | None = field(default=None, repr=False, compare=False)

    @property
    def id(self) -> str | None:
        """The id as text; None if the row has none."""
        return str(self.fields["id"]) if "id" in self.fields else None

    @property
    def prompt(self) -> str:
        """The prompt as the judge reads it, without surrounding white space."""
        prompt = next((self.fields[name] for name in PROMPTS if name in self.fields), None)
        return prompt.strip() if isinstance(prompt, str) else ""

    @property
    def meta(self) -> dict[str, Any]:
        """The `meta` object of the row; empty if there is none."""
        meta = self.fields.get("meta")
        return meta if isinstance(meta, dict) else {}

    @property
    def category(self) -> str:
        """The category in lower case, as used to look up groups."""
        category = self.meta.get("category")
        return category.strip().lower() if isinstance(category, str) else ""

    @property
    def success(self) -> bool:
        """Whether the generator reported success: a true `success`, or, without that field, `image_status` ok."""
        if "success" in self.fields:
            return bool(self.fields["success"])
        return self.fields.get("image_status") == "ok"

    @property
    def output_name(self) -> str | None:
        """Name of the field with the path of the generated image; None if there is none.

        `gen_image` is that field unless the row has another one for it.
        """
        name = next((name for name in OUTPUTS if name in self.fields), None)
        return GEN_IMAGE if name is None and GEN_IMAGE in self.fields else name

    @property
    def truth_name(self) -> str | None:
        """Name of the field with the path of the ground truth; None if there is none."""
        name = next((name for name in TRUTHS if self._path(name) is not None), None)
        if name is None and self.output_name not in {None, GEN_IMAGE} and self._path(GEN_IMAGE) is not None:
            return GEN_IMAGE
        return name

    @property
    def output(self) -> Path | None:
        """Path of the generated image; None if the row has none."""
        return None if self.output_name is None else self._path(self.output_name, generated=True)

    @property
    def truth(self) -> Path | None:
        """Path of the ground truth; None if the row has none."""
        return None if self.truth_name is None else self._path(self.truth_name)

    def recorded(self, name: str | None) -> str | None:
        """Return the path in a field, as written; None if there is none."""
        value = None if name is None else self.fields.get(name)
        return value if isinstance(value, str) and value.strip() else None

    def _path(self, name: str, *, generated: bool = False) -> Path | None:
        value = self.recorded(name)
        if value is None:
            return None
        found = self.files.find(value, generated=generated) if self.files is not None else None
        return found or self.base / value  # an absolute path is not changed by this

    @property
    def to_be_judged(self) -> bool:
        """Whether the official evaluator judges the row: `success`, and both files exist."""
        if self.was_judged is not None:
            return self.was_judged
        return self.success and self.has_output and self.has_truth

    @property
    def has_output(self) -> bool:
        """Whether the generated image exists."""
        return self.output is not None and _exists(self.output)

    @property
    def has_truth(self) -> bool:
        """Whether the ground truth exists."""
        return self.truth is not None and _exists(self.truth)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # not a valid file name
        return False


def read_results(path: Path, images: Path | None = None) -> OfficialResults:
    """Read `results.json` or `results_eval.json`.

    Args:
        path: The file.
        images: Folder of its images, if they are not where the file says.

    Raises:
        DataError: The file is missing or not a JSON array of objects, `images` is not a folder, or an id is neither
            text nor a whole number.
    """
    where = str(path)
    if images is not None and not images.is_dir():
        raise DataError("not a folder", where=str(images), fix="give the folder of the images with --images")
    data = parse_strict_json(read_text(path), where, nan=True)  # the official evaluator reads NaN as well
    if not isinstance(data, list):
        raise DataError("must be a JSON array of rows", where=where)
    return _results_of(data, path.resolve().parent, path.name, images)


def _results_of(data: list[Any], base: Path, name: str, images: Path | None) -> OfficialResults:
    rows: list[OfficialRow] = []
    summaries: list[dict[str, Any]] = []
    for place, item in enumerate(data):
        if not isinstance(item, dict):
            raise DataError(f"row {place} is not an object", where=str(base / name), fix="write each row as {…}")
        if SUMMARY_MARK in item:
            summaries.append(item)
        else:
            if "id" in item:
                id_text(item["id"], f"{base / name}, row {place}")
            rows.append(OfficialRow(place, item, base))
    generated = [recorded for row in rows if (recorded := row.recorded(row.output_name))]
    truths = [recorded for row in rows if (recorded := row.recorded(row.truth_name))]
    files = RecordedImages(base, generated, truths, images)
    return OfficialResults(base / name, tuple(replace(row, files=files) for row in rows), tuple(summaries), files)


@dataclass(frozen=True)
class OfficialResults:
    """A results file.

    Attributes:
        path: The file.
        rows: Rows in order, as written; ids may be text or numbers, missing, or duplicates.
        summaries: Summary rows of an evaluated file, as written.
    """

    path: Path
    rows: tuple[OfficialRow, ...]
    summaries: tuple[dict[str, Any], ...] = ()
    files: RecordedImages | None = field(default=None, repr=False, compare=False)

    @cached_property
    def _is_official(self) -> bool:
        """Whether a row has one of the official names of the images; no row of a related benchmark has."""
        return any(OUTPUTS[0] in row.fields or TRUTHS[0] in row.fields for row in self.rows)

    def skipped(self, row: OfficialRow) -> str:
        """Return why the official evaluator skips a row that can be judged here; empty if it does not.

        It reads `success`, `output_path` and `gt_image` alone. A file without any of the official image fields comes
        from a related benchmark; none of its rows is meant for that evaluator, and none is marked.
        """
        if not self._is_official or not row.to_be_judged:
            return ""
        named = {"success": "success" if "success" in row.fields else "image_status"}
        named |= {OUTPUTS[0]: row.output_name or "", TRUTHS[0]: row.truth_name or ""}
        other = next(((name, used) for name, used in named.items() if name != used), None)
        return f"the official evaluator skips this row: {other[1]} is there instead of {other[0]}" if other else ""

    def by_id(self, duplicates: Literal["error", "last"] = "error") -> dict[str, OfficialRow]:
        """Return the row that counts for each id, in the order of first appearance; rows without id are left out.

        Args:
            duplicates: What to do with several rows of one id: `error`, or `last`, with which the last row that would
                be judged counts, else the last row.

        Raises:
            DataError: An id is a duplicate and `duplicates` is `error`.
        """
        chosen: dict[str, OfficialRow] = {}
        names: dict[str, str] = {}
        for row in self.rows:
            if row.id is None:
                continue
            name = names.setdefault(comparable_id(row.id), row.id)
            earlier = chosen.get(name)
            if earlier is not None and duplicates == "error":
                raise DataError(
                    f"duplicate id {row.id!r}, in rows {earlier.place} and {row.place}",
                    where=str(self.path),
                    fix="make ids unique, or use the last row of each with --duplicates last",
                )
            if earlier is None or row.to_be_judged or not earlier.to_be_judged:
                chosen[name] = row
        return chosen

    def task(self, name: str = "results", duplicates: Literal["error", "last"] = "error") -> OfficialTask:
        """Return the prompts and ground truths of the file as a task.

        Raises:
            DataError: An id is a duplicate and `duplicates` is `error`.
        """
        chosen = self.by_id(duplicates)
        skips = {each: reason for each, row in chosen.items() if (reason := self.skipped(row))}
        return OfficialTask(name, chosen, skips)

    def images(self, duplicates: Literal["error", "last"] = "error") -> OfficialGenerations:
        """Return the generated images of the file as a source.

        Raises:
            DataError: An id is a duplicate and `duplicates` is `error`.
        """
        return OfficialGenerations(self.path, self.by_id(duplicates))


@dataclass
class OfficialTask:
    """The prompts and ground truths of a results file, as a `knowgen.tasks.contract.Task`.

    A sample whose ground truth is missing or unreadable has none; `truth` returns the reason in `extra`.

    Attributes:
        name: Name of the task.
        chosen: Row of each sample.
        skips: Why the official evaluator skips a sample, by id; the others are not there.
        default_scorers: Always empty.
        search: Always empty.
        search_version: Always empty.
    """

    name: str
    chosen: dict[str, OfficialRow]
    skips: dict[str, str] = field(default_factory=dict)
    default_scorers: tuple[str, ...] = ()
    search: str = ""
    search_version: str = ""
    _images: dict[str, ImageRef | str] = field(default_factory=dict, repr=False)

    @cached_property
    def version(self) -> str:
        """`official-` and a hash of ids, prompts, metas and ground-truth images."""
        content = []
        for name, row in self.chosen.items():
            entry = [name, row.prompt, row.meta, digest_or_unreadable(row.truth) if row.truth else ""]
            try:
                json.dumps(entry, allow_nan=False, ensure_ascii=False).encode()
            except ValueError as error:
                fix = "write the file as UTF-8 JSON, without NaN"
                what = f"a prompt or meta cannot be stored ({error_message(error, 80)})"
                raise DataError(what, where=f"task {self.name}, row {row.place} (id {name!r})", fix=fix) from error
            content.append(entry)
        return f"official-{fingerprint(content)[:12]}"

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.chosen)

    def samples(self) -> Iterator[Sample]:
        """Yield the samples in file order."""
        for name, row in self.chosen.items():
            rest = {key: value for key, value in row.meta.items() if key not in {"category", "difficulty"}}
            rest |= {OFFICIAL_SKIP: self.skips[name]} if name in self.skips else {}
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
        """Return the ground truth of a sample.

        Raises:
            DataError: The sample is unknown.
        """
        if sample_id not in self.chosen:
            raise DataError(f"no sample {sample_id!r}", where=f"task {self.name}")
        if sample_id not in self._images:
            self._images[sample_id] = _truth_image(self.chosen[sample_id])
        image = self._images[sample_id]
        if isinstance(image, str):
            return GroundTruth(sample_id=sample_id, extra={"image_fault": image})
        return GroundTruth(sample_id=sample_id, image=image)


def _truth_image(row: OfficialRow) -> ImageRef | str:
    """Return the ground-truth image of a row, or the reason why there is none."""
    if row.truth is None:
        return "the row names no ground-truth image"
    name = clean_text(str(row.recorded(row.truth_name)))
    if row.files is not None and (other := row.files.ambiguous.get(name)):
        return f"{name}: not used, because other rows lead to {other.name} as well"
    try:
        return image_facts(row.truth)
    except DataError as error:
        return f"{one_line(name)}: {error.what}"


@dataclass
class OfficialGenerations:
    """The generated images of a results file.

    Attributes:
        path: The file.
        chosen: Row of each sample.
    """

    path: Path
    chosen: dict[str, OfficialRow]

    @property
    def name(self) -> str:
        """Name of the file's folder, which usually names the system."""
        return self.path.parent.name or self.path.stem

    @cached_property
    def revision(self) -> str:
        """Hash of the rows' status and of the bytes of their images."""
        content = [
            [name, row.success, not row.prompt, digest_or_unreadable(row.output) if row.output else ""]
            for name, row in self.chosen.items()
        ]
        return fingerprint(content)[:12]

    def generation(self, sample_id: str, repeat: int) -> SourceImage:
        """Return the image of a sample, or the reason why there is none; a results file has only repeat 0."""
        row = self.chosen.get(sample_id)
        if row is None:
            return no_image(f"{self.path.name} has no row for sample {sample_id!r}")
        if repeat:
            return no_image(f"{self.path.name} has one image per sample, not repeat {repeat}")
        if not row.success:
            return no_image(f"{self.path.name}, row {row.place}: success is false{_error_text(row)}")
        if row.output is None:
            return no_image(f"{self.path.name}, row {row.place}: names no image")
        if not row.prompt:
            return no_image(f"{self.path.name}, row {row.place}: the prompt is empty")
        name = row.recorded(row.output_name) or ""
        if not is_file_name(name):
            return no_image(f"{self.path.name}, row {row.place}: {one_line(name)} is not a valid file name")
        if not row.has_output:
            ambiguous = row.files is not None and name in row.files.ambiguous
            why = "not used, because other rows lead to the same file" if ambiguous else "is missing"
            reason = f"{self.path.name}, row {row.place}: {one_line(name)}: {why}"
            return SourceImage(None, GenerationStatus.NOT_RUN, reason)  # the generator made it: it is not a failure
        image = source_image(row.output, one_line(name))
        if image.status is GenerationStatus.OK:
            return image
        return no_image(f"{self.path.name}, row {row.place}: {image.reason}")


def _error_text(row: OfficialRow) -> str:
    """Return the generator's own error message, in parentheses; empty if there is none."""
    words = row.fields.get("error")
    return f" ({' '.join(words.split())[:200]})" if isinstance(words, str) and words.strip() else ""
