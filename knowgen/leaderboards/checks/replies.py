"""The raw replies of a submission's judge, parsed again: do they give the stored values?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from knowgen.core import registry
from knowgen.core.errors import DataError, KnowgenError
from knowgen.core.records import Attempt, ParsedScore, Sample, ScoreStatus, group_of
from knowgen.core.text import one_line
from knowgen.core.text_files import numbered_lines
from knowgen.leaderboards.checks.findings import BoardFinding, error, warning
from knowgen.leaderboards.folder import REPLIES_FILE, Board, parsed_json, validated
from knowgen.leaderboards.records import BoardSample, SubmissionResult, SubmittedReply, SubmittedScore
from knowgen.scorers.contract import ScorerCapabilities, scorer_capabilities

TOLERANCE = 1e-9
"""Largest difference between a stored value and the one that its replies give."""

_FIX = "make the submission again with `knowgen board add`"

Slot = tuple[str, int, int]
"""A sample, a repeat and a judge repeat."""


def parser_of(board: Board) -> ScorerCapabilities | str:
    """Return what the board's scorer declares, or why its replies cannot be parsed here.

    Only a scorer of this package is imported: a board names its scorer, and may be part of what is checked.
    """
    name = board.file.scorer.name
    try:
        resolved = registry.resolve("scorers", name)
        if not registry.is_bundled(resolved.origin):
            return f"{name} is not a scorer of this package"
        capabilities = scorer_capabilities(registry.load(resolved))
    except KnowgenError as fault:
        return str(fault)
    return capabilities if capabilities.reparse is not None else f"{name} measures and keeps no replies"


def check_replies(
    result: SubmissionResult, folder: Path, board: Board, parser: ScorerCapabilities
) -> Iterator[BoardFinding]:
    """Yield scores that differ from what their stored replies give.

    Args:
        result: Result of the submission.
        folder: Folder of the revision, which has the replies.
        board: Its board.
        parser: What its scorer declares, with `reparse`.
    """
    try:
        replies = _read(folder / REPLIES_FILE)
    except DataError as fault:
        yield error("replies", fault.where.replace(f"{folder}/", ""), fault.what, fault.fix or _FIX)
        return
    if parser.parser not in result.scorer.version:
        what = f"not parsed again: {one_line(result.scorer.version, 80)} is of another parser than {parser.parser}"
        yield warning("replies", REPLIES_FILE, what, "check it with the version of knowgen that scored it")
        return
    samples = {sample.id: sample for sample in board.samples}
    scores = {
        (sample.id, generation.repeat, score.judge_repeat): score
        for sample in result.samples
        for generation in sample.generations
        for score in generation.scores
    }
    for slot in sorted(replies.keys() - scores.keys()):
        yield error("replies", _place(slot), "there are replies, and no such score", _FIX)
    for slot, score in scores.items():
        attempts = replies.get(slot, ())
        if not attempts and score.strict.status is ScoreStatus.OK:
            yield error("replies", _place(slot), "there are values, and no reply that they were parsed from", _FIX)
        elif attempts and slot[0] in samples and score.strict.status is not ScoreStatus.NOT_APPLICABLE:
            yield from _check_score(score, attempts, samples[slot[0]], parser, _place(slot))


def _check_score(
    score: SubmittedScore, attempts: tuple[Attempt, ...], sample: BoardSample, parser: ScorerCapabilities, where: str
) -> Iterator[BoardFinding]:
    assert parser.reparse is not None
    strict, lenient, _ = parser.reparse(attempts, _sample(sample))
    for name, stored, parsed in (("strict", score.strict, strict), ("lenient", score.lenient, lenient)):
        if stored is not None and (difference := _difference(stored, parsed)):
            yield error("replies", where, f"the {name} score is not that of its replies: {difference}", _FIX)
            return


def _difference(stored: ParsedScore, parsed: ParsedScore) -> str:
    if stored.status is not parsed.status:
        return f"{stored.status.value} is stored, they give {parsed.status.value}"
    for name in sorted(stored.values.keys() | parsed.values.keys()):
        there, own = stored.values.get(name), parsed.values.get(name)
        if there is None or own is None or not math.isclose(there, own, rel_tol=0, abs_tol=TOLERANCE):
            return f"{one_line(name, 60)} {there} is stored, they give {own}"
    return "" if set(stored.na) == set(parsed.na) else "other dimensions are not applicable"


def _sample(sample: BoardSample) -> Sample:
    return Sample(
        id=sample.id,
        prompt=sample.prompt,
        category=sample.category,
        group=group_of(sample.category),
        difficulty=sample.difficulty,
        text_required=sample.text_required,
    )


def _place(slot: Slot) -> str:
    name, repeat, judged = slot
    place = f"{REPLIES_FILE}, sample {one_line(name, 60)!r}"
    place += f", repeat {repeat}" if repeat else ""
    return f"{place}, judge repeat {judged}" if judged else place


def _read(path: Path) -> dict[Slot, tuple[Attempt, ...]]:
    """Return the attempts of each score, oldest first."""
    found: dict[Slot, dict[int, Attempt]] = {}
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        reply = validated(SubmittedReply, parsed_json(line, where), where)
        attempts = found.setdefault((reply.sample, reply.repeat, reply.judge_repeat), {})
        if reply.attempt in attempts:
            raise DataError(f"attempt {reply.attempt} of this score is there twice", where=where, fix=_FIX)
        attempts[reply.attempt] = Attempt(
            reply=reply.reply,
            error=reply.error,
            model=reply.model,
            refused=reply.refused,
            reasoning=reply.reasoning,
        )
    return {slot: tuple(attempts[number] for number in sorted(attempts)) for slot, attempts in found.items()}
