"""The agent as a state machine: an event changes a state, and nothing here waits, calls or measures.

    state = begin(system, prompt)
    state = advance(state, Replied(text, "stop"), rules)      # phase REPLY -> TOOLS, REPLY or ENDED
    state = advance(state, ToolsRan([...]), rules)            # phase TOOLS -> REPLY
    state = advance(state, Stopped(Ending.TIME_LIMIT, "…"), rules)

The rounds are numbered from 1. After the last of them without an answer, the final message asks for the answer once
more: the last call, in which nothing but an answer counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from knowgen.agents.policies.contract import Finish
from knowgen.agents.protocol import (
    AnswerFormatError,
    CallFormatError,
    ParsedAnswer,
    call_texts,
    calls_used,
    cut_reply,
    has_answer,
    has_call,
    observation,
    parse_answer,
    parse_call,
    thought_of,
)
from knowgen.agents.records import Ending, Message, ToolCall
from knowgen.core.records import ImageRef


@dataclass(frozen=True)
class Rules:
    """What decides the course of a trajectory besides its events.

    Attributes:
        final: Message before the last call.
        too_long: Correction after a reply that the limit on tokens cut before a call or answer was complete.
        invalid: Correction after any other reply without call and answer.
        rounds: Maximum number of rounds, without the last call.
        calls: Maximum number of tool calls; None for no limit but that of the rounds.
        calls_per_round: Maximum number of tool calls of one reply; further ones are ignored.
        images_first: Whether images come before the text of their message.
    """

    final: str
    too_long: str
    invalid: str
    rounds: int = 9
    calls: int | None = None
    calls_per_round: int = 1
    images_first: bool = True


class Phase(StrEnum):
    """What a trajectory waits for.

    Attributes:
        REPLY: A reply of the policy.
        TOOLS: The results of tools.
        ENDED: Nothing.
    """

    REPLY = "reply"
    TOOLS = "tools"
    ENDED = "ended"


@dataclass(frozen=True)
class RequestedCall:
    """A tool call in a reply.

    Attributes:
        call: The call; None if it cannot be read.
        error: Why it is not run; empty if it is.
    """

    call: ToolCall | None
    error: str = ""


@dataclass(frozen=True)
class ReplyReading:
    """What a reply was read as.

    Attributes:
        text: The reply, as cut by the protocol.
        finish: Why the policy stopped.
        calls: Its tool calls.
        error: What is wrong with it; empty when nothing is.
    """

    text: str
    finish: str
    calls: tuple[RequestedCall, ...] = ()
    error: str = ""

    @property
    def thought(self) -> str:
        """Text of the think block."""
        return thought_of(self.text)


@dataclass(frozen=True)
class AgentState:
    """Where a trajectory stands.

    Attributes:
        messages: The conversation.
        phase: What it waits for.
        round: Number of the current round, from 1; the maximum also at the last call.
        last_call: Whether the final message was sent.
        images: Ids of the images that were shown.
        previous: Text of the last reply; None before the first.
        was_cut: Whether the last reply was cut without a call or answer.
        calls_made: Number of tool calls so far.
        reading: The last reply.
        unparsed: Why the answer of the last round was not valid; empty otherwise.
        answer: The answer.
        ending: How the trajectory ended; None until then.
        reason: Why it ended so.
    """

    messages: tuple[Message, ...]
    phase: Phase = Phase.REPLY
    round: int = 1
    last_call: bool = False
    images: frozenset[str] = frozenset()
    previous: str | None = None
    was_cut: bool = False
    calls_made: int = 0
    reading: ReplyReading | None = None
    unparsed: str = ""
    answer: ParsedAnswer | None = None
    ending: Ending | None = None
    reason: str = ""


@dataclass(frozen=True)
class Replied:
    """The policy replied.

    Attributes:
        text: The reply.
        finish: Why the policy stopped.
    """

    text: str
    finish: Finish = "stop"


@dataclass(frozen=True)
class ToolsRan:
    """The calls of a reply were run.

    Attributes:
        results: Text of each result, in order of the calls.
        images: Images to show with them.
        known: Ids of all images that were listed.
    """

    results: Sequence[str]
    images: tuple[ImageRef, ...] = ()
    known: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Stopped:
    """The trajectory cannot go on.

    Attributes:
        ending: Why, if it happens in a round.
        reason: Why, in words.
    """

    ending: Ending
    reason: str


Event = Replied | ToolsRan | Stopped


def begin(system: str, prompt: str) -> AgentState:
    """Return the first state of a trajectory."""
    return AgentState((Message("system", system), Message("user", prompt)))


def advance(state: AgentState, event: Event, rules: Rules) -> AgentState:
    """Return the state after an event.

    Raises:
        ValueError: The state does not wait for such an event.
    """
    if state.phase is Phase.ENDED:
        raise ValueError("the trajectory has ended")
    if isinstance(event, Stopped):
        return _stopped(state, event)
    if isinstance(event, Replied):
        if state.phase is not Phase.REPLY:
            raise ValueError("the trajectory waits for tools, not for a reply")
        return _last_reply(state, event) if state.last_call else _reply(state, event, rules)
    if state.phase is not Phase.TOOLS or state.reading is None or len(event.results) != len(state.reading.calls):
        raise ValueError("the results are not those of the calls of a reply")
    message = Message("user", observation(event.results), event.images, rules.images_first)
    return _next_round(replace(state, images=state.images | event.known), message, rules)


def _reply(state: AgentState, event: Replied, rules: Rules) -> AgentState:
    text = cut_reply(event.text)
    repeated = text == state.previous
    state = _with_reply(state, ReplyReading(text, event.finish))
    if repeated:
        return _ended(state, Ending.REPEATED_RESPONSE, "the reply equals the one before")
    if has_call(text):
        return _call(state, rules)
    if has_answer(text):
        return _answer(state, rules)
    if event.finish != "length":
        error = "the reply has neither a tool call nor an answer"
        return _next_round(_noted(replace(state, was_cut=False), error), Message("user", rules.invalid), rules)
    if state.was_cut:
        return _ended(state, Ending.REPEATED_RESPONSE, "two replies in a row were cut without a call or answer")
    error = "the reply was cut before a tool call or an answer was complete"
    return _next_round(_noted(replace(state, was_cut=True), error), Message("user", rules.too_long), rules)


def _call(state: AgentState, rules: Rules) -> AgentState:
    assert state.reading is not None
    calls: list[RequestedCall] = []
    for text in call_texts(state.reading.text, rules.calls_per_round):
        if rules.calls is not None and state.calls_made + len(calls) >= rules.calls:
            calls.append(RequestedCall(_readable(text), calls_used(rules.calls)))
            continue
        try:
            calls.append(RequestedCall(parse_call(text)))
        except CallFormatError as error:
            calls.append(RequestedCall(None, str(error)))
    reading = replace(state.reading, calls=tuple(calls), error="; ".join(each.error for each in calls if each.error))
    made = state.calls_made + len(calls)
    return replace(state, phase=Phase.TOOLS, reading=reading, calls_made=made, was_cut=False)


def _readable(text: str) -> ToolCall | None:
    try:
        return parse_call(text)
    except CallFormatError:
        return None


def _answer(state: AgentState, rules: Rules) -> AgentState:
    assert state.reading is not None
    try:
        answer = parse_answer(state.reading.text, state.images)
    except AnswerFormatError as error:
        state = _noted(replace(state, was_cut=False), str(error))
        if state.round < rules.rounds:
            return _ended(state, Ending.ANSWER_PARSE_FAILED, str(error))
        return _ask_last(replace(state, unparsed=str(error)), rules)
    return _ended(replace(state, answer=answer, was_cut=False), Ending.ANSWER)


def _last_reply(state: AgentState, event: Replied) -> AgentState:
    text = cut_reply(event.text, last_call=True)
    state = _with_reply(state, ReplyReading(text, event.finish))
    try:
        answer = parse_answer(text, state.images, last_call=True)
    except AnswerFormatError as error:
        return _unanswered(_noted(state, str(error)), str(error))
    return _ended(replace(state, answer=answer), Ending.ANSWER)


def _stopped(state: AgentState, event: Stopped) -> AgentState:
    if state.last_call and event.ending is not Ending.TIME_LIMIT:
        return _unanswered(state, f"the last call failed: {event.reason}")
    return _ended(state, event.ending, event.reason)


def _unanswered(state: AgentState, reason: str) -> AgentState:
    """End after a last call without an answer."""
    if state.unparsed:
        return _ended(state, Ending.ANSWER_PARSE_FAILED, state.unparsed)
    return _ended(state, Ending.NO_ANSWER, reason)


def _with_reply(state: AgentState, reading: ReplyReading) -> AgentState:
    messages = (*state.messages, Message("assistant", reading.text))
    return replace(state, messages=messages, previous=reading.text, reading=reading)


def _noted(state: AgentState, error: str) -> AgentState:
    assert state.reading is not None
    return replace(state, reading=replace(state.reading, error=error))


def _next_round(state: AgentState, message: Message, rules: Rules) -> AgentState:
    state = replace(state, messages=(*state.messages, message), phase=Phase.REPLY)
    if state.round >= rules.rounds:
        return _ask_last(state, rules)
    return replace(state, round=state.round + 1)


def _ask_last(state: AgentState, rules: Rules) -> AgentState:
    messages = (*state.messages, Message("user", rules.final))
    return replace(state, messages=messages, phase=Phase.REPLY, last_call=True)


def _ended(state: AgentState, ending: Ending, reason: str = "") -> AgentState:
    return replace(state, phase=Phase.ENDED, ending=ending, reason=reason)
