"""What is asked before anything is fetched for a search: the leak guard, and the guard of addresses."""

from __future__ import annotations

from collections.abc import Iterable

from knowgen.clients.safe_fetch import BlockedError
from knowgen.core.leaks import blocked_url
from knowgen.search.contract import BlockReason, PageBlockedError


def check_leaks(urls: Iterable[str]) -> None:
    """Check URLs by the leak guard of the run.

    Raises:
        PageBlockedError: One of them leads to the benchmark's own data.
    """
    for url in urls:
        if reason := blocked_url(url):
            raise PageBlockedError(reason, BlockReason.LEAK, where=url)


def address_blocked(error: BlockedError, url: str) -> PageBlockedError:
    """Return the error of the contract for a URL that does not lead to the public internet."""
    return PageBlockedError(error.what, BlockReason.ADDRESS, where=url)
