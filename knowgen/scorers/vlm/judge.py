"""The scorer `vlm`: a vision-language model as judge over an OpenAI-compatible endpoint."""

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
from knowgen.scorers.vlm.parsing import (
    PARSER_VERSION,
    UNREADABLE,
    read_attempts,
    read_lenient,
    read_strict,
    strictly_read,
)
from knowgen.scorers.vlm.retry import ask_until_valid, decoding_details
from knowgen.scorers.vlm.rubric import CONTRACT, RUBRIC_VERSION, rubric_hash, system_prompt, texts_hash, user_text


@dataclass(eq=False, repr=False, kw_only=True)
class VlmJudge(EndpointConfig):
    """A judge of the four KnowGen dimensions that sees the prompt, the generated image and the ground truth.

    A reply that breaks the contract is requested again, with what was wrong, up to `attempts` calls. The strict score
    comes from the first reply that meets the contract, the lenient score from the first reply that the official
    evaluator would have accepted. Every attempt is stored with the score. The API key comes from the environment.

    The number of concurrent calls adapts to the endpoint, see `knowgen.clients.rate_control`.

    Args:
        rubric: `own`, or `upstream` for the official system prompt and user text, word for word.
        upstream_dir: Checkout of the published repository with the official prompt; empty to fetch the file.
        unreadable_attempts: Maximum number of calls for one score as long as no reply can be read even by the official
            evaluator; 0 for `attempts`. Under the protocol official it is 20, as there, unless `attempts` is given.

    Further arguments are those of `EndpointConfig`. The official call uses no JSON schema.

    Raises:
        UsageError: An argument is invalid.
        ConfigError: The key is missing, or the URL contains a secret.

    Example:
        >>> judge = VlmJudge("qwen3-vl", "http://127.0.0.1:8000/v1", temperature=0.2)
        >>> judge.label, judge.endpoint.base_url
        ('vlm:qwen3-vl', 'http://127.0.0.1:8000/v1')
    """

    needs = frozenset({"image", "truth_image"})
    dimensions = DIMENSIONS
    version = f"{RUBRIC_VERSION} {PARSER_VERSION} {ENCODING_VERSION}"
    note = ""
    parser = PARSER_VERSION
    concurrency = 128  # more than the endpoint gets: some samples wait for it while the images of others are encoded
    deadline = 6 * 3600.0
    identity_excludes = IDENTITY_EXCLUDES | {"upstream_dir", "unreadable_attempts"}

    rubric: str = "own"
    upstream_dir: str = ""
    unreadable_attempts: int = 0

    def __post_init__(self) -> None:
        """Check the arguments and create the endpoint."""
        self.endpoint = self.open_endpoint("vlm")
        self.label = f"vlm:{self.model}"
        if self.rubric not in ("own", "upstream"):
            raise UsageError(f"rubric must be own or upstream, got {self.rubric!r}", where=f"scorer {self.label}")

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        """Score one generation.

        Raises:
            ServiceUnavailableError: The endpoint is busy, failing or unreachable. The error carries the attempts so
                far.
            AccountError: The endpoint rejects every call: a wrong key, no credit, an unknown model, a wrong address.
            UnscorableError: An image is missing or cannot be opened.
            BudgetReachedError: The remaining budget is smaller than the worst case of the first call.
            ConfigError: There is a budget and the price is unknown, or the official prompt cannot be read.
        """
        started = perf_counter()
        if generation.image is None or truth.image is None:
            raise UnscorableError("a VLM judge needs the generated image and the ground truth")
        make_messages, schema = await self._question(sample)
        images = await asyncio.gather(
            self.endpoint.encode(generation.image, "the generated image"),
            self.endpoint.encode(truth.image, "the ground truth"),
        )
        attempts = await ask_until_valid(
            self.endpoint,
            partial(make_messages, images),
            partial(_find_fault, text_required=sample.text_required, official=self.rubric == "upstream"),
            caller=self.label,
            max_calls=self.attempts,
            max_unreadable=self.unreadable_attempts,
            readable=lambda reply: read_lenient(reply) is not None,
            schema=schema,
        )
        sent = await self._as_sent(images)
        return self._score_of(sample, generation, attempts, sent, perf_counter() - started)

    async def _question(self, sample: Sample) -> tuple[Any, Mapping[str, Any] | None]:
        """Return the function from images and a fault to messages, and the name and schema of a reply."""
        if self.rubric == "own":
            return partial(build_messages, sample), {"name": "judgement", "schema": CONTRACT.json_schema()}
        call = await asyncio.to_thread(official_call, self.upstream_dir)
        return partial(official_messages, call.system, call.user_text(sample.id, sample.prompt)), None

    def _rubric_hash(self) -> str:
        if self.rubric == "own":
            return rubric_hash()
        call = official_call(self.upstream_dir)  # read for the question, and kept
        return texts_hash(call.system, call.user_text("{sample_id}", "{prompt}"))

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
        """Estimate the tokens, cost and duration of one score, without creating a judge or reading its key.

        Args:
            items: Some samples with their ground truths.
            model: As in the constructor, like the following arguments.
            base_url: URL of the endpoint, empty for OpenAI.
            max_side: Maximum length of the longer side of an image, in pixels.
            price_in: US dollars per million input tokens.
            price_out: US dollars per million output tokens.
            price_call: US dollars per call.
        """
        price = chat_price(model, base_url, price_in, price_out, price_call)
        tiles = endpoint_url(base_url, f"scorer vlm:{model}") == OPENAI_URL
        return estimate_cost(items, [system_prompt(), user_text("", "", True)], price, tiles=tiles, max_side=max_side)

    @staticmethod
    def reparse(attempts: Sequence[Attempt], sample: Sample) -> tuple[ParsedScore, ParsedScore, str]:
        """Parse attempts of several runs together; see `knowgen.scorers.contract.with_earlier`."""
        return read_attempts(attempts, sample.text_required)

    async def close(self) -> None:
        """Close connections and worker processes. Call it in the event loop they were used in."""
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
                "rubric_hash": self._rubric_hash(),
                "pictures": {"generated": images[0].sha256, "truth": images[1].sha256},
                **decoding_details(attempts),
            },
            seconds=seconds,
            usage=usage_of(attempts),
        )


def build_messages(sample: Sample, images: Sequence[EncodedImageFile], fault: str = "") -> list[dict[str, Any]]:
    """Return the messages of a call with this project's rubric.

    Args:
        sample: Sample to score.
        images: The generated image, then the ground truth.
        fault: What was wrong with the previous reply, empty in the first call.
    """
    text = user_text(sample.id, sample.prompt, sample.text_required, fault)
    return _messages(system_prompt(), text, images)


def official_messages(
    system: str, text: str, images: Sequence[EncodedImageFile], fault: str = ""
) -> list[dict[str, Any]]:
    """Return the messages of the official call.

    Where the official evaluator could not parse the previous reply, it repeats the same call, and so do these messages.
    Where it could, only the strict parser needs another reply: the fault is then added in words of this project.

    Args:
        system: Official system prompt.
        text: Official user text.
        images: The generated image, then the ground truth.
        fault: What was wrong with the previous reply, empty in the first call.
    """
    messages = _messages(system, text, images)
    if fault and not fault.startswith(UNREADABLE):
        messages[1]["content"].append(
            {"type": "text", "text": f"An earlier reply of yours could not be used: {fault}. Judge again."}
        )
    return messages


def _messages(system: str, text: str, images: Sequence[EncodedImageFile]) -> list[dict[str, Any]]:
    image_parts = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": [{"type": "text", "text": text}, *image_parts]},
    ]


def _find_fault(attempt: Attempt, *, text_required: bool | None, official: bool) -> str:
    """Return what is wrong with the reply of an attempt, empty where it meets the contract."""
    parsed = strictly_read(attempt, partial(read_strict, text_required=text_required))
    if isinstance(parsed, ParsedScore):
        return ""
    return f"{UNREADABLE}: {parsed}" if official and read_lenient(attempt.reply) is None else str(parsed)
