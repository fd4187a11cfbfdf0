"""What the training process and verl's processes tell each other: files in a folder that all machines see.

verl/task.json               the configuration of the training, and what builds its rollouts
verl/prompts.jsonl           the prompts with their ground truths, one a line
verl/order.parquet           what verl reads: places in that file in the order of the training, no ground truth
verl/agent_loops.yaml        the agent loop, by class
verl/verl.yaml               the settings of verl
verl/metrics.jsonl           verl's figures, one line a step
verl/episodes/000012/        the episodes of step 12 by group, until they are stored with the training
verl/workers/                one file for each process that runs agents, with its number
verl/stop.json               why a worker wants the training to end
verl/verl.log                what verl prints
checkpoints/                 verl's checkpoints
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from knowgen.core.atomic import write_file
from knowgen.core.errors import DataError
from knowgen.core.records import ImageRef, Record
from knowgen.core.text_files import numbered_lines, parse_strict_json
from knowgen.store.training_run import TrainingRun
from knowgen.training.backends.contract import Episode, TrainingPrompt
from knowgen.training.config import TrainingConfig
from knowgen.training.episode_images import EpisodeImages

T = TypeVar("T")

AGENT_LOOP = "knowgen"
"""Name of the agent loop in verl."""

AGENT_LOOP_CLASS = "knowgen.training.backends.verl.agent_loop.EpisodeLoop"


class VerlFiles:
    """The files of a training with verl.

    Args:
        folder: Directory of the training.
    """

    def __init__(self, folder: Path) -> None:
        self.training = folder.resolve()
        self.folder = self.training / "verl"
        self.task, self.prompts, self.order = (
            self.folder / name for name in ("task.json", "prompts.jsonl", "order.parquet")
        )
        self.loops, self.settings = self.folder / "agent_loops.yaml", self.folder / "verl.yaml"
        self.metrics, self.log, self.stop = (self.folder / name for name in ("metrics.jsonl", "verl.log", "stop.json"))
        self.episodes = self.folder / "episodes"
        self.checkpoints = self.training / "checkpoints"
        self._images = EpisodeImages(TrainingRun(self.training).images)

    def begin(self, config: TrainingConfig, rollouts: str) -> None:
        """Write what the workers read, and remove what an earlier call left.

        Args:
            config: The configuration of the training.
            rollouts: What builds the rollouts in a worker, see `TrainingTools.worker_rollouts`.
        """
        import yaml

        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (self.metrics, self.stop):
            path.unlink(missing_ok=True)
        for folder in (self.episodes, self.folder / "workers"):
            shutil.rmtree(folder, ignore_errors=True)
        task = {"config": config.model_dump(mode="json"), "folder": str(self.training), "rollouts": rollouts}
        write_file(self.task, json.dumps(task, indent=1) + "\n")
        loop = {"name": AGENT_LOOP, "_target_": AGENT_LOOP_CLASS, "folder": str(self.training)}
        write_file(self.loops, yaml.safe_dump([loop], sort_keys=False))

    def read_task(self) -> tuple[TrainingConfig, str]:
        """Return the configuration of the training, and what builds its rollouts."""
        task = parse_strict_json(self.task.read_text(encoding="utf-8"), str(self.task))
        return TrainingConfig.model_validate(task["config"]), str(task["rollouts"])

    def put_prompts(self, epochs: Iterable[Sequence[TrainingPrompt]]) -> int:
        """Write the prompts of all epochs, and their order; return their number.

        A prompt that several epochs have is written once.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        places: dict[str, int] = {}
        rows: list[dict[str, Any]] = []
        size = 0
        with self.prompts.open("wb") as file:
            for epoch in epochs:
                for prompt in epoch:
                    line = self._dumped(prompt)
                    if line not in places:
                        places[line] = size
                        size += file.write(line.encode())
                    rows.append(_verl_row(prompt, len(rows), places[line]))
        pq.write_table(pa.Table.from_pylist(rows), self.order)
        return len(rows)

    def prompt_at(self, place: int) -> TrainingPrompt:
        """Return the prompt at a place in the file of prompts, in bytes."""
        with self.prompts.open("rb") as file:
            file.seek(place)
            return _loaded(TrainingPrompt, file.readline())

    def put_group(self, step: int, row: int, episodes: Sequence[Episode]) -> None:
        """Write the episodes of a group.

        Args:
            step: Number of the step.
            row: Number of its prompt in the order of the training.
            episodes: The episodes, whose images are still there.
        """
        path = self.episodes / f"{step:06d}" / f"{row:08d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, "".join(map(self._dumped, episodes)))

    def take_groups(self, step: int) -> list[list[Episode]]:
        """Return the episodes of a step by group, and remove their files."""
        folder = self.episodes / f"{step:06d}"
        groups = [
            [_loaded(Episode, line) for line in path.read_bytes().splitlines()]
            for path in sorted(folder.glob("[0-9]*.jsonl"))
        ]
        shutil.rmtree(folder, ignore_errors=True)
        return groups

    def _dumped(self, value: Any) -> str:
        """Return a record of the training as a line of JSON, with the paths of its images, which records leave out.

        Images are stored with the training, where all machines find them, also when those who made them have ended.
        """
        record = _adapter(cast(Hashable, type(value))).dump_python(value, mode="json")
        paths = {}
        for digest, image in _images(value).items():
            stored = self._images.take(image) or image
            paths[digest] = str(Path(str(stored.path)).absolute())
        return json.dumps({"record": record, "paths": paths}) + "\n"

    def request_stop(self, kind: str, reason: str) -> None:
        """Ask the training process to end the training; the first request stands.

        Args:
            kind: Class of the error.
            reason: Its message.
        """
        if not self.stop.exists():
            write_file(self.stop, json.dumps({"kind": kind, "reason": reason}))

    def stop_request(self) -> tuple[str, str] | None:
        """Return class and message of the error for which a worker wants the training to end; None if none does."""
        if not self.stop.exists():
            return None
        request = parse_strict_json(self.stop.read_text(encoding="utf-8"), str(self.stop))
        return str(request["kind"]), str(request["reason"])

    def figures(self, known: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield number and figures of each step that verl has completed.

        Args:
            known: Number of the steps' lines that were read before.
        """
        if not self.metrics.exists():
            return
        lines = self.metrics.read_bytes().split(b"\n")[:-1]  # the last one is not complete
        for line in lines[known:]:
            entry = json.loads(line)
            yield int(entry["step"]), entry["data"]

    def last_lines(self, count: int) -> list[str]:
        """Return the last lines that verl printed."""
        try:
            return [line for _, line in numbered_lines(self.log)][-count:]
        except DataError:
            return []


def _loaded(kind: type[T], line: bytes) -> T:
    """Return the record of a line, with the paths of its images."""
    data = json.loads(line)
    _put_paths(data["record"], data["paths"])
    return _adapter(cast(Hashable, kind)).validate_python(data["record"])  # type: ignore[no-any-return]


def _images(value: Any) -> dict[str, ImageRef]:
    """Return all images in a record that have a path, by digest."""
    if isinstance(value, ImageRef):
        return {} if value.path is None else {value.sha256: value}
    inside: Iterable[Any] = ()
    if is_dataclass(value) or isinstance(value, Record):
        inside = vars(value).values()
    elif isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, list | tuple):
        inside = value
    return {digest: image for each in inside for digest, image in _images(each).items()}


def _put_paths(data: Any, paths: Mapping[str, str]) -> None:
    """Put the paths of images into the data of a record."""
    if isinstance(data, dict):
        if "width" in data and data.get("sha256") in paths:
            data.setdefault("path", paths[data["sha256"]])
        for each in data.values():
            _put_paths(each, paths)
    elif isinstance(data, list):
        for each in data:
            _put_paths(each, paths)


@cache
def _adapter(kind: Hashable) -> Any:
    """Return what writes and reads a record of the training as JSON."""
    from pydantic import TypeAdapter

    return TypeAdapter(cast(Any, kind))


def _verl_row(prompt: TrainingPrompt, row: int, place: int) -> dict[str, Any]:
    return {
        "data_source": AGENT_LOOP,
        "agent_name": AGENT_LOOP,
        "prompt": [{"role": "user", "content": prompt.sample.prompt}],
        "extra_info": {"index": row, "place": place, "key": prompt.key},
    }
