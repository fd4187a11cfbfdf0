"""The guide to training: its figures of memory and time are those of the estimates, and it names every option."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from knowgen.training.config import TrainingConfig, bundled_configs, load_config, option_rows
from knowgen.training.estimate import TrainingEstimate, estimate_grpo, estimate_sft
from knowgen.training.gpus import GIB, GPUS, parse_gpus
from knowgen.training.model_sizes import QWEN3_VL_8B
from tests.helpers.processes import run_python

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "training.md").read_text(encoding="utf-8")

CONVERSATIONS, LENGTHS, STEPS = 10_000, [14_000] * 9 + [32_768], 3_750
SFT = [
    ("sft/one-gpu-lora", "A100:1"),
    ("sft/one-gpu-lora", "H200:1"),
    ("sft/paper", "H200:1"),
    ("sft/paper", "H100:4"),
    ("sft/paper", "H100:8"),
    ("sft/paper", "H100:32"),
]
GRPO = [
    ("grpo/one-gpu-lora", "A100:1"),
    ("grpo/one-gpu-lora", "H200:1"),
    ("grpo/paper", "H100:4"),
    ("grpo/paper", "H100:8"),
    ("grpo/paper", "H200:8"),
    ("grpo/paper", "H100:32"),
]


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.0f} h"


def memory(estimate: TrainingEstimate) -> str:
    return " + ".join(f"{part.total / GIB:.0f} GiB" for _, part in estimate.memory)


def row(config: str, machine: str, estimate: TrainingEstimate) -> str:
    gpu, count = parse_gpus(machine)
    name = f"`{config}`"
    fits = "yes" if all(part.fits for _, part in estimate.memory) else "no"
    step = " + ".join(f"{part.value:.0f} s" for part in estimate.step)
    return f"| {name} | {count} x {gpu.name} | {memory(estimate)} | {fits} | {step} | {hours(estimate.seconds)} |"


def rows() -> list[str]:
    lines = []
    for config, machine in SFT:
        loaded = load_config(config)
        gpu, count = parse_gpus(machine)
        found = estimate_sft(QWEN3_VL_8B, loaded, gpu, count, conversations=CONVERSATIONS, lengths=LENGTHS)
        lines.append(row(config, machine, found))
    for config, machine in GRPO:
        loaded = load_config(config, ["model.path=MODEL"])
        found = estimate_grpo(QWEN3_VL_8B, loaded, *parse_gpus(machine), steps=STEPS)
        lines.append(row(config, machine, found))
    return lines


def test_the_tables_of_memory_and_time_are_those_of_the_estimates() -> None:
    missing = [line for line in rows() if line not in GUIDE]
    assert missing == [], "\n".join(rows())


def test_the_table_of_gpus_is_that_of_the_code() -> None:
    for gpu in GPUS.values():
        line = f"| {gpu.name} | {gpu.memory / 1e9:.0f} GB | {gpu.flops / 1e12:,.0f} | {gpu.bandwidth / 1e12:.2f} |"
        assert line in GUIDE, line


def hook() -> Any:
    """Return the hooks of the documentation site."""
    spec = importlib.util.spec_from_file_location("docs_pages", ROOT / ".ci" / "docs_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_option_is_in_the_table_of_the_site() -> None:
    pages = hook()
    assert pages.TRAINING_OPTIONS in GUIDE
    table = pages.on_page_markdown(GUIDE, page=None, config=None, files=None)
    for key, _, meaning in option_rows():
        assert meaning.strip(), f"{key} has no description"
        assert f"| `{key}` |" in table
    values = TrainingConfig.model_validate({"method": "grpo", "model": {}, "sft": {}}).model_dump(mode="json")

    def leaves(tree: dict[str, Any], before: str = "") -> set[str]:
        found = set()
        for name, value in tree.items():
            nested = isinstance(value, dict) and value
            found |= leaves(value, f"{before}{name}.") if nested else {f"{before}{name}"}
        return found

    keys = {key for key, _, _ in option_rows()}
    assert leaves(values) - {"model.lora"} <= keys and "model.lora.rank" in keys


def test_every_bundled_configuration_is_named() -> None:
    assert [name for name in bundled_configs() if f"`{name}`" not in GUIDE] == []


def test_options_named_in_the_text_exist() -> None:
    keys = {key for key, _, _ in option_rows()}
    named = set(re.findall(r"`((?:model|optimizer|sft|grpo|evaluation|checkpoints)\.[a-z_.]+)(?:=[^`]*)?`", GUIDE))
    sections = {key.rpartition(".")[0] for key in keys} | {"grpo.reward.text_args", "grpo.reward.image_args"}
    assert {name for name in named if name not in keys and name not in sections} == set()
    assert len(named) > 10


@pytest.mark.slow
def test_the_way_on_a_cpu_runs_as_the_guide_has_it(tmp_path: Path) -> None:
    """Every command of the block, with fewer samples and steps; then the report of the training that it made."""
    block = next(part for part in re.findall(r"```shell\n(.*?)```", GUIDE, re.DOTALL) if "sft/cpu-mini" in part)
    lines = block.replace("\\\n", " ").splitlines()
    fewer = {"make": ["--limit", "16"], "sft": ["sft.max_steps=2", "sft.batch_size=4"], "grpo": ["grpo.max_steps=2"]}
    commands = [shlex.split(line) for line in lines if line.startswith("knowgen ")]
    assert [words[2] for words in commands[:5]] == ["make", "check", "sft", "check", "grpo"]
    (alone,) = re.findall(r"^knowgen train check .*--no-rollout$", GUIDE, re.MULTILINE)
    commands.append(shlex.split(alone))
    for words in commands:
        extra = fewer.get(words[2], []) if words[1] in ("train", "trajectories") else []
        done = run_python("-m", *words, *extra, check=False, cwd=tmp_path)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    page = (tmp_path / "reports" / "grpo_page" / "index.html").read_text(encoding="utf-8")
    assert "Trajectories of two steps" in page and "complete" in page


@pytest.mark.parametrize("name", bundled_configs())
def test_bundled_configurations_load(name: str) -> None:
    assert load_config(name).method == name.partition("/")[0]
