"""Errors with a message for the user: one line that says what is wrong, where, and how to fix it."""

from __future__ import annotations

from typing import Any


class KnowgenError(Exception):
    """Base of all errors that a user can act on. Its text is `where: what; fix`.

    Args:
        what: What is wrong, in a few words.
        where: File, field, sample or argument that is wrong.
        fix: How to fix it.

    Attributes:
        exit_code: Exit code of the command line.

    Example:
        >>> print(KnowgenError("duplicate id 'x'", where="samples.jsonl:4", fix="make ids unique"))
        samples.jsonl:4: duplicate id 'x'; make ids unique
    """

    exit_code = 3

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}; {self.fix}" if self.fix else line


class UsageError(KnowgenError):
    """Wrong arguments, such as an unknown name or two options that exclude each other."""

    exit_code = 2


class ConfigError(KnowgenError):
    """A configuration that cannot work, such as the run directory of another run, a locked run or a missing API key."""

    exit_code = 3


class DataError(KnowgenError):
    """Unusable data, such as broken YAML, duplicate ids or a ground-truth image that does not open."""

    exit_code = 3


class NotRecordedError(DataError):
    """A recording does not have the answer to a call. That says nothing about the system that asked.

    Attributes:
        machine: A failure that this causes counts as missing, and not as one of the system.
    """

    machine = True


class MissingDependencyError(KnowgenError):
    """A required package or program is not installed."""

    exit_code = 4


class BudgetReachedError(KnowgenError):
    """The next call could exceed the budget."""

    exit_code = 5


class TransientError(KnowgenError):
    """A temporary error, such as a rate limit, a server error or a lost connection. The engine retries with backoff.

    Args:
        what: What happened.
        retry_after: Seconds to wait that the service asked for; None when it did not.
        attempts: `records.Attempt`s of the failed call, oldest first; stored, because they may have been paid for.
    """

    def __init__(self, what: str, *, retry_after: float | None = None, attempts: tuple[Any, ...] = ()) -> None:
        super().__init__(what)
        self.retry_after = retry_after
        self.attempts = attempts


class ServiceUnavailableError(TransientError):
    """A service cannot answer now: a rate limit, an outage or a lost connection. The engine waits and calls again.

    Waiting is not an attempt. Only a failure that the request itself may have caused counts as one, see `busy`.

    Args:
        what: What happened.
        service: Name of the service, such as `vlm:gpt-4.1`, shown while the run waits for it.
        busy: Whether the failure says nothing about the request: a rate limit, a 503, no connection. False for one that
            the request may have caused, such as a 500 or a reply that did not arrive.
        retry_after: Seconds to wait that the service asked for; None when it did not.
        attempts: As in `TransientError`.
    """

    def __init__(
        self,
        what: str,
        *,
        service: str = "",
        busy: bool = False,
        retry_after: float | None = None,
        attempts: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(what, retry_after=retry_after, attempts=attempts)
        self.service = service
        self.busy = busy


class AccountError(KnowgenError):
    """A service rejects every call of this account or configuration: a wrong key, no credit, an unknown model.

    It is not a failure of the sample. The engine ends the run after a few of them in a row.

    Args:
        what: What the service says.
        where: Scorer or generator that called it.
        fix: How to fix it.
        attempts: As in `TransientError`.
    """

    exit_code = 3

    def __init__(self, what: str, *, where: str = "", fix: str = "", attempts: tuple[Any, ...] = ()) -> None:
        super().__init__(what, where=where, fix=fix)
        self.attempts = attempts


class RefusalError(KnowgenError):
    """The generator declined the prompt. The message is stored as the reason, and the sample counts as refused."""


class UnscorableError(KnowgenError):
    """The scorer cannot score this sample. The message is stored as the reason, and the call is not retried."""
