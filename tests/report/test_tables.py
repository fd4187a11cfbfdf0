"""Tables equal the summaries they are computed from, and hostile names in them are harmless."""

from __future__ import annotations

import csv
import io
import re
from typing import Any, Literal

import pytest

from knowgen.core.records import DIMENSIONS, ParsedScore, Row, group_of
from knowgen.report import tables
from knowgen.report.text_table import TextTable, markdown_text, terminal_text, visible, width
from knowgen.stats.aggregate import aggregate
from knowgen.stats.compare.records import Comparison
from knowgen.stats.compare.systems import compare
from knowgen.stats.summary import Summary
from tests.helpers.processes import run_python

CATEGORIES = ("physics", "news", "art", "film")
LABELS: dict[str, Any] = {
    "task": "knowgen_mini",
    "task_version": "1-abc123",
    "scorer": "world_check",
    "scorer_note": "world check, not a VLM judge",
    "selection": "all 48",
}
NASTY = 'a|b\n\x1b[31m<script>alert(1)</script> `x` [y](javascript:z) \u202e _em_ "q"'


def some_rows(level: float, *, failed: int = 0, size: int = 48, judge: str = "") -> list[Row]:
    rows = []
    for index in range(size):
        category = CATEGORIES[index % 4]
        values = dict.fromkeys(DIMENSIONS, min(1.0, level + (index // 4 % 2) * 0.25))
        rows.append(
            Row(
                sample_id=f"s{index:02}",
                category=category,
                group=group_of(category),
                difficulty=("easy", "hard")[index % 2],
                text_required=True,
                generation="failed" if index < failed else "ok",
                strict=ParsedScore(status="ok", values=values),
                judge_returned=judge,
            )
        )
    return rows


def summary(system: str, level: float, **fields: Any) -> Summary:
    labels = {**LABELS, **{name: value for name, value in fields.items() if name not in {"failed", "judge"}}}
    rows = some_rows(level, failed=fields.get("failed", 0), judge=fields.get("judge", ""))
    return aggregate(rows, labels.pop("protocol", "strict"), system=system, **labels)


def columns(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


def markdown_cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_best_system_comes_first_and_one_without_a_score_last() -> None:
    nothing = aggregate([], system="aaa", **LABELS)
    text = tables.terminal([summary("weak", 0.25), nothing, summary("strong", 0.75), summary("also weak", 0.25)])
    assert [columns(line)[0] for line in text.splitlines()[2:6]] == ["strong", "also weak", "weak", "aaa"]


def test_a_row_equals_its_summary() -> None:
    one = summary("open_book", 0.5, failed=2, cost=1.25, seconds=200.0)
    lines = tables.terminal([one]).splitlines()
    assert columns(lines[0]) == ["system", "K-Score", *"FVTA", "n", "coverage", "failed", "cost", "time"]
    cells = columns(lines[2])
    head = one.headline
    assert head.value is not None and head.low is not None and head.high is not None
    assert cells[1] == f"{head.value:.3f} [{head.low:.3f}, {head.high:.3f}]"
    assert cells[2:6] == [f"{one.slice().figures[name].value:.3f}" for name in DIMENSIONS]
    assert cells[6:] == ["48", "46/48", "2", "$1.25", "3 min"]
    below = "\n".join(lines[3:])
    assert "task knowgen_mini 1-abc123; selection all 48; protocol strict 2; " in below
    assert "scorer world_check (world check, not a VLM judge)" in below
    assert "note: 2 generations failed" in below


def test_figures_are_aligned() -> None:
    lines = tables.terminal(
        [summary("a", 0.0, failed=48), summary("系统", 0.75), summary("long name", 0.5)]
    ).splitlines()
    ruler = lines[1]
    ends = [match.end() for match in re.finditer("-+", ruler)]
    for line in lines[2:5]:
        padded = line.ljust(len(ruler))
        shift = width(line) - len(line)  # wide characters take two columns
        assert all(padded[end - 1 - shift] != " " for end in ends[2:])
        assert all(padded[end - shift : end - shift + 2].strip() == "" for end in ends)


def test_summaries_measured_differently_have_separate_tables() -> None:
    summaries = [
        summary("a", 0.5),
        summary("a", 0.5, protocol="official"),
        summary("b", 0.75),
        summary("a", 0.5, scorer="x"),
    ]
    text = tables.terminal(summaries)
    assert text.count("K-Score") == 3
    assert text.split("\n\n")[0].splitlines()[2].startswith("b ")


@pytest.mark.parametrize("by", ["group", "category", "difficulty"])
def test_subsets_are_shown_for_one_system_and_for_several(by: Literal["group", "category", "difficulty"]) -> None:
    one, other = summary("one", 0.5), summary("other", 0.25)
    names = [part.name for part in one.slices if part.kind == by]
    alone = tables.terminal([one], by).splitlines()
    assert alone[0] == f"By {by}: one"
    assert [columns(line)[0] for line in alone[3 : 3 + len(names)]] == names
    both = tables.terminal([other, one], by).splitlines()
    assert columns(both[1]) == [by, "one", "other", "n"]
    first = both[3].split()
    assert first[0] == names[0] and first[-1] == str(one.slice(by, names[0]).samples)
    assert f"{one.slice(by, names[0]).figures['overall'].value:.3f}" == first[1]


def test_a_part_that_a_system_lacks_is_a_dash() -> None:
    one = summary("one", 0.5)
    half = aggregate([row for row in some_rows(0.25) if row.category == "physics"], system="half", **LABELS)
    lines = tables.terminal([one, half], "category").splitlines()
    assert next(line for line in lines if line.startswith("news")).split()[-2] == "-"


def test_markdown_has_every_table_and_its_cells() -> None:
    text = tables.markdown([summary("one", 0.5), summary("other", 0.25)])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [markdown_cells(rows[0])[0], *[line for line in text.splitlines() if line.startswith("###")]] == [
        "system", "### By group: overall", "### By category: overall", "### By difficulty: overall",
    ]  # fmt: skip
    assert markdown_cells(rows[2])[0] == "one"
    assert text.endswith("\n") and not text.endswith("\n\n")


def test_csv_keeps_every_digit_of_every_figure() -> None:
    summaries = [summary("one", 1 / 3), summary(NASTY, 0.25, cost=0.1)]
    read = list(csv.DictReader(io.StringIO(tables.csv(summaries))))
    assert len(read) == sum(len(part.figures) for one in summaries for part in one.slices)
    for entry in read:
        one = summaries[0] if entry["system"] == "one" else summaries[1]
        part = one.slice(entry["kind"], entry["name"])
        figure = part.figures[entry["figure"]]
        assert (float(entry["value"]) if entry["value"] else None) == figure.value
        assert (float(entry["low"]) if entry["low"] else None) == figure.low
        assert int(entry["expected"]) == part.coverage.expected
        assert entry["cost"] == ("" if one.cost is None else repr(one.cost))


def test_a_spreadsheet_does_not_run_a_name_as_a_formula() -> None:
    for name in ("=1+1", "+1", "-1", "@x"):
        read = next(csv.DictReader(io.StringIO(tables.csv([summary(name, 0.5)]))))
        assert read["system"] == f"'{name}"


def test_hostile_names_stay_within_one_cell() -> None:
    summaries = [summary(NASTY, 0.5, task=NASTY, scorer=NASTY, scorer_note=NASTY, judge=NASTY), summary("x", 0.25)]
    comparison = compare(some_rows(0.25), some_rows(0.5), a_name=NASTY, b_name="x" * 200, scorer=NASTY)
    texts = [
        tables.terminal(summaries),
        tables.terminal(summaries, "category"),
        tables.markdown(summaries),
        tables.csv(summaries),
        tables.comparison_terminal([comparison]),
        tables.comparison_markdown([comparison]),
        tables.comparison_csv([comparison]),
    ]
    for text in texts:
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", text)
        assert "\\x1b" in text
    for text in (texts[2], texts[5]):
        assert "<script>" not in text and not re.search(r"(?<!\\)\]\(", text)
        for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
            assert len({len(markdown_cells(line)) for line in block.splitlines()}) == 1
    rows = list(csv.reader(io.StringIO(texts[3])))
    assert len({len(line) for line in rows}) == 1
    rulers = [line for line in texts[0].splitlines() if line.startswith("---")]
    assert rulers and max(len(ruler.split()[0]) for ruler in rulers) <= 60


def test_control_and_markup_characters_of_names_are_escaped() -> None:
    assert visible("a\r\n b\tc\x00\ud800") == "a b c\\x00\\ud800"
    assert visible("x" * 10, 8) == "xxxxx..."
    assert (
        markdown_text([TextTable("", ["snake_case", "_em_", "*b*"], [])]).splitlines()[0]
        == "| snake_case | \\_em\\_ | \\*b\\* |"
    )
    assert terminal_text([TextTable("t", ["a"], [])]) == "t\na\n-"


def test_judge_models_that_differ_are_split_under_the_table() -> None:
    mixed = some_rows(0.5, judge="judge-a")[:12] + some_rows(0.5, judge="judge-b")[12:]
    text = tables.terminal([aggregate(mixed, system="s", **LABELS)])
    assert "By judge model: s" in text and "judges judge-a, judge-b" in text
    assert "more than one judge model answered" in text


def test_scorers_with_other_dimensions_have_their_own_columns() -> None:
    rows = [
        Row(
            sample_id=str(i),
            category="physics",
            generation="ok",
            strict=ParsedScore(status="ok", values={"similarity": 0.5}),
        )
        for i in range(6)
    ]
    text = tables.terminal([aggregate(rows, dimensions=("similarity",), system="s", scorer="similarity")])
    assert columns(text.splitlines()[0])[:3] == ["system", "overall", "similarity"]
    assert "faithfulness" not in text


def a_comparison() -> Comparison:
    labels: dict[str, Any] = {
        "task": "knowgen_mini",
        "task_version": "1-abc123",
        "scorer": "world_check",
        "scorer_note": "a check",
    }
    return compare(some_rows(0.25), some_rows(0.875, failed=6), a_name="plain", b_name="agent", **labels)


def test_a_comparison_names_the_leader_and_the_interval() -> None:
    comparison = a_comparison()
    text = tables.comparison_terminal([comparison])
    lines = text.splitlines()
    assert lines[0] == "agent against plain"
    assert columns(lines[1]) == ["plain", "agent", "difference", "p", "n"]
    head = comparison.headline
    assert head.value is not None
    cells = columns(lines[3])
    assert cells[:3] == ["K-Score", f"{head.a:.3f}", f"{head.b:.3f}"]
    assert cells[3].startswith(f"{head.value:+.3f} [")
    assert (
        "agent is above plain: the 95 % interval excludes 0; better on 42, equal on 0, worse on 6 of 48 samples" in text
    )
    assert "task knowgen_mini 1-abc123; protocol strict 2; scorer world_check (a check); n 48" in text
    assert "By category: overall" in text and "By difficulty: overall" in text
    level = tables.comparison_terminal([compare(some_rows(0.5), some_rows(0.5))])
    assert "no clear difference between" in level or (
        "no difference between" in level and "+0.000" not in level and "-0.000" not in level
    )
    assert "no interval (n too small)" in tables.comparison_terminal([compare(some_rows(0.5)[:3], some_rows(0.5)[:3])])


def test_comparisons_as_csv_keep_every_digit() -> None:
    comparison = a_comparison()
    read = list(csv.DictReader(io.StringIO(tables.comparison_csv([comparison]))))
    assert len(read) == sum(len(part.figures) for part in comparison.slices)
    for entry in read:
        figure = comparison.slice(entry["kind"], entry["name"]).figures[entry["figure"]]
        assert float(entry["difference"]) == figure.value
        assert (float(entry["p"]) if entry["p"] else None) == figure.p


def test_tables_need_no_numpy() -> None:
    code = "import sys; import knowgen.report.tables; assert 'numpy' not in sys.modules and 'PIL' not in sys.modules"
    assert run_python("-c", code, check=False).returncode == 0
