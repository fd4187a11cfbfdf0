"""What drawing a run again comes to: a verdict a picture, and what has changed since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from knowgen.core.spec import GeneratorSpec

Verdict = Literal["same", "same pixels", "within", "differs", "damaged", "seed", "failed", "not drawn", "no picture"]

REPRODUCED: frozenset[Verdict] = frozenset({"same", "same pixels", "within"})
NOT_COMPARED: frozenset[Verdict] = frozenset({"no picture"})
"""Verdicts of samples whose record holds no picture: there is nothing to reproduce, and nothing is counted."""

TOLERANCE = 2
"""Levels of 255 by which each value of a picture may be off and still count as drawn again: sums of floating-point
numbers come out in another order on another machine."""


@dataclass(frozen=True)
class Difference:
    """How far two pictures of one size are apart.

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
class RegeneratedImage:
    """What became of one picture.

    Attributes:
        sample_id: The sample.
        repeat: From 0.
        verdict: same (the same bytes), same pixels, within (the tolerance), differs; damaged: the stored file is not
            what the record names; seed: the record's seed is not that of the specification; failed: drawing it again
            gave no picture; not drawn: the work ended before; no picture: there was none to begin with.
        detail: In words, where there is more to say.
        difference: Between stored and drawn picture, where both could be read and have one size.
    """

    sample_id: str
    repeat: int
    verdict: Verdict
    detail: str = ""
    difference: Difference | None = None


@dataclass(frozen=True)
class Reproduction:
    """What came of drawing a run again.

    Attributes:
        run: The run directory.
        generator: Who drew, as recorded.
        tolerance: Levels of 255 that count as the same.
        pictures: One entry a sample and repeat, in order.
        changes: By name, what was recorded and what is here now: libraries, accelerators, the generator's revision.
        stopped: Empty when all was drawn; else `budget` or `interrupted`.
    """

    run: Path
    generator: GeneratorSpec
    tolerance: int
    pictures: tuple[RegeneratedImage, ...]
    changes: Mapping[str, tuple[str, str]]
    stopped: str = ""

    @property
    def compared(self) -> int:
        """Returns how many pictures there were to reproduce."""
        return sum(each.verdict not in NOT_COMPARED for each in self.pictures)

    @property
    def reproduced(self) -> int:
        """Returns how many of them came out again."""
        return sum(each.verdict in REPRODUCED for each in self.pictures)

    @property
    def ok(self) -> bool:
        """Tells whether every picture came out again."""
        return self.compared == self.reproduced and not self.stopped

    def plain(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        return {
            "run": str(self.run),
            "generator": self.generator.model_dump(mode="json"),
            "tolerance": self.tolerance,
            "compared": self.compared,
            "reproduced": self.reproduced,
            "ok": self.ok,
            "stopped": self.stopped,
            "verdicts": dict(Counter(each.verdict for each in self.pictures)),
            "changes": {name: {"then": then, "now": now} for name, (then, now) in self.changes.items()},
            "pictures": [asdict(each) for each in self.pictures],
        }
