"""The directory of a training: its figures survive a killed process, and those that are no numbers."""

from __future__ import annotations

import math
from pathlib import Path

from knowgen.store.training_run import TrainingRun


def test_the_last_line_of_a_step_counts_and_kinds_are_apart(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path)
    run.add_metrics(2, {"reward": 0.5})
    run.add_metrics(1, {"reward": 0.25})
    run.add_metrics(2, {"reward": 0.75})
    run.add_metrics(2, {"headline": 0.9}, "evaluation")
    assert run.metrics() == {1: {"reward": 0.25}, 2: {"reward": 0.75}}
    assert run.metrics("evaluation") == {2: {"headline": 0.9}}


def test_figures_after_a_line_that_a_killed_process_cut_are_read(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path)
    run.add_metrics(1, {"reward": 0.25})
    whole = (tmp_path / run.METRICS).read_text()
    (tmp_path / run.METRICS).write_text(whole + whole[:20])
    assert run.metrics() == {1: {"reward": 0.25}}
    run.add_metrics(2, {"reward": 0.5})
    assert run.metrics() == {1: {"reward": 0.25}, 2: {"reward": 0.5}}


def test_a_figure_that_is_not_finite_stays_what_it_is(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path)
    run.add_metrics(1, {"loss": math.nan, "grad_norm": math.inf})
    values = run.metrics()[1]
    assert math.isnan(values["loss"]) and values["grad_norm"] == math.inf
