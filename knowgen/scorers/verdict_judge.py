"""What judges of one value share: arguments, the conversation with the endpoint, and the score made of it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, ClassVar

from knowgen.clients.pricing import chat_price
from knowgen.errors import UnscorableError, UsageError
from knowgen.records import Attempt, Generation, GroundTruth, ImageRef, Reading, Sample, Score
from knowgen.remote.pace import Limits
from knowgen.scorers.contract import missing_needs, not_applicable_score, usage_of
from knowgen.scorers.converse import converse
from knowgen.scorers.endpoint import Endpoint, SchemaUse
from knowgen.scorers.pictures import LONGEST_SIDE, QUALITY, Encoded, PictureForm
from knowgen.scorers.verdict import VERDICT_PARSER_VERSION, VerdictContract, read_verdict, read_verdicts
from knowgen.scorers.vlm import MOST_AT_ONCE, check_judge


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


class VerdictJudge(ABC):
    """A judge of one value over an OpenAI-compatible endpoint; a reply off the contract is asked again.

    Args:
        model: Model name, as the endpoint knows it.
        base_url: Address of the endpoint, such as `http://127.0.0.1:8000/v1`; empty for OpenAI.
        temperature: Of the decoding, 0 to 2.
        max_tokens: Longest reply.
        attempts: Calls for one judgement, when replies are off the contract.
        schema: Is the model held to the JSON schema of the reply? `auto` asks for it where the endpoint has it.
        max_side: Pixels of the longest side of a picture; larger ones are scaled down.
        quality: Of the JPEGs, 1 to 100.
        price_in: US dollars per million input tokens; give it with `price_out`. Known models need none.
        price_out: US dollars per million output tokens.
        price_call: US dollars per call; 0 says that the endpoint is free.
        key_env: Environment variable with the key; empty means OPENAI_API_KEY, and none for an endpoint on this
            machine.
        concurrency: Calls at once at most.
        rpm: Requests a minute that the endpoint admits, 0 for no limit.
        tpm: Tokens a minute that the endpoint admits, 0 for no limit.
        timeout: Seconds for one call; a judgement whose calls took longer is not asked again.
        cache: Are replies found again that an earlier run got to exactly the same question?

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
    unkeyed = frozenset(
        {"price_in", "price_out", "price_call", "key_env", "concurrency", "timeout", "rpm", "tpm", "cache"}
    )

    def __init__(
        self,
        model: str,
        base_url: str = "",
        temperature: float = 0.0,
        max_tokens: int = 2048,
        attempts: int = 4,
        schema: SchemaUse = "auto",
        max_side: int = LONGEST_SIDE,
        quality: int = QUALITY,
        price_in: float | None = None,
        price_out: float | None = None,
        price_call: float | None = None,
        key_env: str = "",
        concurrency: int = MOST_AT_ONCE,
        rpm: float = 0,
        tpm: float = 0,
        timeout: float = 120.0,
        cache: bool = True,
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise UsageError(
                "the judge needs a model", where=f"scorer {self.name}", fix=f"name it as {self.name}:MODEL"
            )
        where = f"scorer {self.name}:{model}"
        check_judge(where, model, temperature, max_tokens, attempts, concurrency, timeout)
        self.endpoint = Endpoint.of(
            model,
            base_url,
            key_env,
            where,
            temperature=temperature,
            max_tokens=max_tokens,
            timeout=timeout,
            price=chat_price(model, base_url, price_in, price_out, price_call),
            limits=Limits(concurrency, rpm, tpm),
            form=PictureForm(max_side, quality),
            schema=schema,
            keeps=cache,
        )
        self.attempts = attempts
        self.concurrency = concurrency
        self.label = f"{self.name}:{model}"

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
