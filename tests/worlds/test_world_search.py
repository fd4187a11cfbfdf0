"""The search backend of a world: hits, pages, and the files it never reads."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen.core import registry
from knowgen.core.errors import DataError, UsageError
from knowgen.search.text_index import TextIndex
from knowgen.worlds.search import WorldSearch
from tests.helpers.built_world import BuiltWorld, rows_of


def test_a_title_finds_its_own_page(built_world: BuiltWorld) -> None:
    for row in rows_of(built_world.folder / "search" / "pages.jsonl")[:60]:
        hits = asyncio.run(built_world.search.search(row["title"], 6))
        assert row["url"] in [hit.url for hit in hits], row["title"]


def test_there_are_at_most_k_hits_and_fewer_if_fewer_match(built_world: BuiltWorld) -> None:
    assert len(asyncio.run(built_world.search.search("village", 3))) == 3
    assert asyncio.run(built_world.search.search("qwxyz vbnmq", 5)) == []
    assert asyncio.run(built_world.search.search("", 5)) == []
    assert asyncio.run(built_world.search.search("village", 0)) == []
    assert asyncio.run(built_world.search.image_search("qwxyz", 5)) == []


def test_opened_pages_equal_those_in_the_folder(built_world: BuiltWorld) -> None:
    for row in rows_of(built_world.folder / "search" / "pages.jsonl")[:20]:
        assert asyncio.run(built_world.search.open(row["url"])).model_dump(mode="json") == row


def test_an_unknown_url_is_an_error(built_world: BuiltWorld) -> None:
    with pytest.raises(DataError, match="page not found"):
        asyncio.run(built_world.search.open("https://atlas.example/nowhere"))


def test_image_hits_have_files_that_open(built_world: BuiltWorld) -> None:
    name = built_world.task.truth(next(built_world.task.samples()).id).subjects[0]["name"]
    hits = asyncio.run(built_world.search.image_search(name, 8))
    assert 2 <= len(hits) <= 8
    for hit in hits:
        assert hit.image is not None
        assert hit.image.open().size == (hit.image.width, hit.image.height) == (256, 256)
        assert hit.url.startswith("https://pictures.example/") and hit.page_url.startswith("https://")


def test_no_path_of_a_hit_leads_to_the_folder_of_the_world(built_world: BuiltWorld) -> None:
    """A generator that follows the paths of its hits upwards and looks around finds no ground truth."""
    titles = [row["title"] for row in rows_of(built_world.folder / "search" / "pictures.jsonl")[:12]]
    hits = [hit for title in titles for hit in asyncio.run(built_world.search.image_search(title, 8))]
    recorded = {row["image"]["sha256"]: row for row in rows_of(built_world.folder / "search" / "pictures.jsonl")}
    temporary = Path(tempfile.gettempdir())
    folders: set[Path] = set()
    for hit in hits:
        assert hit.image is not None and hit.image.path is not None and hit.image.path == hit.image.path.resolve()
        file = built_world.folder / "search" / recorded[hit.image.sha256]["file"]
        assert hit.image.path.read_bytes() == file.read_bytes()
        assert hit.image.path.stem == hit.image.sha256
        assert not hit.image.path.samefile(file), "writing to the copy would change the world"
        folders |= set(hit.image.path.parents) - {temporary, *temporary.parents}
    assert len(folders) == 1, "a folder of their own, in that of temporary files"
    around = [path.name for folder in folders for path in folder.rglob("*")]
    assert around and all(re.fullmatch(r"[0-9a-f]{64}\.webp", name) for name in around)
    truths = {row["image"]["sha256"] for row in rows_of(built_world.folder / "truth.jsonl")}
    assert truths.isdisjoint(name.partition(".")[0] for name in around)


def test_a_copy_cannot_be_changed_by_accident(built_world: BuiltWorld) -> None:
    title = rows_of(built_world.folder / "search" / "pictures.jsonl")[0]["title"]
    image = asyncio.run(built_world.search.image_search(title, 1))[0].image
    assert image is not None and image.path is not None
    assert not image.path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)


def test_an_image_file_that_differs_from_its_record_is_an_error(built_world: BuiltWorld, tmp_path: Path) -> None:
    shutil.copytree(built_world.folder / "search", tmp_path / "search")
    row = rows_of(tmp_path / "search" / "pictures.jsonl")[0]
    row["image"]["sha256"] = "0" * 64  # so that no earlier copy is found
    (tmp_path / "search" / "pictures.jsonl").write_text(json.dumps(row) + "\n")
    search = WorldSearch(str(tmp_path / "search"))
    with pytest.raises(DataError, match=r"pictures/.*: differs from its record; build the world again"):
        asyncio.run(search.image_search(row["title"], 1))
    (tmp_path / "search" / row["file"]).unlink()
    with pytest.raises(DataError, match=r"pictures/.*: the file is missing; build the world again"):
        asyncio.run(search.image_search(row["title"], 1))


def test_the_copies_are_removed_when_the_process_ends(built_world: BuiltWorld, tmp_path: Path) -> None:
    title = rows_of(built_world.folder / "search" / "pictures.jsonl")[0]["title"]
    script = (
        "import asyncio, sys\n"
        "from knowgen.worlds.search import WorldSearch\n"
        "path = asyncio.run(WorldSearch(sys.argv[1]).image_search(sys.argv[2], 1))[0].image.path\n"
        "print(path.is_file(), path.parent)\n"
    )
    command = [sys.executable, "-c", script, str(built_world.folder / "search"), title]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith(f"True {tmp_path}/knowgen.search.")
    assert not list(tmp_path.iterdir())


def test_the_version_equals_the_search_version_of_the_task_and_depends_on_the_content(
    built_world: BuiltWorld, tmp_path: Path
) -> None:
    assert built_world.search.version == built_world.task.search_version
    for name in ("pages.jsonl", "pictures.jsonl"):
        shutil.copy(built_world.folder / "search" / name, tmp_path / name)
    assert WorldSearch(str(tmp_path)).version == built_world.search.version
    with (tmp_path / "pages.jsonl").open("a") as file:
        file.write('{"url": "https://atlas.example/x", "title": "X", "text": "x", "links": []}\n')
    assert WorldSearch(str(tmp_path)).version != built_world.search.version


def test_search_needs_neither_samples_nor_ground_truths(built_world: BuiltWorld, tmp_path: Path) -> None:
    for name in ("pages.jsonl", "pictures.jsonl"):
        shutil.copy(built_world.folder / "search" / name, tmp_path / name)
    hits = asyncio.run(WorldSearch(str(tmp_path)).search("village", 5))
    assert hits == asyncio.run(built_world.search.search("village", 5))


def test_the_backend_is_loaded_by_name(built_world: BuiltWorld) -> None:
    backend = registry.create(registry.resolve("search", f"world:{built_world.folder / 'search'}"), {})
    assert backend.version == built_world.search.version


def test_a_folder_without_a_world_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pages\.jsonl"):
        WorldSearch(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("pages.jsonl", "{broken", "not valid JSON"),
        ("pages.jsonl", '{"url": 3}', "not a page record"),
        ("pictures.jsonl", '{"title": "x"}', "not an image record"),
        (
            "pictures.jsonl",
            '{"title": "x", "url": "u", "page_url": "", "file": "../../secret.webp", '
            '"image": {"sha256": "0", "width": 1, "height": 1, "format": "WEBP"}}',
            "outside",
        ),
    ],
)
def test_invalid_rows_are_reported_with_their_line(tmp_path: Path, file: str, line: str, message: str) -> None:
    for name in ("pages.jsonl", "pictures.jsonl"):
        (tmp_path / name).write_text(f"{line}\n" if name == file else "")
    search = WorldSearch(str(tmp_path))
    with pytest.raises(DataError, match=rf"{file}:1: .*{message}"):
        asyncio.run(search.search("x") if file == "pages.jsonl" else search.image_search("x"))


def test_an_empty_world_gives_no_hits(tmp_path: Path) -> None:
    for name in ("pages.jsonl", "pictures.jsonl"):
        (tmp_path / name).write_text("")
    search = WorldSearch(str(tmp_path))
    assert asyncio.run(search.search("anything", 5)) == []
    assert asyncio.run(search.image_search("anything", 5)) == []


WORDS = ("tower", "harbour", "medal", "village", "lantern", "garden")


@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), min_size=1, max_size=12),
    st.lists(st.sampled_from((*WORDS, "absent")), min_size=1, max_size=3),
    st.integers(1, 15),
)
def test_exactly_the_texts_that_share_a_word_are_returned(texts: list[list[str]], query: list[str], k: int) -> None:
    sharing = {at for at, text in enumerate(texts) if set(text) & set(query)}
    positions = TextIndex([" ".join(text) for text in texts]).find(" ".join(query), k)
    assert len(positions) == len(set(positions)) == min(k, len(sharing))
    assert set(positions) <= sharing


def test_rarer_words_rank_higher() -> None:
    index = TextIndex(["tower of gold", "tower of stone", "tower of glass", "gold and tower and tower and tower"])
    assert index.find("stone tower", 1) == [1]
    assert index.find("glass", 4) == [2]
