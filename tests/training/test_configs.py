"""The bundled configurations: each one loads, resolves, and says why it leaves the published recipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import ConfigError
from knowgen.training.config import ACCELERATE, CONFIGS, TrainingConfig, bundled_configs, load_config
from knowgen.workflows.report_training import changed_values

ACCELERATE_FILES = sorted(path.name for path in ACCELERATE.glob("*.yaml"))


@pytest.mark.parametrize("name", bundled_configs())
def test_a_bundled_configuration_loads(name: str) -> None:
    config = load_config(name)
    assert config.method == name.partition("/")[0]
    assert TrainingConfig.model_validate(config.model_dump()) == config


def test_every_method_has_its_configurations() -> None:
    names = ("paper", "recommended", "one-gpu-lora", "cpu-mini")
    assert {f"{method}/{name}" for method in ("sft", "grpo") for name in names} <= set(bundled_configs())


def test_the_published_fine_tuning() -> None:
    config = load_config("sft/paper")
    sft, optimizer = config.sft, config.optimizer
    assert sft is not None
    assert (optimizer.learning_rate, optimizer.schedule, optimizer.warmup_ratio) == (1e-5, "cosine", 0.02)
    assert (optimizer.weight_decay, sft.epochs, sft.max_tokens, sft.image_pixels) == (1e-6, 2, 32768, 160_000)
    assert (sft.batch_size * sft.accumulation, config.model.freeze, sft.empty_think) == (
        1,
        ("vision", "projector"),
        True,
    )
    assert [source.path for source in sft.conversations] == ["gen_searcher_sft"]


EXTENDING = [name for name in bundled_configs() if "extends:" in (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", EXTENDING)
def test_a_setting_that_differs_has_a_comment_above_it(name: str) -> None:
    lines = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    values = [number for number, line in enumerate(lines) if re.match(r"  +\w+: \S", line)]
    assert values
    for number in values:
        assert any(line.strip().startswith("#") for line in lines[number - 4 : number]), lines[number]


@pytest.mark.parametrize("file", ACCELERATE_FILES)
def test_accelerate_takes_its_configuration(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    config = load_config_from_file(str(ACCELERATE / file))
    assert isinstance(config, ClusterConfig)
    assert config.mixed_precision == "bf16"
    assert (
        config.num_processes
        == {"one": 1, "eight": 8, "nodes": 32}[file.split("-", maxsplit=1)[0].split(".", maxsplit=1)[0]]
    )

    arguments = launch_command_parser().parse_args(["--config_file", str(ACCELERATE / file), "-m", "knowgen", "train"])
    resolved, _, _ = _validate_launch_command(arguments)
    assert resolved.mixed_precision == "bf16" and resolved.num_processes == config.num_processes
    expected = {"fsdp2": ("FSDP", "2"), "zero3": ("DEEPSPEED", "3")}.get(Path(file).stem.rpartition("-")[2])
    if expected is not None:
        assert str(config.distributed_type.value) == expected[0]
        assert str(resolved.fsdp_version if expected[0] == "FSDP" else resolved.zero_stage) == expected[1]


def test_accelerate_gives_fsdp_the_settings_of_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    file = ACCELERATE / "eight-gpus-fsdp2.yaml"
    arguments = launch_command_parser().parse_args(["--config_file", str(file), "-m", "knowgen", "train", "sft"])
    resolved, _, _ = _validate_launch_command(arguments)
    environment: dict[str, Any] = prepare_multi_gpu_env(resolved)
    assert environment["FSDP_VERSION"] == "2"
    assert environment["FSDP_RESHARD_AFTER_FORWARD"] == "true"
    assert environment["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    assert environment["FSDP_STATE_DICT_TYPE"] == "SHARDED_STATE_DICT"
    assert environment["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    assert environment["FSDP_ACTIVATION_CHECKPOINTING"] == "false"


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("grpo.max_steps=three", "grpo.max_steps: must be a whole number, got 'three'"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate: must be a number, got 'fast'"),
        ("grpo.scale_rewards=maybe", "grpo.scale_rewards: must be true or false, got 'maybe'"),
        ("grpo.rollout.group=1", "grpo.rollout.group: must be greater than or equal to 2, got 1"),
        ("optimizer.schedule=odd", "optimizer.schedule: must be 'constant', 'cosine' or 'linear', got 'odd'"),
        ("grpo=3", "grpo: must have keys and values, got 3"),
        ("grpo.prompts=[{limit: 3}]", "grpo.prompts.0.task: is missing"),
        ("agent={policy: x}", "agent: policy is set by the training, not under agent"),
        ("grpo.masked_endings=[anwser]", "grpo.masked_endings: no ending 'anwser'; name one of answer, "),
        ("grpo.max_step=3", "unknown key grpo.max_step; did you mean max_steps?"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line(value: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("grpo/cpu-mini", [value])
    assert str(caught.value).startswith(f"grpo/cpu-mini: {line}") and "\n" not in str(caught.value)


def test_a_section_of_another_method_differs_from_its_defaults_only_where_it_has_other_values() -> None:
    changed = {key: usual for key, _, usual in changed_values(load_config("sft/cpu-mini"))}
    assert changed["grpo.rollout.max_new_tokens"] == "4096"
    assert "grpo.rollout.group" not in changed
