"""Fixtures that install a plugin which breaks its contract in many ways."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGIN = Path(__file__).resolve().parents[1] / "plugins" / "knowgen_hostile"

ENTRY_POINTS = """
[knowgen.generators]
hostile_exits_at_import = knowgen_hostile.exits:Generator
hostile_broken_import = knowgen_hostile.raises:Generator
hostile_missing_module = knowgen_hostile.not_there:Generator
hostile_missing_class = knowgen_hostile.generators:NotThere
hostile_good_order = knowgen_hostile.generators:OutOfOrder
noise = knowgen_hostile.generators:OutOfOrder

[knowgen.scorers]
hostile_exits_at_import = knowgen_hostile.exits:Scorer

[knowgen.tasks]
hostile_exits_at_import = knowgen_hostile.exits:Task

[knowgen.search]
hostile_exits_at_import = knowgen_hostile.exits:Search

[knowgen.policies]
hostile_exits_at_import = knowgen_hostile.exits:Policy

[knowgen.tools]
hostile_exits_at_import = knowgen_hostile.exits:Tool
"""


def install(folder: Path) -> Path:
    """Install the hostile plugin as `pip install --target` would, without a network."""
    shutil.copytree(PLUGIN, folder / "knowgen_hostile", ignore=shutil.ignore_patterns("__pycache__"))
    info = folder / "knowgen_hostile-6.6.6.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: knowgen-hostile\nVersion: 6.6.6\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (info / "INSTALLER").write_text("test\n")
    return folder


@pytest.fixture()
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the hostile plugin for this test, in this process and its child processes."""
    from knowgen.core import registry

    folder = install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    registry.entries.cache_clear()
    yield folder
    registry.entries.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "knowgen_hostile"]:
        del sys.modules[name]
