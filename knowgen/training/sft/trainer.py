"""Fine-tuning of the policy on conversations with TRL, on one device or several.

Several processes are started by `accelerate launch`; each of them calls `train_sft` with the same arguments. The main
one writes the figures and the exported model.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knowgen.agents.rendering import Renderer
from knowgen.core.atomic import remove_leftovers, replace_folder
from knowgen.core.errors import ConfigError, DataError, MissingDependencyError
from knowgen.engine.run_state import SignalHandler
from knowgen.local_models.weights import require_packages
from knowgen.store.training_run import MetricKind, TrainingRun
from knowgen.training.backends.contract import TrainingResult
from knowgen.training.config import SftSection, TrainingConfig
from knowgen.training.conversations import Conversations, SftConversation
from knowgen.training.grpo.checkpoints import BestWeights, last_checkpoint
from knowgen.training.models import PolicyModel, export_from, load_policy_model, training_dtype
from knowgen.training.sft.collator import CUT, NUMBER, ConversationCollator
from knowgen.training.sft.encoding import ConversationEncoder, UntrainableError

CHECKPOINTS = "checkpoints"
WEIGHTS = "model"

_WORKERS = 4
"""Processes that prepare batches for each GPU."""
_PATIENCE = 6 * 3600
"""Maximum time that processes wait for each other, in seconds: the main one evaluates and writes."""
_FIGURES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "mean_token_accuracy": "token_accuracy",
    "entropy": "entropy",
    CUT: CUT,
}
"""Figures of the trainer that are stored, with the names under which they are."""


@dataclass(frozen=True)
class SelectedConversations:
    """Conversations that can be trained on.

    Attributes:
        conversations: All conversations of the sources.
        numbers: Numbers of those that can be trained on.
        left_out: Why each of the others cannot, in one line.
    """

    conversations: Sequence[SftConversation]
    numbers: list[int]
    left_out: list[str]


@dataclass
class SftTools:
    """What a fine-tuning is given besides its configuration.

    Attributes:
        folder: Directory of the training.
        where: Name of the configuration in errors.
        resume: Whether an earlier call is continued from its last checkpoint.
        report: Called with a line on what happens, in the main process.
        started: Called once, in the main process, when everything is loaded and checked.
        evaluate: Called with the number of a step and a folder of exported weights; returns the headline. None for a
            training without evaluation.
        watch: Called with the figures of each step; see `TrainingRun`.
    """

    folder: Path
    where: str
    resume: bool = False
    report: Callable[[str], None] = field(default=lambda line: None)
    started: Callable[[SelectedConversations, PolicyModel], None] = field(default=lambda selected, policy: None)
    evaluate: Callable[[int, Path], float | None] | None = None
    watch: Callable[[int, Mapping[str, float], MetricKind], None] = field(default=lambda step, values, kind: None)


def select(conversations: Sequence[SftConversation], encoder: ConversationEncoder) -> SelectedConversations:
    """Return the conversations that can be trained on; the others are listed with their reasons.

    Raises:
        DataError: A conversation is damaged, or none can be trained on.
    """
    numbers: list[int] = []
    left_out: list[str] = []
    for number, conversation in enumerate(conversations):
        try:
            encoder.check(conversation)
        except UntrainableError as error:
            left_out.append(f"{error.where}: {error.what}")
        else:
            numbers.append(number)
    if not numbers:
        raise DataError(
            f"none of {len(left_out)} conversations can be trained on; {left_out[0]}",
            where="sft.conversations",
            fix="raise sft.max_tokens, or name other conversations",
        )
    return SelectedConversations(conversations, numbers, left_out)


def encoder_of(section: SftSection, renderer: Renderer, processor: Any) -> ConversationEncoder:
    """Return the encoder of a configuration."""
    return ConversationEncoder(
        renderer,
        processor.image_processor,
        max_tokens=section.max_tokens,
        image_pixels=section.image_pixels,
        empty_think=section.empty_think,
    )


def train_sft(config: TrainingConfig, tools: SftTools) -> TrainingResult:
    """Fine-tune a policy on conversations, and export it to `model` in the directory of the training.

    SIGINT or SIGTERM ends it after the step that runs, with a checkpoint; `resume` goes on from there.

    Raises:
        MissingDependencyError: A package or the weights are missing.
        UsageError: The configuration names no model or no conversations.
        ConfigError: The model cannot be trained, or several GPUs are visible to one process.
        DataError: A conversation or the model is damaged.
    """
    require_training_packages(tools.where)
    section = config.sft or SftSection()
    arguments = _arguments(config, section, tools.folder)
    if arguments.n_gpu > 1:
        fix = "start it with `accelerate launch -m knowgen train sft …`, or set CUDA_VISIBLE_DEVICES=0"
        raise ConfigError(f"{arguments.n_gpu} GPUs are visible to one process", where=tools.where, fix=fix)
    conversations = Conversations(section.conversations)
    policy = load_policy_model(config.model, tools.where, config.seed)
    renderer = Renderer(policy.processor.tokenizer, tools.where)
    renderer.check_template(tools.where)
    encoder = encoder_of(section, renderer, policy.processor)
    selected = select(conversations, encoder)
    collator = ConversationCollator(conversations, policy.processor, renderer, encoder, section.image_pixels)
    watch = _Watch(config, tools, main=arguments.process_index == 0)
    trainer = _trainer(arguments, policy, selected.numbers, collator, watch)
    if watch.main:
        tools.started(selected, policy)
    checkpoint = last_checkpoint(tools.folder / CHECKPOINTS) if tools.resume else None
    with SignalHandler(watch.interrupt), suppress(_NoFurtherStepError):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    steps, target = trainer.state.global_step, tools.folder / WEIGHTS
    if watch.interrupted and steps < trainer.state.max_steps:
        watch.save_step()
        return TrainingResult(steps, target, stopped="interrupted")
    return TrainingResult(steps, target, stopped="" if watch.finish() else "interrupted")


def require_training_packages(where: str) -> None:
    """Check that the packages of the extra `train` are installed.

    Raises:
        MissingDependencyError: One is not.
    """
    try:
        require_packages(where, "torch", "torchvision", "transformers", "trl", "peft", "accelerate", "datasets")
    except MissingDependencyError as error:
        raise MissingDependencyError(error.what, where=where, fix='pip install "knowgen[train]"') from None


def _arguments(config: TrainingConfig, section: SftSection, folder: Path) -> Any:
    """Return the arguments of the trainer."""
    import torch
    from trl import SFTConfig

    gpu = torch.cuda.is_available()
    optimizer = config.optimizer
    return SFTConfig(
        output_dir=str(folder / CHECKPOINTS),
        seed=config.seed,
        per_device_train_batch_size=section.batch_size,
        gradient_accumulation_steps=section.accumulation,
        num_train_epochs=section.epochs,
        max_steps=section.max_steps or -1,
        learning_rate=optimizer.learning_rate,
        lr_scheduler_type=optimizer.schedule
        if optimizer.warmup_ratio == 0 or optimizer.schedule != "constant"
        else "constant_with_warmup",
        warmup_steps=min(optimizer.warmup_ratio, 1 - 1e-9),  # below 1 it is a share of the steps
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm,
        bf16=training_dtype(config.model) == "bfloat16",
        use_cpu=not gpu,
        gradient_checkpointing=False,  # set in `load_policy_model`
        ddp_find_unused_parameters=False,  # every batch has an image, see `append_blank_image`
        max_length=None,  # the encoder cuts at the end of a reply
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_num_workers=_WORKERS if gpu else 0,
        dataloader_pin_memory=gpu,
        save_steps=config.checkpoints.every,
        save_total_limit=config.checkpoints.keep,
        ddp_timeout=_PATIENCE,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
    )


def _trainer(
    arguments: Any, policy: PolicyModel, numbers: Sequence[int], collator: ConversationCollator, watch: _Watch
) -> Any:
    """Return TRL's trainer for conversations that the collator encodes."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTTrainer

    class Trainer(SFTTrainer):  # type: ignore[misc]
        """Takes the number of cut conversations out of each batch, and stores it with the other figures."""

        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            cut = self.accelerator.gather(inputs.pop(CUT)).sum().item()
            rows = len(inputs["input_ids"]) * self.accelerator.num_processes
            self._metrics["train" if self.model.training else "eval"][CUT].append(cut / rows)
            return super().compute_loss(model, inputs, *args, **kwargs)

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """Write no text about the model into a checkpoint."""

        def _send_telemetry(self) -> None:
            """Send nothing."""

    trainer = Trainer(
        model=policy.model,
        args=arguments,
        data_collator=collator,
        train_dataset=Dataset.from_dict({NUMBER: list(numbers)}),
        processing_class=policy.processor,
        callbacks=[watch.callback()],
    )
    # the model says no; but TRL computes the loss, and weighs all tokens of a step alike, however they are divided
    trainer.model_accepts_loss_kwargs = True
    trainer.remove_callback(PrinterCallback)
    watch.trainer = trainer
    return trainer


class _NoFurtherStepError(Exception):
    """The step that the trainer begins is not to be taken."""


class _Watch:
    """Follows a training: stores its figures, marks checkpoints, evaluates, and ends it on a signal.

    Args:
        config: The configuration.
        tools: What the training was given.
        main: Whether this is the main process, the only one that writes.

    Attributes:
        interrupted: Whether a signal came.
        main: See above.
        trainer: The trainer.
    """

    def __init__(self, config: TrainingConfig, tools: SftTools, *, main: bool) -> None:
        self.interrupted, self.main = False, main
        self.trainer: Any = None
        self._config, self._tools = config, tools
        self._run, self._best = TrainingRun(tools.folder, tools.watch), BestWeights(tools.folder / TrainingRun.BEST)
        self._tokens, self._since = 0.0, time.monotonic()

    def interrupt(self) -> None:
        """Have the training end after the step that runs."""
        self.interrupted = True
        self._tools.report("ending after this step; once more ends at once")

    def callback(self) -> Any:
        """Return the callback of the trainer."""
        from transformers import TrainerCallback

        watch = self

        class Callback(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                watch._since = time.monotonic()

            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step >= state.max_steps:
                    raise _NoFurtherStepError  # going on from the checkpoint of the last step, it takes another one
                # the step before is logged by now, and its checkpoint written
                if watch.evaluate() and watch.interrupted_anywhere():
                    raise _NoFurtherStepError  # a further call repeats the evaluation

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
                if watch.interrupted_anywhere():
                    control.should_save = control.should_training_stop = True
                return control

            def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
                if watch.main and "loss" in logs:
                    watch.log(state, logs)

        return Callback()

    def interrupted_anywhere(self) -> bool:
        """Return whether a signal came to any process; all of them have to end at the same step."""
        self.interrupted = any(self._everywhere([self.interrupted]))
        return self.interrupted

    def log(self, state: Any, logs: dict[str, Any]) -> None:
        """Store the figures of a step, and report it."""
        now, tokens = time.monotonic(), float(logs["num_tokens"])
        speed = (tokens - self._tokens) / max(now - self._since, 1e-9)
        self._tokens, self._since = tokens, now
        figures = {name: float(logs[known]) for known, name in _FIGURES.items() if known in logs}
        self._run.add_metrics(state.global_step, {**figures, "tokens_per_second": speed})
        self._tools.report(
            f"step {state.global_step}/{state.max_steps}  loss {figures['loss']:.4f}  {speed:,.0f} tokens/s"
        )

    def evaluate(self) -> bool:
        """Evaluate the weights if it is the turn of the step, and keep them if they are the best so far.

        Returns:
            Whether it was the turn of the step.
        """
        step = self.trainer.state.global_step
        due = step % self._config.evaluation.every == 0 or step == self.trainer.state.max_steps
        if self._tools.evaluate is None or not due or step in self._best.headlines:
            return False
        draft = self._tools.folder / "candidate"
        export_from(self.trainer, self.trainer.processing_class, draft)
        if self.main:
            try:
                self._keep_if_best(draft, step, self._tools.evaluate(step, draft))
            except KeyboardInterrupt:
                self.interrupted = True
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        self.trainer.accelerator.wait_for_everyone()
        self._since = time.monotonic()
        return True

    def save_step(self) -> None:
        """Write a checkpoint of the last step where there is none; all processes take part."""
        step, newest = self.trainer.state.global_step, last_checkpoint(self._tools.folder / CHECKPOINTS)
        missing = step > 0 and (newest is None or newest.name != f"checkpoint-{step}")
        if self._everywhere([missing])[0]:  # what the main process sees
            self.trainer._save_checkpoint(self.trainer.model, None)

    def _keep_if_best(self, draft: Path, step: int, headline: float | None) -> None:
        best = self._best.best
        earlier = None if best is None else self._best.headlines[best]
        if self._keeps_best and headline is not None and (earlier is None or headline > earlier):
            replace_folder(draft, self._weights)  # before the headline: a kill between them repeats both
            remove_leftovers(self._weights)
        self._best.add(step, headline)

    @property
    def _keeps_best(self) -> bool:
        return self._tools.evaluate is not None and self._config.evaluation.keep == "best"

    @property
    def _weights(self) -> Path:
        return self._tools.folder / WEIGHTS

    def finish(self) -> bool:
        """Write the weights that are the result of the training: the best ones if any were evaluated, or the last.

        Returns:
            Whether it is done; otherwise the last evaluation was interrupted, and a further call repeats it.
        """
        self.interrupted = False  # a signal in the last step has nothing to end any more
        self.evaluate()
        if self.interrupted_anywhere():
            return False
        best = [self._keeps_best and self._best.best is not None and self._weights.is_dir()] if self.main else []
        if not any(self._everywhere(best)):
            export_from(self.trainer, self.trainer.processing_class, self._weights)
        return True

    def _everywhere(self, values: list[bool]) -> list[bool]:
        """Return the values of all processes."""
        if self.trainer.accelerator.num_processes == 1:
            return values
        from accelerate.utils import gather_object

        return list(gather_object(values))
