"""pydantic's `BaseModel`, usable where the metadata of an installed package is damaged.

With its first model pydantic reads the entry points of all installed packages, to find plugins of its own, and raises
if one cannot be read. Later models then work without plugins. The first model is made here; `registry.unreadable` names
the package.
"""

from __future__ import annotations

import contextlib

from pydantic import BaseModel, create_model

__all__ = ["BaseModel"]

with contextlib.suppress(Exception):  # damaged metadata raises many types
    create_model("FirstModel")
