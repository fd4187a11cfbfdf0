"""Protocols as data: a protocol says how judgements become figures, and `aggregate` does as it says.

`official` is the published arithmetic (Gen-Searcher, arXiv 2603.28767, and its evaluator) to the last digit, faults
included. `strict` is the default headline and mends those faults. Nothing else in the package decides such a question.
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
"""The values a KnowGen judge may give."""

MIN_COVERAGE = 0.95
"""Smallest share of the expected scores that a result may rest on: with fewer, the samples that happened to be scored
decide the figure. Published protocols have no such bound; here none of them is eligible for a board below it."""


class ScoringProtocol(Record):
    """How judgements become figures.

    Attributes:
        name: As users write it.
        version: Raised when a change to the arithmetic can change a figure.
        reading: Which reading of a judgement counts.
        failed_generation: A failed or refused drawing counts 0 in every dimension, or is left out. Its text counts 0
            too, unless the prompt is known to need none.
        failed_judgement: A failed or missing judgement is left out, and shown in the coverage.
        text_na: Who decides that text accuracy does not apply: the prompt (`text_required`) or the judge, per image.
        missing_text: Text accuracy of a group without any text value; None leaves it out and renormalises the weights.
        required_text_na: With `text_na` prompt: what text counts where the prompt requires it and the judge found
            none to judge.
        off_grid: Is a value that is not on `grid` accepted, or is its judgement a failed one? Only judgements that were
            parsed from a reply have a grid; a measure has none.
        grid: Values a reply may hold.
        rounding: Decimals after every step, None for no rounding.
        empty_group: Does a group without samples count as 0, or is it left out?
        missing_sample_text: What text accuracy counts for one sample that was judged and has none; None leaves it out.
        unknown: A category that is in no group is left out; or gets a row of its own, the headline being without it; or
            counts like any other, where groups do not make the headline.
        unit: What repeats and judge repeats become: one value a sample, or slices that are computed one by one and
            then averaged.
        weights: Of the four KnowGen dimensions. Other sets of dimensions weigh the same each.
        combination: How values make the headline.
            `mean_of_groups`: in each group the weighted sum of its means, then the mean of the groups.
            `mean_of_samples_by_group`: the weighted mean of each sample over the dimensions that apply to it, then the
            mean in each group, then the mean of the groups.
            `mean_of_samples`: the weighted mean of each sample, then the mean over all samples; there are no groups.
        min_coverage: Smallest share of the expected scores, in [0, 1], for a result; below it there is no eligibility.
            Samples that the scorer does not apply to are not expected to carry a score; a failed or refused generation
            that counts 0 does carry one.
        below_coverage: What becomes of the figures below `min_coverage`: they are withheld, and given as partial; or
            given as the published arithmetic has them, with a note that they are partial.
        not_for_board: Why no figure under it may stand on a board; empty where it may.
    """

    name: str
    version: str
    reading: Literal["strict", "lenient"]
    failed_generation: Literal["zero", "exclude"]
    failed_judgement: Literal["exclude"] = "exclude"
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
    not_for_board: str = ""


OFFICIAL = ScoringProtocol(
    name="official",
    version="1",
    reading="lenient",
    failed_generation="exclude",
    text_na="image",
    missing_text=0.5,
    off_grid="accept",
    rounding=4,
    empty_group="zero",
    unknown="omit",
    unit="slice",
    below_coverage="note",
)
"""The published arithmetic. Sums are plain additions in row order, as Python 3.11's `sum` makes them."""

STRICT = ScoringProtocol(
    name="strict",
    version="1",
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
"""The default headline."""

NA_RENORMALISE = STRICT.model_copy(
    update={
        "name": "na-renormalise",
        "combination": "mean_of_samples_by_group",
        "not_for_board": "na-renormalise is no K-Score: each sample is weighed over the dimensions that apply to it",
    }
)
"""`strict` in everything but the combination. A sample without text has overall (.1 F + .4 V + .1 A) / .6, so that its
drawing weighs as much as any other's; under `strict` the text of a group is the mean of those samples that need some,
and each of them weighs the more, the fewer they are."""

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
    not_for_board="genevolve-micro is no K-Score: the mean over all samples, whatever their group, with text .5 where "
    "it is not applicable",
)
"""As the published table of GenEvolve-Bench is made: the mean over samples of .1 F + .4 V + .4 T + .1 A with text .5
where it is N/A. What was not judged is left out. Its figures cannot be compared with a K-Score."""

PROTOCOLS: Mapping[str, ScoringProtocol] = MappingProxyType(
    {protocol.name: protocol for protocol in (STRICT, OFFICIAL, NA_RENORMALISE, GENEVOLVE_MICRO)}
)


def get_protocol(name: str) -> ScoringProtocol:
    """Returns the protocol of a name.

    Raises:
        UsageError: There is no such protocol; a near name is suggested.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    near = difflib.get_close_matches(name, list(PROTOCOLS), n=1, cutoff=0.5)
    raise UsageError(
        f"unknown protocol {name!r}", fix=f"did you mean {near[0]!r}?" if near else f"known are {', '.join(PROTOCOLS)}"
    )
