"""Encoding images in worker processes, once per file and encoding, with a cache by content.

A worker is `python -m knowgen.clients.chat.encoder_worker`. The encoded files are in the cache folder, so that later
runs reuse those of a task's ground truths. Where caches are off or cannot be written, they are in a temporary folder
that is removed when the pool is closed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

from knowgen.clients.chat.image_encoding import EncodedImageFile, ImageEncoding
from knowgen.core.cache import Cache, FileCache, cache_folder, warn_once
from knowgen.core.errors import ConfigError, TransientError, UnscorableError
from knowgen.core.import_path import child_environment, module_command
from knowgen.core.records import ImageRef
from knowgen.core.scratch import ScratchFolder
from knowgen.core.spec import fingerprint

CACHE = "images"
SUFFIX = ".jpg"
_LINE_LIMIT = 1 << 20


class EncoderPool:
    """Worker processes that encode images for one endpoint. Use it in one event loop.

    Args:
        encoding: Settings of the encoding.
        workers: Maximum number of processes; 0 for one per core.

    Attributes:
        encoded: Number of images encoded, without those found in the cache.
    """

    def __init__(self, encoding: ImageEncoding, workers: int = 0) -> None:
        self._encoding = encoding
        self._workers = workers or os.cpu_count() or 1
        self._in_progress: dict[str, asyncio.Future[EncodedImageFile]] = {}
        self._idle: list[_Worker] = []
        self._running: set[_Worker] = set()
        self._free = asyncio.Semaphore(self._workers)
        self._temporary: ScratchFolder | None = None
        self._index = Cache(CACHE)
        self._files: FileCache | None = None
        self.encoded = 0

    @property
    def files(self) -> FileCache:
        """Cache of the encoded files."""
        if self._files is None:
            folder = cache_folder()
            if folder is None or not _writable(folder):
                folder = self._temporary_folder()
            self._files = FileCache(CACHE, folder)
        return self._files

    def _temporary_folder(self) -> Path:
        self._temporary = ScratchFolder("knowgen.images.")
        return self._temporary.path

    async def encode(self, image: ImageRef, what: str, encoding: ImageEncoding | None = None) -> EncodedImageFile:
        """Return the encoded image, from the cache where it is there.

        Args:
            image: Image with its path on this machine.
            what: Name of the image in errors.
            encoding: Settings of the encoding; those of the pool when None.

        Raises:
            UnscorableError: The image has no file, or the file cannot be decoded.
            TransientError: The worker process died.
            ConfigError: The encoded file cannot be written.
        """
        encoding = encoding or self._encoding
        key = fingerprint([image.sha256, encoding.name])
        while (running := self._in_progress.get(key)) is not None:  # repeats share a ground truth: encode it once
            await asyncio.wait([running])
            if running.exception() is None:
                return running.result()
        if (cached := self._cached(key)) is not None:
            return cached
        done: asyncio.Future[EncodedImageFile] = asyncio.get_running_loop().create_future()
        self._in_progress[key] = done
        try:
            encoded = await self._encode(image, what, encoding)
        except BaseException as error:
            done.set_exception(error if isinstance(error, Exception) else TransientError("the encoding was cancelled"))
            done.exception()  # mark it as retrieved: there may be no other caller
            raise
        finally:
            del self._in_progress[key]
        done.set_result(encoded)
        header = {"sha256": encoded.sha256, "width": encoded.width, "height": encoded.height, "size": encoded.size}
        self._index.put(key, json.dumps(header).encode() + b"\n" + encoded.data)
        if encoded.path is not None:
            self.files.added(encoded.size)
        return encoded

    async def prepare(self) -> None:
        """Start a first worker process, which takes a while, before there is anything to encode."""
        if not self._running:
            worker = await _Worker.start()
            self._running.add(worker)
            self._idle.append(worker)

    def _cached(self, key: str) -> EncodedImageFile | None:
        value = self._index.get(key)
        if value is None:
            return None
        line, _, data = value.partition(b"\n")
        header = json.loads(line)
        if len(data) == header["size"]:
            return EncodedImageFile(data=data, **header)
        path = self.files.find(header["sha256"], SUFFIX)
        if path is None or path.stat().st_size != header["size"]:
            return None
        return EncodedImageFile(path=path, **header)

    async def _encode(self, image: ImageRef, what: str, encoding: ImageEncoding) -> EncodedImageFile:
        if image.path is None:
            raise UnscorableError(f"{what} {image.sha256[:12]} has no file on this machine")
        files = self.files
        answer = await self._ask(image.path, what, files.root, encoding)
        if "unwritable" in answer and self._temporary is None:
            # the disk or the quota of the cache may be full, which must not be a reason to fail a score
            warn_once(
                f"{answer['where']}: {answer['unwritable']}; encoded images are kept in a temporary folder",
                cache_folder(),
            )
            self._files = FileCache(CACHE, self._temporary_folder())
        if "unwritable" in answer and self.files is not files:
            files = self.files
            answer = await self._ask(image.path, what, files.root, encoding)
        return self._read_answer(answer, files)

    async def _ask(self, path: Path, what: str, folder: Path, encoding: ImageEncoding) -> dict[str, Any]:
        """Have a worker process encode an image into a folder."""
        async with self._free:
            worker = self._idle.pop() if self._idle else await _Worker.start()
            self._running.add(worker)
            try:
                answer = await worker.ask(
                    {
                        "path": str(path.absolute()),
                        "what": what,
                        "folder": str(folder.absolute()),
                        "max_side": encoding.max_side,
                        "quality": encoding.quality,
                        "max_bytes": encoding.max_bytes,
                    }
                )
            except BaseException:
                worker.kill()
                raise
            self._idle.append(worker)
        self.encoded += 1
        return answer

    def _read_answer(self, answer: dict[str, Any], files: FileCache) -> EncodedImageFile:
        if "unscorable" in answer:
            raise UnscorableError(answer["unscorable"], where=answer.get("where", ""))
        if "unwritable" in answer:
            raise ConfigError(f"an encoded image cannot be written: {answer['unwritable']}", where=answer["where"])
        data = base64.b64decode(answer.pop("data", ""))
        return EncodedImageFile(data=data, path=None if data else files.path(answer["sha256"], SUFFIX), **answer)

    async def close(self) -> None:
        """End the worker processes and remove temporary files."""
        for worker in self._running:
            worker.kill()
        await asyncio.gather(*(worker.wait() for worker in self._running))
        self._running.clear()
        self._idle.clear()
        self._index.close()
        if self._temporary is not None:
            self._temporary.close()
            self._temporary, self._files = None, None


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


class _Worker:
    """A worker process, which encodes one image at a time."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> _Worker:
        process = await asyncio.create_subprocess_exec(
            *module_command("knowgen.clients.chat.encoder_worker"),
            stdin=PIPE, stdout=PIPE, env=child_environment(), limit=_LINE_LIMIT, start_new_session=True,
        )  # fmt: skip
        return cls(process)

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            await self._process.stdin.drain()
            line = await self._process.stdout.readline()
        except (ConnectionError, BrokenPipeError) as error:
            raise TransientError("the process that encodes images died") from error
        if not line:
            raise TransientError("the process that encodes images died")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> None:
        """Wait until the process has ended and its pipes are closed, which needs the event loop."""
        await self._process.communicate()
        await asyncio.sleep(0)
