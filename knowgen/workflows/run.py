"""A run directory in Python: specification, summaries and rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from knowgen.core.errors import UsageError
from knowgen.core.garbage import rare_collection
from knowgen.core.records import Generation, Row
from knowgen.core.spec import RunSpec
from knowgen.engine.options import RunOutcome
from knowgen.stats.summary import Summary
from knowgen.store.run import RunStore
from knowgen.workflows import artifacts
from knowgen.workflows.artifacts import OneFile
from knowgen.workflows.image_notes import image_notes

if TYPE_CHECKING:
    import pandas as pd

    from knowgen.report.output import ImageChoice
    from knowgen.stats.agent_figures import AgentFigures

PROTOCOLS = ("strict", "official")
"""Scoring protocols that every run is summarised under."""


@dataclass
class Run:
    """A run directory.

    Attributes:
        path: The directory.
        spec: Specification of the run.
        protocol: Scoring protocol of the headline.
        outcome: Counts and costs of the last call; None for a run that was only loaded.
    """

    path: Path
    spec: RunSpec
    protocol: str = "strict"
    outcome: RunOutcome | None = None
    _cache: dict[tuple[str, str], Summary] = field(default_factory=dict, repr=False)

    @property
    def summary(self) -> Summary:
        """Summary of the first scorer under the headline protocol."""
        return self.summarise()

    def summarise(self, protocol: str | None = None, scorer: str | None = None) -> Summary:
        """Aggregate the run.

        Args:
            protocol: Name of a scoring protocol; the headline's when None.
            scorer: Name of a scorer; the first when None.

        Raises:
            UsageError: The scorer or protocol is unknown.
        """
        return self._summaries_of(self.label(scorer), [protocol or self.protocol])[0]

    def _summaries_of(self, scorer: str, protocols: Iterable[str]) -> list[Summary]:
        """Return the summaries of one scorer; the results are read once for all that are missing."""
        wanted = list(protocols)
        missing = [name for name in wanted if (name, scorer) not in self._cache]
        if missing:
            made = artifacts.summarise(self.path, self.spec, missing, scorer, self.cost)
            for name, summary in zip(missing, made, strict=True):
                noted = summary.model_copy(update={"notes": (*summary.notes, *self._image_notes)})
                self._cache[name, scorer] = noted
        return [self._cache[name, scorer] for name in wanted]

    @cached_property
    def cost(self) -> float | None:
        """US dollars spent in the directory; None where a call was paid at an unknown price."""
        return artifacts.cost_of(self.path)

    @cached_property
    def agent_figures(self) -> AgentFigures | None:
        """What the agent did over all samples; None without an agent."""
        with RunStore.read(self.path) as store:
            figures = artifacts.figures_of_agent(store)
        return figures[0] if figures else None

    @cached_property
    def _image_notes(self) -> tuple[str, ...]:
        with RunStore.read(self.path) as store:
            return image_notes(store)

    def summaries(self, protocols: Sequence[str] = PROTOCOLS) -> tuple[Summary, ...]:
        """Return a summary per scorer and protocol, the headline's first."""
        order = dict.fromkeys((self.protocol, *protocols)) if protocols == PROTOCOLS else protocols
        return tuple(summary for scorer in self.spec.scorers for summary in self._summaries_of(scorer.name, order))

    def rows(self, scorer: str | None = None) -> list[Row]:
        """Return the rows that the statistics read, one per generation and score."""
        with RunStore.read(self.path) as store:
            return list(store.rows(self.label(scorer)))

    def generations(self) -> list[Generation]:
        """Return the current generations, in the order of the samples; those that failed included."""
        with RunStore.read(self.path) as store:
            return [generation for _, generation in store.generations()]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per sample, repeat, scorer and judge repeat: the columns of `knowgen export --format csv`.

        They include system, prompt, cost, what each score counts as, the K-Score of the sample (`overall`) and the
        dimensions under `strict`. Missing values are NaN.
        """
        import pandas as pd

        from knowgen.interchange.table_export import columns_of, flat_rows

        names = [scorer.name for scorer in self.spec.scorers]
        with RunStore.read(self.path) as store:
            rows = [row for name in names for row in flat_rows(store, name)]
            return pd.DataFrame(rows, columns=list(columns_of(store, names)))

    def report(self, out: Path | str | None = None) -> Path:
        """Write the page of this run alone and return its path."""
        return write_report([self], Path(out) if out else self.path / "report")

    @rare_collection()
    def write_outputs(self) -> None:
        """Write summary.json, the tables and the page into the run directory."""
        artifacts.write(self.path, self.spec, self.summaries())
        self.report()

    def label(self, scorer: str | None = None) -> str:
        """Return the name of a scorer of this run; of the first when None.

        Raises:
            UsageError: The run has no such scorer, or none at all.
        """
        names = [each.name for each in self.spec.scorers]
        if scorer is None:
            if not names:
                raise UsageError(
                    "has not been scored", where=str(self.path), fix="score it with `knowgen score RUN --scorer S`"
                )
            return names[0]
        if scorer not in names:
            known = ", ".join(names)
            raise UsageError(f"no scorer {scorer!r} in this run", where=str(self.path), fix=f"it has {known}")
        return scorer


def load_run(path: Path | str) -> Run:
    """Open a run directory for reading.

    Raises:
        DataError: It is not a run directory, or is damaged.
    """
    with RunStore.read(Path(path)) as store:
        return Run(Path(path), store.spec)


@rare_collection()
def write_report(
    runs: Sequence[Run],
    out: Path,
    *,
    single_file: bool = False,
    images: ImageChoice = "small",
    samples: int | None = None,
) -> Path:
    """Write one page of several runs and return the path of its `index.html`, or of its only file.

    Args:
        runs: The runs, in the order of the page.
        out: Folder of the page; with `single_file`, a file with the ending .html.
        single_file: Write everything into one file, which can be sent or kept alone.
        images: Images of a single file: `small`, reduced to 512 pixels, or `none`.
        samples: Maximum number of samples of a single file, the first of the task; all when None.

    Raises:
        UsageError: No run was given, a run has not been scored, or the file has another ending.
        ConfigError: The folder contains something other than a report, or the file is another one.
    """
    names = artifacts.distinct_names([(run.path, run.spec.system) for run in runs])
    pages = [
        (run.path, [each.model_copy(update={"system": name}) for each in run.summaries()])
        for run, name in zip(runs, names, strict=True)
    ]
    return artifacts.write_page(pages, out, OneFile(images, samples) if single_file else None)
