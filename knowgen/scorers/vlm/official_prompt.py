"""The official judge's prompt, read at run time from the published evaluator; see `knowgen.clients.official_source`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from knowgen.clients.official_source import COMMIT, official_file
from knowgen.core.errors import DataError

JUDGE_FILE = "KnowGen_Eval/gpt_eval_knowgen.py"

HASHES = {
    "SYSTEM_PROMPT": "a1ce69f81b02e7017b6176df624f93af69216a69de538919010ec35cdfd5d918",
    "_build_user_message": "41576798fe49eed24322ac0a4a6ab5a05e25a369c8f506a4359128ed47a945db",
}
"""SHA-256 of the system prompt, and of the user text with its fields as `{sample_id}` and `{prompt}`, in UTF-8."""


@dataclass(frozen=True)
class OfficialPrompt:
    """The texts of the official call.

    Attributes:
        system: System message.
        user: Text of the user message in pieces: literal text, and field names in braces.
    """

    system: str
    user: tuple[str, ...]

    def user_text(self, sample_id: str, prompt: str) -> str:
        """Return the text of the user message, which goes before the two images."""
        fields = {"{sample_id}": sample_id, "{prompt}": prompt}
        return "".join(fields.get(piece, piece) for piece in self.user)


@cache
def official_call(upstream_dir: str) -> OfficialPrompt:
    """Return the official prompt.

    Args:
        upstream_dir: Checkout of the published repository; empty to fetch the file.

    Raises:
        ConfigError: The file cannot be read or fetched.
        DataError: It is not the file of the pinned commit.
    """
    file = official_file(
        JUDGE_FILE,
        upstream_dir,
        "the official rubric",
        "name a local checkout of the repository with --upstream-dir DIR",
    )
    system = file.checked(file.literal("SYSTEM_PROMPT"), "SYSTEM_PROMPT", HASHES["SYSTEM_PROMPT"])
    texts = file.f_strings_in("_build_user_message", "text", ("sample_id", "prompt"))
    if not texts:
        raise DataError("_build_user_message assigns no f-string to text", where=file.where)
    file.checked("".join(texts[0]), "_build_user_message", HASHES["_build_user_message"])
    return OfficialPrompt(system, texts[0])


__all__ = ["COMMIT", "HASHES", "JUDGE_FILE", "OfficialPrompt", "official_call"]
