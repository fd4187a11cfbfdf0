"""How a generator is offered: where, to whom, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from knowgen.clients.endpoint_url import is_loopback_host
from knowgen.core.errors import UsageError
from knowgen.core.run_config import GENERATION_TIMEOUT

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class ServiceSettings:
    """How a generator is offered. Nothing here decides a picture.

    Attributes:
        host: Address it listens on.
        port: TCP port; 0 takes a free one.
        workers: Worker processes that draw; 0 draws in this process.
        queue: Requests that may wait for their turn beside those that are drawn.
        timeout: Seconds one drawing may take.
        token: Secret that requests must bring as a bearer token; empty asks for none.
        max_body: Longest body of a request, in bytes.
        max_pixels: Most pixels of one reference image.
        fetch: May reference images be given by an http address, which the server then fetches?
    """

    host: str = "127.0.0.1"
    port: int = 8001
    workers: int = 0
    queue: int = 64
    timeout: float = GENERATION_TIMEOUT
    token: str = field(default="", repr=False)
    max_body: int = 64 * MEBIBYTE
    max_pixels: int = 50_000_000
    fetch: bool = False

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            UsageError: One is out of range.
        """
        for name in ("queue", "workers", "port"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)} is not possible", where="serve", fix="give 0 or more")
        for name in ("timeout", "max_body", "max_pixels"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name}={getattr(self, name)} is not possible", where="serve", fix="give more than 0")

    @property
    def open_to_all(self) -> bool:
        """Tells whether other machines can reach it and no token keeps them out."""
        return not self.token and not is_loopback_host(self.host)
