"""A VLM as judge, over an OpenAI-compatible endpoint: one call a sample, and what was wrong is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from knowgen.clients.chat.image_encoding import ENCODING_VERSION, MAX_SIDE, EncodedImageFile
from knowgen.clients.endpoint_url import OPENAI_URL, endpoint_url
from knowgen.clients.pricing import chat_price
from knowgen.core.errors import UnscorableError, UsageError
from knowgen.core.records import (
    DIMENSIONS,
    Attempt,
    Generation,
    GroundTruth,
    ParsedScore,
    Sample,
    Score,
)
from knowgen.scorers.contract import usage_of
from knowgen.scorers.vlm.cost_estimate import Estimate, estimate_cost
from knowgen.scorers.vlm.endpoint_config import IDENTITY_EXCLUDES, EndpointConfig
from knowgen.scorers.vlm.official_prompt import COMMIT, official_call
from knowgen.scorers.vlm.parsing import PARSER_VERSION, read_attempts, read_lenient, read_strict
from knowgen.scorers.vlm.retry import ask_until_valid
from knowgen.scorers.vlm.rubric import CONTRACT, RUBRIC_VERSION, system_prompt, user_text


@dataclass(eq=False, repr=False, kw_only=True)
class VlmJudge(EndpointConfig):
    """Shows a VLM the prompt, the generated picture and the ground truth, and reads four values from its reply.

    A reply off the contract is asked again with what was wrong, up to `attempts` calls. The strict reading is the
    first reply that meets the contract; the lenient one the first that the official evaluator would have read. Every
    call is kept in the score. The key comes from the environment, never from an argument.

    How many calls are under way at once follows the endpoint: see `knowgen.clients.rate_control`.

    Args:
        rubric: `own`, or `upstream` for the whole official call: its system prompt and user text, word for word.
        upstream_dir: Checkout of the published repository that `upstream` is read from; empty fetches the file.

    Further arguments are those of `EndpointConfig`; the official call never asks for a schema.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: The key is missing, or the address holds a secret.
    """

    needs = frozenset({"image", "truth_image"})
    dimensions = DIMENSIONS
    version = f"{RUBRIC_VERSION} {PARSER_VERSION} {ENCODING_VERSION}"
    note = ""
    parser = PARSER_VERSION
    concurrency = 128  # more than there are calls: while some wait for the endpoint others have their pictures encoded
    deadline = 6 * 3600.0
    identity_excludes = IDENTITY_EXCLUDES | {"upstream_dir"}

    rubric: str = "own"
    upstream_dir: str = ""

    def __post_init__(self) -> None:
        """Check the arguments and make the endpoint."""
        self.endpoint = self.open_endpoint("vlm")
        self.label = f"vlm:{self.model}"
        if self.rubric not in ("own", "upstream"):
            raise UsageError(
                f"rubric={self.rubric!r} is not known", where=f"scorer {self.label}", fix="own or upstream"
            )

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        """Judges one generation.

        Raises:
            TransientError: The endpoint is busy, broken or out of reach; it carries the attempts made so far.
            UnscorableError: A picture is missing or does not open.
            BudgetReachedError: The budget does not admit the first call.
            ConfigError: There is a budget and the price is not known, or the official rubric cannot be read.
        """
        started = perf_counter()
        if generation.image is None or truth.image is None:
            raise UnscorableError("a VLM judge needs the generated picture and the ground truth")
        ask, schema = await self._question(sample)
        images = await asyncio.gather(
            self.endpoint.encode(generation.image, "the generated picture"),
            self.endpoint.encode(truth.image, "the ground truth"),
        )
        attempts = await ask_until_valid(
            self.endpoint,
            partial(ask, images),
            partial(_fault_of, text_required=sample.text_required, official=self.rubric == "upstream"),
            caller=self.label,
            max_calls=self.attempts,
            schema=schema,
        )
        return self._score_of(sample, generation, attempts, images, perf_counter() - started)

    async def _question(self, sample: Sample) -> tuple[Any, Mapping[str, Any] | None]:
        """Returns what makes the messages of pictures and a fault, and the schema of a reply."""
        if self.rubric == "own":
            return partial(build_messages, sample), {"name": "judgement", "schema": CONTRACT.json_schema()}
        call = await asyncio.to_thread(official_call, self.upstream_dir)
        return partial(official_messages, call.system, call.user_text(sample.id, sample.prompt)), None

    @staticmethod
    def estimate_cost(
        items: Iterable[tuple[Sample, GroundTruth]],
        *,
        model: str,
        base_url: str = "",
        max_side: int = MAX_SIDE,
        price_in: float | None = None,
        price_out: float | None = None,
        price_call: float | None = None,
        **_: Any,
    ) -> Estimate | None:
        """Reckons what one judgement takes, without building a judge or asking for its key.

        Args:
            items: Some samples with their ground truths.
            model: As in the constructor, like all that follow.
            base_url: Address.
            max_side: Of pictures.
            price_in: Price.
            price_out: Price.
            price_call: Price.
        """
        price = chat_price(model, base_url, price_in, price_out, price_call)
        tiles = endpoint_url(base_url, f"scorer vlm:{model}") == OPENAI_URL
        return estimate_cost(items, [system_prompt(), user_text("", "", True)], price, tiles=tiles, max_side=max_side)

    @staticmethod
    def reparse(attempts: Sequence[Attempt], sample: Sample) -> tuple[ParsedScore, ParsedScore, str]:
        """Reads attempts of several tries together; see `knowgen.scorers.contract.with_earlier`."""
        return read_attempts(attempts, sample.text_required)

    async def close(self) -> None:
        """Closes connections and worker processes; in the event loop they were used in."""
        await self.endpoint.close()

    def _score_of(
        self,
        sample: Sample,
        generation: Generation,
        attempts: Sequence[Attempt],
        images: Sequence[EncodedImageFile],
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
                "rubric": RUBRIC_VERSION if self.rubric == "own" else f"upstream {COMMIT[:12]}",
                "pictures": {"generated": images[0].sha256, "truth": images[1].sha256},
            },
            seconds=seconds,
            usage=usage_of(attempts),
        )


def build_messages(sample: Sample, images: Sequence[EncodedImageFile], fault: str = "") -> list[dict[str, Any]]:
    """Returns the request: the rubric; then the sample with its original prompt, the generated picture and the truth.

    Args:
        sample: The sample.
        pictures: Generated, then ground truth.
        fault: What was wrong with the reply before, empty at first asking.
    """
    text = user_text(sample.id, sample.prompt, sample.text_required, fault)
    return _messages(system_prompt(), text, images)


def official_messages(
    system: str, text: str, images: Sequence[EncodedImageFile], fault: str = ""
) -> list[dict[str, Any]]:
    """Returns the official call; only a reply that it would have taken is asked again in words of our own.

    Args:
        system: The official system prompt.
        text: The official user text.
        pictures: Generated, then ground truth.
        fault: What was wrong with the reply before. The official evaluator asks again in the same words where it
            could not read a reply; where it could, the strict reading alone asks further, after it.
    """
    messages = _messages(system, text, images)
    if fault and not fault.startswith(UNREADABLE):
        messages[1]["content"].append(
            {"type": "text", "text": f"An earlier reply of yours could not be used: {fault}. Judge again."}
        )
    return messages


def _messages(system: str, text: str, images: Sequence[EncodedImageFile]) -> list[dict[str, Any]]:
    shown = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": [{"type": "text", "text": text}, *shown]},
    ]


UNREADABLE = "the official evaluator cannot read it"


def _fault_of(reply: str, *, text_required: bool | None, official: bool) -> str:
    """Returns what is wrong with a reply, empty when it meets the contract."""
    found = read_strict(reply, text_required=text_required)
    if isinstance(found, ParsedScore):
        return ""
    return f"{UNREADABLE}: {found}" if official and read_lenient(reply) is None else str(found)
