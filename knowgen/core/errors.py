"""What a user is told when things go wrong: one line that says what, where and how to mend it."""

from __future__ import annotations

from typing import Any


class KnowgenError(Exception):
    """An error with a message for the user.

    Args:
        what: What is wrong, in a few words.
        where: The file, field, sample or argument it was found in.
        fix: How to mend it.
    """

    exit_code = 3

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}; {self.fix}" if self.fix else line


class UsageError(KnowgenError):
    """A wrong argument: an unknown name, two options that exclude each other."""

    exit_code = 2


class ConfigError(KnowgenError):
    """A configuration that cannot work: another spec's run directory, a locked run, a missing key."""

    exit_code = 3


class DataError(KnowgenError):
    """Data that cannot be used: broken YAML, duplicate ids, a ground-truth picture that does not open."""

    exit_code = 3


class MissingDependencyError(KnowgenError):
    """A package or program that the task needs and that is not installed."""

    exit_code = 4


class BudgetReachedError(KnowgenError):
    """The budget admits no further call."""

    exit_code = 5


class TransientError(KnowgenError):
    """A fault that may pass (rate limit, server error, lost connection); the engine tries again with backoff.

    Args:
        what: What happened.
        retry_after: Seconds the remote side asked to wait, or None.
        attempts: `records.Attempt`s of the call that raised, oldest first, so that replies that were paid for are kept.
    """

    def __init__(self, what: str, *, retry_after: float | None = None, attempts: tuple[Any, ...] = ()) -> None:
        super().__init__(what)
        self.retry_after = retry_after
        self.attempts = attempts


class RefusalError(KnowgenError):
    """The generator declined the prompt; the words it gave are kept with the sample."""


class UnscorableError(KnowgenError):
    """A scorer looked and cannot score this sample; the reason is kept and trying again now would not help."""
