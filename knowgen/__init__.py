"""knowgen: benchmark and evaluation harness for search-grounded image generation.

The public names are imported on first use, so that `import knowgen` is fast.

Example:
    >>> import knowgen
    >>> run = knowgen.evaluate("knowgen_mini", "open_book", limit=8)  # doctest: +SKIP
    >>> run.summary.headline.value  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import knowgen.core.import_path  # noqa: F401 - first, so that no file in the current folder hides a module
from knowgen.core.version import __version__

if TYPE_CHECKING:
    from knowgen.api import Run, aggregate, compare, evaluate, load_run, load_task, score
    from knowgen.core.records import GenerationRequest
    from knowgen.generators.contract import GeneratedImage
    from knowgen.suites import run_suite
    from knowgen.training.rewards import DualReward

_MODULES = {
    "DualReward": "knowgen.training.rewards",
    "GeneratedImage": "knowgen.generators.contract",
    "GenerationRequest": "knowgen.core.records",
    "Run": "knowgen.api",
    "aggregate": "knowgen.api",
    "compare": "knowgen.api",
    "evaluate": "knowgen.api",
    "load_run": "knowgen.api",
    "load_task": "knowgen.api",
    "run_suite": "knowgen.suites",
    "score": "knowgen.api",
}
"""Module of each public name."""

__all__ = [
    "DualReward",
    "GeneratedImage",
    "GenerationRequest",
    "Run",
    "__version__",
    "aggregate",
    "compare",
    "evaluate",
    "load_run",
    "load_task",
    "run_suite",
    "score",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'knowgen' has no attribute {name!r}")
