"""Encodes pictures for judges in worker processes, once for each file and form, and keeps them by content.

A worker is `python -m knowgen.clients.chat.encoder_worker`. The encoded files lie in
the cache folder, where the ground truths of a task are found again by every later run; with caches off they lie in a
folder that goes away with the judge.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

from knowgen.clients.chat.image_encoding import EncodedImageFile, ImageEncoding
from knowgen.core.cache import Cache, FileCache, cache_folder
from knowgen.core.errors import ConfigError, TransientError, UnscorableError
from knowgen.core.records import ImageRef
from knowgen.core.spec import fingerprint

CACHE = "images"
ENDING = ".jpg"
_LINE_LIMIT = 1 << 20


class EncoderPool:
    """Encodes pictures for one judge; used in one event loop.

    Args:
        form: How pictures are encoded.
        workers: Processes at most; one a core when 0.
    """

    def __init__(self, form: ImageEncoding, workers: int = 0) -> None:
        self._form = form
        self._workers = workers or os.cpu_count() or 1
        self._under_way: dict[str, asyncio.Future[EncodedImageFile]] = {}
        self._idle: list[_Worker] = []
        self._started = 0
        self._free = asyncio.Semaphore(self._workers)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._index = Cache(CACHE)
        self._name = form.name
        self._files: FileCache | None = None
        self.encoded = 0

    @property
    def files(self) -> FileCache:
        """Where the encoded pictures lie."""
        if self._files is None:
            folder = cache_folder()
            if folder is None or not _writable(folder):
                self._temporary = tempfile.TemporaryDirectory(prefix="knowgen-pictures-")
                folder = Path(self._temporary.name)
            self._files = FileCache(CACHE, folder)
        return self._files

    async def encode(self, picture: ImageRef, what: str) -> EncodedImageFile:
        """Returns a picture in the judge's form, encoded now or earlier.

        Args:
            picture: With its path on this machine.
            what: What to call it in an error.

        Raises:
            UnscorableError: It has no file, or the file does not decode.
            TransientError: The worker process died.
            ConfigError: There is no place to write to.
        """
        key = fingerprint([picture.sha256, self._name])
        while (running := self._under_way.get(key)) is not None:  # the truth of repeats: one encodes, the others wait
            await asyncio.wait([running])
            if running.exception() is None:
                return running.result()
        if (known := self._known(key)) is not None:
            return known
        done: asyncio.Future[EncodedImageFile] = asyncio.get_running_loop().create_future()
        self._under_way[key] = done
        try:
            found = await self._work(picture, what)
        except BaseException as error:
            done.set_exception(error if isinstance(error, Exception) else TransientError("the encoding was cut short"))
            done.exception()  # seen: nobody may be waiting for it
            raise
        finally:
            del self._under_way[key]
        done.set_result(found)
        facts = {"sha256": found.sha256, "width": found.width, "height": found.height, "size": found.size}
        self._index.put(key, json.dumps(facts).encode() + b"\n" + found.data)
        if found.path is not None:
            self.files.added(found.size)
        return found

    def _known(self, key: str) -> EncodedImageFile | None:
        value = self._index.get(key)
        if value is None:
            return None
        head, _, data = value.partition(b"\n")
        facts = json.loads(head)
        if len(data) == facts["size"]:
            return EncodedImageFile(data=data, **facts)
        path = self.files.find(facts["sha256"], ENDING)
        if path is None or path.stat().st_size != facts["size"]:
            return None
        return EncodedImageFile(path=path, **facts)

    async def _work(self, picture: ImageRef, what: str) -> EncodedImageFile:
        if picture.path is None:
            raise UnscorableError(f"{what} {picture.sha256[:12]} has no file on this machine")
        async with self._free:
            worker = self._idle.pop() if self._idle else await _Worker.start()
            try:
                answer = await worker.ask(
                    {
                        "path": str(picture.path.absolute()),
                        "what": what,
                        "folder": str(self.files.root.absolute()),
                        "form": [self._form.longest, self._form.quality],
                    }
                )
            except BaseException:
                worker.kill()
                raise
            self._idle.append(worker)
        self.encoded += 1
        return self._encoded(answer)

    def _encoded(self, answer: dict[str, Any]) -> EncodedImageFile:
        if "unscorable" in answer:
            raise UnscorableError(answer["unscorable"], where=answer.get("where", ""))
        if "unwritable" in answer:
            raise ConfigError(f"an encoded picture cannot be written: {answer['unwritable']}", where=answer["where"])
        data = base64.b64decode(answer.pop("data", ""))
        return EncodedImageFile(data=data, path=None if data else self.files.path(answer["sha256"], ENDING), **answer)

    async def close(self) -> None:
        """Ends the worker processes."""
        for worker in self._idle:
            worker.kill()
        await asyncio.gather(*(worker.gone() for worker in self._idle))
        self._idle.clear()
        self._index.close()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary, self._files = None, None


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


class _Worker:
    """One process that encodes one picture after the other."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> _Worker:
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "knowgen.clients.chat.encoder_worker",
            stdin=PIPE, stdout=PIPE, env=environment, limit=_LINE_LIMIT, start_new_session=True,
        )  # fmt: skip
        return cls(process)

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            await self._process.stdin.drain()
            line = await self._process.stdout.readline()
        except (ConnectionError, BrokenPipeError) as error:
            raise TransientError("the process that encodes pictures died") from error
        if not line:
            raise TransientError("the process that encodes pictures died")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def gone(self) -> None:
        await self._process.wait()
