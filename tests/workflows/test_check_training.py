"""`knowgen train check`: what it finds of data, masks, services and a rollout, and its estimates of memory and time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from knowgen.cli.check_training import masked_lines
from knowgen.cli.main import run
from knowgen.core.errors import ConfigError
from knowgen.training.backends.contract import Episode
from knowgen.training.config import ModelConfig, TrainingConfig, grpo_of, load_config
from knowgen.training.estimate import (
    cache_per_token,
    estimate_grpo,
    estimate_sft,
    trained_and_frozen,
    training_memory,
    training_seconds,
)
from knowgen.training.gpus import GPUS, parse_gpus
from knowgen.training.model_sizes import QWEN3_VL_8B, ModelSizes
from knowgen.training.rewards import EpisodeReward
from knowgen.workflows.check_training import MaskedText, _reward_section
from tests.helpers.episodes import prompt_of

CALL = '<tool_call>\n{"name": "image_search", "arguments": {"query": "ko ra"}}\n</tool_call>'
ANSWER = '<answer>\n{"gen_prompt": "a red ko ra", "reference_images": [{"img_id": "IMG_001"}]}\n</answer>'


@pytest.fixture
def conversations(tmp_path: Path) -> str:
    """Return an override that names three conversations with an image each, the last without a reply."""
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    rows = []
    for number in range(3):
        messages = [
            {"role": "user", "content": "draw a ko ra"},
            {"role": "assistant", "content": CALL},
            {"role": "user", "content": "<tool_response>\n<image>\nIMG_001\n</tool_response>"},
            {"role": "assistant", "content": ANSWER},
        ]
        rows.append({"id": str(number), "row": number + 1, "messages": messages, "images": ["a.png"]})
    (tmp_path / "conversations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"sft.conversations=[{{path: '{tmp_path}'}}]"


def test_a_fine_tuning_is_checked_with_its_lengths_and_masks(
    conversations: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "check", "--config", "sft/cpu-mini", conversations, "--gpus", "H100:1"]
    assert run(words) == 0
    out = capsys.readouterr().out
    assert "3 conversations, 3 of them encoded" in out and "cut at 512 tokens: 0" in out
    assert "sft.max_tokens = 512 (default 32768)" in out
    masks = [line.removeprefix("  | ") for line in out.splitlines() if line.startswith("  | ")]
    text = "\n".join(masks)
    trained = re.findall(r"\{\+(.*?)\+\}", text)
    assert "\n".join(trained) == f"{CALL}<|im_end|>\n{ANSWER}<|im_end|>", "replies with their end tokens, and no more"
    assert "[image, 4 tokens]" in text and "<|im_start|>assistant" in text
    assert "estimate for 1 x H100" in out and "ready to train" in out


def test_conversations_that_are_cut_or_too_long_are_counted(
    conversations: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "check", "--config", "sft/cpu-mini", conversations, "sft.max_tokens=50"]) == 0
    assert "cut at 50 tokens: 3" in capsys.readouterr().out
    assert run(["train", "check", "--config", "sft/cpu-mini", conversations, "sft.max_tokens=5"]) == 3
    out = capsys.readouterr().out
    assert "problem: conversation 1 (id '0'): the first reply ends after 5 tokens" in out


def test_a_training_with_rewards_is_checked_with_a_rollout_and_a_reward(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "check", "--config", "grpo/cpu-mini", "model.path=mini:0"]) == 0
    out = capsys.readouterr().out
    assert "100 steps of 8 x 8 trajectories" in out and "scorer world_answer: would take calls" in out
    assert re.search(r"one rollout\n  ended with \w+ after \d repl", out) and "sampled and trained" in out
    assert re.search(r"one reward\n  \d\.\d{3} \(text \d\.\d{3}\) for an answer", out)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["model.path=nowhere/model"], "model"),
        (["model.path=mini:0", "grpo.reward.text=nobody"], "nobody"),
        (["model.path=mini:0", "grpo.prompts=[]"], "names no prompts"),
    ],
)
def test_what_is_wrong_is_one_line_and_the_exit_code_is_3(
    overrides: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "check", "--config", "grpo/cpu-mini", *overrides, "--no-rollout"]) == 3
    out, error = capsys.readouterr()
    (line,) = [line for line in out.splitlines() if line.startswith("  problem: ")]
    assert problem in line and "1 problem" in error and "Traceback" not in error


def test_a_judge_that_cannot_be_reached_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    judge = ["grpo.reward.text=answer:judge", "grpo.reward.text_args={base_url: 'http://127.0.0.1:9/v1'}"]
    assert run(["train", "check", "--config", "grpo/cpu-mini", "model.path=mini:0", *judge, "--no-rollout"]) == 3
    out = capsys.readouterr().out
    assert "search: would take calls" in out and "scorer answer:judge: fails" in out
    (line,) = [line for line in out.splitlines() if line.startswith("  problem: ")]
    assert "127.0.0.1:9" in line


def test_masks_are_coloured_on_a_terminal_and_marked_elsewhere() -> None:
    masks = MaskedText((("user\nhello\n", False), ("yes\nno", True), ("\n", False)))
    assert masked_lines(masks, styled=False) == ["user", "hello", "{+yes+}", "{+no+}", ""]
    styled = masked_lines(masks, styled=True)
    assert styled[0] == "\x1b[2muser\x1b[0m" and "\x1b[32m" in styled[2] and "{+" not in "".join(styled)
    hostile = MaskedText((("\x1b]0;title\x07 red", True),))
    assert "\x1b" not in masked_lines(hostile, styled=False)[0]


# -- estimates --------------------------------------------------------------------------------------------------------


def test_parameters_from_a_configuration_equal_those_of_the_model() -> None:
    from knowgen.training.mini_model import build_mini

    model, _ = build_mini(0)
    sizes = ModelSizes.of(model.config.to_dict(), "mini")
    named = {name: weight.numel() for name, weight in model.named_parameters()}
    assert sizes.parameters == sum(named.values())
    projector = sum(size for name, size in named.items() if "merger" in name)
    assert sizes.vision.projector_parameters == projector
    assert sizes.language_parameters == sum(size for name, size in named.items() if "visual" not in name)
    assert sizes.layer_parameters == sum(size for name, size in named.items() if "language_model.layers.0." in name)


def test_the_sizes_of_the_published_model_give_its_published_number_of_parameters() -> None:
    assert round(QWEN3_VL_8B.parameters / 1e9, 2) == 8.77


def test_adapters_have_the_parameters_that_peft_adds() -> None:
    from peft import LoraConfig, get_peft_model

    from knowgen.training.mini_model import build_mini

    model, _ = build_mini(0)
    sizes = ModelSizes.of(model.config.to_dict(), "mini")
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=list(targets)))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert sizes.adapter_parameters(4, targets) == trained


def test_memory_of_full_weights_is_18_bytes_for_each_trained_parameter_and_2_for_each_frozen_one() -> None:
    config = load_config("sft/paper")
    trained, frozen = trained_and_frozen(QWEN3_VL_8B, config)
    assert trained == QWEN3_VL_8B.language_parameters and trained + frozen == QWEN3_VL_8B.parameters
    one = training_memory(QWEN3_VL_8B, config, GPUS["H100"], 1, tokens=1000)
    states = sum(part.value for part in one.parts[:4])
    assert states == 18 * trained + 2 * frozen and not one.fits
    eight = training_memory(QWEN3_VL_8B, config, GPUS["H100"], 8, tokens=32768)
    assert sum(part.value for part in eight.parts[:4]) == pytest.approx(states / 8) and eight.fits


def test_computing_again_needs_less_memory_and_a_third_more_time() -> None:
    again = TrainingConfig(method="sft", model=ModelConfig(path="x", freeze=()))
    kept = again.model_copy(update={"model": again.model.model_copy(update={"gradient_checkpointing": False})})
    memory = [training_memory(QWEN3_VL_8B, each, GPUS["H200"], 8, 8192).total for each in (again, kept)]
    seconds = [training_seconds(QWEN3_VL_8B, each, GPUS["H200"], 8, [8192]) for each in (again, kept)]
    assert memory[0] < memory[1] / 2 and seconds[0] == pytest.approx(seconds[1] * 4 / 3, rel=0.01)


def test_the_time_of_a_token_is_6_operations_for_each_parameter_and_attention() -> None:
    config = TrainingConfig(method="sft", model=ModelConfig(path="x", freeze=(), gradient_checkpointing=False))
    gpu, parameters = GPUS["H100"], QWEN3_VL_8B.language_parameters
    by_hand = 1000 * (6 * parameters + 6 * 1000 * 4096 * 36) / (gpu.flops * 0.35)
    assert training_seconds(QWEN3_VL_8B, config, gpu, 1, [1000]) == pytest.approx(by_hand)


def test_the_cache_of_keys_and_values_is_that_of_the_published_model() -> None:
    assert cache_per_token(QWEN3_VL_8B) == 2 * 36 * 8 * 128 * 2


def test_more_gpus_need_less_memory_each_and_less_time() -> None:
    sft, grpo = load_config("sft/paper"), load_config("grpo/paper", ["model.path=x"])
    for few, many in ((4, 8), (8, 32)):
        a, b = (
            estimate_sft(QWEN3_VL_8B, sft, GPUS["H100"], each, conversations=10_000, lengths=[16_000])
            for each in (few, many)
        )
        assert b.memory[0][1].total < a.memory[0][1].total and b.seconds < a.seconds
        c, d = (estimate_grpo(QWEN3_VL_8B, grpo, GPUS["H100"], each, steps=100) for each in (few, many))
        assert d.memory[0][1].total < c.memory[0][1].total and d.seconds < c.seconds
        assert {role for role, _ in c.memory} == {"training", "sampling"}


def test_further_steps_on_the_same_trajectories_take_no_time_for_sampling() -> None:
    once, twice = (
        estimate_grpo(QWEN3_VL_8B, load_config("grpo/paper", [f"grpo.iterations={each}"]), GPUS["H100"], 8, steps=100)
        for each in (1, 2)
    )
    (sampling, training), (shared, trained) = ([part.value for part in each.step] for each in (once, twice))
    assert shared == pytest.approx(sampling / 2) and trained == training
    assert twice.seconds == pytest.approx(50 * sampling + 100 * training)


def test_the_cost_of_a_training_counts_each_episode_once() -> None:
    grpo = grpo_of(load_config("grpo/paper", ["grpo.iterations=2"]))
    episode = Episode(prompt_of("a"), 0, None, None, EpisodeReward(1.0), cost=0.01)
    section = _reward_section(episode, SimpleNamespace(grpo=grpo, steps=4), "an answer")  # type: ignore[arg-type]
    assert section.lines[-1] == "cost: $0.0100, of all episodes at this price $0.96"


@pytest.mark.parametrize("text", ["T4:1", "H100:0", "H100:x", "", "H100:8:2"])
def test_unknown_gpus_are_refused_with_the_known_ones(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "check", "--config", "sft/paper", "--gpus", text]) == 2
    assert "H200" in capsys.readouterr().err


def test_gpus_are_named_in_any_case() -> None:
    assert parse_gpus("h200") == (GPUS["H200"], 1)


@pytest.mark.parametrize(
    "config", [{}, {"text_config": {}, "vision_config": {}}, {"text_config": {"num_experts": 8}, "vision_config": {}}]
)
def test_a_model_without_known_sizes_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ModelSizes.of(config, "config.json")


def test_memory_and_time_are_estimated_without_data_and_weights(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = f"sft.conversations=[{{path: '{tmp_path}/nothing'}}]"
    assert run(["train", "check", "--config", "sft/paper", missing, "--gpus", "H100:8", "--gpus", "H200:1"]) == 3
    out = capsys.readouterr().out
    assert "steps: unknown" in out and "training: 34.3 GiB of 68.5 GiB" in out
    problems = [line for line in out.splitlines() if line.startswith("  problem: ")]
    assert len(problems) == 2 and "1 x H200: training needs 152.4 GiB on each" in problems[1]
