"""The published data sets that can be prepared here, and what is known of each.

The hub's files were described to us and could not be looked into, so nothing is said here of numbers of rows, of the
archives' names or of how pictures lie in them: all of that is found out when a data set is prepared. Nor is a commit
written down. It is pinned on this machine instead: the first `prepare` resolves the revision it is given (`main`
unless `--revision` says otherwise) to a commit, downloads exactly that commit and writes its hash into the index of
the prepared folder; every later use is of that commit, until somebody prepares another.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from knowgen.core.errors import UsageError

DEFAULT_REVISION = "main"


class DataSetKind(StrEnum):
    """What the rows of a data set are."""

    BENCHMARK = "benchmark"
    SFT = "sft"
    RL = "rl"


@dataclass(frozen=True)
class PublishedDataSet:
    """A published data set.

    Attributes:
        name: As users call it.
        kind: What its rows are.
        repo: Dataset repository on the hub.
        file: The JSON array of rows in it; archives of pictures lie beside it.
        about: What it is, in a few words.
    """

    name: str
    kind: DataSetKind
    repo: str
    file: str
    about: str


CATALOG = {
    each.name: each
    for each in (
        PublishedDataSet(
            "knowgen", DataSetKind.BENCHMARK, "GenSearcher/KnowGen-Bench", "KnowGen-Bench.json",
            "the KnowGen benchmark: prompts with ground-truth pictures",
        ),
        PublishedDataSet(
            "gen_searcher_sft", DataSetKind.SFT, "GenSearcher/Train-Data", "sft_data.json",
            "conversations to fine-tune the agent on",
        ),
        PublishedDataSet(
            "gen_searcher_rl", DataSetKind.RL, "GenSearcher/Train-Data", "rl_data.json",
            "prompts with ground-truth pictures to train the agent on with rewards",
        ),
    )
}  # fmt: skip
"""By name."""


def data_set(name: str) -> PublishedDataSet:
    """Returns a data set of the catalog.

    Raises:
        UsageError: There is none of that name.
    """
    if name in CATALOG:
        return CATALOG[name]
    import difflib

    near = difflib.get_close_matches(name, list(CATALOG), n=1)
    known = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(CATALOG)}"
    raise UsageError(f"no data set {name!r} can be prepared", fix=known)
