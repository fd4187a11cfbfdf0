"""What an agent did, over all answers of a run and by difficulty and category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from pydantic import Field

from knowgen.core.records import AgentAnswer, AnswerStatus, Generation, GenerationStatus, Record, Sample

LEAK = "leak_blocked"
"""Reason of a step for something that is not fetched because it is the benchmark's own data."""

IMAGE_MODEL = "image model"
"""Name of the part that generates the images, beside those of `AgentAnswer.usage`."""

_DIFFICULTIES = ("easy", "medium", "hard")


class PartFigures(Record):
    """What one part of an agent used.

    Attributes:
        calls: Paid calls; for the image model, generations that were attempted.
        tokens: Tokens in and out.
        cost: US dollars; None where the price of a paid call is not known.
        seconds: Time in seconds; times of parts may overlap.
    """

    calls: int = 0
    tokens: int = 0
    cost: float | None = 0.0
    seconds: float = 0.0


class AgentFigures(Record):
    """What an agent did over a part of the samples. Failed answers count in `failed` alone.

    Attributes:
        kind: all, difficulty or category.
        name: Name of the part; empty for all.
        expected: Samples x repeats.
        answers: Trajectories that came to one of the agent's own endings, with an answer or without.
        failed: Answers that failed, for whatever reason.
        rounds: Replies of the policy, the last call included.
        calls: Tool calls by tool.
        references: Chosen reference images.
        endings: Trajectories by ending.
        fallbacks: Images whose answer was not used.
        leaks: Pages and images that were not fetched because they are the benchmark's own data.
        blocked: Pages and images that were not fetched for other reasons.
        errors: Steps with an error.
        capped: Tokens that were cut from tool results.
        seconds: Median time of an answer in seconds; None without one.
        parts: What each part used, by name; the image model is `IMAGE_MODEL`.
    """

    kind: str = "all"
    name: str = ""
    expected: int = 0
    answers: int = 0
    failed: int = 0
    rounds: int = 0
    calls: dict[str, int] = Field(default_factory=dict)
    references: int = 0
    endings: dict[str, int] = Field(default_factory=dict)
    fallbacks: int = 0
    leaks: int = 0
    blocked: int = 0
    errors: int = 0
    capped: int = 0
    seconds: float | None = None
    parts: dict[str, PartFigures] = Field(default_factory=dict)

    def each(self, total: float) -> float | None:
        """Return a total per answer; None without an answer."""
        return total / self.answers if self.answers else None


@dataclass
class _Totals:
    """Totals of a part of the samples while they are counted."""

    numbers: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    parts: dict[str, PartFigures] = field(default_factory=dict)

    def add_answer(self, answer: AgentAnswer) -> None:
        for used in answer.usage:
            tokens = used.usage.input_tokens + used.usage.output_tokens
            # a part without a paid call costs nothing, whatever is known of prices
            cost = used.usage.cost if used.usage.cost is not None or used.calls or tokens else 0.0
            self._spend(used.part, used.calls, tokens, cost, used.seconds)
        if answer.status is AnswerStatus.FAILED:
            self.numbers["failed"] += 1
        if answer.status not in (AnswerStatus.OK, AnswerStatus.NONE):
            return
        self.numbers["answers"] += 1
        self.numbers["references"] += len(answer.references)
        self.endings[answer.ending or answer.status.value] += 1
        self.seconds.append(answer.seconds)
        for step in answer.trajectory:
            self._add_step(step)

    def _add_step(self, step: Mapping[str, Any]) -> None:
        self.numbers["rounds"] += 1
        self.numbers["errors"] += bool(step.get("error"))
        capped = step.get("capped")
        self.numbers["capped"] += capped if isinstance(capped, int) else 0
        for call in _listed(step.get("calls")):
            self.calls[str(call.get("name") or "call") if isinstance(call, Mapping) else "call"] += 1
        for reason in _listed(step.get("blocked")):
            self.numbers["leaks" if reason == LEAK else "blocked"] += 1

    def add_generation(self, generation: Generation) -> None:
        self.numbers["fallbacks"] += bool(generation.fallback)
        if generation.status is GenerationStatus.NOT_RUN:
            return
        usage = generation.usage
        tokens = usage.input_tokens + usage.output_tokens
        # a model without a price and tokens is not billed
        cost = usage.cost if usage.cost is not None or tokens else 0.0
        self._spend(IMAGE_MODEL, 1, tokens, cost, generation.seconds)

    def _spend(self, name: str, calls: int, tokens: int, cost: float | None, seconds: float) -> None:
        part = self.parts.get(name, PartFigures())
        self.parts[name] = PartFigures(
            calls=part.calls + calls,
            tokens=part.tokens + tokens,
            cost=None if part.cost is None or cost is None else part.cost + cost,
            seconds=part.seconds + seconds,
        )

    def figures(self, kind: str, name: str) -> AgentFigures:
        return AgentFigures(
            kind=kind,
            name=name,
            calls=dict(sorted(self.calls.items())),
            endings=dict(sorted(self.endings.items())),
            seconds=median(self.seconds) if self.seconds else None,
            parts=dict(sorted(self.parts.items(), key=lambda each: each[0] == IMAGE_MODEL)),
            **self.numbers,
        )


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def agent_figures(
    samples: Iterable[Sample], repeats: int, answers: Iterable[AgentAnswer], generations: Iterable[Generation]
) -> tuple[AgentFigures, ...]:
    """Return the figures of an agent: the whole first, then difficulties and categories in their order in the task.

    Args:
        samples: Samples of the run.
        repeats: Repeats of each sample.
        answers: Its stored answers.
        generations: The images that were generated from them.
    """
    totals: dict[tuple[str, str], _Totals] = {("all", ""): _Totals()}
    parts_of: dict[str, list[_Totals]] = {}
    for sample in samples:
        keys = [("all", ""), *((kind, name) for kind in ("difficulty", "category") if (name := getattr(sample, kind)))]
        parts_of[sample.id] = [totals.setdefault(key, _Totals()) for key in keys]
        for part in parts_of[sample.id]:
            part.numbers["expected"] += repeats
    for answer in answers:
        for part in parts_of.get(answer.sample_id, ()):
            part.add_answer(answer)
    for generation in generations:
        for part in parts_of.get(generation.sample_id, ()):
            part.add_generation(generation)
    return tuple(totals[key].figures(*key) for key in sorted(totals, key=_order))


def _order(key: tuple[str, str]) -> tuple[int, int]:
    """Return the place of a part: the whole, difficulties from easy to hard, categories as they come."""
    kind, name = key
    place = _DIFFICULTIES.index(name) if name in _DIFFICULTIES else len(_DIFFICULTIES)
    return ("all", "difficulty", "category").index(kind), place if kind == "difficulty" else 0
