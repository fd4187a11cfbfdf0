"""Tables of a judge check: terminal, Markdown and CSV."""

from __future__ import annotations

from knowgen.core.text import count
from knowgen.judge_check.analysis import (
    MAX_FAILED,
    MIN_IMAGES,
    MIN_MOVE,
    MIN_SENSITIVITY,
    MIN_SPECIFICITY,
)
from knowgen.judge_check.records import ChangeResult, JudgeCheck, Movement, Rate
from knowgen.report.comparison_tables import signed
from knowgen.report.numbers import duration, money
from knowgen.report.text_table import NONE, TextTable, csv_text, markdown_text, terminal_text


def terminal(check: JudgeCheck) -> str:
    """Return plain text: the answer, then the changes, then every dimension under every change."""
    return f"{answer(check)}\n\n{terminal_text(_grids(check))}"


def markdown(check: JudgeCheck) -> str:
    """Return the same tables as Markdown."""
    return markdown_text(_grids(check))


def answer(check: JudgeCheck) -> str:
    """Return in one line whether the judge is fit for use, and why."""
    return f"{check.scorer} fit for use: {'yes' if check.fit else 'no'}, because {check.because}"


_CSV_HEAD = (
    "scorer", "scorer_version", "judges", "task", "task_version", "protocol", "seed", "samples", "judge_repeats",
    "change", "verdict", "reason", "images", "n", "scores", "failed", "no_baseline", "not_run", "sensitivity",
    "sensitivity_low", "sensitivity_high", "specificity", "specificity_low", "specificity_high", "dimension",
    "expected", "dimension_n", "down", "up", "unchanged", "mean_change", "floored", "fit",
)  # fmt: skip


def csv(check: JudgeCheck) -> str:
    """Return CSV with full precision: one row for each change and dimension."""
    return csv_text(
        _CSV_HEAD,
        (
            [
                check.scorer, check.scorer_version, "; ".join(check.judges), check.task, check.task_version,
                check.protocol, check.seed, check.samples, check.judge_repeats, one.name, one.verdict, one.reason,
                one.images, one.n, one.scores, one.failed, one.no_baseline, one.not_run,
                *_csv_rate(one.sensitivity), *_csv_rate(one.specificity), moved.dimension, moved.expected, moved.n,
                moved.down, moved.up, moved.unchanged, moved.mean, moved.floored, str(check.fit).lower(),
            ]
            for one in check.changes
            for moved in one.movements
        ),
    )  # fmt: skip


def _csv_rate(rate: Rate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if rate is None else (rate.value, rate.low, rate.high)


def words(name: str) -> str:
    """Return the name of a dimension with spaces."""
    return name.replace("_", " ")


def _grids(check: JudgeCheck) -> list[TextTable]:
    return [_changes(check), _movements(check)]


def _changes(check: JudgeCheck) -> TextTable:
    rows = [
        [
            one.name,
            " and ".join(map(words, one.falls)) or "nothing",
            one.verdict,
            _rate(one.sensitivity),
            _rate(one.specificity),
            str(one.n),
            str(one.failed),
        ]
        for one in check.changes
    ]
    head = ["change", "must fall", "verdict", "sensitivity", "specificity", "n", "failed"]
    lines = [*definitions(), *_reasons(check), _provenance(check)]
    return TextTable("", head, rows, frozenset({0, 1, 2}), lines)


def definitions() -> list[str]:
    """Return lines that define the figures and their limits."""
    return [
        f"sensitivity: share of images in which every dimension that must fall fell, at least {MIN_SENSITIVITY}; "
        f"specificity: share of images in which no other dimension moved, at least {MIN_SPECIFICITY}",
        f"a move: a difference of {MIN_MOVE} or more from the judge's value of the unchanged image (nothing: from 1); "
        "a value that was already 0 counts as one that did not fall",
        f"fit needs {MIN_IMAGES} scored images and at most {MAX_FAILED:.0%} failed scores",
    ]


def _reasons(check: JudgeCheck) -> list[str]:
    """Return why changes are not fit and what was not scored; changes with the same reason share a line."""
    names_by_reason: dict[str, list[str]] = {}
    for one in check.changes:
        if one.reason:
            names_by_reason.setdefault(f"{one.verdict}, {one.reason}", []).append(one.name)
    for one in check.changes:
        if gaps := _gaps(one):
            names_by_reason.setdefault(gaps, []).append(one.name)
    return [f"{', '.join(names)}: {reason}" for reason, names in names_by_reason.items()]


def _gaps(one: ChangeResult) -> str:
    parts = [
        count(one.failed, "score") + " failed" if one.failed else "",
        count(one.not_run, "image") + " not scored" if one.not_run else "",
        count(one.no_baseline, "image") + " without a score of the unchanged one" if one.no_baseline else "",
    ]
    return ", ".join(part for part in parts if part)


def _provenance(check: JudgeCheck) -> str:
    judges = ", ".join(check.judges)
    parts = [
        f"task {check.task} {check.task_version}".strip(),
        f"{count(check.samples, 'sample')}, seed {check.seed}",
        f"protocol {check.protocol}",
        f"scorer {check.scorer}{f' {check.scorer_version}' if check.scorer_version else ''}"
        + (f" ({check.scorer_note})" if check.scorer_note else ""),
        f"{'judge' if len(check.judges) < 2 else 'judges'} {judges}" if judges else "",
        f"{count(check.judge_repeats, 'score')} per image" if check.judge_repeats > 1 else "",
        "" if check.cost is None else f"cost {money(check.cost)}",
        "" if check.seconds is None else f"time {duration(check.seconds)}",
        "[Wilson 95 % interval]",
    ]
    return "; ".join(part for part in parts if part)


def _rate(rate: Rate | None) -> str:
    if rate is None or rate.value is None or rate.low is None or rate.high is None:
        return f"{NONE}{' ' * 15}"
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]"


_MARKS = {"falls": "!", "stays": "=", "may fall": "~"}


def _movements(check: JudgeCheck) -> TextTable:
    rows = [[one.name, *map(_moved, one.movements)] for one in check.changes]
    lines = [
        "share of images in which the dimension fell, and its mean change: "
        "! it must fall, = it must stay, ~ it may fall"
    ]
    return TextTable("By dimension", ["change", *map(words, check.dimensions)], rows, frozenset({0}), lines)


def _moved(moved: Movement) -> str:
    """Return a movement: the expectation, the share that fell, the share that rose if any did, the mean change."""
    if moved.down is None:
        return f"{_MARKS[moved.expected]} {NONE}"
    rose = f" (rose {moved.up:.3f})" if moved.up else ""
    return f"{_MARKS[moved.expected]} {moved.down:.3f}{rose} {signed(moved.mean):>6}"
