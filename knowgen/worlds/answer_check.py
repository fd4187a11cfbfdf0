"""The scorer `world_answer`: an exact check of an agent's answer against the ground truth of a synthetic world.

It is the text half of the dual reward (see `answer`) without a language-model judge. The value is the mean of the
shares that apply to the sample:

    named = subjects that the answer names, of those that the prompt does not name
    facts = required texts that the answer's prompt has, of those that the task's prompt does not have
    shown = subjects that a reference image shows / max(subjects, reference images)

What the task's prompt already says earns nothing. A reference image shows a subject if its pixels do; what its title
says does not count. More texts in quotes, or other numbers of as many digits, than were asked for earn nothing, so that
listing everything does not pay.

For the task `things` the fact is the colour: the answer must name the thing, its colour, and no other colour.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import UnscorableError
from knowgen.core.images import OPENING_VERSION, UnreadableImageError, open_rgb
from knowgen.core.records import Generation, GroundTruth, Sample, Score
from knowgen.scorers.contract import ok_score
from knowgen.worlds.things.painter import stated_colours
from knowgen.worlds.things.world import RECIPE_VERSION as THINGS_VERSION
from knowgen.worlds.things.world import colour_of

if TYPE_CHECKING:
    from PIL.Image import Image

NAME = "world_answer"
ANSWER = "answer"

LONGEST = 4000
"""Maximum length of an answer's prompt in characters. A longer one earns nothing for its texts."""

_CANVAS = (768, 512)
_SHOWN_SIDE = 256

_QUOTED = re.compile(r"[\"“«]([^\"“”«»]+)[\"”»]")
_NUMBER = re.compile(r"(?<!\d)\d+(?!\d)")


@dataclass(frozen=True)
class AnswerParts:
    """What of an answer is right, as pairs of right and wanted; `wanted` is 0 where a part does not apply.

    Attributes:
        named: Subjects that are named.
        facts: Required texts, or the colour of a thing.
        shown: Subjects that the reference images show.
        missing: What is missing, in words.
    """

    named: tuple[int, int]
    facts: tuple[int, int]
    shown: tuple[int, int]
    missing: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        """Mean of the shares of the parts that apply, in [0, 1]."""
        shares = [right / wanted for right, wanted in (self.named, self.facts, self.shown) if wanted]
        return sum(shares) / len(shares)


class WorldAnswer:
    """Scores answers to samples of synthetic worlds and of the task `things`, without a model.

    It reads the answer's prompt and the files of its reference images, not the generated image. An answer that was not
    used, such as that of an agent without a valid one, is worth 0.
    """

    needs = frozenset({"subjects"})
    dimensions = (ANSWER,)
    version = f"1.{OPENING_VERSION}.{THINGS_VERSION}"
    note = "check of an agent's answer, not of the image"
    concurrency = 8

    def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        """Return the score of an answer.

        Raises:
            UnscorableError: The ground truth is not from a world, or the file of a reference image is missing.
        """
        parts = check_answer(sample, truth, generation.used_prompt, generation.references)
        details = {name: list(getattr(parts, name)) for name in ("named", "facts", "shown")}
        rationale = f"Missing: {'; '.join(parts.missing)}." if parts.missing else "Nothing is missing."
        return ok_score(sample, generation, {ANSWER: parts.value}, rationale=rationale, details=details, scorer=NAME)


def check_answer(
    sample: Sample, truth: GroundTruth, gen_prompt: str, references: Sequence[Mapping[str, Any]]
) -> AnswerParts:
    """Return what of an answer is right.

    Args:
        sample: The sample.
        truth: Its ground truth.
        gen_prompt: Prompt of the answer; empty without a usable answer.
        references: Reference images, each with the `path` of its file, and the `note` and `title` that came with it.

    Raises:
        UnscorableError: As for `WorldAnswer.score`.
    """
    if not all("name" in subject and ("look" in subject or "colour" in subject) for subject in truth.subjects):
        raise UnscorableError(f"the ground truth of {sample.id!r} is not from a world")
    used = references if gen_prompt.strip() else ()
    shown = _shown(truth.subjects, used)
    if "colour" in truth.subjects[0]:
        named, facts, missing = (0, 0), *_colour_stated(truth.subjects[0], gen_prompt)
    else:
        text = "\n".join((gen_prompt, *(str(each.get("note", "")) for each in used)))
        names = [str(one["name"]) for one in truth.subjects if not _has(sample.prompt, str(one["name"]))]
        named = sum(_has(text, name) for name in names), len(names)
        wanted = [] if truth.text_required is False else [
            one for one in truth.required_text if not _has(sample.prompt, one)
        ]  # fmt: skip
        facts, missing = _texts_stated(sample.prompt, wanted, truth.required_text, gen_prompt)
        missing = [*(f"{name} is not named" for name in names if not _has(text, name)), *missing]
    if shown[0] < shown[1]:
        missing = [*missing, f"{shown[0]} of {shown[1]} reference images show a subject"]
    return AnswerParts(named, facts, shown, tuple(missing))


def _colour_stated(subject: Mapping[str, Any], gen_prompt: str) -> tuple[tuple[int, int], list[str]]:
    """Return whether a prompt names a thing with its colour and no other, and what is missing."""
    if not _has(gen_prompt, str(subject["name"])):
        return (0, 1), [f"{subject['name']} is not named"]
    if stated_colours(gen_prompt) != [subject["colour"]]:
        return (0, 1), ["its colour is missing, or not the only one"]
    return (1, 1), []


def _texts_stated(
    prompt: str, wanted: Sequence[str], required: Sequence[str], gen_prompt: str
) -> tuple[tuple[int, int], list[str]]:
    """Return how many of the wanted texts a prompt has, and what is missing.

    Args:
        prompt: Prompt of the task.
        wanted: Required texts that the prompt of the task lacks.
        required: All required texts.
        gen_prompt: Prompt of the answer.
    """
    if not wanted:
        return (0, 0), []
    if len(gen_prompt) > LONGEST:
        return (0, len(wanted)), [f"the prompt has more than {LONGEST} characters"]
    known = [prompt, *required]
    surplus = [text for text in _QUOTED.findall(gen_prompt) if not any(_overlap(text, one) for one in known)]
    if len(surplus) > len(required):
        return (0, len(wanted)), [f"{len(surplus)} texts in quotes that were not asked for"]
    numbers = {number for number in _NUMBER.findall(gen_prompt) if not any(_has(one, number) for one in known)}
    found, missing = 0, []
    for text in wanted:
        if not _has(gen_prompt, text):
            missing.append(f'"{text}" is missing')
        elif text.isdecimal() and (rivals := sorted(one for one in numbers if len(one) == len(text))):
            missing.append(f'{", ".join(rivals[:3])} beside "{text}"')
        else:
            found += 1
    return (found, len(wanted)), missing


def _has(text: str, part: str) -> bool:
    """Return whether a text has another one as whole words, without regard to case and spaces."""
    words = r"\s+".join(map(re.escape, part.split()))
    return bool(words) and re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None


def _overlap(text: str, other: str) -> bool:
    return _has(text, other) or _has(other, text)


def _shown(subjects: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return the number of subjects that references show, and the larger of both numbers.

    Each subject needs a reference of its own.
    """
    files = [_file(number, one) for number, one in enumerate(references, 1)]
    left = list(range(len(files)))
    count = 0
    for subject in subjects:
        fits = next((number for number in left if _shows(files[number], _look(subject))), None)
        if fits is not None:
            left.remove(fits)
            count += 1
    return count, max(len(subjects), len(files))


def _file(number: int, reference: Mapping[str, Any]) -> tuple[Path, str]:
    """Return the path of a reference's file and its digest.

    Raises:
        UnscorableError: It is not known where its file is.
    """
    if not reference.get("path"):
        raise UnscorableError(f"the file of reference {number} is not known")
    return Path(str(reference["path"])), str(reference.get("sha256", ""))


def _look(subject: Mapping[str, Any]) -> str:
    return json.dumps({key: subject[key] for key in ("colour", "look", "look_alike") if key in subject})


@lru_cache(maxsize=4096)
def _shows(file: tuple[Path, str], look: str) -> bool:
    """Return whether an image shows a subject; one that does not open shows nothing.

    Args:
        file: Path and digest of the image.
        look: What the ground truth says of the subject's look, as JSON.
    """
    try:
        image = open_rgb(file[0])
    except UnreadableImageError as error:
        raise UnscorableError(f"a reference image does not open: {error.what}") from error
    subject = json.loads(look)
    if "colour" in subject:
        return bool(colour_of(image) == subject["colour"])
    from knowgen.worlds.checker.image_features import ImageFeatures
    from knowgen.worlds.checker.matching import SubjectVerdict, match_subject
    from knowgen.worlds.rendering.appearance import Appearance

    appearance, other = (Appearance.from_dict(subject[key]) for key in ("look", "look_alike"))
    match = match_subject(ImageFeatures.from_pixels(_on_canvas(image)), appearance, other)
    return match.verdict is SubjectVerdict.RIGHT


def _on_canvas(image: Image) -> Any:
    """Return the pixels of an image as it would stand in a scene, which is what the matching of subjects is made for.

    A subject that fills the whole image is larger than any in a scene, and one in seven of them would not be found.
    """
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = (int(value) for value in np.median(border, axis=0))
    canvas = Image.new("RGB", _CANVAS, (red, green, blue))
    scale = _SHOWN_SIDE / max(image.size)
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    canvas.paste(small, ((canvas.width - small.width) // 2, (canvas.height - small.height) // 2))
    return np.asarray(canvas)
