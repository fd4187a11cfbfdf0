"""How large a model is: parameters counted in the headers of its safetensors files, without reading weights."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from pathlib import Path

from knowgen.local_models.weights import SAFETENSORS

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a parameter by number format."""

_MAX_HEADER = 100 * 2**20


def parameter_count(file: Path) -> int:
    """Return the number of parameters in a safetensors file.

    Raises:
        ValueError: It is not such a file.
        OSError: It cannot be read.
    """
    with file.open("rb") as stream:
        length = stream.read(8)
        size = struct.unpack("<Q", length)[0] if len(length) == 8 else 0
        if not 0 < size <= _MAX_HEADER:
            raise ValueError(f"{file.name} is not a safetensors file")
        header = json.loads(stream.read(size))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def folder_parameters(folder: Path, variant: str = "") -> int:
    """Return the number of parameters that are loaded from a component's folder; 0 for one without weights.

    Args:
        folder: Folder of a component.
        variant: Variant of the weights, such as `fp16`; empty for the default.
    """
    return sum(map(parameter_count, weight_files(folder, variant)))


def weight_files(folder: Path, variant: str = "") -> list[Path]:
    """Return the files with weights that are loaded from a component's folder, by name; arguments as above."""
    return sorted(_of_variant([file for file in folder.glob(f"*{SAFETENSORS}") if file.is_file()], variant))


def _of_variant(files: Iterable[Path], variant: str) -> list[Path]:
    """Return the files of a variant, those without one where it has none of its own."""
    named = [file for file in files if variant and f".{variant}" in file.name]
    return named or [file for file in files if "." not in file.name.removesuffix(SAFETENSORS)]
