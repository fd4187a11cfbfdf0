"""Images through a chat API: one message with the prompt and references, and the image in the reply.

Published forms, looked up on 2026-11-29: OpenRouter (docs/features/multimodal/image-generation: `modalities`, and
`message.images` in the reply), LiteLLM (docs/extras/gemini_img_migration: the same), vLLM-Omni
(docs/serving/chat_completions_api.md: fields of the model in `extra_body`, the image as a part of `message.content`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from knowgen.clients.service_errors import embedded_status, error_from
from knowgen.core.errors import RefusalError, TransientError
from knowgen.core.metering import ReportedUsage, UsageReader
from knowgen.generators.hosted.errors import exception_of
from knowgen.generators.hosted.images import EncodedReference

CHAT_PATH = "/chat/completions"
_REFUSALS = frozenset({"content_filter", "safety", "image_safety", "prohibited_content", "recitation", "blocklist"})


def chat_message(prompt: str, references: Sequence[EncodedReference]) -> dict[str, Any]:
    """Return the message of a request: the prompt first, then the references as data URLs."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
    parts += [{"type": "image_url", "image_url": {"url": reference.data_url}} for reference in references]
    return {"role": "user", "content": parts}


def chat_image(data: Mapping[str, Any], service: str, key: str) -> str:
    """Return the URL of the image in a reply, a data URL as a rule.

    Args:
        data: The reply.
        service: Name of the service, for messages.
        key: Key of the service, which is masked in messages.

    Raises:
        RefusalError: The model or a filter declined.
        TransientError: The reply has no image; the same request may give one next time.
        KnowgenError: The reply is an error of the model behind the service.
    """
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
    if isinstance(details := choice.get("error"), Mapping):
        raise exception_of(error_from(details, embedded_status(details), {}, key), service)
    message = choice.get("message")
    message = message if isinstance(message, Mapping) else {}
    if url := next(_image_urls(message), ""):
        return url
    reasons = {str(choice.get(name)).casefold() for name in ("finish_reason", "native_finish_reason")}
    refusal = message.get("refusal")
    words = " ".join(filter(None, (refusal if isinstance(refusal, str) else "", _text(message))))
    if (isinstance(refusal, str) and refusal) or reasons & _REFUSALS:
        raise RefusalError(f"{service} declined: {words or ', '.join(sorted(reasons & _REFUSALS))}")
    raise TransientError(f"the response of {service} has no image: {words[:200] or 'no words either'}")


def chat_usage(data: Mapping[str, Any], cost: float | None) -> ReportedUsage:
    """Return the tokens of a reply with its cost.

    Args:
        data: The reply.
        cost: Its cost in US dollars, None when unknown.
    """
    counts = UsageReader(data.get("usage"))
    prompt, completion = counts.optional("prompt_tokens") or 0, counts.optional("completion_tokens") or 0
    return ReportedUsage(prompt, completion, cost, counts.complete and cost is not None)


def _image_urls(message: Mapping[str, Any]) -> Iterator[str]:
    """Yield the URLs of the images of a message: in `images`, or as parts of `content`."""
    for place in ("images", "content"):
        parts = message.get(place)
        for part in parts if isinstance(parts, list) else ():
            inner = part.get("image_url") if isinstance(part, Mapping) else None
            url = inner.get("url") if isinstance(inner, Mapping) else inner
            if isinstance(url, str) and url:
                yield url


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content.strip()
    parts = content if isinstance(content, list) else ()
    return " ".join(
        str(part["text"]) for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)
    )
