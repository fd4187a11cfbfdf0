"""The guides: every block of code and every command runs, and plugins appear in the list, the record and the report."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from knowgen import plugin
from knowgen.cli.main import VERBS, cli, run
from knowgen.core import registry
from knowgen.core.records import ParsedScore
from knowgen.generators.contract import GeneratedImage
from tests.helpers.guides import GUIDES, ROOT, commands_of, files_of, install

PLUGIN_GUIDES = ["generator.md", "scorer.md", "task.md", "search.md"]
FIRST = {"generator.md": "ten_lines.py", "scorer.md": "sharpness.py", "task.md": "plain.py", "search.md": "notes.py"}
TEMPLATES = sorted((ROOT / "knowgen" / "scaffold").rglob("*.py.tmpl"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield an empty current folder; remove its packages from the registry and from sys.modules afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(":"))
    before = set(sys.modules)
    yield tmp_path
    registry.entries.cache_clear()
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("guide", PLUGIN_GUIDES)
def test_every_command_of_a_guide_does_what_it_says(
    guide: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if guide != "generator.md":  # one guide with worker processes, as users have them
        request.getfixturevalue("in_process")
    write(folder, files_of(guide))
    installed: list[str] = []
    for words in commands_of(guide):
        if words[0] == "python":
            subprocess.run([sys.executable, *words[1:]], check=True)
        elif words[:3] == ["pip", "install", "-e"]:
            installed.append(install(folder / words[3], folder / "site", monkeypatch).replace("-", "_"))
        else:
            assert words[0] == "knowgen", words
            code = run(words[1:])
            output = capsys.readouterr()
            assert code == 0, (words, output.out, output.err)
            if words[1] == "list":
                assert installed and f"{installed[-1]} " in output.out, "what was installed is listed"
            if words[1] == "check":
                assert re.search(r"\b0 failed\n", output.out), output.out
    assert installed, "the guide shows how to install a package"


@pytest.mark.parametrize("guide", PLUGIN_GUIDES)
def test_the_first_example_is_ten_lines(guide: str) -> None:
    code = [line for line in files_of(guide)[FIRST[guide]].splitlines() if line.strip()]
    assert len(code) <= 10


@pytest.mark.parametrize("guide", PLUGIN_GUIDES)
def test_commands_in_the_text_exist(guide: str) -> None:
    text = (GUIDES / guide).read_text(encoding="utf-8")
    inline = [words.split() for words in re.findall(r"`(knowgen [^`]+)`", text)]
    for words in [*inline, *(words for words in commands_of(guide) if words[0] == "knowgen")]:
        if words[1] == "new" and len(words) == 2:
            continue
        assert words[1] in VERBS, words
        command = cli.get_command(click.Context(cli), words[1])
        assert command is not None, words
        options = {name for each in command.params for name in each.opts}
        assert {word.strip("[]") for word in words if re.match(r"\[?-", word)} <= options, words


def imported(source: str) -> list[tuple[str, str]]:
    """Return what a source imports of knowgen, as module and name."""
    imports: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "knowgen":
            imports += [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            imports += [("", alias.name) for alias in node.names if alias.name.split(".")[0] == "knowgen"]
    return imports


def test_guides_and_templates_import_from_the_plugin_module_only() -> None:
    sources = [code for guide in PLUGIN_GUIDES for name, code in files_of(guide).items() if name.endswith(".py")]
    sources += [template.read_text(encoding="utf-8").replace("$", "") for template in TEMPLATES]
    names = [pair for source in sources for pair in imported(source)]
    assert len(TEMPLATES) == 9 and len(names) > 20
    for module, name in names:
        assert (module == "knowgen.plugin" and name in plugin.__all__) or (module, name) == ("", "knowgen"), name


def test_the_plugin_module_exports_what_it_imports_and_loads_nothing_heavy() -> None:
    tree = ast.parse(Path(plugin.__file__).read_text(encoding="utf-8"))
    imports = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert imports == set(plugin.__all__) and len(plugin.__all__) == len(imports)
    heavy = "torch", "numpy", "pandas", "PIL", "yaml", "aiohttp", "click", "datasets"
    code = f"import sys, knowgen.plugin; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "name",
    [
        "BatchGenerator", "GenerationRequest", "Usage", "paid_call", "load_search", "GPU_FAULT_CODE", "Sample",
        "GroundTruth", "Generation", "Score", "Attempt", "ok_score", "failed_score", "not_applicable_score",
        "missing_needs", "NEEDS", "DIMENSIONS", "InMemoryTask", "FolderTask", "Task", "ImageRef", "image_ref",
        "group_of", "Hit", "ImageHit", "Page", "Link", "SearchBackend", "AsyncScorer", "BatchScorer",
        "UnscorableError", "ConfigError", "DataError", "UsageError", "MissingDependencyError",
        GeneratedImage.__name__, plugin.SimpleGenerator.__name__, ParsedScore.__name__, plugin.TransientError.__name__,
        plugin.RefusalError.__name__,
    ],
)  # fmt: skip
def test_exports_for_authors_are_complete_and_described(name: str) -> None:
    assert name in plugin.__all__ and hasattr(plugin, name)


OUTSIDE = ("sharpness.py", "notes.py")
PYPROJECT = """
[project]
name = "outside"
version = "2.5"

[project.entry-points."knowgen.scorers"]
sharpness = "sharpness:sharpness"

[project.entry-points."knowgen.search"]
notes = "notes:NoteSearch"
"""


def test_an_outside_package_adds_a_scorer_and_a_search_backend(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the first examples of the guides: both are listed, and named in the run record and in the report."""
    write(folder, {name: files_of(guide)[name] for guide, name in FIRST.items() if name in OUTSIDE})
    (folder / "pyproject.toml").write_text(PYPROJECT)
    install(folder, folder / "site", monkeypatch)
    for kind, line in (("scorers", "sharpness"), ("search", "notes")):
        assert run(["list", kind]) == 0
        assert re.search(rf"^{line} .*outside 2\.5$", capsys.readouterr().out, re.MULTILINE)
    words = ["--task", "knowgen_mini", "--generator", "open_book", "-g", "search=notes", "--scorer", "sharpness"]
    assert run(["run", *words, "--limit", "4", "--out", "out"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"overall +sharpness +n", table) and "scorer sharpness outside 2.5" in table
    record = json.loads((folder / "out" / "run.json").read_text())["spec"]
    assert re.fullmatch(r"notes@outside 2\.5 source [0-9a-f]{12}", record["agent"]["search"])
    (scorer,) = record["scorers"]
    assert (scorer["name"], scorer["dimensions"]) == ("sharpness", ["sharpness"])
    assert re.fullmatch(r"outside 2\.5 source [0-9a-f]{12}", scorer["version"]), "it is edited in place"
    page = (folder / "out" / "report" / "index.html").read_text(encoding="utf-8")
    assert "notes@outside 2.5" in page and "Sharpness" in page
    summary = json.loads((folder / "out" / "summary.json").read_text())["summaries"][0]
    whole = next(part for part in summary["slices"] if part["kind"] == "all")["figures"]
    assert 0.0 < whole["sharpness"]["value"] < 1.0 and whole["overall"]["value"] == whole["sharpness"]["value"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class NoteSearch:\n    async def search(self, query, k=5): ...\n", "image_search() is missing"),
        ("class NoteSearch:\n    def search(self, query, k=5): ...\n", "search() is not `async def`"),
    ],
)
def test_a_search_backend_that_lacks_a_method_is_refused_before_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str], code: str, message: str
) -> None:
    (folder / "broken.py").write_text(code)
    words = ["--task", "knowgen_mini", "--generator", "open_book", "-g", "search=broken.py:NoteSearch"]
    assert run(["run", *words, "--limit", "1", "--out", "out"]) == 2
    assert message in capsys.readouterr().err and not (folder / "out").exists()


def test_an_edited_search_backend_is_another_one(folder: Path) -> None:
    from knowgen.tasks.load import load_task
    from knowgen.workflows.agents import resolve_system

    task = load_task("knowgen_mini")
    names = []
    for number in range(2):
        (folder / f"notes{number}.py").write_text(files_of("search.md")["notes.py"] + f"# {number}\n")
        system = resolve_system("open_book", {"search": f"notes{number}.py:NoteSearch"}, task)
        names.append((system.agent or system.generator).spec.search.partition("@"))
    assert [name for name, _, _ in names] == ["notes0.py:NoteSearch", "notes1.py:NoteSearch"]
    assert len({version for _, _, version in names}) == 2
