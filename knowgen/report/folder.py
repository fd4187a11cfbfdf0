"""The folder of a report: written under a temporary name, and moved into place when it is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from knowgen.core.atomic import folder_draft
from knowgen.core.errors import ConfigError, DataError
from knowgen.report.image_files import RECIPE

MARKER = "knowgen-report.txt"
"""File in every report; a folder without it is not a report and is not replaced."""

OWN = frozenset({"img", "data", "static", "index.html", MARKER})
"""Names in a report folder; a folder with any other name is not replaced."""


@dataclass(frozen=True)
class ReportDraft:
    """A report that is being written.

    Attributes:
        folder: The folder, with the empty folders img, data and static.
        earlier: Folder with images of an earlier report that can be reused; None without one.
    """

    folder: Path
    earlier: Path | None

    def add_static(self, names: Iterable[str]) -> None:
        """Copy scripts and style sheets of the package."""
        static = files("knowgen.report").joinpath("static")
        for name in names:
            text = static.joinpath(name).read_text(encoding="utf-8")
            (self.folder / "static" / name).write_text(text, encoding="utf-8")


@contextmanager
def report_draft(out: Path) -> Iterator[ReportDraft]:
    """Yield a draft that takes the place of an earlier report at the end; readers never see a partial one.

    Args:
        out: Folder of the report.

    Raises:
        ConfigError: `out` is a file, or a folder with other content.
        DataError: The folder cannot be written.
    """
    out = out.resolve()
    check_replaceable(out)
    try:
        with folder_draft(out) as fresh:
            for name in ("img", "data", "static"):
                (fresh / name).mkdir()
            yield ReportDraft(fresh, _images_of(out))
            (fresh / MARKER).write_text(f"A report written by knowgen. Images: {RECIPE}\n", encoding="utf-8")
    except OSError as error:
        where = str(error.filename or out)
        raise DataError(
            f"cannot be written: {error.strerror or error}", where=where, fix="free space or name another folder"
        ) from error


def check_replaceable(out: Path) -> None:
    """Check that a folder is an earlier report, is empty, or does not exist.

    Raises:
        ConfigError: It is a file, or a folder with other content.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError("not a folder", where=str(out), fix="name another folder with -o")
    names = sorted(path.name for path in out.iterdir())
    if names and MARKER not in names:
        raise ConfigError("the folder is not a report", where=str(out), fix="name an empty or new folder with -o")
    others = [name for name in names if name not in OWN]
    if others:
        fix = "move it elsewhere, or name another folder with -o"
        raise ConfigError(f"the folder has {others[0]!r} beside an earlier report", where=str(out), fix=fix)


def _images_of(out: Path) -> Path | None:
    marker = out / MARKER
    return out / "img" if marker.is_file() and RECIPE in marker.read_text(encoding="utf-8") else None
