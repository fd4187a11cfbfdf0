"""Files of labels: names, durability, half-written lines, and which label counts."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from knowgen.core.errors import DataError, UsageError
from knowgen.labelling.label_files import (
    append_label,
    current_labels,
    label_file,
    rater_name,
    read_folders,
    read_label_file,
)
from knowgen.labelling.records import StoredLabel


def a_label(number: int = 0, **changes: object) -> StoredLabel:
    """Return a rating; a higher number is later."""
    fields: dict[str, object] = {
        "mode": "rate", "at": f"2026-05-01T10:00:{number:02d}.000000+00:00", "rater": "ann", "task": "t",
        "task_version": "1", "sample": "s1", "systems": ("a",), "images": ("0" * 64,), "prompt": "p", "question": "q",
        "values": {"aesthetics": 0.5},
    }  # fmt: skip
    return StoredLabel.model_validate(fields | changes)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b", "..", ".hidden", "con", "NUL", "日本", "a\\b", "x" * 40, "~root"]
)
def test_no_name_of_a_rater_leads_out_of_the_folder(name: str) -> None:
    path = label_file(Path("labels"), rater_name(name))
    assert path.parent == Path("labels")
    assert path.name.isascii()
    assert not path.name.startswith(".")
    assert path.stem not in {"con", "nul"}
    assert path.suffix == ".jsonl"


def test_names_that_look_alike_have_files_of_their_own() -> None:
    names = ["Ann Lee", "ann-lee", "ann_lee", "änn lee", "ann/lee", "日本", "日本人"]
    assert len({label_file(Path("x"), name) for name in names}) == len(names)
    assert label_file(Path("x"), "ANN") == label_file(Path("x"), "ann")


@pytest.mark.parametrize("name", ["", "   ", "x" * 41, "a\x07b", "a\u202eb"])
def test_names_that_cannot_be_shown_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        rater_name(name)


def test_a_line_that_a_kill_left_half_written_is_left_out_and_harms_no_other(tmp_path: Path) -> None:
    path = tmp_path / "ann.jsonl"
    append_label(path, a_label(1))
    append_label(path, a_label(2, sample="s2"))
    path.write_bytes(path.read_bytes()[:-20])
    read = read_label_file(path)
    assert [one.sample for one in read.labels] == ["s1"]
    assert read.notes == (f"{path}:2: half-written line left out",)
    append_label(path, a_label(3, sample="s3"))
    assert [one.sample for one in read_label_file(path).labels] == ["s1", "s3"]


def test_nothing_that_was_written_is_ever_changed(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ann.jsonl"
    contents = []
    for number in range(3):
        append_label(path, a_label(number))
        contents.append(path.read_bytes())
    assert all(later.startswith(earlier) for earlier, later in pairwise(contents))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"mode": "rate"}', "not a label: at: Field required"),
        ("[1]", "not a label"),
        (a_label().model_dump_json().replace('"rate"', '"guess"'), "not a label: mode"),
        (a_label(systems=("a", "b"), images=("0", "1")).model_dump_json(), "not a label: wrong number of systems"),
        (a_label(values={"aesthetics": 7}).model_dump_json(), "not a label: values must be"),
        (a_label(values={}).model_dump_json(), "not a label: neither an answer nor"),
        (json.dumps(a_label().model_dump(mode="json") | {"surplus": 1}), "not a label: surplus"),
    ],
)
def test_a_complete_line_of_another_kind_is_an_error_with_its_place(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "ann.jsonl"
    path.write_text(f"{a_label().model_dump_json()}\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_label_file(path)
    assert f"{path}:2: {fault}" in str(caught.value)


def test_the_last_label_counts_and_a_withdrawn_one_does_not() -> None:
    labels = [
        a_label(1),
        a_label(2, sample="s2"),
        a_label(3, values={"aesthetics": 1}),
        a_label(4, sample="s2", undone=True),
        a_label(5, rater="Ann", sample="s3"),
        a_label(6, rater="ANN", sample="s3", skipped="cannot_tell", values={}),
    ]
    found = current_labels(labels)
    assert [(one.sample, one.values, one.skipped) for one in found] == [
        ("s1", {"aesthetics": 1.0}, ""),
        ("s3", {}, "cannot_tell"),
    ]


def test_folders_of_several_machines_are_read_together(tmp_path: Path) -> None:
    append_label(tmp_path / "here" / "ann.jsonl", a_label(2, values={"aesthetics": 1}))
    append_label(tmp_path / "there" / "ann.jsonl", a_label(1))
    append_label(tmp_path / "there" / "bob.jsonl", a_label(1, rater="bob"))
    found = current_labels(read_folders([tmp_path / "here", tmp_path / "there"]).labels)
    assert {(one.rater, one.values["aesthetics"]) for one in found} == {("ann", 1.0), ("bob", 0.5)}


def test_a_folder_without_labels_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_folders([tmp_path / "none"])
    with pytest.raises(DataError, match="holds no labels"):
        read_folders([tmp_path])


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("a file")
    with pytest.raises(DataError, match="the label is not stored"):
        append_label(tmp_path / "labels" / "ann.jsonl", a_label())
