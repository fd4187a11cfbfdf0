"""The settings of a server: address, access and limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from knowgen.clients.endpoint_url import is_loopback_host
from knowgen.core.errors import UsageError
from knowgen.core.run_config import GENERATION_TIMEOUT

MEBIBYTE = 1 << 20

_PER_REQUEST = 2
"""How many of the largest reference images one request may have."""

_IN_FLIGHT = 4
"""How many of the largest requests and the largest reference images are held in memory at the same time."""


@dataclass(frozen=True)
class ServiceSettings:
    """The settings of a server. They decide no image.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 for any free port.
        workers: Worker processes of the generator; 0 runs it in this process.
        queue: Maximum number of queued requests, besides those in progress.
        timeout: Time limit per image in seconds.
        token: Bearer token that requests must carry; empty to require none.
        max_body: Maximum size of a request body in bytes.
        max_pixels: Maximum number of pixels of a reference image.
        fetch: Whether the server fetches reference images given by an http URL.

    Example:
        >>> ServiceSettings(host="0.0.0.0").open_to_all, ServiceSettings(host="0.0.0.0", token="secret").open_to_all
        (True, False)
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
        """Check the values.

        Raises:
            UsageError: A value is out of range.
        """
        for name in ("queue", "workers", "port"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be 0 or more, got {getattr(self, name)}", where="serve")
        for name in ("timeout", "max_body", "max_pixels"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be more than 0, got {getattr(self, name)}", where="serve")

    @property
    def max_bytes_in_flight(self) -> int:
        """Maximum size of all request bodies and references that are being received, in bytes."""
        return _IN_FLIGHT * self.max_body

    @property
    def max_pixels_of_request(self) -> int:
        """Maximum number of pixels of all reference images of one request, which are decoded at the same time."""
        return _PER_REQUEST * self.max_pixels

    @property
    def max_pixels_in_flight(self) -> int:
        """Maximum number of pixels of all reference images of the admitted requests."""
        return _IN_FLIGHT * self.max_pixels

    @property
    def open_to_all(self) -> bool:
        """Return whether other machines can reach the server without a token."""
        return not self.token and not is_loopback_host(self.host)
