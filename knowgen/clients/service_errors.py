"""What the error of a service means, for judges and image services alike: one table of statuses, codes and messages.

A response ends in one of these: a reply, a refusal of the content, an account that is turned away, a service that
cannot answer now, a fault, a rejected request (`Outcome`). An error inside a response of status 200 is read by the same
table.

Sources, looked up in November 2026:

- OpenAI, guides to error codes and rate limits: 401 key, 403 country, 429 rate limit or quota, 500, 503 `slow_down` and
  `server_is_overloaded`. `error.code` distinguishes the quota from the rate limit: `credit_balance_exhausted`,
  `organization_spend_limit_exceeded`, `project_spend_limit_exceeded`, `organization_usage_limit_exceeded`, earlier
  `insufficient_quota`.
- Gemini: google.rpc.Status; a wrong key is 400 with the reason `API_KEY_INVALID`; a quota a minute names its wait in
  `RetryInfo`, a quota a day is used up until the next day; `limit: 0` means that the account has no such quota.
- Anthropic behind compatible APIs: 529 `overloaded_error`, 413 `request_too_large`, 400 "credit balance is too low".
- OpenRouter: `error.code` is the status, also in a 200 and inside a choice; 402 without credits, 403 for moderated
  input, 408 and 502 for the model behind it, 503 without a provider.
- Azure: 400 `content_filter`; 404 `DeploymentNotFound`. Ark: 403 `AccountOverdueError`, 404 `ModelNotOpen`, 429
  `SetLimitExceeded`. Together: 403 where prompt and `max_tokens` exceed the context.
- Serper: `{message, statusCode}`; 403 "Unauthorized." for a wrong key, 400 "Not enough credits" (as its users report).
- Tavily: `{detail: {error}}`; 401 key, 429 rate, 432 limit of the plan, 433 limit of pay-as-you-go (its help pages).
- Brave: `{type: "ErrorResponse", error: {code, detail, status, meta}}`, in its examples also as a list `errors`; 422
  `SUBSCRIPTION_TOKEN_INVALID`, 404 `SUBSCRIPTION_NOT_FOUND`, 429 `RATE_LIMITED` a second and `QUOTA_LIMITED` a month.
- Jina: `{data: null, code, name, status, message, retryAfter}`; 402 `InsufficientBalanceError`, 429
  `RateLimitTriggeredError`; 403 `SecurityCompromiseError` and 422 `AssertionFailureError` are about the page.
- MediaWiki: `{error: {code, info}}` with status 200 and `MediaWiki-API-Error`; `maxlag` with Retry-After, `ratelimited`
  (Manual:Maxlag parameter, API:Etiquette).
- vLLM-Omni: "Model mismatch: …" with status 400 where a request names another model than the one it serves; every error
  as `{error: {message, type, param, code}}` (vllm's server_utils.py), but `{error: "Unauthorized"}` for a wrong key.
- LiteLLM: `{error: {message, type, param, code}}` with the status as a text in `code`; 400 "Invalid model name passed
  in model=…"; `budget_exceeded` with 400 or 429 for a budget of the key that is used up; "ContentPolicyViolationError"
  with 400 (its exceptions.py and proxy/auth).
- Z.ai: codes in digits; 1301 "unsafe or sensitive content", 1113 "Insufficient balance" with 429 (docs.z.ai).
- Cloudflare: 520 to 524 and 530, the server behind it is away or answers too late.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from knowgen.clients.endpoint_url import NO_KEY
from knowgen.clients.stated_wait import stated_wait
from knowgen.core.secrets import mask_key_like, mask_secrets

MAX_MESSAGE = 600
"""Maximum number of characters of a service's message that are kept."""

MAYBE_BILLED = frozenset({502, 504, 520, 524})
"""HTTP statuses of a gateway that stopped waiting: the model behind it may have answered, and the call been billed."""

_BUSY_STATUSES = frozenset({425, 429, 503, 521, 522, 523, 525, 526, 529, 530})
_FAULT_STATUSES = frozenset({408, 409})
_LIMIT_STATUSES = frozenset({432, 433})
"""Tavily's statuses for a limit of the plan that is used up."""

_ADDRESS_STATUSES = frozenset({404, 405, 410})

_BUSY_CODES = frozenset(
    {
        "slow_down", "server_is_overloaded", "overloaded_error", "overloaded", "unavailable", "rate_limit_exceeded",
        "rate_limit_error", "resource_exhausted", "too_many_requests", "rate_limited", "maxlag", "ratelimited",
    }
)  # fmt: skip

_REFUSAL_CODES = frozenset(
    {
        "content_filter", "contentfilter", "content_policy_violation", "moderation_blocked", "data_inspection_failed",
        "responsibleaipolicyviolation", "safety", "image_safety", "prohibited_content",
        "image_prohibited_content", "recitation", "image_recitation", "blocklist", "spii",
    }
)  # fmt: skip
_REQUEST_CODES = frozenset({"securitycompromiseerror", "assertionfailureerror", "budgetexceedederror"})
"""Codes of errors about the page that a reader was asked for, whatever their status."""

_REFUSAL_PARTS = ("sensitive", "riskdetection")
"""Parts of the codes with which Ark declines content."""

_REFUSAL_MESSAGE = re.compile(
    r"safety system|content (?:management )?policy|usage polic(?:y|ies)|flagged (?:by|for|as)|requires? moderation|"
    r"inappropriate content|ContentPolicyViolation|\bnsfw\b|unsafe or sensitive content",
    re.IGNORECASE,
)

_ACCOUNT_CODES = frozenset(
    {
        "insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded", "organization_usage_limit_exceeded", "enforced_spend_limit_reached",
        "billing_hard_limit_reached", "billing_limit_user_error", "billing_not_active", "account_deactivated",
        "invalid_api_key", "invalid_authentication", "authentication_error", "permission_error", "unauthenticated",
        "permission_denied", "model_not_found", "model_not_available", "deploymentnotfound", "modelnotopen",
        "accountoverdueerror", "setlimitexceeded", "unsupported_country_region_territory", "api_key_invalid",
        "ip_not_authorized", "subscription_token_invalid", "subscription_not_found", "quota_limited",
        "option_not_in_plan",
        "insufficientbalanceerror", "authenticationfailederror", "readapidenied", "budget_exceeded",
    }
)  # fmt: skip
_ACCOUNT_MESSAGE = re.compile(
    r"(?:invalid|incorrect|expired|missing|no|bad) api[ _-]?key|api[ _-]?key (?:not (?:valid|found)|(?:is )?(?:invalid|"
    r"expired|missing))|credit balance is too low|(?:insufficient|not enough) (?:credits?|balance|funds)|billing|"
    r"overdue|spend(?:ing)? limit|model\b.{0,80}\b(?:does not exist|not found|is not (?:a )?valid|has been (?:retired|"
    r"deprecated|shut down))|not a valid model|invalid model name|no such model|model mismatch|unknown model|"
    r"location is not supported|country, region|budget has been exceeded|over budget",
    re.IGNORECASE,
)
_NO_QUOTA = re.compile(r"\blimit: 0\b(?!\.)")
_PER_DAY = re.compile(r"per_?day", re.IGNORECASE)

_CONTEXT = re.compile(
    r"context (?:length|window|size)|maximum model length|max_model_len|max(?:imum)? (?:prompt|input|sequence) length|"
    r"too many tokens|token count .{0,60}exceed|prompt is too long|`max_new_tokens` must be",
    re.IGNORECASE,
)
"""A request that is too long for the model, which says nothing about the account, whatever the status."""

_WEB_PAGE = re.compile(rb"\s*(?:<!doctype html|<html)", re.IGNORECASE)
_TAG = re.compile(r"<(?:script|style)\b[^<]*</|<[^<>]*>", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Outcome(StrEnum):
    """How a call ended.

    Attributes:
        REPLY: A reply to read.
        REFUSED: The model or a filter declined the content.
        ACCOUNT: Every call of this account or configuration would be turned away: key, credit, access, model, address.
        BUSY: The service cannot answer now, which says nothing about the request.
        FAULT: A fault that the request may have caused; another attempt may succeed.
        REJECTED: The service rejected this request, and would again.
    """

    REPLY = "reply"
    REFUSED = "refused"
    ACCOUNT = "account"
    BUSY = "busy"
    FAULT = "fault"
    REJECTED = "rejected"

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later."""
        return self in (Outcome.BUSY, Outcome.FAULT)


@dataclass(frozen=True)
class ServiceError:
    """An error that a service reports.

    Attributes:
        status: HTTP status, or the status that an error inside a successful response names.
        code: `error.code`, `error.status` or `error.type`, the first that is a text; empty without one.
        codes: All of them, in lower case.
        message: Its message on one line, without secrets and control characters.
        details: The error object.
        retry_after: Seconds to wait as the service asks, None when it does not.
        outcome: What it means.
    """

    status: int
    code: str
    message: str
    codes: frozenset[str] = frozenset()
    details: Mapping[str, Any] = field(default_factory=dict)
    retry_after: float | None = None
    outcome: Outcome = Outcome.REJECTED

    @property
    def parameter(self) -> str:
        """The parameter that the service names as the cause, empty where it names none."""
        name = self.details.get("param")
        return name if isinstance(name, str) else ""

    def describe(self, who: str) -> str:
        """Return the error in words.

        Args:
            who: The service, such as `the endpoint`.
        """
        if 300 <= self.status < 400:
            return f"{who} answered {self.status}, a redirect; it is not followed, because the key would go along"
        text = f"{who} answered {self.status}"
        if self.code and self.code != str(self.status) and self.code not in self.message:
            text += f" {self.code}"
        return f"{text}: {self.message}" if self.message else text


def read_error(status: int, headers: Mapping[str, str], body: bytes, key: str) -> ServiceError:
    """Read a response with an error status.

    Args:
        status: HTTP status.
        headers: Headers of the response, looked up by name in any case.
        body: Body of the response.
        key: Key of the service, which is masked in every text.
    """
    try:
        data = mask_secrets(json.loads(body), secret_of(key))
    except (ValueError, RecursionError):
        data, body = None, mask_secrets(body, secret_of(key))
    if isinstance(data, list) and data and isinstance(data[0], Mapping):  # Gemini's compatible API wraps the object
        data = data[0]
    if not isinstance(data, Mapping):
        return error_from({}, status, headers, key, text=_text(body))
    error = data.get("error")
    several = data.get("errors")
    if not error and isinstance(several, list) and several and isinstance(several[0], Mapping):
        error = several[0]
    elif not error and isinstance(detail := data.get("detail"), Mapping):
        error = detail.get("error", detail)
    if isinstance(error, Mapping):
        return error_from(error, status, headers, key)
    return error_from({**data, "message": data.get("message") or error}, status, headers, key)


def error_from(
    error: Mapping[str, Any], status: int, headers: Mapping[str, str], key: str, *, text: str = ""
) -> ServiceError:
    """Return the meaning of an error object.

    Args:
        error: The error object, with the key masked.
        status: HTTP status, used where the object names none.
        headers: Headers of the response, looked up by name in any case.
        key: Key of the service, which is masked in every text.
        text: Message to use where the object has none.
    """
    names = [error.get(name) for name in ("code", "status", "type", "reason", "name")]
    texts = [clean_response_text(name, key) for name in names if isinstance(name, str) and name]
    words = error.get("message") or error.get("detail") or error.get("info") or text
    message = clean_response_text(words if isinstance(words, str) else json.dumps(words, ensure_ascii=False), key)
    nested = _nested_message(error)
    if nested and nested not in message:
        message = f"{message}: {clean_response_text(nested, key)}"[:MAX_MESSAGE] if message else nested
    codes = frozenset(name.casefold() for name in (*texts, *_reasons(error)))
    wait = stated_wait(headers, error, message, limited=status == 429)
    outcome = _outcome(status, codes, message, error, wait)
    return ServiceError(status, texts[0] if texts else "", message, codes, error, wait, outcome)


def embedded_status(error: Mapping[str, Any]) -> int:
    """Return the status that an error inside a successful response names; 502 where it names none."""
    for name in ("code", "status", "status_code"):
        value = error.get(name)
        if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value, re.ASCII):
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
    codes = {value.casefold() for value in (error.get(name) for name in ("code", "type")) if isinstance(value, str)}
    if codes & _ACCOUNT_CODES:
        return 403
    return 400 if _declines(codes) else 502


def is_web_page(body: bytes) -> bool:
    """Return whether a body is a web page: a proxy's, or that of a wrong address."""
    return bool(_WEB_PAGE.match(body[:1000]))


def is_context_error(message: str) -> bool:
    """Return whether a message says that prompt and reply do not fit into the context of the model."""
    return bool(_CONTEXT.search(message))


def _outcome(status: int, codes: frozenset[str], message: str, error: Mapping[str, Any], wait: float | None) -> Outcome:
    """Return what an error means. The order matters: a refusal or a long prompt may come with any status of 4xx."""
    client_error = 400 <= status < 500
    if client_error and status not in (401, 402, 429) and _is_refusal(status, codes, message, error):
        return Outcome.REFUSED
    if client_error and status != 429 and is_context_error(message):
        return Outcome.REJECTED
    if status == 429:
        return Outcome.ACCOUNT if _quota_is_spent(codes, message, error, wait) else Outcome.BUSY
    if status == 402:  # OpenRouter: only one that names a wait passes by itself
        return Outcome.BUSY if wait is not None else Outcome.ACCOUNT
    if codes & _BUSY_CODES or status in _BUSY_STATUSES:
        return Outcome.BUSY
    if codes & _REQUEST_CODES:
        return Outcome.REJECTED
    if status in (401, 403, 407) or status in _LIMIT_STATUSES or 300 <= status < 400 or status in _ADDRESS_STATUSES:
        return Outcome.ACCOUNT
    if client_error and status not in _FAULT_STATUSES:
        account = bool(codes & _ACCOUNT_CODES) or bool(_ACCOUNT_MESSAGE.search(message))
        return Outcome.ACCOUNT if account and status != 413 else Outcome.REJECTED
    if status == 501:
        return Outcome.REJECTED
    return Outcome.FAULT if wait is None else Outcome.BUSY


def _is_refusal(status: int, codes: frozenset[str], message: str, error: Mapping[str, Any]) -> bool:
    if _declines(codes):
        return True
    metadata = error.get("metadata")
    if status == 403 and isinstance(metadata, Mapping) and ("reasons" in metadata or "flagged_input" in metadata):
        return True
    return bool(_REFUSAL_MESSAGE.search(message))


def _declines(codes: Collection[str]) -> bool:
    """Return whether one of some codes, in lower case, declines content."""
    return any(code in _REFUSAL_CODES or any(part in code for part in _REFUSAL_PARTS) for code in codes)


def _quota_is_spent(codes: frozenset[str], message: str, error: Mapping[str, Any], wait: float | None) -> bool:
    """Return whether no waiting of minutes helps against a 429."""
    quotas = json.dumps(error.get("details", ""), default=str)
    if _NO_QUOTA.search(message) or _PER_DAY.search(quotas):
        return True
    return bool(codes & _ACCOUNT_CODES) or (wait is None and bool(_ACCOUNT_MESSAGE.search(message)))


def _reasons(error: Mapping[str, Any]) -> list[str]:
    """Return the codes inside an error: google.rpc.ErrorInfo, and Azure's inner error."""
    found = []
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, Mapping) and isinstance(detail.get("reason"), str):
            found.append(detail["reason"])
    for name in ("innererror", "inner_error"):
        inner = error.get(name)
        if isinstance(inner, Mapping) and isinstance(inner.get("code"), str):
            found.append(inner["code"])
    return found


def _nested_message(error: Mapping[str, Any]) -> str:
    """Return the message of the service behind a proxy, which OpenRouter puts into the metadata as text."""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    if not isinstance(raw, str):
        return ""
    try:
        inner = json.loads(raw)
    except (ValueError, RecursionError):
        return raw[:MAX_MESSAGE]
    inner = inner.get("error", inner) if isinstance(inner, Mapping) else inner
    message = inner.get("message") if isinstance(inner, Mapping) else inner
    return message[:MAX_MESSAGE] if isinstance(message, str) else ""


def _text(body: bytes) -> str:
    """Return the beginning of a body as text; of a web page, the words between its tags."""
    text = body[: 8 * MAX_MESSAGE].decode("utf-8", "replace")
    return _TAG.sub(" ", text) if is_web_page(body) else text


def secret_of(key: str) -> str:
    """Return the key to mask; empty for the key of an endpoint that needs none."""
    return "" if key == NO_KEY else key


def clean_response_text(text: str, key: str, limit: int | None = MAX_MESSAGE) -> str:
    """Return text of a service without the key and without broken or control characters, fit to be stored.

    Args:
        text: Text of the response.
        key: Key of the service.
        limit: Maximum number of characters, on one line; None keeps everything, line ends included.
    """
    full = _CONTROL.sub(" ", text.encode("utf-8", "replace").decode("utf-8"))
    full = str(mask_secrets(full, secret_of(key)))
    if limit is None:
        return full
    return " ".join(mask_key_like(full).split())[:limit]
