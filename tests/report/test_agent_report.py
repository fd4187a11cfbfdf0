"""What a report says of an agent: figures by part of the samples, the data of trajectories, and where search helped."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen.core.records import AgentAnswer, AnswerStatus, FailureCause, Generation, GenerationStatus, Sample, Usage
from knowgen.report.agent_tables import agent_csv, agent_markdown
from knowgen.report.gallery import collect
from knowgen.report.html import write_report
from knowgen.report.search_effect import MAX_SHOWN, search_effect
from knowgen.report.trajectory import pack, trajectory_details
from knowgen.report.view import ReportRun, systems_of, views_of
from knowgen.stats.agent_figures import IMAGE_MODEL, AgentFigures, agent_figures
from knowgen.store.run import RunStore
from knowgen.workflows.artifacts import agent_table_files
from tests.helpers.report_runs import RunMaker
from tests.helpers.trajectories import answer_in, searched_answer


def figures_of(run: ReportRun) -> dict[tuple[str, str], AgentFigures]:
    store = run.store
    answers, images = [each for _, each in store.answers()], [each for _, each in store.generations()]
    return {(each.kind, each.name): each for each in agent_figures(store.samples(), 1, answers, images)}


def test_figures_count_what_is_stored_for_the_whole_and_for_each_part(maker: RunMaker) -> None:
    run = maker.run("agent", maker.samples(12), 0.8, agent=searched_answer)
    figures = figures_of(run)
    whole = figures["all", ""]
    assert (whole.expected, whole.answers, whole.failed) == (12, 12, 0)
    assert whole.endings == {"answer": 9, "no_answer": 3}
    assert whole.rounds == 9 * 3 + 3
    assert whole.calls == {"image_search": 18, "search": 12}
    assert (whole.references, whole.leaks, whole.blocked, whole.errors, whole.capped) == (9, 9, 9, 3, 1080)
    assert whole.seconds == 3.0
    assert whole.parts["policy"].cost == pytest.approx(0.36) and whole.parts["policy"].calls == 36
    assert whole.parts["search"].cost == pytest.approx(9 * 0.002)
    images = [each for _, each in run.store.generations()]
    assert whole.parts[IMAGE_MODEL].calls == len(images) == 12
    assert whole.parts[IMAGE_MODEL].cost == pytest.approx(sum(each.usage.cost or 0 for each in images))
    for kind in ("difficulty", "category"):
        parts = [each for (one, _), each in figures.items() if one == kind]
        assert sum(each.answers for each in parts) == 12
        assert sum(each.rounds for each in parts) == whole.rounds
    kinds = [kind for kind, _ in figures]
    assert kinds == sorted(kinds, key=["all", "difficulty", "category"].index)
    assert [name for kind, name in figures if kind == "difficulty"] == ["easy", "medium", "hard"]


def test_failed_answers_and_unknown_prices_are_not_zeros() -> None:
    sample = Sample(id="s1", prompt="p", category="physics")
    failed = AgentAnswer(sample_id="s1", status=AnswerStatus.FAILED, cause=FailureCause.INFRASTRUCTURE)
    unpriced = Generation(sample_id="s1", status=GenerationStatus.OK, usage=Usage(input_tokens=5), fallback="no answer")
    (whole, part) = agent_figures([sample], 2, [failed], [unpriced])
    assert (whole.expected, whole.answers, whole.failed, whole.fallbacks) == (2, 0, 1, 1)
    assert whole.each(whole.rounds) is None and whole.seconds is None and whole.endings == {}
    assert whole.parts[IMAGE_MODEL].cost is None
    text = agent_markdown("agent", (whole, part))
    assert "| All samples | 0/2 | - | - | 1 failed | 1 | 0 | – | – |" in text
    rows = list(csv.DictReader(io.StringIO(agent_csv("agent", (whole, part)))))
    assert next(row for row in rows if row["figure"] == "cost")["value"] == ""


def test_tables_are_written_for_runs_with_an_agent_alone(maker: RunMaker) -> None:
    agent = maker.run("agent", maker.samples(6), 0.8, agent=searched_answer)
    plain = maker.run("plain", maker.samples(6), 0.3)
    with RunStore.read(agent.store.path) as store:
        files = agent_table_files(store)
    assert [path.name for path in files] == ["agent.md", "agent.csv"]
    markdown, table = files.values()
    assert "| All samples | 6/6 | 2.3 | 1.3 | 1.0 | 0.7 | 4 answer, 2 no answer |" in markdown
    rows = list(csv.DictReader(io.StringIO(table)))
    assert {row["of"] for row in rows if row["figure"] == "endings"} == {"answer", "no_answer"}
    with RunStore.read(plain.store.path) as store:
        assert agent_table_files(store) == {}


def test_a_page_without_an_agent_has_neither_its_sections_nor_its_files(maker: RunMaker, tmp_path: Path) -> None:
    runs = [maker.run("one", maker.samples(6), 0.8), maker.run("two", maker.samples(6), 0.3)]
    page = write_report(runs, tmp_path / "page")
    html = page.read_text(encoding="utf-8")
    assert 'id="agent"' not in html and 'id="search"' not in html and "#agent" not in html
    assert not list((page.parent / "data").glob("trajectories-*"))


def test_trajectories_are_in_files_of_their_own(maker: RunMaker, tmp_path: Path) -> None:
    run = maker.run("agent", maker.samples(25), 0.8, agent=searched_answer)
    page = write_report([run], tmp_path / "page")
    folder = page.parent / "data"
    assert sorted(path.name for path in folder.glob("trajectories-*")) == [f"trajectories-{n}.js" for n in range(3)]
    assert "What is Teld?" not in (folder / "index.js").read_text() + (folder / "chunk-0.js").read_text()
    (line,) = (folder / "trajectories-0.js").read_text(encoding="utf-8").splitlines()
    entries = json.loads(line.split("=", 2)[2].removesuffix(";"))
    assert len(entries) == 10
    assert [entries[n][0]["ending"] for n in (0, 1)] == ["no_answer", "answer"]
    pictures = entries[1][0]["steps"][1]["images"]
    assert [(each["id"], each["new"]) for each in pictures] == [(f"IMG_00{n}", True) for n in (1, 2, 3)]
    assert all((page.parent / "img" / each["image"]["small"]).is_file() for each in pictures)


def test_why_an_answer_was_not_used_is_part_of_its_trajectory() -> None:
    answer = AgentAnswer(ending="no_answer", status=AnswerStatus.NONE)
    packed = pack(trajectory_details(answer, "the agent gave no answer"))
    assert packed.outline == {
        "ending": "no_answer",
        "steps": 0,
        "calls": 0,
        "chosen": 0,
        "blocked": 0,
        "fallback": True,
    }
    assert packed.details()["fallback"] == "the agent gave no answer"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("round", "thought", "calls", "images", "new_images", "blocked", "capped", "policy_usage", "tool_seconds", "x")


@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=6), max_size=4))
def test_the_steps_of_any_agent_can_be_shown(steps: list[dict[str, Any]]) -> None:
    details = trajectory_details(AgentAnswer(trajectory=tuple(steps)))
    assert len(details["steps"]) == len(steps)
    json.dumps(details)
    assert all(isinstance(step["round"], int) for step in details["steps"])


def paired(maker: RunMaker, **settings: Any) -> Any:
    maker.failing = False
    samples = maker.samples(24)
    runs = [
        maker.run("noise", samples, 0.05),
        maker.run("plain", samples, 0.4),
        maker.run("agent", samples, 0.9, agent=answer_in("Teld"), **settings),
        maker.run("oracle", samples, 1.0, privileged=True),
    ]
    systems = systems_of(runs)
    views = views_of(systems)
    return systems, views[0], collect(systems, views)


def test_search_is_compared_with_the_best_system_without_it(maker: RunMaker) -> None:
    systems, view, collected = paired(maker)
    effect = search_effect(systems, view, collected)
    assert effect is not None
    assert (effect.agent.label, effect.baseline.label, effect.same_image_model) == ("agent", "plain", False)
    assert effect.better + effect.equal + effect.worse == effect.paired == 24
    scores = {
        entry.sample.id: [cell.readings[0].overall for cell in (entry.cells[1], entry.cells[2])]
        for entry in collected.entries
    }
    gaps = {name: second - first for name, (first, second) in scores.items()}
    assert effect.better == sum(gap > 1e-9 for gap in gaps.values())
    largest = sorted(gaps.values(), reverse=True)
    assert [each.difference for each in effect.gains] == pytest.approx(largest[:MAX_SHOWN])
    losses = [gap for gap in largest[::-1] if gap < -1e-9][:MAX_SHOWN]
    assert [each.difference for each in effect.losses] == pytest.approx(losses)
    values = [figure.value for _, figure in effect.categories if figure.value is not None]
    assert values == sorted(values, reverse=True) and len(values) == len(effect.categories) == 6
    for name, figure in effect.categories:
        assert figure.n == sum(entry.sample.category == name for entry in collected.entries)
        assert figure.a is not None and figure.b is not None and figure.value == pytest.approx(figure.b - figure.a)


def test_the_same_image_model_without_search_is_preferred(maker: RunMaker) -> None:
    systems, view, collected = paired(maker, painter="noise")
    effect = search_effect(systems, view, collected)
    assert effect is not None and (effect.baseline.label, effect.same_image_model) == ("noise", True)


def test_an_agent_that_calls_no_tool_is_a_system_without_search(maker: RunMaker) -> None:
    def silent(store: RunStore, sample: Sample, repeat: int) -> AgentAnswer:
        return AgentAnswer(sample_id=sample.id, repeat=repeat, ending="answer", prompt="A light.")

    samples = maker.samples(12)
    runs = [
        maker.run("searching", samples, 0.9, agent=searched_answer),
        maker.run("silent", samples, 0.3, agent=silent),
    ]
    systems = systems_of(runs)
    views = views_of(systems)
    effect = search_effect(systems, views[0], collect(systems, views))
    assert effect is not None and (effect.agent.label, effect.baseline.label) == ("searching", "silent")
    alone = systems_of(runs[:1])
    assert search_effect(alone, views_of(alone)[0], collect(alone, views_of(alone))) is None
