"""From what a user asks for to a run that is made ready: everything understood and checked, nothing built or paid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from knowgen import assemble
from knowgen.core.errors import UsageError
from knowgen.core.records import GroundTruth, Sample
from knowgen.core.secrets import refuse_secrets
from knowgen.core.spec import GeneratorSpec, RunShard, RunSpec, ScorerSpec, Selection, select
from knowgen.engine.components import GeneratorHandle, ScorerHandle
from knowgen.generators.contract import AnswerSource, GenerationSource
from knowgen.stats.protocol import get_protocol
from knowgen.store.manifest import read_manifest
from knowgen.store.run import RunStore
from knowgen.tasks.contract import Task
from knowgen.tasks.load import load_task


@dataclass(frozen=True)
class Settings:
    """How a run is to be carried out.

    Attributes:
        policy: Policy of the headline; both are always written.
        limit: Only the first so many samples.
        ids: Only these samples.
        shard: `I/N`: only every Nth of these, from the Ith on, for a run that several machines share.
        requests: An agent's answers to draw in place of the prompts: its run directory or results file.
        seed: Seed of the first repeat, 0 <= seed < 2**31.
        repeats: Pictures a sample.
        judge_repeats: Judgements a picture and scorer.
        concurrency: Calls that wait at once; None takes what generator and scorers declare.
        budget: US dollars for this run directory, None for no limit.
        schedule: stream or phased.
        workers: Processes that draw; 0 draws in this one; None takes one a GPU where there are several.
        timeout: Seconds a drawing may take.
        fresh: Forget what an earlier run left in the directory.
        progress: Show progress on stderr.
    """

    policy: str = "strict"
    limit: int | None = None
    ids: Sequence[str] | None = None
    shard: str | None = None
    requests: Path | None = None
    seed: int = 0
    repeats: int = 1
    judge_repeats: int = 1
    concurrency: int | None = None
    budget: float | None = None
    schedule: Literal["stream", "phased"] = "stream"
    workers: int | None = None
    timeout: float = 600.0
    fresh: bool = False
    progress: bool = False


_LEAST = {"seed": 0, "repeats": 1, "judge_repeats": 1, "workers": 0, "concurrency": 1, "limit": 1}


def _check_settings(settings: Settings) -> None:
    """Refuses settings that cannot be carried out.

    Raises:
        UsageError: A number is too small or none at all, or a name is unknown.
    """
    refuse_secrets(vars(settings))
    get_protocol(settings.policy)
    for name, least in _LEAST.items():
        value = getattr(settings, name)
        if value is not None and (not isinstance(value, int) or value < least):
            raise UsageError(f"{name}={value!r} is not possible", fix=f"give a whole number, {least} or more")
    if settings.seed >= 2**31:
        raise UsageError(f"seed={settings.seed} is too large", fix="give less than 2147483648")
    # written so that NaN, which every comparison denies, is refused as well
    if settings.budget is not None and not settings.budget >= 0:
        raise UsageError(f"a budget of {settings.budget} cannot be kept", fix="give US dollars, 0 or more")
    if not settings.timeout > 0:
        raise UsageError(f"timeout={settings.timeout} is not possible", fix="give seconds, more than 0")
    if settings.schedule not in ("stream", "phased"):
        raise UsageError(f"unknown schedule {settings.schedule!r}", fix="stream or phased")


class SelectedTask:
    """A task reduced to the samples that take part."""

    def __init__(self, task: Task, samples: Sequence[Sample]) -> None:
        self._task, self._samples = task, samples
        self.name, self.default_scorers, self.search = task.name, task.default_scorers, task.search

    @property
    def version(self) -> str:
        """Version of the whole task."""
        return self._task.version

    @property
    def search_version(self) -> str:
        """Identity of the task's search backend."""
        return self._task.search_version

    def __len__(self) -> int:
        return len(self._samples)

    def samples(self) -> Iterator[Sample]:
        """Yields the chosen samples."""
        yield from self._samples

    def truth(self, sample_id: str) -> GroundTruth:
        """Returns the ground truth of a sample."""
        return self._task.truth(sample_id)


@dataclass(frozen=True)
class Plan:
    """A run that is made ready: everything is understood and checked, nothing is built or paid.

    Attributes:
        spec: What decides the results.
        task: The samples that take part.
        generator: Who draws, or where the drawings lie.
        scorers: Who judges.
        settings: How it is carried out.
        source: The run directory the drawings lie in, when that is where they come from.
        remember: Notes in the run directory what an export needs of the source of its drawings.
        release: Lets go of the source of its drawings.
        origin: Where the drawings lie, for pictures that exist already.
        requests: What is drawn in place of the prompts.
    """

    spec: RunSpec
    task: Task
    generator: GeneratorHandle | GenerationSource
    scorers: tuple[ScorerHandle, ...]
    settings: Settings
    source: Path | None = None
    remember: Callable[[RunStore], None] | None = None
    release: Callable[[], None] = lambda: None
    origin: Path | None = None
    requests: AnswerSource | None = None


def plan(
    task: str | Task,
    generator: str | Callable[..., Any] | object,
    scorers: Sequence[str] = (),
    *,
    generator_args: Mapping[str, Any] | None = None,
    scorer_args: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
) -> Plan:
    """Understands and checks a run without building, drawing or paying anything.

    Args:
        task: Name or folder of a task, or a task.
        generator: Name, class, object or drawing function.
        scorers: Scorer names; the task's own when empty.
        generator_args: Arguments of the generator.
        scorer_args: Arguments of the scorer; `vlm.base_url` style among several.
        settings: How it is carried out.

    Raises:
        UsageError: A name or argument is wrong.
        DataError: The task is broken.
    """
    chosen = settings or Settings()
    refuse_secrets({"task": task, "generator": generator, "scorers": list(scorers)})
    refuse_secrets(generator_args or {}, where="generator")
    refuse_secrets(scorer_args or {}, where="scorer")
    _check_settings(chosen)
    whole = load_task(task) if isinstance(task, str) else task
    handle = assemble.generator_handle(generator, generator_args or {}, whole)
    made = _plan(whole, handle, handle.spec, scorers, scorer_args or {}, chosen)
    return made if chosen.requests is None else _repainting(made, handle, chosen.requests)


def _repainting(made: Plan, painter: GeneratorHandle, path: Path) -> Plan:
    """Has an agent's answers drawn in place of the prompts."""
    from knowgen.interchange.agent_answers import open_requests

    if not painter.traits.references:
        raise UsageError(
            f"generator {painter.spec.name!r} takes no reference images, and an agent's answer is drawn from them",
            fix="name a painter that declares `references = True`",
        )
    requests = open_requests(path)
    return replace(made, requests=requests, spec=made.spec.model_copy(update={"requests": requests.identity}))


def _plan(
    whole: Task,
    generator: GeneratorHandle | GenerationSource,
    generator_spec: GeneratorSpec,
    scorers: Sequence[str],
    scorer_args: Mapping[str, Any],
    settings: Settings,
    *,
    seed: int | None = None,
    repeats: int | None = None,
    source: Path | None = None,
    earlier: Sequence[ScorerSpec] = (),
    part_of: Selection | None = None,
    shard: RunShard | None = None,
    remember: Callable[[RunStore], None] | None = None,
    release: Callable[[], None] = lambda: None,
    origin: Path | None = None,
) -> Plan:
    names = list(scorers) or list(whole.default_scorers)
    if not names:
        raise UsageError(f"task {whole.name} names no scorer of its own", fix="give --scorer S")
    handles = [
        replace(handle, spec=_with_repeats(handle, settings.judge_repeats, earlier))
        for handle in assemble.scorer_handles(names, scorer_args)
    ]
    samples, selection = assemble.choose(whole, limit=settings.limit, ids=settings.ids)
    if part_of is not None and selection.kind == "all" and part_of.kind != "all":
        # all of a part is still a part, and must not pass for the whole task
        selection = select([sample.id for sample in samples], part_of.kind)
    shard = shard if selection == part_of else None
    if settings.shard is not None:
        if shard is not None:
            raise UsageError(f"the source is {shard.label} of a run already", fix="score it without --shard")
        samples, selection, shard = assemble.share(samples, selection, settings.shard)
    spec = RunSpec(
        task=whole.name,
        task_version=whole.version,
        selection=selection,
        generator=generator_spec,
        scorers=(*(handle.spec for handle in handles), *(spec for spec in earlier if spec.name not in names)),
        seed=settings.seed if seed is None else seed,
        repeats=settings.repeats if repeats is None else repeats,
        judge_repeats=settings.judge_repeats,
        shard=shard,
    )
    part = SelectedTask(whole, samples)
    return Plan(spec, part, generator, tuple(handles), settings, source, remember, release, origin)


def _with_repeats(handle: ScorerHandle, judge_repeats: int, earlier: Sequence[ScorerSpec]) -> ScorerSpec:
    """Says how often a scorer judges each picture: a measure once, and no judge less often than it did before."""
    if handle.traits.shape == "score_batch":
        return handle.spec.model_copy(update={"judge_repeats": 1})
    before = max((spec.judge_repeats or 1 for spec in earlier if spec.name == handle.spec.name), default=1)
    return handle.spec.model_copy(update={"judge_repeats": max(judge_repeats, before)})


def _shard_of(run: Path) -> RunShard | None:
    """Returns which part of a run the run in a directory is, when it is one."""
    manifest = read_manifest(run)
    return manifest.spec.shard if manifest is not None else None


def _recorded_arguments(scorers: Sequence[ScorerSpec]) -> dict[str, Any]:
    """Returns the arguments a run's own scorers had, so that the same judge is asked at the same address.

    Raises:
        UsageError: Several have arguments and cannot be told apart by the first part of their names.
    """
    if len(scorers) == 1:
        return dict(scorers[0].args)
    bases = [scorer.name.partition(":")[0] for scorer in scorers]
    for scorer, base in zip(scorers, bases, strict=True):
        if scorer.args and ("." in base or bases.count(base) > 1):
            raise UsageError("the run has several scorers with arguments", fix="name one with --scorer, and its -s")
    pairs = zip(scorers, bases, strict=True)
    return {f"{base}.{key}": value for scorer, base in pairs for key, value in scorer.args.items()}


def plan_scoring(
    source: Path | str,
    scorers: Sequence[str] = (),
    *,
    task: str | Task | None = None,
    scorer_args: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    out: Path | str | None = None,
    duplicates: Literal["error", "last"] = "error",
) -> Plan:
    """Makes ready the scoring of pictures that exist already.

    Args:
        source: A run directory, an official results file, or a folder of pictures whose stems are sample ids.
        scorers: Scorer names; the task's own (for a run: the run's own) when empty.
        task: The task that a folder of pictures answers.
        scorer_args: Arguments of the scorer.
        settings: How it is carried out.
        out: Run directory; the source itself when it is a run and this is None.
        duplicates: What rows of a results file that share an id are: an error, or one sample that the last stands for,
            as the official evaluator has it.

    Raises:
        UsageError: A name or argument is wrong, or a folder comes without its task.
        DataError: The source is missing or broken.
    """
    from knowgen.interchange.open_source import open_source

    chosen = settings or Settings()
    refuse_secrets({"source": source, "task": task, "scorers": list(scorers), "out": out})
    refuse_secrets(scorer_args or {}, where="scorer")
    _check_settings(chosen)
    found = open_source(Path(source), load_task(task) if isinstance(task, str) else task, duplicates)
    in_place = found.in_place and (out is None or Path(out).resolve() == Path(source).resolve())
    if in_place and chosen.shard is not None:
        raise UsageError("shards of a run cannot be scored in its own directory", fix="give each shard an --out")
    made = _plan(
        found.task,
        found.drawings,
        found.generator,
        list(scorers) or [scorer.name for scorer in found.scorers],
        scorer_args or ({} if scorers else _recorded_arguments(found.scorers)),
        chosen,
        seed=found.seed,
        repeats=found.repeats,
        source=Path(source) if in_place else None,
        earlier=found.scorers if in_place else (),
        part_of=found.part_of,
        shard=_shard_of(Path(source)) if found.in_place else None,
        remember=found.remember,
        release=found.drawings.close,
        origin=Path(source),
    )
    return replace(made, spec=made.spec.model_copy(update={"requests": found.requests}))
