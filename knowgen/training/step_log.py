"""What is kept of each step: its figures, its episodes with their images, and a line on stderr."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from knowgen.agents.gen_searcher import answer_of
from knowgen.core.records import AgentAnswer, Generation, ImageRef
from knowgen.store.training_ledger import TrainingLedger
from knowgen.store.training_run import EpisodeRecord, TrainingRun
from knowgen.training.backends.contract import Episode
from knowgen.training.episode_images import EpisodeImages
from knowgen.training.step_figures import ROLLOUT_SHARE, part_shares, step_figures, step_line, token_counts


class StepLog:
    """Records the steps of a training.

    Args:
        run: Directory of the training.
        images: Its images.
        ledger: What it has spent.
        steps: Number of steps.
        budget: Maximum cost in US dollars; None for none.
        keep_episodes: Whether episodes are stored.
        show: Takes the line of each step.
    """

    def __init__(
        self,
        run: TrainingRun,
        images: EpisodeImages,
        ledger: TrainingLedger,
        *,
        steps: int,
        budget: float | None = None,
        keep_episodes: bool = True,
        show: Callable[[str], None],
    ) -> None:
        self._run, self._images, self._ledger = run, images, ledger
        self._steps, self._keep, self._show = steps, keep_episodes, show
        self._budget = "" if budget is None else f" of ${budget:g}"
        self._spent = ledger.total()

    def __call__(self, step: int, figures: dict[str, float], episodes: Sequence[Episode]) -> None:
        """Record a step; see `TrainingTools.log`.

        Raises:
            DataError, ConfigError: The directory cannot be written.
        """
        spent = self._ledger.total()
        own = {**step_figures(episodes), "cost": spent - self._spent, "cost_total": spent}
        self._spent = spent
        shares = part_shares(episodes, figures.get(ROLLOUT_SHARE, 0.0))
        if shares:
            figures = {name: value for name, value in figures.items() if name != ROLLOUT_SHARE}
        every = {**own, **figures, **shares}
        if self._keep and episodes:
            self._run.put_episodes(step, [self._record(step, episode) for episode in episodes])
        self._run.add_metrics(step, every)
        self._show(step_line(step, self._steps, every, episodes, self._budget))

    def _record(self, step: int, episode: Episode) -> EpisodeRecord:
        reward, sample = episode.reward, episode.prompt.sample
        sampled, context = token_counts(episode.trajectory)
        return EpisodeRecord(
            step=step,
            key=episode.prompt.key,
            number=episode.number,
            sample_id=sample.id,
            prompt=sample.prompt,
            answer=self._answer(episode),
            generation=_without_paths(episode.generation),
            reward=reward.value,
            image=reward.image,
            text=reward.text,
            masked=reward.reason if reward.masked else "",
            reason="" if reward.masked else reward.reason,
            advantage=episode.advantage,
            sampled=sampled,
            context=context,
            gap=episode.gap,
            scores=reward.scores,
            seconds=episode.seconds,
            cost=episode.cost,
        )

    def _answer(self, episode: Episode) -> AgentAnswer | None:
        """Return what the agent did, with its images in the directory of the training."""
        if episode.trajectory is None:
            return None
        answer = answer_of(episode.trajectory)
        return answer.model_copy(
            update={
                "sample_id": episode.prompt.sample.id,
                "repeat": episode.number,
                "images": self._stored(answer.images),
                "references": self._stored(answer.references),
            }
        )

    def _stored(self, images: Sequence[ImageRef]) -> tuple[ImageRef, ...]:
        """Return the records of images, stored as far as their files are there."""
        return tuple(self._images.take(image) or image for image in images)


def _without_paths(generation: Generation | None) -> Generation | None:
    """Return a generation whose references name their images by content alone."""
    if generation is None:
        return None
    references = tuple(
        {name: value for name, value in reference.items() if name != "path"} for reference in generation.references
    )
    return generation.model_copy(update={"references": references})
