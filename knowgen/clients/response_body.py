"""Reading the body of a response with a bound on its size after decompression.

A few megabytes of gzip hold gigabytes. aiohttp would decompress a chunk before its size is known, so sessions are made
with `auto_decompress=False` and the headers below, and bodies are decompressed here piece by piece.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from knowgen.core.errors import KnowgenError

if TYPE_CHECKING:
    import aiohttp

ACCEPT_ENCODING = {"Accept-Encoding": "gzip, deflate"}
"""Header of every request: the encodings that are read here."""

_PIECE = 1 << 18
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class UnreadableBodyError(KnowgenError):
    """A body is longer than the bound, or cannot be decompressed."""


async def read_body(response: aiohttp.ClientResponse, limit: int, *, cut: bool = False) -> bytes:
    """Return the decompressed body of a response.

    Args:
        response: Response of a session with `auto_decompress=False`.
        limit: Maximum size in bytes, before and after decompression.
        cut: Whether only the first `limit` bytes of a larger body are read, instead of an error.

    Raises:
        UnreadableBodyError: It is larger, its encoding is not known, or it is broken.
    """
    unpack = _Decompressor(response.headers.get("Content-Encoding", ""), limit)
    body = bytearray()
    async for piece in response.content.iter_chunked(_PIECE):
        body += unpack.feed(piece, limit - len(body))
        if len(body) > limit and cut:
            return bytes(body[:limit])
        if len(body) > limit:
            raise UnreadableBodyError(f"the answer is longer than {size_in_words(limit)}")
    unpack.finish()
    return bytes(body)


def size_in_words(size: int) -> str:
    """Return a size in bytes as text, such as `8 MiB`."""
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size} bytes"


class _Decompressor:
    """Decompresses a body piece by piece, never more than one byte beyond what is still allowed."""

    def __init__(self, encoding: str, limit: int) -> None:
        names = [name.strip().lower() for name in encoding.split(",") if name.strip().lower() not in ("", "identity")]
        if len(names) > 1 or any(name not in _WINDOW_BITS for name in names):
            raise UnreadableBodyError(f"the answer has the encoding {encoding[:40]!r}, which was not asked for")
        self._name = names[0] if names else ""
        self._object = zlib.decompressobj(_WINDOW_BITS[self._name]) if names else None
        self._started = False

    def feed(self, data: bytes, allowed: int) -> bytes:
        """Return the bytes of a piece, at most one more than `allowed`."""
        if self._object is None:
            return data[: allowed + 1]
        if not self._started and self._name == "deflate" and data and data[0] & 0x0F != 8:
            self._object = zlib.decompressobj(-15)  # some servers send deflate without its header
        self._started = True
        try:
            return self._object.decompress(data, max(1, allowed + 1))
        except zlib.error as error:
            raise UnreadableBodyError(f"the answer cannot be decompressed: {error}") from error

    def finish(self) -> None:
        """Check that the compressed body is complete."""
        if self._object is not None and self._started and not self._object.eof:
            raise UnreadableBodyError("the answer ends inside its compressed data")
