"""The result of generating a run again: a verdict per image, and what has changed since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from knowgen.core.spec import GeneratorSpec

MatchVerdict = Literal[
    "same", "same pixels", "within", "differs", "damaged", "seed", "failed", "not generated", "no image"
]

REPRODUCED: frozenset[MatchVerdict] = frozenset({"same", "same pixels", "within"})
NOT_COMPARED: frozenset[MatchVerdict] = frozenset({"no image"})
"""Verdicts of samples without a stored image: there is nothing to reproduce, and nothing is counted."""

TOLERANCE = 2
"""Default of the allowed per-channel pixel difference: another machine adds floating-point numbers in another order."""


@dataclass(frozen=True)
class Difference:
    """Pixel difference of two images of one size.

    Attributes:
        mean: Mean absolute difference of the channel values, in levels of 255.
        share: Share of the pixels that differ in any channel, in [0, 1].
        largest: Largest difference of a channel value, in levels of 255.
        psnr: Peak signal-to-noise ratio in dB, `10 log10(255^2 / MSE)` over all channel values; None where equal.
    """

    mean: float
    share: float
    largest: int
    psnr: float | None


@dataclass(frozen=True)
class ImageComparison:
    """The comparison of one image.

    Attributes:
        sample_id: Id of the sample.
        repeat: Number of the repeat, from 0.
        verdict: same: equal bytes; same pixels; within: differences within the tolerance; differs; damaged: the
            stored file does not match its recorded hash; seed: the recorded seed is not that of the specification;
            failed: the new generation has no image; not generated: the call stopped before; no image: none is stored.
        detail: Further explanation, if any.
        difference: Pixel difference of the stored and the new image; None unless both can be read and have one size.
    """

    sample_id: str
    repeat: int
    verdict: MatchVerdict
    detail: str = ""
    difference: Difference | None = None


@dataclass(frozen=True)
class Reproduction:
    """The result of generating a run again.

    Attributes:
        run: The run directory.
        generator: The recorded generator.
        tolerance: Allowed per-channel pixel difference.
        images: One entry per sample and repeat, in order.
        changes: Recorded and current value of libraries, machine and generator revision, by name, where they differ.
        stopped: Empty when all was generated; else `budget` or `interrupted`.
    """

    run: Path
    generator: GeneratorSpec
    tolerance: int
    images: tuple[ImageComparison, ...]
    changes: Mapping[str, tuple[str, str]]
    stopped: str = ""

    @property
    def compared(self) -> int:
        """Number of stored images to reproduce."""
        return sum(each.verdict not in NOT_COMPARED for each in self.images)

    @property
    def reproduced(self) -> int:
        """Number of stored images that were reproduced."""
        return sum(each.verdict in REPRODUCED for each in self.images)

    @property
    def ok(self) -> bool:
        """Whether every image was reproduced."""
        return self.compared == self.reproduced and not self.stopped

    def plain(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "run": str(self.run),
            "generator": self.generator.model_dump(mode="json"),
            "tolerance": self.tolerance,
            "compared": self.compared,
            "reproduced": self.reproduced,
            "ok": self.ok,
            "stopped": self.stopped,
            "verdicts": dict(Counter(each.verdict for each in self.images)),
            "changes": {name: {"then": then, "now": now} for name, (then, now) in self.changes.items()},
            "images": [asdict(each) for each in self.images],
        }
