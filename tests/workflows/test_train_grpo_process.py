"""A training as a process, on a small model with random weights: killed in a step, interrupted, and gone on with."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from knowgen.store.training_run import TrainingRun
from tests.helpers.processes import python_environment, start_python

CONFIG = """
method: grpo
model: {path: "mini:0", freeze: [], dtype: float32, gradient_checkpointing: false}
agent: {prompt: short, tools: image_search, tool_calls: 1, date: "2026-01-01"}
grpo:
  prompts: [{task: "things:0", fresh_seed: true, limit: 4}]
  max_steps: 4
  micro_batch: 4
  rollout: {prompts: 2, group: 2, max_prompt_tokens: 64, max_completion_tokens: 200, max_new_tokens: 8}
  reward: {text_weight: 1.0, text: world_answer, least_references: 0}
checkpoints: {every: 1}
"""

LIMIT_SECONDS = 300.0

pytestmark = pytest.mark.slow


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    (tmp_path / "training.yaml").write_text(CONFIG)
    return ["train", "grpo", "--config", str(tmp_path / "training.yaml"), "-o", str(tmp_path / "out")]


def started(words: list[str], *values: str) -> subprocess.Popen[str]:
    return start_python("-m", "knowgen", *words[:4], *values, *words[4:], env=python_environment(OMP_NUM_THREADS="1"))


def completed(words: list[str], *values: str) -> tuple[int, str, str]:
    with started(words, *values) as process:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, out, err


def wait_for(process: subprocess.Popen[str], line: str) -> list[str]:
    """Return the lines on stderr up to one that begins with a text."""
    assert process.stderr is not None
    seen: list[str] = []
    until = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < until and (read := process.stderr.readline()):
        seen.append(read)
        if read.startswith(line):
            return seen
    raise AssertionError(f"no line {line!r} in {seen}")


def steps_of(err: str) -> list[str]:
    """Return the lines of steps, such as `2/4`. Only libraries may write anything before the first one."""
    lines = err.splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith("step ")), len(lines))
    assert not [line for line in lines[:first] if "knowgen" in line or "Traceback" in line], err
    return [line.split()[1] for line in lines[first:] if line.startswith("step ")]


def test_what_libraries_write_when_they_are_imported_is_not_taken_for_a_step() -> None:
    assert steps_of("<enum 'Kernel'> step 7\nstep 3/4  reward 0\nstep 4/4  reward 0\n") == ["3/4", "4/4"]
    with pytest.raises(AssertionError, match="starts again"):
        steps_of("knowgen: starts again\nstep 1/4  reward 0\n")


def test_a_killed_training_goes_on_with_its_next_step(words: list[str], tmp_path: Path) -> None:
    with started(words) as process:
        wait_for(process, "step 2/4")
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT_SECONDS)
    code, out, err = completed(words)
    assert code == 0, err
    assert steps_of(err)[0] in ("2/4", "3/4"), "the step after the last checkpoint"
    run = TrainingRun(tmp_path / "out")
    assert list(run.metrics()) == run.episode_steps() == [1, 2, 3, 4] and "steps    4" in out
    assert (tmp_path / "out" / "model" / "config.json").is_file()
    assert not (tmp_path / "out" / "run.lock").exists()


def test_an_interrupted_training_says_so_and_goes_on(words: list[str], tmp_path: Path) -> None:
    with started(words, "grpo.max_steps=200") as process:
        wait_for(process, "step 2/200")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 130, err
    assert "stopped after step" in err and "interrupted" in err and "Traceback" not in err
    done = int(out.split("steps    ")[1].split()[0])
    code, out, err = completed(words, f"grpo.max_steps={done + 1}")
    assert code == 0, err
    assert steps_of(err) == [f"{done + 1}/{done + 1}"] and f"steps    {done + 1}" in out
