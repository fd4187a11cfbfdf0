"""Answering a question from a page without a model: the passages that share most words with it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import pairwise

from knowgen.agents.text_budget import cut_to_tokens, estimate_tokens
from knowgen.core.records import UsagePart

EXTRACTION_VERSION = "passages-1"
"""Version of the extraction, part of keys. Increment it with any change that gives other passages."""

MAX_TOKENS = 1500
"""Maximum number of tokens that are taken from a page."""

PASSAGE_CHARACTERS = 600
"""Length at which a paragraph is split between sentences."""

MAX_CHARACTERS = 2_000_000
"""Maximum length of a page that is searched; the rest is not read."""

GAP = "[…]"
"""Stands for text that was left out between two passages."""

_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
"""Thai, Japanese, Chinese and Korean."""

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|(?<=[。！？])")


class PassageReader:
    """Reads pages by extraction.

    Args:
        max_tokens: Maximum number of tokens that are taken from a page.
    """

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        self._max_tokens = max_tokens

    async def read(self, text: str, query: str) -> tuple[str, Sequence[UsagePart]]:
        """Return the relevant passages of a page, at no cost."""
        return await asyncio.to_thread(relevant_passages, text, query, self._max_tokens), ()


def relevant_passages(text: str, query: str, max_tokens: int = MAX_TOKENS) -> str:
    """Return the passages of a page that answer a question best, by BM25, in the order of the page.

    A page that is short enough is returned whole, and the beginning of a page that shares no word with the question.

    Args:
        text: Text of the page, with a blank line between paragraphs.
        query: The question.
        max_tokens: Maximum number of tokens, as `estimate_tokens` counts them.

    Example:
        >>> page = "\\n\\n".join(["The harbour is old."] * 40 + ["The boat is red."] + ["Fish is sold."] * 40)
        >>> relevant_passages(page, "Which colour has the boat?", max_tokens=12).split("\\n\\n")
        ['[…]', 'The boat is red.', '[…]']
    """
    if estimate_tokens(text) <= max_tokens:
        return text
    passages = _passages(text[:MAX_CHARACTERS])
    chosen: set[int] = set()
    left = max_tokens
    for position in _ranked(passages, query) or range(len(passages)):
        needed = estimate_tokens(passages[position]) + estimate_tokens(GAP) + 1
        if needed > left and chosen:
            break
        chosen.add(position)
        left -= needed
    lines: list[str] = []
    for position, passage in enumerate(passages):
        if position in chosen:
            lines.append(passage)
        elif not lines or lines[-1] != GAP:
            lines.append(GAP)
    return cut_to_tokens("\n\n".join(lines), max_tokens + estimate_tokens(GAP))[0]


def _passages(text: str) -> list[str]:
    """Split a text into paragraphs, and long paragraphs between sentences."""
    passages: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        current = ""
        for sentence in _SENTENCE_END.split(paragraph.strip()):
            if current and len(current) + len(sentence) > PASSAGE_CHARACTERS:
                passages.append(current)
                current = ""
            current = f"{current} {sentence}" if current else sentence
        while current:
            passages.append(current[: 4 * PASSAGE_CHARACTERS])
            current = current[4 * PASSAGE_CHARACTERS :]
    return passages


def _spaced(text: str) -> str:
    """Return a text with scripts that write no spaces between words as overlapping pairs of characters."""
    return _UNSPACED.sub(lambda run: f" {' '.join(map(''.join, pairwise(run[0]))) or run[0]} ", text)


def _ranked(passages: Sequence[str], query: str) -> list[int]:
    """Return the positions of the passages that share a word with a query, best first."""
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    texts = [_spaced(passage) for passage in passages]
    tokens = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
    split = bm25s.tokenize(_spaced(query), stopwords="en", stemmer=stemmer, show_progress=False, return_ids=False)
    words = [word for word in split[0] if word in tokens.vocab]
    if not words:
        return []
    index = bm25s.BM25()
    index.index(tokens, show_progress=False)
    positions, scores = index.retrieve([words], k=len(passages), show_progress=False)
    return [int(position) for position, score in zip(positions[0], scores[0], strict=True) if score > 0]
