"""The scorer `world_check`: an exact check of images against the ground truth of a synthetic world, without a model.

Importing this package is cheap; OpenCV, text recognition and NumPy are loaded when the first item is scored.
"""

from __future__ import annotations

from knowgen.worlds.checker.scorer import WorldCheck

__all__ = ["WorldCheck"]
