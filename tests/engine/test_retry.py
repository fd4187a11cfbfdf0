"""What the errors of the engine say: which are transient or concern a service, their causes, their one-line texts."""

from __future__ import annotations

import errno

import pytest

from knowgen.core.errors import ServiceUnavailableError, TransientError
from knowgen.core.records import FailureCause
from knowgen.engine.executors.protocol import pack_error, unpack_error
from knowgen.engine.retry import (
    PluginDisabledError,
    WorkerDiedError,
    cause_of,
    describe,
    is_transient,
    service_failure,
)


def test_a_lost_connection_of_httpx_is_transient_and_an_invalid_url_is_not() -> None:
    import httpx

    assert is_transient(httpx.ConnectError("refused"))
    assert is_transient(httpx.ReadTimeout("slow"))
    assert not is_transient(httpx.InvalidURL("what"))


def test_a_reason_is_one_line() -> None:
    assert describe(RuntimeError("a\n  b")) == "RuntimeError: a b"
    assert describe(KeyError()) == "KeyError"
    assert len(describe(RuntimeError("x" * 9999))) < 600


def test_a_refused_connection_and_a_stated_wait_say_nothing_about_the_request() -> None:
    import httpx

    for error in (
        ConnectionRefusedError(),
        httpx.ConnectError("refused"),
        TransientError("busy", retry_after=3.0),
    ):
        failure = service_failure(error)
        assert failure is not None and failure.busy
    for other in (ConnectionResetError(), TransientError("broken"), TransientError("now", retry_after=0.0), OSError()):
        assert service_failure(other) is None


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ServiceUnavailableError("the endpoint answered 500"), FailureCause.INFRASTRUCTURE),
        (ConnectionRefusedError(), FailureCause.INFRASTRUCTURE),
        (OSError(errno.ENOSPC, "no space left on device"), FailureCause.INFRASTRUCTURE),
        (WorkerDiedError("was killed by SIGKILL", machine=True), FailureCause.INFRASTRUCTURE),
        (PluginDisabledError("no device is left", machine=True), FailureCause.INFRASTRUCTURE),
        (WorkerDiedError("ended with code 1"), FailureCause.SYSTEM),
        (FileNotFoundError(errno.ENOENT, "no such file"), FailureCause.SYSTEM),
        (ValueError("no"), FailureCause.SYSTEM),
        (TransientError("no image this time"), FailureCause.SYSTEM),
    ],
)
def test_the_cause_of_a_failure_is_the_same_in_this_process_and_in_a_worker(
    error: Exception, cause: FailureCause
) -> None:
    assert cause_of(error) is cause
    if not isinstance(error, (WorkerDiedError, PluginDisabledError)):  # these arise in this process only
        assert cause_of(unpack_error(pack_error(error))) is cause


def test_an_unavailable_service_is_the_same_error_out_of_a_worker() -> None:
    error = ServiceUnavailableError("the service answered 503", service="vlm:x", busy=True, retry_after=7.0)
    unpacked = unpack_error(pack_error(error))
    assert isinstance(unpacked, ServiceUnavailableError)
    assert (str(unpacked), unpacked.service, unpacked.busy, unpacked.retry_after) == (
        "the service answered 503", "vlm:x", True, 7.0,
    )  # fmt: skip
