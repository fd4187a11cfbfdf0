"""Judges that give one value: the contract of a reply, its parsers, and the base class.

One object, `SingleValueContract`, gives the instruction, the JSON schema and what the two parsers accept.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from knowgen.clients.chat.image_encoding import EncodedImageFile
from knowgen.core.errors import UnscorableError
from knowgen.core.records import Attempt, Generation, GroundTruth, ImageRef, ParsedScore, Sample, Score, ScoreStatus
from knowgen.core.text import clean_text
from knowgen.scorers.contract import missing_needs, not_applicable_score, usage_of
from knowgen.scorers.vlm.endpoint_config import EndpointConfig
from knowgen.scorers.vlm.parsing import (
    ReplyError,
    find_answer,
    first_valid,
    lenient_part,
    quoted,
    read_object_leniently,
    strictly_read,
)
from knowgen.scorers.vlm.retry import ask_until_valid, decoding_details
from knowgen.scorers.vlm.rubric import texts_hash

VALUE_PARSER_VERSION = "knowgen-verdict-4"
"""Version of both parsers. Increment it with any change that could parse a reply differently."""

RATIONALE = "rationale"
"""Key of the rationale in a reply."""

RATIONALE_LIMIT = 1000
"""Maximum number of characters of the rationale that are stored."""


class _ContractModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ValueLevel(_ContractModel):
    """A value of the grid and its condition.

    Attributes:
        value: Value in [0, 1].
        when: Condition for the value.
    """

    value: float
    when: str


class SingleValueContract(_ContractModel):
    """The question to a judge and the format of its reply.

    Attributes:
        name: Key of the value in the reply, and dimension of the score.
        question: Question that the value answers.
        reasons: What the rationale must name.
        levels: Values of the grid with their conditions, from the highest value down.
        other_keys: Keys of the value that are read where a reply has none of that name, such as that of an official
            rubric.
    """

    name: str
    question: str
    reasons: str
    levels: tuple[ValueLevel, ...]
    other_keys: tuple[str, ...] = ()

    @property
    def grid(self) -> tuple[float, ...]:
        """Values of the grid, rising."""
        return tuple(sorted(level.value for level in self.levels))

    @property
    def grid_words(self) -> str:
        """The grid in words: `0, 0.5 or 1`."""
        words = [f"{value:g}" for value in self.grid]
        return f"{', '.join(words[:-1])} or {words[-1]}"

    def key_in(self, reply: Mapping[str, Any]) -> str:
        """Return the key of the value in a reply; the first one where it has none."""
        return next((key for key in (self.name, *self.other_keys) if key in reply), self.name)

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of a reply, for endpoints that can enforce one."""
        return {
            "type": "object",
            "properties": {RATIONALE: {"type": "string"}, self.name: {"type": "number", "enum": list(self.grid)}},
            "required": [RATIONALE, self.name],
            "additionalProperties": False,
        }

    def instruction(self) -> str:
        """Return the part of the rubric with the question, the meaning of each value, and the format of the reply."""
        lines = [
            f"{self.name}: {self.question}",
            *(f"- {level.value:g}: {level.when}" for level in self.levels),
            "When you waver between two values, give the lower one.",
            "",
            "Answer with one JSON object and nothing else: no heading, no code fence, no words before or after it.",
            "Its keys, in this order:",
            f'- "{RATIONALE}": a string of two to six sentences, written before you settle the value. {self.reasons}',
            f'- "{self.name}": the number {self.grid_words}.',
            "Values between those named, percentages and values in quotation marks are not accepted.",
        ]
        return "\n".join(lines)


def read_value(text: str, contract: SingleValueContract) -> ParsedScore | ReplyError:
    """Parse a reply by the contract: one JSON object with a number of the grid and a rationale.

    Unknown keys are ignored; a duplicate key is a fault.

    Args:
        text: Raw reply.
        contract: Contract of the reply.

    Returns:
        A parsed score with status ok, or what is wrong.
    """
    answer = find_answer(text)
    if isinstance(answer, ReplyError):
        return answer
    reply, read_from = answer
    faults: list[str] = []
    rationale = reply.get(RATIONALE)
    if not isinstance(rationale, str):
        faults.append(f'"{RATIONALE}" must be a string')
        rationale = ""
    key = contract.key_in(reply)
    value = reply.get(key)
    if key not in reply:
        faults.append(f'"{key}" is missing')
    elif isinstance(value, bool) or not isinstance(value, int | float) or value not in contract.grid:
        faults.append(f'"{key}" must be the number {contract.grid_words}, not {quoted(value)}')
    if faults:
        return ReplyError(tuple(faults))
    assert isinstance(value, int | float)
    return _parsed(contract, float(value) + 0.0, rationale, read_from)  # -0.0 becomes 0.0


def read_value_leniently(text: str, contract: SingleValueContract) -> ParsedScore | None:
    """Parse a reply for training: accept any number, moved to the nearest value of the grid.

    The JSON object is found as the official evaluator finds it. Numbers and numeric strings are clipped to [0, 1];
    halfway between two values of the grid the lower one is used. Source of the nearest value: the text reward of
    Gen-Searcher, arXiv 2603.28767.

    Args:
        text: Raw reply.
        contract: Contract of the reply.

    Returns:
        A parsed score with status ok; None without a JSON object, or without a number in it.
    """
    reply = read_object_leniently(text)
    if reply is None:
        return None
    value = reply.get(contract.key_in(reply))
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
        rationale = str(reply.get(RATIONALE, ""))
    except (ValueError, OverflowError, RecursionError):
        return None
    if not math.isfinite(number):
        return None
    number = min(1.0, max(0.0, number))
    nearest = min(contract.grid, key=lambda value: (abs(value - number), value))
    return _parsed(contract, nearest, rationale, lenient_part(text))


def _parsed(contract: SingleValueContract, value: float, rationale: str, read_from: str) -> ParsedScore:
    rationale = clean_text(rationale[:RATIONALE_LIMIT])
    return ParsedScore(status=ScoreStatus.OK, values={contract.name: value}, rationale=rationale, read_from=read_from)


def read_value_attempts(
    attempts: Sequence[Attempt], contract: SingleValueContract
) -> tuple[ParsedScore, ParsedScore, str]:
    """Parse the attempts of one score strictly and leniently. Replies of refused attempts are ignored.

    Args:
        attempts: Attempts in order.
        contract: Contract of a reply.

    Returns:
        The strict score: from the first reply that meets the contract, else failed with the last fault. The lenient
        score: from the first reply with a number, else failed. The model name returned with the reply used for the
        strict score, else for the lenient score, else with the last reply.
    """
    return first_valid(
        attempts, lambda text: read_value(text, contract), lambda text: read_value_leniently(text, contract)
    )


@dataclass(frozen=True)
class JudgeImage:
    """An image in the question to a judge.

    Attributes:
        image: The image.
        what: Name of the image in errors, such as `the ground truth`.
        key: Key of the image in the details of the score.
    """

    image: ImageRef
    what: str
    key: str


@dataclass(frozen=True)
class JudgeQuestion:
    """The question to a judge about one sample.

    Attributes:
        text: Text of the user message, which goes before the images.
        images: Images in order.
        details: Further details of the score.
    """

    text: str
    images: tuple[JudgeImage, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False, repr=False, kw_only=True)
class SingleValueJudge(EndpointConfig, ABC):
    """A judge of one value over an OpenAI-compatible endpoint. A reply that breaks the contract is requested again.

    Arguments are those of `EndpointConfig`.

    Raises:
        UsageError: An argument is invalid.
        ConfigError: The key is missing, or the URL contains a secret.
    """

    name: ClassVar[str]
    contract: ClassVar[SingleValueContract]
    rubric_version: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    may_lack: ClassVar[frozenset[str]] = frozenset()
    """Needs of a run that a caller of `score` may leave unmet."""
    concurrency = 128
    parser = VALUE_PARSER_VERSION
    deadline = 6 * 3600.0

    max_tokens: int = 2048

    def __post_init__(self) -> None:
        """Check the arguments and create the endpoint."""
        self.endpoint = self.open_endpoint(self.name)
        self.label = f"{self.name}:{self.model}"

    @abstractmethod
    def system(self) -> str:
        """Return the rubric."""

    def rubric_texts(self) -> tuple[str, tuple[str, ...]]:
        """Return the version of the rubric, and its texts."""
        return self.rubric_version, (self.system(),)

    def schema_of_reply(self) -> Mapping[str, Any] | None:
        """Return name and JSON schema of a reply; None for a rubric that is sent without."""
        return {"name": self.name, "schema": self.contract.json_schema()}

    @abstractmethod
    def question(self, sample: Sample, truth: GroundTruth, generation: Generation) -> JudgeQuestion:
        """Return the question about a generation.

        Raises:
            UnscorableError: The sample does not have what the question needs.
        """

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        """Score one generation.

        Raises:
            ServiceUnavailableError: The endpoint is busy, failing or unreachable. The error carries the attempts so
                far.
            AccountError: The endpoint rejects every call: a wrong key, no credit, an unknown model, a wrong address.
            UnscorableError: An image cannot be opened, or the sample does not have what the question needs.
            BudgetReachedError: The remaining budget is smaller than the worst case of the first call.
            ConfigError: There is a budget and the price is unknown.
        """
        if missing := missing_needs(self.needs - self.may_lack, truth, generation):
            reason = f"no {' and no '.join(missing)}"
            return not_applicable_score(sample.id, generation.repeat, self.label, reason)
        started = perf_counter()
        question = self.question(sample, truth, generation)
        images = await asyncio.gather(*(self.endpoint.encode(each.image, each.what) for each in question.images))
        attempts = await ask_until_valid(
            self.endpoint,
            lambda fault: self._messages(question, images, fault),
            self._find_fault,
            caller=self.label,
            max_calls=self.attempts,
            schema=self.schema_of_reply(),
        )
        images = await self._as_sent(images)
        return self._score_of(sample, generation, question, attempts, images, perf_counter() - started)

    @classmethod
    def reparse(cls, attempts: Sequence[Attempt], sample: Sample) -> tuple[ParsedScore, ParsedScore, str]:
        """Parse attempts of several runs together; see `knowgen.scorers.contract.with_earlier`."""
        return read_value_attempts(attempts, cls.contract)

    async def close(self) -> None:
        """Close connections and worker processes. Call it in the event loop they were used in."""
        await self.endpoint.close()

    def _messages(
        self, question: JudgeQuestion, images: Sequence[EncodedImageFile], fault: str
    ) -> list[dict[str, Any]]:
        text = question.text
        if fault:
            text += f"\n\nAn earlier reply of yours could not be used: {fault}. Judge again and keep to the form."
        image_parts = [{"type": "image_url", "image_url": {"url": image}} for image in images]
        return [
            {"role": "system", "content": self.system()},
            {"role": "user", "content": [{"type": "text", "text": text}, *image_parts]},
        ]

    def _find_fault(self, attempt: Attempt) -> str:
        """Return what is wrong with the reply of an attempt, empty where it meets the contract."""
        parsed = strictly_read(attempt, lambda text: read_value(text, self.contract))
        return "" if isinstance(parsed, ParsedScore) else str(parsed)

    def _score_of(
        self,
        sample: Sample,
        generation: Generation,
        question: JudgeQuestion,
        attempts: Sequence[Attempt],
        images: Sequence[EncodedImageFile],
        seconds: float,
    ) -> Score:
        strict, lenient, returned = read_value_attempts(attempts, self.contract)
        rubric, texts = self.rubric_texts()
        digests = {each.key: image.sha256 for each, image in zip(question.images, images, strict=True)}
        return Score(
            sample_id=sample.id,
            repeat=generation.repeat,
            scorer=self.label,
            status=strict.status,
            strict=strict,
            lenient=lenient,
            image=generation.image.sha256 if generation.image is not None else "",
            attempts=tuple(attempts),
            judge_asked=self.endpoint.model,
            judge_returned=returned,
            parser=VALUE_PARSER_VERSION,
            details={
                "rubric": rubric,
                "rubric_hash": texts_hash(*texts),
                "pictures": digests,
                **question.details,
                **decoding_details(attempts),
            },
            seconds=seconds,
            usage=usage_of(attempts),
        )


def not_scorable(what: str) -> UnscorableError:
    """Return the error of a sample that does not have what the question needs."""
    return UnscorableError(f"there is nothing to compare with: {what}")
