"""Run a check of a judge: score images with known changes, compute the result, and write record, tables and page."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from knowgen.core.atomic import write_file
from knowgen.core.errors import UsageError
from knowgen.core.records import ParsedScore
from knowgen.core.run_config import RunConfig
from knowgen.core.steps import showing_steps, step
from knowgen.engine.options import EngineOptions
from knowgen.judge_check import tables
from knowgen.judge_check.analysis import CheckedImage, Expectation, check_image, judge_changes, overall
from knowgen.judge_check.page import Example, write_page
from knowgen.judge_check.records import JudgeCheck
from knowgen.judge_check.verdicts import remember
from knowgen.stats.protocol import get_protocol
from knowgen.store.run import RunStore
from knowgen.workflows import artifacts
from knowgen.workflows.described import open_task
from knowgen.workflows.plan import Plan
from knowgen.workflows.plan import plan as plan_run
from knowgen.workflows.run import Run
from knowgen.workflows.selection import select_samples
from knowgen.worlds.perturbations import PERTURBATIONS, PerturbedImages, PerturbedTask, make_perturbed_task
from knowgen.worlds.perturbations.kinds import UNCHANGED

TASK = "knowgen_mini"
"""Default task."""

SAMPLES = 24
"""Default number of samples: one of each category, about 180 scores."""

FOLDER = "judge_check"
"""Folder of the page and the record in the run directory."""

RECORD = "result.json"
"""File name of the record in that folder."""


@dataclass(frozen=True)
class JudgeCheckPlan:
    """A check that is ready to run.

    Attributes:
        changed: Task with the changed images.
        plan: Run that scores them.
    """

    changed: PerturbedTask
    plan: Plan


@dataclass(frozen=True)
class CompletedJudgeCheck:
    """A check that ran.

    Attributes:
        run: Run that scored the changed images.
        check: Result; None if the run was interrupted.
        page: Path of the page; None if the run was interrupted.
    """

    run: Run
    check: JudgeCheck | None = None
    page: Path | None = None


def run_judge_check(
    scorer: str,
    out: Path | str,
    *,
    task: str = TASK,
    samples: int = SAMPLES,
    seed: int = 0,
    config: RunConfig | None = None,
) -> JudgeCheck:
    """Check whether a judge is fit for use and write the record, tables and page into a run directory.

    Args:
        scorer: Name of the judge.
        out: Run directory; scores that it already has are used.
        task: Name or folder of a synthetic world.
        samples: Number of samples to change.
        seed: Seed of the changes.
        config: Options of the run, such as budget, concurrency, judge repeats and the arguments of the judge.

    Raises:
        UsageError: A name or argument is wrong, or the judge gives no dimension that a change must lower.
        DataError: The task is not a synthetic world.
        ConfigError: The directory belongs to another run, is in use, or cannot be written.
        KeyboardInterrupt: The run was interrupted; the scores so far are stored.
    """
    ready = plan_judge_check(scorer, task, samples, seed, config or RunConfig())
    completed = execute_judge_check(ready, Path(out))
    if completed.check is None:
        raise KeyboardInterrupt
    return completed.check


def plan_judge_check(scorer: str, task: str, samples: int, seed: int, config: RunConfig) -> JudgeCheckPlan:
    """Plan the changed images and the run that scores them, without generating or paying anything.

    Args:
        scorer: Name of the judge.
        task: Name or folder of a synthetic world.
        samples: Number of samples to change; ignored if the options have ids.
        seed: Seed of the changes.
        config: Options of the run; `limit` and `ids` select the samples to change.

    Raises:
        UsageError: A name or argument is wrong, or the judge gives no dimension that a change must lower.
        DataError: The task is not a synthetic world.
    """
    world = open_task(task, in_worker=config.workers != 0)
    chosen, _ = select_samples(world, limit=config.limit, ids=config.ids)
    changed = make_perturbed_task(world, chosen, len(chosen) if config.ids else samples, seed)
    # The selection applies to the original samples and not to the changed ones.
    plan = plan_run(changed, PerturbedImages(changed), (scorer,), replace(config, limit=None, ids=None))
    known = {name for perturbation in PERTURBATIONS for name in perturbation.must_fall}
    if not known & set(plan.spec.scorers[0].dimensions):
        raise UsageError(
            f"scorer {scorer!r} gives {', '.join(plan.spec.scorers[0].dimensions)}, which no known change must lower",
            fix=f"name a judge that gives one of {', '.join(sorted(known))}",
        )
    return JudgeCheckPlan(changed, plan)


def execute_judge_check(ready: JudgeCheckPlan, out: Path) -> CompletedJudgeCheck:
    """Generate and score the images that are missing, and write record, tables and page.

    The tables and the page of an ordinary run are not written, because a K-Score of changed images has no meaning.

    Args:
        ready: The planned check.
        out: Run directory.

    Raises:
        ConfigError: The directory belongs to another run, is in use, or cannot be written.
    """
    from knowgen.engine import run as run_engine

    plan, config = ready.plan, ready.plan.config
    with RunStore.open(out, plan.spec, fresh=config.fresh) as store:
        if config.fresh and (out / FOLDER).exists():
            shutil.rmtree(out / FOLDER)  # its scores are deleted
        outcome = run_engine(plan.spec, plan.task, plan.generator, plan.scorers, store, EngineOptions.of(config))
    run = Run(out, plan.spec, config.protocol, outcome)
    if outcome.stopped == "interrupted":
        return CompletedJudgeCheck(run)
    with showing_steps(config.progress), step("writing the page"):
        check, images = assess(run, ready.changed)
        page = write(run, ready.changed, check, images)
    remember(run.spec.scorers[0], check, page)
    return CompletedJudgeCheck(run, check, page)


def expectations() -> list[Expectation]:
    """Return what a judge must detect of each change."""
    return [
        Expectation(
            name=perturbation.name,
            words=perturbation.description,
            falls=frozenset(perturbation.must_fall),
            may=frozenset(perturbation.may_fall),
            why_may=perturbation.may_fall_reason,
            unchanged=perturbation is UNCHANGED,
        )
        for perturbation in PERTURBATIONS
    ]


def assess(run: Run, changed: PerturbedTask) -> tuple[JudgeCheck, list[CheckedImage]]:
    """Return the result of a check and the scores of each changed image."""
    scorer, lenient = run.spec.scorers[0], get_protocol(run.protocol).reading == "lenient"
    scores: dict[str, list[ParsedScore]] = {}
    judges: dict[str, None] = {}
    for row in run.rows(scorer.name):
        parsed = row.lenient if lenient and row.lenient is not None else row.strict
        scores.setdefault(row.sample_id, []).append(parsed)
        if row.judge_returned:
            judges[row.judge_returned] = None
    images = [
        CheckedImage(image.original.sample.id, image.perturbation.name, tuple(scores[image.id]))
        for image in changed.images.values()
    ]
    with RunStore.read(run.path) as store:
        seconds = store.seconds()
    changes = judge_changes(expectations(), images, scorer.dimensions)
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
        samples=len({one.sample for one in images}),
        judge_repeats=run.spec.judge_repeats_of(scorer),
        dimensions=scorer.dimensions,
        changes=changes,
        fit=fit,
        because=because,
        cost=run.cost,
        seconds=seconds,
    )
    return check, images


def write(run: Run, changed: PerturbedTask, check: JudgeCheck, images: Sequence[CheckedImage]) -> Path:
    """Write record, tables and page into the run directory, unless the record there is the same.

    Returns:
        Path of the page.
    """
    page, record = run.path / FOLDER / "index.html", run.path / FOLDER / RECORD
    # The time grows with every call and does not describe the judge.
    text = check.model_dump_json(indent=1, exclude={"seconds"}) + "\n"
    if page.is_file() and record.is_file() and record.read_text(encoding="utf-8") == text:
        return page
    folder = run.path / artifacts.TABLES
    folder.mkdir(exist_ok=True)
    name = f"judge-check-{artifacts.slug(check.scorer)}-{check.protocol}"
    write_file(folder / f"{name}.md", tables.markdown(check))
    write_file(folder / f"{name}.csv", tables.csv(check))
    write_page(check, _examples(run, changed, check, images), run.path / FOLDER, RECORD, text)
    return page


def _examples(run: Run, changed: PerturbedTask, check: JudgeCheck, images: Sequence[CheckedImage]) -> list[Example]:
    """Return the examples of the page, one for each changed image."""
    with RunStore.read(run.path) as store:
        generations = {generation.sample_id: generation for _, generation in store.generations()}
    known = {expectation.name: expectation for expectation in expectations()}
    baselines = {one.sample: one for one in images if known[one.change].unchanged}
    examples = []
    for image, one in zip(changed.images.values(), images, strict=True):
        generation = generations.get(image.id)
        examples.append(
            Example(
                change=one.change,
                sample=one.sample,
                category=image.original.sample.category,
                prompt=image.original.sample.prompt,
                what=image.summary,
                truth=image.original.truth.image,
                changed=generation.image if generation is not None else None,
                generation_fault=generation.reason if generation is not None else "not generated yet",
                result=check_image(known[one.change], one, baselines.get(one.sample), check.dimensions),
                rationales=tuple(score.rationale for score in one.scores if score.rationale),
                reasons=tuple(dict.fromkeys(score.reason for score in one.scores if score.reason)),
            )
        )
    return examples
