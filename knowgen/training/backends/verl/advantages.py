"""Advantages within groups of episodes, without those that could not be scored.

    advantage = (reward - mean) / (std + 1e-4)      over the scored episodes of the group, std with n - 1

A group with one scored episode has the advantage 0. verl's own estimator would count an episode without a reward as one
with reward 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

ESTIMATOR = "knowgen_grpo"
"""Name of the estimator in verl."""

MASKED = -1.0
"""Reward of an episode that could not be scored, for verl, which needs a number; rewards are in [0, 1]."""

EPSILON = 1e-4
"""Added to the standard deviation, as in TRL."""


def group_advantages(rewards: Sequence[float | None], groups: Sequence[Any], scale: bool = True) -> list[float | None]:
    """Return the advantage of each episode; None where it has no reward.

    Args:
        rewards: Rewards in [0, 1]; None for an episode that could not be scored.
        groups: Identity of the group of each episode.
        scale: Whether advantages are divided by the standard deviation of their group.

    Example:
        >>> group_advantages([1.0, 0.0, None, 0.5], ["a", "a", "a", "b"], scale=False)
        [0.5, -0.5, None, 0.0]
    """
    scored: dict[Any, list[float]] = defaultdict(list)
    for reward, group in zip(rewards, groups, strict=True):
        if reward is not None:
            scored[group].append(reward)
    means = {group: fmean(values) for group, values in scored.items()}
    scales = {
        group: (stdev(values) if len(values) > 1 else 0.0) + EPSILON if scale else 1.0
        for group, values in scored.items()
    }
    return [
        None if reward is None else (reward - means[group]) / scales[group]
        for reward, group in zip(rewards, groups, strict=True)
    ]


def verl_advantages(
    token_level_rewards: Any, response_mask: Any, index: Any, config: Any = None, **_: Any
) -> tuple[Any, Any]:
    """Return advantages and returns as verl's estimators do.

    Args:
        token_level_rewards: Tensor of shape (batch, ids) whose rows sum to the rewards.
        response_mask: Tensor of shape (batch, ids), 1 where an id was sampled.
        index: Identity of the group of each row.
        config: verl's section `algorithm`.
    """
    import torch

    values = token_level_rewards.sum(dim=-1).tolist()
    scale = True if config is None else bool(config.get("norm_adv_by_std_in_grpo", True))
    rewards = [None if value < 0 else value for value in values]
    numbers = [value or 0.0 for value in group_advantages(rewards, list(index), scale)]
    advantages = torch.tensor(numbers, dtype=token_level_rewards.dtype, device=token_level_rewards.device)
    spread = advantages.unsqueeze(-1) * response_mask
    return spread, spread
