"""`knowgen judge-check`: what a judge makes of known changes to known images."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.common import again, exit_code, failure_lines, running_options

if TYPE_CHECKING:
    from knowgen.api import Plan, Run
    from knowgen.core.records import ParsedScore
    from knowgen.judge_check.analysis import CheckedImage, Expectation
    from knowgen.judge_check.records import JudgeCheck
    from knowgen.worlds.changes import ChangedTask

EPILOG = """\b
Examples:
  knowgen judge-check --scorer world_check
  knowgen judge-check --scorer vlm:gpt-4.1 --samples 48 --budget 5
  knowgen judge-check --scorer my_judge.py:Judge --task worlds/seven -s strength=2
The judge sees ground-truth images, unchanged and with one thing changed.
The same command goes on where an earlier one ended.
"""

SAMPLES = 24
"""One of each category: about 180 scores."""

FOLDER = "judge_check"
"""Where the page and the record lie in the run directory."""

RECORD = "result.json"


@click.command("judge-check", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.option("--scorer", required=True, metavar="J", help="The judge.")
@click.option("--task", default="knowgen_mini", metavar="T", show_default=True, help="A made-up world.")
@click.option("--samples", type=click.IntRange(1), default=SAMPLES, metavar="N", help=f"Samples to change [{SAMPLES}].")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, metavar="N", help="Decides what is changed.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Run directory [reports/judge-check__J].")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON and nothing else.")
@running_options
def command(scorer: str, task: str, samples: int, seed: int, out: Path | None, as_json: bool, **options: Any) -> int:
    """Find out whether a judge is fit for use, on known changes to known images."""
    from knowgen import api, outputs

    target = out or Path("reports") / f"judge-check__{outputs.slug(scorer)}"
    changed, plan = prepare(scorer, task, samples, seed, options)
    if options["dry_run"]:
        click.echo(api.forecast(plan, target))
        return 0
    run = carry_out(plan, target)
    if run.outcome is not None and run.outcome.stopped == "interrupted":
        click.echo("interrupted; what was finished is kept", err=True)
        click.echo(f"resume   {again()}", err=as_json)
        return exit_code(run)
    check, judged = assess(run, changed)
    page = write(run, changed, check, judged)
    if as_json:
        click.echo(check.model_dump_json(indent=1))
    else:
        _print(run, check, page)
    return exit_code(run)


def prepare(scorer: str, task: str, samples: int, seed: int, options: dict[str, Any]) -> tuple[ChangedTask, Plan]:
    """Plans the changed images and the run that judges them; nothing is drawn or paid yet.

    Raises:
        UsageError: A name or argument is wrong, or the scorer gives no dimension that a change must move.
        DataError: The task is no made-up world.
    """
    from knowgen import api, assemble
    from knowgen.core.errors import UsageError
    from knowgen.tasks.load import load_task
    from knowgen.worlds.changes import CHANGES, ChangedImages, make_changed_task

    world = load_task(task)
    chosen, _ = assemble.choose(world, limit=options["limit"], ids=options["ids"])
    count = len(chosen) if options["ids"] else samples
    changed = make_changed_task(world, chosen, count, seed)
    settings = api.Settings(
        protocol=options["protocol"],
        judge_repeats=options["judge_repeats"],
        concurrency=options["concurrency"],
        budget=options["budget"],
        fresh=options["fresh"],
        progress=True,
    )
    generator = ChangedImages(changed)
    plan = api.plan(changed, generator, (scorer,), scorer_args=dict(options["scorer_args"]), settings=settings)
    known = {name for change in CHANGES for name in change.falls}
    if not known & set(plan.spec.scorers[0].dimensions):
        raise UsageError(
            f"scorer {scorer!r} gives {', '.join(plan.spec.scorers[0].dimensions)}, which no known change must move",
            fix=f"name a judge that gives one of {', '.join(sorted(known))}",
        )
    return changed, plan


def carry_out(plan: Plan, target: Path) -> Run:
    """Draws and judges what is not there yet, as any run does.

    It leaves out the tables and the page of a run: a K-Score of images that were changed on purpose says nothing.

    Raises:
        ConfigError: The directory belongs to another run, is held by another process, or cannot be written.
    """
    from knowgen.api import Run
    from knowgen.engine import run as run_engine
    from knowgen.engine.options import EngineOptions
    from knowgen.store.run import RunStore

    settings = plan.settings
    options = EngineOptions(concurrency=settings.concurrency, budget=settings.budget, progress=settings.progress)
    with RunStore.open(target, plan.spec, fresh=settings.fresh) as store:
        if settings.fresh and (target / FOLDER).exists():
            shutil.rmtree(target / FOLDER)  # a page of scores that are forgotten
        outcome = run_engine(plan.spec, plan.task, plan.generator, plan.scorers, store, options)
    return Run(target, plan.spec, settings.protocol, outcome)


def expectations() -> list[Expectation]:
    """Return what a judge must make of each change."""
    from knowgen.judge_check.analysis import Expectation
    from knowgen.worlds.changes import CHANGES
    from knowgen.worlds.changes.kinds import NOTHING

    return [
        Expectation(
            name=change.name,
            words=change.words,
            falls=frozenset(change.falls),
            may=frozenset(change.may),
            why_may=change.why_may,
            unchanged=change is NOTHING,
        )
        for change in CHANGES
    ]


def assess(run: Run, changed: ChangedTask) -> tuple[JudgeCheck, list[CheckedImage]]:
    """Read the scores of a run and works out what they say of the judge."""
    from knowgen.judge_check.analysis import CheckedImage, judge_changes, overall
    from knowgen.judge_check.records import JudgeCheck
    from knowgen.stats.protocol import get_protocol
    from knowgen.store.run import RunStore

    scorer, lenient = run.spec.scorers[0], get_protocol(run.protocol).reading == "lenient"
    readings: dict[str, list[ParsedScore]] = {}
    judges: dict[str, None] = {}
    for row in run.rows(scorer.name):
        reading = row.lenient if lenient and row.lenient is not None else row.strict
        readings.setdefault(row.sample_id, []).append(reading)
        if row.judge_returned:
            judges[row.judge_returned] = None
    judged = [
        CheckedImage(image.original.sample.id, image.change.name, tuple(readings[image.id]))
        for image in changed.pictures.values()
    ]
    with RunStore.read(run.path) as store:
        seconds = store.seconds()
    changes = judge_changes(expectations(), judged, scorer.dimensions)
    fit, because = overall(changes)
    check = JudgeCheck(
        scorer=scorer.name,
        scorer_version=scorer.version,
        scorer_note=scorer.note,
        judges=tuple(judges),
        task=changed.name,
        task_version=changed.version,
        protocol=run.protocol,
        seed=changed.seed,
        samples=len({one.sample for one in judged}),
        judge_repeats=run.spec.scores(scorer),
        dimensions=scorer.dimensions,
        changes=changes,
        fit=fit,
        because=because,
        cost=run.cost,
        seconds=seconds,
    )
    return check, judged


def write(run: Run, changed: ChangedTask, check: JudgeCheck, judged: Sequence[CheckedImage]) -> Path:
    """Write record, tables and page into the run directory; what is there already and says the same is left.

    Returns:
        Path of the page.
    """
    from knowgen import outputs
    from knowgen.judge_check import tables
    from knowgen.judge_check.page import write_page
    from knowgen.store.manifest import write_atomically

    page, record = run.path / FOLDER / "index.html", run.path / FOLDER / RECORD
    # the time spent grows with every call, and says nothing of the judge
    text = check.model_dump_json(indent=1, exclude={"seconds"}) + "\n"
    if page.is_file() and record.is_file() and record.read_text(encoding="utf-8") == text:
        return page
    folder = run.path / outputs.TABLES
    folder.mkdir(exist_ok=True)
    name = f"judge-check-{outputs.slug(check.scorer)}-{check.protocol}"
    write_atomically(folder / f"{name}.md", tables.markdown(check))
    write_atomically(folder / f"{name}.csv", tables.csv(check))
    write_page(check, _examples(run, changed, check, judged), run.path / FOLDER, RECORD, text)
    return page


def _examples(run: Run, changed: ChangedTask, check: JudgeCheck, judged: Sequence[CheckedImage]) -> list[Any]:
    """Return what the page shows of each changed image."""
    from knowgen.judge_check.analysis import account
    from knowgen.judge_check.page import Example
    from knowgen.store.run import RunStore

    with RunStore.read(run.path) as store:
        drawn = {generation.sample_id: generation for _, generation in store.generations()}
    known = {expectation.name: expectation for expectation in expectations()}
    baselines = {one.sample: one for one in judged if known[one.change].unchanged}
    examples = []
    for image, one in zip(changed.pictures.values(), judged, strict=True):
        generation = drawn.get(image.id)
        told = account(known[one.change], one, baselines.get(one.sample), check.dimensions)
        examples.append(
            Example(
                change=one.change,
                sample=one.sample,
                category=image.original.sample.category,
                prompt=image.original.sample.prompt,
                what=image.what,
                truth=image.original.truth.image,
                changed=generation.image if generation is not None else None,
                generation_fault=generation.reason if generation is not None else "not drawn yet",
                account=told,
                rationales=tuple(reading.rationale for reading in one.readings if reading.rationale),
                reasons=tuple(dict.fromkeys(reading.reason for reading in one.readings if reading.reason)),
            )
        )
    return examples


def _print(run: Run, check: JudgeCheck, page: Path) -> None:
    from knowgen.judge_check import tables

    click.echo()
    click.echo(tables.terminal(check))
    click.echo()
    for line in failure_lines(run):
        click.echo(line)
    if run.outcome is not None and run.outcome.stopped == "budget":
        click.echo(f"budget   {run.outcome.refusal}; raise --budget to go on", err=True)
    click.echo(f"resume   {again()}")
    click.echo(f"page     {page.resolve()}")
