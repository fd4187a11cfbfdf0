"""What judges of one value share: arguments, the conversation with the endpoint, and the score made of it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, ClassVar

from knowgen.errors import UnscorableError
from knowgen.records import Attempt, Generation, GroundTruth, ImageRef, Reading, Sample, Score
from knowgen.scorers.contract import missing_needs, not_applicable_score, usage_of
from knowgen.scorers.converse import converse
from knowgen.scorers.endpoint_config import EndpointConfig
from knowgen.scorers.pictures import Encoded
from knowgen.scorers.verdict import VERDICT_PARSER_VERSION, VerdictContract, read_verdict, read_verdicts


@dataclass(frozen=True)
class Question:
    """What a judge is asked about one sample.

    Attributes:
        text: Of the user message; stands before the pictures.
        pictures: With their names for errors, in order.
        details: What the score keeps beside the value.
    """

    text: str
    pictures: tuple[tuple[ImageRef, str], ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False, repr=False, kw_only=True)
class VerdictJudge(EndpointConfig, ABC):
    """A judge of one value over an OpenAI-compatible endpoint; a reply off the contract is asked again.

    Arguments are those of `EndpointConfig`.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: The key is missing, or the address holds a secret.
    """

    name: ClassVar[str]
    contract: ClassVar[VerdictContract]
    rubric_version: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    concurrency = 128
    parser = VERDICT_PARSER_VERSION
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
    def question(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Question:
        """Returns what is asked.

        Raises:
            UnscorableError: There is nothing to be asked.
        """

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        """Judges one generation.

        Raises:
            PassingError: The endpoint is busy, broken or out of reach; it carries the attempts made so far.
            UnscorableError: A picture does not open, or there is nothing to compare with.
            BudgetReachedError: The budget does not admit the first call.
            ConfigError: There is a budget and the price is not known.
        """
        if lacking := missing_needs(self.needs, truth, generation):
            reason = f"there is no {' and no '.join(lacking)}"
            return not_applicable_score(sample.id, generation.repeat, self.label, reason)
        started = perf_counter()
        question = self.question(sample, truth, generation)
        pictures = await asyncio.gather(*(self.endpoint.encode(picture, what) for picture, what in question.pictures))
        attempts = await converse(
            self.endpoint,
            lambda fault: self._messages(question, pictures, fault),
            self._fault_of,
            who=self.label,
            most=self.attempts,
            schema={"name": self.name, "schema": self.contract.json_schema()},
        )
        return self._score_of(sample, generation, question, attempts, pictures, perf_counter() - started)

    @classmethod
    def reread(cls, attempts: Sequence[Attempt], sample: Sample) -> tuple[Reading, Reading, str]:
        """Reads attempts of several tries together; see `knowgen.scorers.contract.with_earlier`."""
        return read_verdicts(attempts, cls.contract)

    async def close(self) -> None:
        """Closes connections and worker processes; in the event loop they were used in."""
        await self.endpoint.close()

    def _messages(self, question: Question, pictures: Sequence[Encoded], fault: str) -> list[dict[str, Any]]:
        text = question.text
        if fault:
            text += f"\n\nAn earlier reply of yours could not be used: {fault}. Judge again and keep to the form."
        shown = [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
        return [
            {"role": "system", "content": self.system()},
            {"role": "user", "content": [{"type": "text", "text": text}, *shown]},
        ]

    def _fault_of(self, reply: str) -> str:
        found = read_verdict(reply, self.contract)
        return "" if isinstance(found, Reading) else str(found)

    def _score_of(
        self,
        sample: Sample,
        generation: Generation,
        question: Question,
        attempts: Sequence[Attempt],
        pictures: Sequence[Encoded],
        seconds: float,
    ) -> Score:
        strict, lenient, returned = read_verdicts(attempts, self.contract)
        shown = {
            what.removeprefix("the "): one.sha256 for (_, what), one in zip(question.pictures, pictures, strict=True)
        }
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
            parser=VERDICT_PARSER_VERSION,
            details={"rubric": self.rubric_version, "pictures": shown, **question.details},
            seconds=seconds,
            usage=usage_of(attempts),
        )


def not_scorable(what: str) -> UnscorableError:
    """Makes the error of a sample that gives a judge nothing to go by."""
    return UnscorableError(f"there is nothing to compare with: {what}")
