"""Taking what a generator returned before the generator runs again.

A generator may draw every image on one canvas, write each to the same file or fill one result object again and again.
Whatever it returns is therefore copied in its own thread or event loop, between its return (or `yield`) and its next
step. Encoding, which takes a hundred times as long, is left to other threads.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from knowgen.engine.imaging import UnusableImage, detach
from knowgen.engine.retry import describe
from knowgen.generators.contract import GeneratedImage

_NOTES = tuple(field.name for field in dataclasses.fields(GeneratedImage) if field.name not in {"image", "request_id"})


def snapshot(value: Any) -> GeneratedImage:
    """Return a copy of what a generator returned that none of the generator's later steps can change.

    Args:
        value: A `GeneratedImage`, or an image alone.

    Returns:
        A new `GeneratedImage`. Where something cannot be copied, its image is an `UnusableImage` with the reason, so that the
        fault stays with this request.
    """
    if not isinstance(value, GeneratedImage):
        return GeneratedImage(image=_image(value))
    try:
        notes = {name: _copied(getattr(value, name)) for name in _NOTES}
        name, image = value.request_id, value.image
    except BaseException as error:  # noqa: BLE001 - a subclass of the plugin's own may raise anything
        return GeneratedImage(image=_unusable(error))
    return GeneratedImage(image=None if image is None else _image(image), request_id=name, **notes)


def _image(image: Any) -> Any:
    try:
        return detach(image)
    except BaseException as error:  # noqa: BLE001 - a plugin's own kind of image may raise anything
        return _unusable(error)


def _unusable(error: BaseException) -> Any:
    return UnusableImage(describe(error))


def _copied(value: Any) -> Any:
    """Return a copy of plain data; what is not plain, or contains itself, is returned as it is and refused later."""
    try:
        return _copied_level(value)
    except RecursionError:
        return value


def _copied_level(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied_level(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_copied_level(one) for one in value]
    if isinstance(value, tuple):
        return tuple(_copied_level(one) for one in value)
    return value
