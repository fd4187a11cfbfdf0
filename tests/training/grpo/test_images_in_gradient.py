"""Images that are kept out of the gradient, as a control: the trainer sees grey in their places."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl")
import torch

from knowgen.training.config import load_config
from knowgen.training.grpo.trainer import _KnownImages

PROCESSOR = SimpleNamespace(merge_size=2, temporal_patch_size=2, patch_size=16)


class OnePicture:
    """Preprocessed images: one, whatever is asked for."""

    def of(self, image: Any) -> tuple[Any, Any]:
        return torch.ones(16, 1536), torch.tensor([[1, 4, 4]])


@pytest.mark.parametrize("shown", [True, False])
def test_a_hidden_image_keeps_its_place_and_size(shown: bool) -> None:
    images = _KnownImages(OnePicture(), PROCESSOR, shown=shown)  # type: ignore[arg-type]
    data = images(["a picture", None], return_tensors="pt")
    pixels, grid = data["pixel_values"], data["image_grid_thw"]
    assert grid.tolist() == [[1, 4, 4], [1, 2, 2]]
    assert pixels.shape == (16 + 4, 1536)
    assert bool((pixels[:16] == (1.0 if shown else 0.0)).all()), "0 is grey: pixels are scaled to [-1, 1]"
    assert bool((pixels[16:] == 0).all())


def test_the_trainer_sees_images_unless_a_configuration_says_otherwise() -> None:
    for name in ("grpo/paper", "grpo/cpu-mini"):
        grpo = load_config(name).grpo
        assert grpo is not None and grpo.images_in_gradient
    hidden = load_config("grpo/cpu-mini", ["grpo.images_in_gradient=false"]).grpo
    assert hidden is not None and not hidden.images_in_gradient
