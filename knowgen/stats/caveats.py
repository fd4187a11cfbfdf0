"""What a reader of a summary must know beside its figures, in words, and what forbids it on a board."""

from __future__ import annotations

from collections.abc import Sequence

from knowgen.core.records import GROUPS, TEXT, UNKNOWN_GROUP
from knowgen.core.text import count
from knowgen.stats.coverage import HOW_TO_GO_ON, no_result, reaches, share_words
from knowgen.stats.protocol import ScoringProtocol
from knowgen.stats.summary import OVERALL, Slice
from knowgen.stats.values import Values

NA_PER_IMAGE = "na=per-image"


def fitness(
    values: Values,
    slices: Sequence[Slice],
    dimensions: Sequence[str],
    protocol: ScoringProtocol,
    selection: str,
    lacking: str = "",
) -> list[str]:
    """Return the reasons that forbid the summary on a board, each a line; empty when there is none.

    Args:
        values: What was read of the rows.
        slices: The whole first.
        dimensions: What the scorer gives values for.
        protocol: The protocol.
        selection: Which samples.
        lacking: Why there is no result, as in `Summary.no_result`.
    """
    reasons = [protocol.not_for_board] if protocol.not_for_board else []
    if lacking:
        kept = (
            ""
            if protocol.below_coverage == "withhold"
            else "; the figures are partial, as the published arithmetic has them"
        )
        reasons.append(
            f"{no_result(lacking)} (at least {share_words(protocol.min_coverage)} are needed){kept}: {HOW_TO_GO_ON}"
        )
    whole = slices[0].coverage
    own_failures = whole.generation_failed + whole.generation_refused
    applicable = whole.expected - whole.not_applicable
    left_out = own_failures if protocol.failed_generation == "exclude" else 0
    if not reaches(applicable - left_out, applicable, protocol.min_coverage):
        reasons.append(f"{left_out} of {count(applicable, 'score')} left out: the generation failed or was refused")
    open_text = sum(unit.text_required is None for unit in values.units if unit.group != UNKNOWN_GROUP)
    if protocol.text_na == "prompt" and TEXT in dimensions and open_text:
        reasons.append(
            f"{NA_PER_IMAGE}: the task does not say whether {count(open_text, 'prompt')} of "
            f"{len(values.units)} need text, so the judge decides it image by image"
        )
    waiting = [
        count(whole.generation_not_run, "drawing") if whole.generation_not_run else "",
        count(whole.judgement_not_run, "judgement") if whole.judgement_not_run else "",
    ]
    if any(waiting):
        reasons.append(f"incomplete: {' and '.join(filter(None, waiting))} not run yet")
    for part in slices if protocol.combination != "mean_of_samples" else ():
        if part.kind == "group" and part.name in GROUPS and part.samples and not part.figures[OVERALL].n:
            reasons.append(f"{part.name}: nothing of it was judged, {_left_out(protocol)}")
    if not slices[0].figures[OVERALL].n and not lacking:
        reasons.append("no K-Score: nothing that counts for it was judged")
    if selection and not selection.startswith("all"):
        reasons.append(f"a part of the task ({selection})")
    return reasons


def notes_of(
    values: Values, slices: Sequence[Slice], dimensions: Sequence[str], protocol: ScoringProtocol
) -> list[str]:
    """Returns what else a reader must know, each a line."""
    notes = []
    if values.table.shape[0] > 1:
        notes.append(
            f"figures are means over {values.table.shape[0]} slices ({count(values.repeats, 'repeat')} x "
            f"{count(values.judge_repeats, 'judge repeat')}), each by the published arithmetic"
        )
    present = {part.name for part in slices if part.kind == "group" and part.samples}
    if protocol.combination != "mean_of_samples":
        notes += [f"{group}: no samples, {_left_out(protocol)}" for group in GROUPS if group not in present]
    unknown = sum(unit.group == UNKNOWN_GROUP for unit in values.units)
    if unknown and protocol.unknown != "count":
        fate = "left out" if protocol.unknown == "omit" else "shown apart and not part of the K-Score"
        notes.append(f"{count(unknown, 'sample')} of unknown category: {fate}")
    notes += _text_notes(slices, dimensions, protocol)
    notes += _fault_notes(values, protocol)
    if len(values.judges) > 1:
        notes.append(f"more than one judge model answered: {', '.join(values.judges)}")
    return notes


def _left_out(protocol: ScoringProtocol) -> str:
    return "counted as 0" if protocol.empty_group == "zero" else "left out"


def _text_notes(slices: Sequence[Slice], dimensions: Sequence[str], protocol: ScoringProtocol) -> list[str]:
    if TEXT not in dimensions or len(dimensions) == 1:
        return []
    bare = [
        part.name for part in slices if part.kind == "group" and part.figures[OVERALL].n and not part.figures[TEXT].n
    ]
    if protocol.missing_text is None:
        fate = "text accuracy is left out and the weights are renormalised"
    else:
        fate = f"text accuracy counts {protocol.missing_text}"
    return [f"{group}: no sample with text, {fate}" for group in bare]


def _fault_notes(values: Values, protocol: ScoringProtocol) -> list[str]:
    faults = values.faults
    notes = []
    if faults.malformed:
        notes.append(
            f"{count(faults.malformed, 'judgement')} with a missing value or one outside [0, 1]: counted as failed"
        )
    if faults.off_grid:
        grid = ", ".join(f"{value:g}" for value in protocol.grid)
        notes.append(f"{count(faults.off_grid, 'judgement')} with a value off the grid ({grid}): counted as failed")
    if faults.required_text_na:
        notes.append(
            f"{count(faults.required_text_na, 'judgement')} called the text not applicable where the prompt requires "
            f"it: counted {protocol.required_text_na:g}"
        )
    return notes
