"""The directory of a training: its description, the figures of each step, its episodes, and their images.

    training.json                 description, written once for each call
    metrics.jsonl                 one line per step and kind; of several for a step the last one counts
    episodes/000012.jsonl         one line for each episode of step 12
    images/ab/<sha256>.png        images of the episodes, by content
    evaluations/000020/           run directory of an evaluation; evaluations/000000 is that before the first step
    checkpoints/                  what a backend needs to go on, in its own form
    best.json                     the best evaluated step and its headline
    model/                        exported weights

Fields of the description: method, config (every value), versions (by package), model, started, and at the end of a call
steps and stopped (why it ended early; empty when it is complete). None is required to read the directory.

Names of figures: reward, reward_std, reward_image, reward_text, masked, without_spread (shares), ending/ENDING
(shares), searched, calls, references, tokens_sampled, tokens_context, images_seen, gap_mean, gap_max, loss, grad_norm,
learning_rate, clipped (shares), entropy, kl, replaced (groups without spread that gave way to other prompts), seconds,
share/PART of the time, cost, cost_total; for fine-tuning loss, tokens_per_second; for an evaluation headline. A figure
that is not a finite number is stored as text, such as "nan".
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import Field

from knowgen.core.atomic import write_file
from knowgen.core.errors import DataError
from knowgen.core.records import AgentAnswer, Generation, Record, Score
from knowgen.core.text_files import numbered_lines, parse_strict_json
from knowgen.store.images import ImageFolder

MetricKind = Literal["train", "evaluation"]


class EpisodeRecord(Record):
    """A stored episode.

    Attributes:
        step: Step that it was sampled for, from 1.
        key: Identity of its prompt.
        number: Number within the group of its prompt, from 0.
        sample_id: Id of the sample.
        prompt: Prompt of the sample.
        answer: What the agent did, with its trajectory; None where a service failed before its end.
        generation: The image, or why there is none; None where none was to be generated.
        reward: The reward; None if masked.
        image: Image half of the reward.
        text: Text half of the reward.
        masked: Why it is left out of the gradient because a service failed; empty otherwise.
        reason: Why the reward is what it is, where a rule decided it.
        advantage: Advantage within the group; None if masked.
        sampled: Number of sampled tokens.
        context: Number of other tokens.
        gap: Largest difference between a token's log-probability by the engine and by the trainer; None if unknown.
        scores: The scores that the reward was computed from.
        seconds: Time of each part in seconds.
        cost: Cost in US dollars; None when it is not known.
    """

    step: int
    key: str
    number: int
    sample_id: str
    prompt: str
    answer: AgentAnswer | None = None
    generation: Generation | None = None
    reward: float | None = None
    image: float | None = None
    text: float | None = None
    masked: str = ""
    reason: str = ""
    advantage: float | None = None
    sampled: int = 0
    context: int = 0
    gap: float | None = None
    scores: tuple[Score, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    cost: float | None = 0.0


class TrainingRun:
    """A directory of a training; see the module.

    Args:
        path: The directory.
        watch: Called with the figures of each step after they are stored: step, values and kind.
    """

    DESCRIPTION = "training.json"
    METRICS = "metrics.jsonl"
    BEST = "best.json"

    def __init__(
        self,
        path: Path,
        watch: Callable[[int, Mapping[str, float], MetricKind], None] = lambda step, values, kind: None,
    ) -> None:
        self.path, self.watch = path, watch
        self.images = ImageFolder(path / "images")

    @classmethod
    def at(cls, path: Path) -> bool:
        """Return whether a directory is that of a training."""
        return (path / cls.DESCRIPTION).is_file()

    def describe(self, description: Mapping[str, Any]) -> None:
        """Write the description."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_file(self.path / self.DESCRIPTION, json.dumps(description, indent=1, sort_keys=True) + "\n")

    def description(self) -> dict[str, Any]:
        """Return the description.

        Raises:
            DataError: There is none, or it is not a JSON object.
        """
        path = self.path / self.DESCRIPTION
        try:
            data = parse_strict_json(path.read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise DataError("no training is here", where=str(self.path), fix="name its output directory") from error
        if not isinstance(data, dict):
            raise DataError("must be a JSON object", where=str(path))
        return data

    def add_metrics(self, step: int, values: Mapping[str, float], kind: MetricKind = "train") -> None:
        """Append the figures of a step."""
        stored = {name: value if math.isfinite(value) else str(float(value)) for name, value in values.items()}
        line = json.dumps({"step": step, "kind": kind, "values": stored})
        path = self.path / self.METRICS
        _drop_half_line(path)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.watch(step, values, kind)

    def metrics(self, kind: MetricKind = "train") -> dict[int, dict[str, float]]:
        """Return the figures of each step, in order; a line that a killed process left half-written is skipped."""
        path = self.path / self.METRICS
        steps: dict[int, dict[str, float]] = {}
        if path.is_file():
            lines = list(numbered_lines(path))
            for place, (number, line) in enumerate(lines):
                try:
                    entry = parse_strict_json(line, f"{path}:{number}")
                except DataError:
                    if place == len(lines) - 1:
                        break  # the process was killed while it wrote
                    raise
                if entry["kind"] == kind:
                    steps[entry["step"]] = {name: float(value) for name, value in entry["values"].items()}
        return dict(sorted(steps.items()))

    def episodes_file(self, step: int) -> Path:
        """Return the file of the episodes of a step."""
        return self.path / "episodes" / f"{step:06d}.jsonl"

    def put_episodes(self, step: int, episodes: Iterator[EpisodeRecord] | list[EpisodeRecord]) -> None:
        """Write the episodes of a step, in place of earlier ones."""
        path = self.episodes_file(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, "".join(each.model_dump_json() + "\n" for each in episodes))

    def episode_steps(self) -> list[int]:
        """Return the steps whose episodes are stored, in order."""
        return sorted(int(path.stem) for path in (self.path / "episodes").glob("[0-9]*.jsonl"))

    def episodes(self, step: int) -> Iterator[EpisodeRecord]:
        """Yield the episodes of a step.

        Raises:
            DataError: A line is not an episode.
        """
        path = self.episodes_file(step)
        for number, line in numbered_lines(path):
            try:
                yield EpisodeRecord.model_validate_json(line)
            except ValueError as error:
                raise DataError("is not an episode of a training", where=f"{path}:{number}") from error

    def episode_count(self, step: int) -> int:
        """Return the number of stored episodes of a step, without reading what they hold; 0 without a file."""
        path = self.episodes_file(step)
        return sum(1 for _ in numbered_lines(path)) if path.is_file() else 0

    def evaluation(self, step: int) -> Path:
        """Return the run directory of the evaluation at a step."""
        return self.path / "evaluations" / f"{step:06d}"


def _drop_half_line(path: Path) -> None:
    """Remove a line without an end, which a killed process left; the next one would be appended to it."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if end == 0 or _byte(file, end - 1) == b"\n":
            return
        while end > 0 and _byte(file, end - 1) != b"\n":
            end -= 1
        file.truncate(end)


def _byte(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(1)
