"""The texts that are sent to a policy: the own ones with their version, and the official ones, read at run time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from knowgen.agents.gen_searcher import GenSearcher
from knowgen.agents.prompts import official_texts
from knowgen.agents.prompts.texts import OWN_FILE, OWN_VERSION, agent_texts
from knowgen.agents.tools.load import load_tools
from knowgen.core.errors import ConfigError, KnowgenError, UsageError
from knowgen.core.records import GenerationRequest
from tests.helpers.search_agents import FakeSearch, ScriptedPolicy, answer, call
from tests.helpers.virtual_time import run

OWN_HASHES = {"knowgen-agent-1": "f31715ed67310d0d8651e5506d335496fe67240e95adbff72b75fc7590e7aad6"}
"""SHA-256 of `own.yaml` under each version."""

SYSTEM, FINAL, TOO_LONG, INVALID = "Official system prompt. \n ", "LAST: answer", "TOO LONG\nagain", "INVALID {x}"
PARTS = "In parts.\n"


def checkout(folder: Path, change: Any = lambda text: text) -> Path:
    """Write a checkout in the layout of the published one, with other texts."""
    agent = (
        f"SYSTEM_PROMPT_GEN_IMAGE = {SYSTEM!r}\n"
        f"FINAL_MESSAGE = {f'{chr(10)}{FINAL}{chr(10)}'!r}.strip()\n"
        "class Agent:\n"
        "    async def run(self, question):\n"
        "        if cut:\n"
        f"            observation = ({TOO_LONG[:4]!r}\n                {TOO_LONG[4:]!r})\n"
        "        else:\n"
        f"            observation = {INVALID!r}\n"
        "raise RuntimeError('must not be run')\n"
    )
    tools = (
        "def _browse_sync(url, query):\n"
        "    output = None\n"
        f"    output = {PARTS!r}\n"
        '    prompt_i = f"-- {source_text_i} --\\n{browse_query}"\n'
        '    prompt = f"- {source_text} -\\n{browse_query}?"\n'
        '    prompt = f"- {source_text} -\\n{browse_query}?"\n'
    )
    for name, text in ((official_texts.AGENT_FILE, agent), (official_texts.TOOLS_FILE, tools)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(change(text))
    return folder


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the texts of `checkout` be those of the pinned commit."""
    texts = (SYSTEM, FINAL, TOO_LONG, INVALID, "- {content} -\n{query}?", "-- {content} --\n{query}", PARTS)
    names = list(official_texts.HASHES)
    assert len(names) == len(texts)
    found = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in zip(names, texts, strict=True)}
    monkeypatch.setattr(official_texts, "HASHES", found)
    official_texts.official_agent_texts.cache_clear()


def test_the_own_texts_have_a_version_that_changes_with_them() -> None:
    assert hashlib.sha256(OWN_FILE.read_bytes()).hexdigest() == OWN_HASHES[OWN_VERSION], "increment OWN_VERSION"


def test_the_own_system_prompt_lists_the_tools_and_ends_where_the_date_follows() -> None:
    tools = load_tools("search,browse")
    texts = agent_texts("own", tools, calls=5)
    assert "You have 5 tool calls in all," in texts.system
    listed = [json.loads(line) for line in texts.system.splitlines() if '"description"' in line]
    assert listed == [
        {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)} for tool in tools
    ]
    assert texts.system.endswith("Today's date: ") and not texts.official
    assert "{tools}" not in texts.system and "{calls}" not in texts.system
    assert "There are none" in agent_texts("own", [], calls=0).system


def test_what_is_filled_in_is_not_searched_for_fields() -> None:
    texts = agent_texts("own", [], calls=8)
    asked = texts.summary("page with {query} and {content}", "what is {content}")
    assert "page with {query} and {content}\n" in asked and "Question: what is {content}\n" in asked


def test_the_official_texts_are_sent_word_for_word(tmp_path: Path, hashes: None) -> None:
    folder = checkout(tmp_path)
    policy = ScriptedPolicy(["words", call("browse", {"url": "http://no"}), *["a", "b"] * 3, "c", answer()])
    agent = GenSearcher(policy, FakeSearch(), prompt="upstream", upstream_dir=str(folder))
    result = run(agent.answer(GenerationRequest(id="r", prompt="Draw.")))
    conversation = policy.asked[-1]
    assert (
        conversation[0].text[:-10] == SYSTEM and conversation[0].text[-10:].count("-") == 2
    )  # the date follows at once
    assert conversation[3].text == INVALID and conversation[-1].text == FINAL
    assert result.ending == "answer"
    texts = agent_texts("upstream", [], calls=8, upstream_dir=str(folder))
    assert texts.summary("{query}", "what") == "- {query} -\nwhat?" and texts.summary_part("a", "b") == "-- a --\nb"
    assert (texts.too_long, texts.parts, texts.version) == (TOO_LONG, PARTS, "upstream e5078d31859b")


def test_with_the_official_texts_every_round_may_call_a_tool(tmp_path: Path, hashes: None) -> None:
    calls = [call("search", {"queries": [f"q{number}"]}) for number in range(9)]
    for prompt, made in (("upstream", 9), ("own", 8)):
        search = FakeSearch()
        settings: dict[str, Any] = {"prompt": prompt, "upstream_dir": str(checkout(tmp_path))}
        run(GenSearcher(ScriptedPolicy([*calls, answer()]), search, **settings).run("Draw."))
        assert len(search.calls) == made


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("Official", "Other"), "SYSTEM_PROMPT_GEN_IMAGE is not that of commit e5078d31859b"),
        (lambda text: text.replace("LAST", "NEXT"), "FINAL_MESSAGE is not that of commit"),
        (lambda text: text.replace("INVALID", "WRONG"), "observation of an invalid reply is not that of commit"),
        (lambda text: text.replace(".strip()", ".title()"), "assigns no string to FINAL_MESSAGE"),
        (lambda text: text.replace("observation = 'INV", "other = 'INV"), "does not assign two strings to observation"),
        (lambda text: text.replace("In parts", "Parts"), "output of _browse_sync is not that of commit"),
        (lambda text: text.replace("{source_text}", "{url}"), "contains more fields than source_text and browse_query"),
        (lambda text: text.replace("prompt_i = f", "other = f"), "_browse_sync assigns no f-string to prompt_i"),
        (lambda text: text + "\ndef (", "not a Python file"),
    ],
)
def test_a_file_other_than_the_pinned_one_is_refused(tmp_path: Path, hashes: None, change: Any, words: str) -> None:
    with pytest.raises(KnowgenError, match=words):
        agent_texts("upstream", [], calls=8, upstream_dir=str(checkout(tmp_path, change)))


def test_a_checkout_without_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        agent_texts("upstream", [], calls=8, upstream_dir=str(tmp_path))
    assert str(tmp_path) in str(caught.value) and "name a checkout of" in str(caught.value)


def test_without_a_network_the_option_that_helps_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knowgen.clients.official_source.RAW_URL", "http://127.0.0.1:1")
    official_texts.official_agent_texts.cache_clear()
    with pytest.raises(ConfigError, match="the official agent's texts cannot be fetched") as caught:
        agent_texts("upstream", [], calls=8)
    assert "-g upstream_dir=DIR" in str(caught.value)


def test_other_texts_are_unknown() -> None:
    with pytest.raises(UsageError, match="prompt must be own, short, upstream or a YAML file, got 'mine'"):
        agent_texts("mine", [], calls=8)


def test_a_file_replaces_the_texts_that_it_has(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("system: 'Search with {calls} calls of {tools} on '\n", encoding="utf-8")
    texts, own = agent_texts(str(file), load_tools("image_search"), calls=3), agent_texts("own", [], calls=3)
    assert texts.system.startswith("Search with 3 calls of {") and texts.system.endswith(" on ")
    assert texts.final == own.final and texts.summary("p", "q") == own.summary("p", "q")


def test_texts_of_a_file_are_known_by_their_content(tmp_path: Path) -> None:
    one, same, other = (tmp_path / f"{name}.yaml" for name in ("one", "same", "other"))
    one.write_text("final: Now.\n", encoding="utf-8")
    same.write_text("final: Now.\n", encoding="utf-8")
    other.write_text("final: Soon.\n", encoding="utf-8")
    versions = [agent_texts(str(file), [], calls=8).version for file in (one, same, other)]
    assert versions[0] == versions[1] != versions[2]
    assert OWN_VERSION not in versions
    keys = [GenSearcher.weights_identity(prompt=str(file), rounds=2) for file in (one, same, other)]
    assert keys == versions and GenSearcher.weights_identity() == ""


def test_short_texts_are_short() -> None:
    assert len(agent_texts("short", [], calls=2).system) < 60


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sytem: Search.\n", "unknown key 'sytem'"),
        ("final: 3\n", "final must be a text"),
        ("- system\n", "is not a mapping of texts"),
        ("summary: 'Answer {query} from {content}'\n", "summary lacks"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        agent_texts(str(file), [], calls=8)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: the file of texts"):
        agent_texts(str(tmp_path / "gone.yaml"), [], calls=8)
