"""Errors as vendors publish them, and what each means: the account, a busy service, a fault, a refusal, the request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from knowgen.clients.service_errors import Outcome, embedded_status, error_from, read_error


def openai(
    message: str, code: str | None = None, kind: str = "invalid_request_error", param: Any = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def google(code: int, status: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def quota(quota_id: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota_id}]}


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38s"}
INVALID_KEY = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "API_KEY_INVALID",
    "domain": "googleapis.com",
}
EXCEEDED = "You exceeded your current quota, please check your plan and billing details."

ACCOUNT: dict[str, tuple[int, Any]] = {
    "openai key": (401, openai("Incorrect API key provided: sk-x.", "invalid_api_key")),
    "openai country": (403, openai("Country not supported", "unsupported_country_region_territory")),
    "openai model": (404, openai("The model `gpt-9` does not exist.", "model_not_found")),
    "openai quota": (429, openai(EXCEEDED, "insufficient_quota", "insufficient_quota")),
    "openai credits": (429, openai("No prepaid credits remain.", "credit_balance_exhausted", "insufficient_quota")),
    "openai spend limit": (429, openai("The limit is reached.", "project_spend_limit_exceeded", "insufficient_quota")),
    "openai billing": (400, openai("Billing hard limit has been reached", "billing_hard_limit_reached")),
    "gemini key": (400, google(400, "INVALID_ARGUMENT", "API key not valid.", INVALID_KEY)),
    "gemini key in a list": (400, [google(400, "INVALID_ARGUMENT", "API key not valid.", INVALID_KEY)]),
    "gemini location": (400, google(400, "FAILED_PRECONDITION", "User location is not supported for the API use.")),
    "gemini day": (429, google(429, "RESOURCE_EXHAUSTED", EXCEEDED, quota("GenerateRequestsPerDayPerProject"), RETRY)),
    "gemini no quota": (429, google(429, "RESOURCE_EXHAUSTED", "Quota exceeded, limit: 0", RETRY)),
    "gemini permission": (403, google(403, "PERMISSION_DENIED", "The caller does not have permission")),
    "anthropic credit": (400, {"type": "error", "error": {"type": "invalid_request_error",
                         "message": "Your credit balance is too low to access the Anthropic API."}}),
    "openrouter credits": (402, {"error": {"code": 402, "message": "Insufficient credits"}}),
    "openrouter model": (400, {"error": {"code": 400, "message": "acme/none is not a valid model ID"}}),
    "azure deployment": (404, {"error": {"code": "DeploymentNotFound", "message": "No such deployment."}}),
    "azure key": (401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key"}}),
    "ark overdue": (403, {"error": {"code": "AccountOverdueError", "message": "The account has an overdue balance."}}),
    "ark limit": (429, {"error": {"code": "SetLimitExceeded", "message": "The account has reached its set limit."}}),
    "vllm model": (404, {"object": "error", "message": "The model `x` does not exist.", "code": 404}),
    "wrong path": (404, {"detail": "Not Found"}),
    "page": (404, b"<html><body>nginx</body></html>"),
    "method": (405, {"detail": "Method Not Allowed"}),
    "proxy": (407, b""),
    "redirect": (308, b""),
}  # fmt: skip
BUSY: dict[str, tuple[int, Any]] = {
    "openai limit": (429, openai("Rate limit reached. Please try again in 1.2s.", "rate_limit_exceeded", "requests")),
    "openai slow down": (503, openai("Slow down", "slow_down")),
    "gemini minute": (429, google(429, "RESOURCE_EXHAUSTED", EXCEEDED, quota("GenerateRequestsPerMinute"), RETRY)),
    "gemini overloaded": (503, google(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")),
    "anthropic overloaded": (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    "azure": (
        429,
        {"error": {"code": "429", "message": "Please retry after 6 seconds."}},
    ),
    "openrouter provider": (503, {"error": {"code": 503, "message": "No provider meets your requirements"}}),
    "cloudflare": (521, b"<html>Web server is down</html>"),
    "empty": (503, b""),
    "announced with 500": (500, {"error": {"message": "Restarting, try again in 30 s"}}),
}
FAULT: dict[str, tuple[int, Any]] = {
    "vllm": (500, {"error": {"message": "", "type": "InternalServerError", "param": None, "code": 500}}),
    "gateway": (502, b"<html>Bad Gateway</html>"),
    "late": (504, b""),
    "openrouter late": (408, {"error": {"code": 408, "message": "Your request timed out"}}),
    "cloudflare late": (524, b"<html>A timeout occurred</html>"),
}
REFUSED: dict[str, tuple[int, Any]] = {
    "openai policy": (400, openai("Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
                                  "invalid_prompt")),
    "openai images": (400, openai("Your request was rejected by the safety system.", "moderation_blocked",
                                  "image_generation_user_error")),
    "azure filter": (400, {"error": {"code": "content_filter", "status": 400, "message": "The response was filtered",
                     "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
    "openrouter": (403, {"error": {"code": 403, "message": "Input is not allowed",
                   "metadata": {"reasons": ["violence"], "flagged_input": "…", "provider_name": "x"}}}),
    "dashscope": (400, {"error": {"code": "data_inspection_failed", "message": "Input data may be unsafe"}}),
    "ark": (400, {"error": {"code": "InputImageSensitiveContentDetected", "message": "Sensitive"}}),
}  # fmt: skip
REJECTED: dict[str, tuple[int, Any]] = {
    "parameter": (400, openai("Unsupported parameter: 'max_tokens' is not supported with this model.",
                              "unsupported_parameter", param="max_tokens")),
    "context": (400, {"object": "error", "message": "This model's maximum context length is 8192 tokens. However, you "
                      "requested 9000 tokens", "code": 400}),
    "together context": (403, {"error": {"message": "Input token count + max_tokens parameter must be less than the "
                               "context length of the model being queried."}}),
    "image": (400, {"error": {"message": "messages.0.content.1.image.source.base64: image exceeds 5 MB maximum: "
                    "6500712 bytes > 5242880 bytes"}}),
    "too large": (413, b"<html>413 Request Entity Too Large</html>"),
    "pydantic": (422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}),
    "not implemented": (501, b""),
}  # fmt: skip
CASES = [
    pytest.param(status, body, outcome, id=f"{outcome}: {name}")
    for outcome, group in (
        (Outcome.ACCOUNT, ACCOUNT), (Outcome.BUSY, BUSY), (Outcome.FAULT, FAULT), (Outcome.REFUSED, REFUSED),
        (Outcome.REJECTED, REJECTED),
    )
    for name, (status, body) in group.items()
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "outcome"), CASES)
def test_the_meaning_of_an_error_follows_status_code_and_message(status: int, body: Any, outcome: Outcome) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = read_error(status, {}, raw, "sk-x-any-key")
    assert error.outcome is outcome
    assert str(status) in error.describe("it") and "<" not in error.message


@pytest.mark.parametrize(("status", "body", "outcome"), CASES)
def test_an_error_inside_a_successful_response_means_the_same(status: int, body: Any, outcome: Outcome) -> None:
    """Only where the error itself names its status, as OpenRouter's does."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict) and isinstance(error.get("code"), int):
        assert error_from(error, embedded_status(error), {}, "").outcome is outcome


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_has_a_meaning_and_words(status: int) -> None:
    error = read_error(status, {}, b"", "")
    assert error.outcome is not Outcome.REPLY and str(status) in error.describe("the service")
    assert error.outcome.transient or status < 500 or status == 501


def test_a_payment_that_names_a_wait_passes_by_itself() -> None:
    assert read_error(402, {"retry-after": "3600"}, b"", "").outcome is Outcome.BUSY


def test_the_words_of_the_service_behind_a_proxy_are_reported() -> None:
    raw = json.dumps({"error": {"message": "The image is broken"}})
    body = {"error": {"code": 400, "message": "Provider returned error", "metadata": {"raw": raw}}}
    assert read_error(400, {}, json.dumps(body).encode(), "").message == "Provider returned error: The image is broken"
