"""What a check found, for people who are about to spend a night of computing on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

ValueLevel = Literal["ok", "warn", "fail"]
LEVELS: tuple[ValueLevel, ...] = ("ok", "warn", "fail")


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        level: ok; warn where a run works but its results may surprise; fail where the contract is broken.
        check: What was looked at, in a word or two, such as `seeds`.
        what: What was found, in one line.
        fix: How to mend it; empty where there is nothing to mend.
    """

    level: ValueLevel
    check: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<4} {self.check}: {self.what}"
        return f"{line}; {self.fix}" if self.fix else line


def worst(findings: Iterable[Finding]) -> ValueLevel:
    """Returns the gravest level among findings; ok when there are none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")


class FindingLog:
    """Collects findings in order."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def ok(self, check: str, what: str) -> None:
        """Notes that something is as it should be."""
        self.findings.append(Finding("ok", check, what))

    def warn(self, check: str, what: str, fix: str) -> None:
        """Notes what works but may surprise."""
        self.findings.append(Finding("warn", check, what, fix))

    def fail(self, check: str, what: str, fix: str) -> None:
        """Notes what breaks the contract."""
        self.findings.append(Finding("fail", check, what, fix))
