"""How far what was drawn again is what is stored."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from knowgen.core.records import Generation, GenerationStatus, ImageRef
from knowgen.reproducing.result import REPRODUCED, Difference, RegeneratedImage, Verdict
from knowgen.store.run import RunStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def look(
    store: RunStore, place: tuple[str, int], before: Generation | None, now: Generation | None, tolerance: int
) -> RegeneratedImage:
    """Compares what is stored of a sample and repeat with what was drawn again."""
    if before is None or before.image is None:
        state = f"{before.status.value}: {before.reason}" if before is not None else "not drawn yet"
        return RegeneratedImage(*place, "no picture", state)
    if not store.image_ok(before.image):
        return RegeneratedImage(*place, "damaged", _damage(store, before.image, now))
    if now is None or now.image is None:
        return RegeneratedImage(
            *place, *(("not drawn", "") if now is None else ("failed", f"{now.status.value}: {now.reason}"))
        )
    verdict, detail, apart = _compare(before.image, now.image, tolerance)
    seed = store.spec.seed + before.repeat
    if before.seed != seed:
        detail = f"the record says seed {before.seed}, the specification {seed}; drawn with {seed}: {verdict}"
        return RegeneratedImage(*place, "seed", detail, apart)
    if verdict not in REPRODUCED and (told := _settings(before, now)):
        detail = f"{detail}; {told}" if detail else told
    return RegeneratedImage(*place, verdict, detail, apart)


def _damage(store: RunStore, image: ImageRef, now: Generation | None) -> str:
    there = store.image_path(image).is_file()
    what = "the stored file was changed" if there else "the stored file is missing"
    if now is None or now.status is not GenerationStatus.OK or now.image is None:
        return what
    if now.image.sha256 == image.sha256:
        return f"{what}; drawn again it comes out as recorded"
    return f"{what}; drawn again it comes out with another hash than recorded"


def _compare(before: ImageRef, now: ImageRef, tolerance: int) -> tuple[Verdict, str, Difference | None]:
    if before.sha256 == now.sha256:
        return "same", "", None
    sizes = (before.width, before.height), (now.width, now.height)
    if sizes[0] != sizes[1]:
        then, here = (f"{width}x{height}" for width, height in sizes)
        return "differs", f"{then} pixels then, {here} now", None
    apart = difference(_pixels(before), _pixels(now))
    if apart.largest == 0:
        return "same pixels", f"other bytes, {before.format} then, {now.format} now", apart
    return ("within" if apart.largest <= tolerance else "differs"), "", apart


def _settings(before: Generation, now: Generation) -> str:
    """Says which settings the generator noted otherwise than then; empty when none."""
    names = [name for name, value in before.settings.items() if now.settings.get(name) != value]
    return "; ".join(f"{name} {before.settings[name]} then, {now.settings.get(name)} now" for name in names[:3])


def _pixels(image: ImageRef) -> NDArray[np.int16]:
    """Returns a picture as an array of shape (height, width, 3)."""
    import numpy as np

    return np.asarray(image.open().convert("RGB"), dtype=np.int16)


def difference(first: NDArray[np.int16], second: NDArray[np.int16]) -> Difference:
    """Measures how far two pictures are apart.

    Args:
        first: Levels 0 to 255, shape (height, width, channels).
        second: The same shape.

    Raises:
        ValueError: The shapes differ.
    """
    import numpy as np

    if first.shape != second.shape:
        raise ValueError(f"pictures of shapes {first.shape} and {second.shape} cannot be compared")
    off = np.abs(first.astype(np.int16) - second.astype(np.int16))
    squares = float(np.square(off.astype(np.float64)).mean())
    return Difference(
        mean=float(off.mean()),
        share=float((off > 0).any(axis=-1).mean()),
        largest=int(off.max(initial=0)),
        psnr=10 * math.log10(255**2 / squares) if squares else None,
    )
