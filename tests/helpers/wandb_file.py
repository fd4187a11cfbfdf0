"""Read the file that wandb writes offline: records in the log format of LevelDB.

The format: a header of 7 bytes (`:W&B`, 2 bytes, version), then blocks of 32 KiB with chunks of a checksum (4 bytes), a
length (2), a type (1: whole, 2: first, 3: middle, 4: last) and data, see
https://github.com/google/leveldb/blob/main/doc/log_format.md (seen 2026-11-29).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK, _HEADER = 32_768, 7


class WandbFile:
    """A run of wandb that was written offline.

    Args:
        folder: Folder in which wandb keeps its runs; it has one run.

    Attributes:
        config: Settings by name.
        history: Logged values, in order.
        summary: Final values by name.
        artifacts: Names of the files of artefacts.
        exit_code: Exit code of the run; None if it was not ended.
        name: Name of the run.
    """

    def __init__(self, folder: Path) -> None:
        from wandb.proto import wandb_internal_pb2 as messages

        new: Any = messages
        (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.artifacts: list[str] = []
        self.exit_code: int | None = None
        self.name = ""
        for data in _records(path.read_bytes()):
            record = new.Record()
            record.ParseFromString(data)
            self._take(record)

    def _take(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.name = record.run.display_name
            self.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            self.history.append({_key(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            self.summary |= {_key(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "artifact":
            self.artifacts += [each.path for each in record.artifact.manifest.contents]
        elif kind == "exit":
            self.exit_code = record.exit.exit_code


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def _records(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    place, whole = _HEADER, b""
    while place + _HEADER <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (1, 4):
            yield whole
            whole = b""
