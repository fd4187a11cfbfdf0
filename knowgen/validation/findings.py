"""The findings of a check: what is as it should be, what may surprise, and what breaks the contract."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from knowgen.core.errors import KnowgenError
from knowgen.engine.retry import describe

ValueLevel = Literal["ok", "warn", "fail"]
LEVELS: tuple[ValueLevel, ...] = ("ok", "warn", "fail")


class CheckStoppedError(Exception):
    """Nothing more can be checked; the reason is among the findings."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        level: ok; warn if a run works but its results may surprise; fail if the contract is broken.
        check: Name of the check, such as `seeds`.
        what: The result, in one line.
        fix: How to fix it; empty if there is nothing to fix.

    Example:
        >>> print(Finding("warn", "revision", "none is declared", "give the class an attribute `revision`"))
        warn revision: none is declared; give the class an attribute `revision`
    """

    level: ValueLevel
    check: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<4} {self.check}: {self.what}"
        return f"{line}; {self.fix}" if self.fix else line


def worst(findings: Iterable[Finding]) -> ValueLevel:
    """Return the most serious level among findings; ok if there are none.

    Example:
        >>> worst([Finding("ok", "ids", "unique"), Finding("warn", "search", "finds no pages", "check the backend")])
        'warn'
    """
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")


class FindingLog:
    """Collects findings in order."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def ok(self, check: str, what: str) -> None:
        """Add that something is as it should be."""
        self.findings.append(Finding("ok", check, what))

    def warn(self, check: str, what: str, fix: str) -> None:
        """Add something that works but may surprise."""
        self.findings.append(Finding("warn", check, what, fix))

    def fail(self, check: str, what: str, fix: str) -> None:
        """Add something that breaks the contract."""
        self.findings.append(Finding("fail", check, what, fix))


def error_and_fix(error: BaseException, fix: str) -> tuple[str, str]:
    """Return an error and its fix as texts: the error's own fix if it has one, else `fix`."""
    if isinstance(error, KnowgenError) and error.fix:
        return describe(KnowgenError(error.what, where=error.where)), error.fix
    return describe(error), fix
