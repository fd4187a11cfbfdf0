"""Results files, task folders and folders of images as other machines write them, and the command line on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen.cli.main import run
from knowgen.store.run import RunStore

Name = Callable[[int], Any]


def put_image(path: Path, number: int, kind: str | None = None) -> Path:
    """Write an image of the colour that the ground truth of sample `number` has in `make_task`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (number, 0, 0)).save(path, kind)
    return path


def result_rows(count: int, output: Name, truth: Name, **more: Any) -> list[dict[str, Any]]:
    """Return rows of a results file, in both groups of categories."""
    return [
        {"id": number, "success": True, "prompt": f"prompt {number}",
         "meta": {"category": "art" if number % 2 else "film"},
         "output_path": output(number), "gt_image": truth(number), **more}
        for number in range(count)
    ]  # fmt: skip


def write_results(path: Path, rows: Sequence[dict[str, Any]], encoding: str = "utf-8") -> Path:
    """Write a results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(rows).encode(encoding))
    return path


@dataclass(frozen=True)
class Called:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The only line of the error output, without progress and without the program's name."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("knowgen: ")]
        return line.removeprefix("knowgen: ")


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Called:
    """Run a command line in this process."""
    capsys.readouterr()
    code = run([str(each) for each in arguments])
    printed = capsys.readouterr()
    return Called(code, printed.out, printed.err)


def figures(run_directory: Path, protocol: str = "strict") -> tuple[float | None, int]:
    """Return the headline figure of a run and its number of samples."""
    from knowgen import api

    figure = api.load_run(run_directory).summarise(protocol).headline
    return figure.value, figure.n


def source_notes(run_directory: Path) -> list[dict[str, Any]]:
    """Return what a run records about its source."""
    with RunStore.read(run_directory) as store:
        return [data for _, _, data in store.notes("source")]
