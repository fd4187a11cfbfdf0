"""What earlier checks found about judges, so that a run with an unfit judge says so.

A verdict is a small file in the cache folder, one per judge: its name, the arguments that decide its scores, and its
version. Without a cache folder nothing is remembered.
"""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from knowgen.core.atomic import write_file
from knowgen.core.cache import cache_folder
from knowgen.core.records import Record
from knowgen.core.spec import ScorerSpec, fingerprint

if TYPE_CHECKING:
    from knowgen.judge_check.records import JudgeCheck

FOLDER_NAME = "judge-checks"


class RememberedVerdict(Record):
    """What a check found about a judge.

    Attributes:
        scorer: Label of the judge.
        unfit: Whether it was found unfit; False for one that is fit or undecided.
        because: Reason in a few words.
        page: Path of the check's page.
        date: Day of the check, ISO 8601.
    """

    scorer: str
    unfit: bool
    because: str = ""
    page: str = ""
    date: str = ""

    @property
    def warning(self) -> str:
        """The verdict as one line."""
        return f"judge {self.scorer} was found unfit on {self.date}: {self.because}; see {self.page}"


def remember(spec: ScorerSpec, check: JudgeCheck, page: Path) -> None:
    """Remember the result of a check; it replaces an earlier one of the same judge."""
    path = _path(spec)
    if path is None:
        return
    verdict = RememberedVerdict(
        scorer=spec.name,
        unfit=check.found_unfit,
        because=check.because,
        page=str(page.resolve()),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    with contextlib.suppress(OSError):  # the check itself is complete; a later run only lacks the warning
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, verdict.model_dump_json() + "\n")


def remembered(spec: ScorerSpec) -> RememberedVerdict | None:
    """Return what the last check of a judge found; None if it has not been checked, or the file is damaged."""
    path = _path(spec)
    try:
        return RememberedVerdict.model_validate_json(path.read_bytes()) if path is not None else None
    except (OSError, ValidationError):
        return None


def _path(spec: ScorerSpec) -> Path | None:
    folder = cache_folder()
    key = fingerprint({"name": spec.name, "args": spec.args, "version": spec.version})
    return None if folder is None else folder / FOLDER_NAME / f"{key[:32]}.json"
