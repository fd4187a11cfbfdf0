"""A corpus: what is read from which files, what is found again, and what a damaged or foreign one does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from knowgen.cli import main
from knowgen.core.errors import DataError
from knowgen.core.leaks import current_leak_guard
from knowgen.search.contract import BlockReason, Hit, ImageHit, Page, PageBlockedError
from knowgen.search.corpus import build, sources
from knowgen.search.corpus.backend import CorpusSearch
from knowgen.search.corpus.build import build_corpus
from knowgen.search.corpus.sources import Html, Skipped
from knowgen.search.corpus.storage import RecordReader, RecordWriter
from knowgen.search.text_index import TextIndex

HTML = """<html><head><title>The Varn lighthouse</title><link rel="canonical" href="https://example.org/varn"></head>
<body><nav><a href="/menu">menu</a></nav><article><h1>The Varn lighthouse</h1>
<p>The Varn lighthouse was first lit in 1893. It stands on a reef and has a copper roof, which turned green.
Keepers lived there until 1961. See <a href="keepers#top">the keepers</a>.</p>
<img src="img/varn.png" alt="The Varn lighthouse at dusk"></article></body></html>"""


def png(colour: str) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one file of each kind, and some that are damaged."""
    folder = tmp_path / "pages"
    (folder / "img").mkdir(parents=True)
    (folder / "a.html").write_text(HTML)
    (folder / "img" / "varn.png").write_bytes(png("blue"))
    (folder / "img" / "red_boat.png").write_bytes(png("red"))
    (folder / "img" / "kite.png").write_bytes(png("green"))
    (folder / "img" / "kite.caption.txt").write_text("A kite\nof paper")
    (folder / "img" / "bad.png").write_bytes(b"no image")
    (folder / "notes.md").write_text("# Notes on boats\n\nA boat floats.\n")
    (folder / ".hidden.txt").write_text("hidden")
    rows: list[object] = [
        {"url": "https://example.org/keepers", "title": "Keepers", "text": "The keepers were three sisters."},
        {"url": "https://example.org/keepers", "title": "Again", "text": "A second page with the same URL."},
        {"image": "img/red_boat.png", "title": "A red square", "url": "https://example.org/red.png"},
        {"image": "../outside.png", "title": "x"},
        {"title": "nothing"},
        ["a list"],
    ]
    (folder / "rows.jsonl").write_text("\n".join([*map(json.dumps, rows), "no json"]))
    return folder


def find(folder: Path, query: str) -> list[Hit]:
    return asyncio.run(CorpusSearch(str(folder)).search(query))


def images(folder: Path, query: str) -> list[ImageHit]:
    return asyncio.run(CorpusSearch(str(folder)).image_search(query))


def page(folder: Path, url: str) -> Page:
    return asyncio.run(CorpusSearch(str(folder)).open(url))


def test_pages_of_all_kinds_are_found_and_opened(folder: Path) -> None:
    built = build_corpus(folder)
    assert (built.pages, built.duplicates) == (3, 1)
    assert [hit.title for hit in find(folder, "copper roof")] == ["The Varn lighthouse"]
    varn = page(folder, "https://example.org/varn")
    assert "first lit in 1893" in varn.text and "<" not in varn.text and "menu" not in varn.text
    assert ("the keepers", "https://example.org/keepers") in {(link.text, link.url) for link in varn.links}
    assert page(folder, "https://example.org/keepers").title == "Keepers"  # the first of two
    (notes,) = find(folder, "floating boats")
    assert (notes.title, notes.url) == ("Notes on boats", "https://corpus.invalid/notes.md")
    assert find(folder, "hidden") == []


def test_an_image_has_the_caption_of_its_row_its_page_its_text_file_or_its_name(folder: Path) -> None:
    build_corpus(folder)
    (varn,) = images(folder, "lighthouse dusk")
    assert (varn.title, varn.page_url) == ("The Varn lighthouse at dusk", "https://example.org/varn")
    assert varn.image is not None and varn.image.open().getpixel((0, 0)) == (0, 0, 255)
    assert images(folder, "kite")[0].title == "A kite of paper"
    assert images(folder, "boat")[0].title == "red boat"
    assert images(folder, "square")[0].url == "https://example.org/red.png"


def test_what_is_not_taken_is_listed_with_its_reason(folder: Path) -> None:
    built = build_corpus(folder)
    reasons = {each.where.removeprefix(f"{folder}/"): each.reason for each in built.skipped}
    assert reasons == {
        "rows.jsonl:4": "../outside.png is outside the folder of rows.jsonl",
        "rows.jsonl:5": "has no text (a field `text`, `html` or `image` is needed)",
        "rows.jsonl:6": "not a JSON object",
        "rows.jsonl:7": "invalid JSON: Expecting value at column 1",
        "https://corpus.invalid/img/bad.png": "the image does not open: unknown image format",
    }


def test_a_web_archive_gives_its_pages_and_images(tmp_path: Path) -> None:
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    text = "The wharf of Olm has nine cranes. " * 5
    html = f"<html><title>Wharf</title><body><p>{text}</p><img src='/w.png' alt='Cranes of Olm'></body></html>"
    records = [
        ("https://example.org/gone", "404 Not Found", "text/html", b"<p>gone</p>"),
        ("https://example.org/w1", "200 OK", "text/html; charset=utf-8", html.encode()),
        ("https://example.org/w.png", "200 OK", "image/png", png("red")),
    ]
    with (tmp_path / "crawl.warc.gz").open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for url, status, kind, body in records:
            headers = StatusAndHeaders(status, [("Content-Type", kind)], protocol="HTTP/1.0")
            writer.write_record(writer.create_warc_record(url, "response", payload=BytesIO(body), http_headers=headers))
    built = build_corpus(tmp_path)
    assert (built.pages, built.images, built.skipped_count) == (1, 1, 0)
    (crane,) = images(tmp_path, "cranes")
    assert (crane.title, crane.page_url) == ("Cranes of Olm", "https://example.org/w1")
    (tmp_path / "cut.warc.gz").write_bytes((tmp_path / "crawl.warc.gz").read_bytes()[:-40])
    again = build_corpus(tmp_path)
    assert (again.pages, again.images) == (1, 1)
    assert [(each.where, each.reason) for each in again.skipped] == [
        (f"{tmp_path / 'cut.warc.gz'}: https://example.org/w.png", "the archive ends within this record")
    ]


def test_a_page_that_keeps_the_parser_busy_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(item: object) -> Skipped:
        while True:
            with contextlib.suppress(Exception):  # as the parser does
                raise ValueError

    monkeypatch.setattr(build, "CPU_SECONDS", 0.2)
    monkeypatch.setattr(sources, "parsed", busy)
    (skipped,) = build._parse_limited([Html(tmp_path / "page.html", "https://example.org/", "page.html")])
    assert skipped == Skipped("page.html", "takes more than 0.2 s of processor time to read")


def test_the_same_files_give_the_same_corpus_however_many_processes_read_them(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(80):
        (source / f"{number}.html").write_text(HTML.replace("/varn", f"/varn{number}").replace("1893", f"18{number}"))
    versions = {
        build_corpus(source, tmp_path / f"corpus{workers}", workers=workers).folder: workers for workers in (0, 2)
    }
    one, two = (CorpusSearch(str(folder)) for folder in versions)
    assert one.version == two.version
    assert (tmp_path / "corpus0" / "pages.jsonl").read_bytes() == (tmp_path / "corpus2" / "pages.jsonl").read_bytes()
    (source / "0.html").write_text(HTML.replace("1893", "1999"))
    assert CorpusSearch(str(build_corpus(source, tmp_path / "other").folder)).version != one.version


def test_a_corpus_is_replaced_whole_or_not_at_all(folder: Path) -> None:
    build_corpus(folder)
    before = CorpusSearch(str(folder)).version
    empty = folder.parent / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="has no page and no image in 0 files"):
        build_corpus(empty, folder / ".corpus")
    assert CorpusSearch(str(folder)).version == before


def test_what_is_not_a_corpus_or_damaged_is_one_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a corpus"):
        CorpusSearch(str(tmp_path))
    corpus = build_corpus(folder).folder
    with pytest.raises(DataError, match="does not have this page"):
        page(folder, "https://example.org/unknown")
    shutil.rmtree(corpus / "images" / sorted(path.name for path in (corpus / "images").iterdir())[0])
    assert any("is missing" in hit.failure for word in ("kite", "boat", "dusk") for hit in images(folder, word))
    (corpus / "pages.offsets.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match="the corpus is damaged"):
        find(folder, "boat")
    (corpus / "corpus.json").write_text('{"format": 99, "version": "x"}')
    with pytest.raises(DataError, match="another format"):
        CorpusSearch(str(corpus))


def test_an_image_outside_the_corpus_is_not_read(folder: Path) -> None:
    corpus = build_corpus(folder).folder
    (folder / "secret.png").write_bytes(png("black"))
    lines = [json.loads(line) for line in (corpus / "images.jsonl").read_text().splitlines()]
    writer = RecordWriter(corpus, "images")
    for row in lines:
        writer.add(row | {"file": "../secret.png"}, row["url"])
    writer.close()
    with pytest.raises(DataError, match="outside the corpus"):
        images(folder, "kite")


class Guard:
    """A leak guard that blocks one page, and images that are blue."""

    def blocked_url(self, url: str) -> str:
        return "it is the benchmark's own data" if url == "https://example.org/keepers" else ""

    def blocked_image(self, image: Path | Image.Image) -> str:
        opened = Image.open(image) if isinstance(image, Path) else image
        return "it is a ground-truth image" if opened.getpixel((0, 0)) == (0, 0, 255) else ""


def test_the_leak_guard_is_asked_about_pages_and_images(folder: Path) -> None:
    build_corpus(folder)
    token = current_leak_guard.set(Guard())
    try:
        hits = find(folder, "keepers lighthouse")
        assert {hit.url: (hit.blocked, bool(hit.snippet)) for hit in hits} == {
            "https://example.org/keepers": (BlockReason.LEAK, False),
            "https://example.org/varn": (None, True),
        }
        with pytest.raises(PageBlockedError):
            page(folder, "https://example.org/keepers")
        (lighthouse,) = images(folder, "lighthouse dusk")
        assert lighthouse.image is None and lighthouse.blocked is BlockReason.LEAK
        assert images(folder, "kite paper")[0].image is not None
    finally:
        current_leak_guard.reset(token)


def test_the_command_says_what_it_built_and_how_to_search_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["corpus", "build", str(folder)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("3 pages, 4 images, 1 repeated URLs left out in ")
    assert f"-g search=corpus:{folder}" in printed.out
    assert printed.err.count("skipped: ") == 5
    assert main.run(["corpus", "build", str(folder / "none")]) == 3
    assert "not a folder" in capsys.readouterr().err


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), unique=True, max_size=20))
def test_a_record_is_found_by_its_url_and_number(tmp_path_factory: pytest.TempPathFactory, urls: list[str]) -> None:
    folder = tmp_path_factory.mktemp("records")
    writer = RecordWriter(folder, "pages")
    for number, url in enumerate(urls):
        writer.add({"url": url, "number": number}, url)
    writer.close()
    reader = RecordReader(folder, "pages")
    assert [reader.get(number)["url"] for number in range(len(reader))] == urls
    assert all((reader.find(url) or {})["number"] == number for number, url in enumerate(urls))
    assert reader.find("an address that is too long to be there") is None


def test_a_saved_index_ranks_like_the_one_in_memory(tmp_path: Path) -> None:
    texts = ["tower of gold", "tower of stone", "tower of glass", "", "gold and tower and tower and tower"]
    index = TextIndex(texts)
    index.save(tmp_path)
    loaded = TextIndex.load(tmp_path)
    for query in ("stone tower", "gold", "glass gold", "of the", "absent"):
        assert loaded.find(query, 5) == index.find(query, 5)
    TextIndex([]).save(tmp_path / "empty")
    assert TextIndex.load(tmp_path / "empty").find("tower", 5) == []


def test_a_passage_is_the_one_with_most_words_of_the_query() -> None:
    text = "A tower stands here. " * 20 + "The bell was cast in bronze. " + "It rains. " * 30
    passage = TextIndex().best_passage(text, "bronze bells", 60)
    assert passage.startswith("The bell was cast in bronze.") and len(passage) == 60
