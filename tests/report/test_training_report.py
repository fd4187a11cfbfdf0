"""The report of a training: what it says first, its curves, its episodes by step, and what it refuses."""

from __future__ import annotations

import csv
import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from knowgen.cli.main import run as run_cli
from knowgen.report.folder import report_draft
from knowgen.report.output import FolderOutput
from knowgen.report.training.answer import answer, before_and_after
from knowgen.report.training.curves import BOX, MOST_POINTS, as_data, charts_of
from knowgen.report.training.episodes import images_of, shown_steps, write_episodes
from knowgen.report.training.page import write_training_page
from knowgen.report.training.view import trainings_of
from knowgen.store.training_run import TrainingRun
from tests.helpers.report_pages import HOSTILE, Open, until
from tests.helpers.training_runs import TrainingMaker


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> TrainingMaker:
    """Return a maker in an empty folder, with the trainings `real` and `constant`."""
    made = TrainingMaker(tmp_path_factory.mktemp("trainings"))
    made.run("real", 20, evaluated=(0, 10, 20), prompts=2)
    made.run("constant", 20, gain=0.0, evaluated=(0, 20), prompts=2)
    return made


@pytest.fixture(scope="module")
def site(maker: TrainingMaker) -> Path:
    """Return the page of one training."""
    return write_training_page(
        trainings_of([TrainingRun(maker.folder / "real")], [[("seed", "0", "1")]]), maker.folder / "page"
    )


def data_of(page: Path, name: str) -> Any:
    text = (page.parent / "data" / f"{name}.js").read_text(encoding="utf-8")
    return json.loads(text[text.index("]=") + 2 : text.rindex(";")])


# -- the answer --------------------------------------------------------------------------------------------------------


def test_the_answer_names_headline_before_and_after_and_the_best_step(maker: TrainingMaker) -> None:
    first = answer(trainings_of([TrainingRun(maker.folder / "real")]))
    assert first.sentence == "The headline rose from 0.200 before training to 0.700 at step 20."
    assert any("do not overlap" in line for line in first.support)
    both = answer(trainings_of([TrainingRun(maker.folder / name) for name in ("real", "constant")]))
    assert both.sentence == "real reached 0.700 at step 20; constant 0.200 at step 0."


def test_without_evaluations_the_reward_is_the_answer_and_says_over_how_many_episodes(tmp_path: Path) -> None:
    (training,) = trainings_of([TrainingMaker(tmp_path).run(steps=12, evaluated=(), prompts=2)])
    ends = before_and_after(training, "reward")
    values = [training.metrics[step]["reward"] for step in range(1, 13)]
    assert ends is not None and (ends.steps, ends.episodes) == (6, (36, 36))
    assert math.isclose(ends.before, sum(values[:6]) / 6) and math.isclose(ends.after, sum(values[6:]) / 6)
    assert (
        answer([training]).sentence == f"The mean reward rose from {ends.before:.3f} to {ends.after:.3f} over 12 steps."
    )


def test_a_training_that_did_not_gain_says_so(tmp_path: Path) -> None:
    (training,) = trainings_of([TrainingMaker(tmp_path).run(steps=4, gain=-0.1, evaluated=(0, 4))])
    assert answer([training]).sentence.startswith("No evaluated step is above the first")


def test_why_it_stopped_is_on_the_page(tmp_path: Path) -> None:
    maker = TrainingMaker(tmp_path)
    for stopped, words in (("budget", "early: budget"), ("", "complete"), (None, "not recorded")):
        run = maker.run(f"run-{stopped}", 2, evaluated=(), stopped=stopped, episodes=())
        page = write_training_page(trainings_of([run]), tmp_path / "page").read_text(encoding="utf-8")
        assert words in page and "No episodes are stored" in page


# -- curves ------------------------------------------------------------------------------------------------------------


def test_every_figure_has_a_curve_and_one_that_is_not_finite_is_named(maker: TrainingMaker) -> None:
    (training,) = trainings_of([TrainingRun(maker.folder / "real")])
    charts = charts_of([training])
    drawn = {line.name for chart in charts for line in chart.lines}
    assert drawn == set(training.metrics[1])
    (loss,) = [chart for chart in charts if chart.title == "Loss"]
    assert loss.notes == ("loss: not a finite number at step 3",)
    (endings,) = [chart for chart in charts if chart.title == "Endings"]
    heights = [float(y) for y in re.findall(r" ([\d.]+)", endings.lines[-1].path)][: len(training.metrics)]
    assert endings.stacked and all(abs(height) < 1 for height in heights), "shares of endings fill the whole height"


def test_a_point_stands_where_its_value_is(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path)
    run.describe({"method": "grpo"})
    for step, value in ((1, 0.0), (3, 0.25), (5, 1.0)):
        run.add_metrics(step, {"reward": value})
    (chart,) = charts_of(trainings_of([run]))
    assert chart.lines[0].path == f"M0.0 {BOX:.1f}L{BOX / 2:.1f} 750.0L{BOX:.1f} 0.0"
    assert [cells for row in chart.rows for cells in row.cells] == ["0.000", "0.250", "1.000"]


def test_the_curves_of_thousands_of_steps_have_a_bounded_length(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path)
    run.describe({"method": "sft"})
    lines = [json.dumps({"step": step, "kind": "train", "values": {"loss": 1 / step}}) for step in range(1, 5001)]
    (tmp_path / run.METRICS).write_text("\n".join(lines) + "\n")
    (chart,) = charts_of(trainings_of([run]))
    assert chart.lines[0].path.count("L") <= MOST_POINTS + 1 and chart.lines[0].raw.count("L") <= MOST_POINTS + 1
    assert chart.lines[0].raw.startswith("M0.0 0.0"), "the highest value is kept"
    assert len(chart.rows) < 20


def test_figures_of_every_step_are_in_a_table_file_and_for_the_script(site: Path) -> None:
    rows = list(csv.DictReader((site.parent / "data" / "figures.csv").open()))
    assert len(rows) == 20 and rows[2]["loss"] == "nan" and rows[2]["step"] == "3"
    (data,) = data_of(site, "figures")
    assert data["steps"] == list(range(1, 21)) and data["figures"]["loss"][2] == "nan"
    assert float(rows[4]["reward"]) == pytest.approx(data["figures"]["reward"][4], rel=1e-4)


def test_missing_figures_are_gaps_not_zeros(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path)
    run.describe({})
    run.add_metrics(1, {"reward": 0.5})
    run.add_metrics(2, {"seconds": 3.0})
    (data,) = as_data(trainings_of([run]))
    assert data["figures"] == {"reward": [0.5, None], "seconds": [None, 3.0]}


# -- episodes ----------------------------------------------------------------------------------------------------------


def test_each_step_has_its_own_file_with_what_the_episode_recorded(maker: TrainingMaker, site: Path) -> None:
    stored = list(TrainingRun(maker.folder / "real").episodes(7))
    shown = [each for group in data_of(site, "episodes-0-7") for each in group["episodes"]]
    assert [each["reward"] for each in shown] == [each.reward for each in stored]
    assert [each["advantage"] for each in shown] == [each.advantage for each in stored]
    for record, each in zip(stored, shown, strict=True):
        assert record.answer is not None
        assert each["ending"] == record.answer.ending and len(each["trajectory"]["steps"]) == 2
        for ref in images_of(record):
            assert list((site.parent / "img").glob(f"{ref.sha256}.small.webp")), "every image has its file"


def test_masked_episodes_are_listed_with_reason_and_link_also_of_steps_that_are_not_shown(tmp_path: Path) -> None:
    run = TrainingMaker(tmp_path).run(steps=30, prompts=2, evaluated=())
    page = write_training_page(trainings_of([run]), tmp_path / "page", 2)
    text = page.read_text(encoding="utf-8")
    assert "HTTP 503" in text and "3 episodes had no reward" in text and "10 to 30" in text
    assert "2 of 30 steps are here" in text
    assert sorted(path.name for path in (tmp_path / "page" / "data").glob("episodes-*")) == [
        "episodes-0-1.js", "episodes-0-30.js"
    ]  # fmt: skip


def test_shown_steps_have_both_ends_and_the_evaluated_ones_and_are_bounded(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path)
    run.describe({})
    (tmp_path / "episodes").mkdir()
    for step in range(1, 1001):
        run.episodes_file(step).touch()
    for step in (0, 137, 500):
        run.add_metrics(step, {"headline": 0.5}, "evaluation")
    (training,) = trainings_of([run])
    steps = shown_steps(training, 40)
    assert len(steps) == len(set(steps)) == 40 and {1, 137, 500, 1000} <= set(steps)
    assert max(after - before for before, after in pairwise(steps)) <= 100


def test_one_step_at_a_time_is_in_memory(maker: TrainingMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (training,) = trainings_of([TrainingRun(maker.folder / "real")])
    order: list[str] = []
    read = TrainingRun.episodes

    def watched(self: TrainingRun, step: int) -> Any:
        order.append(f"read {step}")
        return read(self, step)

    monkeypatch.setattr(TrainingRun, "episodes", watched)
    monkeypatch.setattr(FolderOutput, "data", lambda _, name, __: order.append(f"write {name}"))
    with report_draft(tmp_path / "page") as draft:
        write_episodes(training, FolderOutput(draft, ()), {})
    assert order == [each for step in range(1, 21) for each in (f"read {step}", f"write episodes-0-{step}")]


def test_links_to_runs_are_relative_to_the_page(maker: TrainingMaker, site: Path) -> None:
    links = re.findall(r'href="([^"#]*report/index\.html)"', site.read_text(encoding="utf-8"))
    assert links and all((site.parent / link).is_file() for link in links)


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_writes_one_page_of_several_trainings(
    maker: TrainingMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(maker.folder / name) for name in ("real", "constant")]
    assert run_cli(["report", *folders, "-o", str(tmp_path / "page"), "--steps", "2"]) == 0
    page = Path(capsys.readouterr().out.strip())
    text = page.read_text(encoding="utf-8")
    assert "real reached" in text and "values differ from the published configuration" in text
    assert "optimizer.learning_rate" in text and "0.0003" in text


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("no step", "no step is recorded"),
        ("a run beside it", "runs or trainings, not both"),
        ("damaged", "invalid JSON"),
    ],
)
def test_what_cannot_be_reported_is_one_clear_line(
    made: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = TrainingRun(tmp_path / "t")
    run.describe({"method": "grpo"})
    paths = [str(run.path)]
    if made == "a run beside it":
        paths.append(str(tmp_path))
    if made == "damaged":
        (run.path / run.METRICS).write_text("{\n{}\n")
    assert run_cli(["report", *paths, "-o", str(tmp_path / "page")]) in (2, 3)
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and not (tmp_path / "page").exists()


# -- in a browser ------------------------------------------------------------------------------------------------------


def test_a_curve_is_read_by_keyboard_and_leads_to_two_steps_side_by_side(site: Path, view: Open) -> None:
    opened = view(site)
    page = opened.page
    assert not any("episodes-0-9" in url for url in opened.requests), "episodes are loaded when they are chosen"
    curve = page.locator(".curve", has_text="Reward").first
    curve.locator(".canvas").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    spoken = curve.locator(".canvas").get_attribute("aria-valuetext")
    value = curve.locator("[data-line] b").first.inner_text()
    assert spoken.startswith("step 17: reward ") and value in spoken
    assert curve.locator("figcaption").get_attribute("data-step") == "step 17"
    page.keyboard.press("Enter")
    until(page, "document.getElementById('sides').dataset.shown === '1,17'")
    assert page.locator(".side .prompt").count() == 2
    page.get_by_label("Left step").select_option("9")
    until(page, "document.getElementById('sides').dataset.shown === '9,17'")
    assert "steps=9%2C17" in page.url and "the same prompt in both" in page.locator("#match-count").inner_text()
    page.locator(".side").nth(1).get_by_role("button", name="episode 2,").click()
    until(page, "location.hash.includes('episodes=0%2C2')")
    assert "Episode 2" in page.locator(".side").nth(1).locator("h4").inner_text()
    page.go_back()
    until(page, "document.querySelectorAll('.side')[1].querySelector('h4').textContent.startsWith('Episode 0')")
    opened.clean()


def test_hostile_texts_are_shown_as_texts_and_fit_a_phone(view: Open, tmp_path: Path) -> None:
    run = TrainingMaker(tmp_path, " ".join(HOSTILE)).run(steps=12, prompts=2)
    opened = view(write_training_page(trainings_of([run]), tmp_path / "page"), "#compare?steps=2,10", width=390)
    page = opened.page
    page.wait_for_selector(".side .timeline .end")
    assert "<script>alert(1)</script>" in page.locator(".side").first.inner_text()
    assert (
        "{{ 7 * 7 }}" in page.locator(".side").first.inner_text() and "HTTP 503" in page.locator("#masked").inner_text()
    )
    assert page.locator("main script, main [onerror], main svg[onload]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    opened.clean()
