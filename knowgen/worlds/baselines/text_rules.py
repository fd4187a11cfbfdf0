"""Rules with which `open_book` reads prompts and pages. They are general English, not specific to worlds.

Each rule takes the first match. A corrected year, a sum, or a rejected motto before the right one therefore misleads
it, so that a careful reader scores higher.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from knowgen.search.contract import Link, Page

if TYPE_CHECKING:
    from Stemmer import Stemmer

_QUOTED = re.compile(r'"([^"]+)"')
_NAME = re.compile(r"[A-Z][a-z]+(?: [A-Z][a-z]+)*")
_SENTENCE_START = re.compile(r"(^|[.:!?;]\s+)([A-Z])")
_WORDLESS = re.compile(r"\bno (?:lettering|words|writing)\b|\bleave out all letters\b|\bwordless\b")
_QUESTIONS = re.compile(
    r"\b(?:shows|gives|states|presents) (.+?)(?:\.(?: |$)|;|, spelled|, each on|, without|, and (?=the ))"
)
_NEXT_QUESTION = re.compile(r", (?=the |its |her |his )| and (?=the |its |her |his )")
_YEAR = re.compile(r"\b(1[6-9]\d\d|20\d\d)\b")
_AMOUNT = re.compile(r"\b(\d+ [a-z]+)\b")
_STOP_WORDS = frozenset(
    re.findall(r"\w+", "a an the of and in on is by that it she he was who for to with its her his full name number")
)

QuestionKind = Literal["name", "maker", "year", "birthplace", "town", "amount", "words"]


@dataclass(frozen=True)
class SubjectDescription:
    """A subject that a prompt describes.

    Attributes:
        words: The description.
        noun: Its noun, such as "bell tower".
        names: Names in the description, in order.
    """

    words: str
    noun: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt split into its parts.

    Attributes:
        quoted: Words in quotation marks, which the image must show.
        wordless: Whether it forbids text.
        described: Subjects it describes, in order.
        questions: Phrases for the required text, in order.
        names: All names, for a painter without search.
    """

    quoted: tuple[str, ...]
    wordless: bool
    described: tuple[SubjectDescription, ...]
    questions: tuple[str, ...]
    names: tuple[str, ...]


def parse_prompt(prompt: str, nouns: Iterable[str]) -> ParsedPrompt:
    """Split a prompt into its parts.

    Args:
        prompt: Prompt.
        nouns: Nouns for subjects that can be drawn, such as "tower".

    Example:
        >>> parse_prompt("Paint the bell tower Ovar; leave out all letters.", ["tower"]).described[0].names
        ('Ovar',)
    """
    body = _SENTENCE_START.sub(lambda match: match[1] + match[2].lower(), _QUOTED.sub("", prompt))
    question_match = _QUESTIONS.search(body)
    questions = tuple(part.strip() for part in _NEXT_QUESTION.split(question_match[1])) if question_match else ()
    rest = body[: question_match.start(1)] + body[question_match.end(1) :] if question_match else body
    return ParsedPrompt(
        quoted=tuple(_QUOTED.findall(prompt)),
        wordless=_WORDLESS.search(body) is not None,
        described=tuple(_descriptions(rest, nouns)),
        questions=questions,
        names=tuple(dict.fromkeys(_NAME.findall(rest))),
    )


def _descriptions(text: str, nouns: Iterable[str]) -> Iterable[SubjectDescription]:
    """Yield each passage that begins with `the NOUN` and contains a name."""
    noun_pattern = "|".join(sorted(map(re.escape, nouns)))
    starts = list(re.finditer(rf"\bthe (?:best-known )?((?:[a-z]+ ){{0,2}}(?:{noun_pattern}))\b(?! maker)", text))
    for start, following in zip_longest(starts, starts[1:]):
        words = text[start.start() : following.start() if following else len(text)]
        names = tuple(_NAME.findall(words))
        if names:
            yield SubjectDescription(words, start[1], names)


def sentences(text: str) -> list[str]:
    """Split a page's text into sentences."""
    return [part for part in re.split(r"(?<=[.!?])\s+", text) if part]


@cache
def _stemmer() -> Stemmer:
    import Stemmer

    return Stemmer.Stemmer("english")


def content_words(text: str) -> frozenset[str]:
    """Return the stems of a text's words, without stop words."""
    stems = _stemmer().stemWords(re.findall(r"[a-z]+|\d+", text.lower()))
    return frozenset(stems) - _STOP_WORDS


def is_about(page: Page, noun: str) -> bool:
    """Return whether the first sentence of a page says that its title is such a subject."""
    opening = sentences(page.text)[0] if page.text else ""
    return opening.startswith(page.title) and re.search(rf"\ban? {re.escape(noun)}\b(?! maker)", opening) is not None


def linked_sentences(page: Page) -> list[tuple[str, Link]]:
    """Return the links of a page, each with the first sentence that contains its text."""
    split = sentences(page.text)
    pairs = ((next((part for part in split if link.text in part), ""), link) for link in page.links)
    return [(part, link) for part, link in pairs if part]


def question_kind(question: str) -> QuestionKind:
    """Return the kind of answer that a question asks for.

    Example:
        >>> question_kind("the year in which it was built")
        'year'
    """
    if question.startswith("the name of"):
        return "name"
    if "full name" in question:
        return "maker"
    if "year" in question:
        return "year"
    if "born" in question:
        return "birthplace"
    if "town" in question:
        return "town"
    return "amount" if "number of" in question or re.search(r" in [a-z]+$", question) else "words"


def find_role(question: str) -> str:
    """Return the trade that a question names, as in "the village where the mask maker was born"; empty if none."""
    match = re.search(r"(?:full name of the|where the|in which the) ([a-z ]+?)(?: was\b| received\b|$)", question)
    return match[1] if match else ""


def find_person(page: Page, role: str) -> str:
    """Return the first person of that trade on a page; empty if there is none."""
    match = re.search(rf"\b{re.escape(role)} ([A-Z][a-z]+ [A-Z][a-z]+)", page.text)
    return match[1] if match else ""


def find_answer(kind: QuestionKind, sentence: str) -> str:
    """Return the first answer of a kind in a sentence; empty if there is none."""
    patterns = {"year": _YEAR, "amount": _AMOUNT, "words": _QUOTED, "birthplace": re.compile(r"born in ([A-Z][a-z]+)")}
    match = patterns[kind].search(sentence) if kind in patterns else None
    return match[1] if match else ""


def best_answer(question: str, pages: Iterable[Page]) -> str:
    """Return the answer from the sentence that shares most words with a question; empty if no sentence has one."""
    kind, question_words, best, best_count = question_kind(question), content_words(question), "", 0
    for page in pages:
        for sentence in sentences(page.text):
            shared, answer = len(question_words & content_words(sentence)), find_answer(kind, sentence)
            if answer and shared > best_count:
                best, best_count = answer, shared
    return best
