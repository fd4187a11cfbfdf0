"""The official texts of the published agent, read at run time; see `knowgen.clients.official_source`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from knowgen.clients.official_source import COMMIT, OfficialFile, official_file
from knowgen.core.errors import DataError

_FOLDER = "Gen-DeepResearch-RL/rllm/vision_deepresearch_async_workflow"
AGENT_FILE = f"{_FOLDER}/gen_image_deepresearch_agent.py"
TOOLS_FILE = f"{_FOLDER}/tools/gen_web_tools.py"

HASHES = {
    "SYSTEM_PROMPT_GEN_IMAGE": "f6bb726969d483195b008342725fdf0c1bb636d95c2f6d523fe1a5a8feee51e8",
    "FINAL_MESSAGE": "fd256761a60b028429984c185e646fffa29980c96da39b6b540f70e0eebed2bf",
    "observation of a reply that was cut": "e3cfc12aae7ae0a0f8886175cd550b12f40aa2aed34cd2d0449092d09bfcdf2f",
    "observation of an invalid reply": "e69c3c5a9c18321fcd444976e44968598f317f222cc305ac62edd15bcb959d40",
    "prompt of _browse_sync": "cb334105d3e2928dbc4a6909e6688830ab22d860633e2b80a00b049bc1a44add",
    "prompt_i of _browse_sync": "76e718aac9839e45ea432420c1fa65f32bbcb131b6633edc49c6a5ab27e2b881",
    "output of _browse_sync": "eb1931d75aa4c36c39a8a582c2576b4a0606cb60b4cd7dd90f372da446efe2ae",
}
"""SHA-256 of each text in UTF-8. The prompts of `browse` have their fields as `{content}` and `{query}`."""


@dataclass(frozen=True)
class PageRequest:
    """An official request to the summary model.

    Attributes:
        pieces: Literal texts, and the names `{content}` and `{query}`.
    """

    pieces: tuple[str, ...]

    def filled(self, content: str, query: str) -> str:
        """Return the request for the text of a page and a question."""
        fields = {"{content}": content, "{query}": query}
        return "".join(fields.get(piece, piece) for piece in self.pieces)


@dataclass(frozen=True)
class OfficialAgentTexts:
    """The official texts.

    Attributes:
        version: The commit that they are from.
        system: System prompt, to which the date is appended.
        final: Message before the last call.
        too_long: Correction after a reply that was cut.
        invalid: Correction after a reply without call and answer.
        summary: Request to the summary model.
        summary_part: Request for a part of a page.
        parts: What comes before the answers to the parts of a page.
    """

    version: str
    system: str
    final: str
    too_long: str
    invalid: str
    summary: PageRequest
    summary_part: PageRequest
    parts: str


@cache
def official_agent_texts(upstream_dir: str) -> OfficialAgentTexts:
    """Return the official texts.

    Args:
        upstream_dir: Checkout of the published repository; empty to fetch its files.

    Raises:
        ConfigError: A file cannot be read or fetched.
        DataError: It is not the file of the pinned commit.
    """
    what, fix = "the official agent's texts", "name a local checkout of the repository with -g upstream_dir=DIR"
    agent = official_file(AGENT_FILE, upstream_dir, what, fix)
    corrections = agent.literals_in("run", "observation")
    if len(corrections) != 2:
        raise DataError("run() does not assign two strings to observation", where=agent.where)
    tools = official_file(TOOLS_FILE, upstream_dir, what, fix)
    return OfficialAgentTexts(
        version=f"upstream {COMMIT[:12]}",
        system=_checked(agent, agent.literal("SYSTEM_PROMPT_GEN_IMAGE"), "SYSTEM_PROMPT_GEN_IMAGE"),
        final=_checked(agent, agent.literal("FINAL_MESSAGE"), "FINAL_MESSAGE"),
        too_long=_checked(agent, corrections[0], "observation of a reply that was cut"),
        invalid=_checked(agent, corrections[1], "observation of an invalid reply"),
        summary=_request(tools, "prompt", "source_text"),
        summary_part=_request(tools, "prompt_i", "source_text_i"),
        parts=_introduction(tools),
    )


def _checked(file: OfficialFile, text: str, name: str) -> str:
    return file.checked(text, name, HASHES[name])


def _request(file: OfficialFile, name: str, content: str) -> PageRequest:
    """Return the f-string that `_browse_sync` assigns to a name; where it does so twice, both are the same."""
    texts = file.f_strings_in("_browse_sync", name, (content, "browse_query"))
    if not texts:
        raise DataError(f"_browse_sync assigns no f-string to {name}", where=file.where)
    fields = {"{" + content + "}": "{content}", "{browse_query}": "{query}"}
    pieces = tuple(fields.get(piece, piece) for piece in texts[0])
    _checked(file, "".join(pieces), f"{name} of _browse_sync")
    return PageRequest(pieces)


def _introduction(file: OfficialFile) -> str:
    texts = file.literals_in("_browse_sync", "output")
    if not texts:
        raise DataError("_browse_sync assigns no string to output", where=file.where)
    return _checked(file, texts[0], "output of _browse_sync")
