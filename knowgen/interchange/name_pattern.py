"""Patterns of file names in a folder of images, for `--pattern`.

    {id}      the id of a sample; must be there, once
    {repeat}  the number of the repeat, from 0; at most once
    *         any text without a slash, also none

Everything else stands for itself. A pattern is compared with the path from the folder, such as `run/images/s1.png`. An
extension may be left out: `{id}_seed*` means every image extension.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from knowgen.core.errors import UsageError
from knowgen.core.sample_ids import comparable_id
from knowgen.interchange.recorded_images import IMAGE_EXTENSIONS, name_key

_TOKEN = re.compile(r"\{repeat\}|[^{]+", re.DOTALL)
_REPEAT = r"(?P<repeat>[0-9]{1,6})"


class NamePattern:
    """A pattern of `--pattern`.

    Args:
        text: The pattern.

    Raises:
        UsageError: It has no `{id}` or several, several `{repeat}`, or another brace.

    Example:
        >>> pattern = NamePattern("{id}_seed*.png")
        >>> pattern.match("s1_seed42.png", {"s1": "s1"})
        ('s1', 0)
    """

    def __init__(self, text: str) -> None:
        self.text = text
        before, found, after = text.removeprefix("./").partition("{id}")
        braces = text.replace("{id}", "", 1).replace("{repeat}", "", 1)
        if not found or "{" in braces or "}" in braces:
            raise UsageError(
                f"--pattern {text!r} must have {{id}} once, and {{repeat}} at most once",
                fix="write for example '{id}_seed*.png' or 'images/{id}_{repeat}.png'",
            )
        after = name_key(after)
        self._any_extension = PurePosixPath(f"x{after}").suffix not in IMAGE_EXTENSIONS and not after.endswith(".*")
        self._before, self._after = _compiled(comparable_id(before)), _compiled(after)

    def match(self, relative: str, ids: Mapping[str, str]) -> tuple[str, int] | None:
        """Return sample id and repeat of a file; None if the pattern does not match.

        Where several ids fit, the longest is meant.

        Args:
            relative: Path from the folder, with slashes.
            ids: Ids of the samples by their comparable form.
        """
        text = name_key(relative)
        text = text.rpartition(".")[0] if self._any_extension else text
        starts = {at: found for at in range(len(text)) if (found := self._before.fullmatch(text, 0, at))}
        ends = {at: found for at in range(1, len(text) + 1) if (found := self._after.fullmatch(text, at))}
        fitting = [(end - start, start, end) for start in starts for end in ends if text[start:end] in ids]
        if not fitting:
            return None
        _, start, end = max(fitting)
        repeat = (starts[start].groupdict() | ends[end].groupdict()).get("repeat")
        return ids[text[start:end]], int(repeat or 0)


def _compiled(text: str) -> re.Pattern[str]:
    """Return the expression of one side of a pattern.

    What follows a star is matched at its first place, except for the last star, so that matching takes linear time.
    """
    first, *others = (
        "".join(_REPEAT if token == "{repeat}" else re.escape(token) for token in _TOKEN.findall(fixed))
        for fixed in re.split(r"\*+", text)
    )
    for fixed in others[:-1]:
        first += f"(?>[^/]*?{fixed})"
    return re.compile(first + (f"[^/]*{others[-1]}" if others else ""), re.DOTALL)


def suggest(files: Iterable[str], ids: Mapping[str, str]) -> str:
    """Return a pattern that fits some of the files; empty if none was found.

    Args:
        files: Paths from the folder.
        ids: Ids of the samples by their comparable form.
    """
    for relative in files:
        stem = name_key(relative).rpartition(".")[0]
        words = re.split(r"([^0-9A-Za-z])", stem) if stem.isascii() else [stem]
        for length in range(len(words), 0, -1):
            for start in range(len(words) - length + 1):
                if "".join(words[start : start + length]) in ids:
                    before, after = "".join(words[:start]), "".join(words[start + length :])
                    return f"{before}{{id}}{re.sub('[0-9]+', '*', after)}"
    return ""
