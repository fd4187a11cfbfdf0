"""From the body of a request to what the generator is asked, with nothing taken on trust."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from knowgen.core.images import UnreadableImageError, inspect_image
from knowgen.core.records import GenerationRequest, ImageRef

MOST_REFERENCES = 16
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_DATA_URL = re.compile(r"data:[^,;]*(;[^,;]*)*;base64,", re.IGNORECASE)
_HTTP_URL = re.compile(r"https?://", re.IGNORECASE)


class InvalidRequestError(Exception):
    """A request that cannot be understood or is not taken; its words are for whoever sent it."""


class GenerateRequestBody(BaseModel):
    """The body of `POST /generate`. Settings beside the prompt, the seed and the pictures belong to the server.

    Attributes:
        prompt: What to draw.
        image_urls: Reference images as data URLs; none and an empty list mean the same.
        seed: Of the picture.
        true_cfg_scale: As the format has it; see `unused`.
        negative_prompt: As the format has it.
        num_inference_steps: As the format has it.
        guidance_scale: As the format has it.
        num_images_per_prompt: As the format has it; one picture is drawn.
    """

    model_config = ConfigDict(extra="ignore")

    prompt: str = Field(min_length=1, max_length=100_000)
    image_urls: list[str] | None = Field(default=None, max_length=MOST_REFERENCES)
    seed: int | None = Field(default=0, ge=0, lt=2**31)
    true_cfg_scale: float | None = None
    negative_prompt: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    num_images_per_prompt: int | None = None

    @property
    def unused(self) -> list[str]:
        """Returns the settings that were sent and are not followed: a served generator keeps its own."""
        own = {"prompt", "image_urls", "seed"}
        one = {"num_images_per_prompt"} if self.num_images_per_prompt == 1 else set()
        sent = {name for name in self.model_fields_set if getattr(self, name) is not None}
        return sorted(sent - own - one)


def read_body(body: bytes) -> GenerateRequestBody:
    """Reads the body of a request.

    Raises:
        InvalidRequestError: It is no JSON object, or a field is missing or wrong.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("the body is not JSON") from error
    if not isinstance(data, dict):
        raise InvalidRequestError("the body is no JSON object")
    try:
        return GenerateRequestBody.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidRequestError(f"{field}: {first['msg']}") from error


def is_address(picture: str) -> bool:
    """Tells whether a reference image is given by an http address."""
    return bool(_HTTP_URL.match(picture.lstrip()))


def data_of(url: str) -> bytes:
    """Returns the bytes in a data URL; what it says about their format is not believed.

    Raises:
        InvalidRequestError: It is no data URL, or not base64.
    """
    match = _DATA_URL.match(url[:200])
    if match is None:
        raise InvalidRequestError("a reference image is no data URL (data:image/png;base64,…)")
    try:
        return base64.b64decode("".join(url[match.end() :].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError("a reference image is not base64") from error


def place_picture(data: bytes, path: Path, max_pixels: int) -> ImageRef:
    """Checks a reference image by decoding it whole, and puts it into a file.

    Raises:
        InvalidRequestError: It does not open, or is too large.
    """
    try:
        facts = inspect_image(data, formats=_FORMATS, max_pixels=max_pixels)
    except UnreadableImageError as error:
        raise InvalidRequestError(f"a reference image does not open: {error.what}") from error
    path.write_bytes(data)
    return ImageRef(**asdict(facts), path=path)


def request_of(
    asked: GenerateRequestBody, name: str, pictures: list[bytes], folder: Path, max_pixels: int
) -> tuple[GenerationRequest, list[Path]]:
    """Makes the request a generator is given.

    Args:
        asked: What was asked.
        name: Of the request, unique in the server.
        pictures: Bytes of the reference images, in order.
        folder: Where they are put while it is drawn.
        max_pixels: Most pixels of one.

    Returns:
        The request, and the files to remove after.

    Raises:
        InvalidRequestError: A picture does not open or is too large.
    """
    paths: list[Path] = []
    references: list[ImageRef] = []
    try:
        for number, data in enumerate(pictures):
            paths.append(folder / f"{name}-{number}")
            references.append(place_picture(data, paths[-1], max_pixels))
    except BaseException:
        remove(paths)
        raise
    request = GenerationRequest(id=name, prompt=asked.prompt, seed=asked.seed or 0, references=tuple(references))
    return request, paths


def remove(paths: list[Path]) -> None:
    """Removes the files of a request."""
    for path in paths:
        path.unlink(missing_ok=True)


def plain(value: Any) -> bytes:
    """Returns JSON as bytes."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
