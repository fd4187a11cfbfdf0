"""What a run would do, cost and take: `--dry-run`. Nothing is built, sent or written."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from knowgen.core import registry
from knowgen.core.records import Score, ScoreStatus
from knowgen.engine.components import ScorerHandle
from knowgen.engine.options import EngineOptions
from knowgen.engine.placement import scorer_slots
from knowgen.planning import Plan
from knowgen.scorers.vlm.cost_estimate import Estimate, learn, words_of
from knowgen.store.run import RunStore

LOOKED_AT = 64
"""Samples, and judgements of the directory, that a forecast is made from."""


def forecast(plan: Plan, out: Path) -> str:
    """Says in a few lines what a plan would do, what is there already, and what the rest would cost and take."""
    expected = plan.spec.selection.n * plan.spec.repeats
    lines = [
        f"task       {plan.spec.task} {plan.spec.task_version}, {plan.spec.selection.label}{_shard(plan)}",
        f"generator  {plan.spec.generator.name} {plan.spec.generator.revision}".rstrip(),
        *(f"scorer     {scorer.name} {scorer.version}".rstrip() for scorer in plan.spec.scorers),
        f"pictures   {expected}",
        f"judgements {expected * sum(plan.spec.judgements(scorer.spec) for scorer in plan.scorers)}",
        f"directory  {out}",
    ]
    there: dict[str, list[Score]] = {}
    if (out / "run.json").exists():
        there = _there(plan, out, lines)
    for handle in plan.scorers:
        lines += _of_scorer(plan, handle, there.get(handle.spec.name, []), expected)
    return "\n".join(lines)


def _shard(plan: Plan) -> str:
    return f", {plan.spec.shard.label}" if plan.spec.shard is not None else ""


def _there(plan: Plan, out: Path, lines: list[str]) -> dict[str, list[Score]]:
    """Returns the judgements that a directory holds, by scorer, and says what it holds."""
    with RunStore.read(out) as store:
        is_there, wanted = store.spec.drawn_by(), plan.spec.drawn_by()
        if differs := sorted(key for key in is_there if is_there[key] != wanted[key]):
            lines.append(f"           holds another run ({', '.join(differs)} differ); --fresh would erase it")
            return {}
        drawn = sum(1 for _, each in store.generations() if each.status == "ok")
        specs = {spec.name: spec for spec in store.spec.scorers}
        found: dict[str, list[Score]] = {spec.name: [] for spec in plan.spec.scorers}
        judged = 0
        for _, each in store.scores():
            judged += each.status == "ok"
            same = [spec for spec in plan.spec.scorers if spec.name == each.scorer]
            known = specs.get(each.scorer)
            if same and known is not None and (same[0].args, same[0].version) == (known.args, known.version):
                found[each.scorer].append(each)
        lines.append(f"           holds {drawn} pictures and {judged} judgements already")
    return found


def _of_scorer(plan: Plan, handle: ScorerHandle, there: list[Score], expected: int) -> list[str]:
    """Returns what is to be said of a scorer that is asked over a network; nothing for one that computes."""
    if handle.traits.shape != "score" or handle.remake is None:
        return []
    estimate = learn([score.attempts for score in there[-LOOKED_AT:]]) or _reckoned(plan, handle)
    if estimate is None:
        return [f"{handle.spec.name}: says nothing of what its calls cost"]
    done = sum(score.status is not ScoreStatus.FAILED for score in there)
    missing = expected * plan.spec.judgements(handle.spec) - done
    slots = scorer_slots(handle, EngineOptions(concurrency=plan.settings.concurrency))[0]
    most = handle.remake.args.get("concurrency", slots)
    return [f"{handle.spec.name}: {missing} to ask, {words_of(estimate, missing, min(slots, int(most)))}"]


def _reckoned(plan: Plan, handle: ScorerHandle) -> Estimate | None:
    """Has a scorer estimate_cost one judgement from some samples; None where it does not know how."""
    resolved = registry.resolve("scorers", handle.spec.name)
    estimate_cost: Any = getattr(registry.load(resolved), "estimate_cost", None)
    if estimate_cost is None or handle.remake is None:
        return None
    step = max(1, len(plan.task) // LOOKED_AT)
    items = ((sample, plan.task.truth(sample.id)) for sample in islice(plan.task.samples(), 0, None, step))
    found = estimate_cost(items, model=resolved.model, **handle.remake.args)
    assert found is None or isinstance(found, Estimate)
    return found
