"""Two settings of one class stand side by side: by `--name`, and by what tells them apart without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from knowgen import api
from knowgen.cli.main import run
from knowgen.core.spec import GeneratorSpec

DUCK = """
from PIL import Image


class Duck:
    revision = "1"

    def __init__(self, style: str = "ink", steps: int = 1):
        self.colour = {"ink": "black", "oil": "yellow"}[style]

    def draw(self, prompt, references, seed):
        return Image.new("RGB", (32, 32), self.colour)
"""
WORDS = ["run", "--task", "knowgen_mini", "--generator", "duck.py:Duck", "--scorer", "pixels", "--limit", "1"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("duck.py").write_text(DUCK)
    return tmp_path


def test_two_settings_of_a_class_have_their_own_directory_and_label(capsys: pytest.CaptureFixture[str]) -> None:
    for style in ("ink", "oil"):
        assert run([*WORDS, "-g", f"style={style}"]) == 0
        assert f"duck.py:Duck(style={style})" in capsys.readouterr().out
    directories = sorted(path.name for path in Path("reports").iterdir())
    assert directories == ["knowgen_mini__duck.py-Duck-style-ink", "knowgen_mini__duck.py-Duck-style-oil"]
    assert run(["compare", *(f"reports/{name}" for name in directories)]) == 0
    compared = capsys.readouterr().out
    assert "duck.py:Duck(style=ink)" in compared and "duck.py:Duck(style=oil)" in compared


def test_a_name_is_shown_and_part_of_the_default_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "-g", "style=ink", "--name", "Ink duck"]) == 0
    assert "\nInk duck " in capsys.readouterr().out
    path = Path("reports/knowgen_mini__Ink-duck")
    assert json.loads((path / "run.json").read_text())["spec"]["name"] == "Ink duck"
    assert "Ink duck" in (path / "report" / "index.html").read_text(encoding="utf-8")
    assert api.load_run(path).summary.system == "Ink duck"
    assert run(["score", str(path), "--scorer", "pixels"]) == 0
    assert "\nInk duck " in capsys.readouterr().out, "scoring again does not lose the name"


def test_another_name_renames_the_system_and_computes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "--out", "out", "--name", "one"]) == 0
    assert run([*WORDS, "--out", "out", "--name", "two"]) == 0
    run_ = api.load_run("out")
    assert run_.summary.system == "two"
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["spec"]["name"] == "two" and summary["summaries"][0]["system"] == "two"


def test_python_has_the_same_option() -> None:
    named = api.evaluate("knowgen_mini", "noise", "pixels", limit=1, name="random pixels")
    assert named.path == Path("reports/knowgen_mini__random-pixels") and named.summary.system == "random pixels"


def test_a_directory_of_another_setting_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "-g", "style=ink", "--out", "out"]) == 0
    capsys.readouterr()
    assert run([*WORDS, "-g", "style=oil", "--out", "out"]) == 3
    error = capsys.readouterr().err
    assert "style" in error and "ink" in error and "oil" in error and "--out" in error and "--name" in error


def test_long_arguments_are_cut_and_still_distinct() -> None:
    labels = [GeneratorSpec(name="x", args={"prompt": "very " * 40 + end}).label for end in ("long", "short")]
    assert len(set(labels)) == 2 and max(len(label) for label in labels) < 60
    assert GeneratorSpec(name="x").label == "x"
