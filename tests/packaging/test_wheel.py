"""An installed wheel is complete: it contains the tasks, the mini world and the templates of pages."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    return next(out.glob("knowgen-*.whl"))


@pytest.mark.slow
def test_the_wheel_contains_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "knowgen/_content/tasks/knowgen_mini/samples.jsonl" in names
    assert any(name.startswith("knowgen/report/templates/") for name in names)
    assert any(name.startswith("knowgen/report/static/") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "reports/", "benchmarks/"))]
    assert wheel.stat().st_size < 16e6


@pytest.mark.slow
def test_a_wheel_in_an_environment_of_its_own_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    """The environment borrows the libraries that are installed here, but not this checkout: a path in a `.pth` file
    brings no `.pth` files of its own, so the editable installation stays out."""
    home = tmp_path / "env"
    venv.create(home, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = str(home / "bin" / "python")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def say(*words: str) -> str:
        done = subprocess.run([python, *words], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert say("-c", "import knowgen; print(knowgen.__file__)").strip().startswith(str(site))
    assert "knowgen_mini" in say("-m", "knowgen", "list", "tasks")
    table = say("-m", "knowgen", "demo", "--limit", "4", "--out", "demo")
    assert all(system in table for system in ("noise", "closed_book", "open_book", "oracle"))
    assert (tmp_path / "demo" / "report" / "index.html").is_file()
