"""Format numbers for reports."""

from __future__ import annotations

from knowgen.stats.summary import Coverage, Figure

NONE = "–"
MINUS = "\u2212"


def number(value: float | None, *, signed: bool = False) -> str:
    """Format a figure in [-1, 1] with three decimals; a dash for None."""
    if value is None:
        return NONE
    text = f"{abs(value):.3f}"
    if float(text) == 0:
        return text
    return f"{MINUS}{text}" if value < 0 else f"+{text}" if signed else text


def interval(figure: Figure) -> str:
    """Format the 95 % interval of a figure, such as `0.640–0.781`; a dash if there is none."""
    if figure.low is None or figure.high is None:
        return NONE
    return f"{number(figure.low)}–{number(figure.high)}"


def position(value: float | None) -> str:
    """Format a value as a horizontal position in percent; values are clipped to [0, 1]."""
    return f"{100 * min(max(value or 0.0, 0.0), 1.0):.2f}%"


def money(dollars: float | None) -> str:
    """Format US dollars; a dash if the price is not known."""
    if dollars is None:
        return NONE
    if dollars == 0:
        return "$0"
    return f"${dollars:.4f}" if dollars < 0.1 else f"${dollars:,.2f}"


def duration(seconds: float | None) -> str:
    """Format a duration: `0.42 s`, `38 s`, `12 min`, `3 h 05 min`."""
    if seconds is None:
        return NONE
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def share(part: int, whole: int) -> str:
    """Format a share as a percentage; it is 100 % only if all are included and 0 % only if none is."""
    if whole == 0:
        return NONE
    percent = 100 * part / whole
    shown = min(max(percent, 0.1), 99.9) if 0 < part < whole else percent
    return f"{shown:.0f} %" if shown in (0, 100) or 1 <= shown <= 99 else f"{shown:.1f} %"


def missing(coverage: Coverage) -> int:
    """Return the number of expected scores whose generation or scoring failed or was refused, for whatever reason."""
    generations = coverage.generation_failed + coverage.generation_refused + coverage.generation_unavailable
    return generations + coverage.score_failed + coverage.score_refused


def alt_text(label: str, figure: Figure) -> str:
    """Return a figure as text for screen readers and tooltips."""
    if figure.value is None and figure.partial is not None:
        return f"{label}: {figure.note}; partial {number(figure.partial)}, {figure.n} samples"
    if figure.value is None:
        return f"{label}: no value{f', {figure.note}' if figure.note else ''}"
    within = f", 95 % interval {number(figure.low)} to {number(figure.high)}" if figure.low is not None else ""
    return f"{label}: {number(figure.value)}{within}, {figure.n} samples"


def in_words(name: str) -> str:
    """Return an identifier such as `science_and_knowledge` with spaces."""
    return name.replace("_", " ")
