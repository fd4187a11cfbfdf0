"""The texts of an agent and their version."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from knowgen.agents.prompts.official_texts import official_agent_texts
from knowgen.agents.tools.contract import Tool
from knowgen.core.errors import UsageError
from knowgen.core.yaml_files import read_yaml

PromptName = Literal["own", "upstream"]

OWN_VERSION = "knowgen-agent-1"
"""Version of the own texts. Increment it with any change: answers under different versions are never mixed."""

OWN_FILE = Path(__file__).with_name("own.yaml")


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
        name: `own`, or `upstream` for the official texts.
        tools: Tools that the own system prompt describes. The official one describes its three tools itself.
        calls: Number of tool calls that the own system prompt allows; the official one says 8.
        upstream_dir: Checkout of the published repository; empty to fetch its files.

    Raises:
        UsageError: There are no such texts.
        ConfigError: The official files cannot be read or fetched.
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
    if name != "own":
        raise UsageError(f"prompt must be own or upstream, got {name!r}", where="generator gen_searcher")
    texts = _own_texts()
    listed = "\n".join(_description(tool) for tool in tools) or "There are none: answer at once."
    system = texts["system"].replace("{calls}", str(calls)).replace("{tools}", listed)
    summary = _filler(texts["summary"])
    return AgentTexts(
        version=OWN_VERSION,
        system=system.rstrip("\n"),
        final=texts["final"],
        too_long=texts["too_long"],
        invalid=texts["invalid"],
        summary=summary,
        summary_part=summary,
        parts=texts["parts"],
    )


@cache
def _own_texts() -> dict[str, str]:
    texts: dict[str, str] = read_yaml(OWN_FILE).data
    return texts


def _filler(template: str) -> Callable[[str, str], str]:
    """Return a function that fills a template; what it fills in is not searched for further fields."""
    before, _, rest = template.partition("{content}")
    between, _, after = rest.partition("{query}")
    return lambda content, query: f"{before}{content}{between}{query}{after}"


def _description(tool: Tool) -> str:
    described = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return json.dumps(described, ensure_ascii=False)
