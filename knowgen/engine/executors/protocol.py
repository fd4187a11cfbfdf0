"""Messages between a run and its worker processes: one JSON object per line. Nothing is pickled.

The run sends `build` (once), `invoke`, `reply` (to a reservation) and `close`, in the field `do`. A worker sends
`ready` or `build_failed` (once), `result`, `error`, `waiting`, `end`, `reserve` and `settle`, in the field `event`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from knowgen.core import errors
from knowgen.core.errors import KnowgenError, ServiceUnavailableError, TransientError
from knowgen.core.records import (
    Attempt,
    FailureCause,
    Generation,
    GenerationRequest,
    GroundTruth,
    ImageRef,
    Item,
    Sample,
)
from knowgen.engine.executors.invoke import ServiceCheck
from knowgen.engine.retry import ContractError, PluginError, cause_of, describe, is_transient, service_failure

_KNOWN_ERRORS: dict[str, type[KnowgenError]] = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, KnowgenError) and not issubclass(value, TransientError)
}


def to_line(message: dict[str, Any]) -> bytes:
    """Return a message as a line of bytes."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def from_line(line: bytes) -> dict[str, Any]:
    """Return the message of a line.

    Raises:
        ValueError: The line is not a JSON object.
    """
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a message must be an object")
    return message


def pack_error(error: BaseException) -> dict[str, Any]:
    """Return an error as plain data. Its kind is kept as far as the engine distinguishes kinds."""
    if isinstance(error, KnowgenError) and not isinstance(error, TransientError):
        kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in _KNOWN_ERRORS)
        return {"kind": kind, "what": error.what, "where": error.where, "fix": error.fix}
    if (unavailable := service_failure(error)) is not None:
        return {
            "kind": "ServiceUnavailableError",
            "what": describe(error),
            "service": unavailable.service,
            "busy": unavailable.busy,
            "retry_after": unavailable.retry_after,
            "attempts": [attempt.model_dump(mode="json") for attempt in unavailable.attempts],
        }
    if isinstance(error, Exception) and is_transient(error):
        return {
            "kind": "TransientError",
            "what": describe(error),
            "retry_after": getattr(error, "retry_after", None),
            "attempts": [attempt.model_dump(mode="json") for attempt in getattr(error, "attempts", ())],
        }
    if isinstance(error, ContractError):
        return {"kind": "ContractError", "what": str(error)}
    machine = cause_of(error) is FailureCause.INFRASTRUCTURE
    return {"kind": "PluginError", "what": describe(error), "machine": machine}


def unpack_error(data: dict[str, Any]) -> Exception:
    """Return the error of `pack_error` data."""
    kind, what = data["kind"], data["what"]
    if kind in _KNOWN_ERRORS:
        return _KNOWN_ERRORS[kind](what, where=data["where"], fix=data["fix"])
    if kind in ("TransientError", "ServiceUnavailableError"):
        attempts = tuple(Attempt.model_validate(attempt) for attempt in data["attempts"])
        if kind == "TransientError":
            return TransientError(what, retry_after=data["retry_after"], attempts=attempts)
        return ServiceUnavailableError(
            what, service=data["service"], busy=data["busy"], retry_after=data["retry_after"], attempts=attempts
        )
    return ContractError(what) if kind == "ContractError" else PluginError(what, machine=data["machine"])


def pack_batch(batch: Sequence[Any]) -> list[dict[str, Any]]:
    """Return requests, or items of a scorer, as plain data with the paths of their images."""
    return [_pack(one) for one in batch]


def _pack(one: Any) -> dict[str, Any]:
    if isinstance(one, ServiceCheck):
        return {"check": one.id}
    return _pack_request(one) if isinstance(one, GenerationRequest) else _pack_item(one)


def unpack_batch(data: Sequence[dict[str, Any]]) -> list[Any]:
    """Return the requests or items of `pack_batch` data."""
    return [_unpack(one) for one in data]


def _unpack(one: dict[str, Any]) -> Any:
    if "check" in one:
        return ServiceCheck(one["check"])
    return _unpack_request(one) if "request" in one else _unpack_item(one)


def _path(ref: ImageRef | None) -> str | None:
    return str(ref.path.absolute()) if ref is not None and ref.path is not None else None


def _placed(ref: ImageRef | None, path: str | None) -> ImageRef | None:
    return ref.model_copy(update={"path": Path(path)}) if ref is not None and path is not None else ref


def _pack_request(request: GenerationRequest) -> dict[str, Any]:
    return {
        "request": request.model_dump(mode="json"),
        "references": [_path(reference) for reference in request.references],
        "truth": _path(request.truth.image) if request.truth is not None else None,
    }


def _unpack_request(data: dict[str, Any]) -> GenerationRequest:
    request = GenerationRequest.model_validate(data["request"])
    updates: dict[str, Any] = {
        "references": tuple(map(_placed, request.references, data["references"])),
        "truth": _truth(request.truth, data["truth"]) if request.truth is not None else None,
    }
    return request.model_copy(update=updates)


def _truth(truth: GroundTruth, path: str | None) -> GroundTruth:
    return truth.model_copy(update={"image": _placed(truth.image, path)})


def _pack_item(item: Item) -> dict[str, Any]:
    sample, truth, generation = item
    return {
        "sample": sample.model_dump(mode="json"),
        "truth": truth.model_dump(mode="json"),
        "generation": generation.model_dump(mode="json"),
        "paths": [_path(truth.image), _path(generation.image)],
    }


def _unpack_item(data: dict[str, Any]) -> Item:
    truth_path, image_path = data["paths"]
    generation = Generation.model_validate(data["generation"])
    return (
        Sample.model_validate(data["sample"]),
        _truth(GroundTruth.model_validate(data["truth"]), truth_path),
        generation.model_copy(update={"image": _placed(generation.image, image_path)}),
    )
