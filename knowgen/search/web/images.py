"""Download the images of search hits: checked, re-encoded as JPEG, stored by content, without repetitions.

Which images are returned depends on the hits and on what their servers answer, never on how fast they do.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from knowgen.clients.safe_fetch import BlockedError, Fetcher, FetchError
from knowgen.core.cache import Cache
from knowgen.core.errors import TransientError
from knowgen.core.images import UnreadableImageError, open_image
from knowgen.core.leaks import blocked_image
from knowgen.core.metering import reuse_replies
from knowgen.core.records import ImageRef, Record
from knowgen.search.contract import BlockReason, ImageHit, PageBlockedError
from knowgen.search.web.guarding import check_leaks
from knowgen.search.web.image_files import ImageFiles
from knowgen.search.web.query_cache import CACHE, KeyedLocks, cache_key, day_of

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

STORING_VERSION = "1"
"""Version of how a downloaded file becomes a stored image, part of the cache's keys."""

MIN_BYTES = 1024
"""Minimum size of a file; smaller ones are icons and counters."""

MAX_BYTES = 32 * 1024 * 1024
"""Maximum size of a file, in bytes."""

MAX_PIXELS = 50_000_000
"""Maximum width times height. Larger images are refused before they are decoded."""

TIMEOUT = 20.0
"""Maximum duration of a download in seconds, redirects included."""

QUALITY = 85
"""Quality of the stored JPEG files."""


class RawImageHit(Record):
    """An image as a search service names it, before it is downloaded.

    Attributes:
        title: Caption as the service gives it.
        url: URL of the image.
        page_url: URL of the page with the image, empty when unknown.
        thumbnail_url: URL of a smaller copy, empty when unknown.
        source: Name of the site with the image, empty when unknown.
    """

    title: str
    url: str
    page_url: str = ""
    thumbnail_url: str = ""
    source: str = ""


@dataclass(frozen=True)
class _Download:
    """What became of one URL: an image, or why there is none."""

    image: ImageRef | None = None
    failure: str = ""
    blocked: BlockReason | None = None


@dataclass
class _Candidate:
    """Hits that name the same image by its title, and the first of their addresses that could be downloaded."""

    hits: list[RawImageHit] = field(default_factory=list)
    result: ImageHit | None = None

    @property
    def found(self) -> bool:
        return self.result is not None and self.result.image is not None

    def sources(self) -> Iterator[tuple[RawImageHit, str]]:
        """Yield the hits with the URLs of their images, each URL once."""
        seen: set[str] = set()
        for hit in self.hits:
            if hit.url and hit.url not in seen:
                seen.add(hit.url)
                yield hit, hit.url


class ImageDownloader:
    """Downloads images for a search backend.

    Args:
        fetcher: Fetches the files; it is not closed with this object.
        trusted: As for `Fetcher.fetch`.
        clock: Returns the current time in seconds since the epoch.
    """

    def __init__(self, fetcher: Fetcher, *, trusted: str = "", clock: Callable[[], float] = time.time) -> None:
        self._fetcher = fetcher
        self._trusted = trusted
        self._clock = clock
        self._cache = Cache(CACHE)
        self._files = ImageFiles()
        self._locks = KeyedLocks()

    async def download_hits(self, raw: Sequence[RawImageHit], k: int) -> list[ImageHit]:
        """Download the images of hits until there are `k` of them.

        Where a download fails, other hits with the same title are tried, then the next hits, then thumbnails. Hits that
        repeat a title or the content of an image are left out.

        Args:
            raw: Hits, best first.
            k: Number of images.

        Returns:
            At most `k` hits with an image, and among them, in the order of `raw`, the hits whose image was tried and is
            missing, each with its reason.
        """
        candidates = _candidates(raw)
        waiting = list(candidates)
        while waiting and (missing := k - _count(candidates)) > 0:
            chosen, waiting = waiting[:missing], waiting[missing:]
            await asyncio.gather(*map(self._try_sources, chosen))
            _drop_repeated(candidates)
        small = [one for one in candidates if one.result is not None and not one.found and one.result.blocked is None]
        while small and (missing := k - _count(candidates)) > 0:
            chosen, small = small[:missing], small[missing:]
            await asyncio.gather(*map(self._try_thumbnails, chosen))
            _drop_repeated(candidates)
        return [one.result for one in candidates if one.result is not None]

    async def close(self) -> None:
        """Write what was cached, and remove the images where caches are off."""
        self._cache.close()
        self._files.close()

    async def _try_sources(self, candidate: _Candidate) -> None:
        for hit, url in candidate.sources():
            got = await self._download(url, hit.page_url)
            if candidate.result is None or got.image is not None:
                candidate.result = _hit(hit, got)
            if got.image is not None or got.blocked is BlockReason.LEAK:
                return

    async def _try_thumbnails(self, candidate: _Candidate) -> None:
        for hit in candidate.hits:
            if hit.thumbnail_url and hit.thumbnail_url != hit.url:
                got = await self._download(hit.thumbnail_url, hit.page_url)
                if got.image is not None:
                    candidate.result = _hit(hit, got)
                    return

    async def _download(self, url: str, page_url: str) -> _Download:
        try:
            check_leaks((url, page_url))
            async with self._locks.hold(url):
                image = await self._stored(url) or await self._fetched(url)
        except PageBlockedError as error:
            return _Download(failure=error.what, blocked=error.reason)
        except BlockedError as error:
            return _Download(failure=error.what, blocked=BlockReason.ADDRESS)
        except (FetchError, TransientError, UnreadableImageError) as error:
            return _Download(failure=error.what)
        return _Download(image)

    async def _stored(self, url: str) -> ImageRef | None:
        """Return the image of a URL that was downloaded today; None when there is none."""
        cached = self._cache.get(self._key(url)) if reuse_replies.get() else None
        if cached is None:
            return None
        stored = json.loads(cached)
        image = ImageRef.model_validate(stored["image"])
        path = self._files.find(image.sha256)
        if path is None:
            return None
        check_leaks(stored["via"])
        await asyncio.to_thread(_check_image, path)
        return image.model_copy(update={"path": path})

    async def _fetched(self, url: str) -> ImageRef:
        async def check(target: str) -> None:
            check_leaks((target,))

        fetched = await self._fetcher.fetch(
            url, max_bytes=MAX_BYTES, timeout=TIMEOUT, trusted=self._trusted, check=check
        )
        if not fetched.content_type.startswith("image/"):
            raise UnreadableImageError(f"it is {fetched.content_type or 'of an unknown type'}, not an image")
        if len(fetched.data) < MIN_BYTES:
            raise UnreadableImageError(f"the file has {len(fetched.data)} bytes, which is an icon at most")
        image = await asyncio.to_thread(self._store, fetched.data)
        self._cache.put(
            self._key(url), json.dumps({"via": fetched.via, "image": image.model_dump(mode="json")}).encode()
        )
        return image

    def _store(self, data: bytes) -> ImageRef:
        opened = open_image(data, max_pixels=MAX_PIXELS).image
        _check_image(opened)
        encoded = jpeg_bytes(opened)
        digest = hashlib.sha256(encoded).hexdigest()
        path = self._files.put(digest, encoded)
        return ImageRef(sha256=digest, width=opened.width, height=opened.height, format="JPEG", path=path)

    def _key(self, url: str) -> str:
        return cache_key("image", STORING_VERSION, url, day_of(self._clock()))


def jpeg_bytes(image: Image) -> bytes:
    """Return an image of mode RGB as a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def _check_image(image: Path | Image) -> None:
    if reason := blocked_image(image):
        raise PageBlockedError(reason, BlockReason.LEAK)


def _candidates(raw: Sequence[RawImageHit]) -> list[_Candidate]:
    """Group hits by title. A hit without a title, or with the URL of an earlier one, is treated as what it is alone."""
    by_name: dict[str, _Candidate] = {}
    urls: set[str] = set()
    for hit in raw:
        if hit.url in urls:
            continue
        urls.add(hit.url)
        title = " ".join(hit.title.casefold().split())
        by_name.setdefault(f"title {title}" if title else f"url {hit.url}", _Candidate()).hits.append(hit)
    return list(by_name.values())


def _count(candidates: Sequence[_Candidate]) -> int:
    return sum(one.found for one in candidates)


def _drop_repeated(candidates: Sequence[_Candidate]) -> None:
    """Drop the results whose image is the same as that of a better one."""
    seen: set[str] = set()
    for one in candidates:
        image = one.result.image if one.result is not None else None
        if image is not None and image.sha256 in seen:
            one.result = None
        elif image is not None:
            seen.add(image.sha256)


def _hit(raw: RawImageHit, got: _Download) -> ImageHit:
    return ImageHit(
        title=raw.title,
        url=raw.url,
        page_url=raw.page_url,
        thumbnail_url=raw.thumbnail_url,
        source=raw.source,
        image=got.image,
        failure=got.failure,
        blocked=got.blocked,
    )
