"""The first step of a training of a tiny model, taken apart: its episodes, its batch, its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from knowgen.training.grpo.training import TrlTraining
from knowgen.training.models import PolicyModel
from tests.helpers.grpo import Training
from tests.helpers.hand_grpo import HandLoss, gradients, hand_loss, largest_difference

GROUP = 4


@dataclass
class Step:
    """The first step of a training, before the gradient.

    Attributes:
        training: The training.
        model: The model that is trained.
        processor: Its processor.
        trainer: The trainer.
        batch: The episodes as the trainer takes them.
    """

    training: Training
    model: Any
    processor: Any
    trainer: Any
    batch: dict[str, Any]

    def loss(self) -> Any:
        """Return the loss of all episodes by the trainer."""
        return self.loss_of(self.batch)

    def loss_of(self, batch: dict[str, Any]) -> Any:
        """Return the loss of a micro-batch by the trainer."""
        self.trainer.current_gradient_accumulation_steps = 1
        return self.trainer._compute_loss(self.trainer.model, batch)

    def value(self) -> float:
        """Return the loss by the trainer as a number."""
        return float(self.loss().detach())

    def by_hand(self, **options: Any) -> HandLoss:
        """Return the loss written by hand."""
        episodes = self.trainer._collected.episodes
        return hand_loss(self.model, self.processor, episodes, group=GROUP, temperature=0.8, **options)

    def differences(self, **options: Any) -> tuple[float, float]:
        """Return the difference of the losses, and the largest one of the gradients, relative to the gradient."""
        theirs, ours = self.by_hand(**options).loss, self.loss()
        difference = abs(float(theirs.detach()) - float(ours.detach()))
        return difference, largest_difference(gradients(self.model, theirs), gradients(self.model, ours))


def first_step(training: Training, policy_model: PolicyModel) -> Step:
    """Sample the episodes of the first step."""
    trainer = TrlTraining(training.config, training.tools(), policy_model).trainer
    trainer.model.train()
    inputs = next(iter(trainer.get_train_dataloader()))
    batch = trainer._generate_and_score_completions(inputs)
    return Step(training, policy_model.model, policy_model.processor, trainer, batch)


def micro_batches(batch: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Split a batch as TRL does."""
    from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

    return [unsplit_pixel_values_by_grid(part) for part in split_tensor_dict(split_pixel_values_by_grid(batch), count)]


def move(model: Any, by: float) -> None:
    """Change the weights that are trained, as steps on the same episodes do."""
    import torch

    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += by * parameter.abs().mean() * torch.randn_like(parameter)
