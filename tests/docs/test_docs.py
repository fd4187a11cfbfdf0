"""The documentation is true: its code runs, its commands exist, its links lead somewhere.

Every fenced block of Python or shell runs in the folder of its page, in the order of the page. A first line `# NAME.py`
names the file that a Python block is. A block that cannot run here has a comment on the line before it:
`<!-- not run: needs a key -->`; its `knowgen` commands are parsed, not run.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from knowgen.cli.main import VERBS, cli
from tests.helpers.processes import python_environment, run_python

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


def run_words(words: list[str], folder: Path) -> int:
    """Run a command in a folder with this checkout's package and return its exit code, which must be 0."""
    programs = {"knowgen": ["-m", "knowgen"], "python": []}
    assert words[0] in programs, f"{words[0]} does not run in the tests; mark the block"
    done = run_python(*programs[words[0]], *words[1:], cwd=folder, timeout=600, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.returncode


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


def run_page(page: str, folder: Path) -> list[int]:
    """Run the blocks of a page in order and return the exit codes of their commands."""
    codes = []
    if page == "examples/README.md":
        (folder / "examples").symlink_to(ROOT / "examples")
    for number, block in enumerate(each for each in CODE if each.page == page and not each.not_run):
        if block.language == "shell":
            for words in block.commands:
                codes.append(run_words(words, folder))
        else:
            file = block.file or f"block_{number}.py"
            (folder / file).write_text(block.code, encoding="utf-8")
            codes.append(run_words(["python", file], folder))
    return codes


def test_the_blocks_of_the_readme_run(tmp_path: Path) -> None:
    codes = run_page("README.md", tmp_path)
    assert codes and not any(codes)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUNNABLE if page != "README.md"])
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path) -> None:
    codes = run_page(page, tmp_path)
    assert codes and not any(codes)


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
