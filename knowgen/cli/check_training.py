"""`knowgen train check`: check a training before it begins."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from knowgen.workflows.check_training import MaskedText, TrainingCheckSection

EPILOG = """\b
Examples:
  knowgen train check --config sft/cpu-mini "sft.conversations=[{path: conversations}]"
  knowgen train check --config grpo/paper model.path=reports/sft/model --gpus H100:8 --gpus H200:8
"""

FAILED = 3
"""Exit code when something is wrong."""


@click.command("check", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.option(
    "--config", "config_name", required=True, metavar="FILE|NAME", help="YAML file, or a bundled configuration."
)
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--gpus", "gpus", multiple=True, metavar="NAME:COUNT", help="GPUs to estimate memory and time for, such as H100:8."
)
@click.option("--no-rollout", is_flag=True, help="Run no rollout of the policy, which loads its model.")
def command(config_name: str, values: tuple[str, ...], gpus: tuple[str, ...], *, no_rollout: bool) -> int:
    """Check everything but the training: data, masks, services, one rollout, one reward, memory and time.

    Trained tokens are coloured; without colour they stand in {+ +}. The exit code is 3 when something is wrong.
    """
    from knowgen.training.config import load_config
    from knowgen.training.gpus import parse_gpus
    from knowgen.workflows.check_training import check_training

    machines = [parse_gpus(each) for each in gpus]
    config = load_config(config_name, list(values))
    problems = 0
    for section in check_training(config, config_name, machines, rollout=not no_rollout):
        _show(section)
        problems += len(section.problems)
    if problems:
        click.echo(f"\n{problems} {'problem' if problems == 1 else 'problems'}", err=True)
    else:
        click.echo("\nready to train")
    return FAILED if problems else 0


def _show(section: TrainingCheckSection) -> None:
    from knowgen.core.text import one_line

    click.echo(f"\n{section.title}")
    for line in section.lines:
        click.echo(f"  {one_line(line) if not line.startswith(' ') else line}")
    if section.masks is not None:
        for line in masked_lines(section.masks, styled=_styled()):
            click.echo(f"  | {line}")
    for problem in section.problems:
        click.echo(f"  problem: {one_line(str(problem))}")


def _styled() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def masked_lines(masks: MaskedText, *, styled: bool) -> list[str]:
    """Return a conversation in lines, trained tokens in colour and the others dim; without styles they are marked."""
    from knowgen.report.text_table import visible

    text = ""
    for piece, trained in masks.pieces:
        for number, line in enumerate(piece.split("\n")):
            shown = visible(line)
            if shown and styled:
                shown = click.style(shown, fg="green", bold=True) if trained else click.style(shown, dim=True)
            elif shown and trained:
                shown = f"{{+{shown}+}}"
            text += ("\n" if number else "") + shown
    return text.split("\n")
