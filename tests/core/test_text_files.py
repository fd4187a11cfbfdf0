"""Text files of other machines: encodings, line ends, broken JSON and YAML."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from knowgen.core import text_files
from knowgen.core.errors import DataError
from knowgen.core.text_files import numbered_lines, parse_strict_json, read_text
from knowgen.core.yaml_files import read_yaml


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_is_the_same_in_every_encoding_and_with_every_line_end(tmp_path: Path, encoding: str, end: str) -> None:
    file = tmp_path / "a.jsonl"
    lines = ["é\u2028\u2029\u0085\x0b\x0cone line", "", " ", "日"]
    file.write_bytes(end.join([*lines, ""]).encode(encoding))
    assert list(numbered_lines(file)) == [(1, lines[0]), (4, lines[3])]
    assert read_text(file).startswith("é\u2028")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_big_and_little_endian_are_read_by_their_mark_and_refused_without(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffone\ntwo".encode(encoding))
    assert list(numbered_lines(file)) == [(1, "one"), (2, "two")]
    file.write_bytes("one\ntwo".encode(encoding))
    for read in (read_text, lambda path: list(numbered_lines(path))):
        with pytest.raises(DataError, match="NUL byte, as UTF-16 without a mark does; save the file as UTF-8"):
            read(file)


def test_a_byte_that_cannot_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "latin.txt"
    for mark in (b"", b"\xef\xbb\xbf"):
        file.write_bytes(mark + b"one\r\ntwo\ncaf\xe9\n")
        for read in (read_text, lambda path: list(numbered_lines(path))):
            with pytest.raises(DataError) as caught:
                read(file)
            place = f"{file}:3: byte {len(mark) + 13} of the file (0xe9) is not UTF-8; save the file as UTF-8"
            assert str(caught.value) == place


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04\x14\x00\xff", "a zip archive, such as a spreadsheet"),
        (b"\x1f\x8b\x08\xff", "compressed with gzip"),
        (b"\x89PNG\r\n\x1a\n", "it is an image"),
        (b"%PDF-1.7\n\xff", "it is a PDF"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_text(tmp_path / "a")
    with pytest.raises(DataError, match=words):
        list(numbered_lines(tmp_path / "a"))


def test_what_is_not_a_file_is_refused_without_reading_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {"/dev/zero": "is a device", str(tmp_path): "is a folder", "a\0b": "not a valid file name"}
    for name, words in {**cases, str(tmp_path / "none"): "is missing"}.items():
        with pytest.raises(DataError, match=words):
            read_text(Path(name))
        with pytest.raises(DataError, match=words):
            list(numbered_lines(Path(name)))
    (tmp_path / "large").write_bytes(b"12345")
    monkeypatch.setattr(text_files, "MAX_BYTES", 4)
    with pytest.raises(DataError, match="has 5 bytes, at most 4 are read"):
        read_text(tmp_path / "large")


def test_a_pipe_is_read_to_its_end_and_one_without_a_writer_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"\xef\xbb\xbf" + b"x" * 100_000,))
    writer.start()
    assert read_text(pipe) == "x" * 100_000
    writer.join()
    monkeypatch.setattr(text_files, "PIPE_SECONDS", 0.01)
    with pytest.raises(DataError, match="a pipe to which nobody writes"):
        read_text(pipe)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Expecting property name"),
        ("", "Expecting value"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the field 'c' is there twice"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ("1" * 5000, "Exceeds the limit"),
        ("1e400", "the number 1e400 is too large"),
        ('"\x01"', "Invalid control character"),
    ],
)
def test_json_that_is_broken_or_ambiguous_is_one_line(text: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        parse_strict_json(text, "a.jsonl:3")
    assert str(caught.value).startswith("a.jsonl:3: invalid JSON: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 5000, "nested too deeply"),
        ("a: &a [*a]", "more than 100000 values"),
        ("a: 2026-13-45", r"broken YAML: month must be in 1\.\.12"),
        ("a: 1\nb: [", r"a\.yaml:2: broken YAML"),
        ("a: !!python/object:os.system {}", "broken YAML: could not determine a constructor"),
        ("\n".join(["a0: &a0 [1]", *(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]" for n in range(1, 12))]), "more than"),
    ],
)  # fmt: skip
def test_yaml_that_is_broken_or_explodes_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_yaml(file)
    assert "\n" not in str(caught.value)


def test_yaml_aliases_are_allowed_where_they_stay_small(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("a: &a {x: 1}\r\nb: *a\r\n".encode("utf-16"))
    assert read_yaml(tmp_path / "a.yaml").data == {"a": {"x": 1}, "b": {"x": 1}}
