"""Rollouts of the agent, in one event loop that lives as long as the training.

    rollouts = AgentRollouts(config, policy, parts, folder=folder, images=images, ledger=ledger)
    episodes = rollouts.run(prompts, step=1, seeds=seeds)
    rollouts.close()

The event loop has a thread of its own, so that the main thread can handle a signal while a step runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from knowgen.agents.gen_searcher import GenSearcher
from knowgen.agents.policies.contract import Policy
from knowgen.core.errors import KnowgenError
from knowgen.core.leaks import LeakGuard, current_leak_guard
from knowgen.core.metering import current_meter
from knowgen.engine.budget import SpendingStore
from knowgen.engine.components import GeneratorHandle, ScorerHandle
from knowgen.engine.executors.in_process import ABORT_SECONDS, CLOSE_SECONDS
from knowgen.search.leaks import TruthGuard
from knowgen.search.load import PREFIX
from knowgen.training.backends.contract import Episode, TrainingPrompt
from knowgen.training.config import TrainingConfig
from knowgen.training.episode_images import EpisodeImages
from knowgen.training.episode_runner import EpisodeRunner
from knowgen.training.plugin_calls import PainterCalls, ScorerCalls, TrainingServices
from knowgen.training.searches import Searches

T = TypeVar("T")

NOTICE_SECONDS = 5.0
"""Time between two looks at whether a service is waited for."""

CANCEL_SECONDS = 5.0
"""Time that a step gets to end after an interruption."""


@dataclass(frozen=True)
class RolloutParts:
    """What takes part in rollouts besides the agent, as handles that are built when they are first needed.

    Attributes:
        painter: The image model; None where no reward needs an image.
        image: Scorer of the image; None where its half has no weight.
        text: Scorer of the answer; None where its half has no weight.
        common_search: Whether the agent has one search backend for all prompts, and not those of their tasks.
    """

    painter: GeneratorHandle | None = None
    image: ScorerHandle | None = None
    text: ScorerHandle | None = None
    common_search: bool = True


class _LoopCall(Generic[T]):
    """A coroutine that another thread has an event loop run, and may cancel at any moment.

    Args:
        loop: The event loop.
        work: The coroutine.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> None:
        self._loop, self._work = loop, work
        self._task: asyncio.Task[T] | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Start it, soon."""
        self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(lambda _: self._ended.set())

    def cancel(self) -> None:
        """Cancel it, also where an interruption kept it from being started."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._work.close()
            self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most for some seconds; return whether it has ended."""
        return self._ended.wait(seconds)

    @property
    def failed(self) -> bool:
        """Whether it has ended with an error."""
        return self._task is not None and (self._task.cancelled() or self._task.exception() is not None)

    def result(self) -> T:
        """Return its result.

        Raises:
            BaseException: What it raised.
        """
        assert self._task is not None
        return self._task.result()


class AgentRollouts:
    """Rollouts of the agent with a policy, in an event loop that lives as long as the training.

    Args:
        config: The training.
        policy: The policy over the weights that are trained.
        parts: Image model and scorers.
        folder: Directory of the training, for logs of plugins.
        images: Where images are stored.
        ledger: Where paid calls are recorded.
        notice: Takes a line for the user when a wait for a service begins.

    Raises:
        UsageError: An argument of the agent is wrong.
        ConfigError: A part cannot be built.
    """

    def __init__(
        self,
        config: TrainingConfig,
        policy: Policy,
        parts: RolloutParts,
        *,
        folder: Path,
        images: EpisodeImages,
        ledger: SpendingStore,
        notice: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._notice = notice
        self._agent = training_agent(config, policy, common_search=parts.common_search)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="knowgen rollouts", daemon=True)
        self._thread.start()
        self._closed = self._aborted = False
        self._plugins: list[PainterCalls | ScorerCalls] = []
        try:
            self._runner = self._wait(self._start(config, parts, folder, images, ledger))
        except BaseException:
            self.close()
            raise

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _start(
        self, config: TrainingConfig, parts: RolloutParts, folder: Path, images: EpisodeImages, ledger: SpendingStore
    ) -> EpisodeRunner:
        assert config.grpo is not None
        self._services = TrainingServices(ledger, config.grpo.services, folder)
        painter = PainterCalls.of(parts.painter, self._services, config.grpo.painter) if parts.painter else None
        image, text = (ScorerCalls.of(part, self._services) if part else None for part in (parts.image, parts.text))
        self._plugins = [each for each in (painter, image, text) if each is not None]
        own = {key.removeprefix(PREFIX): value for key, value in config.agent.items() if key.startswith(PREFIX)}
        self._searches = Searches(self._agent.search, {} if parts.common_search else own)
        return EpisodeRunner(
            config,
            self._agent,
            self._services,
            images,
            self._searches,
            painter=painter,
            image=image,
            text=text,
        )

    def check(self) -> None:
        """Check that the services of all parts would take calls, each with one free call.

        Raises:
            AccountError: A service rejects the key, or an address is wrong.
            ServiceUnavailableError: A service cannot be reached.
        """
        self._wait(self._check())

    async def _check(self) -> None:
        try:
            await self._agent.check_service()
            for plugin in self._plugins:
                await plugin.check()
        except Exception as error:
            raise self._services.final_error(error) from error

    def check_each(self) -> list[tuple[str, KnowgenError | None]]:
        """Check every part by itself, the policy included: its name, and why it would take no calls."""
        return self._wait(self._check_each())

    async def _check_each(self) -> list[tuple[str, KnowgenError | None]]:
        agent = self._agent
        parts: list[tuple[str, Callable[[], Awaitable[Any]] | None]] = [
            (name, getattr(part, "check_service", None))
            for name, part in (("policy", agent.policy), ("search", agent.search), ("summary model", agent.summary))
            if part is not None
        ]
        parts += [(f"{_kind(plugin)} {plugin.handle.spec.name}", plugin.check_once) for plugin in self._plugins]
        found: list[tuple[str, KnowgenError | None]] = []
        for name, check in parts:
            try:
                if check is not None:
                    await check()
                found.append((name, None))
            except KnowgenError as error:
                found.append((name, error))
        return found

    def run(self, prompts: Sequence[TrainingPrompt], *, step: int, seeds: Sequence[int]) -> list[Episode]:
        """Run one episode for each prompt; see `Rollouts`.

        Ground truths of these prompts are blocked in what the agent finds on the web, as in a run.
        """
        guard = TruthGuard({prompt.key: prompt.truth for prompt in prompts}.values())
        return self._wait(self._runner.run(prompts, step, seeds), guard)

    def _wait(self, work: Coroutine[Any, Any, T], guard: LeakGuard | None = None) -> T:
        """Run a coroutine in the event loop and wait for it. An interruption cancels it, and waits for its end."""
        call = _LoopCall(self._loop, self._in_context(work, guard))
        noticed = False
        try:
            call.start()
            while not call.wait(NOTICE_SECONDS):
                if (line := self.waiting_line) and not noticed:
                    self._notice(f"{line}; Ctrl-C ends it")
                noticed = bool(line)
        except BaseException:  # such as Ctrl-C while this thread waits
            self._aborted = True
            call.cancel()
            call.wait(CANCEL_SECONDS)
            raise
        self._aborted = self._aborted or call.failed  # calls of plugins may be in progress
        return call.result()

    async def _in_context(self, work: Coroutine[Any, Any, T], guard: LeakGuard | None) -> T:
        if services := getattr(self, "_services", None):
            current_meter.set(services.meter)
        current_leak_guard.set(guard)
        return await work

    @property
    def spent(self) -> float:
        """US dollars that this call of the training has spent."""
        return self._services.meter.cost

    @property
    def waiting_line(self) -> str:
        """What the rollouts wait for; empty when they do not."""
        return self._services.waiting_line if hasattr(self, "_services") else ""

    def close(self) -> None:
        """Close all plugins and the agent's services, but not the policy, and end the event loop."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(CLOSE_SECONDS + CANCEL_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CANCEL_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    async def _close(self) -> None:
        await asyncio.gather(*(plugin.abort() if self._aborted else plugin.close() for plugin in self._plugins))
        if searches := getattr(self, "_searches", None):
            await searches.close()
        await self._agent.close_services()
        if services := getattr(self, "_services", None):
            services.meter.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=ABORT_SECONDS)


def _kind(plugin: PainterCalls | ScorerCalls) -> str:
    return "image model" if isinstance(plugin, PainterCalls) else "scorer"


def training_agent(config: TrainingConfig, policy: Policy, *, common_search: bool = True) -> GenSearcher:
    """Return the agent of a training: its arguments with the sampling of the rollouts.

    Args:
        config: The training.
        policy: The policy.
        common_search: Whether it has one search backend for all prompts, and not those of their tasks.

    Raises:
        UsageError: An argument is wrong.
        ConfigError, DataError: Its texts or its search backend cannot be had.
    """
    assert config.grpo is not None
    rollout = config.grpo.rollout
    arguments = dict(config.agent)
    if not common_search:
        arguments = {name: value for name, value in arguments.items() if not name.startswith("search.")}
        arguments["search"] = "none"
    return GenSearcher(
        policy=policy,
        **arguments,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        max_new_tokens=rollout.max_new_tokens,
        max_context=rollout.max_prompt_tokens + rollout.max_completion_tokens,
    )


__all__ = ["AgentRollouts", "RolloutParts", "training_agent"]
