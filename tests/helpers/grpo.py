"""GRPO on a tiny model: short trajectories in which a tool shows a picture, and rewards by a rule."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knowgen.agents.policies.contract import Policy, Sampling
from knowgen.agents.records import Ending, Message, Trajectory
from knowgen.core.records import GroundTruth, ImageRef, Sample, image_ref
from knowgen.training.backends.contract import Episode, TrainingPrompt, TrainingTools
from knowgen.training.config import TrainingConfig
from knowgen.training.models import PolicyModel, freeze
from knowgen.training.rewards import EpisodeReward, masked
from tests.helpers import tiny_models
from tests.helpers.policies import picture

COLOURS = ("red", "green", "blue", "yellow")


def tiny_policy_model(seed: int = 0, *, frozen: Sequence[str] = ("vision", "projector")) -> PolicyModel:
    """Return a Qwen3-VL with random weights."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(seed)
    processor = tiny_models.processor()
    words = processor.tokenizer
    model = Qwen3VLForConditionalGeneration(tiny_models.config(words)).eval()
    model.generation_config.eos_token_id = [words.eos_token_id]
    model.generation_config.pad_token_id = words.pad_token_id
    model.generation_config.top_k, model.generation_config.do_sample = 20, True
    freeze(model, frozen, "test")
    return PolicyModel(model, processor, f"tiny:{seed}")


def prompts(count: int, epoch: int = 0) -> list[TrainingPrompt]:
    """Return prompts of an epoch, each with a colour as its truth."""
    return [
        TrainingPrompt(
            f"test/{epoch}-{number}",
            Sample(id=f"{epoch}-{number}", prompt=f"Draw the harbour {number}"),
            GroundTruth(sample_id=f"{epoch}-{number}", extra={"colour": COLOURS[number % len(COLOURS)]}),
        )
        for number in range(count)
    ]


def shown_picture(folder: Path, colour: str, height: int) -> ImageRef:
    """Return a picture of a colour; it is written once, because an engine may be reading it."""
    path = folder / str(height) / f"{colour}.png"
    return image_ref(path) if path.is_file() else picture(path.parent, colour, (64, height))


def by_length(episode: Episode) -> EpisodeReward:
    """Reward replies with an even number of tokens, and short ones a little."""
    assert episode.trajectory is not None
    count = sum(len(segment.ids) for segment in episode.trajectory.segments if segment.sampled)
    tokens = [token for segment in episode.trajectory.segments if segment.sampled for token in segment.ids]
    return EpisodeReward(0.5 * (sum(tokens) % 7) / 7 + 0.5 / (1 + count))


@dataclass
class PictureRollouts:
    """Runs trajectories of two replies, between which a tool shows a picture of the prompt's colour.

    Attributes:
        policy: The policy.
        folder: Folder of the pictures.
        config: The configuration.
        reward: Reward of an episode.
        shows: Whether the tool shows a picture, by key and number of the episode.
        fails: Why a service fails before the end of an episode, by key and number; empty if it does not.
        before: Called before each step with its number.
        steps: Number of each step that was run, with the keys and seeds of its episodes.
        closed: Whether it was closed.
    """

    policy: Policy
    folder: Path
    config: TrainingConfig
    reward: Callable[[Episode], EpisodeReward] = by_length
    shows: Callable[[str, int], bool] = lambda key, number: True
    fails: Callable[[str, int], str] = lambda key, number: ""
    before: Callable[[int], None] = lambda step: None
    steps: list[tuple[int, list[str], list[int]]] = field(default_factory=list)
    closed: bool = False
    _runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    def run(self, prompts: Sequence[TrainingPrompt], *, step: int, seeds: Sequence[int]) -> list[Episode]:
        """Run the episodes of a step."""
        self.steps.append((step, [prompt.key for prompt in prompts], list(seeds)))
        self.before(step)
        return self._runner.run(self._run(prompts, seeds))

    async def _run(self, prompts: Sequence[TrainingPrompt], seeds: Sequence[int]) -> list[Episode]:
        numbers: dict[str, int] = {}
        tasks = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            number = numbers[prompt.key] = numbers.get(prompt.key, -1) + 1
            tasks.append(self._episode(prompt, number, seed))
        return list(await asyncio.gather(*tasks))

    async def _episode(self, prompt: TrainingPrompt, number: int, seed: int) -> Episode:
        if reason := self.fails(prompt.key, number):
            return Episode(prompt, number, None, None, masked(reason))
        assert self.config.grpo is not None
        rollout = self.config.grpo.rollout
        sampling = Sampling(rollout.temperature, rollout.top_p, rollout.max_new_tokens, seed=seed)
        session = self.policy.open(sampling, prompt.sample.prompt, f"{prompt.key}#{number}")
        messages = [Message("system", "You search."), Message("user", prompt.sample.prompt)]
        first = await session.reply(messages)
        messages.append(Message("assistant", first.text))
        images: tuple[ImageRef, ...] = ()
        if self.shows(prompt.key, number):
            images = (shown_picture(self.folder, prompt.truth.extra["colour"], 32 * (1 + seed % 2)),)
        messages.append(Message("user", "<tool_response>\nIMG_001\n</tool_response>", images))
        second = await session.reply(messages)
        messages.append(Message("assistant", second.text))
        ending = Ending.NO_ANSWER if number == 3 else Ending.ANSWER
        trajectory = Trajectory(messages, segments=session.segments, ending=ending)
        await session.close()
        episode = Episode(prompt, number, trajectory, None, EpisodeReward(0.0))
        episode.reward = self.reward(episode)
        return episode

    def close(self) -> None:
        """Close the policy and the event loop."""
        self._runner.run(self.policy.close())
        self._runner.close()
        self.closed = True


def tiny_config(**grpo: Any) -> TrainingConfig:
    """Return a configuration for a tiny model: two prompts of four trajectories a step."""
    rollout = {
        "prompts": 2, "group": 4, "temperature": 0.8, "top_p": 1.0, "max_new_tokens": 6, **grpo.pop("rollout", {}),
    }  # fmt: skip
    top = {name: grpo.pop(name) for name in ("checkpoints", "evaluation", "seed", "optimizer") if name in grpo}
    return TrainingConfig.model_validate(
        {
            "method": "grpo",
            "model": {"path": "tiny", "dtype": "float32", "gradient_checkpointing": False},
            "optimizer": {"learning_rate": 1e-3},
            "grpo": {"max_steps": 2, "micro_batch": 8, "rollout": rollout, **grpo},
            **top,
        }
    )


@dataclass
class Training:
    """What a training with a tiny model was given and did.

    Attributes:
        folder: Its directory.
        config: Its configuration.
        options: Further arguments of its rollouts.
        size: Prompts of an epoch.
        figures: Figures of each step.
        episodes: Episodes of each step.
        rollouts: Its rollouts.
        evaluate: Evaluates weights.
    """

    folder: Path
    config: TrainingConfig
    options: dict[str, Any] = field(default_factory=dict)
    size: int = 16
    figures: dict[int, dict[str, float]] = field(default_factory=dict)
    episodes: dict[int, list[Episode]] = field(default_factory=dict)
    rollouts: PictureRollouts | None = None
    evaluate: Callable[[int, Path], float | None] | None = None

    @property
    def runs(self) -> list[tuple[int, list[str], list[int]]]:
        """Number of the step, keys and seeds of each call of its rollouts."""
        assert self.rollouts is not None
        return self.rollouts.steps

    def sampled_with(self, step: int) -> set[str]:
        """Return the versions of the weights that sampled the episodes of a step."""
        trajectories = [episode.trajectory for episode in self.episodes[step] if episode.trajectory is not None]
        return {segment.weights for each in trajectories for segment in each.segments if segment.sampled}

    def tools(self, *, resume: bool = False) -> TrainingTools:
        """Return what the backend is given."""

        def rollouts(policy: Policy) -> PictureRollouts:
            pictures = self.folder / f"pictures-{os.getpid()}"  # another process may be reading a file of its own
            self.rollouts = PictureRollouts(policy, pictures, self.config, **self.options)
            return self.rollouts

        def log(step: int, figures: dict[str, float], episodes: Sequence[Episode]) -> None:
            self.figures[step] = figures
            self.episodes[step] = list(episodes)

        return TrainingTools(self.folder, lambda epoch: prompts(self.size, epoch), rollouts, log, self.evaluate, resume)
