"""All figures of a board as CSV and JSON files, with a README that describes every column.

The same board gives the same bytes on every machine: rows have a fixed order, numbers are rounded to 10 decimals and
written as Python's `repr` writes them, and nothing depends on the day, the locale or the folder.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.errors import DataError
from knowgen.core.records import group_of
from knowgen.core.text import clean_text, count, csv_cell, one_line
from knowgen.leaderboards.figures import BoardFigures, BoardSystem, PairDifference, RankRange, board_protocol
from knowgen.leaderboards.folder import SAMPLES_FILE
from knowgen.leaderboards.published import PublishedRows, read_published
from knowgen.leaderboards.samples import sample_outcomes
from knowgen.stats.intervals import DECIMALS
from knowgen.stats.summary import OVERALL

README = "README.md"
SYSTEMS_FOLDER = "systems"
"""Folder of the files with the samples of each system."""

Cell = str | float | int | bool | None
"""Value of a column: text, number, yes or no; None where it is missing."""


@dataclass(frozen=True)
class Column:
    """A column of a table, and what it means, with its unit and range."""

    name: str
    meaning: str


@dataclass(frozen=True)
class ExportTable:
    """A table of an export, which is written as `<name>.csv` and `<name>.json`.

    Attributes:
        name: Path below the folder of the export, without an ending.
        title: What it contains, in one sentence.
        columns: Its columns.
        rows: Its rows, in order; read once.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: Iterable[Sequence[Cell]]


@dataclass(frozen=True)
class ExportFile:
    """A file of an export.

    Attributes:
        path: Path below the folder of the export.
        title: What it contains, in one sentence.
        size: Size in bytes.
    """

    path: str
    title: str
    size: int


def write_exports(figures: BoardFigures, folder: Path) -> tuple[ExportFile, ...]:
    """Write everything that is known of a board to a folder, and return the files, README first.

    The tables are `board`, `parts`, `pairs`, `pairs_group`, `pairs_category`, `pairs_difficulty`, `samples` once the
    task is pinned, `published` if there are published rows, and `systems/<system>` for each system. Submissions are
    read one after the other, and rows are written as they are computed, so that memory does not grow with the number of
    systems.

    Args:
        figures: The figures of the board.
        folder: Folder to write to; it is created. Files in it are replaced.

    Raises:
        DataError: A file of the board is missing or not valid, or a file cannot be written.
    """
    try:
        (folder / SYSTEMS_FOLDER).mkdir(parents=True, exist_ok=True)
        written: list[ExportFile] = []
        described: dict[str, ExportTable] = {}
        for table in _tables(figures):
            written += _write(table, folder)
            described.setdefault(_described_name(table), table)
        text = _readme(figures, described)
        (folder / README).write_text(clean_text(text), encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}", where=str(folder)) from error
    readme = ExportFile(README, "What every file and column means.", (folder / README).stat().st_size)
    return (readme, *written)


def _described_name(table: ExportTable) -> str:
    return f"{SYSTEMS_FOLDER}/<system>" if table.name.startswith(f"{SYSTEMS_FOLDER}/") else table.name


# ------------------------------------------------------------------------------------------------------------- writing


def _write(table: ExportTable, folder: Path) -> Iterator[ExportFile]:
    """Write a table in both forms, row by row."""
    paths = [folder / f"{table.name}.{ending}" for ending in ("csv", "json")]
    names = [column.name for column in table.columns]
    with (
        paths[0].open("w", encoding="utf-8", newline="") as csv_file,
        paths[1].open("w", encoding="utf-8", newline="") as json_file,
    ):
        writer = csv.writer(csv_file, lineterminator="\n")
        writer.writerow(names)
        json_file.write(f'{{"columns":{_json(names)},"rows":[')
        before = "\n"
        for row in table.rows:
            if len(row) != len(names):
                raise ValueError(f"a row of {table.name} has {len(row)} cells instead of {len(names)}")
            cells = [_plain(cell) for cell in row]
            writer.writerow([_csv(cell) for cell in cells])
            json_file.write(f"{before}{_json(cells)}")
            before = ",\n"
        json_file.write("\n]}\n")
    for path in paths:
        yield ExportFile(path.relative_to(folder).as_posix(), table.title, path.stat().st_size)


def _plain(cell: Cell) -> Cell:
    """Return a cell whose number is rounded and has no negative zero, and whose text can be stored as UTF-8."""
    if isinstance(cell, float):
        return round(cell, DECIMALS) + 0.0
    return clean_text(cell) if isinstance(cell, str) else cell


def _csv(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return csv_cell(cell) if isinstance(cell, str) else repr(cell)


def _json(value: Sequence[Cell]) -> str:
    return json.dumps(list(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


# -------------------------------------------------------------------------------------------------------------- tables


def _tables(figures: BoardFigures) -> Iterator[ExportTable]:
    published = read_published(figures.board)
    yield _board_table(figures)
    yield _parts_table(figures)
    yield _pairs_table(figures)
    for kind in ("group", "category", "difficulty"):
        yield _part_pairs_table(figures, kind)
    if _has_samples(figures):
        yield _samples_table(figures)
    if published is not None:
        yield _published_table(published)
    for system in figures.systems:
        yield _system_table(figures, system)


_FIGURE = (
    Column("value", "the figure, in [0, 1]; empty without a result"),
    Column("low", "lower end of its 95 % interval; empty without an interval"),
    Column("high", "upper end of the interval"),
    Column("n", "number of samples that it is computed from"),
    Column("note", "reason for a missing value or interval"),
)

_RANKS = (
    Column("rank_best", "best rank that it may have: 1 + the number of systems that are better; empty without one"),
    Column("rank_worst", "worst rank that it may have, the number of ranked systems minus those that are worse"),
)

_DIFFERENCE = (
    Column("a", "first system, by its folder; it is ranked before b on the whole board"),
    Column("b", "second system, by its folder"),
    Column("difference", "figure of b minus figure of a over the samples for which both have a score, in [-1, 1]"),
    Column("low", "lower end of its 95 % interval; empty without an interval"),
    Column("high", "upper end of the interval"),
    Column("p", "two-sided p-value, rounded to 10 decimals; empty without a test"),
    Column("p_corrected", "the same, corrected for all pairs of the table with the same figure and part"),
    Column("test", "`t`: paired t-test, which belongs to the interval; `sign`: exact sign test, where the differences "
           "vary too little for an interval; empty without a test"),
    Column("n", "number of samples that both have"),
    Column("note", "reason for a missing value or interval"),
)  # fmt: skip


def _board_table(figures: BoardFigures) -> ExportTable:
    names = _figure_names(figures)
    columns = [
        Column("system", "folder of the system, its identifier"),
        Column("revision", "its current revision"),
        Column("name", "its name"),
        Column("kind", "`image_model`, `agent` or `baseline`"),
        *_RANKS,
    ]
    for name in names:
        columns += [
            Column(f"{name}", f"{_words(name)} of the whole, in [0, 1]; empty without a result"),
            Column(f"{name}_low", "lower end of its 95 % interval"),
            Column(f"{name}_high", "upper end of the interval"),
            Column(f"{name}_n", "number of samples that it is computed from"),
        ]
    columns += [
        Column("no_result", "reason for having no result; empty if there is one"),
        Column("expected", "number of expected scores"),
        Column("scored", "number of scores with values"),
        Column("cost_per_image", "US dollars for each image, agent and image model; empty if unknown"),
        Column("seconds_per_image", "median seconds for each image; empty if unknown"),
        Column("judges", "model names that the judge's endpoint returned"),
        Column("open_weights", "whether the weights can be downloaded"),
        Column("search", "whether the system searches"),
        Column("parameters", "number of parameters, in the submitter's words"),
        Column("licence", "licence of weights or service"),
        Column("authors", "names of the authors"),
        Column("links", "title and address of each link"),
    ]
    rows = (_board_row(system, names) for system in figures.systems)
    return ExportTable("board", "All systems with their figures and ranks.", tuple(columns), rows)


def _board_row(system: BoardSystem, names: Sequence[str]) -> list[Cell]:
    file, whole = system.submission.system, system.summary.slice()
    row: list[Cell] = [system.submission.slug, system.submission.revision, file.name, file.kind, *_ranks(system.rank)]
    for name in names:
        figure = whole.figures[name]
        row += [figure.value, figure.low, figure.high, figure.n]
    row += [
        system.summary.no_result,
        whole.coverage.expected,
        whole.coverage.scored,
        system.cost,
        system.seconds,
        "; ".join(system.summary.judges),
        file.open_weights,
        file.search,
        file.parameters,
        file.licence,
        "; ".join(file.authors),
        "; ".join(f"{link.title}: {link.url}" for link in file.links),
    ]
    return row


def _parts_table(figures: BoardFigures) -> ExportTable:
    ranking = figures.board.file.ranking
    columns = (
        Column("kind", "`all`, `group`, `category` or `difficulty`"),
        Column("part", "name of the part; empty for all"),
        Column("system", "folder of the system"),
        Column("figure", "`overall` or a dimension"),
        *_FIGURE,
        Column("rank_best", f"best rank that the system may have on the part, for the figure `{ranking}` only"),
        Column("rank_worst", "worst rank that it may have"),
    )

    def rows() -> Iterator[list[Cell]]:
        for (kind, part), ranked in figures.parts.items():
            for system in figures.systems:
                found = [one for one in system.summary.slices if (one.kind, one.name) == (kind, part)]
                for name, figure in ((name, one.figures[name]) for one in found for name in _figure_names(figures)):
                    rank = ranked.ranks.get(system.submission.slug) if name == ranking else None
                    cells = (figure.value, figure.low, figure.high, figure.n, figure.note)
                    yield [kind, part, system.submission.slug, name, *cells, *_ranks(rank)]

    return ExportTable("parts", "Figures of each system on each part of the samples.", columns, rows())


def _pairs_table(figures: BoardFigures) -> ExportTable:
    def rows() -> Iterator[list[Cell]]:
        for name in _figure_names(figures):
            for key, pair in figures.by_figure[name].items():
                yield [name, *key, *_difference(pair)]

    columns = (Column("figure", "`overall` or a dimension"), *_DIFFERENCE)
    return ExportTable("pairs", "Paired difference of each figure for each two systems.", columns, rows())


def _part_pairs_table(figures: BoardFigures, kind: str) -> ExportTable:
    def rows() -> Iterator[list[Cell]]:
        for (own, part), found in figures.parts.items():
            if own == kind:
                for key, pair in found.pairs.items():
                    yield [part, *key, *_difference(pair)]

    title = f"Paired difference of the ranking figure for each two systems, by {kind}."
    return ExportTable(f"pairs_{kind}", title, (Column("part", f"name of the {kind}"), *_DIFFERENCE), rows())


def _samples_table(figures: BoardFigures) -> ExportTable:
    columns = (
        Column("sample", "id of the sample"),
        Column("category", "its category"),
        Column("group", "group of its category"),
        Column("difficulty", "its difficulty"),
        Column("text_required", "whether the prompt asks for written text; empty if the task does not say"),
        Column("prompt", "its prompt"),
    )
    rows = (
        (one.id, one.category, group_of(one.category), one.difficulty, one.text_required, one.prompt)
        for one in figures.board.samples
    )
    return ExportTable("samples", "The samples of the board, in the order of the task.", columns, rows)


def _system_table(figures: BoardFigures, system: BoardSystem) -> ExportTable:
    dimensions = figures.board.file.scorer.dimensions
    columns = (
        Column("sample", "id of the sample"),
        Column("state", "`scored` if it has any score, otherwise why it has none"),
        Column("missing", "number of expected scores without values"),
        Column(OVERALL, "what the sample counts as, in [0, 1]: the weighted mean of its dimensions; empty if left out"),
        *(Column(name, f"{_words(name)}, in [0, 1]; empty if it does not apply or is left out") for name in dimensions),
        Column("images", "number of its images"),
        Column("cost_per_image", "US dollars for each image; empty if unknown"),
        Column("seconds_per_image", "mean seconds for each image; empty if unknown"),
        Column("image_sha256", "SHA-256 hex digests of the image files"),
        Column("reason", "first reason why an image or a score is missing"),
        Column("rationale", "explanations of the scores"),
    )

    def rows() -> Iterator[list[Cell]]:
        for one in sample_outcomes(system.submission, figures.board, board_protocol(figures.board)):
            digests = " ".join(image.sha256 for image in one.images)
            values = [one.sample, one.state, one.missing, one.overall, *one.values, len(one.images)]
            yield [*values, one.cost, one.seconds, digests, one.reason, "\n\n".join(one.rationales)]

    name = f"{SYSTEMS_FOLDER}/{system.submission.slug}"
    return ExportTable(name, f"Samples of {one_line(system.submission.system.name)}.", columns, rows())


def _published_table(published: PublishedRows) -> ExportTable:
    columns = (
        Column("system", "name of the system, as published"),
        Column("kind", "its kind, in the words of the source"),
        *(Column(name, "number from 0 to 100, as published") for name in published.columns),
    )
    rows = ((row.system, row.kind, *(row.values[name] for name in published.columns)) for row in published.rows)
    return ExportTable("published", "Rows that were published elsewhere: as published, not checked.", columns, rows)


def _has_samples(figures: BoardFigures) -> bool:
    """Return whether the board has its samples, which it needs as soon as it has a system."""
    return bool(figures.systems) or (figures.board.path / SAMPLES_FILE).exists()


def _figure_names(figures: BoardFigures) -> tuple[str, ...]:
    return (OVERALL, *figures.board.file.scorer.dimensions)


def _ranks(rank: RankRange | None) -> tuple[Cell, Cell]:
    return (None, None) if rank is None else (rank.best, rank.worst)


def _difference(pair: PairDifference) -> list[Cell]:
    interval = [pair.value, pair.low, pair.high]
    return [*interval, pair.p, pair.p_corrected, pair.test, pair.n, pair.note]


def _words(name: str) -> str:
    return name.replace("_", " ")


# -------------------------------------------------------------------------------------------------------------- README


def _readme(figures: BoardFigures, tables: dict[str, ExportTable]) -> str:
    file = figures.board.file
    correction = "corrected by Holm's method for all pairs" if file.ties.correction == "holm" else "not corrected"
    ranked = sum(system.rank is not None for system in figures.systems)
    samples = count(len(figures.board.samples), "sample") if _has_samples(figures) else "its task is not pinned yet"
    lines = [
        f"# Data of the board {_cell(figures.board.name)}",
        "",
        f"{_cell(file.title)}: task {_cell(file.task.name)} {_cell(file.task.version or '')}, scorer "
        f"{_cell(file.scorer.name)}, protocol {file.protocol} (version {_cell(file.protocol_version)}). "
        f"{count(len(figures.systems), 'system')}, {ranked} of them with a result; {samples}.",
        "",
        f"Systems are ranked by `{file.ranking}`. Two systems count as different if the p-value of their paired "
        f"difference, {correction}, is at most {file.ties.level!r}. A rank range says which ranks a system may have: "
        f"systems that do not differ share ranks.",
        "",
        "Each table is there as CSV and as JSON. CSV: UTF-8, commas, a line feed at the end of each line; a text that "
        "a spreadsheet could take for a formula has an apostrophe before it. JSON: an object with the names of the "
        "`columns` and the `rows` as lists, which pandas reads with "
        '`pandas.DataFrame(**{"columns": data["columns"], "data": data["rows"]})`. Numbers are rounded to 10 decimals. '
        "An empty cell, null in JSON, is a missing value and never a zero.",
    ]
    for name, table in tables.items():
        title = "Samples of one system, in the order of the board." if name.endswith("<system>") else table.title
        lines += ["", f"## {name}", "", title, "", "| column | meaning |", "|---|---|"]
        lines += [f"| {_cell(column.name)} | {column.meaning} |" for column in table.columns]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return a text in one line of Markdown, as code, which has no markup."""
    return f"`{one_line(text).replace('`', chr(39)).replace('|', '/')}`" if text else ""
