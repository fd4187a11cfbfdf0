"""The official call of the text reward, read at run time from the published training code.

See `knowgen.clients.official_source`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from knowgen.clients.official_source import COMMIT, official_file
from knowgen.core.errors import DataError

REWARD_FILE = "Gen-DeepResearch-RL/rllm/vision_deepresearch_async_workflow/gen_image_deepresearch_reward.py"

SYSTEM, USER = "TEXT_REWARD_SYSTEM_PROMPT", "_build_user_message_text_reward"

HASHES = {
    SYSTEM: "66d53e8b06c63cbc4669aefac49be77c447f821303cdaae2f424c7b48745541d",
    USER: "ea1b3bb32d0295a233e1a2060d7f05b6c02d30aa2a15515389dfbcf1f774ffde",
}
"""SHA-256 of the system prompt, and of the user text with its fields in braces, in UTF-8."""

FIELDS = ("sample_id", "task_prompt", "answer_content")

MAX_TOKENS = 8192
"""Maximum number of tokens of a reply in the official call."""

REFERENCE_KEYS = ("img_id", "title", "note", "page_url")


@dataclass(frozen=True)
class OfficialAnswerCall:
    """The texts of the official call.

    Attributes:
        system: System message.
        user: Text of the user message in pieces: literal text, and field names in braces.
    """

    system: str
    user: tuple[str, ...]

    def user_text(self, sample_id: str, task_prompt: str, answer: str) -> str:
        """Return the text of the user message, which goes before the ground truth."""
        fields = dict(zip((f"{{{name}}}" for name in FIELDS), (sample_id, task_prompt, answer), strict=True))
        return "".join(fields.get(piece, piece) for piece in self.user)


@cache
def official_answer_call(upstream_dir: str) -> OfficialAnswerCall:
    """Return the official texts.

    Args:
        upstream_dir: Checkout of the published repository; empty to fetch the file.

    Raises:
        ConfigError: The file cannot be read or fetched.
        DataError: It is not the file of the pinned commit.
    """
    fix = "name a local checkout of the repository as upstream_dir"
    file = official_file(REWARD_FILE, upstream_dir, "the official text reward", fix)
    system = file.checked(file.literal(SYSTEM), SYSTEM, HASHES[SYSTEM])
    texts = file.f_strings_in(USER, "text", FIELDS)
    if not texts:
        raise DataError(f"{USER} assigns no f-string to text", where=file.where)
    file.checked("".join(texts[0]), USER, HASHES[USER])
    return OfficialAnswerCall(system, texts[0])


def official_answer_text(prompt: str, references: Sequence[Mapping[str, Any]]) -> str:
    """Return an agent's answer as the official call writes it: two entries of JSON, without braces around them.

    Example:
        >>> print(official_answer_text("a crest", []))
        "gen_prompt": "a crest"
    """
    entries = {"gen_prompt": json.dumps(prompt, ensure_ascii=False)} if prompt else {}
    if references:
        listed = [{key: each.get(key) or "" for key in REFERENCE_KEYS} for each in references]
        entries["reference_images"] = json.dumps(listed, ensure_ascii=False, indent=2)
    return "\n".join(f'"{key}": {value}' for key, value in entries.items())


__all__ = ["COMMIT", "MAX_TOKENS", "OfficialAnswerCall", "official_answer_call", "official_answer_text"]
