"""Patterns of file names in a folder of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowgen.core.errors import DataError, UsageError
from knowgen.interchange.image_sources import FolderSource
from knowgen.interchange.name_pattern import NamePattern, suggest
from tests.helpers import store_records

IDS = {name: name for name in ("a", "a_b", "s1", "sub/h", "\u00e9", "x.y")}


@pytest.mark.parametrize(
    ("pattern", "file", "place"),
    [
        ("{id}_seed*.png", "a_b_seed42.png", ("a_b", 0)),  # the longest id
        ("{id}_*", "a_7.jpg", ("a", 0)),
        ("{id}_*", "a_b_7.AVIF", ("a_b", 0)),
        ("{id}_seed*.png", "a_seed1.jpg", None),
        ("{id}_seed*.png", "a_seed1.PNG", ("a", 0)),
        ("{id}_seed*", "a.png", None),
        ("run/*/{id}.png", "run/images/s1.png", ("s1", 0)),
        ("run/*/{id}.png", "run/one/two/s1.png", None),  # a star stops at a slash
        ("*{id}*", "img-s1-final.webp", ("s1", 0)),
        ("{id}-{repeat}.png", "s1-3.png", ("s1", 3)),
        ("{repeat}/{id}", "12/sub/h.png", ("sub/h", 12)),
        ("*_{id}_{repeat}_*", "m_v2_a_b_1_seed9.png", ("a_b", 1)),
        ("img_{id}", "img_e\u0301.png", ("\u00e9", 0)),
        ("{id}", "x.y.png", ("x.y", 0)),
        ("{id}.*", "s1.png", ("s1", 0)),
        ("[{id}]", "[s1].png", ("s1", 0)),  # nothing else has a meaning
        ("{id}?", "s1x.png", None),
        ("{id}", "unknown.png", None),
    ],
)
def test_a_file_is_matched(pattern: str, file: str, place: tuple[str, int] | None) -> None:
    assert NamePattern(pattern).match(file, IDS) == place


@pytest.mark.parametrize("pattern", ["", "*.png", "{id}{id}", "{id}_{repeat}_{repeat}", "{id}_{seed}", "{id", "{id}}"])
def test_a_wrong_pattern_is_one_line_with_examples(pattern: str) -> None:
    with pytest.raises(UsageError, match=r"must have \{id\} once.*write for example"):
        NamePattern(pattern)


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("a_b_seed42.png", "{id}_seed*"), ("run/images/s1.png", "run/images/{id}"), ("s1.final.png", "{id}.final"),
        ("x1.png", ""), ("7/a.png", "7/{id}"),
    ],
)  # fmt: skip
def test_a_suggested_pattern_matches_the_file_it_was_made_for(file: str, pattern: str) -> None:
    assert suggest([file], IDS) == pattern
    assert not pattern or NamePattern(pattern).match(file, IDS)


def test_two_seeds_of_one_sample_need_a_repeat_in_the_pattern(tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / f"a_seed{number}.png").write_bytes(store_records.image_bytes(number))
    with pytest.raises(DataError, match=r"both for sample 'a'.*write \{repeat\} in the pattern"):
        FolderSource(tmp_path, ["a"], NamePattern("{id}_seed*"))
    source = FolderSource(tmp_path, ["a"], NamePattern("{id}_seed{repeat}"))
    assert (source.repeats, source.count, source.generation("a", 1).path) == (2, 2, tmp_path / "a_seed1.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_every_image_format_is_found_by_its_extension_in_any_case(tmp_path: Path, kind: str) -> None:
    for name in (kind.lower(), kind.upper()):
        (tmp_path / f"{name}.{name}").write_bytes(store_records.image_bytes(kind=kind))
    source = FolderSource(tmp_path, [kind.lower(), kind.upper()])
    assert [source.generation(name, 0).status for name in (kind.lower(), kind.upper())] == ["ok", "ok"]


def test_what_is_passed_over_is_listed_and_files_of_the_system_are_not(tmp_path: Path) -> None:
    for name in ("a.png", "b_seed1.png", "._a.png", ".DS_Store", "Thumbs.db", "desktop.ini", "a.txt", "b.heic"):
        (tmp_path / name).write_bytes(store_records.image_bytes())
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "a.png").write_bytes(b"")
    (tmp_path / "old").symlink_to(tmp_path)
    source = FolderSource(tmp_path, ["a", "b"])
    assert source.missing == ("b",)
    assert source.passed_over() == (
        "1 image of no sample ('b_seed1.png'), 2 other files ('a.txt', 'b.heic'), 1 linked folder, not followed ('old')"
    )
