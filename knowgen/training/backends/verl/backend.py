"""Train with verl: write its settings, run its trainer as a process, and read figures, episodes and weights back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any

from knowgen.core import errors
from knowgen.core.atomic import folder_draft, write_file
from knowgen.core.errors import ConfigError, KnowgenError, MissingDependencyError
from knowgen.training.backends.contract import Episode, TrainingPrompt, TrainingResult, TrainingTools
from knowgen.training.backends.verl.advantages import group_advantages
from knowgen.training.backends.verl.engine import WHERE
from knowgen.training.backends.verl.figures import figures_of
from knowgen.training.backends.verl.files import VerlFiles
from knowgen.training.backends.verl.settings import FREEZE_VARIABLE, composed, verl_settings
from knowgen.training.config import TrainingConfig, grpo_of

VERL = "0.9.1"
"""Release of verl whose settings and classes are used."""

POLL_SECONDS = 1.0
"""Time between two looks at what verl has written, in seconds."""

END_SECONDS = 60.0
"""Time that verl gets to end before it is killed, in seconds."""

INSTALL = "install it in an environment of its own: pip install 'knowgen[verl]' 'verl[vllm,fsdp]==0.9.1'"


class VerlBackend:
    """GRPO by verl; a `GrpoBackend`.

    verl reads all prompts of the training from one file, in the order of its epochs. Checkpoints are evaluated when the
    training has ended, because until then its GPUs are in use.

    Args:
        config: The configuration of the training.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.grpo = grpo_of(config)

    def check(self) -> list[str]:
        """Return what stands in the way of the training on this machine, one line each."""
        return [*missing_packages(), *missing_gpus(self.config), *unusable_settings(self.config)]

    def train(self, tools: TrainingTools) -> TrainingResult:
        """Train, and return the weights; see `GrpoBackend`.

        Raises:
            MissingDependencyError: verl is not installed, or is another release.
            ConfigError: A setting cannot be used with verl.
            KnowgenError: verl failed, or a service ended the training.
        """
        if missing := missing_packages():
            raise MissingDependencyError(missing[0], where=WHERE)
        if unusable := unusable_settings(self.config):
            raise ConfigError(unusable[0], where=WHERE)
        files = VerlFiles(tools.folder)
        files.begin(self.config, tools.worker_rollouts)
        total = self._put_prompts(files, tools.prompts)
        if not tools.resume:
            shutil.rmtree(files.checkpoints, ignore_errors=True)
        stopped = ""
        if latest_step(files.checkpoints) < total:
            stopped = self._run(files, tools, total)
        steps = latest_step(files.checkpoints)
        if not steps:
            raise KnowgenError(
                f"it ended before its first checkpoint ({stopped or 'no step was made'})",
                where=WHERE,
                fix=f"see {files.log}, or lower checkpoints.every",
            )
        chosen = self._evaluated(files, tools) if not stopped else steps
        export(files.checkpoints / f"global_step_{chosen}", tools.folder / "model")
        return TrainingResult(steps * self.grpo.iterations, tools.folder / "model", stopped)

    def _put_prompts(self, files: VerlFiles, prompts: Callable[[int], Sequence[TrainingPrompt]]) -> int:
        """Write the prompts of all batches, and return the number of batches."""
        each = self.grpo.rollout.prompts
        if self.grpo.max_steps is None:
            batches = max(1, int(self.grpo.epochs * len(prompts(0)) / each))
        else:
            batches = max(1, self.grpo.max_steps // self.grpo.iterations)
        files.put_prompts(_cut(map(prompts, count()), batches * each))
        return batches

    def _run(self, files: VerlFiles, tools: TrainingTools, total: int) -> str:
        """Run verl to its end, and return why it ended early."""
        import yaml

        settings = verl_settings(self.config, files, self._model(files), total, tools.resume)
        write_file(files.settings, yaml.safe_dump(composed(settings), sort_keys=False))
        with files.log.open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "verl.trainer.main_ppo",
                    "--config-path",
                    str(files.folder),
                    "--config-name",
                    "verl",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=files.folder,
                env={
                    **os.environ,
                    "VERL_FILE_LOGGER_PATH": str(files.metrics),
                    FREEZE_VARIABLE: ",".join(self.config.model.freeze),
                    "HYDRA_FULL_ERROR": "1",
                },
                start_new_session=True,
            )
        try:
            return self._followed(process, files, tools)
        except KeyboardInterrupt:
            return "interrupted"
        finally:
            end(process)

    def _followed(self, process: subprocess.Popen[bytes], files: VerlFiles, tools: TrainingTools) -> str:
        """Log the steps of a running process, until it ends or a worker asks for it; return why it ended early."""
        known = 0
        while True:
            code = process.poll()
            for step, values in files.figures(known):
                known += 1
                groups = files.take_groups(step)
                set_advantages(groups, self.grpo.scale_rewards)
                episodes = [episode for group in groups for episode in group]
                tools.log(step * self.grpo.iterations, figures_of(values), episodes)
            if (request := files.stop_request()) is not None:
                return raised_or_named(*request)
            if code is not None:
                if code:
                    raise KnowgenError(
                        f"verl ended with status {code}: {error_line(files.last_lines(400))}", where=str(files.log)
                    )
                return ""
            time.sleep(POLL_SECONDS)

    def _model(self, files: VerlFiles) -> str:
        """Return the model as verl loads it: a folder, or a name on the hub."""
        config = self.config.model
        if not config.path.startswith("mini:"):
            return (
                str(Path(config.path).expanduser().resolve())
                if Path(config.path).expanduser().exists()
                else config.path
            )
        from knowgen.training.models import export_model, load_policy_model

        plain = config.model_copy(update={"freeze": (), "lora": None})
        policy = load_policy_model(plain, WHERE)
        export_model(policy.model, policy.processor, files.folder / "model")
        return str(files.folder / "model")

    def _evaluated(self, files: VerlFiles, tools: TrainingTools) -> int:
        """Evaluate the checkpoints, and return the step of the one that becomes the result."""
        steps = checkpoint_steps(files.checkpoints)
        if tools.evaluate is None:
            return steps[-1]
        headlines: dict[int, float] = {}
        for step in steps:
            weights = files.folder / "evaluated"
            export(files.checkpoints / f"global_step_{step}", weights)
            headline = tools.evaluate(step * self.grpo.iterations, weights)
            shutil.rmtree(weights, ignore_errors=True)
            if headline is not None:
                headlines[step] = headline
        if self.config.evaluation.keep == "last" or not headlines:
            return steps[-1]
        return max(headlines, key=lambda step: (headlines[step], step))


def missing_packages() -> list[str]:
    """Return what is missing of verl and what it needs, one line each."""
    try:
        found = version("verl")
    except PackageNotFoundError:
        trl = " beside TRL, whose transformers is too new for it" if _installed("trl") else ""
        return [f"verl is not installed{trl}: {INSTALL}"]
    if found != VERL:
        return [f"verl is {found}, and {VERL} is needed: {INSTALL}"]
    return [f"{name} is not installed: {INSTALL}" for name in ("ray", "TransferQueue") if not _installed(name)]


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def missing_gpus(config: TrainingConfig) -> list[str]:
    """Return what is missing of GPUs and the inference engine on this machine, one line each."""
    if not _installed("torch"):
        return [f"torch is not installed: {INSTALL}"]
    import torch

    cluster, problems = config.verl, []
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not cluster.ray and found < cluster.gpus_per_node:
        problems.append(f"this machine has {found} GPUs, and verl.gpus_per_node is {cluster.gpus_per_node}")
    if cluster.nodes > 1 and not cluster.ray:
        problems.append("several nodes need a Ray cluster: start it with `ray start`, and set verl.ray=auto")
    return problems if _installed("vllm") else [*problems, f"vllm is not installed: {INSTALL}"]


def unusable_settings(config: TrainingConfig) -> list[str]:
    """Return what of the configuration cannot be used with verl, one line each."""
    grpo, cluster = grpo_of(config), config.verl
    rollout, problems = grpo.rollout, []
    rows, gpus = rollout.prompts * rollout.group, cluster.nodes * cluster.gpus_per_node
    ranks = gpus // cluster.sequence_parallel
    if gpus % cluster.sequence_parallel or rows % max(1, ranks):
        problems.append(
            f"{rollout.prompts} prompts x {rollout.group} trajectories cannot be divided among {ranks} GPUs"
            f" (verl.nodes x verl.gpus_per_node / verl.sequence_parallel)"
        )
    if gpus % cluster.tensor_parallel:
        problems.append(f"{gpus} GPUs cannot be divided into engines of verl.tensor_parallel={cluster.tensor_parallel}")
    longest = rollout.max_prompt_tokens + rollout.max_completion_tokens
    if cluster.tokens_per_gpu is not None and cluster.tokens_per_gpu * cluster.sequence_parallel < longest:
        problems.append(f"verl.tokens_per_gpu={cluster.tokens_per_gpu} is less than a trajectory of {longest} tokens")
    limits = {
        "grpo.services.judge_concurrency": grpo.services.judge_concurrency,
        "grpo.painter.concurrency": grpo.painter.concurrency,
    }
    problems += [
        f"{name}={value} cannot be divided among verl.workers={cluster.workers}"
        for name, value in limits.items()
        if value < cluster.workers
    ]
    if not grpo.images_in_gradient:
        problems.append("grpo.images_in_gradient=false is not one of verl")
    if config.optimizer.schedule == "linear":
        problems.append("optimizer.schedule=linear is not one of verl, which has constant and cosine")
    if config.model.lora is not None and config.model.lora.dropout:
        problems.append("model.lora.dropout is not one of verl")
    if config.model.revision:
        problems.append("model.revision is not one of verl: download the model, and name its folder")
    if config.model.freeze and config.model.lora is None and cluster.strategy == "fsdp":
        problems.append("model.freeze needs verl.strategy=fsdp2: fsdp shards trained and frozen weights together")
    return problems


def _cut(epochs: Iterator[Sequence[TrainingPrompt]], number: int) -> Iterator[Sequence[TrainingPrompt]]:
    """Yield epochs until they have a number of prompts, the last one cut."""
    for epoch in epochs:
        if not epoch:
            raise ConfigError("there are no prompts", where=f"{WHERE}: grpo.prompts")
        yield epoch[:number]
        number -= len(epoch)
        if number <= 0:
            return


def set_advantages(groups: Sequence[Sequence[Episode]], scale: bool) -> None:
    """Set the advantages of the episodes of a step, as verl computes them."""
    for group in groups:
        advantages = group_advantages([episode.reward.value for episode in group], [0] * len(group), scale)
        for episode, advantage in zip(group, advantages, strict=True):
            episode.advantage = advantage


def raised_or_named(kind: str, reason: str) -> str:
    """Return why a training was ended by a worker, where it may be continued.

    Raises:
        KnowgenError: It was ended by an error.
    """
    if kind == "BudgetReachedError":
        return "budget"
    error = getattr(errors, kind, None)
    known = isinstance(error, type) and issubclass(error, KnowgenError)
    raise (error if known else KnowgenError)(reason)  # type: ignore[misc]


def end(process: subprocess.Popen[Any]) -> None:
    """End a process and its children, which have time to end themselves."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)


def error_line(lines: Sequence[str]) -> str:
    """Return the line of a log that tells the error: the last one that names an exception, or the last one."""
    named = [line for line in lines if "Error" in line.partition(":")[0]]
    return (named or list(lines) or ["it printed nothing"])[-1].strip()[-400:]


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps whose checkpoints are complete, in order."""
    latest = folder / "latest_checkpointed_iteration.txt"
    if not latest.exists():
        return []
    newest = int(latest.read_text())
    steps = (int(path.name.rpartition("_")[2]) for path in folder.glob("global_step_*") if (path / "actor").is_dir())
    return sorted(step for step in steps if step <= newest)


def latest_step(folder: Path) -> int:
    """Return the step of the last complete checkpoint; 0 when there is none."""
    return max(checkpoint_steps(folder), default=0)


def export(checkpoint: Path, target: Path) -> None:
    """Write the weights of a checkpoint as a folder that `hf:` and vLLM load, with adapters merged.

    Raises:
        KnowgenError: verl's merger failed.
    """
    with folder_draft(target) as draft:
        command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
        command += ["--local_dir", str(checkpoint / "actor"), "--target_dir", str(draft)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stdout + done.stderr).splitlines()
            raise KnowgenError(f"the weights cannot be exported: {error_line(lines)}", where=str(checkpoint))
        if (draft / "lora_adapter").is_dir():
            _merge_adapters(draft)


def _merge_adapters(folder: Path) -> None:
    """Merge the adapters that verl's merger writes beside the weights."""
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")
    merged = PeftModel.from_pretrained(model, str(folder / "lora_adapter")).merge_and_unload()
    for path in folder.glob("model*.safetensors*"):
        path.unlink()
    merged.save_pretrained(folder)
    shutil.rmtree(folder / "lora_adapter")
