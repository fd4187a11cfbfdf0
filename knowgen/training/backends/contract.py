"""The contract of a training backend: it samples with the agent, computes gradients, and returns weights.

A backend owns the model, its optimizer and its checkpoints. It opens a policy over the weights that it trains, has
`Rollouts` run the agent with it, and takes the episodes with their rewards. `trl` and `verl` are bundled; another one
is named as `module:Class`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from knowgen.agents.policies.contract import Policy
from knowgen.agents.records import Trajectory
from knowgen.core.records import Generation, GroundTruth, Sample
from knowgen.training.config import TrainingConfig
from knowgen.training.rewards import EpisodeReward


@dataclass(frozen=True)
class TrainingPrompt:
    """A prompt of a training, with what its reward needs.

    Attributes:
        key: Identity in the training, such as `rl_items/17`; unique in an epoch.
        sample: The sample; all that the agent and the image model are given.
        truth: Its ground truth; only rewards are given it.
        difficulty: Its difficulty for a curriculum, smaller is easier; 0 when the task has none.
        search: Name of the search backend of its task; empty where the agent has one for all prompts.
    """

    key: str
    sample: Sample
    truth: GroundTruth
    difficulty: float = 0.0
    search: str = ""


@dataclass
class Episode:
    """A trajectory with its image and its reward.

    Attributes:
        prompt: The prompt.
        number: Number within its group, from 0.
        trajectory: What the agent did, with the token ids of its policy. None where a service failed before its end.
        generation: The image, or why there is none; None where none was to be generated.
        reward: The reward; masked where a service failed.
        seconds: Time of each part in seconds: agent, image, image_reward, text_reward.
        cost: Cost in US dollars; None when a part of it is not known.
        advantage: Advantage within its group, set by the backend; None if masked.
        gap: Largest difference between a token's log-probability by the engine and by the trainer, set by the backend;
            None if unknown.
    """

    prompt: TrainingPrompt
    number: int
    trajectory: Trajectory | None
    generation: Generation | None
    reward: EpisodeReward
    seconds: dict[str, float] = field(default_factory=dict)
    cost: float | None = 0.0
    advantage: float | None = None
    gap: float | None = None


class Rollouts(Protocol):
    """Runs the agent on prompts, and computes the rewards while trajectories are in flight.

    It has one event loop for the whole training, in a thread of its own, so that connections live on between steps.
    """

    def run(self, prompts: Sequence[TrainingPrompt], *, step: int, seeds: Sequence[int]) -> list[Episode]:
        """Run one episode for each entry of `prompts`, in order; a prompt is repeated once for each of its group.

        Args:
            prompts: The prompt of each episode.
            step: Number of the step, from 1.
            seeds: Seed of the sampling of each episode, such as those of `seeds.episode_seed`.

        Raises:
            BudgetReachedError: The budget allows no further call.
            AccountError: A service rejects the account.
            ServiceUnavailableError: A service gave no answer for longer than the patience.
        """
        ...

    def close(self) -> None:
        """End the event loop, and close all connections."""
        ...


@dataclass(frozen=True)
class TrainingTools:
    """What a training gives its backend.

    Attributes:
        folder: Directory of the training.
        prompts: Returns the prompts of an epoch in their order; epochs count from 0.
        rollouts: Builds the rollouts of the agent with a policy over the weights that are trained.
        log: Called after each step with its number, its figures by name, and its episodes.
        evaluate: Called with the number of a step and a folder of exported weights; returns the headline, or None
            where the evaluation gave none. None without an evaluation.
        resume: Whether an earlier call is continued from its last checkpoint.
        worker_rollouts: `module:function` that builds the rollouts in a process on any machine of a cluster, from the
            configuration, the directory of the training and the policy; for backends that sample there.
    """

    folder: Path
    prompts: Callable[[int], Sequence[TrainingPrompt]]
    rollouts: Callable[[Policy], Rollouts]
    log: Callable[[int, dict[str, float], Sequence[Episode]], None]
    evaluate: Callable[[int, Path], float | None] | None = None
    resume: bool = False
    worker_rollouts: str = ""


@dataclass(frozen=True)
class TrainingResult:
    """What a training returned.

    Attributes:
        steps: Number of optimizer steps, earlier calls included.
        weights: Folder of the exported model, which the policy `hf:` and vLLM load.
        stopped: Why it ended early: `interrupted`, `budget` or a reason in words; empty when it is complete.
    """

    steps: int
    weights: Path
    stopped: str = ""


class GrpoBackend(Protocol):
    """Trains the policy with GRPO."""

    def __init__(self, config: TrainingConfig) -> None:
        """Take the configuration, without loading anything."""
        ...

    def check(self) -> list[str]:
        """Return what stands in the way of the training on this machine, one line each; nothing is loaded."""
        ...

    def train(self, tools: TrainingTools) -> TrainingResult:
        """Train, and return the weights.

        Raises:
            KnowgenError: It cannot begin or go on.
        """
        ...
