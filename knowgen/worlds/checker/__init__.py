"""The exact check for made-up worlds: it knows the answers, so it reads and compares instead of asking a model.

Importing this package is cheap; pictures, text recognition and the rest are loaded when the first item is scored.
"""

from __future__ import annotations

from knowgen.worlds.checker.scorer import WorldCheck

__all__ = ["WorldCheck"]
