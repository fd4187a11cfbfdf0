"""The questions that a rater answers, with the meaning of each value, and their version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from knowgen.core.records import TEXT

VALUES = (0.0, 0.5, 1.0)
"""Values of a rating."""


@dataclass(frozen=True)
class Question:
    """The question about one dimension.

    Attributes:
        name: Name of the dimension.
        label: Its name on the page.
        text: The question.
        full: What the value 1 means.
        half: What the value 0.5 means.
        none: What the value 0 means.
    """

    name: str
    label: str
    text: str
    full: str
    half: str
    none: str


_KNOWN = (
    Question(
        "faithfulness",
        "Faithfulness",
        "Does the image show the scene of the prompt: every element, in its number and place?",
        "all of it is there",
        "recognisable, but a minor element is missing, added or misplaced",
        "a main element is missing, or it is another scene",
    ),
    Question(
        "visual_correctness",
        "Visual correctness",
        "Do the subjects look as they really do? Compare shape, colours and marks with the ground truth; view and "
        "style may differ.",
        "every feature that can be checked is right",
        "clearly the right subject, with a secondary feature wrong or unclear",
        "a wrong or generic subject, or a defining feature is wrong",
    ),
    Question(
        TEXT,
        "Text accuracy",
        "Is the text that the prompt asks for in the image, readable and right?",
        "all of it, without an error that matters",
        "most of it; names, numbers and dates are right",
        "missing, unreadable, or a name, number or date is wrong",
    ),
    Question(
        "aesthetics",
        "Aesthetics",
        "How well is the image made, compared with the ground truth: composition, light, finish?",
        "as good, and without visible defects",
        "good, but somewhat behind",
        "clearly behind, or with visible defects",
    ),
)

PAIR_TEXT = "Which image is the better result for the prompt?"
PAIR_HINT = (
    "First, whether subjects and text are right, compared with the ground truth; then, whether the scene is complete; "
    "then, how well it is made."
)

SKIP_REASONS = {"does_not_load": "An image does not load", "cannot_tell": "I cannot tell"}
"""Reasons for which a rater may skip an image or a pair, with their words on the page."""

CHOICES = {"left": "A is better", "right": "B is better", "tie": "Equally good", "both_bad": "Both are bad"}
"""Answers to the question about a pair, with their words on the page."""

CHOICE_KEYS = {"left": "A", "right": "B", "tie": "T", "both_bad": "X"}
"""Key of each answer."""


def questions(dimensions: Sequence[str]) -> tuple[Question, ...]:
    """Return the question about each dimension, in the given order; one in general words for an unknown dimension."""
    known = {one.name: one for one in _KNOWN}
    return tuple(known.get(name) or _general(name) for name in dimensions)


def _general(name: str) -> Question:
    label = name.replace("_", " ").capitalize()
    return Question(name, label, f"How good is the image in this respect: {name.replace('_', ' ')}?",
                    "fully right", "partly right", "wrong or missing")  # fmt: skip


def question_version(mode: str, dimensions: Sequence[str]) -> str:
    """Return a hash of everything that a rater is asked: answers to other questions are not mixed with these.

    Example:
        >>> question_version("rate", ["aesthetics"]) == question_version("rate", ["faithfulness"])
        False
    """
    asked = [asdict(one) for one in questions(dimensions)] if mode == "rate" else [PAIR_TEXT, PAIR_HINT, [*CHOICES]]
    return hashlib.sha256(json.dumps([mode, asked]).encode()).hexdigest()[:12]
