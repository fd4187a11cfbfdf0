"""What one GPU tells about the generator `diffusers:`: batches, formats, decoding, memory that runs out, options."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks.gpu import models
from benchmarks.gpu.measure import Figures, device, measured, peak_gib
from benchmarks.gpu.models import Width
from knowgen.core.records import GenerationRequest, GenerationStatus
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.diffusers.generator import DiffusersGenerator

BATCHES = (1, 2, 4, 8, 16)
FORMATS = ("bfloat16", "float32")
OPTIONS: dict[str, tuple[Any, ...]] = {
    "attention": ("native", "_native_cudnn", "_native_flash", "flash_hub", "sage_hub"),
    "compile": (True, "regional"),
    "cache": ("first_block",),
}
"""Options of the generator and values to compare with none. What is not there or not installed is said in its row."""

Images = dict[str, GeneratedImage]


def painter(folder: Path, width: Width) -> Figures:
    """Generate the same requests in batches of several sizes and in two formats, and with little memory left."""
    figures: Figures = {}
    with measured(figures, "build"):
        models.flux(folder, width, device())
    make = _maker(folder, width)
    requests = [
        GenerationRequest(id=f"r{number}", prompt=f"A lighthouse on cliff number {number}", seed=number)
        for number in range(max(BATCHES))
    ]
    for dtype in FORMATS:
        figures[f"batches_{dtype}"] = _table(make, requests, dtype)
    figures["auto"] = _automatic(make, requests)
    figures["decoding"] = _decoding(make, width)
    figures["files"] = _files(make, requests)
    figures["halving"] = _halving(make, requests, figures["batches_bfloat16"])
    figures["options"] = _options(make, requests[:4])
    return figures


Make = Callable[..., DiffusersGenerator]


def _maker(folder: Path, width: Width) -> Make:
    def make(**arguments: Any) -> DiffusersGenerator:
        settings = {"size": f"{width.side}x{width.side}", "steps": width.steps, "dtype": "bfloat16", **arguments}
        generator = DiffusersGenerator(str(folder), **settings)
        generator.setup(device())
        return generator

    return make


def _generate(generator: DiffusersGenerator, requests: list[GenerationRequest]) -> Images:
    images = {result.request_id: result for result in generator.generate_batch(requests)}
    failed = [result.reason for result in images.values() if result.status is not GenerationStatus.OK]
    if failed:
        raise RuntimeError(failed[0])
    return images


def _table(make: Make, requests: list[GenerationRequest], dtype: str) -> list[Figures]:
    """Return for each batch size time, memory, and by how many levels of 255 it moves the images of batches of 1."""
    rows: list[Figures] = []
    alone: Images = {}
    for batch in BATCHES:
        row: Figures = {"batch": batch}
        with measured(row, "load"):
            generator = make(batch=batch, dtype=dtype)
        _generate(generator, requests[:batch])  # kernels are chosen
        with measured(row, "all"):
            images = _generate(generator, requests)
        row["seconds_per_image"] = round(row["all_seconds"] / len(requests), 4)
        row["sizes"] = sorted({image.settings["batch"] for image in images.values()})
        alone = alone or images
        row["times_as_fast"] = round(rows[0]["seconds_per_image"] / row["seconds_per_image"], 2) if rows else 1.0
        row["levels_mean"], row["levels_max"] = apart(alone, images)
        row["levels_max_again"] = apart(images, _generate(generator, requests))[1]
        rows.append(row)
        generator.close()
    return rows


def apart(first: Images, second: Images) -> tuple[float, int]:
    """Return the largest mean and the largest single difference of images in levels of 255."""
    import numpy as np

    each = [np.abs(np.asarray(first[id].image).astype(int) - np.asarray(second[id].image).astype(int)) for id in first]
    return round(max(float(levels.mean()) for levels in each), 3), int(max(levels.max() for levels in each))


def _automatic(make: Make, requests: list[GenerationRequest]) -> Figures:
    """Return which sizes `batch=auto` tries and keeps."""
    generator = make()
    sizes: list[int] = []
    for _ in range(3):
        images = _generate(generator, requests)
        sizes += [image.settings["batch"] for image in images.values()]
    generator.close()
    return {"sizes": sizes, "seconds_per_image": images[requests[-1].id].settings["batch_seconds"]}


def _decoding(make: Make, width: Width) -> Figures:
    """Return time and memory of decoding a batch whole and one by one, and whether the generator measured an image."""
    import torch

    generator = make()
    assert generator._runner is not None
    vae = generator._runner._pipelines["text"].pipe.vae
    side, channels = width.side // 2 ** (len(vae.config.block_out_channels) - 1), vae.config.latent_channels
    latents = torch.randn((8, channels, side, side), device=device(), dtype=vae.dtype)
    figures: Figures = {}
    for sliced in (False, True):
        (vae.enable_slicing if sliced else vae.disable_slicing)()
        try:
            with torch.no_grad(), measured(figures, "one_by_one" if sliced else "whole"):
                vae.decode(latents, return_dict=False)
        except torch.OutOfMemoryError:
            figures["one_by_one" if sliced else "whole"] = "memory ran out"
    vae.disable_slicing()
    figures["measured_gib_per_image"] = [round(each / 2**30, 3) for each in vars(vae)["decode"]._bytes_each.values()]
    generator.close()
    return figures


def _files(make: Make, requests: list[GenerationRequest]) -> Figures:
    """Return the time of a pass, and of making the files of its images, which happens beside the next pass."""
    from knowgen.engine.imaging import encode

    generator = make(batch=4)
    started = time.perf_counter()
    images = _generate(generator, requests[:4])
    made = time.perf_counter()
    for image in images.values():
        encode(image.image)
    generator.close()
    return {"pass_seconds": round(made - started, 3), "files_seconds": round(time.perf_counter() - made, 3)}


def _halving(make: Make, requests: list[GenerationRequest], rows: list[Figures]) -> Any:
    """Return what happens when memory suffices for a middle batch, and not for the largest."""
    import torch

    if not torch.cuda.is_available():
        return "needs a GPU"
    peaks = [row["all_peak_gib"] for row in rows]
    allowed = (peaks[-2] + peaks[-1]) / 2
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed * 2**30 / torch.cuda.mem_get_info()[1]))
    try:
        generator = make(batch=max(BATCHES))
        images = list(generator.generate_batch(requests)) + list(generator.generate_batch(requests))
        generator.close()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return {
        "allowed_gib": round(allowed, 2),
        "sizes": sorted({image.settings["batch"] for image in images if image.settings}),
        "sliced": sum(image.settings.get("slicing") == "auto" for image in images),
        "failed": sum(image.status is not GenerationStatus.OK for image in images),
    }


def _options(make: Make, requests: list[GenerationRequest]) -> list[Figures]:
    """Return time, memory and difference of images for each option that the generator has, compared with none."""
    known = {each.name for each in fields(DiffusersGenerator)}
    rows: list[Figures] = []
    plain: Images = {}
    for name, value in [("", None), *((name, value) for name, values in OPTIONS.items() for value in values)]:
        row: Figures = {"option": f"{name}={value}" if name else "none"}
        rows.append(row)
        if name and name not in known:
            row["left_out"] = "the generator has no such option"
            continue
        if name == "compile" and device() == "cpu":
            row["left_out"] = "needs a GPU"
            continue
        try:
            generator = make(batch=4, **({name: value} if name else {}))
            with measured(row, "first"):  # kernels are chosen or compiled
                _generate(generator, requests)
            with measured(row, "next"):
                images = _generate(generator, requests)
            generator.close()
        except Exception as error:  # noqa: BLE001 - the other rows still tell something
            row["left_out"] = f"{type(error).__name__}: {str(error)[:200]}"
            continue
        plain = plain or images
        row["levels_mean"], row["levels_max"] = apart(plain, images)
        row["peak_gib"] = peak_gib()
    return rows
