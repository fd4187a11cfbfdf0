"""Parse the body of a request into a `GenerationRequest`, checking everything a client sends."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from knowgen.core.images import UnreadableImageError, image_size, inspect_image
from knowgen.core.records import GenerationRequest, ImageRef

MAX_REFERENCES = 16
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_DATA_URL = re.compile(r"data:[^,;]*(;[^,;]*)*;base64,", re.IGNORECASE)
_HTTP_URL = re.compile(r"https?://", re.IGNORECASE)


class InvalidRequestError(Exception):
    """A request that cannot be understood or is not accepted; its message is sent to the client."""


class GenerateRequestBody(BaseModel):
    """The body of `POST /generate`. Only prompt, seed and reference images are used; the server has its own settings.

    Attributes:
        prompt: The prompt.
        image_urls: Reference images as data URLs; None is the same as an empty list.
        seed: Seed of the image.
        true_cfg_scale: Part of the format, not used; see `unused`.
        negative_prompt: Part of the format, not used.
        num_inference_steps: Part of the format, not used.
        guidance_scale: Part of the format, not used.
        num_images_per_prompt: Part of the format; one image is generated.
    """

    model_config = ConfigDict(extra="ignore")

    prompt: str = Field(min_length=1, max_length=100_000)
    image_urls: list[str] | None = Field(default=None, max_length=MAX_REFERENCES)
    seed: int | None = Field(default=0, ge=0, lt=2**31)
    true_cfg_scale: float | None = None
    negative_prompt: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    num_images_per_prompt: int | None = None

    @property
    def unused(self) -> list[str]:
        """Return the names of settings that were sent but are not used."""
        own = {"prompt", "image_urls", "seed"}
        followed = {"num_images_per_prompt"} if self.num_images_per_prompt == 1 else set()
        sent = {name for name in self.model_fields_set if getattr(self, name) is not None}
        return sorted(sent - own - followed)


def parse_body(body: bytes) -> GenerateRequestBody:
    """Return the parsed body of a request.

    Raises:
        InvalidRequestError: It is not a JSON object, or a field is missing or wrong.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("the body is not JSON") from error
    if not isinstance(data, dict):
        raise InvalidRequestError("the body is not a JSON object")
    try:
        return GenerateRequestBody.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidRequestError(f"{field}: {first['msg']}") from error


def is_http_url(url: str) -> bool:
    """Return whether a reference image is given by an http URL."""
    return bool(_HTTP_URL.match(url.lstrip()))


def decode_data_url(url: str) -> bytes:
    """Return the bytes of a data URL; the format that it declares is ignored.

    Raises:
        InvalidRequestError: It is not a data URL, or not base64.
    """
    match = _DATA_URL.match(url[:200])
    if match is None:
        raise InvalidRequestError("a reference image is not a data URL (data:image/png;base64,…)")
    try:
        return base64.b64decode("".join(url[match.end() :].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError("a reference image is not base64") from error


def pixels_of(images: list[bytes], max_pixels: int) -> int:
    """Return the number of pixels of all images, read from their headers without decoding them.

    Raises:
        InvalidRequestError: An image does not open, or has more than `max_pixels` pixels.
    """
    total = 0
    for data in images:
        try:
            width, height = image_size(data, formats=_FORMATS, max_pixels=max_pixels)
        except UnreadableImageError as error:
            raise _does_not_open(error) from error
        total += width * height
    return total


def _does_not_open(error: UnreadableImageError) -> InvalidRequestError:
    return InvalidRequestError(f"a reference image does not open: {error.what}")


def store_reference(data: bytes, path: Path, max_pixels: int) -> ImageRef:
    """Check a reference image by decoding it, and write it to a file.

    Raises:
        InvalidRequestError: It does not open, or is too large.
    """
    try:
        facts = inspect_image(data, formats=_FORMATS, max_pixels=max_pixels)
    except UnreadableImageError as error:
        raise _does_not_open(error) from error
    path.write_bytes(data)
    return ImageRef(**asdict(facts), path=path)


def make_request(
    body: GenerateRequestBody, id: str, images: list[bytes], folder: Path, max_pixels: int
) -> tuple[GenerationRequest, list[Path]]:
    """Return the request for the generator.

    Args:
        body: The parsed body.
        id: Id of the request, unique in the server.
        images: Bytes of the reference images, in order.
        folder: Folder of their files.
        max_pixels: Maximum number of pixels of a reference image.

    Returns:
        The request, and the files to remove afterwards.

    Raises:
        InvalidRequestError: An image does not open or is too large.
    """
    paths: list[Path] = []
    references: list[ImageRef] = []
    try:
        for number, data in enumerate(images):
            paths.append(folder / f"{id}-{number}")
            references.append(store_reference(data, paths[-1], max_pixels))
    except BaseException:
        remove_files(paths)
        raise
    request = GenerationRequest(id=id, prompt=body.prompt, seed=body.seed or 0, references=tuple(references))
    return request, paths


def remove_files(paths: list[Path]) -> None:
    """Remove the files of a request."""
    for path in paths:
        path.unlink(missing_ok=True)


def to_json(value: Any) -> bytes:
    """Return a value as JSON bytes."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
