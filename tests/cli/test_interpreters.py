"""A run works in a running event loop, in a script without a main guard that spawns, and without a UTF-8 locale."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.processes import python_environment, run_python

PLUGIN = """
from PIL import Image
class Duck:
    def draw(self, prompt, references, seed):
        print("zażółć …")
        return Image.new("RGB", (32, 32), (seed, len(prompt) % 255, 7))
async def half(prompt, image):
    return 0.5
"""
SCRIPT = """
import asyncio
import multiprocessing
import knowgen
from PIL import Image
multiprocessing.set_start_method("spawn")
def draw(prompt, seed):
    return Image.new("RGB", (32, 32), (seed, len(prompt) % 255, 7))
async def cell():  # as in a notebook, whose loop is running
    return knowgen.evaluate("knowgen_mini", draw, ["pixels", "duck.py:half"], limit=2, out="a").outcome.scored
print(asyncio.run(cell()))
print(knowgen.evaluate("knowgen_mini", "duck.py:Duck", "duck.py:half", limit=2, out="b").outcome.scored)
"""


def test_a_running_loop_and_a_script_without_a_main_guard(tmp_path: Path) -> None:
    (tmp_path / "duck.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "script.py").write_text(SCRIPT)
    assert run_python("script.py", cwd=tmp_path).stdout.split() == ["4", "2"]


def test_a_plugin_prints_what_the_locale_cannot_encode(tmp_path: Path) -> None:
    (tmp_path / "duck.py").write_text(PLUGIN, encoding="utf-8")
    environment = python_environment(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    arguments = ["--task", "knowgen_mini", "--generator", "duck.py:Duck", "--scorer", "duck.py:half", "--limit", "2"]
    run_python("-m", "knowgen", "run", *arguments, "--out", "out", cwd=tmp_path, env=environment)
    (log,) = (tmp_path / "out" / "logs").glob("generators-*.log")
    assert "zażółć …" in log.read_text(encoding="utf-8")
