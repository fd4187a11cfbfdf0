"""Scoring protocols: data that defines how `aggregate` turns rows into figures.

`official` reproduces the published arithmetic (Gen-Searcher, arXiv 2603.28767, and its evaluator) to the last digit,
including its errors. `strict` corrects these errors and is the default. All rules about failures, N/A, rounding and
weights are fields of the protocol; no other code decides them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from knowgen.core.errors import UsageError
from knowgen.core.records import Record

KNOWGEN_WEIGHTS = (0.1, 0.4, 0.4, 0.1)
"""Weights of faithfulness, visual correctness, text accuracy and aesthetics, in the order of `DIMENSIONS`."""

GRID = (0.0, 0.5, 1.0)
"""Values that a KnowGen judge may give."""

MIN_COVERAGE = 0.95
"""Minimum share of the expected scores for a result. With fewer, the figure depends on which samples happened to be
scored. The published arithmetic has no such limit; below it, its figures are shown but not fit for a leaderboard."""

TEXT_IF_NA = 0.5
"""Text accuracy where it does not apply, in the published arithmetic."""


class ScoringProtocol(Record):
    """Rules that turn scores into figures.

    Attributes:
        name: Name of the protocol, as given to `--protocol`.
        version: Version of the arithmetic; changes when a figure can change.
        reading: Which parsed score of a row counts.
        failed_generation: Whether a generation that failed by itself or was refused counts 0 in every dimension
            (`zero`) or is left out (`exclude`). One that failed for reasons outside the system is always missing.
            With `zero`, its text also counts 0 unless the prompt is known to require no text.
        failed_score: A failed or missing score is left out, and shown in the coverage.
        text_na: What decides that text accuracy does not apply: the prompt (`text_required`) or the judge, per image.
        missing_text: Text accuracy of a group without any text value; None leaves it out and renormalises the weights.
        required_text_na: With `text_na="prompt"`: text accuracy of a score that reports N/A although the prompt
            requires text.
        off_grid: Whether a value that is not in `grid` is accepted or makes the score a failed one. Only scores parsed
            from a reply have a grid; measured scores have none.
        grid: Values that a reply may contain.
        rounding: Number of decimals after every step; None for no rounding.
        empty_group: Whether a group without samples counts as 0 or is left out.
        missing_sample_text: Text accuracy of a scored sample that has none; None leaves it out.
        unknown: Treatment of samples whose category is in no group: left out (`omit`); shown in a separate row and not
            part of the headline (`own_row`); or counted like all others (`count`), for protocols without groups.
        unit: `sample`: repeats and judge repeats are averaged to one value per sample. `slice`: figures are computed
            for each (repeat, judge repeat) and then averaged.
        weights: Weights of the four KnowGen dimensions. Other sets of dimensions have equal weights.
        combination: How values are combined into the headline.
            `mean_of_groups`: in each group the weighted sum of its means, then the mean of the groups.
            `mean_of_samples_by_group`: the weighted mean of each sample over the dimensions that apply to it, then the
            mean in each group, then the mean of the groups.
            `mean_of_samples`: the weighted mean of each sample, then the mean over all samples, without groups.
        min_coverage: Minimum share of the expected scores for a result, in [0, 1]. Samples to which the scorer does
            not apply are not expected to have a score; a failed or refused generation that counts 0 has one.
        below_coverage: Treatment of figures below `min_coverage`: withheld and given as partial (`withhold`), or kept
            with a note that they are partial (`note`).
        judge_attempts: Number of calls to a judge for one score, as long as no reply can be read leniently; 0 for the
            judge's own number.
        not_for_board: Reason why figures of this protocol must not appear on a leaderboard; empty if they may.
    """

    name: str
    version: str
    reading: Literal["strict", "lenient"]
    failed_generation: Literal["zero", "exclude"]
    failed_score: Literal["exclude"] = "exclude"
    text_na: Literal["prompt", "image"]
    missing_text: float | None
    required_text_na: float = 0.0
    off_grid: Literal["accept", "fail"]
    grid: tuple[float, ...] = GRID
    rounding: int | None
    empty_group: Literal["zero", "omit"]
    missing_sample_text: float | None = None
    unknown: Literal["omit", "own_row", "count"]
    unit: Literal["sample", "slice"]
    weights: tuple[float, float, float, float] = KNOWGEN_WEIGHTS
    combination: Literal["mean_of_groups", "mean_of_samples_by_group", "mean_of_samples"] = "mean_of_groups"
    min_coverage: float = MIN_COVERAGE
    below_coverage: Literal["withhold", "note"]
    judge_attempts: int = 0
    not_for_board: str = ""


OFFICIAL = ScoringProtocol(
    name="official",
    version="1",
    reading="lenient",
    failed_generation="exclude",
    text_na="image",
    missing_text=TEXT_IF_NA,
    off_grid="accept",
    rounding=4,
    empty_group="zero",
    unknown="omit",
    unit="slice",
    below_coverage="note",
    judge_attempts=20,
)
"""The published arithmetic, and the 20 tries of its evaluator for a reply that it can read. Sums are plain
additions in row order, like `sum` in Python 3.11."""

STRICT = ScoringProtocol(
    name="strict",
    version="2",
    reading="strict",
    failed_generation="zero",
    text_na="prompt",
    missing_text=None,
    off_grid="fail",
    rounding=None,
    empty_group="omit",
    unknown="own_row",
    unit="sample",
    below_coverage="withhold",
)
"""The default protocol."""

NA_RENORMALISE = STRICT.model_copy(
    update={
        "name": "na-renormalise",
        "combination": "mean_of_samples_by_group",
        "not_for_board": "na-renormalise does not give a K-Score: each sample is weighted over the dimensions that "
        "apply to it",
    }
)
"""Like `strict` except for the combination. A sample without text has the overall (.1 F + .4 V + .1 A) / .6 and weighs
as much as any other. Under `strict`, text accuracy of a group is the mean over the samples that require text: the fewer
they are, the more each of them weighs."""

GENEVOLVE_MICRO = ScoringProtocol(
    name="genevolve-micro",
    version="1",
    reading="lenient",
    failed_generation="exclude",
    text_na="image",
    missing_text=None,
    missing_sample_text=0.5,
    off_grid="accept",
    rounding=None,
    empty_group="omit",
    unknown="count",
    unit="sample",
    combination="mean_of_samples",
    below_coverage="note",
    not_for_board="genevolve-micro does not give a K-Score: it is the mean over all samples without groups, and text "
    "that is not applicable counts .5",
)
"""Arithmetic of the published table of GenEvolve-Bench: the mean over samples of .1 F + .4 V + .4 T + .1 A, with text
.5 where it is N/A. Samples without a score are left out. Its figures cannot be compared with a K-Score."""

PROTOCOLS: Mapping[str, ScoringProtocol] = MappingProxyType(
    {protocol.name: protocol for protocol in (STRICT, OFFICIAL, NA_RENORMALISE, GENEVOLVE_MICRO)}
)


def get_protocol(name: str) -> ScoringProtocol:
    """Return the protocol with a given name.

    Raises:
        UsageError: The name is unknown; a similar name is suggested.

    Example:
        >>> get_protocol("strict").min_coverage
        0.95
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    near = difflib.get_close_matches(name, list(PROTOCOLS), n=1, cutoff=0.5)
    raise UsageError(
        f"unknown protocol {name!r}", fix=f"did you mean {near[0]!r}?" if near else f"known are {', '.join(PROTOCOLS)}"
    )


EXCLUDED = "excluded"
"""What a score counts as that is left out of every figure."""


def counts_as(state: str, protocol: ScoringProtocol) -> str:
    """Return what an expected score without values counts as under a protocol: `0` or `excluded`.

    Args:
        state: One of `knowgen.stats.values.STATES`, not `scored`.
        protocol: Scoring protocol.
    """
    own = state in ("generation_failed", "generation_refused")
    return "0" if own and protocol.failed_generation == "zero" else EXCLUDED


def counting_words(protocol: ScoringProtocol | str) -> str:
    """Return in one line what everything counts as that has no score; the name of an unknown protocol gives no line.

    Example:
        >>> counting_words("official")[:60]
        'counting: a failed or refused generation is left out, as in '
    """
    try:
        rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    except UsageError:
        return ""
    own = "counts 0" if rule.failed_generation == "zero" else "is left out, as in the published arithmetic"
    return (
        f"counting: a failed or refused generation {own}; one that failed for reasons outside the system, and a failed "
        f"or refused score, are missing and left out; below {100 * rule.min_coverage:g} % of the scores a run has no "
        f"{'result' if rule.below_coverage == 'withhold' else 'complete result'}"
    )
