"""A run directory in Python: what was run, its figures, its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from knowgen import outputs
from knowgen.core.errors import UsageError
from knowgen.core.records import Row
from knowgen.core.spec import RunSpec
from knowgen.engine.options import RunOutcome
from knowgen.stats.summary import Summary
from knowgen.store.run import RunStore

if TYPE_CHECKING:
    import pandas as pd

POLICIES = ("strict", "official")


@dataclass
class Run:
    """A run directory and what it says.

    Attributes:
        path: The directory.
        spec: What was run.
        policy: Policy of the headline.
        outcome: What the last call did; None for a run that was only loaded.
    """

    path: Path
    spec: RunSpec
    policy: str = "strict"
    outcome: RunOutcome | None = None
    _cache: dict[tuple[str, str], Summary] = field(default_factory=dict, repr=False)

    @property
    def summary(self) -> Summary:
        """The headline policy under the first scorer."""
        return self.summarise()

    def summarise(self, policy: str | None = None, scorer: str | None = None) -> Summary:
        """Aggregates the run.

        Args:
            policy: strict or official; the headline's when None.
            scorer: Label of a scorer; the first when None.

        Raises:
            UsageError: The run has no such scorer, or there is no such policy.
        """
        wanted, label = policy or self.policy, self.label(scorer)
        if (wanted, label) not in self._cache:
            self._cache[wanted, label] = outputs.summarise(self.path, self.spec, wanted, label, self.cost)
        return self._cache[wanted, label]

    @cached_property
    def cost(self) -> float | None:
        """US dollars spent in the directory; None where a call was paid at an unknown price."""
        return outputs.cost_of(self.path)

    def summaries(self, policies: Sequence[str] = POLICIES) -> tuple[Summary, ...]:
        """Returns a summary per scorer and policy, the headline's first."""
        order = dict.fromkeys((self.policy, *policies)) if policies == POLICIES else policies
        return tuple(self.summarise(policy, scorer.name) for scorer in self.spec.scorers for policy in order)

    def rows(self, scorer: str | None = None) -> list[Row]:
        """Returns what the statistics read, one row a generation and judgement."""
        with RunStore.read(self.path) as store:
            return list(store.rows(self.label(scorer)))

    def to_pandas(self) -> pd.DataFrame:
        """Returns one line a sample, repeat, scorer and judge repeat, with values by dimension (NaN where none)."""
        import pandas as pd

        lines = [
            {
                **row.model_dump(mode="json", exclude={"strict", "lenient"}),
                "scorer": scorer.name,
                "score": row.strict.status.value,
                **{dimension: row.strict.values.get(dimension) for dimension in scorer.dimensions},
                "reason": row.strict.reason,
                "rationale": row.strict.rationale,
            }
            for scorer in self.spec.scorers
            for row in self.rows(scorer.name)
        ]
        return pd.DataFrame(lines)

    def report(self, out: Path | str | None = None) -> Path:
        """Writes the page of this run alone and returns its path."""
        from knowgen.api import write_report

        return write_report([self], Path(out) if out else self.path / "report")

    def label(self, scorer: str | None = None) -> str:
        """Returns the label of a scorer of this run; of the first when None.

        Raises:
            UsageError: The run has no such scorer, or none at all.
        """
        names = [each.name for each in self.spec.scorers]
        if scorer is None:
            if not names:
                raise UsageError("has not been scored", where=str(self.path), fix="`knowgen score RUN --scorer S`")
            return names[0]
        if scorer not in names:
            known = ", ".join(names)
            raise UsageError(f"no scorer {scorer!r} in this run", where=str(self.path), fix=f"it has {known}")
        return scorer


def load_run(path: Path | str) -> Run:
    """Opens a run directory for reading.

    Raises:
        DataError: It is no run directory, or a damaged one.
    """
    with RunStore.read(Path(path)) as store:
        return Run(Path(path), store.spec)
