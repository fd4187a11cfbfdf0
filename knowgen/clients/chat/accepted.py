"""What an endpoint accepts of a request, learnt from its refusals.

Reasoning models take no `max_tokens` and no temperature, some servers no JSON schema, others have a small context or a
limit on images. Each says so in the error of the first request, which costs nothing. `learn` turns such an error into
the next request to try; what worked is remembered by the caller.

Errors looked up in November 2026: OpenAI and Azure (`unsupported_parameter`, `unsupported_value`, with `param`), vLLM,
SGLang and TGI (context), Anthropic behind compatible APIs and Bedrock (images), Groq, DashScope and Mistral
(`max_tokens` above a model's limit).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from knowgen.clients.chat.image_encoding import MAX_SIDE
from knowgen.clients.service_errors import ServiceError, is_context_error

TEMPERATURE, MAX_TOKENS, SCHEMA = "temperature", "max_tokens", "response_format"
TOP_P, SEED = "top_p", "seed"
COMPLETION_TOKENS = "max_completion_tokens"

PROXY_IMAGE_BYTES = 350_000
"""Size in bytes of an image after a 413 without a number: two of them fit into 1 MB of base64, nginx's default."""

MIN_REPLY_TOKENS = 256
"""Smallest `max_tokens` that a request is fitted to: a reply needs about as many."""

_MAX_CONTEXT_SHARE = 4
"""Divides the context for the reply where the error does not say how long the prompt is."""

_SCHEMA_REJECTIONS = frozenset({400, 415, 422, 500, 501})
"""HTTP statuses with which an endpoint may reject a JSON schema without naming it (500: vLLM, issue 8429)."""

_REFUSES = re.compile(
    r"unsupported|not supported|does not support|do not support|not permitted|not allowed|unknown|unrecognized|"
    r"unexpected|extra (?:inputs|fields)|only the default|deprecated|cannot be (?:used|set)|no longer|invalid|"
    r"not accept",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"(?:at most|(?:less|smaller) than or equal to|no more than|<=|maximum (?:of|is|value is)|\[\s*\d+\s*,)"
    r"\s*[`'\"]?(?P<limit>\d[\d,]*)",
    re.IGNORECASE,
)
_CONTEXT_SIZE = re.compile(
    r"(?:context (?:length|window|size)|model length|max_model_len|must be <=)\D{0,40}(?P<size>\d[\d,]*)", re.IGNORECASE
)
_PROMPT_SIZE = re.compile(
    r"(?P<size>\d[\d,]*)\s*(?:tokens? )?(?:in the messages|in your prompt|from the input|`inputs`|input tokens)"
    r"|resulted in (?P<other>\d[\d,]*)|prompt \(length (?P<third>\d[\d,]*)",
    re.IGNORECASE,
)
_SEED_FIELD = re.compile(r"""[`'"]seed[`'"]""")
"""The parameter as errors quote it; the bare word is too common."""

_AT_LEAST = re.compile(r"at least \d", re.IGNORECASE)

_IMAGE_LIMIT = re.compile(
    r"image\b.{0,120}(?:exceed|too (?:large|big|many pixels)|larger than|over the (?:limit|maximum)|size limit|"
    r"max(?:imum)? (?:allowed )?(?:size|dimension|resolution))|(?:too (?:large|big|many pixels)|exceeds?).{0,60}image",
    re.IGNORECASE | re.DOTALL,
)
_BYTE_LIMITS = (
    re.compile(r">\s*(?P<limit>\d[\d,]{4,})\s*bytes", re.IGNORECASE),
    re.compile(r"(?:max(?:imum)?|limit|exceeds?|than|up to|is)\D{0,30}(?P<limit>\d[\d,]{4,})\s*bytes", re.IGNORECASE),
)
_MEGABYTES = re.compile(r"(?P<limit>\d+(?:\.\d+)?)\s*(?P<unit>[km])i?b\b", re.IGNORECASE)
_PIXELS = re.compile(r"(?P<limit>\d[\d,]{2,})\s*(?:px|pixels?)", re.IGNORECASE)


@dataclass(frozen=True)
class Accepted:
    """What an endpoint accepts, as far as its errors have shown.

    Attributes:
        temperature: Whether it takes a temperature.
        schema: Whether it takes a JSON schema.
        top_p: Whether it takes `top_p`.
        seed: Whether it takes a seed.
        limit_name: Name under which it takes the maximum number of tokens.
        max_tokens: Largest such number that it takes, 0 where none is known.
        image_bytes: Largest size of an image in bytes, 0 where none is known.
        image_side: Largest side of an image in pixels, 0 where none is known.
    """

    temperature: bool = True
    schema: bool = True
    top_p: bool = True
    seed: bool = True
    limit_name: str = MAX_TOKENS
    max_tokens: int = 0
    image_bytes: int = 0
    image_side: int = 0

    @property
    def limits_images(self) -> bool:
        """Whether images may have to be made smaller."""
        return bool(self.image_bytes or self.image_side)

    def fitted(self, max_tokens: int) -> int:
        """Return the maximum number of tokens to send."""
        return min(max_tokens, self.max_tokens) if self.max_tokens else max_tokens

    def merged(self, other: Accepted) -> Accepted:
        """Return what both know; where they differ about the name of the limit, the name of this one."""
        return Accepted(
            temperature=self.temperature and other.temperature,
            schema=self.schema and other.schema,
            top_p=self.top_p and other.top_p,
            seed=self.seed and other.seed,
            limit_name=self.limit_name,
            max_tokens=_smaller(self.max_tokens, other.max_tokens),
            image_bytes=_smaller(self.image_bytes, other.image_bytes),
            image_side=_smaller(self.image_side, other.image_side),
        )

    def to_data(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Any) -> Accepted:
        """Return the object of plain data; the default for data of another version."""
        names = {each.name: type(each.default) for each in fields(cls)}
        if not isinstance(data, Mapping) or data.keys() != names.keys():
            return cls()
        return cls(**data) if all(type(data[name]) is kind for name, kind in names.items()) else cls()


@dataclass(frozen=True)
class Lesson:
    """The next request to try.

    Attributes:
        accepted: What the endpoint probably accepts.
        certain: Whether the error names the cause. A guess is kept only if the next request succeeds.
    """

    accepted: Accepted
    certain: bool = True


def learn(
    error: ServiceError, accepted: Accepted, *, max_tokens: int, sent_schema: bool, may_drop_schema: bool, images: int
) -> Lesson | None:
    """Return what an error says about what the endpoint accepts, None where it says nothing new.

    Args:
        error: The error.
        accepted: What the request took into account.
        max_tokens: Maximum number of tokens that the user asked for.
        sent_schema: Whether the request contained a JSON schema.
        may_drop_schema: Whether the user allows a request without it.
        images: Number of images in the request.
    """
    lesson = None
    if 400 <= error.status < 500 and error.status not in (401, 402, 404, 429):
        lesson = (
            _learn_images(error, accepted, images)
            or _learn_length(error, accepted, max_tokens)
            or _learn_parameter(error, accepted, sent_schema=sent_schema, may_drop_schema=may_drop_schema)
        )
    if lesson is None and sent_schema and may_drop_schema and error.status in _SCHEMA_REJECTIONS:
        lesson = Lesson(replace(accepted, schema=False), certain=False)
    return lesson if lesson is not None and lesson.accepted != accepted else None


def advice(error: ServiceError, images: int, option: str = "-s ") -> str:
    """Return which argument may help against an error that nothing more can be learnt from; empty for none.

    Args:
        error: The error.
        images: Number of images in the request.
        option: Beginning of the command-line option that takes an argument of the endpoint.
    """
    if is_context_error(error.message):
        smaller = f" or images with {option}max_side=…" if images else ""
        return f"the prompt and the reply do not fit into the model's context: lower {option}max_tokens=…{smaller}"
    if images and (error.status == 413 or _IMAGE_LIMIT.search(error.message)):
        return f"send smaller images with {option}max_side=… or {option}quality=…"
    return ""


def describe_changes(accepted: Accepted, *, sent_schema: bool, max_tokens: int, smaller: bool) -> tuple[str, ...]:
    """Return in words how a request differs from the one that was asked for.

    Args:
        accepted: What the endpoint accepts.
        sent_schema: Whether the caller has a JSON schema that should be sent.
        max_tokens: Maximum number of tokens that the user asked for.
        smaller: Whether an image was made smaller.
    """
    changes = []
    if not accepted.temperature:
        changes.append("temperature not accepted")
    if not accepted.top_p:
        changes.append("top_p not accepted")
    if not accepted.seed:
        changes.append("seed not accepted")
    if sent_schema and not accepted.schema:
        changes.append("JSON schema not accepted")
    if accepted.limit_name != MAX_TOKENS:
        changes.append(f"{MAX_TOKENS} sent as {accepted.limit_name}")
    if accepted.fitted(max_tokens) < max_tokens:
        changes.append(f"{MAX_TOKENS} lowered from {max_tokens} to {accepted.fitted(max_tokens)}")
    if smaller:
        limits = [f"{accepted.image_bytes} bytes"] if accepted.image_bytes else []
        limits += [f"{accepted.image_side} pixels a side"] if accepted.image_side else []
        changes.append(f"images made smaller: at most {' and '.join(limits)}")
    return tuple(changes)


def _learn_parameter(
    error: ServiceError, accepted: Accepted, *, sent_schema: bool, may_drop_schema: bool
) -> Lesson | None:
    """Return the lesson of an error that names a parameter."""
    message = error.message
    named = error.parameter.partition(".")[0] or next(
        (name for name in (TEMPERATURE, TOP_P, COMPLETION_TOKENS, MAX_TOKENS, SCHEMA) if name in message), ""
    )
    if not named and _SEED_FIELD.search(message):
        named = SEED
    refuses = _REFUSES.search(message) or any("unsupported" in code for code in error.codes)
    if not named or not refuses or is_context_error(message):
        return None
    if named == TEMPERATURE:
        return Lesson(replace(accepted, temperature=False))
    if named == TOP_P:
        return Lesson(replace(accepted, top_p=False))
    if named == SEED:
        return Lesson(replace(accepted, seed=False))
    if COMPLETION_TOKENS in message and (named == MAX_TOKENS or MAX_TOKENS in message.replace(COMPLETION_TOKENS, "")):
        named = accepted.limit_name
    if named == accepted.limit_name:
        other = COMPLETION_TOKENS if named == MAX_TOKENS else MAX_TOKENS
        return Lesson(replace(accepted, limit_name=other), certain=named == MAX_TOKENS)
    if named == SCHEMA and sent_schema and may_drop_schema:
        return Lesson(replace(accepted, schema=False))
    return None


def _learn_length(error: ServiceError, accepted: Accepted, max_tokens: int) -> Lesson | None:
    """Return the lesson of an error about the context or about too large a `max_tokens`."""
    message = error.message
    sent = accepted.fitted(max_tokens)
    if is_context_error(message):
        context = _number(_CONTEXT_SIZE.search(message))
        prompt = _number(_PROMPT_SIZE.search(message))
        if not context:
            return None
        if prompt and not _AT_LEAST.search(message):
            room = context - prompt - max(64, prompt // 8)  # prompts of other samples are a little longer
        else:  # the prompt is not counted, or only from below
            room = min(context // _MAX_CONTEXT_SHARE, sent // 2)
        return Lesson(replace(accepted, max_tokens=room)) if MIN_REPLY_TOKENS <= room < sent else None
    if MAX_TOKENS in message or COMPLETION_TOKENS in message or error.parameter in (MAX_TOKENS, COMPLETION_TOKENS):
        limit = _number(_LIMIT.search(message))
        if MIN_REPLY_TOKENS <= limit < sent:
            return Lesson(replace(accepted, max_tokens=limit))
    return None


def _learn_images(error: ServiceError, accepted: Accepted, images: int) -> Lesson | None:
    """Return the lesson of an error about the size of images, or of the whole request."""
    message = error.message
    if not images or is_context_error(message):
        return None
    if error.status != 413 and not ("image" in message.lower() and _IMAGE_LIMIT.search(message)):
        return None
    side = _side_limit(message)
    if side:
        return Lesson(replace(accepted, image_side=side)) if side < (accepted.image_side or MAX_SIDE) else None
    size = _byte_limit(message) if error.status != 413 or "image" in message.lower() else PROXY_IMAGE_BYTES
    return Lesson(replace(accepted, image_bytes=size)) if not 0 < accepted.image_bytes <= size else None


def _side_limit(message: str) -> int:
    """Return the largest side in pixels that a message names; 0 without one."""
    limits = [int(found["limit"].replace(",", "")) for found in _PIXELS.finditer(message)]
    sides = [limit if limit <= 20_000 else int(limit**0.5) for limit in limits]  # a larger number is an area
    return min((side for side in sides if side >= 64), default=0)


def _byte_limit(message: str) -> int:
    """Return the largest size of an image in bytes; some services count its base64, so that is assumed."""
    for pattern in _BYTE_LIMITS:
        if limit := _number(pattern.search(message)):
            return limit * 3 // 4
    sizes = [
        float(found["limit"]) * (1_000_000 if found["unit"] in "mM" else 1000) for found in _MEGABYTES.finditer(message)
    ]
    return int(min(sizes) * 3 / 4) if sizes and min(sizes) >= 50_000 else PROXY_IMAGE_BYTES


def _smaller(one: int, other: int) -> int:
    """Return the smaller of two limits; 0 means that there is none."""
    return min(one, other) if one and other else one or other


def _number(found: re.Match[str] | None) -> int:
    """Return the number in the first group that matched, 0 without one."""
    text = next((group for group in found.groups() if group), "") if found is not None else ""
    return int(text.replace(",", "")[:12] or 0)
