"""Figures and tables for a paper: what they show, and that the same runs give the same file."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen.cli.main import run as knowgen
from knowgen.core.errors import MissingDependencyError, UsageError
from knowgen.report.paper import charts, style
from knowgen.report.paper.tables import _Latex
from knowgen.report.view import COLOURS, SHAPES, marks
from knowgen.stats.compare.holm import holm
from knowgen.stats.summary import OVERALL, Figure
from knowgen.workflows.compare import compare
from knowgen.workflows.paper import draw, make_table, paper_systems
from knowgen.workflows.run import Run, load_run
from tests.helpers.report_pages import HOSTILE
from tests.helpers.report_runs import RunMaker

pytest.importorskip("matplotlib")


NAMES = ("weak", "strong", "as strong", "oracle")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Return runs of four systems: a weak one, two of nearly the same skill, and one that sees the ground truth."""
    maker = RunMaker(tmp_path_factory.mktemp("paper"))
    samples = maker.samples(48)
    made = [
        maker.run("weak", samples, 0.2),
        maker.run("strong", samples, 0.75),
        maker.run("as strong", samples, 0.73),
        maker.run("oracle", samples, 0.97, privileged=True),
    ]
    return [load_run(each.store.path) for each in made]


def bold_systems(table: str, column: int) -> set[str]:
    """Return the systems whose cell in a column of a Markdown table is bold."""
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")][2:]
    return {row[0] for row in rows if row[column].startswith("**")}


# -- tables ------------------------------------------------------------------------------------------------------------


def test_bold_are_the_best_and_those_that_the_test_does_not_tell_apart(runs: list[Run]) -> None:
    table = make_table("systems", runs, "markdown", names=NAMES)
    ranked = dict(zip(NAMES[:3], runs, strict=False))
    for column, name in enumerate((OVERALL, *runs[0].summary.dimensions), start=1):
        figures = {system: run.summary.slice().figures[name].value or 0.0 for system, run in ranked.items()}
        best = max(figures, key=lambda system: figures[system])
        others = [system for system in figures if system != best]
        p_values = [compare(ranked[best], ranked[other]).slice().figures[name].p for other in others]
        adjusted = holm([p for p in p_values if p is not None])
        tied = {other for other, p in zip(others, adjusted, strict=True) if p > 0.05}
        assert bold_systems(table, column) == {best, *tied}, name
    assert bold_systems(table, 1) == {"strong", "as strong"}  # K-Score: two are tied, one is not


def test_nothing_is_bold_where_no_test_could_tell_two_systems_apart(runs: list[Run], tmp_path: Path) -> None:
    maker = RunMaker(tmp_path)
    maker.failing = False
    samples = maker.samples(15)  # 3 samples in half of the categories, 2 in the others
    few = [load_run(maker.run(name, samples, skill).store.path) for name, skill in (("good", 0.95), ("bad", 0.05))]
    table = make_table("category", few, "markdown")
    assert "**" not in table and "Bold:" not in table and "fewer than 6 samples" in table
    assert "**" in make_table("category", runs[:2], "markdown")  # 8 samples in each
    alone = make_table("systems", few[:1], "markdown")
    assert "Bold:" not in alone and "bold" not in alone


def test_a_row_of_latex_is_not_taken_for_the_argument_of_the_line_before(runs: list[Run]) -> None:
    table = make_table("systems", runs[:2], "latex", names=["[2pt] a", "* b"])
    assert sorted(line[:6] for line in table.splitlines() if "&" in line)[-2:] == ["{}* b ", "{}[2pt"]


def test_a_run_named_twice_or_in_the_wrong_order_is_refused(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="named twice"):
        make_table("systems", [runs[0], runs[1], load_run(runs[0].path)], "markdown")
    spec = runs[1].spec
    searching = replace(
        runs[1], spec=spec.model_copy(update={"generator": spec.generator.model_copy(update={"search": "web"})})
    )
    with pytest.raises(UsageError, match="searches and .* does not") as caught:
        draw("search", [searching, runs[0]], tmp_path / "search.svg")
    assert caught.value.fix == "name the run without search, then the one with it"
    caption = draw("search", [runs[0], searching], tmp_path / "search.svg", names=["without", "with"])
    assert caption.startswith("Differences: with minus without. Task ")


def test_a_ladder_says_why_a_figure_is_missing_or_partial(runs: list[Run]) -> None:
    first, second = paper_systems(runs[:2], "official", None)
    partial = replace(first, summary=first.summary.model_copy(update={"no_result": "9 of 48 scores failed"}))
    whole = second.summary.slice()
    empty = whole.model_copy(update={"figures": {**whole.figures, OVERALL: Figure(note="no scores")}})
    missing = replace(second, summary=second.summary.model_copy(update={"slices": (empty,)}))
    with style.drawing():
        axes: Any = charts.ladder([partial, missing], style.Layout()).axes[0]
        texts = " / ".join(text.get_text() for text in axes.texts)
    assert "partial: 9 of 48 scores failed" in texts and "no result: no scores" in texts


def test_a_system_that_sees_the_truth_is_last_and_marked(runs: list[Run]) -> None:
    table = make_table("systems", runs, "markdown", names=NAMES)
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert rows[-1].startswith("| oracle\\* |")
    assert "**" not in rows[-1] and "not ranked" in table


def test_the_figures_of_a_table_are_those_of_the_summaries(runs: list[Run]) -> None:
    table = make_table("systems", runs, "latex", protocol="official")
    for run in runs:
        figure = run.summarise("official").headline
        assert figure.low is not None and figure.high is not None
        assert f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]" in table
    percent = make_table("category", runs[:2], "markdown")
    for part in runs[0].summary.slices:
        if part.kind == "category":
            assert f"{part.figures[OVERALL].value:.3f}" in next(row for row in percent.splitlines() if part.name in row)


@given(st.text(max_size=60))
def test_any_text_is_harmless_in_latex(text: str) -> None:
    written = _Latex().text(text)
    for command in (
        "textbackslash{}", "textasciitilde{}", "textasciicircum{}", "textless{}", "textgreater{}", "textbar{}",
        "textquotedbl{}", "ldots{}",
    ):  # fmt: skip
        written = written.replace(f"\\{command}", "")
    written = re.sub(r"\\[&%$#_{}]", "", written.replace("$-$", ""))
    assert "\n" not in written and not set(written) & set("\\&%$#_{}~^")


def test_runs_that_cannot_be_compared_are_refused(runs: list[Run], tmp_path: Path) -> None:
    maker = RunMaker(tmp_path)
    part = load_run(maker.run("part", maker.samples(12), 0.5).store.path)
    with pytest.raises(UsageError, match="different selections"):
        make_table("systems", [runs[0], part], "markdown")
    maker.version = "2-fedcba543210"
    other = load_run(maker.run("other", maker.samples(48), 0.5).store.path)
    with pytest.raises(UsageError, match="different task version"):
        draw("ladder", [runs[0], other], tmp_path / "ladder.svg")


# -- figures -----------------------------------------------------------------------------------------------------------


def dots(axes: Any) -> list[float]:
    """Return the horizontal position of each marker of a plot, from the top row to the bottom."""
    found = [(line.get_ydata()[0], line.get_xdata()[0]) for line in axes.lines if line.get_marker() not in ("None", "")]
    return [float(x) for _, x in sorted(found)]


def test_a_ladder_shows_each_figure_and_interval_the_best_at_the_top(runs: list[Run]) -> None:
    systems = paper_systems(runs, "strict", None)
    figures = sorted((run.summary.headline for run in runs), key=lambda one: -(one.value or 0.0))
    with style.drawing():
        axes: Any = charts.ladder(systems, style.Layout(percent=True)).axes[0]
        assert dots(axes) == pytest.approx([100 * (one.value or 0.0) for one in figures])
        intervals = [sorted(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
        assert intervals == [pytest.approx([100 * (one.low or 0), 100 * (one.high or 0)]) for one in figures]
        assert axes.get_yticklabels()[0].get_text() == "oracle(steps=4) (sees the ground truth)"


def test_a_figure_of_parts_has_a_dot_for_each_system_and_part(runs: list[Run]) -> None:
    systems = paper_systems(runs, "strict", None)
    expected = [part.figures[OVERALL].value for run in runs for part in run.summary.slices if part.kind == "difficulty"]
    with style.drawing():
        axes: Any = charts.parts(systems, "difficulty", style.Layout()).axes[0]
        assert sorted(dots(axes)) == pytest.approx(sorted(value or 0.0 for value in expected))


def test_where_search_helped_shows_each_sample_once(runs: list[Run], tmp_path: Path) -> None:
    from knowgen.workflows.paper import _sample_differences

    comparison = compare(runs[0], runs[1])
    differences = _sample_differences(runs[:2], "strict", None)
    assert len(differences) == comparison.paired
    assert sum(value > 1e-9 for value in differences) == comparison.better
    assert sum(value < -1e-9 for value in differences) == comparison.worse
    with style.drawing():
        bars: Any = charts.search(comparison, differences, style.Layout()).axes[0].patches
        assert [bar.get_height() for bar in bars] == pytest.approx(sorted(differences, reverse=True))


def test_costs_of_nothing_make_no_figure_and_times_do(runs: list[Run], tmp_path: Path) -> None:
    draw("time", runs[:2], tmp_path / "time.svg")
    systems = paper_systems(runs[:2], "strict", None)
    free = [charts.PaperSystem(one.label, one.mark, one.summary, cost=0.0) for one in systems]
    with style.drawing(), pytest.raises(UsageError, match="paid a service"):
        charts.against("cost", free, style.Layout())
    mixed = [free[0], charts.PaperSystem("b", systems[1].mark, systems[1].summary, cost=None)]
    paid = charts.PaperSystem("c", systems[1].mark, systems[1].summary, cost=0.04)
    with style.drawing():
        chart = charts.against("cost", [*mixed, paid], style.Layout())
        assert "b" in chart.get_supxlabel() and "known cost" in chart.get_supxlabel()


@pytest.mark.parametrize("ending", style.FORMATS)
def test_the_same_runs_give_the_same_file_in_any_process(runs: list[Run], tmp_path: Path, ending: str) -> None:
    draw("difficulty", runs[:2], tmp_path / f"a.{ending}")
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 9\nsvg.hashsalt: mine\n")
    code = (
        "import sys; from pathlib import Path; from knowgen.workflows.paper import draw; "
        "from knowgen.workflows.run import load_run; "
        "draw('difficulty', [load_run(one) for one in sys.argv[2:]], Path(sys.argv[1]))"
    )
    paths = [str(run.path) for run in runs[:2]]
    environment = {
        "PYTHONPATH": ":".join(sys.path),
        "LC_ALL": "C",
        "TZ": "Asia/Tokyo",
        "PYTHONHASHSEED": "7",
        "HOME": str(tmp_path),
    }
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / f"b.{ending}"), *paths],
        check=True,
        cwd=tmp_path,
        env={**environment, "HOME": str(tmp_path)},
    )
    first, second = ((tmp_path / f"{name}.{ending}").read_bytes() for name in "ab")
    assert first == second and b"20" + b"26-" not in first


def test_hostile_names_are_drawn_as_text(runs: list[Run], tmp_path: Path) -> None:
    names = [f"$\\frac{{1}}{{0}}$ {HOSTILE[0]}", f"{HOSTILE[1]} \n $x"]
    draw("ladder", runs[:2], tmp_path / "ladder.svg", names=names)
    text = (tmp_path / "ladder.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert "<script" not in text and "onerror" not in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def test_the_colours_are_those_of_the_pages_and_no_two_systems_look_the_same() -> None:
    css = (Path(charts.__file__).parent.parent / "static" / "report.css").read_text(encoding="utf-8")
    light = re.findall(r"--system-\d: light-dark\((#[0-9a-f]{6})", css)
    assert tuple(light) == style.COLOURS and len(light) == COLOURS
    assert set(style.MARKERS) == {name for name, _ in SHAPES}
    looks = [(style.colour(mark), style.MARKERS[mark.shape]) for mark in marks([str(number) for number in range(64)])]
    assert len(set(looks)) == 64


def test_colours_that_are_alike_in_grey_have_different_shapes() -> None:
    def grey(colour: str) -> float:
        red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for first, second in combinations(marks([str(number) for number in range(8)]), 2):
        difference = abs(grey(style.colour(first)) - grey(style.colour(second)))
        assert difference > 0.1 or first.shape != second.shape


def test_a_missing_matplotlib_is_one_line(runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match="matplotlib"):
        draw("ladder", runs[:2], tmp_path / "ladder.svg")


def test_the_command_prints_file_and_caption(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(run.path) for run in runs[:2]]
    assert knowgen(["figure", "ladder", *paths, "-o", str(tmp_path / "out" / "ladder.pdf")]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "ladder.pdf").read_bytes().startswith(b"%PDF") and "protocol strict 2" in printed
    assert knowgen(["figure", "ladder", *paths, "-o", str(tmp_path / "ladder.gif")]) == 2
    assert "use .svg, .png or .pdf" in capsys.readouterr().err
    assert knowgen(["table", "systems", *paths, "--latex", "--names", "A & B,C_D"]) == 0
    assert r"C\_D & " in capsys.readouterr().out
    assert knowgen(["table", "systems", *paths, "--names", "one"]) == 2
    assert "1 names for 2 runs" in capsys.readouterr().err
