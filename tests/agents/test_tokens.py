"""Sessions of token policies: append-only, with every sampled id kept as it was sampled."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowgen.agents.policies.contract import ContextFullError, Sampling
from knowgen.agents.records import Message
from knowgen.agents.tokens import TokenSession
from knowgen.core.errors import KnowgenError, ServiceUnavailableError
from knowgen.core.records import ImageRef
from tests.helpers.policies import PROMPT, SYSTEM, ScriptedEngine, picture

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="needs knowgen[models]")


def test_what_was_sampled_stays_although_encoding_its_text_gives_other_ids(tmp_path: Path) -> None:
    engine = ScriptedEngine([])
    renderer = engine.renderer
    letters = [token for letter in "Draw the" for token in renderer.encode(letter)]
    assert renderer.encode("Draw the") != letters, "the vocabulary holds longer pieces"
    first, second = [*letters, renderer.end], renderer.encode("done")
    engine.steps = [first, second]
    session = TokenSession(engine, Sampling(), "t1")
    red, blue = picture(tmp_path, "red"), picture(tmp_path, "blue")
    shown = Message("user", " result", (red, blue))

    async def two_rounds() -> list[str]:
        one = await session.reply([SYSTEM, PROMPT])
        two = await session.reply([SYSTEM, PROMPT, Message("assistant", one.text.strip()), shown])
        return [one.text, two.text]

    assert asyncio.run(two_rounds()) == ["Draw the", "done"]
    context, sampled, observation, last = session.segments
    assert [segment.sampled for segment in session.segments] == [False, True, False, True]
    assert sampled.ids == first and last.ids == second
    assert context.logprobs is None and sampled.logprobs == [-0.5] * len(first) and sampled.weights == "v1"
    assert context.images == [] and observation.images == [red.sha256, blue.sha256]
    expected = renderer.message("user", " result", [3, 3]) + renderer.reply_header()
    assert observation.ids == renderer.closing(first) + expected
    assert engine.calls[1][0] == context.ids + first + observation.ids, "the next call begins with all earlier ids"
    assert engine.calls[1][1] == (red.sha256, blue.sha256)
    assert [call[3] for call in engine.calls] == ["t1", "t1"]


OBSERVATIONS = st.lists(
    st.tuples(st.text(max_size=20) | st.sampled_from(("<|im_end|>", "<|image_pad|>\n", "</think>")), st.integers(0, 2)),
    min_size=1,
    max_size=4,
)


@given(observations=OBSERVATIONS, data=st.data())
@settings(max_examples=60, deadline=None)
def test_ids_and_messages_are_consistent_whatever_is_sampled_and_found(
    engine: ScriptedEngine, red: ImageRef, observations: list[tuple[str, int]], data: st.DataObject
) -> None:
    renderer = engine.renderer
    allowed = st.integers(0, 380).filter(lambda token: token not in renderer.banned)
    engine.steps = [data.draw(st.lists(allowed, max_size=6)) for _ in range(len(observations) + 1)]
    engine.calls.clear()
    sampled = list(engine.steps)
    session = TokenSession(engine, Sampling(), "t")
    messages = [SYSTEM, PROMPT]

    async def run() -> None:
        for text, count in observations:
            reply = await session.reply(messages)
            messages.extend([Message("assistant", reply.text.strip()), Message("user", text, (red,) * count)])
        await session.reply(messages)

    asyncio.run(run())
    assert [segment.ids for segment in session.segments if segment.sampled] == sampled
    context = [segment for segment in session.segments if not segment.sampled]
    start = renderer.reply_header()[0]
    written = [token for segment in context for token in segment.ids]
    assert written.count(start) == 2 + len(observations) + len(sampled), "one for each message and each reply"
    assert written.count(renderer.image) == 3 * sum(count for _, count in observations)
    assert [len(segment.images) for segment in context[1:]] == [count for _, count in observations]
    for segment, (text, _) in zip(context[1:], observations, strict=True):
        assert text.encode("utf-8", "replace").decode() in renderer.decode(segment.ids)
    whole = [token for segment in session.segments for token in segment.ids]
    assert all(whole[: len(call[0])] == call[0] for call in engine.calls), "every call is a prefix of the trajectory"


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine([])


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> ImageRef:
    return picture(tmp_path_factory.mktemp("pictures"), "red")


def test_usage_and_finish_of_a_reply() -> None:
    engine = ScriptedEngine([[7, 8, 9]])
    reply = asyncio.run(TokenSession(engine, Sampling(), "t").reply([SYSTEM, PROMPT]))
    assert reply.finish == "length" and reply.model == "scripted"
    assert reply.usage.input_tokens == len(engine.calls[0][0])
    assert reply.usage.output_tokens == 3 and reply.usage.cost == 0.0


def test_a_conversation_over_the_limit_ends_before_the_call() -> None:
    engine = ScriptedEngine([[1], [1]])
    length = len(engine.renderer.message("system", SYSTEM.text) + engine.renderer.message("user", PROMPT.text))
    length += len(engine.renderer.reply_header())
    asyncio.run(TokenSession(engine, Sampling(max_context=length), "t").reply([SYSTEM, PROMPT]))
    with pytest.raises(ContextFullError, match=f"{length} tokens, more than {length - 1}"):
        asyncio.run(TokenSession(engine, Sampling(max_context=length - 1), "t").reply([SYSTEM, PROMPT]))
    assert len(engine.calls) == 1


def test_a_reply_is_limited_to_the_context_of_the_model() -> None:
    engine = ScriptedEngine([[1]], max_context=60)
    session = TokenSession(engine, Sampling(max_new_tokens=500), "t")
    asyncio.run(session.reply([SYSTEM, PROMPT]))
    used = len(engine.calls[0][0])
    assert engine.calls[0][2].max_new_tokens == 60 - used
    engine = ScriptedEngine([[1]], max_context=used)
    with pytest.raises(ContextFullError, match="the model takes"):
        asyncio.run(TokenSession(engine, Sampling(), "t").reply([SYSTEM, PROMPT]))
    assert not engine.calls


def test_a_failed_call_may_be_repeated_and_leaves_no_trace() -> None:
    failure = ServiceUnavailableError("away")
    broken, whole = ScriptedEngine([failure, [5], failure, [6]]), ScriptedEngine([[5], [6]])
    conversation = [SYSTEM, PROMPT, Message("assistant", "x"), Message("user", "on")]

    async def run(engine: ScriptedEngine, tries: int) -> TokenSession:
        session = TokenSession(engine, Sampling(), "t")
        for end in (2, 4):
            for _ in range(tries):
                try:
                    await session.reply(conversation[:end])
                    break
                except ServiceUnavailableError:
                    continue
        return session

    assert asyncio.run(run(broken, 2)).segments == asyncio.run(run(whole, 1)).segments


def test_messages_may_be_added_after_a_failed_call() -> None:
    engine = ScriptedEngine([ServiceUnavailableError("away"), [5]])
    session = TokenSession(engine, Sampling(), "t")
    more = [SYSTEM, PROMPT, Message("user", "final step")]

    async def run() -> None:
        with pytest.raises(ServiceUnavailableError):
            await session.reply([SYSTEM, PROMPT])
        await session.reply(more)

    asyncio.run(run())
    renderer = engine.renderer
    expected = [token for message in more for token in renderer.message(message.role, message.text)]
    assert engine.calls[1][0] == expected + renderer.reply_header()


def test_a_conversation_that_is_not_continued_is_an_error() -> None:
    session = TokenSession(ScriptedEngine([[1], [1]]), Sampling(), "t")
    asyncio.run(session.reply([SYSTEM, PROMPT]))
    with pytest.raises(KnowgenError, match="lacks the last reply"):
        asyncio.run(session.reply([SYSTEM, PROMPT, Message("user", "again")]))
    with pytest.raises(KnowgenError, match="no new message"):
        asyncio.run(session.reply([SYSTEM, PROMPT, Message("assistant", "x")]))
