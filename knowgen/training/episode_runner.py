"""The episodes of a step: trajectories with their rewards, each in a task of its own.

No episode waits for another one, except for a place. As soon as a trajectory ends with an answer, the answer is scored
and its image generated, while other trajectories go on.

A failure of the policy gets reward 0: no answer, one that cannot be read, the same reply again, a conversation that is
too long, references that the rule does not allow. A failure of anything else masks the episode, with its reason.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from knowgen.agents.records import Ending, Trajectory
from knowgen.agents.time_limit import TimeLimit
from knowgen.core.metering import spending
from knowgen.core.records import FailureCause, Generation, GenerationRequest, GenerationStatus, ImageRef, Usage
from knowgen.core.text import duration_text
from knowgen.engine.retry import CallTimeoutError
from knowgen.generators.contract import GeneratedImage
from knowgen.search.contract import SearchBackend
from knowgen.training.backends.contract import Episode, TrainingPrompt
from knowgen.training.config import TrainingConfig
from knowgen.training.episode_images import EpisodeImages
from knowgen.training.plugin_calls import EpisodeMaskedError, PainterCalls, ScorerCalls, TrainingServices
from knowgen.training.rewards import EpisodeReward, ReferencesRule, combined, image_reward, masked, text_reward
from knowgen.training.searches import Searches
from knowgen.training.seeds import image_seed

LONGEST_TRAJECTORY = 3 * 3600.0
"""Time in seconds, without waiting for services, after which a trajectory hangs, such as in a search of a plugin."""


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
        painter: PainterCalls | None = None,
        image: ScorerCalls | None = None,
        text: ScorerCalls | None = None,
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
            limit = TimeLimit(LONGEST_TRAJECTORY)
            try:
                async with limit:
                    return await self._agent.run(prompt.sample.prompt, session=session, seed=draft.seed, search=search)
            except TimeoutError as error:
                if not limit.reached:
                    raise
                raise CallTimeoutError(
                    f"the agent gave no answer within {duration_text(LONGEST_TRAJECTORY)}"
                ) from error

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
