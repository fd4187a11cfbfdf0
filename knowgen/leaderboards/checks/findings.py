"""What the check of a board finds: one line for each fault, with its place and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from knowgen.core.text import count, one_line

Level = Literal["error", "warning"]


@dataclass(frozen=True)
class BoardFinding:
    """Something that is wrong with a submission or a board.

    Attributes:
        level: An `error` must be fixed before the submission is accepted. A `warning` is for a person to judge: it may
            have a good reason.
        check: What was checked, such as `schema`, `ids`, `figures` or `images`.
        where: File, and in it line, sample and repeat. Within a submission, relative to its folder.
        what: What is wrong.
        fix: How to fix it; empty where that is for a person to say.

    Example:
        >>> print(BoardFinding("error", "ids", "result.json", "sample 'a' is missing", "score all samples"))
        error    ids: result.json: sample 'a' is missing; score all samples
    """

    level: Level
    check: str
    where: str
    what: str
    fix: str = ""

    @property
    def text(self) -> str:
        """The finding as one printable line, without its level."""
        line = f"{self.check}: {self.where}: {self.what}"
        return one_line(f"{line}; {self.fix}" if self.fix else line)

    def __str__(self) -> str:
        return f"{self.level:<8} {self.text}"

    def inside(self, folder: str) -> BoardFinding:
        """Return the finding with its place below a folder."""
        return replace(self, where=f"{folder}/{self.where}")


def error(check: str, where: str, what: str, fix: str = "") -> BoardFinding:
    """Return a finding that must be fixed."""
    return BoardFinding("error", check, where, what, fix)


def warning(check: str, where: str, what: str, fix: str = "") -> BoardFinding:
    """Return a finding for a person to judge."""
    return BoardFinding("warning", check, where, what, fix)


@dataclass(frozen=True)
class CheckedSubmission:
    """A submission with everything that was found.

    Attributes:
        board: Name of the board.
        key: `system/revision`.
        findings: What was found, in the order of the checks.
        withdrawn: Whether it was withdrawn. Its content is then not checked.
    """

    board: str
    key: str
    findings: tuple[BoardFinding, ...]
    withdrawn: bool = False

    @property
    def errors(self) -> tuple[BoardFinding, ...]:
        """What must be fixed."""
        return tuple(each for each in self.findings if each.level == "error")

    @property
    def warnings(self) -> tuple[BoardFinding, ...]:
        """What a person has to judge."""
        return tuple(each for each in self.findings if each.level == "warning")


@dataclass(frozen=True)
class CheckReport:
    """The result of a check.

    Attributes:
        submissions: The submissions that were checked, by board and key.
        findings: What was found outside of submissions: in files of boards, and in what was deleted.
        notes: What could not be checked, and why.
        incomplete: Whether a check that was asked for could not be made in full, such as judging images again.
    """

    submissions: tuple[CheckedSubmission, ...]
    findings: tuple[BoardFinding, ...] = ()
    notes: tuple[str, ...] = ()
    incomplete: bool = False

    @property
    def every(self) -> tuple[BoardFinding, ...]:
        """All findings."""
        return (*self.findings, *(each for checked in self.submissions for each in checked.findings))

    @property
    def ok(self) -> bool:
        """Whether nothing must be fixed."""
        return not any(each.level == "error" for each in self.every)

    def with_findings(self, board: str, key: str, further: Sequence[BoardFinding]) -> CheckReport:
        """Return the report with further findings of one submission."""
        return replace(
            self,
            submissions=tuple(
                replace(each, findings=(*each.findings, *further)) if (each.board, each.key) == (board, key) else each
                for each in self.submissions
            ),
        )

    def closing_line(self) -> str:
        """Return one line on what was checked and found."""
        levels = [each.level for each in self.every]
        found = f"{count(levels.count('error'), 'error')}, {count(levels.count('warning'), 'warning')}"
        return f"{count(len(self.submissions), 'submission')} checked: {found}"

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "ok": self.ok,
            "findings": [asdict(each) for each in self.findings],
            "submissions": [
                {
                    "board": each.board,
                    "submission": each.key,
                    "withdrawn": each.withdrawn,
                    "findings": [asdict(one) for one in each.findings],
                }
                for each in self.submissions
            ],
            "notes": list(self.notes),
            "incomplete": self.incomplete,
        }
