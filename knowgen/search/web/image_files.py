"""Where downloaded images are kept: in the user's cache, or in a temporary folder where there is none."""

from __future__ import annotations

import threading
from pathlib import Path

from knowgen.core.atomic import write_file
from knowgen.core.cache import FileCache, cache_folder, warn_once
from knowgen.core.scratch import ScratchFolder
from knowgen.core.text import error_message
from knowgen.search.web.query_cache import CACHE

SUFFIX = ".jpg"


class ImageFiles:
    """JPEG files by the SHA-256 hex digest of their content."""

    def __init__(self) -> None:
        folder = cache_folder()
        self._cache = None if folder is None else FileCache(CACHE, folder)
        self._scratch: ScratchFolder | None = None
        self._lock = threading.Lock()

    def find(self, digest: str) -> Path | None:
        """Return the file of a digest; None when there is none."""
        if self._cache is not None and (path := self._cache.find(digest, SUFFIX)) is not None:
            return path
        if self._scratch is None:
            return None
        path = self._scratch.path / f"{digest}{SUFFIX}"
        return path if path.exists() else None

    def put(self, digest: str, data: bytes) -> Path:
        """Store a file, unless it is there, and return its path.

        Raises:
            OSError: It can be written neither to the cache nor to a temporary folder.
        """
        if (path := self.find(digest)) is not None:
            return path
        if self._cache is not None:
            path = self._cache.path(digest, SUFFIX)
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_file(path, data, durable=False)
            except OSError as error:
                warn_once(f"{self._cache.root}: {error_message(error)}", self._cache.root)
            else:
                self._cache.added(len(data))
                return path
        path = self._temporary() / f"{digest}{SUFFIX}"
        write_file(path, data, durable=False)
        return path

    def close(self) -> None:
        """Remove the temporary folder."""
        with self._lock:
            if self._scratch is not None:
                self._scratch.close()
                self._scratch = None

    def _temporary(self) -> Path:
        with self._lock:
            if self._scratch is None:
                self._scratch = ScratchFolder("knowgen.images.")
            return self._scratch.path
