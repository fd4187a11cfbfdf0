"""Check that no tracked text file uses a word of `words.txt`; print one line a hit: file:line: word: better."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = Path(__file__).with_name("words.txt")
EXCLUDED = (
    ".ci/words.txt",
    "LICENSE",
    "tasks/knowgen_mini/",
    "knowgen/worlds/content/pages.py",
    "knowgen/worlds/content/prompts.py",
)
"""Not checked: the list itself, a license's text, and the text of worlds, whose version would change."""

GAP = r"(?:[\s#*>/]+|_)"
"""What may stand between two words of a pattern: also a line break with the marker of a comment."""


def read_words(path: Path = WORDS) -> list[tuple[re.Pattern[str], str]]:
    """Return the patterns of a word list, each with what to write instead."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pattern, _, better = line.partition(" -> ")
        spaced = pattern.replace(" ", GAP)
        entries.append((re.compile(rf"(?<![^\W_])(?:{spaced})(?![^\W_])", re.IGNORECASE), better))
    return entries


def hits(text: str, words: Sequence[tuple[re.Pattern[str], str]]) -> Iterator[tuple[int, str, str]]:
    """Yield line number, word and replacement of each hit in a text."""
    for pattern, better in words:
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match.group().split()), better


def tracked(root: Path = ROOT) -> list[str]:
    """Return the paths of all tracked files, relative to the root."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    return [name for name in names.split("\0") if name]


def main(names: Sequence[str], root: Path = ROOT) -> int:
    """Check files, all tracked ones when none is named, and return the exit code: 1 where a word was found."""
    words, count = read_words(), 0
    for name in names or tracked(root):
        path = root / name
        if name.startswith(EXCLUDED) or not path.is_file():
            continue
        data = path.read_bytes()
        if b"\0" in data:
            continue
        # the name is checked like a line of the text, its number is 0
        text = f"{name}\n{data.decode('utf-8', errors='replace')}"
        for line, word, better in sorted(hits(text, words)):
            print(f"{name}:{line - 1}: {word}: {better}")
            count += 1
    if count:
        print(f"{count} hits; the words and what to write instead are in .ci/words.txt", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
