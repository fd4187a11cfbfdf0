"""Files in the current folder never hide modules of the standard library or of installed packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.helpers.processes import run_python

INSTALLED = ("PIL", "aiohttp", "click", "numpy", "pydantic", "yaml")
DUCK = """
import json
from PIL import Image
import helper
class Duck:
    def draw(self, prompt, references, seed):
        import statistics
        return Image.new("RGB", (32, 32), helper.COLOUR)
def half(prompt, image):
    return 0.5
"""


def hiding_names() -> list[str]:
    """Return the modules that a file may hide: those that Python itself has not loaded when it starts a module."""
    code = """
import importlib.util, runpy, pkgutil, sys
loaded = {*sys.modules, "__future__"}
print(*(name for name in sys.argv[1:] if name not in loaded and importlib.util.find_spec(name)))
"""
    return run_python("-P", "-c", code, *sorted(sys.stdlib_module_names), *INSTALLED).stdout.split()


@pytest.fixture()
def crowded(tmp_path: Path) -> Path:
    """Return a folder in which a file hides almost every module, and fails when it is imported."""
    names = hiding_names()
    assert {"json", "http", "statistics", "asyncio", "sqlite3"} <= set(names)
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('the file {name}.py in the current folder')\n")
    (tmp_path / "duck.py").write_text(DUCK)
    (tmp_path / "helper.py").write_text("COLOUR = (200, 100, 0)\n")
    return tmp_path


@pytest.mark.parametrize("name", ["duck.py:Duck", "duck:Duck"])
def test_a_run_takes_no_module_from_the_current_folder(crowded: Path, name: str) -> None:
    arguments = ["--task", "knowgen_mini", "--generator", name, "--scorer", "duck.py:half", "--limit", "2"]
    ended = run_python("-m", "knowgen", "run", *arguments, "--out", "out", cwd=crowded, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "2/2" in ended.stdout


def test_a_module_hidden_by_an_installed_one_is_named_with_the_way_out(crowded: Path) -> None:
    arguments = ["--task", "knowgen_mini", "--generator", "statistics:Duck", "--limit", "2"]
    ended = run_python("-m", "knowgen", "run", *arguments, cwd=crowded, check=False)
    assert ended.returncode == 2 and "write statistics.py:Duck" in ended.stderr
