"""The texts of an agent and their version.

They are named `own`, `short` (a few words, for small models), `upstream` (the official ones), or by a YAML file with
any of the keys of `own.yaml`. What a file leaves out is as in the own texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from knowgen.agents.prompts.official_texts import official_agent_texts
from knowgen.agents.tools.contract import Tool
from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.home import expand_user
from knowgen.core.yaml_files import read_yaml

OWN_VERSION = "knowgen-agent-1"
"""Version of the own texts. Increment it with any change: answers under different versions are never mixed."""

OWN_FILE = Path(__file__).with_name("own.yaml")
SHORT_FILE = Path(__file__).with_name("short.yaml")

_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class AgentTexts:
    """The texts of an agent.

    Attributes:
        version: Version of the texts, part of keys.
        system: System prompt, to which today's date is appended.
        final: Message before the last call.
        too_long: Correction after a reply that was cut.
        invalid: Correction after a reply without call and answer.
        summary: Returns the request to a summary model, from the text of a page and a question.
        summary_part: The same for a part of a page that is too long for one request.
        parts: What comes before the answers to the parts of a page.
        official: Whether they are the official texts.
    """

    version: str
    system: str
    final: str
    too_long: str
    invalid: str
    summary: Callable[[str, str], str]
    summary_part: Callable[[str, str], str]
    parts: str
    official: bool = False


def agent_texts(name: str, tools: Iterable[Tool], *, calls: int, upstream_dir: str = "") -> AgentTexts:
    """Return the texts of an agent.

    Args:
        name: `own`, `short`, the path of a YAML file, or `upstream` for the official texts.
        tools: Tools that the system prompt describes at `{tools}`. The official one describes its three tools itself.
        calls: Number of tool calls, for `{calls}` in the system prompt; the official one says 8.
        upstream_dir: Checkout of the published repository; empty to fetch its files.

    Raises:
        UsageError: There are no such texts.
        ConfigError: A file cannot be read, has a key that is none of a text, or a text lacks its fields.
        DataError: They are not those of the pinned commit.
    """
    if name == "upstream":
        official = official_agent_texts(upstream_dir)
        return AgentTexts(
            version=official.version,
            system=official.system,
            final=official.final,
            too_long=official.too_long,
            invalid=official.invalid,
            summary=official.summary.filled,
            summary_part=official.summary_part.filled,
            parts=official.parts,
            official=True,
        )
    texts = {**_own_texts(), **_file_texts(name)}
    listed = "\n".join(_description(tool) for tool in tools) or "There are none: answer at once."
    system = texts["system"].replace("{calls}", str(calls)).replace("{tools}", listed)
    summary = _filler(texts["summary"])
    return AgentTexts(
        version=texts_version(name) or OWN_VERSION,
        system=system.rstrip("\n"),
        final=texts["final"],
        too_long=texts["too_long"],
        invalid=texts["invalid"],
        summary=summary,
        summary_part=summary,
        parts=texts["parts"],
    )


def texts_version(name: str) -> str:
    """Return the version of texts that come from a file, by its content; empty for the own and the official ones.

    Raises:
        UsageError: There are no such texts.
        ConfigError: The file cannot be read.
    """
    file = _file(name)
    if file is None:
        return ""
    try:
        return f"texts-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
    except OSError as error:
        fix = f"give the path of a file with any of the keys {', '.join(_own_texts())}"
        raise ConfigError(f"the file of texts cannot be read: {error.strerror}", where=str(file), fix=fix) from error


def _file(name: str) -> Path | None:
    """Return the file of texts; None for the own and the official ones."""
    if name in ("own", "upstream"):
        return None
    if name == "short":
        return SHORT_FILE
    if name.endswith(_SUFFIXES):
        return expand_user(name)
    what = f"prompt must be own, short, upstream or a YAML file, got {name!r}"
    raise UsageError(what, where="generator gen_searcher")


@cache
def _own_texts() -> dict[str, str]:
    texts: dict[str, str] = read_yaml(OWN_FILE).data
    return texts


def _file_texts(name: str) -> dict[str, str]:
    """Return the texts of a file, checked; none for the own ones."""
    file = _file(name)
    if file is None:
        return {}
    texts_version(name)  # raises if the file cannot be read
    texts = read_yaml(file).data
    if not isinstance(texts, dict):
        raise ConfigError("is not a mapping of texts", where=str(file), fix=f"write {next(iter(_own_texts()))}: …")
    for key, text in texts.items():
        if key not in _own_texts():
            raise ConfigError(f"unknown key {key!r}", where=str(file), fix=f"known are {', '.join(_own_texts())}")
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{key} must be a text", where=str(file), fix=f"leave {key} out for the own text")
    if "summary" in texts and not 0 <= texts["summary"].find("{content}") < texts["summary"].find("{query}"):
        raise ConfigError("summary lacks {content} and after it {query}", where=str(file), fix="add both fields")
    return texts


def _filler(template: str) -> Callable[[str, str], str]:
    """Return a function that fills a template; what it fills in is not searched for further fields."""
    before, _, rest = template.partition("{content}")
    between, _, after = rest.partition("{query}")
    return lambda content, query: f"{before}{content}{between}{query}{after}"


def _description(tool: Tool) -> str:
    described = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return json.dumps(described, ensure_ascii=False)
