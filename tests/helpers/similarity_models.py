"""Tiny embedding models with random weights, saved in the formats of real ones, and items to score."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from knowgen.core.records import Generation, GenerationStatus, GroundTruth, ImageRef, Item, Sample

ARCH = "tiny-test-clip"

MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2},
}

# different from open_clip's defaults, so that a scorer that ignores them fails the tests
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "squash"}


def add_architecture(folder: Path) -> None:
    """Register the tiny architecture with open_clip."""
    import open_clip

    if ARCH not in open_clip.list_models():
        file = folder / f"{ARCH}.json"
        file.write_text(json.dumps(MODEL))
        open_clip.add_model_config(file)


def save_clip(file: Path, seed: int = 0) -> Path:
    """Save a checkpoint of the tiny architecture."""
    import open_clip
    import torch

    add_architecture(file.parent)
    torch.manual_seed(seed)
    torch.save(open_clip.create_model(ARCH).state_dict(), file)
    return file


def save_clip_folder(folder: Path, seed: int = 0) -> Path:
    """Save a model as in a repository of open_clip: configuration and safetensors."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    add_architecture(folder)
    torch.manual_seed(seed)
    model = open_clip.create_model(ARCH)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / SAFE)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}))
    return folder


SAFE = "open_clip_model.safetensors"


def save_dino(folder: Path, seed: int = 0) -> Path:
    """Save a tiny DINOv2 model with its image processor."""
    import torch
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, mlp_ratio=2
    )
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def as_hub_cache(cache: Path, repository: str, folder: Path) -> None:
    """Move a folder into a cache, in the layout of the hub client after a download."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    base = cache / f"models--{repository.replace('/', '--')}"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text(revision)
    (base / "snapshots").mkdir()
    folder.rename(base / "snapshots" / revision)


def save_blocks(folder: Path, number: int, size: tuple[int, int] = (60, 48)) -> ImageRef:
    """Save an image of random blocks of colour, unique by number."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(number).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    file = folder / f"{number}.png"
    Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC).save(file)
    return reference(file, size)


def reference(file: Path, size: tuple[int, int] = (60, 48)) -> ImageRef:
    """Return the record of an image file."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return ImageRef(sha256=digest, width=size[0], height=size[1], format="PNG", path=file)


def item(name: str, generated: ImageRef | None, truth: ImageRef | None, **fields: Any) -> Item:
    """Return an item to score."""
    prompt = fields.pop("prompt", f"draw the thing called {name}")
    status = GenerationStatus.OK if generated else GenerationStatus.FAILED
    return (
        Sample(id=name, prompt=prompt),
        GroundTruth(sample_id=name, image=truth),
        Generation(sample_id=name, status=status, image=generated, **fields),
    )


def items(folder: Path, count: int) -> list[Item]:
    """Return items whose images all differ."""
    return [item(f"s{n}", save_blocks(folder, 2 * n), save_blocks(folder, 2 * n + 1)) for n in range(count)]
