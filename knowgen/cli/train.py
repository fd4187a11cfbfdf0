"""`knowgen train`: train the policy of the agent."""

from __future__ import annotations

import click

from knowgen.cli.check_training import command as check
from knowgen.cli.train_grpo import command as grpo
from knowgen.cli.train_sft import command as sft

EPILOG = """\b
Examples:
  knowgen train sft --config sft/recommended -o reports/sft
  knowgen train grpo --config grpo/recommended model.path=reports/sft/model -o reports/grpo
  knowgen train check --config grpo/recommended model.path=reports/sft/model --gpus H100:8
"""


@click.group("train", epilog=EPILOG)
def command() -> None:
    """Train the policy of the agent."""


command.add_command(sft)
command.add_command(grpo)
command.add_command(check)
