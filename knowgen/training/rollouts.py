"""Rollouts of the agent: trajectories with their rewards, each in a task of its own, in one event loop.

    rollouts = AgentRollouts(config, policy, parts, services)
    episodes = rollouts.run(prompts, step=1, seeds=seeds)
    rollouts.close()

No episode waits for another one, except for a place. As soon as a trajectory ends with an answer, the answer is scored
and its image generated, while other trajectories go on.

A failure of the policy gets reward 0: no answer, one that cannot be read, the same reply again, a conversation that is
too long, references that the rule does not allow. A failure of anything else masks the episode, with its reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from knowgen.agents.gen_searcher import GenSearcher
from knowgen.agents.policies.contract import Policy
from knowgen.agents.records import Ending, Trajectory
from knowgen.core.leaks import LeakGuard, current_leak_guard
from knowgen.core.metering import current_meter, spending
from knowgen.core.records import FailureCause, Generation, GenerationRequest, GenerationStatus, ImageRef, Usage
from knowgen.engine.budget import SpendingStore
from knowgen.engine.components import GeneratorHandle, ScorerHandle
from knowgen.engine.executors.in_process import ABORT_SECONDS, CLOSE_SECONDS
from knowgen.generators.contract import GeneratedImage
from knowgen.search.contract import SearchBackend
from knowgen.search.leaks import TruthGuard
from knowgen.search.load import PREFIX
from knowgen.training.backends.contract import Episode, TrainingPrompt
from knowgen.training.config import TrainingConfig
from knowgen.training.episode_images import EpisodeImages
from knowgen.training.plugin_calls import EpisodeMaskedError, Painter, RewardScorer, TrainingServices
from knowgen.training.rewards import EpisodeReward, ReferencesRule, combined, image_reward, masked, text_reward
from knowgen.training.searches import Searches
from knowgen.training.seeds import image_seed

T = TypeVar("T")

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


class RolloutAgent(Protocol):
    """What runs a trajectory, as `GenSearcher` does."""

    async def run(
        self, prompt: str, *, session: str = "", seed: int | None = None, search: SearchBackend | None = None
    ) -> Trajectory:
        """Return the trajectory of a prompt; see `SearchAgent.run`."""
        ...


@dataclass
class _Draft:
    """An episode while it runs: what of it is known so far.

    Attributes:
        prompt: The prompt.
        place: Number among all episodes, which distinguishes open calls of plugins.
        number: Number within its group.
        step: The step.
        seed: Seed of its sampling.
    """

    prompt: TrainingPrompt
    place: int
    number: int
    step: int
    seed: int
    trajectory: Trajectory | None = None
    generation: Generation | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    costs: list[float | None] = field(default_factory=list)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Record the time of a block as that of a part."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + loop.time() - started

    def ended(self, reward: EpisodeReward) -> Episode:
        """Return the episode with its reward."""
        cost = None if None in self.costs else sum(each for each in self.costs if each is not None)
        generation = self.generation
        if generation is not None:
            generation = generation.model_copy(update={"repeat": self.number})
        scores = tuple(score.model_copy(update={"repeat": self.number}) for score in reward.scores)
        reward = EpisodeReward(
            reward.value,
            reward.masked,
            reward.reason,
            reward.image,
            reward.text,
            generated=generation is not None and generation.status is GenerationStatus.OK,
            scores=scores,
        )
        return Episode(self.prompt, self.number, self.trajectory, generation, reward, dict(self.seconds), cost)


class EpisodeRunner:
    """Runs episodes in the current event loop.

    Args:
        config: The training.
        agent: Runs the trajectories.
        services: What the calls of all plugins share.
        images: Where images are stored.
        searches: Search backends of tasks.
        painter: The image model.
        image: Scorer of the image.
        text: Scorer of the answer.
    """

    def __init__(
        self,
        config: TrainingConfig,
        agent: RolloutAgent,
        services: TrainingServices,
        images: EpisodeImages,
        searches: Searches,
        *,
        painter: Painter | None = None,
        image: RewardScorer | None = None,
        text: RewardScorer | None = None,
    ) -> None:
        assert config.grpo is not None
        self._seed, self._reward = config.seed, config.grpo.reward
        self._agent, self._services, self._images, self._searches = agent, services, images, searches
        self._painter, self._image, self._text = painter, image, text
        self._rule = ReferencesRule(self._reward.least_references, self._reward.most_references)
        self._places = asyncio.Semaphore(config.grpo.rollout.concurrency)
        self._agent_service = services.new_service("the agent")
        self._numbers = itertools.count()
        self._open_searches: Counter[str] = Counter()

    async def run(self, prompts: Sequence[TrainingPrompt], step: int, seeds: Sequence[int]) -> list[Episode]:
        """Run one episode for each prompt; see `Rollouts.run`. All tasks have ended when it returns or raises.

        Several calls may run at once.
        """
        if not prompts:
            return []
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts with {len(seeds)} seeds")
        counts: dict[str, int] = {}
        drafts = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            number = counts.get(prompt.key, 0)
            counts[prompt.key] = number + 1
            drafts.append(_Draft(prompt, next(self._numbers), number, step, seed))
        tasks = [asyncio.create_task(self._episode(draft)) for draft in drafts]
        searches = {prompt.search for prompt in prompts}
        self._open_searches.update(searches)
        try:
            await _all_or_first_error(tasks)
            await self._searches.close_unused({name for name, calls in self._open_searches.items() if calls})
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise self._services.final_error(error) from error
        finally:
            self._open_searches.subtract(searches)
        return [task.result() for task in tasks]

    async def _episode(self, draft: _Draft) -> Episode:
        try:
            async with self._places:
                draft.trajectory = await self._trajectory(draft)
        except EpisodeMaskedError as error:
            return draft.ended(masked(str(error)))
        return draft.ended(await self._rewarded(draft, draft.trajectory))

    async def _trajectory(self, draft: _Draft) -> Trajectory:
        """Return the trajectory, which is run again from its beginning where a service failed."""
        prompt = draft.prompt
        search = await self._searches.of(prompt)

        async def attempt(number: int) -> Trajectory:
            session = f"{draft.step}/{prompt.key}/{draft.seed}" + (f"/{number}" if number > 1 else "")
            return await self._agent.run(prompt.sample.prompt, session=session, seed=draft.seed, search=search)

        with draft.timed("agent"), spending() as spent:
            try:
                trajectory = await self._services.masked_after(attempt, self._agent_service)
            finally:
                draft.costs.append(spent.cost)
        self._agent_service.answered()
        if trajectory.ending is Ending.ERROR:
            reason = f"the policy's call failed: {trajectory.reason}"
            self._agent_service.failed(reason, prompt.sample.id)
            draft.trajectory = trajectory
            raise EpisodeMaskedError(reason)
        self._agent_service.succeeded()
        return trajectory

    async def _rewarded(self, draft: _Draft, trajectory: Trajectory) -> EpisodeReward:
        """Return the reward of a trajectory that came to its end."""
        if self._reward.constant is not None:
            return EpisodeReward(self._reward.constant, reason="constant reward")
        if trajectory.ending is not Ending.ANSWER or not (trajectory.gen_prompt or "").strip():
            ending = trajectory.ending.value if trajectory.ending is not None else "no ending"
            reason = trajectory.reason or ("the answer has no prompt" if trajectory.ending is Ending.ANSWER else "")
            return EpisodeReward(0.0, reason=f"{ending}: {reason}" if reason else ending)
        answer = _answer_record(draft, trajectory)
        if violation := self._rule.violation(answer.references):
            return EpisodeReward(0.0, reason=violation)
        weight = self._reward.text_weight
        text = asyncio.create_task(self._text_half(draft, answer)) if weight > 0 else None
        image = asyncio.create_task(self._image_half(draft, answer)) if weight < 1 else None
        halves = [half for half in (text, image) if half is not None]
        await _all_or_first_error(halves)
        return combined(image.result() if image else None, text.result() if text else None, weight)

    async def _text_half(self, draft: _Draft, answer: Generation) -> EpisodeReward:
        """Return the text half of the reward; masked where it cannot be had."""
        assert self._text is not None
        with draft.timed("text_reward"):
            try:
                score = await self._text.score((draft.prompt.sample, draft.prompt.truth, answer))
            except EpisodeMaskedError as error:
                return masked(str(error))
        draft.costs.append(_cost(score.usage, self._text.handle.price_known))
        return text_reward(score, self._reward.reading)

    async def _image_half(self, draft: _Draft, answer: Generation) -> EpisodeReward:
        """Return the image half of the reward; masked where it has no image, or the image no score."""
        assert self._image is not None
        try:
            with draft.timed("image"):
                draft.generation = await self._generation(draft, answer)
        except EpisodeMaskedError as error:
            draft.generation = _failed(answer, str(error), image_seed(self._seed, draft.step, draft.prompt.key))
            return masked(f"no image: {error}")
        if draft.generation.status is not GenerationStatus.OK:
            return masked(f"no image: {draft.generation.reason}")
        with draft.timed("image_reward"):
            try:
                score = await self._image.score((draft.prompt.sample, draft.prompt.truth, draft.generation))
            except EpisodeMaskedError as error:
                return masked(str(error))
        draft.costs.append(_cost(score.usage, self._image.handle.price_known))
        return image_reward(score, self._reward.reading)

    async def _generation(self, draft: _Draft, answer: Generation) -> Generation:
        """Return the image of an answer, stored."""
        assert self._painter is not None and draft.trajectory is not None
        capabilities = self._painter.handle.capabilities
        references = tuple(image.image for image, _ in draft.trajectory.references)
        request = GenerationRequest(
            id=f"{draft.step}-{draft.place}",
            prompt=answer.used_prompt,
            seed=image_seed(self._seed, draft.step, draft.prompt.key),
            references=_taken(references, capabilities.references, capabilities.most_references),
            truth=draft.prompt.truth if capabilities.privileged else None,
        )

        async def write(value: Any, seconds: float) -> Generation:
            result = value if isinstance(value, GeneratedImage) else GeneratedImage(image=value)
            generation = answer.model_copy(update={"seed": request.seed, "seconds": seconds, "usage": result.usage})
            settings = dict(result.settings)
            if left_out := len(references) - len(request.references):
                settings["references_left_out"] = left_out
            if GenerationStatus(result.status) is not GenerationStatus.OK:
                reason = result.reason or "the image model gave no reason"
                update = {"status": GenerationStatus(result.status), "reason": reason, "settings": settings}
                return generation.model_copy(update=update)
            stored = await self._images.store(result.image)
            return generation.model_copy(
                update={
                    "status": GenerationStatus.OK,
                    "image": stored.image,
                    "image_notes": stored.notes,
                    "one_colour": stored.one_colour,
                    "settings": settings,
                    "used_prompt": result.used_prompt or answer.used_prompt,
                }
            )

        generation = await self._painter.generate(request, write)
        draft.costs.append(_cost(generation.usage, self._painter.handle.price_known))
        return generation


async def _all_or_first_error(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait until all tasks have ended. After an error, or when cancelled, cancel the others and wait for them.

    Raises:
        Exception: The first error of a task.
    """
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    errors = [task.exception() for task in tasks if task in done and not task.cancelled()]
    if error := next((each for each in errors if each is not None), None):
        raise error


def _answer_record(draft: _Draft, trajectory: Trajectory) -> Generation:
    """Return an answer as scorers of the answer read it: a generation without an image."""
    return Generation(
        sample_id=draft.prompt.sample.id,
        repeat=draft.place,
        status=GenerationStatus.NOT_RUN,
        used_prompt=trajectory.gen_prompt or "",
        references=tuple(
            {
                "img_id": image.id,
                "title": image.title,
                "url": image.url,
                "page_url": image.page_url,
                "note": note,
                **image.image.model_dump(mode="json"),
                "path": str(image.image.path) if image.image.path is not None else "",
            }
            for image, note in trajectory.references
        ),
        evidence=tuple(trajectory.evidence),
        ending=trajectory.ending.value if trajectory.ending is not None else "",
    )


def _failed(answer: Generation, reason: str, seed: int) -> Generation:
    update = {"status": GenerationStatus.FAILED, "reason": reason, "cause": FailureCause.INFRASTRUCTURE, "seed": seed}
    return answer.model_copy(update=update)


def _taken(references: tuple[ImageRef, ...], takes: bool, most: int | None) -> tuple[ImageRef, ...]:
    """Return the references that an image model takes."""
    return references[:most] if takes else ()


def _cost(usage: Usage, price_known: bool | None) -> float | None:
    """Return the cost of a call; one without a price costs nothing, unless its plugin says that it has no price."""
    return usage.cost if usage.cost is not None or price_known is False else 0.0


class AgentRollouts:
    """Rollouts of the agent with a policy, in an event loop that lives as long as the training.

    Args:
        config: The training.
        policy: The policy over the weights that are trained.
        parts: Image model and scorers.
        folder: Directory of the training, for logs of plugins.
        images: Where images are stored.
        ledger: Where paid calls are recorded.

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
    ) -> None:
        self._agent = training_agent(config, policy, common_search=parts.common_search)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="knowgen rollouts", daemon=True)
        self._thread.start()
        self._closed = self._aborted = False
        self._plugins: list[Painter | RewardScorer] = []
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
        painter = Painter.of(parts.painter, self._services, config.grpo.painter) if parts.painter else None
        image, text = (RewardScorer.of(part, self._services) if part else None for part in (parts.image, parts.text))
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

    def run(self, prompts: Sequence[TrainingPrompt], *, step: int, seeds: Sequence[int]) -> list[Episode]:
        """Run one episode for each prompt; see `Rollouts`.

        Ground truths of these prompts are blocked in what the agent finds on the web, as in a run.
        """
        guard = TruthGuard({prompt.key: prompt.truth for prompt in prompts}.values())
        return self._wait(self._runner.run(prompts, step, seeds), guard)

    def _wait(self, work: Coroutine[Any, Any, T], guard: LeakGuard | None = None) -> T:
        """Run a coroutine in the event loop and wait for it. An interruption cancels it, and waits for its end."""
        future = asyncio.run_coroutine_threadsafe(self._in_context(work, guard), self._loop)
        try:
            return future.result()
        except Exception:
            raise
        except BaseException:  # such as Ctrl-C while this thread waits
            self._aborted = True
            future.cancel()
            wait([future], CANCEL_SECONDS)
            raise

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
        return self._services.waiting_line

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
        if self._aborted:
            for plugin in self._plugins:
                plugin.kill()
        await asyncio.gather(*(plugin.close() for plugin in self._plugins))
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


__all__ = ["AgentRollouts", "EpisodeRunner", "RolloutAgent", "RolloutParts", "training_agent"]
