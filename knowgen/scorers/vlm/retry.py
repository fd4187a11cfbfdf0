"""Asking a judge again: a reply that breaks the contract is sent back with what was wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from knowgen.clients.chat.client import ChatEndpoint
from knowgen.clients.chat.reasoning import split_reasoning
from knowgen.clients.chat.request import Message
from knowgen.clients.chat.response import ChatResponse
from knowgen.clients.service_errors import Outcome
from knowgen.core.errors import AccountError, BudgetReachedError, ServiceUnavailableError
from knowgen.core.records import Attempt

TOO_LONG = "the reply was cut off because it was too long; keep the rationale short"

MAX_THOUGHTS = 2
"""Maximum number of calls whose whole reply was reasoning, cut off at `max_tokens`: words do not help against it."""


async def ask_until_valid(
    endpoint: ChatEndpoint,
    make_messages: Callable[[str], Sequence[Message]],
    find_fault: Callable[[Attempt], str],
    *,
    caller: str,
    max_calls: int,
    max_unreadable: int = 0,
    readable: Callable[[str], bool] = bool,
    schema: Mapping[str, Any] | None = None,
) -> list[Attempt]:
    """Call a judge until a reply is valid, the judge refuses, or calls or time are used up.

    Replies are cached only once one of them was valid, so that the next run calls again for a score that failed.

    Args:
        endpoint: Endpoint of the judge.
        make_messages: Returns the messages, given what was wrong with the previous reply (empty in the first call).
        find_fault: Returns what is wrong with the reply of an attempt, in words to send back to the judge; empty when
            it is valid.
        caller: Name of the caller in the spend table and the notes of the run.
        max_calls: Maximum number of calls. None is started once the earlier ones took longer than the endpoint's
            timeout.
        max_unreadable: Maximum number of calls as long as no reply is readable, if that is more than `max_calls`.
            Further calls are then made whatever the earlier ones took.
        readable: Returns whether a reply can be read at all, although it may break the contract.
        schema: Name and JSON schema of a reply.

    Returns:
        All attempts, in order.

    Raises:
        ServiceUnavailableError: The endpoint is busy, failing or unreachable. The error carries the attempts so far.
        AccountError: The endpoint rejects every call of this account: a wrong key, no credit, an unknown model, a
            wrong address. The error carries the attempts so far.
        BudgetReachedError: The remaining budget is smaller than the worst case of the first call.
        ConfigError: There is a budget and the price is unknown.
    """
    responses: list[ChatResponse] = []
    attempts: list[Attempt] = []
    fault = ""

    def may_ask() -> bool:
        if len(attempts) < max_calls and sum(attempt.seconds for attempt in attempts) <= endpoint.timeout:
            return True
        return len(attempts) < max_unreadable and not any(readable(attempt.reply) for attempt in attempts)

    while may_ask():
        try:
            response = await endpoint.ask(make_messages(fault), caller, schema, attempt=len(attempts))
        except BudgetReachedError:
            if not attempts:
                raise
            break  # keep the attempts that were paid for, as a failed score
        responses.append(response)
        attempts.append(response.attempt)
        raise_if_unanswered(response, caller, tuple(attempts))
        if response.kind is not Outcome.REPLY:
            break
        fault = response.attempt.error or find_fault(response.attempt)
        if not fault:
            endpoint.cache_replies(responses)
            break
        if only_thought(response.attempt):
            fault = f"reasoning used all {endpoint.max_tokens} tokens of the reply; give it more with -s max_tokens=…"
        elif response.attempt.finish_reason == "length":  # the other faults follow from the cut
            fault = TOO_LONG
        attempts[-1] = response.attempt.model_copy(update={"error": fault})
        if sum(map(only_thought, attempts)) >= MAX_THOUGHTS:
            break
    return attempts


def raise_if_unanswered(response: ChatResponse, caller: str, attempts: tuple[Attempt, ...]) -> None:
    """Raise the error of a response that says nothing about the sample.

    Args:
        response: The response.
        caller: Name of the service, shown while the run waits for it.
        attempts: Attempts so far.

    Raises:
        ServiceUnavailableError: The endpoint is busy, failing or unreachable.
        AccountError: The endpoint rejects every call of this account.
    """
    what = response.attempt.error
    if response.kind.transient:
        raise ServiceUnavailableError(
            what,
            service=caller,
            busy=response.kind is Outcome.BUSY,
            retry_after=response.retry_after,
            attempts=attempts,
        )
    if response.kind is Outcome.ACCOUNT:
        raise AccountError(what, where=caller, attempts=attempts)


def only_thought(attempt: Attempt) -> bool:
    """Return whether the reply of an attempt was cut off before anything but reasoning was written."""
    return attempt.finish_reason == "length" and (
        not attempt.reply.strip() or split_reasoning(attempt.reply).unfinished
    )


def decoding_details(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Return the detail of a score on how its requests differed from what was asked for; empty for not at all."""
    changes = tuple(dict.fromkeys(change for attempt in attempts for change in attempt.changes))
    return {"decoding": list(changes)} if changes else {}
