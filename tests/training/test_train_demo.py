"""The demonstration of a training on a CPU: a short run against its control, and its figures."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "train_demo.py"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_demo", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_differences_are_paired_by_seed(demo: ModuleType) -> None:
    figures = [
        {"untrained": 0.0, "before": 0.4, "real": 0.9, "constant": 0.4, "shuffled": 0.2, "blank": 0.1},
        {"untrained": 0.0, "before": 0.5, "real": 0.8, "constant": 0.4, "shuffled": 0.2, "blank": 0.2},
        {"untrained": 0.0, "before": 0.3, "real": 0.9, "constant": 0.3, "shuffled": 0.1, "blank": 0.2},
    ]
    summary = demo.summarize(figures, ["real", "constant"])
    assert summary["arms"]["real"] == {"before": [0.4, 0.5, 0.3], "after": [0.9, 0.8, 0.9]}
    assert summary["controls"] == {"shuffled": [0.2, 0.2, 0.1], "blank": [0.1, 0.2, 0.2]}
    difference = summary["differences"]["real - constant"]
    assert difference["mean"] == 0.5  # of .5, .4 and .6, whose standard deviation is .1
    assert difference["interval"] == pytest.approx([0.5 - 4.303 * 0.1 / 3**0.5, 0.5 + 4.303 * 0.1 / 3**0.5], abs=1e-4)
    assert demo.paired([1.0], [0.5]) == {"mean": 0.5, "interval": None}


def test_the_curves_are_drawn_as_valid_svg(demo: ModuleType) -> None:
    text = demo.drawn({"real": [[0.2, 0.4, 0.9], [0.1, 0.5, 0.8]], "constant": [[0.2, 0.2, 0.2], [0.3, 0.2, 0.1]]})
    root = ElementTree.fromstring(text)
    shapes = [each.tag.rpartition("}")[2] for each in root]
    assert shapes.count("polyline") == 3 and shapes.count("polygon") == 2
    mean = root.findall("{*}polyline")[1].attrib["points"].split()
    heights = [float(point.split(",")[1]) for point in mean]
    assert len(mean) == 3 and heights == sorted(heights, reverse=True), "rising shares are drawn upwards"


@pytest.mark.slow
def test_a_short_training_learns_to_look_and_its_control_does_not(tmp_path: Path) -> None:
    command = [
        sys.executable, str(SCRIPT), "--out", str(tmp_path), "--seeds", "1", "--steps", "25",
        "--arms", "real,constant",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    (before,), (after,) = summary["arms"]["real"]["before"], summary["arms"]["real"]["after"]
    (constant,) = summary["arms"]["constant"]["after"]
    assert summary["untrained"] == [0.0]
    assert 0.25 < before < 0.6
    assert after > constant + 0.2 and after > before + 0.2
    assert abs(constant - before) < 0.15
    for control in summary["controls"].values():
        assert control[0] < 1 / 6 + 0.1, "what was learned is to look"
    assert len(summary["curves"]["real"][0]) == 25
    assert "run_eval.py, fallback=draw" in done.stdout and "run_eval.py, fallback=fail" in done.stdout
