"""What judging some images of a submission again says about its claimed scores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from knowgen.core.records import ScoreStatus
from knowgen.core.text import count, one_line
from knowgen.leaderboards.checks.content import named
from knowgen.leaderboards.checks.findings import BoardFinding, error, warning
from knowgen.leaderboards.folder import RESULT_FILE
from knowgen.stats.compare.inflation import InflationTest

MOST_LISTED = 20
"""Number of images whose scores are listed."""


@dataclass(frozen=True)
class OtherValue:
    """A claimed value that a scorer which measures does not give for the image.

    Attributes:
        sample: Id of the sample.
        dimension: The dimension.
        claimed: Claimed value; None where it is claimed not to apply.
        again: Value that the scorer gives.
    """

    sample: str
    dimension: str
    claimed: float | None
    again: float | None


@dataclass(frozen=True)
class Rejudged:
    """The result of judging some images of a submission again.

    Attributes:
        board: Name of the board.
        key: `system/revision`.
        seed: Seed of the draw.
        scorer: Name of the scorer.
        measured: Whether the scorer measures and gives an image the same values each time.
        drawn: Number of images that were drawn.
        without_file: Ids of samples whose image was drawn and is in none of the folders.
        tampered: Files that are named by the hash of a drawn image and have another content.
        other_looks: Ids of samples whose file has another perceptual hash than claimed.
        failed: Ids of samples that could not be scored again, with the reason.
        unscored: Ids of samples that are claimed to have no score, and got one, with the claimed status.
        other_values: For a scorer that measures: claimed values that it does not give.
        other_judges: Model names that the judge returned and the board does not accept.
        test: For a judge: test of the claimed against the repeated scores.
    """

    board: str
    key: str
    seed: int
    scorer: str
    measured: bool
    drawn: int
    without_file: tuple[str, ...]
    tampered: tuple[str, ...]
    other_looks: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    unscored: tuple[tuple[str, ScoreStatus], ...]
    other_values: tuple[OtherValue, ...]
    other_judges: tuple[str, ...]
    test: InflationTest

    @property
    def complete(self) -> bool:
        """Whether every drawn image was judged again by a judge of the board."""
        return not (self.without_file or self.failed or self.other_judges)

    def findings(self) -> Iterator[BoardFinding]:
        """Yield what it says against the submission."""
        for name in self.tampered:
            fix = "give the file that was scored"
            yield error("rejudge", one_line(name), "the content is not that of its hash: it was changed", fix)
        if self.other_looks:
            what = f"{count(len(self.other_looks), 'image')} of another perceptual hash: {named(self.other_looks)}"
            yield error("rejudge", RESULT_FILE, what, "submit the hash of the file itself, which finds copies")
        yield from self._unscored()
        for other in self.other_values[:MOST_LISTED]:
            what = (
                f"{other.dimension} is {_value(other.claimed)}, {self.scorer} gives {_value(other.again)} for the image"
            )
            where = f"{RESULT_FILE}, sample {one_line(other.sample, 60)!r}"
            yield error("rejudge", where, what, "submit the values that the scorer gives")
        if rest := self.other_values[MOST_LISTED:]:
            yield error("rejudge", RESULT_FILE, f"{count(len(rest), 'further value')} that {self.scorer} does not give")
        if not self.measured and self.test.refuted:
            what = (
                f"the claimed scores are {self.test.mean:+.3f} above those of judging {self.test.n} images again "
                f"(p = {self.test.p:.2g}, level {self.test.level:g})"
            )
            yield error("rejudge", RESULT_FILE, what, "they cannot be scores of these images by this judge")
        if self.without_file:
            what = f"{count(len(self.without_file), 'drawn image')} not found: {named(self.without_file)}"
            yield warning("rejudge", RESULT_FILE, what, "ask for the images, and give their folder with --images")
        if self.failed:
            reason = one_line(self.failed[0][1], 120)
            what = f"{count(len(self.failed), 'image')} not judged again: {named([each for each, _ in self.failed])}"
            yield warning("rejudge", RESULT_FILE, f"{what} ({reason})", "run the same command again")
        if self.other_judges:
            what = f"judged again by {named(self.other_judges)}, which the board does not accept"
            yield warning("rejudge", RESULT_FILE, what, "the comparison is between two judges: use the board's")

    def _unscored(self) -> Iterator[BoardFinding]:
        """Yield the claims that a score is missing. A judge may have failed then and not now."""
        for status in sorted({status for _, status in self.unscored}):
            names = [name for name, each in self.unscored if each is status]
            what = (
                f"{count(len(names), 'score')} claimed to be {status.value}, {self.scorer} scores them: {named(names)}"
            )
            level = warning if status is ScoreStatus.FAILED and not self.measured else error
            yield level("rejudge", RESULT_FILE, what, "score the images and submit again")

    def line(self) -> str:
        """Return one line on what was compared and what it could have found."""
        test = self.test
        start = f"{self.board}/{self.key}: {test.n} of {count(self.drawn, 'image')} judged again (seed {self.seed})"
        if test.mean is None or test.p is None:
            return start
        share = f"{100 * test.share:.0f} %" if math.isfinite(test.share) else "more than 100 %"
        if self.measured:
            values = count(len(self.other_values), "other value")
            return f"{start}: {values}; raised scores of {share} of the images would be found with 80 % power"
        interval = "" if test.low is None else f" [{test.low:+.3f}, {test.high:+.3f}]"
        found = f"raised scores of {share} of the images" if test.detectable is None else ""
        found = found or f"a mean inflation of {test.detectable:.3f}"
        return (
            f"{start}: claimed - again is {test.mean:+.3f}{interval}, {test.differing} differ, p = {test.p:.2g}; "
            f"{found} would be found with 80 % power at level {test.level:g}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        share = self.test.share if math.isfinite(self.test.share) else None
        return {**asdict(self), "complete": self.complete, "test": {**asdict(self.test), "share": share}}


def _value(value: float | None) -> str:
    return "not applicable" if value is None else f"{value:.6g}"
