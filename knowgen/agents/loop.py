"""The agent: drives the state machine with a policy and tools, from a prompt to an answer.

    agent = SearchAgent(policy, search, tools, texts)
    trajectory = await agent.run("A poster of the longest bridge that opened in 2025")

What happens next is decided in `machine`; here it is done, timed and recorded. Errors of services end `run` with the
error, because they are no result of the agent; everything else ends a trajectory with one of the endings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from knowgen.agents.images import ImageScaler
from knowgen.agents.machine import Event, Phase, Replied, ReplyReading, Rules, Stopped, ToolsRan, advance, begin
from knowgen.agents.policies.contract import ContextFullError, Policy, PolicySession, Sampling
from knowgen.agents.prompts.texts import AgentTexts
from knowgen.agents.records import Ending, Message, SeenImage, Step, Trajectory
from knowgen.agents.service_calls import RAISED_ERRORS, all_results, until_answered
from knowgen.agents.text_budget import cut_to_tokens
from knowgen.agents.time_limit import TimeLimit
from knowgen.agents.tool_runner import ToolRunner
from knowgen.agents.tools.contract import PageReader, Tool
from knowgen.agents.usage_parts import UsageParts, total_usage
from knowgen.core.errors import KnowgenError, UsageError
from knowgen.core.images import UnreadableImageError
from knowgen.core.metering import spending
from knowgen.core.records import ImageRef, Usage, UsagePart
from knowgen.search.contract import SearchBackend

RESULT_TOKENS = 8192
"""Maximum number of tokens of one tool result; the longest that the published summary model writes."""

MAX_SHOWN = 5
"""Maximum number of images of one tool result that are shown."""


_WHERE = "limits of the agent"


@dataclass(frozen=True)
class Limits:
    """Limits of a trajectory.

    Attributes:
        rounds: Maximum number of rounds, without the last call.
        tool_calls: Maximum number of tool calls; None for no limit but that of the rounds.
        calls_per_round: Maximum number of tool calls of one reply.
        result_tokens: Maximum number of tokens of one tool result, as `estimate_tokens` counts them.
        seconds: Maximum time, without waiting for services; 0 for no limit.
    """

    rounds: int = 9
    tool_calls: int | None = 8
    calls_per_round: int = 1
    result_tokens: int = RESULT_TOKENS
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            UsageError: One is out of its range.
        """
        least = {"rounds": 1, "calls_per_round": 1, "result_tokens": 16, "tool_calls": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if name == "tool_calls" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise UsageError(f"{name} must be a whole number >= {low}, got {value!r}", where=_WHERE)
        if not isinstance(self.seconds, int | float) or not 0 <= self.seconds < float("inf"):
            raise UsageError(f"time_limit must be a number of seconds >= 0, got {self.seconds!r}", where=_WHERE)


def today() -> str:
    """Return today's date as YYYY-MM-DD."""
    return date.today().isoformat()


def _ignore(step: Step) -> None:
    """Do nothing with a step."""


class SearchAgent:
    """An agent that searches before it answers.

    Args:
        policy: Decides.
        search: Search backend.
        tools: What the policy can call. An error that lists them names them in this order.
        texts: Texts that are sent.
        reader: Answers questions from pages, for the tool `browse`.
        limits: Limits of a trajectory.
        sampling: How replies are sampled.
        scaler: Makes the copies of images that the policy sees.
        images_first: Whether images come before the text of their message, as in the published training.
        today: Returns the date that ends the system prompt.
    """

    def __init__(
        self,
        policy: Policy,
        search: SearchBackend,
        tools: Sequence[Tool],
        texts: AgentTexts,
        *,
        reader: PageReader,
        limits: Limits | None = None,
        sampling: Sampling | None = None,
        scaler: ImageScaler | None = None,
        images_first: bool = True,
        today: Callable[[], str] = today,
    ) -> None:
        self.policy, self.search, self.texts, self.reader = policy, search, texts, reader
        self.tools = {tool.name: tool for tool in tools}
        self.limits = limits or Limits()
        self.sampling = sampling or Sampling()
        self.scaler = scaler or ImageScaler()
        self.today = today
        self.rules = Rules(
            final=texts.final,
            too_long=texts.too_long,
            invalid=texts.invalid,
            rounds=self.limits.rounds,
            calls=self.limits.tool_calls,
            calls_per_round=self.limits.calls_per_round,
            images_first=images_first,
        )

    async def run(
        self,
        prompt: str,
        *,
        session: str = "",
        seed: int | None = None,
        search: SearchBackend | None = None,
        watch: Callable[[Step], None] = _ignore,
    ) -> Trajectory:
        """Run a trajectory.

        Args:
            prompt: Prompt of the task.
            session: Name of the trajectory, unique in the run.
            seed: Seed of its sampling; None for that of the agent.
            search: Search backend of this trajectory; None for that of the agent.
            watch: Called with each step when its reply was read, and again when its tools have run.

        Raises:
            TransientError: A service is unavailable.
            AccountError: A service rejects the account.
            BudgetReachedError: The budget does not allow a call.
        """
        sampling = self.sampling if seed is None else replace(self.sampling, seed=seed)
        run = _Rollout(self, prompt, self.policy.open(sampling, prompt, session), search or self.search, watch)
        started = asyncio.get_running_loop().time()
        try:
            await run.to_its_end()
        finally:
            await run.session.close()
        return run.trajectory(asyncio.get_running_loop().time() - started)


class _Rollout:
    """One trajectory while it runs."""

    def __init__(
        self,
        agent: SearchAgent,
        prompt: str,
        session: PolicySession,
        search: SearchBackend,
        watch: Callable[[Step], None],
    ) -> None:
        self._agent, self.session, self._watch = agent, session, watch
        self._state = begin(agent.texts.system + agent.today(), prompt)
        self._tools = ToolRunner(agent.tools, search, agent.reader, prompt, agent.texts.official)
        self._steps: list[Step] = []
        self._step: Step | None = None
        self._evidence: list[dict[str, Any]] = []
        self._parts = UsageParts()

    async def to_its_end(self) -> None:
        limit = TimeLimit(self._agent.limits.seconds)
        try:
            async with limit:
                while self._state.phase is not Phase.ENDED:
                    await (self._run_tools() if self._state.phase is Phase.TOOLS else self._ask())
        except TimeoutError:
            if not limit.reached:
                raise
            reason = f"the time limit of {self._agent.limits.seconds:g} s was reached"
            self._advance(Stopped(Ending.TIME_LIMIT, reason))
            if self._step is not None:
                self._end_step(self._step.model_copy(update={"error": reason}))

    async def _ask(self) -> None:
        """Ask the policy, and record the reply."""
        number = 0 if self._state.last_call else self._state.round
        started = self._time()
        with spending() as spent:
            event, usage = await self._reply()
        seconds = self._time() - started
        if spent.calls:
            usage = usage.model_copy(update={"cost": spent.cost})
        self._parts.add(UsagePart(part="policy", calls=spent.calls, usage=usage, seconds=seconds))
        added = self._advance(event)
        instruction = "" if number else self._agent.rules.final
        step = Step(round=number, instruction=instruction, policy_seconds=seconds, policy_usage=usage)
        if isinstance(event, Stopped) or self._state.reading is None:
            self._end_step(step.model_copy(update={"error": self._state.reason}))
            return
        step = _with_reading(step, self._state.reading)
        if self._state.phase is Phase.TOOLS:
            self._step = step
            self._watch(step)
            return
        self._end_step(step.model_copy(update={"observation": added[1].text if len(added) > 1 else ""}))

    async def _reply(self) -> tuple[Event, Usage]:
        messages = self._state.messages
        try:
            reply = await until_answered(lambda: self.session.reply(messages))
        except ContextFullError as error:
            return Stopped(Ending.MAX_RESPONSE_LENGTH_EXCEEDED, error.what), Usage(cost=0.0)
        except RAISED_ERRORS:
            raise
        except KnowgenError as error:
            return Stopped(Ending.ERROR, error.what), Usage(cost=0.0)
        return Replied(reply.text, reply.finish), reply.usage

    async def _run_tools(self) -> None:
        """Run the calls of the last reply, and record what they found."""
        assert self._step is not None and self._state.reading is not None
        started = self._time()
        seen_before = len(self._tools.images.by_id)
        results = await self._tools.run(self._state.reading.calls)
        cut = [cut_to_tokens(result.text, self._agent.limits.result_tokens) for result in results]
        images = [image for result in results for image in list(result.images)[:MAX_SHOWN]]
        shown, unreadable = await self._shown(images)
        seconds = self._time() - started
        known = frozenset(self._tools.images.by_id)
        added = self._advance(ToolsRan([text for text, _ in cut], tuple(shown.values()), known))
        parts = [part for result in results for part in result.usage]
        for part in parts:
            self._parts.add(part)
        self._evidence += [dict(each) for result in results for each in result.evidence]
        errors = [self._step.error, *(result.error for result in results), *unreadable]
        update: dict[str, Any] = {
            "observation": added[0].text,
            "images": tuple(shown),
            "new_images": tuple(self._tools.images.by_id.values())[seen_before:],
            "error": "; ".join(dict.fromkeys(filter(None, errors))),
            "blocked": tuple(reason for result in results for reason in result.blocked),
            "capped": sum(tokens for _, tokens in cut) + sum(result.capped for result in results),
            "tool_seconds": seconds,
            "tool_usage": total_usage(part.usage for part in parts),
        }
        self._end_step(self._step.model_copy(update=update))

    async def _shown(self, images: Sequence[SeenImage]) -> tuple[dict[str, ImageRef], list[str]]:
        """Return the copies of images that the policy sees, by id, and why some are missing."""

        async def copy(image: SeenImage) -> ImageRef | str:
            try:
                return await self._agent.scaler.scaled(image.image)
            except UnreadableImageError as error:
                return f"{image.id} is not shown: {error.what}"

        copies = await all_results([copy(image) for image in images])
        shown = {image.id: each for image, each in zip(images, copies, strict=True) if isinstance(each, ImageRef)}
        return shown, [each for each in copies if isinstance(each, str)]

    def _advance(self, event: Event) -> tuple[Message, ...]:
        """Go on to the next state, and return the messages that this added."""
        before = len(self._state.messages)
        self._state = advance(self._state, event, self._agent.rules)
        return self._state.messages[before:]

    def _end_step(self, step: Step) -> None:
        self._steps.append(step)
        self._step = None
        self._watch(step)

    def _time(self) -> float:
        return asyncio.get_running_loop().time()

    def trajectory(self, seconds: float) -> Trajectory:
        state, answer = self._state, self._state.answer
        chosen = answer.references if answer is not None else ()
        return Trajectory(
            messages=list(state.messages),
            steps=self._steps,
            segments=self.session.segments,
            images=self._tools.images.by_id,
            ending=state.ending,
            reason=state.reason,
            gen_prompt=answer.gen_prompt if answer is not None else None,
            references=[(self._tools.images.by_id[name], note) for name, note in chosen],
            evidence=self._evidence,
            usage=self._parts.listed(),
            seconds=seconds,
        )


def _with_reading(step: Step, reading: ReplyReading) -> Step:
    return step.model_copy(
        update={
            "thought": reading.thought,
            "reply": reading.text,
            "finish": reading.finish,
            "calls": tuple(each.call for each in reading.calls if each.call is not None),
            "error": reading.error,
        }
    )
