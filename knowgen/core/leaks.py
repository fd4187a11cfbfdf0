"""The leak guard: keeps a benchmark's own data and its ground truths from an agent that searches the web.

The engine sets the guard of the task; search backends ask it before they fetch or return something:

    if reason := blocked_url(url):
        raise PageBlockedError(reason, BlockReason.LEAK, where=url)

Outside a run, nothing is blocked.
"""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image


class LeakGuard(Protocol):
    """Tells what an agent must not see. Its methods may be called from any thread."""

    def blocked_url(self, url: str) -> str:
        """Return why a URL must not be fetched or shown; empty when it may."""
        ...

    def blocked_image(self, image: Path | Image) -> str:
        """Return why an image must not be shown; empty when it may.

        Args:
            image: An image, or its file.
        """
        ...


current_leak_guard: ContextVar[LeakGuard | None] = ContextVar("knowgen_leak_guard", default=None)
"""The guard of the current run; None outside a run."""


def blocked_url(url: str) -> str:
    """Return why the current guard blocks a URL; empty when it does not."""
    guard = current_leak_guard.get()
    return guard.blocked_url(url) if guard is not None and url else ""


def blocked_image(image: Path | Image) -> str:
    """Return why the current guard blocks an image; empty when it does not."""
    guard = current_leak_guard.get()
    return guard.blocked_image(image) if guard is not None else ""
