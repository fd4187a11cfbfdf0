"""The errors of the engine, their one-line descriptions, and what they say about services and causes of failures."""

from __future__ import annotations

import errno
import sys

from knowgen.core.errors import (
    ConfigError,
    KnowgenError,
    MissingDependencyError,
    RefusalError,
    ServiceUnavailableError,
    TransientError,
    UsageError,
)
from knowgen.core.records import FailureCause
from knowgen.core.text import duration_text, error_summary, one_line

FATAL_ERRORS = (ConfigError, UsageError, MissingDependencyError)
"""Errors that would hit every sample alike: they end the run."""

_MACHINE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE})
"""Numbers of an `OSError` that the machine is at fault for: a full or broken disk, no free file descriptor."""


class StoppedError(Exception):
    """The run takes no new work; the request stays not run."""


class ServicePausedError(StoppedError):
    """The plugin is called no more in this run; what it has not made stays not run."""


class LeftOutError(Exception):
    """The service rejects this request alone because of the account; it stays not run."""


class NotGeneratedError(Exception):
    """The source has no image of this sample and never attempted one; the sample stays not run."""


class CallTimeoutError(Exception):
    """A call gave no result within its time limit."""


class PluginDisabledError(Exception):
    """The plugin hung or died too often, or no device is left; it is not called again in this run.

    Args:
        reason: Why.
        machine: Whether the machine is at fault, and not the plugin.
    """

    def __init__(self, reason: str, *, machine: bool = False) -> None:
        super().__init__(reason)
        self.machine = machine


class ContractError(Exception):
    """A plugin returned something that its contract does not allow."""


class PluginError(Exception):
    """An error that a plugin raised, in one line.

    Args:
        what: Type and message of the error.
        machine: Whether the machine is at fault, such as a full disk, and not the plugin.
        place: File and line in the plugin's code, such as `duck.py:12`; empty when unknown.
        traceback: Its traceback as text; empty when it is in the log already.
    """

    def __init__(self, what: str, *, machine: bool = False, place: str = "", traceback: str = "") -> None:
        super().__init__(what)
        self.machine, self.place, self.traceback = machine, place, traceback


class StoreError(Exception):
    """The store cannot be written, which ends the run.

    Args:
        error: The error of the store.
    """

    def __init__(self, error: KnowgenError) -> None:
        super().__init__(str(error))
        self.error = error


class WorkerDiedError(TransientError):
    """A worker process died during a request, which is retried in another one.

    Args:
        what: What happened.
        machine: Whether the machine is at fault, and not the plugin: a failed device, or a process that was killed.
    """

    def __init__(self, what: str, *, machine: bool = False) -> None:
        super().__init__(what)
        self.machine = machine


class WorkerLostError(WorkerDiedError):
    """A worker process was lost with its machine, or with the process that watches it there.

    That says nothing about the plugin, so the request is repeated elsewhere and no attempt is counted, unless it is
    lost again and again.

    Args:
        what: What happened.
        machine_name: Which machine; workers that are lost together with it are one loss.
    """

    def __init__(self, what: str, machine_name: str) -> None:
        super().__init__(what, machine=True)
        self.machine_name = machine_name


class DeviceDisabledError(Exception):
    """The device of a slot failed too often. The slot takes no more work; its requests go to other slots."""


class EventLoopBlockedError(TransientError):
    """Another call blocked the event loop in which a call ran."""


BUILD_SECONDS = 3600.0
"""Time limit for building a plugin: its import, its constructor and `setup`, which may download and load a model."""


def slow_build(where: str, seconds: float, hint: str) -> ConfigError:
    """Return the error for a plugin whose constructor and `setup` do not end in time.

    Args:
        where: The plugin.
        seconds: The time limit.
        hint: Where to look.
    """
    fix = f"{hint}; a model that takes longer to load needs a larger --patience"
    return ConfigError(f"was not built within {duration_text(seconds)}", where=where, fix=fix)


def is_transient(error: BaseException) -> bool:
    """Return whether an error may not happen again: `TransientError`, a lost connection or a network timeout."""
    if isinstance(error, (TransientError, ConnectionError, TimeoutError)):
        return True
    return _is_a(error, ("httpx", "TransportError"), ("aiohttp", "ClientConnectionError"))


def service_failure(error: BaseException) -> ServiceUnavailableError | None:
    """Return what an error says about the service behind a plugin; None where it says nothing.

    An error with a wait that was asked for, and a connection that was not accepted, say nothing about the request.
    """
    if isinstance(error, ServiceUnavailableError):
        return error
    wait = getattr(error, "retry_after", None) if isinstance(error, TransientError) else None
    if wait or isinstance(error, ConnectionRefusedError) or _is_a(error, ("httpx", "ConnectError"), _AIOHTTP_CONNECT):
        attempts = tuple(getattr(error, "attempts", ()))
        return ServiceUnavailableError(describe(error), busy=True, retry_after=wait or None, attempts=attempts)
    return None


def cause_of(error: BaseException) -> FailureCause:
    """Return the cause of a failure that ends with an error."""
    machine = getattr(error, "machine", False) or (isinstance(error, OSError) and error.errno in _MACHINE_ERRORS)
    if machine or service_failure(error) is not None:
        return FailureCause.INFRASTRUCTURE
    return FailureCause.SYSTEM


_AIOHTTP_CONNECT = ("aiohttp", "ClientConnectorError")


def _is_a(error: BaseException, *kinds: tuple[str, str]) -> bool:
    """Return whether an error is of a class of a package, which is not imported for it."""
    return any(name in sys.modules and isinstance(error, getattr(sys.modules[name], kind)) for name, kind in kinds)


def is_decline(error: BaseException) -> bool:
    """Return whether an error means that a generator refuses a prompt, or cannot serve it now."""
    return isinstance(error, RefusalError) or is_transient(error)


def describe(error: BaseException) -> str:
    """Return an error as one line: the project's own messages as they are, others with their type."""
    text = one_line(error, 500)
    if isinstance(error, SystemExit):
        return f"the plugin called sys.exit({text})"
    if isinstance(
        error, (KnowgenError, StoppedError, CallTimeoutError, PluginDisabledError, ContractError, PluginError)
    ):
        return text or type(error).__name__
    return error_summary(error, 500)
