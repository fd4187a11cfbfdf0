"""The records of a run: plain, frozen data that every package shares.

A task provides `Sample`s and their `GroundTruth`. A sample reaches a generator as a `GenerationRequest`, which contains
neither ground truth nor category. Its result is stored as a `Generation`, each scorer's result as a `Score`, and the
statistics read both as `Row`s.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field

from knowgen.core.images import UnreadableImageError, inspect_image, open_rgb
from knowgen.core.models import BaseModel

if TYPE_CHECKING:
    from PIL.Image import Image

DIMENSIONS = ("faithfulness", "visual_correctness", "text_accuracy", "aesthetics")
"""The four dimensions of a KnowGen score, in the order of the published table. Values are in [0, 1]."""

TEXT = "text_accuracy"
"""The dimension that applies only to prompts that ask for written text."""

SCIENCE = "science_and_knowledge"
POP = "pop_culture_and_news"

GROUPS: dict[str, tuple[str, ...]] = {
    SCIENCE: (
        "astronomy", "biology", "chemistry", "physics", "engineering", "medicine", "industry", "architecture",
        "history", "geography", "religion", "politics", "culture", "art", "sports",
    ),
    POP: (
        "anime", "game", "film", "celebrities", "posters", "multi-subject-anime", "multi-subject-celebrities",
        "multi-subject-game", "news",
    ),
}  # fmt: skip
"""Category groups of the benchmark, with the exact, lower-case names of their categories."""

UNKNOWN_GROUP = "unknown"
"""Group of a category that no group lists."""


def group_of(category: str) -> str:
    """Return the group of a category, or `UNKNOWN_GROUP` when no group lists exactly this name.

    Example:
        >>> group_of("biology")
        'science_and_knowledge'
        >>> group_of("Biology")
        'unknown'
    """
    return next((group for group, members in GROUPS.items() if category in members), UNKNOWN_GROUP)


class Record(BaseModel):
    """Base of all records: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GenerationStatus(StrEnum):
    """Status of a generation.

    Attributes:
        OK: There is an image.
        FAILED: The generator raised an error, or timed out.
        REFUSED: The generator declined the prompt.
        NOT_RUN: It was not attempted yet.
    """

    OK = "ok"
    FAILED = "failed"
    REFUSED = "refused"
    NOT_RUN = "not_run"


class ScoreStatus(StrEnum):
    """Status of a score.

    Attributes:
        OK: There are values.
        FAILED: The scorer raised an error, or the judge's replies could not be parsed.
        NOT_APPLICABLE: The scorer does not apply to this sample.
        NOT_RUN: It was not attempted yet, or the image is missing.
    """

    OK = "ok"
    FAILED = "failed"
    NOT_APPLICABLE = "not_applicable"
    NOT_RUN = "not_run"


class FailureCause(StrEnum):
    """What caused a failure, which decides how it counts.

    Attributes:
        SYSTEM: The generator or scorer itself.
        INFRASTRUCTURE: A service, account, network or machine. It says nothing about the system, and counts as missing.
        REFUSAL: The judge or its content filter refused to score an image.
    """

    SYSTEM = "system"
    INFRASTRUCTURE = "infrastructure"
    REFUSAL = "refusal"


class ImageRef(Record):
    """A reference to an image file by the hash of its content.

    Attributes:
        sha256: SHA-256 hex digest of the file's bytes.
        width: Width in pixels, upright.
        height: Height in pixels, upright.
        format: Format as Pillow names it, such as PNG, JPEG or WEBP.
        path: Path of the file on this machine. Not part of stored records and keys.
    """

    sha256: str
    width: int
    height: int
    format: str
    path: Path | None = Field(default=None, exclude=True, repr=False)

    def open(self) -> Image:
        """Return the pixels as every judge and scorer sees them: 8-bit RGB, upright, transparent pixels on white.

        16-bit grey is scaled to 8 bits, colour profiles are converted to sRGB, and of an animation the first frame is
        taken. For the file as it is, open `path`.

        Raises:
            UnreadableImageError: The reference has no path, or the file is missing or does not open.
        """
        try:
            return open_rgb(self.path)
        except UnreadableImageError as error:
            name = self.path.name if self.path is not None else self.sha256[:12]
            raise UnreadableImageError(f"the image {name} does not open: {error.what}") from error


def image_ref(path: Path | str) -> ImageRef:
    """Return the record of an image file, with its path.

    Raises:
        UnreadableImageError: The file is missing, or is not an image that can be opened.
    """
    try:
        facts = inspect_image(Path(path))
    except UnreadableImageError as error:
        raise UnreadableImageError(f"the image does not open: {error.what}", where=str(path)) from error
    return ImageRef(sha256=facts.sha256, width=facts.width, height=facts.height, format=facts.format, path=Path(path))


OFFICIAL_SKIP = "official_evaluator"
"""Field of `Sample.meta`: why the official evaluator skips the sample. Under the lenient reading, it has no score."""


class Sample(Record):
    """One prompt of a task and its public metadata.

    Attributes:
        id: Identifier, unique in its task. Compared as text, so "1" and "01" differ.
        prompt: The task's prompt. Judges read this one even where a generator rewrote it.
        category: Category in lower case; it may be one that `GROUPS` does not list.
        group: Group of the category; `UNKNOWN_GROUP` when there is none.
        difficulty: Difficulty in the task's own words, such as easy, medium or hard; empty when the task has none.
        text_required: Whether the prompt asks for written text; None when the task version does not say.
        meta: Other public metadata.
    """

    id: str
    prompt: str
    category: str = ""
    group: str = UNKNOWN_GROUP
    difficulty: str = ""
    text_required: bool | None = None
    meta: dict[str, Any] = Field(default_factory=dict)


class GroundTruth(Record):
    """The reference that scorers compare an image with. Only generators that declare `privileged` receive it.

    Attributes:
        sample_id: Id of the sample.
        image: Ground-truth image; None when the task has none.
        required_text: Strings that must be readable in the image.
        subjects: What the image must show, in the task's own fields (worlds: name, look, look_alike).
        text_required: Whether the prompt asks for written text, as in `Sample`.
        evidence: Ids or addresses of the pages and images that the facts come from.
        extra: Further ground truth for scorers of this task (worlds: the scene and the sign).
    """

    sample_id: str
    image: ImageRef | None = None
    required_text: tuple[str, ...] = ()
    subjects: tuple[dict[str, Any], ...] = ()
    text_required: bool | None = None
    evidence: tuple[str, ...] = ()
    extra: dict[str, Any] = Field(default_factory=dict)


class GenerationRequest(Record):
    """The input of a generator. It is made from a `Sample` and contains no category, difficulty or ground truth.

    Attributes:
        id: Opaque identifier, unique in the run. A `GeneratedImage` refers to its request by it.
        prompt: The prompt.
        repeat: Number of the repeat, from 0.
        seed: Seed of this image, 0 <= seed < 2**31.
        references: Reference images to condition the generation on.
        truth: Ground truth for generators that declare `privileged`; None for all others.
    """

    id: str
    prompt: str
    repeat: int = 0
    seed: int = 0
    references: tuple[ImageRef, ...] = ()
    truth: GroundTruth | None = None


def request_id(sample_id: str, repeat: int) -> str:
    """Return the opaque id of a request: 16 hex digits of a hash of sample id and repeat."""
    return hashlib.sha256(f"request\0{sample_id}\0{repeat}".encode()).hexdigest()[:16]


class Usage(Record):
    """Tokens and cost of one or more calls.

    Attributes:
        input_tokens: Tokens of the requests.
        output_tokens: Tokens of the replies.
        cost: Cost in US dollars; None when the price is not known.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = Field(default=None, allow_inf_nan=False)


class UsagePart(Record):
    """What one part of an agent used.

    Attributes:
        part: `policy`, `search`, `summary`, or the name of a tool that pays for its calls.
        calls: Number of paid calls.
        usage: Their tokens and cost.
        seconds: Time that the agent spent in this part, in seconds; parts may overlap.
    """

    part: str
    calls: int = 0
    usage: Usage = Usage()
    seconds: float = Field(default=0.0, allow_inf_nan=False)


class AnswerStatus(StrEnum):
    """Status of an agent's answer.

    Attributes:
        OK: The agent gave an answer.
        NONE: It ended without one, as `AgentAnswer.ending` says. The ending is a result: the agent is not run again.
        FAILED: It could not be run to its end, for example because a service was unavailable.
        NOT_RUN: It was not attempted yet.
    """

    OK = "ok"
    NONE = "none"
    FAILED = "failed"
    NOT_RUN = "not_run"


class AgentAnswer(Record):
    """The result of an agent that searched: what an image model generates from in place of the sample's prompt.

    It is stored on its own, so that another image model can generate from the same search.

    Attributes:
        sample_id: Id of the sample; empty in an answer that a file recorded.
        repeat: Number of the repeat, from 0.
        status: Whether there is an answer.
        reason: Why there is none, or what of it could not be used.
        cause: What caused the failure, when the status is failed; None otherwise.
        ending: How the agent ended, in the terms of its own protocol, such as `answer` or `repeated_response`.
        prompt: The rewritten prompt; empty to use the sample's own.
        references: Reference images, in order.
        reference_notes: The agent's notes on each reference: img_id, title, url, page_url, note.
        evidence: Text it gathered: title, url, text.
        system: System prompt of its policy; empty without one.
        trajectory: Its steps, oldest first.
        images: Every image that it saw, without repetitions.
        usage: What each of its parts used.
        seconds: Time it took in seconds.
        attempts: Number of attempts, over all calls on this run directory.
    """

    sample_id: str = ""
    repeat: int = 0
    status: AnswerStatus = AnswerStatus.OK
    reason: str = ""
    cause: FailureCause | None = None
    ending: str = ""
    prompt: str = ""
    references: tuple[ImageRef, ...] = ()
    reference_notes: tuple[dict[str, Any], ...] = ()
    evidence: tuple[dict[str, Any], ...] = ()
    system: str = ""
    trajectory: tuple[dict[str, Any], ...] = ()
    images: tuple[ImageRef, ...] = ()
    usage: tuple[UsagePart, ...] = ()
    seconds: float = Field(default=0.0, allow_inf_nan=False)
    attempts: int = 1


class Generation(Record):
    """The stored result of generating one image.

    Attributes:
        sample_id: Id of the sample.
        repeat: Number of the repeat, from 0.
        status: Whether there is an image.
        reason: Why there is none, when the status is not ok.
        image: The stored image, when the status is ok.
        image_notes: What was changed between what the generator returned and what is shown and scored, such as an
            EXIF turn or a colour profile.
        one_colour: Colour of all pixels of the image, such as #000000; empty when there are several.
        used_prompt: The prompt that the image was generated from, when the generator rewrote it; else empty.
        references: Reference images that were used, each with the generator's notes on it.
        evidence: Text that an agent collected, for scorers that read it.
        trajectory: Steps of an agent.
        seed: Seed of the image.
        settings: Settings that the generator reports, such as steps, size, library versions and device.
        seconds: Time from request to image in seconds.
        usage: Tokens and cost.
        attempts: Number of attempts, over all calls on this run directory.
        cause: What caused the failure, when the status is failed; None otherwise.
        ending: How the agent ended that it was generated from, as in `AgentAnswer`; empty without an agent.
        fallback: Why the image was generated from the sample's own prompt, or not at all, although there was an agent;
            empty where its answer was used.
    """

    sample_id: str
    repeat: int = 0
    status: GenerationStatus
    reason: str = ""
    image: ImageRef | None = None
    image_notes: tuple[str, ...] = ()
    one_colour: str = ""
    used_prompt: str = ""
    references: tuple[dict[str, Any], ...] = ()
    evidence: tuple[dict[str, Any], ...] = ()
    trajectory: tuple[dict[str, Any], ...] = ()
    seed: int = 0
    settings: dict[str, Any] = Field(default_factory=dict)
    seconds: float = Field(default=0.0, allow_inf_nan=False)
    usage: Usage = Usage()
    attempts: int = 1
    cause: FailureCause | None = None
    ending: str = ""
    fallback: str = ""


class ParsedScore(Record):
    """The values of a score under one parser, strict or lenient.

    Attributes:
        status: ok, failed, not_applicable or not_run.
        values: Value of each dimension, in [0, 1]. Dimensions that are not applicable are missing.
        na: Dimensions that are marked not applicable.
        rationale: The scorer's explanation of the values.
        reason: Why there are no values, when the status is not ok.
        read_from: Part of the reply that the values were read from; empty for the whole reply, or without a reply.
    """

    status: ScoreStatus
    values: dict[str, float] = Field(default_factory=dict)
    na: tuple[str, ...] = ()
    rationale: str = ""
    reason: str = ""
    read_from: str = ""


class Attempt(Record):
    """One call of a language-model judge, with its raw reply.

    Attributes:
        reply: Raw text of the reply; empty when there was none.
        error: What is wrong with the call or its reply; empty when nothing is.
        model: Model name that the endpoint returned.
        finish_reason: Why the model stopped, as the endpoint reports it.
        refused: Whether the model or a content filter refused. No value is parsed from such a reply.
        reasoning: The model's reasoning, where the endpoint returned nothing else; cut to a bounded length.
        changes: How the request differed from the one that was asked for, because the endpoint does not accept it.
        seconds: Duration of the call in seconds.
        usage: Tokens and cost.
        cached: Whether the reply was reused from an earlier, identical request, at no further cost.
    """

    reply: str = ""
    error: str = ""
    model: str = ""
    finish_reason: str = ""
    refused: bool = False
    reasoning: str = ""
    changes: tuple[str, ...] = ()
    seconds: float = Field(default=0.0, allow_inf_nan=False)
    usage: Usage = Usage()
    cached: bool = False


class Score(Record):
    """The stored result of scoring one image by one scorer.

    Attributes:
        sample_id: Id of the sample.
        repeat: Number of the generation's repeat, from 0.
        scorer: Name of the scorer in this run, such as `world_check` or `vlm:gpt-4.1`.
        judge_repeat: Number of the score of this image by this scorer, from 0.
        status: Status of `strict`.
        strict: Values of the first reply that meets the scorer's contract.
        lenient: Values of the first reply that the official evaluator would accept; None for a scorer that computes its
            values, for which both protocols use `strict`.
        image: SHA-256 hex digest of the scored image.
        attempts: Every call, oldest first, over all calls on this run directory.
        judge_asked: Model name in the request.
        judge_returned: Model name in the reply that was parsed.
        parser: Version of the parser.
        details: Intermediate results, such as recognised text and matches.
        seconds: Duration in seconds.
        usage: Tokens and cost of all attempts.
        tries: Number of times that the engine tried to score the image, over all calls on this run directory.
        cause: What caused the failure, when the status is failed; None otherwise.
    """

    sample_id: str
    repeat: int = 0
    scorer: str
    judge_repeat: int = 0
    status: ScoreStatus
    strict: ParsedScore
    lenient: ParsedScore | None = None
    image: str = ""
    attempts: tuple[Attempt, ...] = ()
    judge_asked: str = ""
    judge_returned: str = ""
    parser: str = ""
    details: dict[str, Any] = Field(default_factory=dict)
    seconds: float = Field(default=0.0, allow_inf_nan=False)
    usage: Usage = Usage()
    tries: int = 1
    cause: FailureCause | None = None


class Row(Record):
    """One generation with one score: the input of the statistics.

    A generation with J scores by a scorer gives J rows; one without a score gives one row with status not_run.

    Attributes:
        sample_id: Id of the sample, the unit that intervals resample.
        category: Category of the sample.
        group: Group of the category.
        difficulty: Difficulty of the sample.
        text_required: Whether the prompt asks for written text; None when the task version does not say.
        repeat: Number of the generation's repeat, from 0.
        judge_repeat: Number of the score, from 0.
        generation: Status of the generation.
        generation_reason: Why the image is missing, when that status is not ok.
        generation_cause: What caused the failure of the generation, when it failed.
        score_cause: What caused the failure of the score, when it failed.
        strict: Values under the scorer's contract; not_run without a score.
        lenient: Values under the official parser; None when the scorer has only one.
        judge_returned: Model name that the judge's endpoint returned.
        answer: Status of the agent's answer; None in a run without an agent.
        answer_reason: Why the answer is missing, when that status is failed.
        answer_cause: What caused the failure of the answer, when it failed.
        ending: How the agent ended, in the terms of its own protocol.
        fallback: Why the agent's answer was not used; empty where it was.
    """

    sample_id: str
    category: str = ""
    group: str = UNKNOWN_GROUP
    difficulty: str = ""
    text_required: bool | None = None
    repeat: int = 0
    judge_repeat: int = 0
    generation: GenerationStatus
    generation_reason: str = ""
    generation_cause: FailureCause | None = None
    score_cause: FailureCause | None = None
    strict: ParsedScore
    lenient: ParsedScore | None = None
    judge_returned: str = ""
    answer: AnswerStatus | None = None
    answer_reason: str = ""
    answer_cause: FailureCause | None = None
    ending: str = ""
    fallback: str = ""


Item = tuple[Sample, GroundTruth, Generation]
"""What a scorer is given for one image."""
