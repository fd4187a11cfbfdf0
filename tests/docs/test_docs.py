"""The documentation is true: its code runs, its commands exist, its links lead somewhere.

Every fenced block of Python or shell runs in the folder of its page, in the order of the page, as a newcomer pastes it:
a shell block whole into bash, with this package's `knowgen` on the path. A first line `# NAME.py` names the file that a
Python block is. A block that cannot run here has a comment on the line before it: `<!-- not run: needs a key -->`; its
`knowgen` commands are parsed, and those that can only plan (`--dry-run`) do so, on stand-ins for data and keys.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from PIL import Image

from knowgen.cli.main import VERBS, cli, run
from knowgen.tasks.data_home import CURRENT_FILE, INDEX_FILE, INDEX_FORMAT
from knowgen.tasks.load import load_task
from tests.helpers.processes import python_environment, run_python
from tests.helpers.small_task import make_task

ROOT = Path(__file__).resolve().parents[2]
ROOT_PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "examples/README.md")
PAGES = sorted([*(ROOT / name for name in ROOT_PAGES), *(ROOT / "docs").rglob("*.md")])
GUIDES = [f"docs/guides/{name}.md" for name in ("generator", "scorer", "task", "search")]
"""Their blocks run in `tests/cli/test_guides.py`, with the servers and packages that they need."""

SHELL = {"sh", "shell", "bash", "console"}
OUTPUT = {"text", "yaml", "json", "toml", "html", "mermaid"}
COMMANDS = ("knowgen ", "make ", "pip ", "python ")
"""A block without a language that starts with one of these is a shell block."""

FENCE = re.compile(r"(?P<before>[^\n]*\n)?^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (?P<why>.+) -->")
LINK = re.compile(r"\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language (python, shell or empty), its code, and why it does not run."""

    page: str
    line: int
    language: str
    code: str
    not_run: str = ""

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """Name of the file that a Python block is, empty when it has none."""
        match = re.match(r"# ([\w-]+\.py)\n", self.code)
        return match[1] if match and self.language == "python" else ""

    @property
    def commands(self) -> list[list[str]]:
        """Words of each command of a shell block."""
        lines = self.code.replace("\\\n", " ").splitlines()
        split = [shlex.split(line, comments=True) for line in lines]
        return [words for words in split if words]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in FENCE.finditer(text):
        language, code = match["language"], match["code"]
        if language in SHELL or (not language and code.startswith(COMMANDS)):
            language = "shell"
        mark = NOT_RUN.fullmatch((match["before"] or "").strip())
        line = text.count("\n", 0, match.start("code"))
        blocks.append(Block(str(page.relative_to(ROOT)), line, language, code, mark["why"] if mark else ""))
    return blocks


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
CODE = [block for block in BLOCKS if block.language in {"python", "shell"}]
RUNNABLE = sorted({block.page for block in CODE if not block.not_run} - set(GUIDES))


def make_environment(folder: Path) -> Path:
    """Write the programs `python` and `knowgen` of this checkout into a folder, as an installation would."""
    folder.mkdir(parents=True)
    python, program = folder / "python", folder / "knowgen"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    lines = ["import sys", f"sys.executable = {str(python)!r}", "from knowgen.cli.main import main", "main()"]
    program.write_text("\n".join([f"#!{sys.executable}", *lines, ""]))
    for script in (python, program):
        script.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def shell_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a search path on which `knowgen` and `python` are those of this checkout."""
    return os.pathsep.join([str(make_environment(tmp_path_factory.mktemp("home") / "bin")), os.environ["PATH"]])


def paste(code: str, folder: Path, path: str) -> str:
    """Paste a block into bash in a folder and return what it prints; every command must succeed."""
    environment = python_environment(PATH=path)
    command = ["bash", "-e", "-u", "-o", "pipefail", "-c", code]
    done = subprocess.run(
        command, cwd=folder, env=environment, timeout=600, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def parse(words: list[str]) -> str:
    """Parse a `knowgen` command and return its name.

    Raises:
        click.UsageError: The command or an option is unknown, or an argument is missing.
    """
    command: click.Command | None = cli
    name: str | None = "knowgen"
    rest = words[1:]
    while isinstance(command, click.Group) and rest:
        if rest[0] in {"--help", "-h", "--version"}:
            break
        name, command, rest = command.resolve_command(click.Context(command), rest)
    assert command is not None and name is not None
    if not {"--help", "-h", "--version"} & set(rest):
        command.make_context(name, rest)
    return name


def test_the_files_of_a_run_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("in fifteen files")[2].partition("\n## ")[0]
    named = re.findall(r"^\d+\. `([\w/]+\.py)`", section, re.MULTILINE)
    assert len(named) == 15
    assert [name for name in named if not (ROOT / "knowgen" / name).is_file()] == []


def test_every_page_has_blocks() -> None:
    assert {"README.md", "docs/index.md", "docs/knowgen.md"} <= {block.page for block in CODE}
    assert {block.language for block in BLOCKS} <= {"python", "shell", "", *OUTPUT}


@pytest.mark.parametrize(
    "block", [block for block in CODE if block.language == "python"], ids=lambda block: block.where
)
def test_python_blocks_compile(block: Block) -> None:
    assert compile(block.code, block.where, "exec").co_filename == block.where


@pytest.mark.parametrize("block", [block for block in CODE if block.language == "shell"], ids=lambda block: block.where)
def test_commands_of_the_pages_exist_with_their_options(block: Block) -> None:
    for words in block.commands:
        assert words[0] != "knowgen" or parse(words)


def test_a_wrong_option_is_detected() -> None:
    with pytest.raises(click.UsageError, match="colour"):
        parse(["knowgen", "report", "reports/a", "-o", "x", "--colour"])
    with pytest.raises(click.UsageError, match="reprot"):
        parse(["knowgen", "reprot"])


def run_page(page: str, folder: Path, path: str) -> list[str]:
    """Run the blocks of a page in order and return what they print."""
    printed = []
    if page == "examples/README.md":
        (folder / "examples").symlink_to(ROOT / "examples")
    for number, block in enumerate(each for each in CODE if each.page == page and not each.not_run):
        if block.language == "shell":
            printed.append(paste(block.code, folder, path))
        else:
            file = block.file or f"block_{number}.py"
            (folder / file).write_text(block.code, encoding="utf-8")
            printed.append(paste(f"python {file}", folder, path))
    return printed


def test_the_blocks_of_the_readme_run_and_its_example_passes_its_check(tmp_path: Path, shell_path: str) -> None:
    printed = "".join(run_page("README.md", tmp_path, shell_path))
    assert ", 0 warnings, 0 failed\n" in printed
    assert "\nrescore  knowgen score reports/mine " in printed, "a line that works when it is pasted"


def test_printed_command_lines_work_where_the_program_is_not_on_the_path(tmp_path: Path) -> None:
    """As after `make demo`: the environment is in the folder and not on the path."""
    make_environment(tmp_path / ".venv" / "bin")
    words = "run --task knowgen_mini --generator noise --scorer pixels --limit 1 --out out"
    printed = paste(f".venv/bin/knowgen {words}", tmp_path, "/usr/bin:/bin")
    lines = [line.partition("  ")[2].strip() for line in printed.splitlines() if line.startswith(("resume", "rescore"))]
    assert len(lines) == 2 and all(line.startswith(".venv/bin/knowgen ") for line in lines)
    for line in lines:
        assert "noise" in paste(line, tmp_path, "/usr/bin:/bin")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUNNABLE if page != "README.md"])
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path, shell_path: str) -> None:
    assert run_page(page, tmp_path, shell_path)


PLANS = {"run", "score", "judge-check", "suite"}
"""Commands with `--dry-run`."""
PLANNED = [
    (block, words)
    for block in CODE
    if block.not_run and block.language == "shell"
    for words in block.commands
    if words[0] == "knowgen" and words[1] in PLANS and not any("hf:" in word for word in words)
]


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder with what the marked blocks need: prepared data, keys, a model, images, a suite."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KNOWGEN_DATA", str(tmp_path / "data"))
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "SERPER_API_KEY", "BRAVE_SEARCH_API_KEY"):
        monkeypatch.setenv(name, "sk-" + "standin" * 4)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for number, value in (("ID", "3"), ("COUNT", "8")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{number}", value)
    mini = ROOT / "tasks" / "knowgen_mini"
    prepared = tmp_path / "data" / "knowgen" / "local-1"
    shutil.copytree(mini, prepared, symlinks=True)
    write_json(prepared.parent / CURRENT_FILE, {"folder": prepared.name})
    write_json(prepared / INDEX_FILE, {"format": INDEX_FORMAT, "name": "knowgen", "commit": "local-1", "rows": 48})
    model = next(block for block in CODE if block.page == "README.md" and block.file == "my_model.py")
    (tmp_path / "my_model.py").write_text(model.code)
    suite = next(block for block in BLOCKS if block.page == "docs/guides/suite.md" and block.language == "yaml")
    (tmp_path / "mine.yaml").write_text(suite.code)
    make_task(tmp_path / "worlds" / "seven", [f"prompt {number}" for number in range(48)])
    (tmp_path / "spring").mkdir()
    for name in ("public", "world"):
        (tmp_path / "spring" / name).symlink_to(mini)
    sample = next(load_task("knowgen_mini").samples())
    (tmp_path / "my_images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "my_images" / f"{sample.id}.png")
    image = f"my_images/{sample.id}.png"
    row = {
        "id": 1,
        "success": True,
        "prompt": "x",
        "output_path": image,
        "gt_image": image,
        "meta": {"category": "art"},
    }
    write_json(tmp_path / "results.json", [row])
    return tmp_path


@pytest.mark.parametrize(("block", "words"), PLANNED, ids=lambda each: each.where if isinstance(each, Block) else None)
def test_a_block_that_needs_keys_or_data_plans_its_work_on_stand_ins(
    block: Block, words: list[str], stand_ins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expanded = [os.path.expandvars(word) for word in words[1:]]
    code = run([*expanded, *([] if "--dry-run" in expanded else ["--dry-run"])])
    output = capsys.readouterr()
    assert code == 0, f"{block.where}: {shlex.join(words)}\n{output.out}{output.err}"
    assert "task       " in output.out and "images     " in output.out


def test_placeholders_of_shell_blocks_look_like_placeholders() -> None:
    """A word in capitals is a variable that is set or has a `$`, or it would be pasted as it is."""
    for block in CODE:
        if block.language == "shell":
            plain = re.sub(r"#.*|\$\{?\w+|\bkey_env=\w+|(?m:^\s*(?:export\s+)?[A-Z_]+=\S+)", "", block.code)
            assert re.findall(r"(?<![\w./-])[A-Z][A-Z_]+(?![\w./:-])", plain) == [], block.where


def anchors_of(page: Path) -> set[str]:
    """Anchors of a page's headings, as the site and GitHub make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower() for heading in headings]
    return {re.sub(r"[\s]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        # contributing.md and changelog.md of the site are copies of the files of the root
        root_file = ROOT / file.name.upper().replace(".MD", ".md")
        file = root_file if not file.exists() and file.parent == ROOT / "docs" and root_file.exists() else file
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors_of(file)):
            broken.append(target)
    assert broken == []


def test_the_site_lists_every_page() -> None:
    listed = set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert listed - {"contributing.md", "changelog.md"} == pages


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_has_every_command(tmp_path: Path) -> None:
    words = ["-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    environment = python_environment(NO_MKDOCS_2_WARNING="1")
    done = run_python(*words, cwd=ROOT, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "site" / "reference" / "cli.html").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f'id="knowgen-{verb}"' not in commands and f'id="{verb}"' not in commands] == []
    pages = "".join(each.read_text(encoding="utf-8") for each in (tmp_path / "site").rglob("*.html"))
    assert not re.findall(r'(?:src|href)="https?://[^"]+\.(?:css|js|woff2?)"', pages)


def command_names(words: list[str]) -> list[str]:
    """Return the names of a command and its groups at the start of a `knowgen` command line."""
    names: list[str] = []
    command: click.Command | None = cli
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), words[1 + len(names)])
        names += words[1 + len(names) : 2 + len(names)] if command is not None else []
    return names


@pytest.mark.parametrize("block", [block for block in CODE if block.language == "shell"], ids=lambda block: block.where)
def test_options_of_the_pages_are_shown_in_the_help(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    for words in block.commands:
        options = [word for word in words[1:] if re.fullmatch(r"--?[a-z][a-z-]*", word)]
        if words[0] != "knowgen" or not options or words[1].startswith("-"):
            continue
        assert run([*command_names(words), "--help"]) == 0
        shown = capsys.readouterr().out
        assert [option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", shown)] == []
