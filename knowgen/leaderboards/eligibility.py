"""What keeps a run or a submission off a board: one line for each reason. `board add` refuses for any of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from knowgen.core.records import FailureCause, Row
from knowgen.core.spec import RunSpec, ScorerSpec, canonical, is_plain
from knowgen.core.text import count, one_line
from knowgen.leaderboards.adapter import recorded_arguments, recorded_name
from knowgen.leaderboards.records import BoardFile, BoardSample, SubmissionResult, SystemFile
from knowgen.stats.aggregate import reasons_against_board
from knowgen.stats.coverage import score_coverage
from knowgen.stats.protocol import get_protocol
from knowgen.stats.summary import Coverage

_REASON_LENGTH = 100


def spec_reasons(
    board: BoardFile, spec: RunSpec, *, name: str, scorer_defaults: Mapping[str, Any] | None = None
) -> list[str]:
    """Return what in the specification of a run keeps it off a board.

    Args:
        board: The board.
        spec: The specification.
        name: Name of the board, for the messages.
        scorer_defaults: Default values of the scorer's arguments, where they are known.
    """
    reasons = []
    pinned = board.task.version
    if pinned != spec.task_version and "/" not in board.task.name and board.task.name != spec.task:
        reasons.append(f"another task: the run has {spec.task}, the board {board.task.name}")
    if pinned is None:
        reasons.append(f"the task of the board is not pinned: a maintainer runs `knowgen board pin {name}`")
    elif spec.task_version != pinned:
        reasons.append(
            f"another version of the task: the run has {spec.task} {spec.task_version}, the board "
            f"{board.task.name} {pinned}"
        )
    if spec.privileged:
        who = [part.name for part in (spec.agent, spec.generator) if part is not None and part.privileged]
        reasons.append(f"{' and '.join(who)} is privileged: it receives the ground truth")
    if spec.requests:
        reasons.append(
            "the images were generated from answers of an agent that were stored elsewhere: run the agent itself"
        )
    if spec.shard is not None:
        reasons.append(f"only {spec.shard.label} of a run: merge the shards with `knowgen merge`")
    if spec.repeats < board.repeats:
        reasons.append(
            f"{count(spec.repeats, 'image')} per sample, the board needs {board.repeats}: run it with "
            f"`--repeats {board.repeats}`"
        )
    return [*reasons, *_scorer_reasons(board, spec, scorer_defaults or {})]


def _scorer_reasons(board: BoardFile, spec: RunSpec, defaults: Mapping[str, Any]) -> Iterator[str]:
    named = [each for each in spec.scorers if each.name == board.scorer.name]
    if len(named) > 1:
        yield f"{len(named)} scorers of the run are named {board.scorer.name}: it must be one"
    scorer = next(iter(named), None)
    if scorer is None:
        known = ", ".join(each.name for each in spec.scorers) or "nothing"
        yield f"not scored by {board.scorer.name}, the board's scorer, but by {known}: `knowgen score` adds its scores"
        return
    yield from _argument_reasons(board, scorer, defaults)
    if scorer.version not in board.scorer.versions:
        accepted = " or ".join(board.scorer.versions)
        yield f"another version of {scorer.name}: the run has {scorer.version!r}, the board accepts {accepted!r}"
    if scorer.dimensions != board.scorer.dimensions:
        own, wanted = ", ".join(scorer.dimensions), ", ".join(board.scorer.dimensions)
        yield f"{scorer.name} has the dimensions {own}, the board {wanted}"


def _argument_reasons(board: BoardFile, scorer: ScorerSpec, defaults: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*scorer.args, *board.scorer.args}):
        own, wanted = (args.get(name, defaults.get(name)) for args in (scorer.args, board.scorer.args))
        if not _same(own, wanted):
            yield (
                f"{scorer.name} was run with {name}={_words(own)}, the board has {name}={_words(wanted)}: score the "
                "run again with the board's argument"
            )


def result_reasons(board: BoardFile, result: SubmissionResult, rows: Iterable[Row]) -> list[str]:
    """Return what in the results of a run keeps them off a board: its scores, its judge, its coverage.

    Args:
        board: The board.
        result: The result, by the board's scorer.
        rows: The rows of the result: those of the run, or `rows_of` a submission.
    """
    protocol = get_protocol(board.protocol)
    reasons = []
    if (result.protocol, result.protocol_version) != (board.protocol, board.protocol_version):
        reasons.append(
            f"another protocol: its figures are those of {result.protocol} {result.protocol_version}, the board's of "
            f"{board.protocol} {board.protocol_version}"
        )
    needed = max(board.min_coverage, protocol.min_coverage)
    rule = protocol.model_copy(update={"min_coverage": needed})
    row_list = list(rows)
    reasons += reasons_against_board(
        row_list, rule, dimensions=board.scorer.dimensions, selection=result.spec.selection.label
    )
    return [*reasons, *_outside_reasons(row_list), *_judge_reasons(board, result)]


def _outside_reasons(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each kind of result that is missing for reasons outside the system."""
    outside = FailureCause.INFRASTRUCTURE
    generations = {
        (row.sample_id, row.repeat): row.generation_reason for row in rows if row.generation_cause is outside
    }
    answers = {(row.sample_id, row.repeat): row.answer_reason for row in rows if row.answer_cause is outside}
    scores = [row.strict.reason for row in rows if row.score_cause is outside]
    found = (("generation", list(generations.values())), ("answer", list(answers.values())), ("score", scores))
    for noun, causes in found:
        if causes:
            usual = one_line(Counter(causes).most_common(1)[0][0], _REASON_LENGTH)
            yield f"{count(len(causes), noun)} failed for reasons outside the system ({usual}): run the command again"


def _judge_reasons(board: BoardFile, result: SubmissionResult) -> Iterator[str]:
    accepted = board.scorer.judges
    if not accepted:
        return
    answered = ", ".join(f"{name} ({number})" for name, number in result.judges.items())
    if len(result.judges) > 1:
        yield f"several judges answered: {answered}; all scores of a submission must be from one"
    if moved := {name: number for name, number in result.judges.items() if name not in accepted}:
        yield (
            f"the judge has moved: {count(sum(moved.values()), 'score')} from {', '.join(moved)}, the board accepts "
            f"{', '.join(accepted)}"
        )
    unnamed = sum(
        score.strict.status == "ok" and not score.judge
        for sample in result.samples
        for generation in sample.generations
        for score in generation.scores
    )
    if unnamed:
        yield f"{count(unnamed, 'score')} without the name of the judge that the endpoint returned"


def sample_reasons(result: SubmissionResult, samples: Sequence[BoardSample]) -> list[str]:
    """Return how the samples of a result differ from those of the board.

    Args:
        result: The result.
        samples: Samples of the board.
    """
    own, wanted = {sample.id for sample in result.samples}, {sample.id for sample in samples}
    reasons = []
    if missing := [sample.id for sample in samples if sample.id not in own]:
        reasons.append(f"{count(len(missing), 'sample')} of the board missing, such as {missing[0]!r}")
    if unknown := sorted(own - wanted):
        reasons.append(f"{count(len(unknown), 'sample')} that the board does not have, such as {unknown[0]!r}")
    return reasons


def system_reasons(system: SystemFile, spec: RunSpec) -> list[str]:
    """Return where a `system.yaml` says something else of a system than its run recorded."""
    reasons = []
    if system.name != one_line(system.name):
        reasons.append(f"system.yaml: name {system.name!r} is not one line of visible characters with single spaces")
    if system.adapter.generator != recorded_name(spec):
        reasons.append(
            f"system.yaml: adapter.generator is {system.adapter.generator!r}, the run has {recorded_name(spec)!r}"
        )
    for name, value in recorded_arguments(spec).items():
        stated = system.adapter.arguments.get(name)
        if not _same(stated, value):
            reasons.append(
                f"system.yaml: adapter.arguments.{name} is {_words(stated)}, the run has {name}={_words(value)}"
            )
    part = spec.agent or spec.generator
    for field, stated_text, recorded in (
        ("revision", system.adapter.revision, part.revision),
        ("search", system.adapter.search, part.search),
    ):
        if stated_text != recorded:
            reasons.append(f"system.yaml: adapter.{field} is {stated_text!r}, the run has {recorded!r}")
    if (searched := part.search or spec.generator.search) and not system.search:
        reasons.append(f"system.yaml: search is false, and the run searched with {searched}")
    if spec.agent is not None and system.kind == "image_model":
        reasons.append(f"system.yaml: kind is image_model, and the run has the agent {spec.agent.name}")
    return reasons


def earlier_reasons(result: SubmissionResult, earlier: Mapping[str, SubmissionResult]) -> list[str]:
    """Return which earlier revisions of the system have more than a result.

    Args:
        result: The new result.
        earlier: Results of the earlier revisions that were not withdrawn, by revision.
    """
    reasons = []
    own = _counted(result)
    for revision, each in earlier.items():
        if each.spec.task_version == result.spec.task_version and (before := _counted(each)) > own:
            reasons.append(
                f"the earlier revision {revision} has {count(before, 'score')} that count, this one {own}: complete "
                "the run, or withdraw that revision"
            )
    return reasons


def _counted(result: SubmissionResult) -> int:
    """Return the number of scores that count in the figures."""
    coverage: Coverage = result.coverage
    own = coverage.generation_failed + coverage.generation_refused
    left_out = own if get_protocol(result.protocol).failed_generation == "exclude" else 0
    return score_coverage(coverage).covered - left_out


def _same(one: Any, other: Any) -> bool:
    """Return whether two arguments are equal; a value that is not plain data, such as a date, equals none."""
    return is_plain(one) and is_plain(other) and canonical(one) == canonical(other)


def _words(value: Any) -> str:
    return one_line(canonical(value) if is_plain(value) and not isinstance(value, str) else value, 60)
