"""Compare an image that was generated again with the stored one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from knowgen.core.records import Generation, GenerationStatus, ImageRef
from knowgen.store.run import RunStore
from knowgen.workflows.reproduce.result import REPRODUCED, Difference, ImageComparison, MatchVerdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def compare_image(
    store: RunStore, place: tuple[str, int], before: Generation | None, now: Generation | None, tolerance: int
) -> ImageComparison:
    """Compare the stored result of a sample and repeat with the new one."""
    if before is None or before.image is None:
        state = f"{before.status.value}: {before.reason}" if before is not None else "not generated yet"
        return ImageComparison(*place, "no image", state)
    if not store.image_ok(before.image):
        return ImageComparison(*place, "damaged", _damage(store, before.image, now))
    if now is None or now.image is None:
        return ImageComparison(
            *place, *(("not generated", "") if now is None else ("failed", f"{now.status.value}: {now.reason}"))
        )
    verdict, detail, measured = _compare(before.image, now.image, tolerance)
    seed = store.spec.seed + before.repeat
    if before.seed != seed:
        detail = f"the record says seed {before.seed}, the specification {seed}; generated with {seed}: {verdict}"
        return ImageComparison(*place, "seed", detail, measured)
    if verdict not in REPRODUCED and (changed := _settings(before, now)):
        detail = f"{detail}; {changed}" if detail else changed
    return ImageComparison(*place, verdict, detail, measured)


def _damage(store: RunStore, image: ImageRef, now: Generation | None) -> str:
    exists = store.image_path(image).is_file()
    what = "the stored file was changed" if exists else "the stored file is missing"
    if now is None or now.status is not GenerationStatus.OK or now.image is None:
        return what
    if now.image.sha256 == image.sha256:
        return f"{what}; the new one is as recorded"
    return f"{what}; the new one has another hash than recorded"


def _compare(before: ImageRef, now: ImageRef, tolerance: int) -> tuple[MatchVerdict, str, Difference | None]:
    if before.sha256 == now.sha256:
        return "same", "", None
    sizes = (before.width, before.height), (now.width, now.height)
    if sizes[0] != sizes[1]:
        then, here = (f"{width}x{height}" for width, height in sizes)
        return "differs", f"{then} pixels then, {here} now", None
    measured = pixel_difference(_pixels(before), _pixels(now))
    if measured.largest == 0:
        return "same pixels", f"other bytes, {before.format} then, {now.format} now", measured
    return ("within" if measured.largest <= tolerance else "differs"), "", measured


_MEASURED = frozenset({"batch_seconds", "compiled_graphs", "graph_breaks"})
"""Recorded settings that are measurements, which decide no image."""


def _settings(before: Generation, now: Generation) -> str:
    """Return which settings the generator reports differently; empty when none."""
    decisive = {name: value for name, value in before.settings.items() if name not in _MEASURED}
    names = [name for name, value in decisive.items() if now.settings.get(name) != value]
    return "; ".join(f"{name} {before.settings[name]} then, {now.settings.get(name)} now" for name in names[:3])


def _pixels(image: ImageRef) -> NDArray[np.int16]:
    """Return an image as an array of shape (height, width, 3)."""
    import numpy as np

    return np.asarray(image.open(), dtype=np.int16)


def pixel_difference(first: NDArray[np.int16], second: NDArray[np.int16]) -> Difference:
    """Measure the pixel difference of two images.

    Args:
        first: Levels 0 to 255, shape (height, width, channels).
        second: The same shape.

    Raises:
        ValueError: The shapes differ.
    """
    import numpy as np

    if first.shape != second.shape:
        raise ValueError(f"cannot compare images of shapes {first.shape} and {second.shape}")
    deviation = np.abs(first.astype(np.int16) - second.astype(np.int16))
    squares = float(np.square(deviation.astype(np.float64)).mean())
    return Difference(
        mean=float(deviation.mean()),
        share=float((deviation > 0).any(axis=-1).mean()),
        largest=int(deviation.max(initial=0)),
        psnr=10 * math.log10(255**2 / squares) if squares else None,
    )
