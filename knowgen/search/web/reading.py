"""Read fetched documents as pages in worker processes, which a hostile document cannot keep busy for ever."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

from knowgen.clients.safe_fetch import FetchResult
from knowgen.core.errors import DataError, TransientError
from knowgen.core.import_path import child_environment, module_command
from knowgen.search.contract import Page

CPU_SECONDS = 15.0
"""Maximum processor time for one document, in seconds. An article takes a tenth of a second, 1 MB of HTML about 2."""

_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "HOME")
"""Variables of the environment that a worker gets: it reads documents of strangers, and needs no keys."""


class PageReading:
    """A pool of worker processes. May be used from any event loop.

    Args:
        workers: Maximum number of processes; one per core when None.
        cpu_seconds: Maximum processor time for one document, in seconds.
    """

    def __init__(self, workers: int | None = None, *, cpu_seconds: float = CPU_SECONDS) -> None:
        self._workers = workers or os.cpu_count() or 1
        self._cpu_seconds = cpu_seconds
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._idle: list[_ReadingProcess] = []

    async def read(self, fetched: FetchResult) -> Page:
        """Return a document as a page.

        Raises:
            DataError: It is not HTML or text, has no text, or takes too long to be read.
            TransientError: The worker process died for another reason.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="knowgen-pages")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, fetched)

    async def close(self) -> None:
        """End the worker processes. A later call starts others."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)
        with self._lock:
            workers, self._idle = self._idle, []
        for worker in workers:
            worker.end()

    def _read(self, fetched: FetchResult) -> Page:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or _ReadingProcess()
        try:
            page = worker.read(fetched, self._cpu_seconds)
        except DataError:
            if worker.alive:
                self._keep(worker)
            raise
        except BaseException:
            worker.end()
            raise
        self._keep(worker)
        return page

    def _keep(self, worker: _ReadingProcess) -> None:
        with self._lock:
            self._idle.append(worker)


class _ReadingProcess:
    """A worker process, which reads one document at a time."""

    def __init__(self) -> None:
        environment = child_environment()
        self._process = subprocess.Popen(
            module_command("knowgen.search.web.reading_worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: environment[name] for name in _KEPT_VARIABLES if name in environment},
            start_new_session=True,
        )

    @property
    def alive(self) -> bool:
        """Whether it can read another document."""
        return self._process.poll() is None

    def read(self, fetched: FetchResult, cpu_seconds: float) -> Page:
        assert self._process.stdin is not None and self._process.stdout is not None
        header = {
            "url": fetched.url,
            "content_type": fetched.content_type,
            "charset": fetched.charset,
            "size": len(fetched.data),
            "cpu_seconds": cpu_seconds,
        }
        with contextlib.suppress(OSError):  # the process died, as its missing answer shows
            self._process.stdin.write(json.dumps(header).encode() + b"\n" + fetched.data)
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._raise_dead(fetched.url, cpu_seconds)
        answer = json.loads(line)
        if "page" in answer:
            return Page.model_validate(answer["page"])
        raise DataError(answer["error"], where=fetched.url, fix=answer.get("fix", "open another page"))

    def _raise_dead(self, url: str, cpu_seconds: float) -> None:
        code = self._process.wait()
        self.end()
        if code == -signal.SIGVTALRM:
            raise DataError(
                f"the page takes more than {cpu_seconds:g} s of processor time to read",
                where=url,
                fix="open another page",
            )
        raise TransientError(f"the process that reads pages ended with code {code}")

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()
