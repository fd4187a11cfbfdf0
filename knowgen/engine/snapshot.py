"""Copy what a generator returned before the generator runs again.

A generator may reuse one canvas, one file or one result object for all images. What it returns is therefore copied in
its own thread or event loop, between its return (or `yield`) and its next step. Encoding takes about a hundred times as
long and is done in other threads.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from knowgen.core.records import AgentAnswer, GenerationStatus, ImageRef, Score
from knowgen.engine.imaging import UnusableImage, detach
from knowgen.engine.retry import ContractError, describe
from knowgen.generators.contract import GeneratedImage

BLANKED = "the safety checker of the pipeline withheld the image"

_METADATA = tuple(
    field.name for field in dataclasses.fields(GeneratedImage) if field.name not in {"image", "request_id"}
)


def snapshot(value: Any) -> GeneratedImage:
    """Return a copy of a generator's result that no later step of the generator can change.

    Args:
        value: A `GeneratedImage`, or an image alone.

    Returns:
        A new `GeneratedImage`. If something cannot be copied, its image is an `UnusableImage` with the reason, so that
        only this request fails.
    """
    if not isinstance(value, GeneratedImage):
        if _is_blanked(value):
            return GeneratedImage(status=GenerationStatus.REFUSED, reason=BLANKED)
        return GeneratedImage(image=_image(value))
    try:
        metadata = {name: _copied(getattr(value, name)) for name in _METADATA}
        request_id, image = value.request_id, value.image
    except BaseException as error:  # noqa: BLE001 - a plugin's own subclass may raise anything
        return GeneratedImage(image=_unusable(error))
    return GeneratedImage(image=None if image is None else _image(image), request_id=request_id, **metadata)


def score_snapshot(value: Any) -> Any:
    """Return a checked copy of the `Score` that a scorer returned, of exactly that type.

    A record that was made without validation, or of a class of the plugin's own, may hold anything or raise anything
    when it is read. Other values are returned as they are and rejected later.

    Raises:
        ContractError: The record is not a valid one.
    """
    if not isinstance(value, Score):
        return value
    try:
        return Score.model_validate(Score.model_dump(value, warnings=False))
    except BaseException as error:
        raise ContractError(f"the scorer returned a score that is not valid: {describe(error)}") from error


def answer_snapshot(value: Any) -> AgentAnswer:
    """Return a checked copy of what an agent returned, of exactly the type of the contract, with the paths of images.

    Raises:
        ContractError: It is not an `AgentAnswer`, or not a valid one.
    """
    if not isinstance(value, AgentAnswer):
        raise ContractError(f"the agent returned {type(value).__name__}, not an AgentAnswer")
    try:
        return unpack_answer(json.loads(json.dumps(pack_answer(value), allow_nan=False)))
    except BaseException as error:
        raise ContractError(f"the agent returned an answer that is not valid: {describe(error)}") from error


def pack_answer(answer: AgentAnswer) -> dict[str, Any]:
    """Return an answer as plain data, with the paths of its images, which its record does not have.

    Raises:
        ValueError: It is not plain data.
    """
    return {
        "answer": AgentAnswer.model_dump(answer, mode="json", warnings=False),
        "paths": {name: [_path(image) for image in getattr(answer, name)] for name in _ANSWER_IMAGES},
    }


def unpack_answer(data: dict[str, Any]) -> AgentAnswer:
    """Return the answer of `pack_answer` data.

    Raises:
        ValueError: It is not valid.
    """
    answer = AgentAnswer.model_validate(data["answer"])
    placed = {
        name: tuple(
            image if path is None else image.model_copy(update={"path": Path(path)})
            for image, path in zip(getattr(answer, name), data["paths"][name], strict=True)
        )
        for name in _ANSWER_IMAGES
    }
    return answer.model_copy(update=placed)


_ANSWER_IMAGES = ("references", "images")


def _path(image: ImageRef) -> str | None:
    return None if image.path is None else str(Path(image.path).absolute())


def _is_blanked(value: Any) -> bool:
    """Return whether the output of a pipeline says that its safety checker replaced its only image by a black one."""
    try:
        flags = getattr(value, "nsfw_content_detected", None)
    except BaseException:  # noqa: BLE001 - a plugin's own class may raise anything; taking the image then says what
        return False
    return isinstance(flags, list) and len(flags) == 1 and bool(flags[0])


def _image(image: Any) -> Any:
    try:
        return detach(image)
    except BaseException as error:  # noqa: BLE001 - a plugin's own image class may raise anything
        return _unusable(error)


def _unusable(error: BaseException) -> Any:
    return UnusableImage(describe(error))


def _copied(value: Any) -> Any:
    """Return a copy of plain data. Other data is returned as it is and rejected later."""
    try:
        return _copied_level(value)
    except RecursionError:
        return value


def _copied_level(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied_level(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_copied_level(inner) for inner in value]
    if isinstance(value, tuple):
        return tuple(_copied_level(inner) for inner in value)
    return value
