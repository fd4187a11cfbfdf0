"""What the agent gains from search on the bundled task, and that it gains nothing from results of other queries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from knowgen import api
from knowgen.cli.main import run
from knowgen.stats.summary import OVERALL, Figure

AGENT = ("gen_searcher", "-g", "policy=scripted", "-g", "painter=painter")


def figure_of(out: Path, *generator: str) -> Figure:
    """Run a system on the whole task as users do, and return its K-Score."""
    assert run(["run", "--task", "knowgen_mini", "--generator", *generator, "--out", str(out)]) == 0
    return api.load_run(out).summary.slice().figures[OVERALL]


def low(figure: Figure) -> float:
    assert figure.low is not None
    return figure.low


def high(figure: Figure) -> float:
    assert figure.high is not None
    return figure.high


@pytest.mark.slow
def test_search_lifts_the_agent_far_above_a_generator_without_it_and_shuffled_results_sink_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = figure_of(tmp_path / "closed_book", "closed_book")
    world = figure_of(tmp_path / "world", *AGENT, "-g", "search=world")
    shuffled = figure_of(tmp_path / "shuffled", *AGENT, "-g", "search=shuffled")
    oracle = figure_of(tmp_path / "oracle", *AGENT, "-g", "search=oracle")
    assert low(world) > high(closed) + 0.3
    assert high(shuffled) < low(world) - 0.3
    assert low(shuffled) <= high(closed)  # about what it has without search, or less
    assert oracle.value is not None and world.value is not None and oracle.value > world.value
    capsys.readouterr()
    names = ["closed_book", "world", "shuffled", "oracle"]
    assert run(["compare", *(str(tmp_path / name) for name in names)]) == 0
    printed = capsys.readouterr().out
    agents = printed[printed.index("\nAgents\n") :]
    head = agents.splitlines()[2]
    assert [name for name in names if f"({name})" in head] == names[1:] and "closed_book" not in head
    assert run(["compare", *(str(tmp_path / name) for name in names), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert [one["agent_a"] for one in compared] == [None] * 3
    assert [one["agent_b"]["answers"] for one in compared] == [48] * 3
    assert compared[1]["agent_b"]["references"] == 0 < compared[0]["agent_b"]["references"]
