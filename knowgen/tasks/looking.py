"""Opens every picture of a data set before it is used, and says what each is."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from knowgen.core.errors import DataError

if TYPE_CHECKING:
    from knowgen.core.records import ImageRef


def look_at(pictures: Mapping[str, Path], rows: Mapping[str, str]) -> dict[str, ImageRef]:
    """Opens pictures in parallel, pixels and all.

    Args:
        pictures: Where each lies, by its name.
        rows: The first row that means it, by its name, for errors.

    Returns:
        What each is, by its name, without a path.

    Raises:
        DataError: One does not open; of several, the first by order is named, with how many there are.
    """
    names = list(pictures)
    with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures and odd metadata; what cannot be opened is an error
        found = list(pool.map(lambda name: _look(pictures[name]), names))
    faults = [(name, what) for name, what in zip(names, found, strict=True) if isinstance(what, str)]
    if faults:
        name, what = faults[0]
        more = f" (and {len(faults) - 1} other pictures do not open)" if len(faults) > 1 else ""
        raise DataError(f"the picture {name} does not open: {what}{more}", where=rows[name], fix="fetch it again")
    return {name: what for name, what in zip(names, found, strict=True) if not isinstance(what, str)}


def _look(path: Path) -> ImageRef | str:
    """Opens one picture; returns what it is, or why it does not open."""
    from PIL import Image

    from knowgen.core.records import ImageRef

    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with Image.open(path) as opened:
            kind, width, height = str(opened.format), opened.width, opened.height
            opened.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return " ".join(str(error).replace(str(path), path.name).split())[:160] or type(error).__name__
    return ImageRef(sha256=digest, width=width, height=height, format=kind)
