"""knowgen: benchmark and evaluation harness for search-grounded image generation.

The names below are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from knowgen.core.version import __version__

if TYPE_CHECKING:
    from knowgen.api import Run, aggregate, compare, evaluate, load_run, load_task, score
    from knowgen.core.records import GenerationRequest
    from knowgen.generators.contract import GeneratedImage
    from knowgen.suites import run_suite
    from knowgen.training.rewards import DualReward

_LAZY = {
    "evaluate": "knowgen.api",
    "load_task": "knowgen.api",
    "load_run": "knowgen.api",
    "compare": "knowgen.api",
    "aggregate": "knowgen.api",
    "score": "knowgen.api",
    "run_suite": "knowgen.suites",
    "DualReward": "knowgen.training.rewards",
    "Run": "knowgen.api",
    "GeneratedImage": "knowgen.generators.contract",
    "GenerationRequest": "knowgen.core.records",
}

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
    """Loads a public name from its home on first use."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'knowgen' has no attribute {name!r}")
