"""`knowgen check`: check a generator, scorer or task in a minute, before a long run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.options import DEVICE_HELP, run_option

if TYPE_CHECKING:
    from knowgen.core.records import GenerationRequest
    from knowgen.tasks.contract import Task
    from knowgen.validation.findings import Finding

EPILOG = """\b
Examples:
  knowgen check generator my_model.py:MyModel -g steps=20
  knowgen check generator gen_searcher -g policy=scripted
  knowgen check scorer my_scorer.py:sharpness
  knowgen check task worlds/seven
The exit code is 3 when a check fails, else 0.
"""

REQUESTS = 4
"""Samples of the task that a privileged generator is tried on."""


@click.command("check", epilog=EPILOG)
@click.argument("kind", type=click.Choice(["generator", "scorer", "task"]))
@click.argument("name")
@run_option("generator_args")
@run_option("scorer_args", help="Scorer argument; repeatable.")
@click.option("--task", default="knowgen_mini", metavar="TASK", help="Task that a plugin is checked on [knowgen_mini].")
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=630,
    metavar="N",
    help="Number of images to estimate time and cost for [630].",
)
@run_option("timeout")
@click.option("--device", metavar="DEVICE", help=DEVICE_HELP)
@click.option(
    "--budget", type=click.FloatRange(0), metavar="USD", help="Maximum cost of a paid scorer's calls in USD [0]."
)
def command(kind: str, name: str, **options: Any) -> int:
    """Check a generator or scorer against the contract, or a task's data, before a long run."""
    from knowgen.validation.findings import worst

    findings = _task(name) if kind == "task" else (_scorer if kind == "scorer" else _generator)(name, options)
    for finding in findings:
        click.echo(finding)
    level = worst(findings)
    counts = {each: sum(finding.level == each for finding in findings) for each in ("ok", "warn", "fail")}
    plural = "" if counts["warn"] == 1 else "s"
    click.echo(f"{counts['ok']} ok, {counts['warn']} warning{plural}, {counts['fail']} failed")
    return 3 if level == "fail" else 0


def _task(name: str) -> list[Finding]:
    from knowgen.tasks.load import load_task
    from knowgen.validation.task import check_task

    return check_task(load_task(name))


def _generator(name: str, options: dict[str, Any]) -> list[Finding]:
    from knowgen.generators.contract import is_agent
    from knowgen.tasks.load import load_task
    from knowgen.validation.generator import check_generator
    from knowgen.workflows.located import locate
    from knowgen.workflows.resolve import resolve_generator

    task = load_task(options["task"])
    if is_agent(locate("generators", name).target):
        return _agent(name, options, task)
    handle = resolve_generator(name, dict(options["generator_args"]), task)
    requests = _requests(task) if handle.capabilities.privileged else None
    return check_generator(
        handle,
        samples=options["samples"],
        timeout=options["timeout"],
        device=options["device"],
        requests=requests,
        on_progress=lambda what: click.echo(what, err=True),
    )


def _agent(name: str, options: dict[str, Any], task: Task) -> list[Finding]:
    """Check an agent with a sample of the task, whose search backend is used where none is named."""
    from knowgen.validation.agent import check_agent
    from knowgen.workflows.agents import PAINTER, resolve_agent, resolve_system

    arguments = dict(options["generator_args"])
    if PAINTER in arguments:
        agent = resolve_system(name, arguments, task).agent
        assert agent is not None
    else:  # the check needs no image model
        agent = resolve_agent(name, {PAINTER: "none", **arguments}, task).agent
    return check_agent(
        agent,
        _requests(task, truth=agent.capabilities.privileged)[0],
        samples=options["samples"],
        timeout=options["timeout"],
        device=options["device"],
        on_progress=lambda what: click.echo(what, err=True),
    )


def _scorer(name: str, options: dict[str, Any]) -> list[Finding]:
    from knowgen.tasks.load import load_task
    from knowgen.validation.scorer import check_scorer
    from knowgen.workflows import resolve

    return check_scorer(
        resolve.resolve_scorer(name, dict(options["scorer_args"])),
        load_task(options["task"]),
        samples=options["samples"],
        budget=options["budget"],
        timeout=options["timeout"],
        device=options["device"],
        on_progress=lambda what: click.echo(what, err=True),
    )


def _requests(task: Task, *, truth: bool = True) -> list[GenerationRequest]:
    """Return a few requests of the task, with their ground truth for a privileged generator."""
    from itertools import islice

    from knowgen.core.records import GenerationRequest, request_id

    return [
        GenerationRequest(
            id=request_id(sample.id, 0), prompt=sample.prompt, truth=task.truth(sample.id) if truth else None
        )
        for sample in islice(task.samples(), REQUESTS)
    ]
