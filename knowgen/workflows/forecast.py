"""Check a run and estimate its work, cost and duration for `--dry-run`. Nothing is loaded, sent or written."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from knowgen.core.arguments import arguments_line
from knowgen.core.records import AgentAnswer, AnswerStatus, Score, ScoreStatus
from knowgen.core.text import count
from knowgen.engine.components import AgentHandle, GeneratorHandle, ScorerHandle
from knowgen.engine.options import EngineOptions
from knowgen.engine.placement import scorer_slots
from knowgen.scorers.vlm.cost_estimate import Estimate, describe_estimate, estimate_from_attempts
from knowgen.store.rows import answer_cost
from knowgen.store.run import RunStore
from knowgen.workflows.dry_run import check_dry
from knowgen.workflows.plan import Plan

SAMPLED = 64
"""Maximum number of samples, and of stored scores, that an estimate is based on."""


def forecast(plan: Plan, out: Path) -> str:
    """Return a few lines on a plan: what it would do, what is stored already, and cost and duration of the rest.

    Raises:
        UsageError, ConfigError, MissingDependencyError: The run would be refused; see `check_dry`.
    """
    missing_keys = check_dry(plan, out)
    expected = plan.spec.selection.n * plan.spec.repeats
    lines = [
        f"task       {plan.spec.task} {plan.spec.task_version}, {plan.spec.selection.label}{_shard(plan)}",
        *_agent_name(plan.agent),
        f"generator  {plan.spec.generator.name} {plan.spec.generator.revision}".rstrip(),
        *_arguments(plan.generator if isinstance(plan.generator, GeneratorHandle) else None),
        *(line for scorer in plan.scorers for line in (_scorer_name(scorer), *_arguments(scorer))),
        *([f"answers    {expected}"] if plan.agent is not None else []),
        f"images     {expected}",
        f"scores     {expected * sum(plan.spec.judge_repeats_of(scorer.spec) for scorer in plan.scorers)}",
        f"directory  {out}",
        *missing_keys,
    ]
    stored: dict[str, list[Score]] = {}
    if (out / "run.json").exists():
        stored = _stored(plan, out, lines)
    if plan.agent is not None:
        lines += _agent_lines(plan, plan.agent, out, expected)
    for handle in plan.scorers:
        lines += _scorer_lines(plan, handle, stored.get(handle.spec.name, []), expected)
    return "\n".join(line.replace("\n", "\\n") for line in lines)  # a name does not make a line of its own


def _agent_name(agent: AgentHandle | None) -> list[str]:
    """Return the lines that name an agent, its parts and its search backend; none without an agent."""
    if agent is None:
        return []
    spec = agent.spec
    parts = [f"{role} {' '.join(filter(None, (part.name, part.version)))}" for role, part in spec.parts.items()]
    parts += [f"search {spec.search}"] if spec.search else []
    own = {f"{role}.{key}": value for role, part in spec.parts.items() for key, value in part.args.items()}
    own |= {**spec.args, "fallback": spec.fallback}
    return [
        f"agent      {spec.name} {spec.revision}".rstrip(),
        *([f"           {', '.join(parts)}"] if parts else []),
        f"           {arguments_line(own)}",
    ]


def _agent_lines(plan: Plan, agent: AgentHandle, out: Path, expected: int) -> list[str]:
    """Return the lines on what is left for an agent, and what that costs as far as it is known."""
    stored = _stored_answers(plan, out)
    missing = max(0, expected - sum(answer.status is not AnswerStatus.FAILED for answer in stored))
    name = agent.spec.name
    if not missing:
        return [f"{name}: nothing to search for"]
    lines = [f"{name}: {missing} to search for{_cost_of_answers(stored, missing)}"]
    if agent.query_price is not None:
        price = f"at most ${agent.query_price:g}" if agent.query_price else "free"
        lines.append(f"{name}: a query of {agent.spec.search.partition('@')[0]} is {price}")
    return lines


def _stored_answers(plan: Plan, out: Path) -> list[AgentAnswer]:
    """Return the answers of a directory that its next run reuses."""
    if not (out / "run.json").exists():
        return []
    with RunStore.read(out) as store:
        if store.spec.directory_identity() != plan.spec.directory_identity():
            return []
        return [answer for _, answer in store.answers()]


def _cost_of_answers(stored: list[AgentAnswer], missing: int) -> str:
    """Return the estimated cost of further answers, from stored ones; empty where none of them cost anything."""
    costs = [cost for answer in stored[-SAMPLED:] if (cost := answer_cost(answer))]
    if not costs:
        return ""
    each = sum(costs) / len(costs)
    return f", about ${missing * each:.2f} (${each:.4f} each, from {count(len(costs), 'stored answer')})"


def _scorer_name(scorer: ScorerHandle) -> str:
    return f"scorer     {scorer.spec.name} {scorer.spec.version}".rstrip()


def _arguments(handle: GeneratorHandle | ScorerHandle | None) -> list[str]:
    """Return a line with the arguments of a generator or scorer as they were understood; none without arguments."""
    if handle is None:
        return []
    given = {**(handle.component_ref.args if handle.component_ref is not None else {}), **handle.spec.args}
    plain = {name: value for name, value in given.items() if name != "search"}
    return [f"           {arguments_line(plain)}"] if plain else []


def price_warnings(plan: Plan) -> list[str]:
    """Return a line for each generator and scorer of a plan that calls a service at an unknown price."""
    lines = []
    for handle in (plan.agent, plan.generator, *plan.scorers):
        if not isinstance(handle, AgentHandle | GeneratorHandle | ScorerHandle):
            continue
        if handle.price_known is False:
            option = _price_option(handle, plan.agent)
            lines.append(f"{handle.spec.name}: the price of its calls is unknown, so costs are not counted ({option})")
    return lines


def _price_option(handle: AgentHandle | GeneratorHandle | ScorerHandle, agent: AgentHandle | None) -> str:
    """Return the option that states the price of the calls of an agent's policy, a generator or a scorer."""
    if isinstance(handle, AgentHandle):
        return "-g policy.price_in=… -g policy.price_out=…"
    if isinstance(handle, GeneratorHandle):
        return "-g price=…" if agent is None else "-g painter.price=…"
    return "-s price_in=… -s price_out=…"


def _shard(plan: Plan) -> str:
    return f", {plan.spec.shard.label}" if plan.spec.shard is not None else ""


def _stored(plan: Plan, out: Path, lines: list[str]) -> dict[str, list[Score]]:
    """Return the reusable scores in a directory by scorer, and append a line on its content to `lines`."""
    with RunStore.read(out) as store:
        theirs, ours = store.spec.directory_identity(), plan.spec.directory_identity()
        if differs := sorted(key for key in theirs if theirs[key] != ours[key]):
            lines.append(f"           contains another run ({', '.join(differs)} differ); --fresh would delete it")
            return {}
        generated = sum(1 for _, each in store.generations(paths=False) if each.status == "ok")
        specs = {spec.name: spec for spec in store.spec.scorers}
        reusable: dict[str, list[Score]] = {spec.name: [] for spec in plan.spec.scorers}
        scored = 0
        for _, each in store.scores():
            scored += each.status == "ok"
            same = [spec for spec in plan.spec.scorers if spec.name == each.scorer]
            known = specs.get(each.scorer)
            if same and known is not None and (same[0].args, same[0].version) == (known.args, known.version):
                reusable[each.scorer].append(each)
        lines.append(f"           contains {generated} images and {scored} scores already")
    return reusable


def _scorer_lines(plan: Plan, handle: ScorerHandle, stored: list[Score], expected: int) -> list[str]:
    """Return the lines on a scorer that calls an API; none for one that computes its scores."""
    if handle.capabilities.shape != "score" or handle.component_ref is None:
        return []
    estimate = estimate_from_attempts([score.attempts for score in stored[-SAMPLED:]]) or _estimate(plan, handle)
    if estimate is None:
        return [f"{handle.spec.name}: no cost estimate available"]
    done = sum(score.status is not ScoreStatus.FAILED for score in stored)
    missing = expected * plan.spec.judge_repeats_of(handle.spec) - done
    slots = scorer_slots(handle, EngineOptions.of(plan.config))[0]
    concurrency = handle.component_ref.args.get("concurrency", slots)
    return [
        f"{handle.spec.name}: {missing} to score, {describe_estimate(estimate, missing, min(slots, int(concurrency)))}"
    ]


def _estimate(plan: Plan, handle: ScorerHandle) -> Estimate | None:
    """Return a scorer's own estimate from some samples; None where it has none."""
    if handle.estimate is None:
        return None
    step = max(1, len(plan.task) // SAMPLED)
    items = ((sample, plan.task.truth(sample.id)) for sample in islice(plan.task.samples(), 0, None, step))
    estimate = handle.estimate(items)
    assert estimate is None or isinstance(estimate, Estimate)
    return estimate
