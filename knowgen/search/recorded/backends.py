"""The search backends `record:FILE,NAME` and `replay:FILE`."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

from knowgen.core.errors import DataError, NotRecordedError, UsageError
from knowgen.core.home import expand_user
from knowgen.search.contract import BlockReason, Hit, ImageHit, Page, PageBlockedError
from knowgen.search.load import named_backend
from knowgen.search.prices import query_price
from knowgen.search.recorded.file import Call, Recording
from knowgen.search.web.guarding import check_leaks, guarded_hit, guarded_image_hit
from knowgen.search.web.query_cache import KeyedLocks


class _RecordedSearch(ABC):
    """Answers from the lines of a recording.

    Args:
        file: The recording.
        backend: Name of the backend that is recorded, None for one that is read. The file of a new recording is made
            when it is first asked, so that looking at a backend leaves nothing behind.
    """

    def __init__(self, file: str, backend: str | None) -> None:
        self._path, self._backend_name = expand_user(file), backend
        self._lock = threading.Lock()
        self._opened: Recording | None = None
        if backend is None or self._path.exists():
            self._opened = Recording(self._path, backend)

    @property
    def _recording(self) -> Recording:
        with self._lock:
            if self._opened is None:
                self._opened = Recording(self._path, self._backend_name)
            return self._opened

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Return at most `k` pages, best first; an empty list when nothing is found."""
        line = await self._line(("search", query, k))
        return [guarded_hit(Hit.model_validate(hit)) for hit in line["hits"]]

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return at most `k` images, best first, with those that could not be downloaded on the way."""
        line = await self._line(("image_search", query, k))
        return await asyncio.to_thread(lambda: [self._image_hit(hit) for hit in line["hits"]])

    async def open(self, url: str) -> Page:
        """Return the page at a URL; errors as in `SearchBackend.open`."""
        check_leaks((url,))
        line = await self._line(("open", url))
        error = line.get("error")
        if error is None:
            return Page.model_validate(line["page"])
        if error["kind"] == "blocked":
            raise PageBlockedError(error["what"], BlockReason(error["reason"]), where=url)
        raise DataError(error["what"], where=url, fix=error["fix"])

    async def close(self) -> None:
        """Close the recording; a later call opens it again."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    @abstractmethod
    async def _line(self, call: Call) -> dict[str, Any]:
        """Return the line of a call."""

    def _image_hit(self, stored: dict[str, Any]) -> ImageHit:
        hit = ImageHit.model_validate(stored)
        if hit.image is None:
            return hit
        return guarded_image_hit(hit.model_copy(update={"image": self._recording.image(hit.image)}))


class RecordSearch(_RecordedSearch):
    """The search backend `record:FILE,NAME`: another one, of which every answer is kept in a file.

    A call that the file has is answered from it, so that a file has one answer for each call, also where a run is
    stopped and goes on. Several processes may record into one file. What failed for a while is not recorded.

    Args:
        model: File and name of the backend, such as `web.jsonl,serper` or `web.jsonl,chain:serper,brave`. The path of
            the file has no comma.
        arguments: Arguments of the backend.

    Raises:
        UsageError: The file or the backend is missing, or the backend is unknown.
        ConfigError: The file cannot be written, or has the answers of another backend.
    """

    def __init__(self, model: str, **arguments: Any) -> None:
        file, name = _file_and_name(model)
        self._name, self._backend = named_backend(name, arguments)
        super().__init__(file, self._name)
        self._locks = KeyedLocks()

    @classmethod
    def query_price(cls, model: str, **arguments: Any) -> float | None:
        """Return the maximum cost of a query of the recorded backend in US dollars; None when it is not known."""
        return query_price(_file_and_name(model)[1], arguments)

    @property
    def version(self) -> str:
        """Name and version of the recorded backend."""
        return f"{self._name}@{getattr(self._backend, 'version', '')}"

    async def close(self) -> None:
        """Close the recording and the backend."""
        await super().close()
        if (close := getattr(self._backend, "close", None)) is not None:
            await close()

    async def _line(self, call: Call) -> dict[str, Any]:
        async with self._locks.hold(repr(call)):
            line = await asyncio.to_thread(lambda: self._recording.find(call))
            if line is None:
                answer = await self._ask(call)
                line = await asyncio.to_thread(self._recording.add, call, answer)
            return line

    async def _ask(self, call: Call) -> dict[str, Any]:
        """Return the backend's answer to a call, as a part of a line."""
        method, *arguments = call
        if method == "search":
            pages = await self._backend.search(*arguments)  # type: ignore[arg-type]
            return {"hits": [hit.model_dump(mode="json") for hit in pages]}
        if method == "image_search":
            hits = await self._backend.image_search(*arguments)  # type: ignore[arg-type]
            for hit in hits:
                if hit.image is not None:
                    await asyncio.to_thread(self._recording.add_image, hit.image)
            return {"hits": [hit.model_dump(mode="json") for hit in hits]}
        try:
            page = await self._backend.open(*arguments)  # type: ignore[arg-type]
        except DataError as error:
            return {"error": {"kind": "data", "what": error.what, "fix": error.fix}}
        except PageBlockedError as error:
            return {"error": {"kind": "blocked", "what": error.what, "reason": error.reason}}
        return {"page": page.model_dump(mode="json")}


def _file_and_name(model: str) -> tuple[str, str]:
    file, _, name = (part.strip() for part in model.partition(","))
    if not file or not name:
        raise UsageError("a recording has a file and a backend", where=f"record:{model}", fix="write record:FILE,NAME")
    return file, name


class ReplaySearch(_RecordedSearch):
    """The search backend `replay:FILE`: answers what a recording has, without keys or network.

    Args:
        model: File of the recording, or a zip file of it.

    Raises:
        DataError: The file does not exist, or is not a recording.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model, None)

    @classmethod
    def query_price(cls, **_arguments: Any) -> float:
        """Return the cost of a query in US dollars: nothing."""
        return 0.0

    @cached_property
    def version(self) -> str:
        """Hash of the recording, 12 hex digits."""
        return self._recording.version

    async def _line(self, call: Call) -> dict[str, Any]:
        line = await asyncio.to_thread(lambda: self._recording.find(call))
        if line is None:
            method, *arguments = call
            asked = ", ".join(map(repr, arguments))
            raise NotRecordedError(
                f"{method}({asked}) was not recorded",
                where=str(self._path),
                fix="run the same system with the same options as the recorded run, or record again",
            )
        return line
