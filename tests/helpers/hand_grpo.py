"""GRPO written by hand: one trajectory after another, without padding, from its ids, its images and its reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from knowgen.training.backends.contract import Episode


def advantages(episodes: Sequence[Episode], group: int) -> list[float | None]:
    """Return the advantage of each episode; None for one that is masked, or alone in its group."""
    found: list[float | None] = []
    for start in range(0, len(episodes), group):
        values = [episode.reward.value for episode in episodes[start : start + group]]
        known = [value for value in values if value is not None]
        for value in values:
            if value is None or len(known) < 2:
                found.append(None)
            else:
                found.append((value - mean(known)) / (stdev(known) + 1e-4))
    return found


@dataclass(frozen=True)
class HandLoss:
    """The loss of episodes, and the log-probabilities of their sampled tokens.

    Attributes:
        loss: A scalar with a gradient.
        logprobs: Log-probabilities of the sampled tokens of each episode that counts.
    """

    loss: Any
    logprobs: list[list[float]]

    @property
    def value(self) -> float:
        """The loss as a number."""
        return float(self.loss.detach())


def hand_loss(
    model: Any,
    processor: Any,
    episodes: Sequence[Episode],
    *,
    group: int,
    temperature: float,
    clip: tuple[float, float] = (0.2, 0.28),
    on_policy: bool = False,
    kl: float = 0.0,
    first: Any = None,
    left_out: Sequence[str] = (),
    blind: bool = False,
) -> HandLoss:
    """Return the mean over episodes of the sum over their sampled tokens.

    Args:
        model: The model that is trained.
        processor: Its processor.
        episodes: The episodes of a step, group after group.
        group: Trajectories of a group.
        temperature: Sampling temperature.
        clip: Lower and upper distance of the clip from 1.
        on_policy: Whether the ratio is taken to the model itself, and not to the engine.
        kl: Weight of the divergence from the first model.
        first: The first model.
        left_out: Endings that are left out of the gradient, not out of the mean.
        blind: Whether all images are replaced by black ones.
    """
    import torch

    total: Any = torch.zeros(())
    count, known = 0, []
    for episode, advantage in zip(episodes, advantages(episodes, group), strict=True):
        if advantage is None:
            continue
        count += 1
        if episode.trajectory is None or episode.trajectory.ending in left_out:
            continue
        old = torch.tensor([v for s in episode.trajectory.segments if s.sampled for v in s.logprobs or ()])
        new = sampled_logprobs(model, processor, episode, temperature, blind=blind)
        known.append(new.detach().tolist())
        ratio = torch.exp(new - (new.detach() if on_policy else old))
        value = -torch.min(ratio * advantage, ratio.clamp(1 - clip[0], 1 + clip[1]) * advantage)
        if kl:
            with torch.no_grad():
                reference = sampled_logprobs(first, processor, episode, temperature)
            value = value + kl * ratio * (torch.exp(reference - new) - (reference - new) - 1)
        total = total + value.sum()
    return HandLoss(total / max(1, count), known)


def sampled_logprobs(model: Any, processor: Any, episode: Episode, temperature: float, *, blind: bool = False) -> Any:
    """Return the log-probabilities of the sampled tokens of an episode."""
    import torch
    from PIL import Image

    trajectory = episode.trajectory
    assert trajectory is not None
    ids = [token for segment in trajectory.segments for token in segment.ids]
    sampled = [segment.sampled for segment in trajectory.segments for _ in segment.ids]
    images = [image.open() for message in trajectory.messages for image in message.images]
    if blind:
        images = [Image.new("RGB", image.size) for image in images]
    inputs: dict[str, Any] = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()}
    if images:
        inputs |= dict(processor.image_processor(images=images, return_tensors="pt"))
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == processor.image_token_id).int()
    logits = type(model).forward(model, **inputs).logits[0, :-1].float() / temperature
    logprobs = torch.log_softmax(logits, -1).gather(-1, inputs["input_ids"][0, 1:, None])[:, 0]
    return logprobs[torch.tensor(sampled[1:])]


def gradients(model: Any, loss: Any) -> dict[str, Any]:
    """Return the gradient of a loss by parameter, and leave the model without one."""
    model.zero_grad()
    loss.backward()
    found = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    return found


def largest_difference(one: dict[str, Any], two: dict[str, Any]) -> float:
    """Return the largest difference of two gradients, relative to the largest entry of the first."""
    assert one.keys() == two.keys()
    scale = max(float(value.abs().max()) for value in one.values())
    return max(float((one[name] - two[name]).abs().max()) for name in one) / max(scale, 1e-12)
