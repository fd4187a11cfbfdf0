"""Pin the task of a board: its version into `board.yaml`, and its samples into `samples.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from knowgen.core.atomic import write_file
from knowgen.core.errors import DataError
from knowgen.core.images import open_rgb
from knowgen.core.spec import canonical
from knowgen.core.yaml_files import YamlFile, read_yaml
from knowgen.leaderboards.folder import BOARD_FILE, SAMPLES_FILE, Board
from knowgen.leaderboards.records import BoardSample, TruthHashes
from knowgen.search.leaks import perceptual_hash
from knowgen.tasks.contract import Task

if TYPE_CHECKING:
    from yaml.nodes import MappingNode


def write_pin(board: Board, task: Task) -> int:
    """Write the samples of a board and the version of its task; return the number of samples.

    Comments and order of `board.yaml` stay as they are.

    Args:
        board: The board.
        task: Its task.

    Raises:
        DataError: The task is broken, or `board.yaml` is written in a form that cannot be changed.
    """
    text = _with_version(read_yaml(board.path / BOARD_FILE), task.version)
    lines = [canonical(sample.model_dump(mode="json")) + "\n" for sample in board_samples(task)]
    if not lines:
        raise DataError("has no samples", where=f"task {task.name}", fix="pin a task that has some")
    write_file(board.path / SAMPLES_FILE, "".join(lines))
    write_file(board.path / BOARD_FILE, text)
    return len(lines)


def board_samples(task: Task) -> Iterator[BoardSample]:
    """Yield the samples of a task as a board keeps them, with hashes in place of ground truths."""
    for sample in task.samples():
        image = task.truth(sample.id).image
        hashes = None
        if image is not None:
            perceptual = perceptual_hash(open_rgb(image.path)).tobytes().hex()
            hashes = TruthHashes(sha256=image.sha256, perceptual=perceptual)
        yield BoardSample(
            id=sample.id,
            prompt=sample.prompt,
            category=sample.category,
            difficulty=sample.difficulty,
            text_required=sample.text_required,
            truth=hashes,
        )


def _with_version(file: YamlFile, version: str) -> str:
    """Return the text of a `board.yaml` with the version of its task.

    Raises:
        DataError: The version could not be put in its place.
    """
    import yaml

    where, value = str(file.path), json.dumps(version)
    task = _value(file.root, "task")
    if not isinstance(task, yaml.MappingNode):
        raise DataError("task is not a mapping", where=where, fix="write `task:` with `name:` below it")
    text, node = file.text, _value(task, "version")
    if node is not None:
        start, end = node.start_mark.index, node.end_mark.index
        space = "" if text[start - 1 : start].isspace() else " "
        text = f"{text[:start]}{space}{value}{text[end:]}"
    else:
        key, name = next(pair for pair in task.value if pair[0].value == "name")
        end = name.end_mark.index
        before = ", " if task.flow_style else "\n" + " " * key.start_mark.column
        text = f"{text[:end]}{before}version: {value}{text[end:]}"
    expected = {**file.data, "task": {**file.data["task"], "version": version}}
    try:
        written = yaml.safe_load(text)
    except yaml.YAMLError:
        written = None
    if written != expected:
        raise DataError("the version cannot be put in its place", where=where, fix=f"write `version: {value}` yourself")
    return text


def _value(node: object, name: str) -> MappingNode | None:
    import yaml

    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == name), None)
