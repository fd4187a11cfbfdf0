"""What the measurements, the campaigns and the engine's tests run against: a task, its specification, and a server."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from PIL import Image

from knowgen.core.records import GroundTruth, Sample
from knowgen.core.spec import GeneratorSpec, RunSpec, ScorerSpec, select

Reply = tuple[int, Mapping[str, str], bytes]
"""HTTP status, headers and body."""


class NumberedTask:
    """A task in memory, of samples s0, s1, …, whose prompts end with their number.

    Args:
        count: Number of samples.
    """

    name = "memory"
    version = "1-feedbeef0123"
    default_scorers: tuple[str, ...] = ()
    search = ""
    search_version = ""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.count

    def samples(self) -> Iterator[Sample]:
        """Yield the samples."""
        for number in range(self.count):
            yield Sample(id=f"s{number}", prompt=f"Draw number {number}.", category="astronomy")

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the ground truth of a sample, which requires its id as text."""
        return GroundTruth(sample_id=sample_id, required_text=(sample_id,))


def number_in(prompt: str) -> int:
    """Return the number of a sample of `NumberedTask`, from its prompt."""
    return int(prompt.removesuffix(".").rpartition(" ")[2])


def specification(
    task: NumberedTask, generator: GeneratorSpec, scorers: Sequence[ScorerSpec] = (), **fields: Any
) -> RunSpec:
    """Return the specification of a run of all samples.

    Args:
        task: The task.
        generator: The generator.
        scorers: The scorers.
        fields: Further fields of the specification.
    """
    return RunSpec(
        task=task.name,
        task_version=task.version,
        selection=select([sample.id for sample in task.samples()], "all"),
        generator=generator,
        scorers=tuple(scorers),
        **fields,
    )


def noise_image(words: str, size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Return an image that depends on the words only."""
    return Image.frombytes("RGB", size, random.Random(words).randbytes(size[0] * size[1] * 3))


class _Listener(ThreadingHTTPServer):
    """Answers each connection in its own thread, for hundreds of connections at a time."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error of a handler, unless the client closed its connection."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class LoopbackServer:
    """A server on this machine that answers POST requests, until it is closed or its `with` block ends.

    Args:
        answer: Returns the reply to a body, in a thread of its connection; None to close the connection without one.
    """

    def __init__(self, answer: Callable[[bytes], Reply | None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                """Answer a call."""
                reply = answer(self.rfile.read(int(self.headers["Content-Length"])))
                if reply is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                status, headers, body = reply
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

        self._http = _Listener(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """URL of the server; it answers at every path."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def close(self) -> None:
        """End the server."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the server."""
        self.close()
