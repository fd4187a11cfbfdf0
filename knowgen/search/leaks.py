"""The leak guard of a task: addresses of published benchmark data, and images that look like a ground truth."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from knowgen.core.cache import Cache
from knowgen.core.errors import DataError, MissingDependencyError
from knowgen.core.images import open_rgb
from knowgen.core.records import GroundTruth, ImageRef
from knowgen.core.yaml_files import read_yaml

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

SOURCES_FILE = Path(__file__).parent / "data" / "blocked_sources.yaml"

HASH_SIZE = 16
"""Rows and columns of a perceptual hash, which so has 256 bits."""

MAX_DISTANCE = 60
"""Number of different bits up to which two images count as one.

Measured on the 48 ground truths of the bundled task and two photographs: copies in another size, file format, aspect
ratio, brightness or in grey are at most 28 bits from the original; copies with a border, a line of text below, 10 % cut
off at one side or up to 20 % at all sides at most 60; mirrored ones the same. Different images are at least 76 bits
apart: 1,128 pairs of ground truths of one world, and 18,528 pairs with the images that its search finds. Not recognised
are copies of which more than a tenth was cut off at one side only, or that were turned by more than two degrees.
"""

HASH_VERSION = "1"
"""Version of the hashes, part of the cache's keys."""

_SMALL = 256
_EDGES = (0.05, 0.1, 0.08, 0.07)
_BORDER_LEVELS = 12
_CACHE = "web"


@dataclass(frozen=True)
class BlockedSource:
    """Addresses that an agent must not open.

    Attributes:
        what: What is there.
        pattern: Regular expression for `HOST/PATH?QUERY`, in lower case.
    """

    what: str
    pattern: re.Pattern[str]


def read_sources(path: Path = SOURCES_FILE) -> tuple[BlockedSource, ...]:
    """Return the addresses of a list of sources.

    Raises:
        DataError: The file is not a list of sources.
    """
    data = read_yaml(path).data
    fix = "write `sources:` with a list of `what:` and `patterns:`"
    entries = data.get("sources") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise DataError("is not a list of sources", where=str(path), fix=fix)
    sources: list[BlockedSource] = []
    for entry in entries:
        patterns = entry.get("patterns") if isinstance(entry, dict) else None
        if not isinstance(patterns, list) or not isinstance(entry.get("what"), str):
            raise DataError("has an entry without `what` or `patterns`", where=str(path), fix=fix)
        sources += [BlockedSource(entry["what"], re.compile(translate(str(one).lower()))) for one in patterns]
    return tuple(sources)


@lru_cache(maxsize=1)
def bundled_sources() -> tuple[BlockedSource, ...]:
    """Return the addresses of the bundled list."""
    return read_sources()


class TruthGuard:
    """Blocks published benchmark data and the ground-truth images of a task.

    The images are hashed at the first image that it is asked about, and the hashes cached by content.

    Args:
        truths: Ground truths of the task. Those without an image, or without its file, are skipped.
        sources: Addresses that are blocked; the bundled list when None.

    Example:
        >>> TruthGuard([]).blocked_url("https://huggingface.co/datasets/GenSearcher/KnowGen-Bench/tree/main")
        'it is the published benchmark (GenSearcher/KnowGen-Bench), or a copy of it'
        >>> TruthGuard([]).blocked_url("https://en.wikipedia.org/wiki/Benchmark")
        ''
    """

    def __init__(self, truths: Iterable[GroundTruth], *, sources: Sequence[BlockedSource] | None = None) -> None:
        self._truths: Iterable[GroundTruth] = truths
        self._sources = bundled_sources() if sources is None else tuple(sources)
        self._lock = threading.Lock()
        self._hashes: NDArray[np.uint8] | None = None

    def blocked_url(self, url: str) -> str:
        """Return why a URL must not be fetched or shown; empty when it may."""
        address = comparable_address(url)
        return next((f"it is {source.what}" for source in self._sources if source.pattern.match(address)), "")

    def blocked_image(self, image: Path | Image) -> str:
        """Return why an image must not be shown; empty when it may.

        Raises:
            UnreadableImageError: The file does not open.
            MissingDependencyError: The package `imagehash` is not installed.
        """
        return self.blocked_hashes(image_hashes(image)) if len(self._known_hashes()) else ""

    def blocked_hashes(self, hashes: Sequence[bytes]) -> str:
        """Return why an image with these hashes must not be shown; empty when it may.

        Args:
            hashes: Those of `image_hashes`.
        """
        import numpy as np

        known = self._known_hashes()
        distances = [_distance(known, np.frombuffer(one, np.uint8)) for one in hashes if len(known)]
        close = min(distances, default=MAX_DISTANCE + 1) <= MAX_DISTANCE
        return "it looks like a ground-truth image of the task" if close else ""

    def _known_hashes(self) -> NDArray[np.uint8]:
        """Return the hashes of all ground truths and their variants, one row each: 32 bytes."""
        import numpy as np

        with self._lock:
            if self._hashes is None:
                files = {truth.image.sha256: truth.image for truth in self._truths if truth.image is not None}
                cache = Cache(_CACHE)
                rows = [_hashes_of(image, cache) for image in files.values() if image.path is not None]
                cache.close()
                width = HASH_SIZE * HASH_SIZE // 8
                self._hashes = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, width)
                self._truths = ()
            return self._hashes


def image_hashes(image: Path | Image) -> list[bytes]:
    """Return the hashes by which an image is compared: as it is, and without a border of one colour.

    Raises:
        UnreadableImageError: The file does not open.
        MissingDependencyError: The package `imagehash` is not installed.
    """
    small = _shrunk(open_rgb(image))
    return [perceptual_hash(one).tobytes() for one in (small, _without_border(small))]


def comparable_address(url: str) -> str:
    """Return host, path and query of a URL in the form that patterns are compared with.

    Example:
        >>> comparable_address("https://www.Example.org:443/a%2Fb%20c/?q=1#part")
        'example.org/a/b c/?q=1'
    """
    text = url.strip()
    for _ in range(3):  # readers and archives contain the address of a page encoded, sometimes twice
        text = unquote(text)
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").removeprefix("www.")
    except ValueError:
        return " ".join(text.lower().split())
    path = re.sub("/+", "/", f"/{parts.path}") if host else parts.path
    return " ".join(f"{host}{path}{'?' + parts.query if parts.query else ''}".lower().split())


def _hashes_of(image: ImageRef, cache: Cache) -> bytes:
    key = f"truth-hash {HASH_VERSION} {image.sha256}"
    if (cached := cache.get(key)) is not None:
        return cached
    data = b"".join(perceptual_hash(one).tobytes() for one in variants(_shrunk(open_rgb(image.path))))
    cache.put(key, data)
    return data


def variants(image: Image) -> Iterator[Image]:
    """Yield an image and what is often made of it: with its edges or one of them cut off, and all of that mirrored."""
    from PIL import ImageOps

    small, large, one, corner = _EDGES
    cuts = [
        (0.0, 0.0, 0.0, 0.0), (small, small, small, small), (large, large, large, large),
        (one, 0.0, 0.0, 0.0), (0.0, one, 0.0, 0.0), (0.0, 0.0, one, 0.0), (0.0, 0.0, 0.0, one),
        (corner, corner, 0.0, 0.0), (0.0, corner, corner, 0.0), (0.0, 0.0, corner, corner), (corner, 0.0, 0.0, corner),
    ]  # fmt: skip
    width, height = image.size
    for left, top, right, bottom in cuts:
        box = (round(width * left), round(height * top), round(width * (1 - right)), round(height * (1 - bottom)))
        cut = image.crop(box)
        yield cut
        yield ImageOps.mirror(cut)


def perceptual_hash(image: Image) -> NDArray[np.uint8]:
    """Return the hash of an image, from the low frequencies of its brightness, as 32 bytes.

    Raises:
        MissingDependencyError: The package `imagehash` is not installed.
    """
    import numpy as np

    try:
        import imagehash
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "needs the package 'imagehash', which is not installed",
            where="leak guard",
            fix="pip install 'knowgen[search]'",
        ) from error
    bits: Any = imagehash.phash(image, hash_size=HASH_SIZE).hash
    return np.packbits(bits)


def _distance(known: NDArray[np.uint8], one: NDArray[np.uint8]) -> int:
    """Return the smallest number of bits in which a hash differs from one of those known."""
    import numpy as np

    return int(np.unpackbits(known ^ one, axis=1).sum(axis=1).min())


def _shrunk(image: Image) -> Image:
    """Return a copy of at most 256 x 256 pixels, from which hashes are faster."""
    small = image.copy()
    small.thumbnail((_SMALL, _SMALL), reducing_gap=3.0)
    return small


def _without_border(image: Image) -> Image:
    """Return an image without a border of one colour; unchanged where it has none or is of one colour."""
    from PIL import Image as Images
    from PIL import ImageChops

    grey = image.convert("L")
    corner = Images.new("L", grey.size, grey.getpixel((0, 0)))
    box = ImageChops.difference(grey, corner).point(lambda level: 255 * (level > _BORDER_LEVELS)).getbbox()
    if box is None or box[2] - box[0] < image.width // 4 or box[3] - box[1] < image.height // 4:
        return image
    return image.crop(box)
