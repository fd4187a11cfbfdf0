"""The search backends of a training: one for all prompts, or that of each prompt's task."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Any, cast

from knowgen.core.records import GroundTruth
from knowgen.search.contract import PrivilegedSearch, SearchBackend
from knowgen.search.load import load_search
from knowgen.training.backends.contract import TrainingPrompt

MOST_UNUSED = 8
"""Maximum number of backends that stay open although no prompt of the last step had them."""


class Searches:
    """Search backends by name, each built when it is first needed. Used in one event loop.

    Args:
        common: Backend of the prompts that name none.
        arguments: Arguments of the others.
    """

    def __init__(self, common: SearchBackend, arguments: Mapping[str, Any] = MappingProxyType({})) -> None:
        self._common, self._arguments = common, dict(arguments)
        self._open: dict[str, asyncio.Task[SearchBackend]] = {}

    async def of(self, prompt: TrainingPrompt) -> SearchBackend:
        """Return the backend of a prompt; that of a privileged one is made from its ground truth.

        Raises:
            UsageError, DataError: It cannot be built.
        """
        if not prompt.search:
            return _for_truth(self._common, prompt.truth)
        if prompt.search not in self._open:
            self._open[prompt.search] = asyncio.create_task(
                asyncio.to_thread(load_search, prompt.search, self._arguments)
            )
        return _for_truth(await asyncio.shield(self._open[prompt.search]), prompt.truth)

    async def close_unused(self, used: Set[str]) -> None:
        """Close the backends that were not used, apart from a few."""
        unused = [name for name in self._open if name not in used]
        for name in unused[: max(0, len(unused) - MOST_UNUSED)]:
            await _close(self._open.pop(name))

    async def close(self) -> None:
        """Close the backends of tasks."""
        for name in list(self._open):
            await _close(self._open.pop(name))


def _for_truth(backend: SearchBackend, truth: GroundTruth) -> SearchBackend:
    if getattr(backend, "privileged", False):
        return cast(PrivilegedSearch, backend).for_truth(truth)
    return backend


async def _close(building: asyncio.Task[SearchBackend]) -> None:
    """Close a backend; nothing is open of one that could not be built, which its episodes have reported."""
    await asyncio.wait([building])
    if building.cancelled() or building.exception() is not None:
        return
    close = getattr(building.result(), "close", None)
    if close is not None:
        await close()
