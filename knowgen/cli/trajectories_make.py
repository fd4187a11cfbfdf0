"""`knowgen trajectories make`: run a policy on a task, and write its trajectories as conversations for fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.common import exit_code, failure_lines, notice_lines, resume_command, warn_of_prices, warn_of_unfit
from knowgen.cli.options import DRY_RUN_HELP, TASK_HELP, run_config, run_option

if TYPE_CHECKING:
    from knowgen.workflows.make_trajectories import MadeConversations

EPILOG = """\b
Examples:
  knowgen trajectories make --task things:0 --policy things_teacher \\
      --painter things_painter -g prompt=short -g date=2026-01-01 \\
      -g tools=image_search -g rounds=2 -g tool_calls=2 -o conversations
  knowgen trajectories make --task rl_items --policy openai:gpt-4.1 \\
      --search serper --painter openai:gpt-image-1 --scorer vlm:gpt-4.1 \\
      --text-scorer answer:gpt-4.1 --repeats 4 --budget 200 \\
      --keep "ending=answer,score>=0.8,text>=0.75" -o conversations
The same command goes on where it ended, and writes the file again.
Train on it: knowgen train sft --config FILE "sft.conversations=[{path: conversations}]"
"""

_OPTIONS = (
    "generator_args", "scorer_args", "seed", "repeats", "limit", "ids", "protocol", "concurrency", "budget", "workers",
    "timeout", "patience", "fresh",
)  # fmt: skip
"""Options of a run that the command has."""
_HELPS = {
    "generator_args": "Argument of the agent or of a part; repeatable.",
    "repeats": "Trajectories per sample [1].",
}


def _options(function: Any) -> Any:
    for name in reversed(_OPTIONS):
        function = run_option(name, _HELPS.get(name, ""))(function)
    return function


@click.command("make", epilog=EPILOG, short_help="Run a policy, and write conversations for fine-tuning.")
@click.option("--task", required=True, metavar="TASK", help=TASK_HELP)
@click.option("--policy", required=True, metavar="POLICY", help="Policy that runs: openai:MODEL, hf:FOLDER, …")
@click.option("--search", default="", metavar="SEARCH", help="Search backend [the task's].")
@click.option("--painter", default="", metavar="GENERATOR", help="Image model [painter: rules, free].")
@click.option("--scorer", "scorers", multiple=True, metavar="SCORER", help="Scorer of the image; repeatable [none].")
@click.option("--text-scorer", default="", metavar="SCORER", help="Scorer of the answer, such as answer:MODEL [none].")
@click.option(
    "--keep",
    default="ending=answer",
    metavar="RULES",
    help="What is kept: ending=A|B, score>=X, text>=X [ending=answer].",
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="DIR|FILE.jsonl", help="Output.")
@_options
@click.option("--dry-run", is_flag=True, help=DRY_RUN_HELP)
def command(
    task: str,
    policy: str,
    *,
    search: str,
    painter: str,
    scorers: tuple[str, ...],
    text_scorer: str,
    keep: str,
    out: Path,
    dry_run: bool,
    **options: Any,
) -> int:
    """Run a policy on a task, and write the trajectories that pass a filter as conversations for fine-tuning.

    They have the form of the published set. Images are the scaled copies that the policy saw.
    """
    from knowgen import api
    from knowgen.workflows.make_trajectories import Keep, OutputFiles, make_conversations, plan_trajectories

    config, rules = run_config("run", {**options, "rubric": None, "upstream_dir": None}, scorers), Keep.of(keep)
    planned = plan_trajectories(
        task, policy, config, search=search, painter=painter, scorers=scorers, text_scorer=text_scorer, keep=rules
    )
    warn_of_unfit(planned.spec.scorers)
    if dry_run:
        click.echo(api.forecast(planned, OutputFiles.at(out).run))
        return 0
    made = make_conversations(
        planned,
        out,
        rules,
        scored=bool(scorers),
        text_scored=bool(text_scorer),
        before_calls=lambda: warn_of_prices(planned),
    )
    _closing_lines(made)
    return exit_code(made.run)


def _closing_lines(made: MadeConversations) -> None:
    """Print what was kept, what was left out by which rule, and how to go on."""
    from knowgen.core.text import count

    total = made.kept + made.failed + made.missing + sum(each.total() for each in made.left_out.values())
    click.echo(f"kept     {made.kept} of {count(total, 'trajectory', 'trajectories')} in {made.files.conversations}")
    for rule, reasons in made.left_out.items():
        why = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
        click.echo(f"left out {reasons.total()} by {rule}: {why}")
    if made.failed:
        click.echo(f"failed   {made.failed}: a service or the policy failed; the same command tries again")
    if made.missing:
        click.echo(f"not run  {made.missing}")
    for line in (*failure_lines(made.run), *notice_lines(made.run)):
        click.echo(line, err=True)
    click.echo(f"resume   {resume_command()}")
