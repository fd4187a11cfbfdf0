"""`knowgen train grpo`: train a policy with rewards for its answers and images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from knowgen.cli.options import run_option

if TYPE_CHECKING:
    from knowgen.workflows.training import GrpoTraining
    from knowgen.workflows.training_plan import TrainingPlan

EPILOG = """\b
Examples:
  knowgen train grpo --config grpo/recommended model.path=reports/sft/model
  knowgen train grpo --config my.yaml optimizer.learning_rate=2e-6 -o reports/grpo
On several GPUs: accelerate launch --config_file FILE -m knowgen train grpo …
The same command continues a training that ended early; --fresh starts again.
"""

WINDOW = 10
"""Number of steps over which rewards are averaged at the beginning and at the end."""


@click.command("grpo", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.option(
    "--config", "config_name", required=True, metavar="FILE|NAME", help="YAML file, or a bundled configuration."
)
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Directory [reports/train__NAME].")
@click.option("--fresh", is_flag=True, help="Remove an earlier training in the directory first.")
@run_option("log")
def command(config_name: str, values: tuple[str, ...], out: Path | None, *, fresh: bool, log: list[str] | None) -> int:
    """Train a policy with GRPO: it is rewarded for its answers and for the images that are made from them.

    A service that fails masks an episode and is counted; a failure of the policy is reward 0.
    """
    from knowgen.cli.training_lines import training_folder
    from knowgen.training.config import load_config
    from knowgen.workflows.training import train_grpo
    from knowgen.workflows.training_plan import plan_training

    config = load_config(config_name, list(values))
    folder = training_folder(out, config_name)
    plan = plan_training(config, config_name)
    trained = train_grpo(plan, folder, fresh=fresh, show=lambda line: click.echo(line, err=True), log=log)
    if trained.leads:
        _closing_lines(trained, plan, folder)
    return exit_code(trained.result.stopped)


def exit_code(stopped: str) -> int:
    """Return the exit code of a training: 0 done, 5 budget reached, 6 stopped for another reason, 130 interrupted."""
    return {"": 0, "budget": 5, "interrupted": 130}.get(stopped, 6)


def _closing_lines(trained: GrpoTraining, plan: TrainingPlan, folder: Path) -> None:
    """Print figures before and after, where the model is, and the commands to evaluate, resume and report."""
    from knowgen.cli.common import command_line, resume_command
    from knowgen.cli.training_lines import evaluation_command
    from knowgen.core.text import one_line
    from knowgen.workflows.checkpoint_evaluation import fitting_task

    result = trained.result
    if result.stopped:
        click.echo(f"stopped after step {result.steps}: {one_line(result.stopped)}", err=True)
    click.echo(f"steps    {result.steps}")
    if rewards := list(trained.rewards.values()):
        first, last = rewards[:WINDOW], rewards[-WINDOW:]
        click.echo(f"reward   {sum(first) / len(first):.3f} at first, {sum(last) / len(last):.3f} at last")
    if headlines := trained.headlines:
        best = max(headlines, key=lambda step: headlines[step])
        steps = dict.fromkeys((min(headlines), best, max(headlines)))
        click.echo(f"headline {', '.join(f'{headlines[step]:.3f} at step {step}' for step in steps)}; best at {best}")
    weights = folder / result.weights.relative_to(folder.absolute())
    click.echo(f"model    {weights}")
    fitting = fitting_task(plan.config, plan.grpo.prompts, plan.prompts.tasks())
    click.echo(f"evaluate {evaluation_command(plan.config, weights, fitting)}")
    click.echo(f"resume   {resume_command()}")
    click.echo(f"report   {command_line('report', folder, '-o', folder / 'report')}")
