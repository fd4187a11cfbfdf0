"""The one style of all figures: sizes, fonts, colours and shapes, and files that are the same on every run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowgen.core.atomic import draft_of
from knowgen.core.errors import DataError, MissingDependencyError, UsageError
from knowgen.report.view import SHAPES, SystemMarker

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Chart

COLOURS = ("#2357d3", "#9c3a12", "#0f9d68", "#bd5cae", "#cc7510", "#6a6972", "#154060", "#5c322c")
"""Colours of systems, those of the pages in light mode. They differ for all common kinds of colour blindness; where two
are alike in grey, the shapes differ."""

MARKERS = dict(zip((name for name, _ in SHAPES), "os^Dv" + "P*" + "X", strict=True))
"""Marker of matplotlib for each shape of the pages."""

INK, QUIET, LINE = "#1d1d22", "#5d5d68", "#d9d8d2"

FORMATS = ("svg", "png", "pdf")
"""Formats of figures, by the ending of the file."""

ROW = 0.24
"""Height of a row with text in inches."""

_SALT = "knowgen"
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": "knowgen"},
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": "knowgen", "Producer": None},
    "png": {"Software": "knowgen"},
}
"""No time and no version of a library, so that the same data give the same file."""

_PARAMETERS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 8,
    "legend.fontsize": 7.5,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # a name may contain a dollar sign
    "text.usetex": False,
    "axes.unicode_minus": True,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "svg.hashsalt": _SALT,
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # TrueType: text can be searched, and publishers accept it
}


@dataclass(frozen=True)
class Layout:
    """Layout of a figure.

    Attributes:
        width: Width in inches: 3.4 is one column of most two-column papers, 6.9 the whole width.
        percent: Whether figures are multiplied by 100, as in the published table.
    """

    width: float = 6.9
    percent: bool = False

    @property
    def factor(self) -> float:
        """What figures are multiplied by."""
        return 100.0 if self.percent else 1.0


def colour(mark: SystemMarker) -> str:
    """Return the colour of a system, the same as on pages."""
    return COLOURS[mark.colour]


@contextmanager
def drawing() -> Iterator[Any]:
    """Yield matplotlib with the style of all figures; settings of the user and of the process do not matter.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "needs the package 'matplotlib', which is not installed",
            where="knowgen figure",
            fix="pip install 'knowgen[figures]'",
        ) from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        parameters: Any = matplotlib.rcParams
        parameters.update(_PARAMETERS)
        yield matplotlib


def new_chart(width: float, height: float) -> Chart:
    """Return an empty figure of a size in inches that does not depend on a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chart = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(chart)
    return chart


def tidy(axes: Axes, grid: str = "x") -> None:
    """Leave of the frame of a plot what helps to read it."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=LINE, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def check_format(path: Path) -> str:
    """Return the format of a figure from the ending of its file.

    Raises:
        UsageError: It is none of `FORMATS`, or the path is a folder.
    """
    ending = path.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        what = f"unknown format {path.suffix}" if path.suffix else "the file has no ending"
        raise UsageError(what, where=str(path), fix="use .svg, .png or .pdf")
    if path.is_dir():
        raise UsageError("is a folder", where=str(path), fix="name a file")
    return ending


def save(chart: Chart, path: Path) -> None:
    """Write a figure; the same data give the same bytes with the same version of matplotlib.

    Raises:
        UsageError: The ending of the file is unknown.
        DataError: The file cannot be written.
    """
    ending = check_format(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(path) as draft:
            chart.savefig(draft, format=ending, metadata=_METADATA[ending])
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}", where=str(path)) from error
