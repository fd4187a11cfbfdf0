"""TRL's GRPO trainer on the trajectories of the agent.

One method is replaced: `_generate`, which returns the episodes of a step in place of replies to prompts. Two are
extended: `_generate_and_score_completions` keeps the step's inputs, and `_compute_loss` takes padding off a
micro-batch. Everything else, from the advantages to the optimizer, is TRL's. `trl_interface` checks that it is the TRL
that this was written for.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knowgen.local_models.pixels import PixelCache
from knowgen.training.backends.contract import Episode
from knowgen.training.batches import blank_image
from knowgen.training.config import VISION_MODULES, GrpoSection
from knowgen.training.grpo.collection import Collected, Collector
from knowgen.training.grpo.rows import RowBuilder, TrainingRow

if TYPE_CHECKING:
    from trl import GRPOTrainer
else:
    GRPOTrainer = object

LogStep = Callable[[int, dict[str, float], Sequence[Episode]], None]

_BY_TOKEN = (
    "completion_ids", "completion_mask", "tool_mask", "old_per_token_logps", "sampling_per_token_logps",
    "ref_per_token_logps", "importance_sampling_ratio",
)  # fmt: skip
"""Entries of a batch with a value for each token of the completion."""


@dataclass(frozen=True)
class Rollout:
    """What the trainer needs to sample.

    Attributes:
        collector: Runs the episodes of a step.
        rows: Makes rows of them.
        pixels: Preprocessed images.
        sampling: Prepares the weights of a version for sampling while its block runs.
    """

    collector: Collector
    rows: RowBuilder
    pixels: PixelCache
    sampling: Callable[[str], AbstractContextManager[None]]


class GrpoOnEpisodes(GRPOTrainer):  # type: ignore[misc]
    """What is replaced and extended in TRL's trainer; `grpo_trainer` puts it before that.

    Args:
        model: The model that is trained, of transformers or peft.
        processor: Its processor.
        arguments: Arguments of TRL's trainer.
        grpo: The part of the configuration on GRPO.
        prompts: Number of prompts in the whole training.
        log: Called after each step, in the main process.
    """

    def __init__(
        self, *, model: Any, processor: Any, arguments: Any, grpo: GrpoSection, prompts: int, log: LogStep
    ) -> None:
        from datasets import Dataset
        from transformers import PrinterCallback

        first = copy.deepcopy(model) if grpo.kl > 0 and not hasattr(model, "get_base_model") else None
        places = Dataset.from_dict({"prompt": [""] * prompts, "position": list(range(prompts))})
        super().__init__(
            model=model,
            reward_funcs=[self._stored_rewards],
            args=arguments,
            train_dataset=places,
            processing_class=processor,
        )
        self.remove_callback(PrinterCallback)
        self.add_callback(_callback(self))
        self.tools = [_no_tool]  # TRL takes images from the whole row, and not from the prompt, where there are tools
        self.rollout: Rollout
        self.before_step: Callable[[], None]
        self.num_iterations: int
        self._grpo, self._log = grpo, log
        self._collected = Collected([], [], [], 0, 0, 0.0, 0)
        self._positions: list[int] = []
        self._logprobs: Any = None
        self._gaps = _Gaps(0)
        self._fresh, self._started, self._rollout_seconds = False, time.perf_counter(), 0.0
        if grpo.kl > 0:
            self._add_first_model(first)

    def _add_first_model(self, first: Any) -> None:
        """Keep the model before the training, from which the divergence is measured; adapters are switched off."""
        self.beta = self._grpo.kl
        if first is not None:
            from trl.trainer.utils import add_fused_lm_head

            add_fused_lm_head(first.requires_grad_(False), temperature=self.temperature)
            self.ref_model = self.accelerator.prepare_model(first.eval(), evaluation_mode=True)

    @property
    def nothing_to_learn(self) -> bool:
        """Whether no episode of the step can be used, in any process."""
        return self._collected.used == 0

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._positions = [int(each["position"]) for each in inputs]
        iterations = self.num_iterations
        if self._grpo.old_logprobs == "engine":
            self.num_iterations = 1  # TRL would compute what the engine has reported
        try:
            with self._shared_pixels():
                output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        finally:
            self.num_iterations = iterations
        return self._extended(output)

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        """Return the episodes of the step as TRL takes replies: eight results, see `trl_interface.RESULTS`."""
        step = self.state.global_step + 1
        started = time.perf_counter()
        if self.use_vllm and self.state.global_step != self._last_loaded_step:
            self._send_weights()
        with self.rollout.sampling(f"step-{self.state.global_step}"):
            self._collected = self.rollout.collector.collect(self._positions, step)
        self._rollout_seconds = time.perf_counter() - started
        self._fresh = True
        self._gaps = _Gaps(len(prompts))
        rows = [self.rollout.rows.row(episode) for episode in self._collected.episodes]
        images = [row.images for row in rows]
        return (
            [row.prompt for row in rows],
            [row.completion for row in rows],
            [self._mask(place, row) for place, row in enumerate(rows)],
            [""] * len(rows),
            [row.logprobs for row in rows],
            {},
            images,
            images,
        )

    def _send_weights(self) -> None:
        """Send the weights to the server; all processes take part."""
        self.vllm_generation.sync_weights()
        self._last_loaded_step = self.state.global_step
        vision = (each for name, each in self.model.named_parameters() if any(m in name for m in VISION_MODULES))
        if self.accelerator.is_main_process and any(parameter.requires_grad for parameter in vision):
            # TRL resets the prefix cache alone, and the server keeps what the vision tower made of each image
            client = self.vllm_generation.vllm_client
            client.session.post(f"{client.base_url}/reset_encoder_cache").raise_for_status()

    def _mask(self, place: int, row: TrainingRow) -> list[int]:
        """Return which ids of a completion are trained on."""
        trajectory = self._collected.episodes[place].trajectory
        left_out = trajectory is not None and trajectory.ending in self._grpo.masked_endings
        return row.sampled if self._collected.usable[place] and not left_out else [0] * len(row.sampled)

    def _stored_rewards(self, **_: Any) -> list[float]:
        """Return the rewards of the episodes; NaN where masked, which TRL leaves out of the mean and deviation."""
        values = [episode.reward.value for episode in self._collected.episodes]
        return [float("nan") if value is None else value for value in values]

    def _extended(self, output: dict[str, Any]) -> dict[str, Any]:
        """Return a batch with what `_compute_loss` needs besides, and note the advantages."""
        collected = self._collected
        # the mean of equal rewards is rounded, and their advantages are not quite 0: that would be scaled up by Adam
        output["advantages"] = output["advantages"].masked_fill(self._tensor(collected.equal), 0.0)
        for episode, usable, advantage in zip(
            collected.episodes, collected.usable, output["advantages"].tolist(), strict=True
        ):
            episode.advantage = advantage if usable else None
        if self._grpo.old_logprobs == "engine":
            output["old_per_token_logps"] = output["sampling_per_token_logps"]
        output["row"] = self._tensor(range(len(collected.episodes)))
        # TRL divides by all rows; those that cannot be used do not count
        output["weight"] = self._tensor(collected.total / max(1, collected.used))
        return output

    def _tensor(self, values: Any) -> Any:
        import torch

        return torch.tensor(values if isinstance(values, float) else list(values), device=self.accelerator.device)

    def _compute_loss(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        batch = trimmed(inputs)
        loss = super()._compute_loss(model, batch) * inputs["weight"]
        if self._fresh:
            self._gaps.add(batch, self._logprobs)
        self._logprobs = None
        return loss

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        result = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        self._logprobs = result[0].detach()
        return result

    @contextmanager
    def _shared_pixels(self) -> Iterator[None]:
        """Give TRL the images that were preprocessed for sampling."""
        processor = self.processing_class
        own = processor.image_processor
        processor.image_processor = _KnownImages(self.rollout.pixels, own, shown=self._grpo.images_in_gradient)
        try:
            yield
        finally:
            processor.image_processor = own

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Report the figures of a step."""
        super().log(logs, start_time)
        del self.state.log_history[:-1]  # the figures are in the directory of the training
        if "loss" in logs:
            self._report(logs)

    def _report(self, logs: Mapping[str, float]) -> None:
        seconds = time.perf_counter() - self._started
        names = {"loss": "loss", "grad_norm": "grad_norm", "learning_rate": "learning_rate",
                 "clip_ratio/region_mean": "clipped", "entropy": "entropy", "kl": "kl"}  # fmt: skip
        figures = {new: float(logs[name]) for name, new in names.items() if logs.get(name) is not None}
        spent = self._rollout_seconds if self._fresh else 0.0
        figures |= {"seconds": seconds, "share/rollout": spent / seconds, "share/train": 1.0 - spent / seconds}
        episodes: list[Episode] = []
        if self._fresh:
            figures |= {"without_spread": self._collected.without_spread, "replaced": float(self._collected.replaced)}
            figures |= self._gaps.figures(self.everywhere)
            self._gaps.note(self._collected.episodes)
            episodes = self.everywhere(self._collected.episodes)
        self._fresh = False
        if self.accelerator.is_main_process:
            self._log(self.state.global_step, figures, episodes)

    def everywhere(self, values: list[Any]) -> list[Any]:
        """Return the values of all processes, in order."""
        from accelerate.utils import gather_object

        return values if self.accelerator.num_processes == 1 else gather_object(values)

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the last whole step; all processes take part."""
        self._save_checkpoint(self.model, None)

    def begin_step(self) -> None:
        """Do what comes before a step, and note that it begins."""
        self.before_step()
        self._started = time.perf_counter()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write no model card: it would describe another training than this one."""

    def _send_telemetry(self) -> None:
        """Send nothing."""


def grpo_trainer(**arguments: Any) -> GrpoOnEpisodes:
    """Return TRL's trainer for episodes.

    Args:
        arguments: Those of `GrpoOnEpisodes`.
    """
    from trl import GRPOTrainer

    trainer: GrpoOnEpisodes = type("AgentGrpoTrainer", (GrpoOnEpisodes, GRPOTrainer), {})(**arguments)
    return trainer


def _callback(trainer: GrpoOnEpisodes) -> Any:
    """Return what the training loop calls."""
    from transformers import TrainerCallback

    class StepCallback(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            trainer.begin_step()

        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            if trainer.nothing_to_learn:  # weight decay and momentum would change the weights
                for parameter in trainer.model.parameters():
                    parameter.grad = None

    return StepCallback()


class _KnownImages:
    """An image processor for images that may have been preprocessed.

    Args:
        pixels: Preprocessed images.
        image_processor: The image processor of the model.
        shown: Whether the images are shown; otherwise each is grey.
    """

    def __init__(self, pixels: PixelCache, image_processor: Any, *, shown: bool) -> None:
        self.merge_size = image_processor.merge_size
        self._pixels, self._blank, self._shown = pixels, blank_image(image_processor), shown

    def __call__(self, images: Sequence[Any], return_tensors: str) -> dict[str, Any]:
        """Return the images one after another as the model takes them; None is the blank one."""
        import torch

        data = [self._blank if image is None else self._pixels.of(image) for image in images]
        return {
            "pixel_values": torch.cat([pixels if self._shown else torch.zeros_like(pixels) for pixels, _ in data]),
            "image_grid_thw": torch.cat([grid for _, grid in data]),
        }


class _Gaps:
    """Differences between the log-probabilities of sampled tokens by the engine and by the trainer.

    Args:
        rows: Number of episodes of this process.
    """

    def __init__(self, rows: int) -> None:
        self._largest = [0.0] * rows
        self._known = [False] * rows
        self._sum, self._count = 0.0, 0

    def add(self, batch: Mapping[str, Any], logprobs: Any) -> None:
        """Add a micro-batch with the log-probabilities of its completions by the trainer."""
        mask = batch["tool_mask"].bool() & batch["completion_mask"].bool()
        gap = (logprobs - batch["sampling_per_token_logps"]).abs().masked_fill(~mask, 0.0)
        self._sum += float(gap.sum())
        self._count += int(mask.sum())
        for row, largest, known in zip(
            batch["row"].tolist(), gap.amax(dim=1).tolist(), mask.any(dim=1).tolist(), strict=True
        ):
            self._largest[row], self._known[row] = largest, known

    def note(self, episodes: Sequence[Episode]) -> None:
        """Write the largest difference into each episode; None for one without trained tokens."""
        for episode, largest, known in zip(episodes, self._largest, self._known, strict=True):
            episode.gap = largest if known else None

    def figures(self, everywhere: Callable[[list[Any]], list[Any]]) -> dict[str, float]:
        """Return mean and maximum over all processes; nothing where no token was trained on."""
        found = everywhere([(self._sum, self._count, max(self._largest, default=0.0))])
        count = sum(each[1] for each in found)
        if not count:
            return {}
        return {"gap_mean": sum(each[0] for each in found) / count, "gap_max": max(each[2] for each in found)}


def trimmed(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a micro-batch without the padding that all its rows have: that of longer rows of other micro-batches.

    Prompts are padded on the left, completions on the right.

    Args:
        inputs: The micro-batch, with ids and masks of shape (rows, tokens).
    """
    width, length = inputs["completion_mask"].size(1), int(inputs["completion_mask"].sum(1).max())
    start = inputs["prompt_mask"].size(1) - int(inputs["prompt_mask"].sum(1).max())
    batch = dict(inputs)
    for name in _BY_TOKEN:
        if name in batch and batch[name].dim() == 2 and batch[name].size(1) == width:
            batch[name] = batch[name][:, :length]
    for name in ("prompt_ids", "prompt_mask"):
        batch[name] = batch[name][:, start:]
    if "mm_token_type_ids" in batch:
        batch["mm_token_type_ids"] = batch["mm_token_type_ids"][:, start : inputs["prompt_mask"].size(1) + length]
    return batch


def _no_tool() -> None:
    """Stand for tools, which the agent calls itself."""
