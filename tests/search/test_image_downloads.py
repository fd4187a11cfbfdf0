"""Images of hits are downloaded, checked, re-encoded and stored by content, without repetitions."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import re
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen.core.leaks import current_leak_guard
from knowgen.search.contract import BlockReason, ImageHit
from knowgen.search.web.images import ImageDownloader, RawImageHit
from tests.helpers.fake_web import Answer, FakeWeb, image_bytes, in_turn, redirects, sends, sends_image

COLOURS = ("red", "green", "blue", "gold", "navy", "pink", "teal", "brown")


def url_of(colour: str) -> str:
    return f"http://{colour}.example/image"


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWeb]:
    web = FakeWeb({url_of(colour): sends_image(image_bytes(colour)) for colour in COLOURS})
    with web.server:
        web.use(monkeypatch)
        yield web


def raw(*colours: str, **fields: str) -> list[RawImageHit]:
    return [RawImageHit(title=f"the {colour} one", url=url_of(colour), **fields) for colour in colours]


def download(
    web: FakeWeb, hits: Sequence[RawImageHit], k: int, table: dict[str, list[str]] | None = None, **options: Any
) -> list[ImageHit]:
    async def closing() -> list[ImageHit]:
        fetcher = web.fetcher(table, **options)
        downloader = ImageDownloader(fetcher)
        try:
            return await downloader.download_hits(hits, k)
        finally:
            await downloader.close()
            await fetcher.close()

    return asyncio.run(closing())


def colours_of(hits: Sequence[ImageHit]) -> list[str]:
    return [hit.url.split("/")[2].split(".")[0] for hit in hits if hit.image is not None]


def test_an_image_is_stored_as_a_jpeg_file_named_by_its_content(web: FakeWeb) -> None:
    (hit,) = download(web, raw("red", page_url="http://page.example/", thumbnail_url="http://t/", source="a site"), 1)
    assert (hit.title, hit.page_url, hit.thumbnail_url, hit.source) == (
        "the red one", "http://page.example/", "http://t/", "a site"
    )  # fmt: skip
    assert hit.image is not None and hit.image.path is not None and not hit.failure and hit.blocked is None
    data = hit.image.path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == hit.image.sha256 == hit.image.path.stem
    assert (hit.image.format, hit.image.width, hit.image.height) == ("JPEG", 64, 48)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 48))


def test_transparent_pixels_are_white(web: FakeWeb) -> None:
    clear = Image.open(io.BytesIO(image_bytes("red"))).convert("RGBA")
    clear.putalpha(0)
    buffer = io.BytesIO()
    clear.save(buffer, "PNG")
    web.answers[url_of("clear")] = sends_image(buffer.getvalue())
    (hit,) = download(web, raw("clear"), 1)
    assert hit.image is not None and hit.image.open().getpixel((5, 5)) == (255, 255, 255)


def test_an_image_is_downloaded_once_a_day_and_kept_where_caches_are_off(
    web: FakeWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = download(web, raw("red"), 1), download(web, raw("red"), 1)
    assert first == second and len(web.seen) == 1
    monkeypatch.setenv("KNOWGEN_CACHE", "off")

    async def session() -> tuple[Path, Path]:
        fetcher = web.fetcher()
        downloader = ImageDownloader(fetcher)
        ((one,), (other,)) = [await downloader.download_hits(raw(colour), 1) for colour in ("red", "blue")]
        assert one.image is not None and one.image.path is not None and one.image.path.exists()
        assert other.image is not None and other.image.path is not None
        await downloader.close()
        await fetcher.close()
        return one.image.path, other.image.path

    paths = asyncio.run(session())
    assert not any(path.exists() for path in paths), "a temporary folder is removed with its downloader"


def test_where_a_download_fails_the_next_hits_take_its_place_and_it_stays_with_its_reason(web: FakeWeb) -> None:
    hits = raw("red", "missing", "green", "blue", "gold")
    got = download(web, hits, 3)
    assert [hit.title for hit in got] == ["the red one", "the missing one", "the green one", "the blue one"]
    assert colours_of(got) == ["red", "green", "blue"] and got[1].image is None
    assert got[1].failure == "missing.example answered 404" and got[1].blocked is None
    assert url_of("gold") not in web.seen


def test_a_thumbnail_is_taken_where_no_other_hit_is_left(web: FakeWeb) -> None:
    hits = [*raw("missing", thumbnail_url=url_of("navy")), *raw("red")]
    got = download(web, hits, 2)
    assert [hit.image is not None for hit in got] == [True, True] and not got[0].failure
    assert got[0].url == url_of("missing") and got[0].thumbnail_url == url_of("navy")
    assert url_of("navy") not in [hit for hit in web.seen if hit == url_of("red")]


def test_a_hit_with_the_title_of_another_one_is_its_second_source_and_otherwise_left_out(web: FakeWeb) -> None:
    twins = [RawImageHit(title=title, url=url_of(name)) for title, name in (("A boat", "red"), (" a  BOAT ", "blue"))]
    assert colours_of(download(web, [*twins, *raw("green", "gold")], 3)) == ["red", "green", "gold"]
    twins = [RawImageHit(title="A boat", url=url_of(name)) for name in ("missing", "blue")]
    got = download(web, [*twins, *raw("green")], 2)
    assert colours_of(got) == ["blue", "green"] and len(got) == 2


def test_images_with_the_same_content_are_one(web: FakeWeb) -> None:
    web.answers[url_of("copy")] = web.answers[url_of("red")]
    got = download(web, [*raw("red", "copy", "green"), RawImageHit(title="", url=url_of("red"))], 3)
    assert colours_of(got) == ["red", "green"] and len(got) == 2


def test_no_more_requests_than_allowed_reach_one_host_at_a_time(web: FakeWeb) -> None:
    names = [f"http://one.example/{number}" for number in range(12)]
    together = threading.Barrier(3)  # breaks when there are never three

    def after_others(answer: Answer) -> Answer:
        def waiting(handler: BaseHTTPRequestHandler) -> None:
            together.wait(30)
            answer(handler)

        return waiting

    for number, name in enumerate(names):
        web.answers[name] = after_others(sends_image(image_bytes("red", (64 + number, 48))))
    got = download(web, [RawImageHit(title="", url=name) for name in names], 12, per_host=3)
    assert sum(hit.image is not None for hit in got) == 12
    assert web.most == {"one.example": 3}


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file of a huge black image in a few hundred kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width // 8 + 1)) for _ in range(height)) + packer.flush()
    size = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (png_header(20_000, 12_000), "image/png", "240000000 pixels|20000x12000 pixels"),
        (png_header(9_000, 6_000), "image/png", "9000x6000 pixels, at most 50 million are allowed"),
        (b"GIF89a" + bytes(100), "image/gif", "the file has 106 bytes"),
        (b"<html>" + b"x" * 2000, "text/html", "it is text/html, not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>" + b"<g/>" * 500, "image/svg+xml", "it is an SVG drawing"),
        (image_bytes("red")[:1500], "image/png", "truncated|broken|image file"),
        (b"\xff\xd8\xff" + b"x" * 3000, "image/jpeg", "."),
    ],
    ids=["bomb", "large", "icon", "page", "drawing", "cut", "broken"],
)
def test_an_unusable_image_is_a_hit_with_its_reason(web: FakeWeb, body: bytes, content_type: str, reason: str) -> None:
    web.answers[url_of("odd")] = sends(body, content_type=content_type)
    (hit,) = download(web, raw("odd"), 1)
    assert hit.image is None and hit.blocked is None and re.search(reason, hit.failure), hit.failure


def test_a_body_of_ten_gigabytes_and_a_decompression_bomb_are_not_read(web: FakeWeb) -> None:
    web.answers[url_of("endless")] = sends_image(b"x", Content_Length=str(10 << 30))
    bomb = gzip.compress(bytes(96 << 20))
    web.answers[url_of("bomb")] = sends_image(bomb, Content_Encoding="gzip")
    got = download(web, raw("endless", "bomb"), 2)
    assert ["at most 33554432" in got[0].failure, "longer than 32 MiB" in got[1].failure] == [True, True]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png", "http://10.0.0.1/a.png", "http://169.254.169.254/a.png", "http://[::1]/a.png",
        "http://[::ffff:10.0.0.1]/a.png", "http://2130706433/a.png", "http://0x7f.1/a.png", "http://inside.example/",
        "data:image/png;base64,AAAA", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_addresses_outside_the_public_internet_are_blocked_hits(web: FakeWeb, url: str) -> None:
    web.answers[url_of("out")] = redirects(url)
    hits = [RawImageHit(title="direct", url=url), RawImageHit(title="redirected", url=url_of("out")), *raw("red")]
    got = download(web, hits, 1, {"inside.example": ["127.0.0.1"]})
    assert [hit.blocked for hit in got] == [BlockReason.ADDRESS, BlockReason.ADDRESS, None]
    assert colours_of(got) == ["red"] and all(hit.failure for hit in got[:2])
    assert {seen.split("/")[2] for seen in web.seen} <= {"out.example", "red.example"}


def test_an_answer_of_dns_that_changes_is_checked_where_it_is_used(web: FakeWeb) -> None:
    web.answers["http://turning.example/a"] = redirects("http://turning.example/b")
    table = {"turning.example": ["93.184.216.34", "10.0.0.7"]}
    (hit,) = download(web, [RawImageHit(title="", url="http://turning.example/a")], 1, table)
    assert hit.blocked is BlockReason.ADDRESS and "10.0.0.7" in hit.failure
    assert web.seen == ["http://turning.example/a"]


class Guard:
    """A leak guard that blocks a host, and images of a colour."""

    def blocked_url(self, url: str) -> str:
        return "it is the benchmark's own data" if "answers.example" in url else ""

    def blocked_image(self, image: Path | Image.Image) -> str:
        opened = Image.open(image) if isinstance(image, Path) else image
        red, green, _ = opened.convert("RGB").resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
        return "it is a ground-truth image" if red > 2 * green else ""


def test_what_the_leak_guard_blocks_is_replaced_and_recorded_even_if_it_is_cached(web: FakeWeb) -> None:
    web.answers["http://answers.example/1"] = web.answers[url_of("gold")]
    web.answers[url_of("moved")] = redirects("http://answers.example/1")
    hits = [
        *raw("red"),
        RawImageHit(title="own", url="http://answers.example/1", thumbnail_url=url_of("pink")),
        *raw("moved"),
        *raw("teal", page_url="http://answers.example/page"),
        *raw("blue"),
        *raw("navy"),
    ]
    assert len(download(web, hits, 3)) == 3  # without a guard, which fills the cache
    token = current_leak_guard.set(Guard())
    try:
        got = download(web, hits, 2)
    finally:
        current_leak_guard.reset(token)
    assert [hit.blocked for hit in got] == [BlockReason.LEAK] * 4 + [None, None]
    assert colours_of(got) == ["blue", "navy"] and got[0].failure == "it is a ground-truth image"
    assert all(hit.image is None for hit in got[:4])


def test_a_failed_download_is_tried_again_by_the_next_search(web: FakeWeb) -> None:
    web.answers[url_of("shaky")] = in_turn(sends(b"", 503), sends_image(image_bytes("red")))
    assert download(web, raw("shaky"), 1)[0].failure == "shaky.example answered 503"
    assert download(web, raw("shaky"), 1)[0].image is not None
