"""Images that cross from a worker process to the run."""

from __future__ import annotations

import pytest
from PIL import Image

from knowgen.engine.executors.image_transfer import pack_image, unpack_image
from knowgen.engine.retry import ContractError
from knowgen.engine.returned_image import TakenImage


def picture(mode: str) -> Image.Image:
    gradient = Image.linear_gradient("L").resize((40, 24))
    bands = [gradient, gradient.rotate(90), gradient.rotate(180), gradient.rotate(270)]
    return Image.merge(mode, bands[: len(mode)]) if mode != "L" else gradient


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_the_pixels_arrive_as_they_were(mode: str) -> None:
    description, payload = pack_image(picture(mode))
    arrived = unpack_image(description, payload)
    assert isinstance(arrived, TakenImage)
    assert arrived.image.mode == mode
    assert arrived.image.tobytes() == picture(mode).tobytes()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pixels_that_do_not_fill_the_image_are_rejected(mode: str) -> None:
    description, payload = pack_image(picture(mode))
    with pytest.raises(ContractError, match=f"sent {len(payload) - 1} bytes for 40x24 pixels"):
        unpack_image(description, payload[:-1])


def test_a_mode_that_is_not_sent_as_pixels_is_rejected() -> None:
    description, payload = pack_image(picture("RGB"))
    with pytest.raises(ContractError, match="mode 'CMYK'"):
        unpack_image({**description, "mode": "CMYK"}, payload)
