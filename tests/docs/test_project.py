"""The files around the code agree with each other and with the code."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import knowgen
from knowgen.core import errors
from knowgen.core.python_source import parse_python

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))


def test_the_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    heading = re.search(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d{2}-\d{2})\)", read("CHANGELOG.md"), re.MULTILINE)
    assert heading is not None, "the changelog has no dated release"
    assert {project["project"]["version"], str(citation["version"]), heading[1]} == {knowgen.__version__}
    assert str(citation["date-released"]) == heading[2]
    assert citation["license"] == project["project"]["license"]


def test_continuous_integration_tests_the_supported_versions_of_python(project: dict[str, Any]) -> None:
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    classifiers = "\n".join(project["project"]["classifiers"])
    supported = re.findall(r"Python :: (\d\.\d+)", classifiers)
    assert jobs["test"]["strategy"]["matrix"]["python-version"] == supported
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {words.split()[1] for words in commands} == {"lint", "test", "test-slow", "docs"}
    assert set(re.findall(r"^make ([\w-]+)$", read(".ci/run"), re.MULTILINE)) == {"lint", "test", "test-slow", "docs"}


def test_hooks_run_what_lint_runs() -> None:
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    lint = read("Makefile").partition("\nlint:")[2].partition("\n\n")[0]
    entries = " ".join(hook["entry"] for hook in hooks)
    for tool in ("ruff check", "ruff format", "mypy", "check_words.py"):
        assert tool in lint and tool in entries


def test_templates_are_valid() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert path.name == "config.yml" or {"name", "description", "body"} <= form.keys()


def test_exit_codes_are_documented() -> None:
    documented: dict[str, int] = {}
    for code, classes in re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", ENVIRONMENT, re.MULTILINE):
        documented |= dict.fromkeys(re.findall(r"`(\w+)`", classes), int(code))
    classes = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.KnowgenError)
    ]
    own = {each.__name__: each.exit_code for each in classes if "exit_code" in vars(each)}
    assert own.pop("KnowgenError") == 3
    assert documented == own


def environment_names() -> set[str]:
    """Names of environment variables in the source: strings of capitals that say so."""
    pattern = re.compile(r"(?:KNOWGEN|HF|XDG|OMP|OPENBLAS|MKL|CUDA)_[A-Z_]+|[A-Z]+_API_KEY")
    names = set()
    for path in (ROOT / "knowgen").rglob("*.py"):
        if path.name == "secrets.py":  # knows the variables of many services, to name them in errors
            continue
        for node in ast.walk(parse_python(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and pattern.fullmatch(node.value):
                names.add(node.value)
    return names


def test_environment_variables_are_documented() -> None:
    names = environment_names()
    assert {"KNOWGEN_CACHE", "KNOWGEN_DATA", "OPENAI_API_KEY"} <= names
    assert [name for name in sorted(names) if name not in ENVIRONMENT] == []


@pytest.fixture(scope="module")
def words() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_words", ROOT / ".ci" / "check_words.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# in pieces, so that this file does not use the words that it tests
LISTED = [
    "me" + "nds",
    "ME" + "ND",
    "an" + "ew",
    "be" + " it",
    "be" + "\n# it",
    "mani" + "eth",
    "is" + " no",
    "to" + "ld",
]
LISTED += ["who" + " judges", "test_what_was_" + "to" + "ld"]


@pytest.mark.parametrize("word", LISTED)
def test_a_listed_word_is_reported(words: ModuleType, word: str) -> None:
    assert len(list(words.hits(f"first line\nsome {word} here\n", words.read_words()))) == 1


@pytest.mark.parametrize(
    "text", ["recommend amend", "is not", "is none", "it is" + " no longer", "a toldo", "who reads"]
)
def test_other_words_are_not_reported(words: ModuleType, text: str) -> None:
    assert list(words.hits(text, words.read_words())) == []


def test_the_word_check_names_file_line_word_and_replacement(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("A line.\nMade " + "an" + "ew.\n")
    script = tmp_path / ".ci" / "check_words.py"
    script.parent.mkdir()
    for name in ("check_words.py", "words.txt"):
        (script.parent / name).write_text(read(f".ci/{name}"))
    done = subprocess.run([sys.executable, script, "page.md"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("page.md:2: " + "an" + "ew: again")
    (tmp_path / "page.md").write_text("A line.\n")
    assert subprocess.run([sys.executable, script, "page.md"], check=False).returncode == 0
