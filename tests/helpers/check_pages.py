"""The result of a judge's check with hostile words in every place, for the tests of its page."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from knowgen.core.records import DIMENSIONS, ImageRef, ParsedScore, ScoreStatus
from knowgen.judge_check.analysis import CheckedImage, Expectation, check_image, judge_changes, overall
from knowgen.judge_check.page import Example
from knowgen.judge_check.records import JudgeCheck

F, V, T, A = DIMENSIONS
HOSTILE = '<script>alert(1)</script> "><img src=x onerror=alert(1)> \u202e {{ 7 * 7 }} ' + "unbroken" * 40
NOTHING = Expectation("nothing", "the truth itself", unchanged=True)
DIGIT = Expectation("digit", "one digit is another", falls=frozenset({T}))
GONE = Expectation(
    "missing subject",
    "a subject is left out",
    frozenset({F, V}),
    frozenset({A}),
    why_may="a hole spoils the composition",
)
CHANGES = (NOTHING, DIGIT, GONE)
SAMPLES = 20


def values(f: float, v: float, t: float, a: float) -> ParsedScore:
    """Return a score of the four dimensions."""
    return ParsedScore(
        status=ScoreStatus.OK, values=dict(zip(DIMENSIONS, (f, v, t, a), strict=True)), rationale=f"Seen. {HOSTILE}"
    )


def reading_of(number: int, change: str) -> ParsedScore:
    """Digits: 12 seen, 7 unseen, 1 failed. Missing subjects: all seen."""
    if change == "digit" and number >= 12:
        if number == 19:
            return ParsedScore(status=ScoreStatus.FAILED, reason=f"no JSON in {HOSTILE}")
        return values(1, 0.5, 1, 1)
    return {"nothing": values(1, 1, 1, 1), "digit": values(1, 1, 0.5, 1)}.get(change, values(0.5, 0, 1, 0.5))


def image(folder: Path, number: int, name: str) -> ImageRef:
    """Write an image of one colour."""
    digest = f"{number:02d}{name.encode().hex()}".ljust(64, "0")[:64]
    path = folder / f"{digest}.png"
    Image.new("RGB", (96, 64), (number * 9, 120, len(name) * 12)).save(path)
    return ImageRef(sha256=digest, width=96, height=64, format="PNG", path=path)


def check_with_examples(folder: Path) -> tuple[JudgeCheck, list[Example]]:
    """Return the result of a check of 20 samples and three changes, with its images in a folder."""
    checked = [
        CheckedImage(f"s{number}", change.name, (reading_of(number, change.name),))
        for number in range(SAMPLES)
        for change in CHANGES
    ]
    changes = judge_changes(CHANGES, checked, DIMENSIONS)
    fit, because = overall(changes)
    check = JudgeCheck(
        scorer="vlm:<b>tiny</b>", judges=("tiny-2",), task="world with known changes", task_version="changes-1-abc",
        samples=SAMPLES, dimensions=DIMENSIONS, changes=changes, fit=fit, because=because, cost=0.12, seconds=61.0,
    )  # fmt: skip
    known = {change.name: change for change in CHANGES}
    bases = {one.sample: one for one in checked if one.change == "nothing"}
    examples = [
        Example(
            change=one.change, sample=one.sample, category="film", prompt=f"Draw {HOSTILE}", what=f"changed {HOSTILE}",
            truth=image(folder, number // 3, "truth"),
            changed=None if number == 1 else image(folder, number // 3, one.change),
            generation_fault=f"no space {HOSTILE}",
            result=check_image(known[one.change], one, bases[one.sample], DIMENSIONS),
            rationales=tuple(each.rationale for each in one.scores if each.rationale),
            reasons=tuple(each.reason for each in one.scores if each.reason),
        )
        for number, one in enumerate(checked)
    ]  # fmt: skip
    return check, examples
