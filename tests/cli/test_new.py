"""A new package is complete, installs and passes its checks, and so do generators written from the guide."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import threading
import tomllib
import venv
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from knowgen.cli.main import run
from knowgen.core import registry
from knowgen.store.run import RunStore
from tests.helpers.guides import ROOT, files_of, install
from tests.helpers.text import one_line

GUIDE = "generator.md"


KINDS = {
    "generator": ("knowgen.generators", "star_map:StarMapGenerator"),
    "scorer": ("knowgen.scorers", "star_map:StarMapScorer"),
    "task": ("knowgen.tasks", "star_map:star_map_task"),
    "search": ("knowgen.search", "star_map:StarMapSearch"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_is_complete_and_its_code_is_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["new", kind, "star_map"]) == 0
    output = capsys.readouterr().out
    package = tmp_path / "star_map"
    texts = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".png"]
    assert sorted(str(path.relative_to(package)) for path in texts) == sorted(
        ["README.md", "pyproject.toml", "src/star_map/__init__.py", f"src/star_map/{kind}.py", "tests/test_star_map.py"]
    )
    assert len(list(package.rglob("*.png"))) == (4 if kind == "task" else 0)
    project = tomllib.loads((package / "pyproject.toml").read_text())
    group, target = KINDS[kind]
    assert project["project"]["entry-points"] == {group: {"star_map": target}}
    for path in texts:
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
    assert "pip install -e star_map" in output
    if kind != "search":
        assert f"knowgen check {kind} star_map" in output


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_is_listed_and_passes_its_check_and_its_own_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """The package is installed without pip, with the files that pip would write; commands run in own processes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    assert run(["new", kind, "star_map"]) == 0
    install(tmp_path / "star_map", tmp_path / "site", monkeypatch)
    registry.entries.cache_clear()

    def say(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    plural = kind if kind == "search" else f"{kind}s"
    assert re.search(r"^star_map .*star-map 0\.1\.0$", say("knowgen", "list", plural), re.MULTILINE)
    if kind != "search":
        checked = say("knowgen", "check", kind, "star_map")
        assert re.search(r"\b0 warnings, 0 failed", checked), checked
    assert "passed" in say("pytest", "-q", "star_map/tests")


@pytest.mark.parametrize(
    ("name", "message"),
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
        ("numpy", "there is a module 'numpy' already; choose another name, such as numpy_generator"),
    ],
)
def test_invalid_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["new", "generator", name]) == 2
    assert message in one_line(capsys.readouterr().err)
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
    """In a separate environment that sees the libraries installed here, including knowgen."""
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
        assert store.spec.generator.revision.startswith("star-map 0.1.0 source ")
        assert [each.status.value for _, each in store.generations()] == ["ok"] * 3
    say("pytest", "-q", "star_map/tests")


# -- docs/guides/generator.md ------------------------------------------------------------------------------------------


class ImageService(BaseHTTPRequestHandler):
    """The service of the guide: images that depend on prompt and seed, a refusal of the empty prompt, and a 503 at the
    first call."""

    protocol_version = "HTTP/1.1"
    calls = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).calls += 1
        if type(self).calls == 1:
            return self.answer(503, b"busy")
        if not body["prompt"]:
            return self.answer(422, b"there is nothing to draw")
        digest = hashlib.sha256(f"{body['seed']} {body['prompt']}".encode("utf-8", "replace")).digest()
        buffer = BytesIO()
        Image.frombytes("RGB", (2, 2), digest[:12]).resize((64, 64), Image.Resampling.BILINEAR).save(buffer, "PNG")
        return self.answer(200, buffer.getvalue())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing to stderr."""


@pytest.fixture
def service() -> Iterator[str]:
    ImageService.calls = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), ImageService)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/paint"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "file",
    ["ten_lines.py", "in_batches.py", "my_service.py", pytest.param("on_gpu.py", marks=pytest.mark.slow)],
)
def test_an_adapter_copied_from_the_page_passes_its_check_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], service: str, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).write_text(files_of(GUIDE)[file], encoding="utf-8")
    name = "".join(word.capitalize() for word in file.removesuffix(".py").split("_"))
    given = ["-g", f"url={service}"] if file == "my_service.py" else []
    run_words = [
        "--generator",
        f"{file}:{name}",
        "--task",
        "knowgen_mini",
        "--scorer",
        "pixels",
        "--limit",
        "3",
        *given,
    ]
    assert run(["run", *run_words, "--out", "out"]) == 0
    capsys.readouterr()
    assert run(["check", "generator", f"{file}:{name}", *given]) == 0
    assert "0 warnings, 0 failed" in capsys.readouterr().out
    with RunStore.read(tmp_path / "out") as store:
        generations = [each for _, each in store.generations()]
        spent = store.spent()
    assert [each.status.value for each in generations] == ["ok"] * 3
    assert len({each.image.sha256 for each in generations if each.image}) == 3
    if given:
        assert sum(each.attempts for each in generations) == 3, "waiting for a busy service is not an attempt"
        assert ImageService.calls > 3
        assert spent == pytest.approx(0.06) and "url" not in store.spec.generator.args
    assert run(["reproduce", "out", *given]) == 0


def test_the_python_example_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "from_python.py").write_text(files_of(GUIDE)["from_python.py"], encoding="utf-8")
    done = subprocess.run([sys.executable, "from_python.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"0\.\d+ in reports/from_python\n", done.stdout), done.stdout
