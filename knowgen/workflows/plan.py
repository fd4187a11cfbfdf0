"""Plan a run from names and options: everything is checked before anything is built or paid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from knowgen.core.errors import UsageError
from knowgen.core.executors import check_executor
from knowgen.core.run_config import RunConfig, refuse_unused
from knowgen.core.secrets import refuse_secrets
from knowgen.core.spec import GeneratorSpec, RunShard, RunSpec, ScorerSpec, Selection, select
from knowgen.engine.components import AgentHandle, GeneratorHandle, ScorerHandle
from knowgen.generators.contract import AnswerSource, GenerationSource, KeyedAnswers
from knowgen.stats.protocol import get_protocol
from knowgen.store.manifest import read_manifest
from knowgen.store.run import RunStore
from knowgen.tasks.contract import Task
from knowgen.tasks.private import UnscoredTask, has_private_truths, private_truths_error
from knowgen.workflows.agents import ResolvedSystem, resolve_system
from knowgen.workflows.described import open_task
from knowgen.workflows.resolve import ScorerRequest, resolve_scorers, scorer_requests
from knowgen.workflows.selection import SelectedTask, select_samples, select_shard


@dataclass(frozen=True)
class Plan:
    """A run that is ready to execute.

    Attributes:
        spec: Specification of the run.
        task: The task, reduced to the selected samples.
        generator: The generator, or the source of existing images.
        scorers: The scorers.
        config: The options of the run.
        source: The run directory that is scored in place; None for any other run.
        remember: Stores in the run directory the parts of the source that exports need.
        release: Closes the source of existing images.
        origin: Path of existing images; None when images are generated.
        requests: Agent answers that replace the prompts; None for the prompts.
        agent: The agent that answers before the generator generates; None without one.
        answers: Stored answers of the same agent; None to search for all.
    """

    spec: RunSpec
    task: Task
    generator: GeneratorHandle | GenerationSource
    scorers: tuple[ScorerHandle, ...]
    config: RunConfig
    source: Path | None = None
    remember: Callable[[RunStore], None] | None = None
    release: Callable[[], None] = lambda: None
    origin: Path | None = None
    requests: AnswerSource | None = None
    agent: AgentHandle | None = None
    answers: KeyedAnswers | None = None


def plan(
    task: str | Task,
    generator: str | Callable[..., Any] | object,
    scorers: Sequence[str | Callable[..., Any] | object] = (),
    config: RunConfig | None = None,
    *,
    scored: bool = True,
) -> Plan:
    """Resolve and check a run without building, generating or paying anything.

    Args:
        task: Name or folder of a task, or a task.
        generator: Name, class, object or plain function.
        scorers: Names, classes, functions or objects, which take their arguments from `config.scorer_args`, or
            requests with their own; the task's default scorers when empty.
        config: Options of the run.
        scored: Whether images are scored; without, `scorers` are ignored and no summary is written. Those of a task
            with private ground truths are not.

    Raises:
        UsageError: A name, argument or option is wrong.
        DataError: The task is broken.
    """
    config = config or RunConfig()
    refuse_secrets(
        {
            "task": task,
            "generator": generator,
            "scorers": [each for each in scorers if isinstance(each, str)],
            **vars(config),
        }
    )
    get_protocol(config.protocol)
    check_executor(config)
    in_worker = config.workers != 0
    whole = open_task(task, in_worker=in_worker) if isinstance(task, str) else task
    system = resolve_system(generator, config.generator_args or {}, whole, in_worker=in_worker)
    if has_private_truths(whole):
        _refuse_truths(whole, scorers, system)
        whole, scored = UnscoredTask(whole), False
    requested = scorer_requests(
        (scorers or whole.default_scorers) if scored else (),
        config.scorer_args or {},
        get_protocol(config.protocol).judge_attempts,
    )
    if scored and not requested:
        raise UsageError(f"task {whole.name} has no default scorer", fix="give --scorer S")
    planned = _plan(whole, system.generator, system.generator.spec, requested, config)
    if system.agent is not None:
        spec = planned.spec.model_copy(update={"agent": system.agent.spec})
        planned = replace(planned, agent=system.agent, spec=spec)
    return planned if config.requests is None else _with_requests(planned, system.generator, Path(config.requests))


def _refuse_truths(task: Task, scorers: Sequence[object], system: ResolvedSystem) -> None:
    """Raise `UsageError` if a run of a task with private ground truths would need them."""
    if scorers:
        fix = "leave out the scorer, and send the images to those who score them"
        raise UsageError("the ground truths are private until they are revealed", where=f"task {task.name}", fix=fix)
    given = [each.spec for each in (system.agent, system.generator) if each is not None and each.spec.privileged]
    if given:
        what = f"{given[0].name} needs ground truths, which are private until they are revealed"
        raise UsageError(what, where=f"task {task.name}", fix="name a generator that is not given them")


def _with_requests(planned: Plan, generator: GeneratorHandle, path: Path) -> Plan:
    """Generate from an agent's stored answers in place of the prompts, or with an agent in place of a search."""
    from knowgen.interchange.agent_answers import open_answers, open_keyed_answers

    if planned.agent is not None:
        return replace(planned, answers=open_keyed_answers(path))
    if not generator.capabilities.references:
        raise UsageError(
            f"generator {generator.spec.name!r} takes no reference images, which an agent's answers need",
            fix="name a generator that declares `references = True`",
        )
    requests = open_answers(path)
    spec = planned.spec.generator
    # what an agent learned from the ground truth is in its answers
    spec = spec.model_copy(update={"privileged": spec.privileged or requests.privileged})
    update = {"requests": requests.identity, "generator": spec}
    return replace(planned, requests=requests, spec=planned.spec.model_copy(update=update))


def _plan(
    whole: Task,
    generator: GeneratorHandle | GenerationSource,
    generator_spec: GeneratorSpec,
    requested: Sequence[ScorerRequest],
    config: RunConfig,
    *,
    seed: int | None = None,
    repeats: int | None = None,
    source: Path | None = None,
    earlier: Sequence[ScorerSpec] = (),
    part_of: Selection | None = None,
    name: str = "",
    shard: RunShard | None = None,
    release: Callable[[], None] = lambda: None,
    origin: Path | None = None,
) -> Plan:
    names = [request.name for request in requested]
    handles = [
        replace(handle, spec=_with_repeats(handle, config.judge_repeats, earlier))
        for handle in resolve_scorers(requested, in_worker=config.workers != 0)
    ]
    samples, selection = select_samples(whole, limit=config.limit, ids=config.ids)
    if part_of is not None and selection.kind == "all" and part_of.kind != "all":
        # all samples of a subset are still a subset, and must not be recorded as the whole task
        selection = select([sample.id for sample in samples], part_of.kind)
    shard = shard if selection == part_of else None
    if config.shard is not None:
        if shard is not None:
            raise UsageError(f"the source is {shard.label} of a run already", fix="score it without --shard")
        samples, selection, shard = select_shard(samples, selection, config.shard)
    spec = RunSpec(
        task=whole.name,
        task_version=whole.version,
        selection=selection,
        generator=generator_spec,
        scorers=(*(handle.spec for handle in handles), *(spec for spec in earlier if spec.name not in names)),
        seed=config.seed if seed is None else seed,
        repeats=config.repeats if repeats is None else repeats,
        judge_repeats=config.judge_repeats,
        shard=shard,
        name=config.name or name,
    )
    part = SelectedTask(whole, samples)
    return Plan(spec, part, generator, tuple(handles), config, source, release=release, origin=origin)


def plan_images(
    task: Task,
    generations: GenerationSource,
    generator: GeneratorSpec,
    scorers: Sequence[ScorerRequest],
    config: RunConfig,
) -> Plan:
    """Plan the scoring of images that the caller looks up.

    Args:
        task: Their task.
        generations: The images by sample and repeat.
        generator: What stands for their generator in keys.
        scorers: The scorers with their arguments.
        config: Options of the run; `ids` names the samples that have an image.

    Raises:
        UsageError: A name, argument or option is wrong.
    """
    get_protocol(config.protocol)
    check_executor(config)
    return _plan(task, generations, generator, scorers, config)


def _with_repeats(handle: ScorerHandle, judge_repeats: int, earlier: Sequence[ScorerSpec]) -> ScorerSpec:
    """Set how often a scorer scores each image: a measure once, and a judge at least as often as it did before."""
    if handle.capabilities.shape == "score_batch":
        return handle.spec.model_copy(update={"judge_repeats": 1})
    before = max((spec.judge_repeats or 1 for spec in earlier if spec.name == handle.spec.name), default=1)
    return handle.spec.model_copy(update={"judge_repeats": max(judge_repeats, before)})


def _shard_of(run: Path) -> RunShard | None:
    """Return the shard that a run directory contains; None for a whole run."""
    manifest = read_manifest(run)
    return manifest.spec.shard if manifest is not None else None


def plan_scoring(
    source: Path | str,
    scorers: Sequence[str | Callable[..., Any] | object] = (),
    task: str | Task | None = None,
    duplicates: Literal["error", "last"] = "error",
    config: RunConfig | None = None,
) -> Plan:
    """Resolve and check the scoring of existing images.

    Args:
        source: A run directory, an official results file, or a folder of images named by sample id.
        scorers: As in `plan`; the run's own scorers, else the task's, when empty.
        task: The task of a folder of images.
        duplicates: What to do when rows of a results file share an id: raise an error, or use the last, as the
            official evaluator does.
        config: Options of the run; `config.out` is the run directory, the source itself when it is a run and `out` is
            None.

    Raises:
        UsageError: A name, argument or option is wrong, or a folder of images needs `task`.
        DataError: The source is missing or broken.
    """
    from knowgen.interchange.open_source import open_source

    config = config or RunConfig()
    refuse_secrets(
        {
            "source": source,
            "task": task,
            "scorers": [each for each in scorers if isinstance(each, str)],
            **vars(config),
        }
    )
    refuse_unused(config, "score")
    get_protocol(config.protocol)
    check_executor(config)
    opened = open_source(
        Path(source),
        open_task(task, in_worker=config.workers != 0) if isinstance(task, str) else task,
        duplicates,
        images=None if config.images is None else Path(config.images),
        pattern=config.pattern,
    )
    if has_private_truths(opened.task):
        raise private_truths_error(opened.task.name)
    in_place = opened.in_place and (config.out is None or Path(config.out).resolve() == Path(source).resolve())
    if in_place and config.shard is not None:
        raise UsageError("shards of a run cannot be scored in its own directory", fix="give each shard an --out")
    recorded = [ScorerRequest(scorer.name, scorer.args) for scorer in opened.scorers]
    if not scorers and config.scorer_args:
        scorers = [scorer.name for scorer in recorded] or opened.task.default_scorers  # with only the given arguments
    requested = scorer_requests(scorers or recorded or opened.task.default_scorers, config.scorer_args or {})
    if not requested:
        raise UsageError(f"task {opened.task.name} has no default scorer", fix="give --scorer S")
    planned = _plan(
        opened.task,
        opened.generations,
        opened.generator,
        requested,
        config,
        seed=opened.seed,
        repeats=opened.repeats,
        source=Path(source) if in_place else None,
        earlier=opened.scorers if in_place else (),
        part_of=opened.part_of,
        name=opened.name,
        shard=_shard_of(Path(source)) if opened.in_place else None,
        release=opened.generations.close,
        origin=Path(source),
    )
    notes = opened.notes({sample.id for sample in planned.task.samples()})
    notes.print()

    def remember(store: RunStore) -> None:
        notes.record(store)
        if opened.remember is not None:
            opened.remember(store)

    answers = None
    if opened.agent is not None and not in_place:
        from knowgen.interchange.agent_answers import open_keyed_answers

        answers = open_keyed_answers(Path(source), with_failed=True)
    spec = planned.spec.model_copy(update={"requests": opened.requests, "agent": opened.agent})
    return replace(planned, remember=remember, spec=spec, answers=answers)
