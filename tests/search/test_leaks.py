"""The leak guard blocks published benchmark data and what looks like a ground truth of the task, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance, ImageOps

from knowgen.core import images
from knowgen.core.errors import DataError
from knowgen.core.records import GroundTruth, image_ref
from knowgen.search.leaks import TruthGuard, read_sources
from tests.helpers.fake_web import image_bytes

TASK = Path(__file__).resolve().parents[2] / "tasks" / "knowgen_mini"
TRUTHS = sorted((TASK / "truth").iterdir())

OWN = [
    "https://huggingface.co/datasets/GenSearcher/KnowGen-Bench",
    "https://huggingface.co/datasets/GenSearcher/KnowGen-Bench/resolve/main/KnowGen-Bench.json?download=true",
    "http://www.huggingface.co/datasets/gensearcher/Train-Data/viewer",
    "https://hf-mirror.com/datasets/GenSearcher/Train-Data",
    "https://datasets-server.huggingface.co/rows?dataset=GenSearcher%2FTrain-Data&config=default",
    "https://www.modelscope.cn/datasets/someone/KnowGen_Bench",
    "https://raw.githubusercontent.com/tulerfeng/Gen-Searcher/main/README.md",
    "https://github.com/someone/Gen-Searcher/tree/main/KnowGen_Eval",
    "https://web.archive.org/web/2026/https://huggingface.co/datasets/GenSearcher/KnowGen-Bench",
    "https://r.jina.ai/https%3A%2F%2Fhuggingface.co%2Fdatasets%2FGenSearcher%2FTrain-Data",
    "https://cache.example/?url=https%253A%252F%252Fgithub.com%252Ftulerfeng%252FGen-Searcher",
    "https://github.com//tulerfeng//Gen-Searcher",
    "https://arxiv.org/pdf/2603.28767v2",
]
OTHERS = [
    "https://en.wikipedia.org/wiki/Search_engine", "https://huggingface.co/datasets/laion/laion400m",
    "https://example.org/gen-search", "https://github.com/", "not an address", "", "http://[::1",
]  # fmt: skip


@pytest.mark.parametrize("url", OWN)
def test_the_published_data_and_its_copies_are_blocked_in_any_notation(url: str) -> None:
    assert TruthGuard([]).blocked_url(url).startswith("it is ")


@pytest.mark.parametrize("url", OTHERS)
def test_other_addresses_are_not_blocked(url: str) -> None:
    assert TruthGuard([]).blocked_url(url) == ""


def test_a_list_of_sources_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text('sources:\n  - what: a copy\n    patterns: ["copies.example/*"]\n')
    guard = TruthGuard([], sources=read_sources(path))
    assert guard.blocked_url("http://copies.example/1") == "it is a copy"
    assert guard.blocked_url(OWN[0]) == guard.blocked_url("http://other.example/copies.example/1") == ""
    for broken in ("sources: 3", "- a", "sources:\n  - what: a copy\n"):
        path.write_text(broken)
        with pytest.raises(DataError, match="sources"):
            read_sources(path)


def truths(paths: Sequence[Path]) -> list[GroundTruth]:
    return [GroundTruth(sample_id=path.stem, image=image_ref(path)) for path in paths]


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop((int(width * left), int(height * top), int(width * (1 - right)), int(height * (1 - bottom))))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "same": lambda image: image,
    "thumbnail": lambda image: as_jpeg(ImageOps.contain(image, (128, 128)), 60),
    "twice as large": lambda image: image.resize((image.width * 2, image.height * 2)),
    "square": lambda image: image.resize((300, 300)),
    "poor quality": lambda image: as_jpeg(image, 30),
    "grey": ImageOps.grayscale,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "mirrored": ImageOps.mirror,
    "5 % cut off around": lambda image: cut(image, 0.05, 0.05, 0.05, 0.05),
    "20 % cut off around": lambda image: cut(image, 0.1, 0.1, 0.1, 0.1),
    "10 % cut off at the left": lambda image: cut(image, 0.1, 0, 0, 0),
    "10 % cut off below, mirrored": lambda image: ImageOps.mirror(cut(image, 0, 0, 0, 0.1)),
    "letterbox": lambda image: ImageOps.expand(image, (0, image.height // 5), "black"),
    "white frame": lambda image: ImageOps.expand(image, image.width // 30, "white"),
}


@pytest.fixture(scope="module")
def guard() -> TruthGuard:
    return TruthGuard(truths(TRUTHS[::4]))


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_of_a_ground_truth_is_recognised(guard: TruthGuard, copy: str) -> None:
    for path in TRUTHS[::8]:
        with Image.open(path) as image:
            made = COPIES[copy](image.convert("RGB"))
        assert guard.blocked_image(made) == "it looks like a ground-truth image of the task", path.name


def test_other_images_are_not_taken_for_ground_truths(guard: TruthGuard) -> None:
    found = sorted((TASK / "search" / "pictures").iterdir())[::7]
    assert len(found) > 50 and not any(map(guard.blocked_image, found))
    assert not any(map(guard.blocked_image, TRUTHS[1::4])), "ground truths of the same world"
    assert not guard.blocked_image(Image.new("RGB", (64, 64), "white"))
    assert not guard.blocked_image(Image.open(io.BytesIO(image_bytes("red"))))


def test_the_ground_truths_are_hashed_at_the_first_image_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    original = images.open_rgb

    def counting(source: Path | Image.Image | None) -> Image.Image:
        opened.append(source)
        return original(source)

    monkeypatch.setattr("knowgen.search.leaks.open_rgb", counting)
    some = truths(TRUTHS[:3])
    first = TruthGuard(iter(some))
    assert first.blocked_url(OWN[0]) and opened == []
    white = Image.new("RGB", (64, 64), "white")
    assert not first.blocked_image(white) and len(opened) == 4
    assert first.blocked_image(TRUTHS[1]) and len(opened) == 5
    assert TruthGuard(some).blocked_image(TRUTHS[2]) and len(opened) == 6, "hashes are cached by content"


def test_a_task_without_images_blocks_none() -> None:
    assert TruthGuard([GroundTruth(sample_id="1")]).blocked_image(TRUTHS[0]) == ""
