"""Worker processes that write the image files of a large report; threads would mostly wait for each other."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.import_path import child_environment, module_command
from knowgen.core.records import ImageRef

BATCH = 32
"""Number of images that a worker is asked for at once."""


@contextlib.contextmanager
def image_workers(
    images: Sequence[tuple[ImageRef, Path | None]], folder: Path, earlier: Path | None, *, large: bool, workers: int
) -> Iterator[Iterator[list[Any]]]:
    """Start to write images and yield the fields of `ShownImage` of each, in order; the block need not wait for them.

    Args:
        images: Each image with the path of its file.
        folder: Folder to write to.
        earlier: Image folder of an earlier report.
        large: Whether larger files are written.
        workers: Number of processes. They end with the block, also if it raises.

    Raises:
        OSError: The folder cannot be written.
        DataError: A worker process ended before its time.
    """
    arguments = (str(folder), str(earlier or ""), "large" if large else "")
    free: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        for _ in range(workers):
            process = subprocess.Popen(
                module_command("knowgen.report.image_worker", *arguments),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment(), text=True, encoding="utf-8",
                start_new_session=True,
            )  # fmt: skip
            stack.callback(_end, process)
            free.put(process)
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        answers = pool.map(lambda batch: _ask(free, batch), batches)
        yield (fields for answer in answers for fields in answer)


def _ask(free: queue.SimpleQueue[subprocess.Popen[str]], batch: Sequence[tuple[ImageRef, Path | None]]) -> list[Any]:
    process = free.get()
    assert process.stdin is not None and process.stdout is not None
    asked = [
        (ref.sha256, ref.width, ref.height, ref.format, None if path is None else str(path)) for ref, path in batch
    ]
    try:
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    finally:
        free.put(process)
    if not line:
        raise DataError("a process that writes images of the page ended early", fix="check the memory and try again")
    answer = json.loads(line)
    if isinstance(answer, dict):
        raise OSError(*answer["error"])
    made: list[Any] = answer
    return made


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()  # it is idle, or its work is not wanted any more
    with process:
        process.wait()
