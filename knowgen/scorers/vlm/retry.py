"""A conversation with a judge: a reply that cannot be used is asked again with what was wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from knowgen.clients.chat.client import ChatEndpoint
from knowgen.clients.chat.request import Message
from knowgen.clients.chat.response import ChatResponse, ResponseKind
from knowgen.core.errors import BudgetReachedError, TransientError
from knowgen.core.records import Attempt

TOO_LONG = "the reply was cut off because it was too long; keep the rationale short"


async def converse(
    endpoint: ChatEndpoint,
    ask: Callable[[str], Sequence[Message]],
    fault_of: Callable[[str], str],
    *,
    who: str,
    most: int,
    schema: Mapping[str, Any] | None = None,
) -> list[Attempt]:
    """Asks until a reply is of use, the judge declines, or calls or time are used up.

    Replies are kept for later runs only once one of them was of use: what failed is asked anew the next time.

    Args:
        endpoint: Who is asked.
        ask: Makes the messages; takes what was wrong with the reply before, empty at first asking.
        fault_of: Says what is wrong with a reply in words that can be sent back, empty when it is of use.
        who: What is calling, for the books.
        most: Calls at most. None is begun once the calls before it took longer than the endpoint's timeout.
        schema: Name and JSON schema of a reply.

    Returns:
        Every attempt, in order.

    Raises:
        TransientError: The endpoint is busy, broken or out of reach; it carries the attempts made so far.
        BudgetReachedError: The budget does not admit the first call.
        ConfigError: There is a budget and the price is not known.
    """
    answers: list[ChatResponse] = []
    attempts: list[Attempt] = []
    fault = ""
    while len(attempts) < most and sum(attempt.seconds for attempt in attempts) <= endpoint.timeout:
        try:
            answer = await endpoint.ask(ask(fault), who, schema, attempt=len(attempts))
        except BudgetReachedError:
            if not attempts:
                raise
            break  # what was paid for is kept, as a judgement that failed
        answers.append(answer)
        attempts.append(answer.attempt)
        if answer.came is ResponseKind.PASSING:
            raise TransientError(answer.attempt.error, retry_after=answer.retry_after, attempts=tuple(attempts))
        if answer.came is not ResponseKind.REPLY:
            break
        fault = fault_of(answer.attempt.reply)
        if not fault:
            endpoint.keep(answers)
            break
        if answer.attempt.finish_reason == "length":  # the rest follows from it
            fault = TOO_LONG
        attempts[-1] = answer.attempt.model_copy(update={"error": fault})
    return attempts
