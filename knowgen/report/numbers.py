"""How a report writes numbers: everywhere the same number of digits."""

from __future__ import annotations

from knowgen.stats.summary import Coverage, Figure

NONE = "–"
MINUS = "\u2212"


def number(value: float | None, *, signed: bool = False) -> str:
    """Write a figure in [-1, 1] with three decimals; a dash where there is none."""
    if value is None:
        return NONE
    text = f"{abs(value):.3f}"
    if float(text) == 0:
        return text
    return f"{MINUS}{text}" if value < 0 else f"+{text}" if signed else text


def interval(figure: Figure) -> str:
    """Write the 95 % interval of a figure, such as `0.640–0.781`; a dash where there is none."""
    if figure.low is None or figure.high is None:
        return NONE
    return f"{number(figure.low)}–{number(figure.high)}"


def position(value: float | None) -> str:
    """Write a value in [0, 1] as a percentage for a generation; values outside are held to its ends."""
    return f"{100 * min(max(value or 0.0, 0.0), 1.0):.2f}%"


def money(dollars: float | None) -> str:
    """Write US dollars; a dash where a price is not known."""
    if dollars is None:
        return NONE
    if dollars == 0:
        return "$0"
    return f"${dollars:.4f}" if dollars < 0.1 else f"${dollars:,.2f}"


def duration(seconds: float | None) -> str:
    """Write a time: `0.42 s`, `38 s`, `12 min`, `3 h 05 min`."""
    if seconds is None:
        return NONE
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def share(part: int, whole: int) -> str:
    """Write a part of a whole as a percentage that says 100 % only when it is all, and 0 % only when it is none."""
    if whole == 0:
        return NONE
    percent = 100 * part / whole
    held = min(max(percent, 0.1), 99.9) if 0 < part < whole else percent
    return f"{held:.0f} %" if held in (0, 100) or 1 <= held <= 99 else f"{held:.1f} %"


def missing(coverage: Coverage) -> int:
    """Count expected scores that failed in generation or judging; what does not apply is none."""
    return coverage.generation_failed + coverage.generation_refused + coverage.score_failed


def spoken(label: str, figure: Figure) -> str:
    """Say a figure in words, for screen readers and tool tips."""
    if figure.value is None and figure.partial is not None:
        return f"{label}: {figure.note}; partial {number(figure.partial)}, {figure.n} samples"
    if figure.value is None:
        return f"{label}: no value{f', {figure.note}' if figure.note else ''}"
    within = f", 95 % interval {number(figure.low)} to {number(figure.high)}" if figure.low is not None else ""
    return f"{label}: {number(figure.value)}{within}, {figure.n} samples"


def in_words(name: str) -> str:
    """Write an identifier such as `science_and_knowledge` for people."""
    return name.replace("_", " ")
