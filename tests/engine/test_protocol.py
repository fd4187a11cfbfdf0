"""Messages between a run and its worker processes keep errors, requests and items unchanged."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from knowgen.core import errors
from knowgen.core.errors import TransientError
from knowgen.core.records import (
    Attempt,
    FailureCause,
    Generation,
    GenerationRequest,
    GenerationStatus,
    GroundTruth,
    ImageRef,
    Sample,
    Usage,
)
from knowgen.engine.executors.channel import Channel
from knowgen.engine.executors.protocol import pack_batch, pack_error, unpack_batch, unpack_error
from knowgen.engine.retry import cause_of, describe, is_transient
from tests.helpers.engine import png


def sent(message: dict[str, Any], payload: bytes = b"") -> dict[str, Any]:
    """Return a message as the other end of a connection receives it."""
    ends = socket.socketpair()
    sender, receiver = map(Channel, ends)
    try:
        sender.send(message, payload)
        received = receiver.receive()
        assert received is not None and received[1] == payload
        return received[0]
    finally:
        sender.close()
        receiver.close()


def test_errors_keep_their_kind() -> None:
    for kind in (errors.RefusalError, errors.ConfigError, errors.BudgetReachedError, errors.UnscorableError):
        back = unpack_error(sent(pack_error(kind("what", where="where", fix="fix"))))
        assert type(back) is kind
        assert str(back) == "where: what; fix"
    missing = unpack_error(pack_error(errors.NotRecordedError("what", where="where", fix="fix")))
    assert type(missing) is errors.NotRecordedError and cause_of(missing) is FailureCause.INFRASTRUCTURE
    paid = Attempt(reply="half a reply", usage=Usage(cost=0.5))
    busy = TransientError("busy", retry_after=3.0, attempts=(paid,))
    transient = unpack_error(sent(pack_error(busy)))
    assert isinstance(transient, TransientError) and transient.retry_after == 3.0
    assert transient.attempts == (paid,), "attempts that were paid for are not lost"
    assert is_transient(unpack_error(pack_error(ConnectionResetError("gone"))))
    assert describe(unpack_error(pack_error(ValueError("no")))) == "ValueError: no"
    assert describe(unpack_error(pack_error(SystemExit(2)))) == describe(SystemExit(2))


def test_requests_and_items_come_back_unchanged_with_their_images(tmp_path: Path) -> None:
    file = tmp_path / "p.png"
    file.write_bytes(png("p"))
    image = ImageRef(sha256="0" * 64, width=48, height=32, format="PNG", path=file)
    truth = GroundTruth(sample_id="s", image=image, required_text=("é\u2028",))
    request = GenerationRequest(id="r", prompt="p\n", references=(image,), truth=truth)
    plain = GenerationRequest(id="r", prompt="p")
    generation = Generation(sample_id="s", status=GenerationStatus.OK, image=image)
    item = (Sample(id="s", prompt="p"), truth, generation)
    for batch in ([request, plain], [item]):
        assert unpack_batch(sent({"batch": pack_batch(batch)})["batch"]) == batch
    (back,) = unpack_batch(pack_batch([item]))
    assert back[2].image.open().size == (48, 32)
