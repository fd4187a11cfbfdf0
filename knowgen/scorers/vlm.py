"""A VLM as judge, over an OpenAI-compatible endpoint: one call a sample, and what was wrong is asked again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from knowgen.errors import BudgetReachedError, PassingError, UnscorableError, UsageError
from knowgen.records import (
    DIMENSIONS,
    Attempt,
    Generation,
    GroundTruth,
    Reading,
    Sample,
    Score,
)
from knowgen.scorers.contract import usage_of
from knowgen.scorers.endpoint import Came, Endpoint, endpoint_url, key_for
from knowgen.scorers.pictures import PICTURES_VERSION, Encoded, encode
from knowgen.scorers.pricing import Price, most_input_tokens
from knowgen.scorers.reply import PARSER_VERSION, ReplyFault, read_attempts, read_strict
from knowgen.scorers.rubric import RUBRIC_VERSION, system_prompt, user_text

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class VlmJudge:
    """Shows a VLM the prompt, the generated picture and the ground truth, and reads four values from its reply.

    A reply off the contract is asked again with what was wrong, up to `attempts` calls. The strict reading is the
    first reply that meets the contract; the lenient one the first that the official evaluator would have read. Every
    call is kept in the score. The key comes from the environment, never from an argument.

    Args:
        model: Model name, as the endpoint knows it.
        base_url: Address of the endpoint, such as `http://127.0.0.1:8000/v1`; empty for OpenAI.
        temperature: Of the decoding, 0 to 2.
        max_tokens: Longest reply.
        attempts: Calls for one judgement, when replies are off the contract.
        price_in: US dollars per million input tokens; give it with `price_out`.
        price_out: US dollars per million output tokens.
        price_call: US dollars per call; 0 says that the endpoint is free.
        key_env: Environment variable with the key; empty means OPENAI_API_KEY, and none for an endpoint on this
            machine.
        concurrency: Judgements that may wait at once.
        timeout: Seconds for one call; a judgement that has taken longer is not asked again.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: The key is missing, or the address holds a secret.
    """

    needs = frozenset({"image", "truth_image"})
    dimensions = DIMENSIONS
    version = f"{RUBRIC_VERSION} {PARSER_VERSION} {PICTURES_VERSION}"
    note = ""
    parser = PARSER_VERSION
    concurrency = 16
    unkeyed = frozenset({"price_in", "price_out", "price_call", "key_env", "concurrency", "timeout"})

    def __init__(
        self,
        model: str,
        base_url: str = "",
        temperature: float = 0.0,
        max_tokens: int = 8192,
        attempts: int = 4,
        price_in: float | None = None,
        price_out: float | None = None,
        price_call: float | None = None,
        key_env: str = "",
        concurrency: int = 16,
        timeout: float = 120.0,
    ) -> None:
        _check(model, temperature, max_tokens, attempts, concurrency, timeout)
        url = endpoint_url(base_url, f"scorer vlm:{model}")
        self.endpoint = Endpoint(
            model=model,
            base_url=url,
            key=key_for(url, key_env),
            temperature=temperature,
            max_tokens=max_tokens,
            timeout=timeout,
            price=Price(price_in, price_out, price_call),
        )
        self.attempts = attempts
        self.concurrency = concurrency
        self.label = f"vlm:{model}"
        self._client: tuple[asyncio.AbstractEventLoop, AsyncOpenAI] | None = None

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        """Judges one generation.

        Raises:
            PassingError: The endpoint is busy, broken or out of reach; it carries the attempts made so far.
            UnscorableError: A picture is missing or does not open.
            BudgetReachedError: The budget does not admit the first call.
            ConfigError: There is a budget and the price is not known.
        """
        started = perf_counter()
        if generation.image is None or truth.image is None:
            raise UnscorableError("a VLM judge needs the generated picture and the ground truth")
        pictures = await asyncio.gather(
            encode(generation.image, "the generated picture"), encode(truth.image, "the ground truth")
        )
        attempts = await self._converse(sample, pictures, started)
        return self._score_of(sample, generation, attempts, pictures, perf_counter() - started)

    async def _converse(self, sample: Sample, pictures: Sequence[Encoded], started: float) -> list[Attempt]:
        """Asks until a reply meets the contract, the judge declines, or attempts or time are used up."""
        attempts: list[Attempt] = []
        fault = ""
        while len(attempts) < self.attempts and not (attempts and perf_counter() - started > self.endpoint.timeout):
            messages = build_messages(sample, pictures, fault)
            most = most_input_tokens([messages[0]["content"], messages[1]["content"][0]["text"]], pictures)
            try:
                answer = await self.endpoint.ask(self._client_here(), messages, most, self.label)
            except BudgetReachedError:
                if not attempts:
                    raise
                break  # what was paid for is kept, as a judgement that failed
            attempts.append(answer.attempt)
            if answer.came is Came.PASSING:
                raise PassingError(answer.attempt.error, retry_after=answer.retry_after, attempts=tuple(attempts))
            if answer.came is not Came.REPLY:
                break
            found = read_strict(answer.attempt.reply, text_required=sample.text_required)
            if isinstance(found, Reading):
                break
            fault = _fault_words(found, answer.attempt)
            attempts[-1] = answer.attempt.model_copy(update={"error": fault})
        return attempts

    def _client_here(self) -> AsyncOpenAI:
        """Returns the client of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._client[0] is not loop:
            self._client = (loop, self.endpoint.client())
        return self._client[1]

    async def close(self) -> None:
        """Closes the connections; in the event loop they were used in."""
        if self._client is not None:
            client, self._client = self._client[1], None
            await client.close()

    def _score_of(
        self,
        sample: Sample,
        generation: Generation,
        attempts: Sequence[Attempt],
        pictures: Sequence[Encoded],
        seconds: float,
    ) -> Score:
        strict, lenient, returned = read_attempts(attempts, sample.text_required)
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
            parser=PARSER_VERSION,
            details={
                "rubric": RUBRIC_VERSION,
                "pictures": {"generated": pictures[0].sha256, "truth": pictures[1].sha256},
            },
            seconds=seconds,
            usage=usage_of(attempts),
        )


def build_messages(sample: Sample, pictures: Sequence[Encoded], fault: str = "") -> list[dict[str, Any]]:
    """Returns the request: the rubric; then the sample with its original prompt, the generated picture and the truth.

    Args:
        sample: The sample.
        pictures: Generated, then ground truth.
        fault: What was wrong with the reply before, empty at first asking.
    """
    return [
        {"role": "system", "content": system_prompt()},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": user_text(sample.id, sample.prompt, sample.text_required, fault)},
                *({"type": "image_url", "image_url": {"url": picture.url}} for picture in pictures),
            ],
        },
    ]


def _fault_words(found: ReplyFault, attempt: Attempt) -> str:
    """Returns what was wrong with a reply; one that was cut off is told so, for the rest follows from it."""
    if attempt.finish_reason == "length":
        return "the reply was cut off because it was too long; keep the rationale short"
    return str(found)


def _check(model: str, temperature: float, max_tokens: int, attempts: int, concurrency: int, timeout: float) -> None:
    """Checks arguments of the judge."""
    if not isinstance(model, str) or not model.strip():
        raise UsageError("the judge needs a model", where="scorer vlm", fix="name it as vlm:MODEL")
    for name, value in (("max_tokens", max_tokens), ("attempts", attempts), ("concurrency", concurrency)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name}={value} is not a whole number of 1 or more", where=f"scorer vlm:{model}")
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 2:
        raise UsageError(f"temperature={temperature} is not within 0 to 2", where=f"scorer vlm:{model}")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise UsageError(f"timeout={timeout} is no number of seconds", where=f"scorer vlm:{model}")
