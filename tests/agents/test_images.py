"""The copies of images that a policy is shown."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from knowgen.agents.images import ImageScaler, SeenImages, scaled_size
from knowgen.core.errors import UsageError
from knowgen.core.images import UnreadableImageError
from knowgen.core.records import ImageRef, image_ref
from knowgen.search.contract import Hit
from tests.helpers.search_agents import FakeSearch, ScriptedPolicy, call, image_hits, make_agent


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("size", "scaled"),
    [
        ((1664, 928), (512, 288)), ((100, 100), (96, 96)), ((16, 16), (64, 64)), ((640, 480), (448, 320)),
        ((4000, 3000), (448, 320)), ((33, 2000), (32, 1984)), ((160, 1000), (160, 992)), ((400, 400), (384, 384)),
        ((32, 128), (32, 128)), ((9, 157), (32, 288)),
    ],
)  # fmt: skip
def test_the_size_is_that_of_qwens_processors(size: tuple[int, int], scaled: tuple[int, int]) -> None:
    assert scaled_size(*size) == scaled  # as transformers 5.24 computes them


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([4096, 160_000, 1_000_000]))
def test_any_size_is_whole_squares_within_the_limit(width: int, height: int, max_pixels: int) -> None:
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(UnreadableImageError, match="more than 200 times"):
            scaled_size(width, height, max_pixels)
        return
    new_width, new_height = scaled_size(width, height, max_pixels)
    assert new_width % 32 == new_height % 32 == 0 and min(new_width, new_height) >= 32
    if max(width, height) <= 20 * min(width, height):
        assert new_width * new_height <= max(max_pixels, 4096 * 4)


def scale(image: ImageRef, **settings: Any) -> ImageRef:
    scaler = ImageScaler(**settings)
    try:
        return asyncio.run(scaler.scaled(image))
    finally:
        if scaler._temporary is None:
            scaler.close()


def test_a_copy_is_a_file_named_by_content_and_made_once(tmp_path: Path) -> None:
    Image.new("RGBA", (1664, 928), (255, 0, 0, 0)).save(tmp_path / "a.png")
    image = image_ref(tmp_path / "a.png")
    copy = scale(image)
    assert (copy.width, copy.height, copy.format) == (512, 288, "PNG") and copy.path is not None
    assert copy.path.is_relative_to(tmp_path / "cache") and image_ref(copy.path) == copy
    assert copy.open().getpixel((0, 0)) == (255, 255, 255)  # transparent pixels on white
    (tmp_path / "a.png").unlink()
    assert scale(image) == copy
    assert scale(image, max_pixels=0) == image


def test_a_damaged_copy_is_made_again(tmp_path: Path) -> None:
    (hit,) = image_hits(tmp_path, 1)
    assert hit.image is not None
    copy = scale(hit.image)
    assert copy.path is not None
    copy.path.write_bytes(b"cut")
    assert scale(hit.image) == copy


def test_without_a_cache_copies_are_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", "off")
    (hit,) = image_hits(tmp_path, 1)
    assert hit.image is not None
    scaler = ImageScaler()
    copy = asyncio.run(scaler.scaled(hit.image))
    assert copy.path is not None and copy.path.is_file()
    scaler.close()
    assert not copy.path.exists()


@pytest.mark.parametrize("pixels", [-1, 100, True, 1.5, "many"])
def test_a_limit_that_shows_nothing_is_refused(pixels: Any) -> None:
    with pytest.raises(UsageError, match="image_pixels"):
        ImageScaler(pixels)


def test_images_are_numbered_as_they_are_seen() -> None:
    images = SeenImages()
    refs = [ImageRef(sha256=letter, width=1, height=1, format="PNG") for letter in "abac"]
    assert [images.add(ref, title=ref.sha256, url="u").id for ref in refs] == [
        "IMG_001",
        "IMG_002",
        "IMG_001",
        "IMG_003",
    ]
    seen = images.get("IMG_002")
    assert seen is not None and seen.title == "b" and images.get("IMG_009") is None


class WaitingPolicy(ScriptedPolicy):
    """A policy whose last reply waits until the test has measured."""

    def __init__(self, replies: list[str], waiting: list[int], measured: asyncio.Event) -> None:
        super().__init__(replies)
        self._waiting, self._measured = waiting, measured

    def open(self, sampling: Any, prompt: str, session: str) -> Any:
        opened = super().open(sampling, prompt, session)
        reply = opened.reply

        async def replies(messages: Any) -> Any:
            self.asked.clear()  # what the test itself would keep
            if len(messages) >= 2 + 2 * len(self.replies):
                self._waiting.append(1)
                await self._measured.wait()
            return await reply(messages)

        opened.reply = replies  # type: ignore[method-assign]
        return opened


def test_a_waiting_rollout_needs_less_than_a_megabyte_beyond_its_images(tmp_path: Path) -> None:
    count = 16
    hits = [Hit(title="T" * 100, url=f"http://{number}", snippet="word " * 400) for number in range(10)]
    images = image_hits(tmp_path, 10)
    calls = [call("search", {"queries": [f"q{number}", f"r{number}"]}) for number in range(7)]

    async def measure() -> int:
        waiting: list[int] = []
        measured = asyncio.Event()
        search = FakeSearch(hits, images)
        agents = [
            make_agent(WaitingPolicy([*calls, call("image_search", {"query": "boat"})], waiting, measured), search)
            for _ in range(count + 1)
        ]
        tasks = [asyncio.create_task(agents[0].run("Draw a boat."))]  # imports, and the copies of the images
        while not waiting:
            await asyncio.sleep(0.001)
        tracemalloc.start()
        tasks += [asyncio.create_task(agent.run("Draw a boat.")) for agent in agents[1:]]
        while len(waiting) <= count:
            await asyncio.sleep(0.001)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        measured.set()
        assert all(len(done.images) == 5 for done in await asyncio.gather(*tasks))
        return held // count

    held = asyncio.run(measure())
    assert 50_000 < held < 1 << 20  # the texts are counted, and nothing but them
