"""The settings of verl that follow from the configuration of a training.

Formulas of the loss and where each of their parts is set:

    loss      = mean over sequences of the sum over sampled ids of  max(-A r, -A clip(r, 1 - low, 1 + high))
    advantage = (reward - mean) / (std + 1e-4) within a group, see `advantages`

verl's further clip for negative advantages (`clip_ratio_c`) is set so high that it never acts.
"""

from __future__ import annotations

from typing import Any

from knowgen.training.backends.verl.advantages import ESTIMATOR
from knowgen.training.backends.verl.files import AGENT_LOOP, VerlFiles
from knowgen.training.config import GrpoSection, TrainingConfig, grpo_of

FREEZE_VARIABLE = "VERL_KNOWGEN_FREEZE"
"""Environment variable with the parts of the model that are frozen, with commas between them."""

REGISTRATION = "knowgen.training.backends.verl.registration"
"""Module that verl imports in each of its processes."""

OLD_LOGPROBS: dict[str, dict[str, Any]] = {
    "engine": {"bypass_mode": True, "loss_type": "ppo_clip", "rollout_is": None},
    "trainer": {"bypass_mode": False, "rollout_is": None},
    "corrected": {"bypass_mode": False, "rollout_is": "token", "rollout_is_threshold": 2.0},
}
"""verl's settings for each value of `grpo.old_logprobs`."""

NEVER = 1e9
"""A ratio of probabilities that is not reached: ratios are limited to e^20 before, and clipped at 1 + high."""


def verl_settings(config: TrainingConfig, files: VerlFiles, model: str, steps: int, resume: bool) -> dict[str, Any]:
    """Return verl's settings, as nested mappings over those of its `ppo_trainer`.

    Args:
        config: The configuration of the training.
        files: Its files.
        model: Folder of the model, or its name on the hub.
        steps: Number of batches of trajectories, those of earlier calls too.
        resume: Whether an earlier call is continued.
    """
    grpo, cluster = grpo_of(config), config.verl
    settings: dict[str, Any] = {
        "data": _data(grpo, files, config.seed),
        "algorithm": {
            "adv_estimator": ESTIMATOR,
            "norm_adv_by_std_in_grpo": grpo.scale_rewards,
            "use_kl_in_reward": False,
            "filter_groups": {"enable": grpo.skip_equal_groups, "metric": "reward"},
            "rollout_correction": OLD_LOGPROBS[grpo.old_logprobs],
        },
        "actor_rollout_ref": {
            "model": _model(config, model),
            "actor": _actor(config, grpo),
            "ref": {**_passes(config, grpo, "log_prob_"), "fsdp_config": _sharding(config)},
            "rollout": _rollout(config, grpo, files),
        },
        "critic": {"enable": False},
        "reward": {"num_workers": 1, "reward_model": {"enable": False}},
        "trainer": {
            "nnodes": cluster.nodes,
            "n_gpus_per_node": cluster.gpus_per_node,
            "total_epochs": 1,
            "total_training_steps": steps,
            "save_freq": max(1, config.checkpoints.every // grpo.iterations),
            "max_actor_ckpt_to_keep": config.checkpoints.keep,
            "test_freq": -1,
            "val_before_train": False,
            "resume_mode": "auto" if resume else "disable",
            "default_local_dir": str(files.checkpoints),
            "logger": ["console", "file"],
            "project_name": "knowgen",
            "experiment_name": files.training.name,
        },
        "ray_kwargs": {"ray_init": _ray(config, files)},
    }
    for name, value in cluster.options.items():
        _set(settings, name, value)
    return settings


def composed(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings as a primary configuration of Hydra, which reads verl's own below them."""
    return {
        "hydra": {"searchpath": ["pkg://verl.trainer.config"], "run": {"dir": "."}, "output_subdir": None},
        "defaults": ["ppo_trainer", "_self_"],
        **settings,
    }


def _data(grpo: GrpoSection, files: VerlFiles, seed: int) -> dict[str, Any]:
    return {
        "train_files": [str(files.order)],
        "val_files": [str(files.order)],  # verl needs one; nothing is validated with it
        "prompt_key": "prompt",
        "train_batch_size": grpo.rollout.prompts,
        "max_prompt_length": grpo.rollout.max_prompt_tokens,
        "max_response_length": grpo.rollout.max_completion_tokens,
        "shuffle": False,  # the file has the order of the training
        "validation_shuffle": False,
        "filter_overlong_prompts": False,
        "dataloader_num_workers": 0,
        "seed": seed,
    }


def _model(config: TrainingConfig, model: str) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "path": model,
        "external_lib": REGISTRATION,
        "enable_gradient_checkpointing": config.model.gradient_checkpointing,
        "use_remove_padding": _packs(config),
        "override_config": {"attn_implementation": _attention(config)},
    }
    if (lora := config.model.lora) is not None:
        settings |= {"lora_rank": lora.rank, "lora_alpha": lora.alpha, "target_modules": list(lora.targets)}
    return settings


def _attention(config: TrainingConfig) -> str:
    return config.model.attention or "flash_attention_2"


def _packs(config: TrainingConfig) -> bool:
    """Return whether trajectories are packed without padding, which needs attention with limits of sequences."""
    return _attention(config).startswith("flash_attention")


def _actor(config: TrainingConfig, grpo: GrpoSection) -> dict[str, Any]:
    optimizer = config.optimizer
    return {
        "strategy": config.verl.strategy,
        "ppo_mini_batch_size": grpo.rollout.prompts,
        "ppo_epochs": grpo.iterations,
        "shuffle": False,
        "loss_agg_mode": "seq-mean-token-sum",
        "clip_ratio": grpo.clip_low,
        "clip_ratio_low": grpo.clip_low,
        "clip_ratio_high": grpo.clip_high,
        "clip_ratio_c": NEVER,
        "policy_loss": {"loss_mode": "vanilla"},
        "entropy_coeff": 0.0,
        "use_kl_loss": grpo.kl > 0,
        "kl_loss_coef": grpo.kl,
        "kl_loss_type": "low_var_kl",
        "grad_clip": optimizer.max_grad_norm,
        **_passes(config, grpo, "ppo_"),
        "optim": {
            "lr": optimizer.learning_rate,
            "lr_scheduler_type": optimizer.schedule,
            "lr_warmup_steps_ratio": optimizer.warmup_ratio,
            "weight_decay": optimizer.weight_decay,
            "clip_grad": optimizer.max_grad_norm,
        },
        "fsdp_config": _sharding(config),
        "checkpoint": {"save_contents": ["model", "optimizer", "extra"]},
    }


def _passes(config: TrainingConfig, grpo: GrpoSection, prefix: str) -> dict[str, Any]:
    """Return the size of forward passes, for a section whose names of it begin with `prefix`."""
    tokens = config.verl.tokens_per_gpu
    dynamic = "use_dynamic_bsz" if prefix == "ppo_" else f"{prefix}use_dynamic_bsz"
    settings: dict[str, Any] = {dynamic: tokens is not None, f"{prefix}micro_batch_size_per_gpu": grpo.micro_batch}
    return settings if tokens is None else {**settings, f"{prefix}max_token_len_per_gpu": tokens}


def _sharding(config: TrainingConfig) -> dict[str, Any]:
    cluster = config.verl
    return {
        "strategy": cluster.strategy,
        "fsdp_size": cluster.shard_size or -1,
        "param_offload": cluster.offload,
        "optimizer_offload": cluster.offload,
        "ulysses_sequence_parallel_size": cluster.sequence_parallel,
        "dtype": "float32" if config.model.dtype == "float32" else "bfloat16",
    }


def _rollout(config: TrainingConfig, grpo: GrpoSection, files: VerlFiles) -> dict[str, Any]:
    rollout, cluster = grpo.rollout, config.verl
    length = rollout.max_prompt_tokens + rollout.max_completion_tokens
    return {
        "name": "vllm",
        "mode": "async",
        "n": rollout.group,
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "prompt_length": rollout.max_prompt_tokens,
        "response_length": rollout.max_completion_tokens,
        "max_model_len": length,
        "tensor_model_parallel_size": cluster.tensor_parallel,
        "gpu_memory_utilization": cluster.gpu_memory,
        "calculate_log_probs": True,
        "enable_prefix_caching": True,
        "load_format": "safetensors" if config.model.lora is not None else "dummy",
        **_passes(config, grpo, "log_prob_"),
        "agent": {
            "num_workers": cluster.workers,
            "default_agent_loop": AGENT_LOOP,
            "agent_loop_config_path": str(files.loops),
        },
    }


def _ray(config: TrainingConfig, files: VerlFiles) -> dict[str, Any]:
    frozen = ",".join(config.model.freeze)
    environment = {"VERL_FILE_LOGGER_PATH": str(files.metrics), FREEZE_VARIABLE: frozen}
    address = {"address": config.verl.ray} if config.verl.ray else {}
    return {**address, "runtime_env": {"env_vars": environment}}


def _set(settings: dict[str, Any], name: str, value: Any) -> None:
    """Set a value by its full name, such as `trainer.v1.trainer_mode`."""
    *sections, key = name.split(".")
    for section in sections:
        settings = settings.setdefault(section, {})
    settings[key] = value
