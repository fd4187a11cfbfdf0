"""The files of a leaderboard: `board.yaml`, `samples.jsonl`, and a submission's `system.yaml` and `result.json`.

All schemas are strict: an unknown field is an error. Category, difficulty and `text_required` of a sample come from the
board alone, so that no submission can move a sample to another group.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from knowgen.core.records import (
    AnswerStatus,
    FailureCause,
    GenerationStatus,
    ParsedScore,
    Record,
    ScoreStatus,
)
from knowgen.core.spec import RunSpec, ScorerSpec
from knowgen.stats.summary import OVERALL, Coverage

FORMAT = 1
"""Version of the format of `result.json`."""

SLUG = r"[a-z0-9][a-z0-9._-]{0,79}"
"""Pattern of the folder names of boards, systems and revisions."""

MAX_SIDE = 1_000_000
"""Maximum width and height of an image in pixels, more than any file format has."""

HEX64 = r"[0-9a-f]{64}"
"""Pattern of a SHA-256 hex digest. Patterns of fields are anchored, because pydantic searches for them."""


class TieRule(Record):
    """When two systems count as different.

    Attributes:
        level: Significance level of the paired test.
        correction: Correction of the p-values of all pairs of a board.
    """

    level: float = Field(default=0.05, gt=0, lt=1)
    correction: Literal["holm", "none"] = "holm"


class BoardTask(Record):
    """The task of a board.

    Attributes:
        name: Name of the task, or its folder or `file.py:name` relative to the board's folder.
        version: Version that submissions must have; None until `knowgen board pin` has pinned it.
    """

    name: str
    version: str | None = None


class BoardScorer(Record):
    """The scorer of a board.

    Attributes:
        name: Name of the scorer, such as `vlm:gpt-4.1`.
        args: Arguments that decide the score, as a run records them, such as `rubric: upstream`. A submission must have
            the same; one that it leaves out, or that the board leaves out, has its default.
        versions: Accepted versions of the scorer (rubric, arithmetic and parser).
        judges: Accepted model names that the judge's endpoint returns; empty for a scorer without a judge.
        dimensions: Its dimensions, in the order of the table.
    """

    name: str
    args: dict[str, Any] = Field(default_factory=dict)
    versions: tuple[str, ...] = Field(min_length=1)
    judges: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = Field(min_length=1)


class PublishedTable(Record):
    """Rows that were published elsewhere. They are shown apart: as published, not checked.

    Attributes:
        file: CSV file in the board's folder.
        source: Where the rows come from.
        url: Address of the source.
        arxiv: Number of the paper on arXiv; empty without one.
    """

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.csv$")
    source: str
    url: str = ""
    arxiv: str = Field(default="", pattern=r"^([0-9]{4}\.[0-9]{4,5})?$")


class BoardFile(Record):
    """The content of `board.yaml`.

    Attributes:
        title: Title of the board.
        description: One or more sentences for readers.
        task: The task, with its version.
        scorer: The scorer, with its versions and judges.
        protocol: Scoring protocol.
        protocol_version: Version of its arithmetic.
        min_coverage: Minimum share of the expected scores, in (0, 1].
        ranking: Figure that ranks the systems: `overall`, or a dimension.
        repeats: Minimum number of images per sample.
        ties: When two systems count as different.
        published: Published rows; None without any.
        season: File of a private season in the board's folder; None for a board of a public task.
    """

    title: str = Field(min_length=1, max_length=120)
    description: str = ""
    task: BoardTask
    scorer: BoardScorer
    protocol: Literal["strict", "official"]
    protocol_version: str
    min_coverage: float = Field(default=0.95, gt=0, le=1)
    ranking: str = OVERALL
    repeats: int = Field(default=1, ge=1)
    ties: TieRule = TieRule()
    published: PublishedTable | None = None
    season: str | None = None


class TruthHashes(Record):
    """Hashes of a ground-truth image, which reveal nothing of what it shows.

    Attributes:
        sha256: SHA-256 hex digest of the file.
        perceptual: Perceptual hash of the image, in hex digits; empty if unknown.
    """

    sha256: str = Field(pattern=rf"^{HEX64}$")
    perceptual: str = ""


class BoardSample(Record):
    """One line of a board's `samples.jsonl`, in the order of the task.

    Attributes:
        id: Id of the sample.
        prompt: Its prompt.
        category: Its category.
        difficulty: Its difficulty.
        text_required: Whether the prompt asks for written text; None if the task does not say.
        truth: Hashes of the ground-truth image; None without one, and while a private season is open.
    """

    id: str
    prompt: str
    category: str = ""
    difficulty: str = ""
    text_required: bool | None = None
    truth: TruthHashes | None = None


class SystemLink(Record):
    """A link of a system: http or https only.

    Attributes:
        title: Text of the link, such as `paper` or `code`.
        url: Its address.
    """

    title: str = Field(min_length=1, max_length=60)
    url: str = Field(max_length=500)

    @field_validator("url")
    @classmethod
    def _is_web(cls, url: str) -> str:
        if not url.startswith(("https://", "http://")):
            raise ValueError("must begin with https:// or http://")
        return url


class Adapter(Record):
    """The code that ran the system, so that others can run it again.

    Attributes:
        package: Distribution that has the generator, as pip names it, with its version; empty for a bundled generator.
        generator: Name of the generator or agent, `module:Class` or `file.py:Class`, as given to `--generator`.
        revision: Version of its code or model, as the run records it.
        commit: Commit of its code; empty for a released package.
        arguments: Arguments of the generator (`-g`), those of an agent's parts as `painter`, `painter.KEY` and so on.
        search: Identity of its search backend, as the run records it; empty without one.
    """

    package: str = ""
    generator: str = Field(min_length=1)
    revision: str = ""
    commit: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)
    search: str = ""


SystemKind = Literal["image_model", "agent", "baseline"]


class SystemFile(Record):
    """The content of `system.yaml`: what the submitter says of the system.

    Attributes:
        name: Name of the system in tables.
        revision: Name of this revision, which is also its folder.
        kind: Image model, agent that searches before an image model, or baseline.
        authors: Names of the authors or the group.
        links: Links to paper, code or weights.
        licence: Licence of the weights or the service, such as an SPDX identifier or `proprietary`.
        open_weights: Whether the weights can be downloaded.
        search: Whether the system searches.
        parameters: Number of parameters in words, such as `20B` or `undisclosed`.
        training_data: What it was trained on, as far as is known.
        contact: Address for questions; a mail address or a URL.
        adapter: The code that ran it.
        notes: Further remarks.
    """

    name: str = Field(min_length=1, max_length=80)
    revision: str = Field(pattern=rf"^{SLUG}$")
    kind: SystemKind
    authors: tuple[str, ...] = Field(min_length=1)
    links: tuple[SystemLink, ...] = ()
    licence: str = Field(min_length=1, max_length=120)
    open_weights: bool
    search: bool
    parameters: str = Field(min_length=1, max_length=60)
    training_data: str = Field(min_length=1, max_length=2000)
    contact: str = Field(min_length=1, max_length=200)
    adapter: Adapter
    notes: str = Field(default="", max_length=2000)


class SubmittedImage(Record):
    """An image of a submission.

    Attributes:
        sha256: SHA-256 hex digest of the file that was scored.
        width: Width in pixels.
        height: Height in pixels.
        format: Format as Pillow names it.
        perceptual: Perceptual hash of the image in hex digits.
        thumbnail: SHA-256 hex digest of `images/<digest>.jpg` in the submission, a small copy; empty without one.
        file: Name of the file in the submission's `images/` that holds the scored image itself; empty without one.
    """

    sha256: str = Field(pattern=rf"^{HEX64}$")
    width: int = Field(ge=1, le=MAX_SIDE)
    height: int = Field(ge=1, le=MAX_SIDE)
    format: str = ""
    perceptual: str = ""
    thumbnail: str = Field(default="", pattern=rf"^(?:{HEX64})?$")
    file: str = Field(default="", pattern=rf"^(?:{HEX64}\.[a-z0-9]{{1,8}})?$")


class SubmittedScore(Record):
    """A score of a submission, as in `knowgen.core.records.Row`.

    Attributes:
        judge_repeat: Number of the score, from 0.
        strict: Values under the scorer's contract, with the rationale.
        lenient: Values under the official parser; None when the scorer has only one reading.
        cause: What caused the failure, when the score failed.
        judge: Model name that the judge's endpoint returned; empty without a judge.
    """

    judge_repeat: int = Field(default=0, ge=0)
    strict: ParsedScore = ParsedScore(status=ScoreStatus.NOT_RUN)
    lenient: ParsedScore | None = None
    cause: FailureCause | None = None
    judge: str = ""


class SubmittedAnswer(Record):
    """What became of an agent's answer.

    Attributes:
        status: Its status.
        reason: Why it is missing.
        cause: What caused the failure, when it failed.
        ending: How the agent ended, in the terms of its own protocol.
    """

    status: AnswerStatus
    reason: str = ""
    cause: FailureCause | None = None
    ending: str = ""


class SubmittedGeneration(Record):
    """A generation of a submission, with its scores.

    Attributes:
        repeat: Number of the repeat, from 0.
        status: Whether there is an image.
        reason: Why there is none.
        cause: What caused the failure.
        image: The image.
        used_prompt: The prompt that the image was generated from, when it is not the sample's own.
        seconds: Time from request to image in seconds, the agent's time included; None when unknown.
        cost: Cost in US dollars, the agent's included; None when unknown.
        answer: The agent's answer; None without an agent.
        fallback: Why the agent's answer was not used; empty where it was.
        scores: One score for each judge repeat.
    """

    repeat: int = Field(default=0, ge=0)
    status: GenerationStatus
    reason: str = ""
    cause: FailureCause | None = None
    image: SubmittedImage | None = None
    used_prompt: str = ""
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    cost: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    answer: SubmittedAnswer | None = None
    fallback: str = ""
    scores: tuple[SubmittedScore, ...] = ()


class SubmittedSample(Record):
    """A sample of a submission: its id and its generations, one for each repeat."""

    id: str
    generations: tuple[SubmittedGeneration, ...] = Field(min_length=1)


class SubmittedReply(Record):
    """One line of `replies.jsonl`: one call of the judge, as in `knowgen.core.records.Attempt`.

    Attributes:
        sample: Id of the sample.
        repeat: Number of the generation's repeat, from 0.
        judge_repeat: Number of the score, from 0.
        attempt: Number of the call for this score, from 0.
        model: Model name that the endpoint returned.
        reply: Raw text of the reply; empty when there was none.
        error: What is wrong with the call or its reply; empty when nothing is.
        refused: Whether the model or a content filter refused.
        reasoning: The model's reasoning, where the endpoint returned nothing else.
    """

    sample: str
    repeat: int = Field(default=0, ge=0)
    judge_repeat: int = Field(default=0, ge=0)
    attempt: int = Field(default=0, ge=0)
    model: str = ""
    reply: str = ""
    error: str = ""
    refused: bool = False
    reasoning: str = ""


class SubmittedCost(Record):
    """Cost of a run in US dollars; None where a price is not known.

    Attributes:
        agent: Agent: policy, searches and tools; 0 without one.
        generation: Image model.
        scoring: Judge.
        total: All together, as the run's budget counted it.
    """

    agent: float | None = None
    generation: float | None = None
    scoring: float | None = None
    total: float | None = None


class SubmissionResult(Record):
    """The content of `result.json`: everything that the figures of a submission are computed from.

    Attributes:
        format: Version of the format.
        knowgen: Version of knowgen that wrote the file.
        created: When the run directory was created, ISO 8601 in UTC.
        spec: Specification of the run: task and version, selection, generator, agent, seed, repeats.
        scorer: Specification of the scorer whose scores these are; its version covers rubric, arithmetic and parser.
        rubric: SHA-256 hex digest of the judge's rubric; empty for a scorer without one.
        protocol: Scoring protocol of the claimed figures.
        protocol_version: Version of its arithmetic.
        judges: Number of scores by model name that the judge's endpoint returned.
        claimed: The figures of the whole that the submission claims: each dimension and `overall`, in [0, 1].
        coverage: Claimed state of every expected score.
        cost: What the run cost.
        seconds: Wall time of the run in seconds; None if not known.
        machine: Accelerators, processor and system in words; empty if not known.
        samples: All samples, in the order of the task.
    """

    format: Literal[1]
    knowgen: str
    created: str
    spec: RunSpec
    scorer: ScorerSpec
    rubric: str = ""
    protocol: str
    protocol_version: str
    judges: dict[str, int] = Field(default_factory=dict)
    claimed: dict[str, float | None]
    coverage: Coverage
    cost: SubmittedCost = SubmittedCost()
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    machine: str = ""
    samples: tuple[SubmittedSample, ...] = Field(min_length=1)


class Withdrawal(Record):
    """The content of `withdrawn.yaml` in the folder of a revision.

    Attributes:
        date: Day of the withdrawal, ISO 8601.
        reason: Why it was withdrawn, for readers of the board.
    """

    date: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")
    reason: str = Field(min_length=1, max_length=2000)
