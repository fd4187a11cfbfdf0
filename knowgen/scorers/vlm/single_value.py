"""Contracts of one value: a judge gives its reasons and one number of a grid.

One `SingleValueContract` makes the instruction, the JSON schema and what the two readers accept, so they cannot part ways.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
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
from knowgen.scorers.vlm.parsing import ReplyError, read_object, read_object_leniently, shown
from knowgen.scorers.vlm.retry import ask_until_valid

VALUE_PARSER_VERSION = "knowgen-verdict-2"
"""Raised whenever a reply could be read differently than before."""

RATIONALE = "rationale"
RATIONALE_LIMIT = 1000
"""Characters of the rationale that are kept."""


class _ContractModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ValueLevel(_ContractModel):
    """One value and when it is given.

    Attributes:
        value: In [0, 1].
        when: What must hold.
    """

    value: float
    when: str


class SingleValueContract(_ContractModel):
    """What is asked, and what a reply must look like.

    Attributes:
        name: Key of the value in the reply, and the score's dimension.
        question: What the value answers.
        reasons: What the rationale is to name.
        levels: The grid, from the best value down.
    """

    name: str
    question: str
    reasons: str
    levels: tuple[ValueLevel, ...]

    @property
    def grid(self) -> tuple[float, ...]:
        """Returns the values a verdict can take, rising."""
        return tuple(sorted(level.value for level in self.levels))

    @property
    def grid_words(self) -> str:
        """Returns the grid as it is written for the judge: `0, 0.5 or 1`."""
        words = [f"{value:g}" for value in self.grid]
        return f"{', '.join(words[:-1])} or {words[-1]}"

    def json_schema(self) -> dict[str, Any]:
        """Returns the JSON schema of a reply, for endpoints that hold a model to one."""
        return {
            "type": "object",
            "properties": {RATIONALE: {"type": "string"}, self.name: {"type": "number", "enum": list(self.grid)}},
            "required": [RATIONALE, self.name],
            "additionalProperties": False,
        }

    def instruction(self) -> str:
        """Returns the part of the rubric that says what is asked, what each value means, and how to answer."""
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
    """Reads a reply by the contract: one JSON object, its value a number of the grid, its rationale a string.

    Keys the contract does not know are ignored; a key given twice is a fault.

    Returns:
        An ok reading, or what is wrong, in words that can be sent back to the judge.
    """
    found = read_object(text)
    if isinstance(found, ReplyError):
        return found
    faults: list[str] = []
    rationale = found.get(RATIONALE)
    if not isinstance(rationale, str):
        faults.append(f'"{RATIONALE}" must be a string')
        rationale = ""
    value = found.get(contract.name)
    if contract.name not in found:
        faults.append(f'"{contract.name}" is missing')
    elif isinstance(value, bool) or not isinstance(value, int | float) or value not in contract.grid:
        faults.append(f'"{contract.name}" must be the number {contract.grid_words}, not {shown(value)}')
    if faults:
        return ReplyError(tuple(faults))
    assert isinstance(value, int | float)
    return _reading(contract, float(value) + 0.0, rationale)  # -0.0 becomes 0.0


def read_value_leniently(text: str, contract: SingleValueContract) -> ParsedScore | None:
    """Reads a reply as training takes it: any number, moved to the nearest value of the grid.

    The object is found as the official evaluator finds it. Numbers and numeric strings count and are clipped to
    [0, 1]; halfway between two values the lower one is taken (source of the nearest value: Gen-Searcher, arXiv
    2603.28767, the text reward).

    Returns:
        An ok reading; None where there is no object, or no number in it.
    """
    found = read_object_leniently(text)
    if found is None:
        return None
    value = found.get(contract.name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
        rationale = str(found.get(RATIONALE, ""))
    except (ValueError, OverflowError, RecursionError):
        return None
    if not math.isfinite(number):
        return None
    number = min(1.0, max(0.0, number))
    return _reading(contract, min(contract.grid, key=lambda value: (abs(value - number), value)), rationale)


def _reading(contract: SingleValueContract, value: float, rationale: str) -> ParsedScore:
    kept = clean_text(rationale[:RATIONALE_LIMIT])
    return ParsedScore(status=ScoreStatus.OK, values={contract.name: value}, rationale=kept)


def read_value_attempts(
    attempts: Sequence[Attempt], contract: SingleValueContract
) -> tuple[ParsedScore, ParsedScore, str]:
    """Reads the attempts of one judgement both ways. From a refused one nothing is read, whatever its reply holds.

    Returns:
        The strict reading: the first reply that meets the contract, else failed with the last fault. The lenient one:
        the first reply with a number, else failed. And the model name that came with the reply that was read (strict
        before lenient before the last).
    """
    strict: tuple[ParsedScore, str] | None = None
    lenient: tuple[ParsedScore, str] | None = None
    last_fault, last_model = "the judge was not asked", ""
    for attempt in attempts:
        if attempt.refused:
            last_fault, last_model = attempt.error or "the judge refused", attempt.model or last_model
            continue
        if lenient is None and (loose := read_value_leniently(attempt.reply, contract)) is not None:
            lenient = (loose, attempt.model)
        found = read_value(attempt.reply, contract)
        last_fault, last_model = attempt.error or str(found), attempt.model or last_model
        if isinstance(found, ParsedScore):
            strict = (found, attempt.model)
            break
    failed = ParsedScore(status=ScoreStatus.FAILED, reason=last_fault)
    returned = next((found[1] for found in (strict, lenient) if found), last_model)
    return strict[0] if strict else failed, lenient[0] if lenient else failed, returned


@dataclass(frozen=True)
class JudgeQuestion:
    """What a judge is asked about one sample.

    Attributes:
        text: Of the user message; stands before the pictures.
        pictures: With their names for errors, in order.
        details: What the score keeps beside the value.
    """

    text: str
    images: tuple[tuple[ImageRef, str], ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False, repr=False, kw_only=True)
class SingleValueJudge(EndpointConfig, ABC):
    """A judge of one value over an OpenAI-compatible endpoint; a reply off the contract is asked again.

    Arguments are those of `EndpointConfig`.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: The key is missing, or the address holds a secret.
    """

    name: ClassVar[str]
    contract: ClassVar[SingleValueContract]
    rubric_version: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    concurrency = 128
    parser = VALUE_PARSER_VERSION
    deadline = 6 * 3600.0

    max_tokens: int = 2048

    def __post_init__(self) -> None:
        """Check the arguments and make the endpoint."""
        self.endpoint = self.open_endpoint(self.name)
        self.label = f"{self.name}:{self.model}"

    @abstractmethod
    def system(self) -> str:
        """Returns the rubric."""

    @abstractmethod
    def question(self, sample: Sample, truth: GroundTruth, generation: Generation) -> JudgeQuestion:
        """Returns what is asked.

        Raises:
            UnscorableError: There is nothing to be asked.
        """

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        """Judges one generation.

        Raises:
            TransientError: The endpoint is busy, broken or out of reach; it carries the attempts made so far.
            UnscorableError: A picture does not open, or there is nothing to compare with.
            BudgetReachedError: The budget does not admit the first call.
            ConfigError: There is a budget and the price is not known.
        """
        if lacking := missing_needs(self.needs, truth, generation):
            reason = f"there is no {' and no '.join(lacking)}"
            return not_applicable_score(sample.id, generation.repeat, self.label, reason)
        started = perf_counter()
        question = self.question(sample, truth, generation)
        images = await asyncio.gather(*(self.endpoint.encode(image, what) for image, what in question.images))
        attempts = await ask_until_valid(
            self.endpoint,
            lambda fault: self._messages(question, images, fault),
            self._fault_of,
            caller=self.label,
            max_calls=self.attempts,
            schema={"name": self.name, "schema": self.contract.json_schema()},
        )
        return self._score_of(sample, generation, question, attempts, images, perf_counter() - started)

    @classmethod
    def reparse(cls, attempts: Sequence[Attempt], sample: Sample) -> tuple[ParsedScore, ParsedScore, str]:
        """Reads attempts of several tries together; see `knowgen.scorers.contract.with_earlier`."""
        return read_value_attempts(attempts, cls.contract)

    async def close(self) -> None:
        """Closes connections and worker processes; in the event loop they were used in."""
        await self.endpoint.close()

    def _messages(
        self, question: JudgeQuestion, images: Sequence[EncodedImageFile], fault: str
    ) -> list[dict[str, Any]]:
        text = question.text
        if fault:
            text += f"\n\nAn earlier reply of yours could not be used: {fault}. Judge again and keep to the form."
        shown = [{"type": "image_url", "image_url": {"url": image}} for image in images]
        return [
            {"role": "system", "content": self.system()},
            {"role": "user", "content": [{"type": "text", "text": text}, *shown]},
        ]

    def _fault_of(self, reply: str) -> str:
        found = read_value(reply, self.contract)
        return "" if isinstance(found, ParsedScore) else str(found)

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
        shown = {what.removeprefix("the "): one.sha256 for (_, what), one in zip(question.images, images, strict=True)}
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
            details={"rubric": self.rubric_version, "pictures": shown, **question.details},
            seconds=seconds,
            usage=usage_of(attempts),
        )


def not_scorable(what: str) -> UnscorableError:
    """Makes the error of a sample that gives a judge nothing to go by."""
    return UnscorableError(f"there is nothing to compare with: {what}")
