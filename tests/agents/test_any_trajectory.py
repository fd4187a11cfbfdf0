"""Whatever the policy writes, the tools find and time does, a trajectory ends as the protocol says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from knowgen.agents.loop import Limits
from knowgen.agents.machine import AgentState, Phase, Replied, Rules, Stopped, ToolsRan, advance, begin
from knowgen.agents.policies.contract import ContextFullError, PolicyReply
from knowgen.agents.records import Ending, Trajectory
from knowgen.core.errors import DataError, KnowgenError
from knowgen.core.records import ImageRef
from knowgen.search.contract import BlockReason, Hit, ImageHit, Page, PageBlockedError
from tests.helpers.search_agents import FakeSearch, ScriptedPolicy, answer, call, make_agent
from tests.helpers.virtual_time import run

IDS = st.sampled_from(["IMG_001", "IMG_002", " IMG_003", "IMG_900", "", "img_001"])
PIECES = st.sampled_from(
    [
        "<think>", "</think>", "<tool_call>", "</tool_call>", "<answer>", "</answer>", "<tool_response>", "{", "}",
        "words", "</tool_response>", "<|im_end|>", "--- end of search result ---", "IMG_001: title: x", "\n",
        "  url: y", "",
    ]
)  # fmt: skip
NASTY = st.lists(PIECES | st.text(max_size=4), max_size=8).map("".join)
ARGUMENTS = st.one_of(
    st.fixed_dictionaries({"queries": st.lists(NASTY, max_size=3)}),
    st.fixed_dictionaries(
        {"query": NASTY | st.none() | st.integers(), "top_k": st.integers(-3, 30) | st.floats() | st.none()}
    ),
    st.fixed_dictionaries({"url": st.sampled_from(["a", "b", "c"]) | st.lists(NASTY, max_size=7), "query": NASTY}),
    st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
)  # fmt: skip
CALLS = st.builds(call, st.sampled_from(["search", "image_search", "browse", "visit", ""]), ARGUMENTS)
ANSWERS = st.builds(
    answer,
    st.sampled_from(["p", "", 5, None]),
    st.lists(IDS | st.none() | st.integers() | st.dictionaries(st.sampled_from(["img_id", "note"]), IDS), max_size=7),
)
TEXTS = st.one_of(CALLS, CALLS, ANSWERS, NASTY, st.builds(lambda a, b: a + b, CALLS, ANSWERS))
REPLIES = st.builds(PolicyReply, TEXTS, st.sampled_from(["stop", "stop", "length"]))
FAILURES = st.sampled_from([KnowgenError("it broke"), ContextFullError("full"), DataError("no")])
SECONDS = st.sampled_from([0.0, 0.5, 40.0])


def image(number: int) -> ImageRef:
    return ImageRef(sha256=f"{number:064x}", width=640, height=480, format="PNG")


HITS = st.lists(st.builds(Hit, title=NASTY, url=NASTY, snippet=NASTY), max_size=3)
IMAGES = st.lists(
    st.builds(
        ImageHit,
        title=NASTY,
        url=NASTY,
        page_url=NASTY,
        image=st.none() | st.integers(0, 6).map(image),
        failure=NASTY,
        blocked=st.none() | st.sampled_from(BlockReason),
    ),
    max_size=12,
)
PAGES = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.builds(Page, url=NASTY, title=NASTY, text=NASTY)
    | st.sampled_from([DataError("page not found"), PageBlockedError("blocked", BlockReason.LEAK)]),
)


class SlowSearch(FakeSearch):
    """A search backend whose calls take times from a list, one after another."""

    def __init__(self, times: Sequence[float], **results: Any) -> None:
        super().__init__(**results)
        self._times = list(times)

    async def _called(self, method: str, argument: str, number: int) -> None:
        await asyncio.sleep(self._times.pop() if self._times else 0.0)


def check(done: Trajectory, asked: int, limits: Limits) -> None:
    """Check what holds for every trajectory."""
    assert isinstance(done.ending, Ending)
    assert asked <= limits.rounds + 1 and len(done.steps) <= limits.rounds + 1
    roles = [message.role for message in done.messages]
    assert roles[:2] == ["system", "user"] and "assistant" not in roles[:2]
    assert all(before == "user" for before, role in pairwise(roles) if role == "assistant")
    assert [message.text for message in done.messages].count("FINAL") <= 1
    assert list(done.images) == [f"IMG_{number:03d}" for number in range(1, len(done.images) + 1)]
    assert len({seen.image.sha256 for seen in done.images.values()}) == len(done.images)
    assert all(done.images[seen.id] is seen for seen, _ in done.references) and len(done.references) <= 5
    assert (done.ending is Ending.ANSWER) == (done.gen_prompt is not None) == (not done.reason)
    assert [step.round for step in done.steps] in (
        [*range(1, len(done.steps) + 1)],
        [*range(1, len(done.steps)), 0],
    )
    json.dumps([step.model_dump(mode="json") for step in done.steps], allow_nan=False, ensure_ascii=False).encode()
    for message in done.messages[2:]:
        if message.role == "user" and message.text not in {"FINAL", "INVALID", "TOO LONG"}:
            inside = message.text.removeprefix("<tool_response>\n").removesuffix("\n</tool_response>")
            assert len(inside) == len(message.text) - len("<tool_response>\n\n</tool_response>")
            results = inside.split("\n</tool_response>\n<tool_response>\n")
            assert len(results) <= limits.calls_per_round
            for tag in ("<tool", "</tool", "<answer", "</answer", "<think", "</think", "<|"):
                assert not [result for result in results if tag in result]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.one_of(*[REPLIES] * 9, FAILURES), max_size=12), HITS, IMAGES, PAGES, st.lists(SECONDS, max_size=12),
    st.builds(
        Limits, rounds=st.integers(1, 9), tool_calls=st.none() | st.integers(0, 8), calls_per_round=st.integers(1, 3),
        result_tokens=st.sampled_from([16, 8192]), seconds=st.sampled_from([0.0, 3.0, 30.0]),
    ),
)  # fmt: skip
def test_every_trajectory_ends_as_the_protocol_says(
    replies: list[Any],
    hits: list[Hit],
    images: list[ImageHit],
    pages: dict[str, Any],
    times: list[float],
    limits: Limits,
) -> None:
    policy = ScriptedPolicy(replies, seconds=1.0)
    search = SlowSearch(times, hits=hits, images=images, pages=pages)
    done = run(make_agent(policy, search, limits=limits).run("Draw a boat."))
    check(done, len(policy.asked), limits)
    assert policy.opened == policy.closed == 1


RULES = Rules(final="FINAL", too_long="TOO LONG", invalid="INVALID", rounds=4, calls=3, calls_per_round=2)
EVENTS = st.one_of(
    st.builds(Replied, TEXTS, st.sampled_from(["stop", "length"])),
    st.builds(ToolsRan, st.lists(NASTY, max_size=3), known=st.frozensets(IDS, max_size=2)),
    st.builds(Stopped, st.sampled_from([Ending.ERROR, Ending.TIME_LIMIT]), NASTY),
)


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=30))
def test_a_state_takes_the_events_it_waits_for_and_no_others(events: list[Any]) -> None:
    state: AgentState = begin("SYSTEM", "prompt")
    for event in events:
        waits_for = {Phase.REPLY: (Replied, Stopped), Phase.TOOLS: (ToolsRan, Stopped), Phase.ENDED: ()}[state.phase]
        fits = isinstance(event, waits_for)
        if fits and isinstance(event, ToolsRan):
            assert state.reading is not None
            fits = len(event.results) == len(state.reading.calls)
        before = state
        try:
            state = advance(state, event, RULES)
        except ValueError:
            assert not fits
            continue
        assert fits
        assert state.messages[: len(before.messages)] == before.messages  # nothing that was said is changed
        assert state.round >= before.round and state.calls_made >= before.calls_made
        assert (state.phase is Phase.ENDED) == (state.ending is not None)
        assert before.images <= state.images
        if state.phase is Phase.REPLY:
            assert state.messages[-1].role == "user"
