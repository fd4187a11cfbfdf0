"""Page of a judge check: the answer, the figures, and every changed image with its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from knowgen.core.atomic import folder_draft
from knowgen.core.errors import DataError
from knowgen.core.records import ImageRef
from knowgen.judge_check.analysis import CheckResult
from knowgen.judge_check.records import ChangeResult, JudgeCheck, Movement, Rate
from knowgen.judge_check.tables import definitions, words
from knowgen.report.image_files import ShownImage, make_images
from knowgen.report.page import environment

STATIC = (
    ("knowgen.report", "theme.js"),
    ("knowgen.report", "report.css"),
    ("knowgen.report", "icon.svg"),
    ("knowgen.judge_check", "judge_check.css"),
)
"""Static files of the page, with the package that has them."""

MAX_RIGHT = 12
"""Maximum number of shown images per change that the judge got right; of the others, up to `MAX_WRONG`."""

MAX_WRONG = 200

OUTCOMES = ("wrong", "failed", "not scored", "right")
"""Outcomes in the order of the page: those to look at first."""


@dataclass(frozen=True)
class Example:
    """A changed image on the page.

    Attributes:
        change: Name of the change.
        sample: Id of the original sample.
        category: Category of the sample.
        prompt: Prompt of the sample.
        what: What was changed.
        truth: The ground-truth image.
        changed: The changed image; None when it was not generated.
        generation_fault: Why it was not generated.
        result: Result for the image.
        rationales: Rationales of the judge, one for each score that has one.
        reasons: Why scores failed.
    """

    change: str
    sample: str
    category: str
    prompt: str
    what: str
    truth: ImageRef | None
    changed: ImageRef | None
    generation_fault: str
    result: CheckResult
    rationales: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckStep:
    """One dimension of one image: its values, what is expected, and what is wrong."""

    dimension: str
    before: str
    after: str
    expected: str
    fault: str


@dataclass(frozen=True)
class Card:
    """An example with its image files and steps."""

    example: Example
    truth: ShownImage
    changed: ShownImage
    steps: tuple[CheckStep, ...]


@dataclass(frozen=True)
class CheckGroup:
    """The examples of one change with the same outcome.

    Attributes:
        outcome: One of `OUTCOMES`.
        anchor: Id of the element on the page.
        count: Number of examples.
        cards: Shown examples.
    """

    outcome: str
    anchor: str
    count: int
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class CheckSection:
    """One change on the page."""

    result: ChangeResult
    anchor: str
    groups: tuple[CheckGroup, ...]

    def group(self, outcome: str) -> CheckGroup | None:
        """Return the group of one outcome; None if there is none."""
        return next((group for group in self.groups if group.outcome == outcome), None)


def write_page(check: JudgeCheck, examples: Sequence[Example], out: Path, record: str, record_text: str) -> Path:
    """Write the page as a folder that opens from disk, replacing an earlier one in one step.

    Args:
        check: Result of the check.
        examples: The changed images.
        out: Folder of this page and nothing else.
        record: File name of the record in that folder.
        record_text: Content of that file.

    Returns:
        Path of `index.html`.

    Raises:
        DataError: The folder cannot be written.
    """
    try:
        with folder_draft(out) as fresh:
            _fill(fresh, check, examples, out / "img")
            (fresh / record).write_text(record_text, encoding="utf-8")
    except OSError as error:
        where = str(error.filename or out)
        raise DataError(f"cannot be written: {error.strerror or error}", where=where, fix="free space") from error
    return out / "index.html"


def _fill(folder: Path, check: JudgeCheck, examples: Sequence[Example], earlier: Path) -> None:
    for name in ("img", "static"):
        (folder / name).mkdir()
    for package, name in STATIC:
        text = files(package).joinpath("static", name).read_text(encoding="utf-8")
        (folder / "static" / name).write_text(text, encoding="utf-8")
    shown = [example for group in _grouped(check, examples).values() for example in group[1]]
    images = [(ref, ref.path) for one in shown for ref in (one.truth, one.changed) if ref is not None]
    image_files = make_images(images, folder / "img", earlier if earlier.is_dir() else None)
    (folder / "index.html").write_text(render(check, examples, image_files), encoding="utf-8")


def render(check: JudgeCheck, examples: Sequence[Example], shown: Mapping[str, ShownImage]) -> str:
    """Return the HTML of the page.

    Args:
        check: Result of the check.
        examples: The changed images.
        shown: Image files by digest.
    """
    grouped = _grouped(check, examples)
    parts = []
    for result in check.changes:
        groups = []
        for outcome in OUTCOMES:
            count, some = grouped.get((result.name, outcome), (0, []))
            if count:
                cards = tuple(_card(example, result, shown) for example in some)
                groups.append(CheckGroup(outcome, f"{_anchor(result.name)}-{_anchor(outcome)}", count, cards))
        parts.append(CheckSection(result, _anchor(result.name), tuple(groups)))
    templates = environment("knowgen.judge_check")
    templates.filters.update(words=words, rate=_rate, rate_interval=_rate_interval, percent=_percent)
    return templates.get_template("judge_check.html").render(
        check=check,
        parts=parts,
        definitions=definitions(),
        moved=lambda result: {movement.dimension: movement for movement in result.movements},
        matched=_matched,
        standing=_standing(check),
        title=f"{check.scorer} {_standing(check)}",
    )


def _standing(check: JudgeCheck) -> str:
    """Return whether the judge is fit; an undecided judge is not called unfit."""
    if check.fit:
        return "is fit for use"
    unfit = any(change.verdict == "unfit" for change in check.changes)
    return "is not fit for use" if unfit else "has not been shown to be fit for use"


def _grouped(check: JudgeCheck, examples: Sequence[Example]) -> dict[tuple[str, str], tuple[int, list[Example]]]:
    """Return the number of examples and the shown ones, by change and outcome."""
    sorted_out: dict[tuple[str, str], list[Example]] = {}
    for example in examples:
        sorted_out.setdefault((example.change, example.result.outcome), []).append(example)
    return {key: (len(some), some[: MAX_RIGHT if key[1] == "right" else MAX_WRONG]) for key, some in sorted_out.items()}


def _card(example: Example, result: ChangeResult, shown: Mapping[str, ShownImage]) -> Card:
    def image(ref: ImageRef | None, fault: str) -> ShownImage:
        return shown[ref.sha256] if ref is not None and ref.sha256 in shown else ShownImage(fault=fault)

    return Card(
        example=example,
        truth=image(example.truth, "the task has none"),
        changed=image(example.changed, example.generation_fault or "it was not generated"),
        steps=_steps(example.result, result),
    )


def _steps(image_result: CheckResult, result: ChangeResult) -> tuple[CheckStep, ...]:
    if image_result.after is None:
        return ()
    faults, before = dict(image_result.faults), image_result.before or {}
    return tuple(
        CheckStep(
            movement.dimension,
            _value(before.get(movement.dimension)),
            _value(image_result.after.get(movement.dimension)),
            f"must {'fall' if movement.expected == 'falls' else 'stay'}"
            if movement.expected != "may fall"
            else movement.expected,
            faults.get(movement.dimension, ""),
        )
        for movement in result.movements
    )


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _anchor(name: str) -> str:
    """Return an element id made from a name."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def _matched(movement: Movement) -> str:
    """Return whether a dimension moved as expected: `good`, `bad`, or `open` if both are allowed."""
    if movement.down is None or movement.up is None or movement.expected == "may fall":
        return "open"
    if movement.expected == "falls":
        return "good" if movement.down == 1 else "bad"
    return "good" if movement.unchanged == 1 else "bad"


def _rate(rate: Rate | None) -> str:
    return "–" if rate is None or rate.value is None else f"{rate.value:.3f}"


def _rate_interval(rate: Rate | None) -> str:
    return "" if rate is None or rate.low is None or rate.high is None else f"{rate.low:.3f}–{rate.high:.3f}"


def _percent(share: Any) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
