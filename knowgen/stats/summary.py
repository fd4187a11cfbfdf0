"""The summary of a run: every figure with its interval, its count and its coverage. What reports and boards read."""

from __future__ import annotations

from knowgen.core.records import Record

OVERALL = "overall"


class Figure(Record):
    """A number that says how sure it is.

    Attributes:
        value: In [0, 1]; None where there is nothing to average, or too little of it for a result.
        low: Lower end of the 95 % interval, None where none is given.
        high: Upper end.
        n: Samples it rests on.
        note: Why there is no value or no interval ("n too small").
        partial: The mean over what was scored, where too few scores are there for a value; not a result.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    note: str = ""
    partial: float | None = None


class Coverage(Record):
    """What became of every expected judgement; the counts below `expected` add up to it.

    Attributes:
        expected: Samples x repeats x judge repeats.
        scored: Judged under the protocol's reading.
        generation_failed: The drawing failed.
        generation_refused: The drawing was refused.
        generation_not_run: There is no drawing yet.
        judgement_failed: Drawn, but the judgement failed.
        judgement_not_run: Drawn, but not judged yet.
        not_applicable: Drawn, but the scorer lacks what it needs.
        judged_text: Judgements with a value for text accuracy.
    """

    expected: int = 0
    scored: int = 0
    generation_failed: int = 0
    generation_refused: int = 0
    generation_not_run: int = 0
    judgement_failed: int = 0
    judgement_not_run: int = 0
    not_applicable: int = 0
    judged_text: int = 0


class Slice(Record):
    """Figures over a part of the samples.

    Attributes:
        kind: all, group, category, difficulty, or judge where more than one judge model answered.
        name: The part, such as `science_and_knowledge`; empty for all.
        samples: Samples in it.
        figures: By dimension, and `overall`.
        coverage: Of this part.
    """

    kind: str
    name: str = ""
    samples: int = 0
    figures: dict[str, Figure]
    coverage: Coverage = Coverage()


class Summary(Record):
    """All figures of one run under one scorer and one protocol.

    Attributes:
        system: The generator's name, as tables show it.
        task: Name of the task.
        task_version: Its version.
        scorer: Label of the scorer.
        scorer_version: Version of its rubric, arithmetic and parser.
        scorer_note: What tables say beside its figures.
        judges: Model names the judge's endpoint returned; more than one is warned of.
        protocol: Name of the protocol.
        protocol_version: Version of its arithmetic.
        selection: Which samples, such as `all 48`.
        repeats: Pictures a sample.
        judge_repeats: Judgements a picture.
        dimensions: In the order of the table.
        slices: The whole first, then groups, categories, difficulties.
        no_result: Why there is no result, such as `43 of 48 scores failed`: too few scores are there. Empty where there
            are enough. The figures are then partial, or under published arithmetic given as it has them.
        fit_for_board: False where a reason in `notes` forbids it.
        notes: What a reader must know: N/A per image, an empty group, unknown categories, moved models.
        cost: US dollars spent on generation and judgement; None where a price is not known.
        seconds: Wall time of the run, None when unknown.
    """

    system: str = ""
    task: str = ""
    task_version: str = ""
    scorer: str = ""
    scorer_version: str = ""
    scorer_note: str = ""
    judges: tuple[str, ...] = ()
    protocol: str
    protocol_version: str = ""
    selection: str = ""
    repeats: int = 1
    judge_repeats: int = 1
    dimensions: tuple[str, ...]
    slices: tuple[Slice, ...]
    no_result: str = ""
    fit_for_board: bool = True
    notes: tuple[str, ...] = ()
    cost: float | None = None
    seconds: float | None = None

    def slice(self, kind: str = "all", name: str = "") -> Slice:
        """Returns one part.

        Raises:
            KeyError: There is no such part.
        """
        for part in self.slices:
            if part.kind == kind and part.name == name:
                return part
        raise KeyError(f"{kind} {name}".strip())

    @property
    def headline(self) -> Figure:
        """The K-Score: `overall` of the whole. Below the protocol's coverage it has no value, and its note says why.

        The published arithmetic of `official` keeps its value; `no_result` tells.
        """
        return self.slice().figures[OVERALL]
