"""Notes of a summary: the caveats of its figures, and the reasons why it must not appear on a board."""

from __future__ import annotations

from collections.abc import Sequence

from knowgen.core.records import GROUPS, TEXT, UNKNOWN_GROUP
from knowgen.core.text import count
from knowgen.stats.coverage import HOW_TO_CONTINUE, no_result, reaches, share_words
from knowgen.stats.protocol import ScoringProtocol
from knowgen.stats.summary import OVERALL, Slice, is_part
from knowgen.stats.values import Values

NA_PER_IMAGE = "na=per-image"


def fitness(
    values: Values,
    slices: Sequence[Slice],
    dimensions: Sequence[str],
    protocol: ScoringProtocol,
    selection: str,
    shortfall: str = "",
) -> list[str]:
    """Return the reasons why the summary must not appear on a board, one line each; empty if there are none.

    Args:
        values: Values read from the rows.
        slices: Slices of the summary, the whole first.
        dimensions: Dimensions that the scorer gives values for.
        protocol: Scoring protocol.
        selection: Label of the selected samples.
        shortfall: Reason for having no result, as in `Summary.no_result`.
    """
    reasons = [protocol.not_for_board] if protocol.not_for_board else []
    if shortfall:
        partial = "; the figures of the published arithmetic are partial" if protocol.below_coverage == "note" else ""
        needed = f"at least {share_words(protocol.min_coverage)} are needed"
        reasons.append(f"{no_result(shortfall)} ({needed}){partial}: {HOW_TO_CONTINUE}")
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
            f"{len(values.units)} require text, so the judge decides for each image"
        )
    pending = [
        count(whole.generation_not_run, "generation") if whole.generation_not_run else "",
        count(whole.score_not_run, "score") if whole.score_not_run else "",
    ]
    if any(pending):
        reasons.append(f"incomplete: {' and '.join(filter(None, pending))} not run yet")
    for part in slices if protocol.combination != "mean_of_samples" else ():
        if part.kind == "group" and part.name in GROUPS and part.samples and not part.figures[OVERALL].n:
            reasons.append(f"{part.name}: no scores, {_empty_group(protocol)}")
    if not slices[0].figures[OVERALL].n and not shortfall:
        reasons.append("no K-Score: no sample that counts for it has a score")
    if is_part(selection):
        reasons.append(f"only a part of the task ({selection})")
    return reasons


def caveats(values: Values, slices: Sequence[Slice], dimensions: Sequence[str], protocol: ScoringProtocol) -> list[str]:
    """Return further caveats of a summary, one line each; arguments as in `fitness`."""
    notes = []
    if values.table.shape[0] > 1:
        notes.append(
            f"figures are means over {values.table.shape[0]} slices ({count(values.repeats, 'repeat')} x "
            f"{count(values.judge_repeats, 'judge repeat')}), each computed by the published arithmetic"
        )
    present = {part.name for part in slices if part.kind == "group" and part.samples}
    if protocol.combination != "mean_of_samples":
        notes += [f"{group}: no samples, {_empty_group(protocol)}" for group in GROUPS if group not in present]
    unknown = sum(unit.group == UNKNOWN_GROUP for unit in values.units)
    if unknown and protocol.unknown != "count":
        treatment = "left out" if protocol.unknown == "omit" else "shown in a separate row and not part of the K-Score"
        notes.append(f"{count(unknown, 'sample')} of unknown category: {treatment}")
    notes += _text_notes(slices, dimensions, protocol)
    notes += _problem_notes(values, protocol)
    if len(values.judges) > 1:
        notes.append(f"more than one judge model answered: {', '.join(values.judges)}")
    return notes


def _empty_group(protocol: ScoringProtocol) -> str:
    return "counted as 0" if protocol.empty_group == "zero" else "left out"


def _text_notes(slices: Sequence[Slice], dimensions: Sequence[str], protocol: ScoringProtocol) -> list[str]:
    if TEXT not in dimensions or len(dimensions) == 1:
        return []
    without_text = [
        part.name for part in slices if part.kind == "group" and part.figures[OVERALL].n and not part.figures[TEXT].n
    ]
    if protocol.missing_text is None:
        treatment = "text accuracy is left out and the weights are renormalised"
    else:
        treatment = f"text accuracy counts {protocol.missing_text}"
    return [f"{group}: no sample with text, {treatment}" for group in without_text]


def _problem_notes(values: Values, protocol: ScoringProtocol) -> list[str]:
    problems = values.problems
    notes = []
    if problems.malformed:
        notes.append(
            f"{count(problems.malformed, 'score')} with a missing value or a value outside [0, 1]: counted as failed"
        )
    if problems.off_grid:
        grid = ", ".join(f"{value:g}" for value in protocol.grid)
        notes.append(f"{count(problems.off_grid, 'score')} with a value off the grid ({grid}): counted as failed")
    if problems.required_text_na:
        notes.append(
            f"{count(problems.required_text_na, 'score')} with text not applicable although the prompt requires text: "
            f"text counted as {protocol.required_text_na:g}"
        )
    return notes
