"""The published data sets that `knowgen task prepare` knows.

The number of rows, the names of archives and the layout of images are not recorded here: `prepare` finds them out from
the files. Nor is a commit: the first `prepare` resolves the given revision (default `main`) to a commit, downloads
exactly that commit and records its hash in the index of the prepared folder. Later uses refer to that commit, until
another one is prepared.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from knowgen.core.errors import UsageError

DEFAULT_REVISION = "main"


class DataSetKind(StrEnum):
    """Kind of the rows of a data set."""

    BENCHMARK = "benchmark"
    SFT = "sft"
    RL = "rl"


@dataclass(frozen=True)
class PublishedDataSet:
    """A published data set.

    Attributes:
        name: Name on the command line and in Python.
        kind: Kind of its rows.
        repo: Dataset repository on the hub.
        file: JSON array of rows in the repository, beside archives of images.
        about: Short description.
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
            "the KnowGen benchmark: prompts with ground-truth images",
        ),
        PublishedDataSet(
            "gen_searcher_sft", DataSetKind.SFT, "GenSearcher/Train-Data", "sft_data.json",
            "conversations to fine-tune the agent on",
        ),
        PublishedDataSet(
            "gen_searcher_rl", DataSetKind.RL, "GenSearcher/Train-Data", "rl_data.json",
            "prompts with ground-truth images to train the agent on with rewards",
        ),
    )
}  # fmt: skip
"""Data sets by name."""


def data_set(name: str) -> PublishedDataSet:
    """Return a data set of the catalog.

    Raises:
        UsageError: The name is unknown.

    Example:
        >>> data_set("knowgen").repo
        'GenSearcher/KnowGen-Bench'
    """
    if name in CATALOG:
        return CATALOG[name]
    import difflib

    near = difflib.get_close_matches(name, list(CATALOG), n=1)
    known = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(CATALOG)}"
    raise UsageError(f"unknown data set {name!r}", fix=known)
