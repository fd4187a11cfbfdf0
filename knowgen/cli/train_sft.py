"""`knowgen train sft`: fine-tune a policy on conversations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from knowgen.cli.options import run_option

if TYPE_CHECKING:
    from knowgen.training.config import TrainingConfig

EPILOG = """\b
Examples:
  knowgen train sft --config sft/one-gpu-lora model.path=Qwen/Qwen3-VL-8B-Instruct \\
      "sft.conversations=[{path: gen_searcher_sft}]"
  knowgen train sft --config my.yaml optimizer.learning_rate=2e-5 -o reports/sft
On several GPUs: accelerate launch --config_file FILE -m knowgen train sft …
The same command continues a training that ended early; --fresh starts again.
"""


@click.command("sft", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.option(
    "--config", "config_name", required=True, metavar="FILE|NAME", help="YAML file, or a bundled configuration."
)
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Directory [reports/train__NAME].")
@click.option("--fresh", is_flag=True, help="Remove an earlier training in the directory first.")
@run_option("log")
def command(config_name: str, values: tuple[str, ...], out: Path | None, *, fresh: bool, log: list[str] | None) -> int:
    """Fine-tune a policy on conversations, with the renderer that the agent runs it with.

    Trained are replies alone. The result is a model for the policy `hf:` and for vLLM.
    """
    from knowgen.cli.common import command_line, resume_command
    from knowgen.cli.training_lines import training_folder
    from knowgen.core.text import count
    from knowgen.training.config import load_config
    from knowgen.workflows.fine_tuning import fine_tune

    folder = training_folder(out, config_name)
    config = load_config(config_name, list(values))
    result = fine_tune(config, folder, name=config_name, fresh=fresh, report=_to_stderr, log=log)
    if not result.main:
        return 0 if not result.stopped else 130
    for line in result.left_out[:3]:
        click.echo(f"left out  {line}", err=True)
    if result.stopped:
        click.echo(f"{result.stopped} after {count(result.steps, 'step')}; the checkpoint is kept", err=True)
        click.echo(f"resume   {resume_command()}")
        return 130
    used = f"{count(result.used, 'conversation')}, {len(result.left_out)} left out; " if result.used else "complete; "
    click.echo(f"{used}{count(result.steps, 'step')} in {folder}")
    click.echo(f"model    {result.weights}")
    click.echo(_trial(config, result.weights))
    click.echo(f"report   {command_line('report', folder, '-o', folder / 'report')}")
    return 0


def _to_stderr(line: str) -> None:
    click.echo(line, err=True)


def _trial(config: TrainingConfig, weights: Path) -> str:
    """Return the line with a command that runs the model: on a task where one is known, and else on a prompt."""
    from knowgen.cli.common import command_line
    from knowgen.cli.training_lines import argument_words, evaluation_command
    from knowgen.training.config import PromptSource
    from knowgen.workflows.checkpoint_evaluation import fitting_task
    from knowgen.workflows.fine_tuning import tasks_of_conversations, with_limits

    tasks = tasks_of_conversations(config)
    if tasks or config.evaluation.task:
        fitting = fitting_task(config, [PromptSource(task=task.name) for task in tasks], tasks)
        return f"evaluate {evaluation_command(with_limits(config), weights, fitting)}"
    agent = dict(config.agent)
    search = ["--search", str(agent.pop("search"))] if agent.get("search") else []
    return f"try      {command_line('agent', 'PROMPT', '--policy', f'hf:{weights}', *search, *argument_words(agent))}"
