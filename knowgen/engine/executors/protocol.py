"""Messages between a run and its worker processes, as plain data; `channel` carries them.

The run sends `build` (once), `invoke`, `cancel`, `drop`, `reply` (to a request) and `close`, in the field `do`. A
worker sends `ready` or `build_failed` (once), `result`, `checked`, `error`, `waiting`, `dropped`, `end` and `cancelled`
of a call, the requests `reserve`, `settle` and `leak`, and `note`, in the field `event`. Calls and requests are
numbered, so that many can be open at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    Sample,
)
from knowgen.core.text import one_line
from knowgen.core.tracebacks import place_of, traceback_text
from knowgen.engine.executors.invoke import ServiceCheck
from knowgen.engine.retry import ContractError, PluginError, cause_of, describe, is_transient, service_failure

_KNOWN_ERRORS: dict[str, type[KnowgenError]] = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, KnowgenError) and not issubclass(value, TransientError)
}


def pack_error(error: BaseException) -> dict[str, Any]:
    """Return an error as plain data. Its kind is kept as far as the engine distinguishes kinds."""
    if isinstance(error, KnowgenError) and not isinstance(error, TransientError):
        kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in _KNOWN_ERRORS)
        return {"kind": kind, **{name: one_line(getattr(error, name, "")) for name in ("what", "where", "fix")}}
    if (unavailable := service_failure(error)) is not None:
        return {
            **_pack_transient(unavailable),
            "kind": "ServiceUnavailableError",
            "what": describe(error),
            "service": one_line(unavailable.service),
            "busy": bool(unavailable.busy),
        }
    if isinstance(error, Exception) and is_transient(error):
        return _pack_transient(error)
    if isinstance(error, ContractError):
        return {"kind": "ContractError", "what": one_line(error)}
    trace = {"place": place_of(error), "traceback": traceback_text(error)}
    machine = cause_of(error) is FailureCause.INFRASTRUCTURE
    return {"kind": "PluginError", "what": describe(error), "machine": machine, **trace}


def _pack_transient(error: Exception) -> dict[str, Any]:
    retry_after = getattr(error, "retry_after", None)
    attempts = getattr(error, "attempts", ())
    return {
        "kind": "TransientError",
        "what": describe(error),
        "retry_after": retry_after if isinstance(retry_after, (int, float)) else None,
        "attempts": [attempt.model_dump(mode="json") for attempt in attempts if isinstance(attempt, Attempt)],
    }


def unpack_error(data: dict[str, Any]) -> Exception:
    """Return the error of `pack_error` data."""
    kind, what = data["kind"], data["what"]
    if kind in {"TransientError", "ServiceUnavailableError"}:
        fields: dict[str, Any] = {
            "retry_after": data["retry_after"],
            "attempts": tuple(Attempt.model_validate(attempt) for attempt in data["attempts"]),
        }
        if kind == "TransientError":
            return TransientError(what, **fields)
        return ServiceUnavailableError(what, service=data["service"], busy=data["busy"], **fields)
    if kind in _KNOWN_ERRORS:
        return _KNOWN_ERRORS[kind](what, where=data["where"], fix=data["fix"])
    if kind == "ContractError":
        return ContractError(what)
    return PluginError(what, machine=data["machine"], place=data["place"], traceback=data["traceback"])


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


def pack_truth(truth: GroundTruth) -> dict[str, Any]:
    """Return a ground truth as plain data with the path of its image."""
    return {"truth": truth.model_dump(mode="json"), "path": _path(truth.image)}


def unpack_truth(data: dict[str, Any]) -> GroundTruth:
    """Return the ground truth of `pack_truth` data."""
    return _truth(GroundTruth.model_validate(data["truth"]), data["path"])


def _truth(truth: GroundTruth, path: str | None) -> GroundTruth:
    return truth.model_copy(update={"image": _placed(truth.image, path)})


def _pack_item(item: Sequence[Any]) -> dict[str, Any]:
    sample, truth, generation, *judge_repeat = item
    return {
        "judge_repeat": judge_repeat,
        "sample": sample.model_dump(mode="json"),
        "truth": truth.model_dump(mode="json"),
        "generation": generation.model_dump(mode="json"),
        "paths": [_path(truth.image), _path(generation.image)],
    }


def _unpack_item(data: dict[str, Any]) -> tuple[Any, ...]:
    truth_path, image_path = data["paths"]
    generation = Generation.model_validate(data["generation"])
    return (
        Sample.model_validate(data["sample"]),
        _truth(GroundTruth.model_validate(data["truth"]), truth_path),
        generation.model_copy(update={"image": _placed(generation.image, image_path)}),
        *data["judge_repeat"],
    )


def packed_images(one: dict[str, Any]) -> list[tuple[str, str]]:
    """Return path and SHA-256 of each image of a packed request, item or answer that has a path."""
    return [(path, record["sha256"]) for record, path in _image_places(one) if path is not None and record is not None]


def _image_places(one: dict[str, Any]) -> list[tuple[dict[str, Any] | None, str | None]]:
    if "answer" in one:
        names = sorted(one["paths"])
        return [pair for name in names for pair in zip(one["answer"][name], one["paths"][name], strict=True)]
    if "request" in one:
        request = one["request"]
        truth = request["truth"] or {}
        return [*zip(request["references"], one["references"], strict=True), (truth.get("image"), one["truth"])]
    if "paths" in one:
        return list(zip((one["truth"]["image"], one["generation"]["image"]), one["paths"], strict=True))
    return []


def move_images(one: dict[str, Any], moved: Mapping[str, str]) -> None:
    """Replace paths of images in a packed request, item or answer.

    Args:
        one: The packed data, which is changed.
        moved: New paths by old ones.
    """

    def new(path: str | None) -> str | None:
        return path if path is None else moved.get(path, path)

    if "answer" in one:
        one["paths"] = {name: list(map(new, paths)) for name, paths in one["paths"].items()}
    elif "request" in one:
        one["references"], one["truth"] = list(map(new, one["references"])), new(one["truth"])
    elif "paths" in one:
        one["paths"] = list(map(new, one["paths"]))
