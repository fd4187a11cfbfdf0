"""Checkpoints of a training, and the weights that were best in an evaluation."""

from __future__ import annotations

import json
import re
from pathlib import Path

from knowgen.core.atomic import write_file

_STATE = "trainer_state.json"
"""What a checkpoint is complete with: it is written last."""


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint; None without one.

    Args:
        folder: Folder with `checkpoint-STEP` folders.
    """
    found = {
        int(match[1]): path for path in folder.glob("*") if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    }
    return next((found[step] for step in sorted(found, reverse=True) if _complete(found[step])), None)


def _complete(checkpoint: Path) -> bool:
    try:
        return "global_step" in json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # the process was killed while it wrote


class BestWeights:
    """The headlines of the evaluations so far.

    Args:
        file: `best.json` of the training: the best step and its headline, and the headlines of all steps.

    Attributes:
        headlines: Headline by step; None where the evaluation gave none.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.headlines: dict[int, float | None] = {}
        if file.is_file():
            stored = json.loads(file.read_text(encoding="utf-8"))
            self.headlines = {int(step): value for step, value in stored["headlines"].items()}

    @property
    def best(self) -> int | None:
        """Step with the highest headline, the earliest of several; None without one."""
        known = [(value, -step) for step, value in self.headlines.items() if value is not None]
        return -max(known)[1] if known else None

    def is_best(self, headline: float) -> bool:
        """Return whether a headline is higher than all so far."""
        return all(value is None or headline > value for value in self.headlines.values())

    def add(self, step: int, headline: float | None, *, write: bool = True) -> None:
        """Store the headline of a step.

        Args:
            step: The step.
            headline: Its headline; None where the evaluation gave none.
            write: Whether the file is written, which one process does for all.
        """
        self.headlines[step] = headline
        if not write:
            return
        best = self.best
        data = {
            "step": best,
            "headline": None if best is None else self.headlines[best],
            "headlines": dict(sorted(self.headlines.items())),
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_file(self._file, json.dumps(data, indent=1) + "\n")
