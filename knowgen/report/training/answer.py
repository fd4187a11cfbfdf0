"""The first sentences of the page of a training: what it gained, and what that rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from knowgen.core.text import count
from knowgen.report.headline import Headline
from knowgen.report.numbers import duration, money, number
from knowgen.report.training.curves import figure_text
from knowgen.report.training.view import ReportTraining, TrainingEvaluation
from knowgen.stats.summary import Figure

WINDOW = 10
"""Maximum number of steps at each end whose mean reward is shown."""


@dataclass(frozen=True)
class BeforeAfter:
    """A figure at both ends of a training.

    Attributes:
        before: Mean over the first steps.
        after: Mean over the last steps.
        steps: Number of steps of each end.
        episodes: Number of episodes of both ends; 0 where none are stored.
    """

    before: float
    after: float
    steps: int
    episodes: tuple[int, int] = (0, 0)


def before_and_after(training: ReportTraining, name: str) -> BeforeAfter | None:
    """Return a figure at both ends of a training; None where no step has it."""
    known = [
        (step, values[name])
        for step, values in training.metrics.items()
        if name in values and math.isfinite(values[name])
    ]
    if not known:
        return None
    width = max(1, min(WINDOW, len(known) // 2))
    ends = known[:width], known[-width:]
    episodes = [sum(training.store.episode_count(step) for step, _ in end) for end in ends]
    means = [fmean(value for _, value in end) for end in ends]
    return BeforeAfter(means[0], means[1], width, (episodes[0], episodes[1]))


def answer(trainings: Sequence[ReportTraining]) -> Headline:
    """Return the result in one sentence, with what supports it."""
    if len(trainings) > 1:
        return _of_several(trainings)
    (training,) = trainings
    first, best, last = training.first, training.best, training.last
    if first is not None and best is not None and last is not None and first is not last:
        return Headline(_change(first, best), _support(first, best, last))
    name, words = ("loss", "loss") if "reward" not in _names(training) else ("reward", "mean reward")
    ends = before_and_after(training, name)
    evaluated = "Only one evaluation has a headline." if first is not None else "No evaluation has a headline."
    steps = count(len(training.metrics), "step")
    if ends is None:
        return Headline(f"{steps} without a {words}.", (evaluated,))
    before, after = figure_text(ends.before), figure_text(ends.after)
    if before == after:
        return Headline(f"The {words} stayed at {before} over {steps}.", (evaluated,))
    verb = "rose" if ends.after > ends.before else "fell"
    return Headline(f"The {words} {verb} from {before} to {after} over {steps}.", (evaluated,))


def _names(training: ReportTraining) -> set[str]:
    return {name for values in training.metrics.values() for name in values}


def _change(first: TrainingEvaluation, best: TrainingEvaluation) -> str:
    before, after = first.figure.value, best.figure.value
    start = "before training" if first.step == 0 else f"at step {first.step}"
    if best.step == first.step:
        return f"No evaluated step is above the first: the headline was {number(before)} {start}."
    return f"The headline rose from {number(before)} {start} to {number(after)} at step {best.step}."


def _support(first: TrainingEvaluation, best: TrainingEvaluation, last: TrainingEvaluation) -> tuple[str, ...]:
    lines = []
    if best.step != first.step:
        lines.append(_sureness(first.figure, best.figure))
        lines.append("The best of several evaluations is higher by chance alone than its true value.")
    if last.step != best.step:
        lines.append(f"At the last evaluated step, {last.step}, it was {number(last.figure.value)}.")
    return tuple(line for line in lines if line)


def _sureness(before: Figure, after: Figure) -> str:
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return ""
    apart = before.high < after.low
    return "The 95\N{NO-BREAK SPACE}% intervals do not overlap." if apart else (
        "The 95\N{NO-BREAK SPACE}% intervals overlap, so these samples alone do not show the gain."
    )  # fmt: skip


def _of_several(trainings: Sequence[ReportTraining]) -> Headline:
    known = [(training, best) for training in trainings if (best := training.best) is not None]
    if len(known) < 2:
        return Headline(f"{len(trainings)} trainings, without headlines that can be compared.")
    known.sort(key=lambda pair: -(pair[1].figure.value or 0.0))
    (leader, best), (second, other) = known[:2]
    others = f"{second.label} {number(other.figure.value)} at step {other.step}"
    sentence = f"{leader.label} reached {number(best.figure.value)} at step {best.step}; {others}."
    return Headline(sentence, tuple(filter(None, [_sureness(other.figure, best.figure)])))


def facts(training: ReportTraining) -> list[tuple[str, str]]:
    """Return what stands below the answer, as pairs of a name and a value."""
    pairs = [*_headline_facts(training), *_end_facts(training, "reward", "Mean reward")]
    if not any(name == "Mean reward" for name, _ in pairs):
        pairs += _end_facts(training, "loss", "Loss")
    last = training.metrics[max(training.metrics)] if training.metrics else {}
    masked = [values["masked"] for values in training.metrics.values() if math.isfinite(values.get("masked", math.nan))]
    seconds = [values.get("seconds", 0.0) for values in training.metrics.values()]
    pairs.append(("Steps", f"{len(training.metrics)}, the last is {max(training.metrics, default=0)}"))
    if masked:
        pairs.append(("Masked episodes", f"{100 * fmean(masked):.1f} %"))
    if any(seconds):
        pairs.append(("Time of all steps", duration(sum(seconds))))
    if "cost_total" in last:
        pairs.append(("Cost", money(last["cost_total"])))
    stopped = training.stopped
    pairs.append(("Ended", f"early: {stopped}" if stopped else _ended(training)))
    return pairs


def _ended(training: ReportTraining) -> str:
    return "complete" if "stopped" in training.description else "not recorded: it runs, or was killed"


def _headline_facts(training: ReportTraining) -> list[tuple[str, str]]:
    first, best, last = training.first, training.best, training.last
    pairs = []
    if first is not None:
        pairs.append(("Headline before" if first.step == 0 else f"Headline, step {first.step}", _with_interval(first)))
    if best is not None and best is not first:
        pairs.append((f"Best headline, step {best.step}", _with_interval(best)))
    if last is not None and last is not best and last is not first:
        pairs.append((f"Last headline, step {last.step}", _with_interval(last)))
    return pairs


def _with_interval(evaluation: TrainingEvaluation) -> str:
    figure = evaluation.figure
    samples = f", {count(figure.n, 'sample')}" if figure.n else ""
    if figure.low is None or figure.high is None:
        return f"{number(figure.value)}{samples}"
    return f"{number(figure.value)} ({number(figure.low)} to {number(figure.high)}{samples})"


def _end_facts(training: ReportTraining, name: str, title: str) -> list[tuple[str, str]]:
    ends = before_and_after(training, name)
    if ends is None:
        return []
    basis = f"first and last {count(ends.steps, 'step')}"
    if all(ends.episodes):
        basis += f", {ends.episodes[0]} and {ends.episodes[1]} episodes"
    return [(title, f"{figure_text(ends.before)} → {figure_text(ends.after)} ({basis})")]
