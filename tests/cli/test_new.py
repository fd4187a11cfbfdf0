"""A new generator's package: what is written, that it installs and passes the checks, and that adapters written from
the page do as well."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from knowgen.cli.main import run
from knowgen.store.run import RunStore

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "adapters.md"


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    return lines[0]


def test_the_package_is_complete_and_its_code_is_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["new", "generator", "star_map"]) == 0
    said = capsys.readouterr().out
    package = tmp_path / "star_map"
    assert sorted(str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()) == [
        "README.md", "pyproject.toml", "src/star_map/__init__.py", "src/star_map/painter.py", "tests/test_star_map.py"
    ]  # fmt: skip
    project = tomllib.loads((package / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["knowgen.generators"] == {"star_map": "star_map:StarMapPainter"}
    for path in package.rglob("*"):
        if path.is_file():
            assert "$" not in path.read_text(), "no placeholder is left"
    code = [str(path) for path in package.rglob("*.py")]
    assert all(ast.parse(Path(path).read_text()) for path in code)
    for words in (
        ["check", "--select", "E,F,I,B,UP", "--line-length", "120"],
        ["format", "--check", "--line-length", "120"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, *code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "pip install -e star_map" in said and "knowgen check generator star_map" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My-Model", "did you mean 'my_model'?"),
        ("my model", "did you mean 'my_model'?"),
        ("StarMap", "did you mean 'star_map'?"),
        ("3d", "a letter first; such as my_model"),
        ("class", "a letter first; such as my_model"),
        ("../upper", "did you mean 'upper'?"),
        ("open_book", "there is a generator 'open_book' already, from knowgen"),
        ("json", "there is a module 'json' already"),
        ("torchvision_or_pillow_" * 4, "cannot name a module"),
        ("PIL", "did you mean 'pil'?"),
        ("numpy", "there is a module 'numpy' already; choose another name, such as numpy_painter"),
    ],
)
def test_names_that_cannot_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["new", "generator", name]) == 2
    assert said in one_line(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my own words")
    assert run(["new", "generator", "star_map", "--dir", "mine"]) == 3
    assert "README.md: exists already" in one_line(capsys.readouterr().err)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]
    (tmp_path / "file").write_text("")
    assert run(["new", "generator", "star_map", "--dir", "file"]) == 3
    assert "cannot be written" in one_line(capsys.readouterr().err)


@pytest.mark.slow
def test_a_new_package_installs_offline_and_passes_its_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an environment of its own that borrows the libraries that are installed here, knowgen's own included."""
    monkeypatch.chdir(tmp_path)
    assert run(["new", "generator", "star_map"]) == 0
    home = tmp_path / "env"
    venv.create(home, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    (site / "borrowed.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    python = str(home / "bin" / "python")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def say(*words: str) -> str:
        done = subprocess.run([python, "-m", *words], capture_output=True, text=True, check=False, env=clean)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    say("pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "-e", "star_map")
    assert "star_map" in say("knowgen", "list", "generators")
    checked = say("knowgen", "check", "generator", "star_map")
    assert re.search(r"\b0 warnings, 0 failed", checked), checked
    say(
        "knowgen",
        "run",
        "--task",
        "knowgen_mini",
        "--generator",
        "star_map",
        "--scorer",
        "pixels",
        "--limit",
        "3",
        "--out",
        "out",
    )
    with RunStore.read(tmp_path / "out") as store:
        assert store.spec.generator.revision == "star-map 0.1.0"
        assert [each.status.value for _, each in store.generations()] == ["ok"] * 3
    say("pytest", "-q", "star_map/tests")
