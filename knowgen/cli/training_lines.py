"""What the commands `knowgen train sft` and `knowgen train grpo` have in common: the directory, and the last lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from knowgen.training.config import TrainingConfig
    from knowgen.workflows.checkpoint_evaluation import FittingTask


def training_folder(out: Path | None, config_name: str) -> Path:
    """Return the directory of a training: the given one, or one that is named after the configuration.

    Example:
        >>> training_folder(None, "./grpo/my.yaml").as_posix()
        'reports/train__grpo-my'
    """
    if out is not None:
        return out
    name = Path(config_name).with_suffix("").as_posix().strip("./").replace("/", "-")
    return Path("reports") / f"train__{name}"


def evaluation_command(config: TrainingConfig, weights: Path, fitting: FittingTask) -> str:
    """Return the command that evaluates a training's weights.

    Args:
        config: The training; its section `grpo` limits conversations.
        weights: Folder of the weights.
        fitting: The task, with the image model for it.
    """
    from knowgen.cli.common import command_line
    from knowgen.workflows.checkpoint_evaluation import agent_arguments
    from knowgen.workflows.training_plan import scorer_arguments

    arguments = agent_arguments(config, weights)
    arguments["painter"] = arguments.get("painter") or fitting.painter
    scorers = [word for name in config.evaluation.scorers for word in ("--scorer", name)]
    for name in config.evaluation.scorers:
        start = "" if len(config.evaluation.scorers) == 1 else f"{name.partition(':')[0]}."
        own = scorer_arguments(config, name)
        scorers += [word for key, value in own.items() for word in ("-s", f"{start}{key}={_text(value)}")]
    words = argument_words(arguments)
    return command_line("run", "--task", fitting.task, "--generator", "gen_searcher", *words, *scorers)


def argument_words(arguments: dict[str, object]) -> list[str]:
    """Return arguments of the agent as words of a command line, without those that are not set."""
    given = {name: value for name, value in arguments.items() if value not in ("", None)}
    return [word for name, value in given.items() for word in ("-g", f"{name}={_text(value)}")]


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
