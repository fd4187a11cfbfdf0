"""The arguments of TRL's trainer for the configuration of a training."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError
from knowgen.core.text import count
from knowgen.training.config import GrpoSection, TrainingConfig

_LONGEST_WAIT = timedelta(hours=12)
"""Time that a process waits for others: rollouts and evaluations of one may take long."""


def accumulation_steps(grpo: GrpoSection, processes: int) -> int:
    """Return the number of forward passes of each process for one step.

    Raises:
        ConfigError: The trajectories of a step cannot be divided evenly.
    """
    rows = grpo.rollout.prompts * grpo.rollout.group
    if rows % (processes * grpo.micro_batch):
        raise ConfigError(
            f"the {rows} trajectories of a step cannot be divided among {count(processes, 'process', 'processes')} "
            f"with micro-batches of {grpo.micro_batch}",
            where="grpo.micro_batch",
            fix="set grpo.micro_batch so that it divides their number, or change grpo.rollout.prompts and group",
        )
    return rows // (processes * grpo.micro_batch)


def grpo_arguments(config: TrainingConfig, folder: Path, *, steps: int, processes: int, dtype: str) -> Any:
    """Return the arguments of TRL's trainer.

    The loss is the mean over the trajectories of the sum over their sampled tokens of
    `-min(r * A, clip(r, 1 - clip_low, 1 + clip_high) * A)`, with r the ratio of the token's probabilities and A the
    advantage of the trajectory. TRL calls it luspo, with importance sampling by token. With a weight of the divergence
    from the first model, `r * (exp(d) - d - 1)` is added for each token, with d the logarithm of its probability by the
    first model over that by the trained one (DeepSeek-V3.2, arXiv 2512.02556).

    Args:
        config: The configuration.
        folder: Where checkpoints are written.
        steps: Number of optimizer steps.
        processes: Number of processes.
        dtype: Number format of the computation.

    Raises:
        ConfigError: The trajectories of a step cannot be divided evenly.
    """
    import torch
    from trl import GRPOConfig

    assert config.grpo is not None
    grpo, optimizer = config.grpo, config.optimizer
    constant_with_warmup = optimizer.schedule == "constant" and optimizer.warmup_ratio > 0
    accumulation = accumulation_steps(grpo, processes)
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=steps,
        seed=config.seed,
        use_cpu=not torch.cuda.is_available(),
        bf16=dtype == "bfloat16",
        learning_rate=optimizer.learning_rate,
        lr_scheduler_type="constant_with_warmup" if constant_with_warmup else optimizer.schedule,
        warmup_steps=round(optimizer.warmup_ratio * steps),
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm,
        per_device_train_batch_size=grpo.micro_batch,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation,
        num_iterations=grpo.iterations,
        num_generations=grpo.rollout.group,
        max_completion_length=grpo.rollout.max_completion_tokens,
        temperature=grpo.rollout.temperature,
        top_p=grpo.rollout.top_p,
        loss_type="luspo",
        importance_sampling_level="token",
        epsilon=grpo.clip_low,
        epsilon_high=grpo.clip_high,
        scale_rewards="group" if grpo.scale_rewards else "none",
        beta=0.0,  # TRL would load the first model once more by its name; the trainer keeps a copy instead
        use_bias_correction_kl=True,
        mask_truncated_completions=False,  # TRL masks the attention with it, and shifts the images of other rows
        shuffle_dataset=False,
        remove_unused_columns=False,
        gradient_checkpointing=config.model.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        ddp_find_unused_parameters=False,  # every row has an image, see `rows`
        ddp_timeout=int(_LONGEST_WAIT.total_seconds()),
        save_strategy="steps",
        save_steps=checkpoint_interval(config),
        save_total_limit=config.checkpoints.keep,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,  # otherwise a loss that is not a number is shown as one
        disable_tqdm=True,
        report_to=[],
        **_vllm(grpo),
    )


def checkpoint_interval(config: TrainingConfig) -> int:
    """Return the number of steps between checkpoints: a multiple of the steps on the same trajectories."""
    assert config.grpo is not None
    iterations = config.grpo.iterations
    return -(-config.checkpoints.every // iterations) * iterations


def _vllm(grpo: GrpoSection) -> dict[str, Any]:
    """Return the arguments for a vLLM server that receives the weights."""
    if grpo.rollout.engine != "vllm":
        return {}
    return {
        "use_vllm": True,
        "vllm_mode": "server",
        "vllm_server_base_url": grpo.rollout.url.rstrip("/").removesuffix("/v1"),
        "vllm_importance_sampling_correction": grpo.old_logprobs == "corrected",
        "vllm_importance_sampling_mode": "token_truncate",
        "vllm_importance_sampling_clip_max": 2.0,
    }
