"""The records that flow through a run. Plain, frozen data; nothing here knows a task, a generator or a scorer.

A sample travels to the generator as a `GenerationRequest`, which carries no truth and no category. What comes back
is stored as a `Generation`, judged into `Score`s, and read by the statistics as rows.
"""

from __future__ import annotations

import hashlib
import io
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from PIL.Image import Image

DIMENSIONS = ("faithfulness", "visual_correctness", "text_accuracy", "aesthetics")
"""The four dimensions of a KnowGen score, in the order of the published table; each in [0, 1]."""

TEXT = "text_accuracy"

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
"""Category groups of the benchmark; names are lower case and exact."""

UNKNOWN_GROUP = "unknown"


def group_of(category: str) -> str:
    """Returns the group of a category, or `UNKNOWN_GROUP` when no group lists it (the comparison is exact)."""
    return next((group for group, members in GROUPS.items() if category in members), UNKNOWN_GROUP)


class Record(BaseModel):
    """Base of all records: frozen, and strict about fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GenerationStatus(StrEnum):
    """What became of a drawing."""

    OK = "ok"
    FAILED = "failed"
    REFUSED = "refused"
    NOT_RUN = "not_run"


class ScoreStatus(StrEnum):
    """What became of a judgement."""

    OK = "ok"
    FAILED = "failed"
    NOT_APPLICABLE = "not_applicable"
    NOT_RUN = "not_run"


class ImageRef(Record):
    """A picture named by its content.

    Attributes:
        sha256: Hex digest of the file's bytes.
        width: Pixels.
        height: Pixels.
        format: As Pillow names it: PNG, JPEG, WEBP.
        path: Where the file lies on this machine; never part of a stored record or a key.
    """

    sha256: str
    width: int
    height: int
    format: str
    path: Path | None = Field(default=None, exclude=True, repr=False)

    def open(self) -> Image:
        """Opens the picture and reads its pixels.

        Raises:
            ValueError: The record has no path on this machine.
            OSError: The file is missing or does not decode.
        """
        from PIL import Image

        if self.path is None:
            raise ValueError(f"picture {self.sha256[:12]} has no file on this machine")
        with Image.open(self.path) as picture:
            picture.load()
            return picture.copy()


def image_ref(path: Path | str) -> ImageRef:
    """Return the record of an image file, with its path.

    Raises:
        OSError: The file is missing, or is not an image that Pillow reads.
    """
    from PIL import Image

    data = Path(path).read_bytes()
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        width, height, form = opened.width, opened.height, str(opened.format)
    digest = hashlib.sha256(data).hexdigest()
    return ImageRef(sha256=digest, width=width, height=height, format=form, path=Path(path))


class Sample(Record):
    """One prompt of a task, with what may be known in public.

    Attributes:
        id: Unique in its task; compared as a string.
        prompt: The original prompt; the judge always reads this one.
        category: Lower-case category; may be unknown to `GROUPS`.
        group: Group of the category, `UNKNOWN_GROUP` when there is none.
        difficulty: Free word such as easy, medium, hard; empty when the task has none.
        text_required: Does the prompt ask for written text? None where the task version has not settled it.
        meta: Anything else that is public.
    """

    id: str
    prompt: str
    category: str = ""
    group: str = UNKNOWN_GROUP
    difficulty: str = ""
    text_required: bool | None = None
    meta: dict[str, Any] = Field(default_factory=dict)


class GroundTruth(Record):
    """What scorers compare with; no generator sees it, unless it declares itself privileged.

    Attributes:
        sample_id: The sample it belongs to.
        image: The ground-truth picture, when the task has one.
        required_text: Strings that must be readable in the picture.
        subjects: What must be seen, as the task describes it (worlds: name, look, look-alike).
        text_required: As in the sample.
        evidence: Pages and pictures from which the facts follow.
        extra: Task-specific truth a scorer of that task may need (worlds: the scene and the sign).
    """

    sample_id: str
    image: ImageRef | None = None
    required_text: tuple[str, ...] = ()
    subjects: tuple[dict[str, Any], ...] = ()
    text_required: bool | None = None
    evidence: tuple[str, ...] = ()
    extra: dict[str, Any] = Field(default_factory=dict)


class GenerationRequest(Record):
    """What a generator is asked to draw. Made from a `Sample` alone: no category, no difficulty, no truth.

    Attributes:
        id: Opaque, unique in the run; a drawing that is yielded must carry it back.
        prompt: The prompt to draw.
        repeat: Number of the repeat, from 0.
        seed: Seed of this picture, 0 <= seed < 2**31.
        references: Reference images to draw from.
        truth: Given to generators that declare themselves privileged, None for all others.
    """

    id: str
    prompt: str
    repeat: int = 0
    seed: int = 0
    references: tuple[ImageRef, ...] = ()
    truth: GroundTruth | None = None


def request_id(sample_id: str, repeat: int) -> str:
    """Returns an opaque name for a sample and repeat: 16 hex digits that tell nothing of either."""
    return hashlib.sha256(f"request\0{sample_id}\0{repeat}".encode()).hexdigest()[:16]


class Usage(Record):
    """Tokens and money of a call. Cost in US dollars; None where the price is not known."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = Field(default=None, allow_inf_nan=False)


class Generation(Record):
    """A drawing as it is stored.

    Attributes:
        sample_id: The sample it answers.
        repeat: From 0.
        status: What became of it.
        reason: Why, when the status is not ok.
        image: The stored picture, when the status is ok.
        used_prompt: The prompt that was drawn, when the generator rewrote it; else empty.
        references: Reference images the generator chose, each with what it noted of them.
        evidence: Text the generator gathered (an agent's pages), for scorers that read it.
        trajectory: The agent's steps, when there were any.
        seed: The seed it was drawn with.
        settings: What the generator set: steps, size, library versions, device.
        seconds: Time from request to picture.
        usage: Tokens and cost.
        attempts: Tries so far, over all runs of this directory.
    """

    sample_id: str
    repeat: int = 0
    status: GenerationStatus
    reason: str = ""
    image: ImageRef | None = None
    used_prompt: str = ""
    references: tuple[dict[str, Any], ...] = ()
    evidence: tuple[dict[str, Any], ...] = ()
    trajectory: tuple[dict[str, Any], ...] = ()
    seed: int = 0
    settings: dict[str, Any] = Field(default_factory=dict)
    seconds: float = Field(default=0.0, allow_inf_nan=False)
    usage: Usage = Usage()
    attempts: int = 1


class ParsedScore(Record):
    """One way to read what a scorer found.

    Attributes:
        status: ok, failed, not_applicable.
        values: By dimension, each in [0, 1]; a dimension that is N/A is absent.
        na: Dimensions marked not applicable.
        rationale: The judge's words.
        reason: Why, when the status is not ok.
    """

    status: ScoreStatus
    values: dict[str, float] = Field(default_factory=dict)
    na: tuple[str, ...] = ()
    rationale: str = ""
    reason: str = ""


class Attempt(Record):
    """One call to a judge, kept whole.

    Attributes:
        reply: The raw text that came back, empty when none did.
        error: What went wrong with the call or the reply, empty when nothing did.
        model: Model name the endpoint returned.
        finish_reason: As the endpoint said.
        refused: Did the judge or its filter refuse? Whatever the reply holds then, no value is read from it.
        seconds: Duration of the call.
        usage: Tokens and cost.
        cached: Was the reply kept from an earlier run that asked exactly the same? It then cost nothing again.
    """

    reply: str = ""
    error: str = ""
    model: str = ""
    finish_reason: str = ""
    refused: bool = False
    seconds: float = Field(default=0.0, allow_inf_nan=False)
    usage: Usage = Usage()
    cached: bool = False


class Score(Record):
    """A judgement of one generation by one scorer.

    Attributes:
        sample_id: The sample.
        repeat: The generation's repeat.
        scorer: The scorer's label in this run, such as `world_check` or `vlm:gpt-4.1`.
        judge_repeat: From 0.
        status: Status of the strict reading.
        strict: The reading that holds to the scorer's contract.
        lenient: The official reading of the same attempts; None where a scorer measures and nothing was parsed, so
            that both protocols read `strict`.
        image: Digest of the picture that was judged.
        attempts: Every call, in order, over all runs.
        judge_asked: Model name asked for.
        judge_returned: Model name of the reply that was read.
        parser: Version of the code that read the replies.
        details: What the scorer measured on the way (recognised text, matches).
        seconds: Time it took.
        usage: Tokens and cost of all attempts.
        tries: Tries of the engine so far, over all runs of this directory.
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


class Row(Record):
    """One generation under one judgement: what the statistics read.

    A generation that was judged J times gives J rows; one that was never judged gives one row whose score is not_run.

    Attributes:
        sample_id: The sample, the unit of every interval.
        category: Of the sample.
        group: Of the sample.
        difficulty: Of the sample.
        text_required: Of the sample; None where the task version has not settled it.
        repeat: Of the generation.
        judge_repeat: Of the judgement.
        generation: Status of the drawing.
        generation_reason: Why, when it is not ok.
        strict: The contract reading of the judgement; its status is not_run where there was none.
        lenient: The official reading; None where the scorer has only one.
        judge_returned: Model name the judge's endpoint returned.
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
    strict: ParsedScore
    lenient: ParsedScore | None = None
    judge_returned: str = ""


Item = tuple[Sample, GroundTruth, Generation]
"""What a scorer is given for one image."""
