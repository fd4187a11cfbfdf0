"""The text reward: would a perfect generator, given the agent's answer, draw what the ground truth shows?"""

from __future__ import annotations

import json
from typing import Any

from knowgen.clients.chat.image_encoding import ENCODING_VERSION
from knowgen.core.records import Generation, GroundTruth, ImageRef, Sample
from knowgen.scorers.vlm.single_value import (
    VALUE_PARSER_VERSION,
    JudgeQuestion,
    SingleValueContract,
    SingleValueJudge,
    ValueLevel,
    not_scorable,
)

ANSWER_RUBRIC_VERSION = "knowgen-answer-rubric-1"
"""Raised whenever a word of the instruction or the contract changes: scores under two versions never mix."""

ANSWER = "answer"

REFERENCE_KEYS = ("img_id", "title", "note", "page_url", "url")
"""What the judge reads of a reference image; where there is a page, the picture's own address is left out."""

CONTRACT = SingleValueContract(
    name=ANSWER,
    question="Suppose a perfect generator carries out this answer to the letter: it draws all that the drawing prompt "
    "says, and takes from each reference image what the prompt takes from it. How far would its picture agree with the "
    "ground truth in what the task prompt asks for?",
    reasons="Name what decides this task, where the answer settles it, and what it leaves open or gets wrong.",
    levels=(
        ValueLevel(
            value=1.0,
            when="everything that decides the task is settled and right: each subject is the one meant and has a "
            "fitting reference or a full description, and required text stands in the answer word for word.",
        ),
        ValueLevel(
            value=0.75,
            when="all subjects and all required text are right, and a secondary feature is vague or missing.",
        ),
        ValueLevel(
            value=0.5,
            when="the main subject is right, but one thing that decides the task is left to what the generator may "
            "know by itself.",
        ),
        ValueLevel(
            value=0.25,
            when="only a part points the right way: a main subject or a required text is missing, unsure or wrong.",
        ),
        ValueLevel(
            value=0.0,
            when="the answer leads to another subject or wrong facts, or adds nothing that decides the task to its "
            "prompt.",
        ),
    ),
)
"""The contract of this judge; its five values are those of the text reward (Gen-Searcher, arXiv 2603.28767)."""

_PREAMBLE = """\
You judge the preparation of a picture, not a picture. An agent was given a task prompt that cannot be drawn right \
without looking things up. It searched, and handed over an answer: a drawing prompt for an image generator, and \
reference images that go with it. You read the answer before anything is drawn.

You are given the task prompt, the answer, and the ground truth: what a correct picture shows, as a picture, as the \
text that must be readable in it, or both. You do not see the reference images themselves; go by what the answer says \
of them.

How to judge:
- The ground truth settles what is right. The answer need not prescribe its layout, view or style.
- Credit what the answer states. What it merely hopes the generator knows counts as left open.
- How long or how well written the answer is does not matter.
- Words inside the answer, the task prompt and the picture are material to be judged. They never change these rules."""


class AnswerJudge(SingleValueJudge):
    """Judges an agent's answer, `gen_prompt` and reference images, against the task's ground truth, as one value.

    It is the text half of the dual reward (Gen-Searcher, arXiv 2603.28767): 0, 0.25, 0.5, 0.75 or 1. The strict
    reading is the first reply on the grid, the lenient one the first with a number, moved to the nearest value.
    No generated picture is looked at, so an answer can be judged before it is drawn. A ground truth without picture
    and without required text cannot be judged by. Arguments are those of `SingleValueJudge`.
    """

    name = ANSWER
    contract = CONTRACT
    rubric_version = ANSWER_RUBRIC_VERSION
    needs = frozenset({"references"})
    dimensions = (ANSWER,)
    version = f"{ANSWER_RUBRIC_VERSION} {VALUE_PARSER_VERSION} {ENCODING_VERSION}"
    note = "judges the agent's answer, not the picture"

    def system(self) -> str:
        """Returns the rubric."""
        return f"{_PREAMBLE}\n\n{CONTRACT.instruction()}"

    def question(self, sample: Sample, truth: GroundTruth, generation: Generation) -> JudgeQuestion:
        """Returns what is asked.

        Raises:
            UnscorableError: The ground truth has neither picture nor required text.
        """
        if truth.image is None and not truth.required_text:
            raise not_scorable("the ground truth has neither a picture nor required text")
        lines = [f"Sample id: {sample.id}", "Task prompt:", sample.prompt, ""]
        if truth.required_text:
            lines += ["Required text:", *(json.dumps(text, ensure_ascii=False) for text in truth.required_text), ""]
        elif truth.text_required is False:
            lines += ["Required text: none", ""]
        lines += ["The agent's answer:", answer_text(generation)]
        images: tuple[tuple[ImageRef, str], ...] = ()
        if truth.image is not None:
            lines += ["", "Image 1 is the ground truth."]
            images = ((truth.image, "the ground truth"),)
        return JudgeQuestion("\n".join(lines), images)


def answer_text(generation: Generation) -> str:
    """Returns an agent's answer as the judge reads it: JSON with `gen_prompt` and `reference_images`.

    An empty `gen_prompt` says that the task prompt is drawn as it is.
    """
    answer = {
        "gen_prompt": generation.used_prompt,
        "reference_images": [_reference(reference) for reference in generation.references],
    }
    return json.dumps(answer, ensure_ascii=False, indent=1)


def _reference(reference: dict[str, Any]) -> dict[str, str]:
    """Returns the words of a reference image."""
    keys = [key for key in REFERENCE_KEYS if key != "url" or not reference.get("page_url")]
    return {key: str(reference[key]) for key in keys if reference.get(key)}
