"""Code that is not part of this project runs in worker processes, where it harms one sample and not the run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.records import ScoreStatus
from knowgen.engine.executors import output_log
from knowgen.engine.executors.output_log import OutputLog
from knowgen.engine.retry import describe
from knowgen.store.run import RunStore
from tests.helpers import isolated
from tests.helpers.engine import Bench, Half, Plain, quick, scorer_handle
from tests.helpers.isolated import COUNT, generator_in_worker, scorer_in_worker


def statuses(bench: Bench) -> dict[str, str]:
    return {sample: generation.status.value for (sample, _), generation in bench.generations().items()}


ALL_BUT_ONE = {f"s{number}": "failed" if number == 2 else "ok" for number in range(COUNT)}


@pytest.mark.parametrize("kind", [isolated.Synchronous, isolated.Concurrent])
def test_a_generator_runs_in_a_worker_by_default_and_in_process_on_request(tmp_path: Path, kind: type[Any]) -> None:
    for workers, here in ((None, False), (0, True)):
        bench = Bench(tmp_path / str(workers))
        assert bench.run(COUNT, generator_in_worker(kind), options=quick(workers=workers)).generated == COUNT
        pids = {generation.settings["pid"] for generation in bench.generations().values()}
        assert len(pids) == 1 and (pids == {os.getpid()}) is here


def test_a_judge_runs_in_a_worker_with_its_budget_notes_and_repeats(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    judge = scorer_in_worker(isolated.PaidJudge)
    outcome = bench.run(2, Plain(), [judge], quick(budget=10.0), judge_repeats=2)
    assert outcome.scored == 4 and outcome.cost == pytest.approx(1.0)
    scores = bench.scores()
    assert {key[3]: score.details["repeat"] for key, score in scores.items()} == {0: 0, 1: 1}
    (pid,) = {score.details["pid"] for score in scores.values()}
    assert pid != os.getpid()
    with RunStore.read(bench.path) as store:
        assert [data for _, _, data in store.notes("pace")] == [{"pid": pid}] * 4


def test_a_budget_stops_a_judge_in_a_worker(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    outcome = bench.run(COUNT, Plain(), [scorer_in_worker(isolated.PaidJudge)], quick(budget=0.8))
    assert outcome.stopped == "budget" and outcome.cost <= 0.8
    assert len(bench.scores()) == outcome.scored < COUNT


def test_an_exit_harms_no_other_request_in_flight(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    judge = scorer_in_worker(isolated.ExitingJudge)
    outcome = bench.run(COUNT, generator_in_worker(isolated.ExitsWithOthers), [judge])
    assert statuses(bench) == ALL_BUT_ONE and outcome.scored == COUNT - 1
    assert "the worker process ended with code 3; see logs/" in bench.generations()["s2", 0].reason


def test_a_judge_that_exits_harms_one_score(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    bench.run(COUNT, Plain(), [scorer_in_worker(isolated.ExitingJudge)])
    scores = {key[0]: score for key, score in bench.scores().items()}
    assert {name for name, score in scores.items() if score.status is not ScoreStatus.OK} == {"s2"}
    assert "ended with code 5" in scores["s2"].strict.reason


@pytest.mark.slow
def test_a_coroutine_that_blocks_its_process_harms_no_other_request(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    bench.run(COUNT, generator_in_worker(isolated.BlocksWithOthers), options=quick(timeout=2.0))
    assert statuses(bench) == ALL_BUT_ONE
    assert bench.generations()["s2", 0].reason == "no image within 2 s"


def test_closed_descriptors_harm_one_sample(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    bench.run(COUNT, generator_in_worker(isolated.ClosesEverything), [scorer_handle(Half())], quick(tries=1))
    assert statuses(bench) == ALL_BUT_ONE


def test_patched_modules_and_a_changed_folder_reach_only_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bench = Bench(Path("run"))
    bench.run(COUNT, generator_in_worker(isolated.PatchesAndMoves), [scorer_handle(Half())])
    assert set(statuses(bench).values()) == {"ok"} and Path.cwd() == tmp_path
    assert isinstance(time.time(), float)


def test_the_run_ends_without_the_processes_that_a_plugin_started(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    outcome = bench.run(COUNT, generator_in_worker(isolated.LeavesChildren))
    assert outcome.generated == COUNT and outcome.seconds < 50
    with RunStore.open(bench.path, RunStore.read(bench.path).spec):
        assert True, "the directory is free"


def test_a_worker_learns_no_path_of_the_truth_or_of_the_run(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "secret")
    bench.run(1, generator_in_worker(isolated.Surroundings), [scorer_handle(Half())])
    (generation,) = bench.generations().values()
    seen = generation.settings
    assert "truth=None" in seen["asked"] and "s0" not in seen["asked"]
    for part in ("command", "argv", "files", "asked"):
        assert str(bench.path) not in str(seen[part]), part
    assert str(bench.path) not in str({k: v for k, v in seen["environment"].items() if k != "PYTEST_CURRENT_TEST"})


def test_images_are_stored_alike_from_a_worker_and_from_this_process(tmp_path: Path) -> None:
    count = len(isolated.Pictures.KINDS)
    stored = []
    for workers in (0, 1):
        bench = Bench(tmp_path / str(workers))
        generator = generator_in_worker(isolated.Pictures, folder=str(tmp_path))
        assert bench.run(count, generator, options=quick(workers=workers)).generated == count
        stored.append({k: (one.image.sha256, one.image_notes) for k, one in bench.generations().items() if one.image})
    assert stored[0] == stored[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_names_file_and_line_and_its_traceback_is_in_the_log(tmp_path: Path, workers: int) -> None:
    bench = Bench(tmp_path / "run")
    bench.run(COUNT, generator_in_worker(isolated.Raises), options=quick(workers=workers))
    lines = Path(isolated.__file__).read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "the line that is to be named" in text)
    reason = bench.generations()["s2", 0].reason
    assert reason == f"KeyError: 'no such layer' (isolated.py:{line}); see logs/errors.log"
    log = (bench.path / "logs" / "errors.log").read_text()
    assert f'isolated.py", line {line}, in draw' in log and "KeyError: 'no such layer'" in log and "Raises" in log


@pytest.mark.parametrize("workers", [0, 1])
def test_an_invalid_record_harms_one_sample_and_leaves_the_directory_readable(tmp_path: Path, workers: int) -> None:
    bench = Bench(tmp_path / "run")
    bench.run(COUNT, Plain(), [scorer_in_worker(isolated.InvalidJudge)], quick(workers=workers))
    scores = {key[0]: score for key, score in bench.scores().items()}
    assert {name for name, score in scores.items() if score.status is not ScoreStatus.OK} == {"s2"}
    assert "not valid" in scores["s2"].strict.reason and len(bench.rows()) == COUNT


def test_what_a_plugin_prints_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_log, "MAX_BYTES", 1000)
    for part in (b"x" * 600, b"y" * 600, b"z" * 600):
        log = OutputLog(tmp_path / "logs" / "one.log")
        os.write(log.writer, part)
        os.close(log.writer)
        log.wait(30)
        if part[:1] == b"y":
            text = log.path.read_bytes()
            assert text.startswith(b"x" * 600 + b"y" * 400) and b"dropped" in text and len(text) < 1100
    assert log.path.read_bytes() == b"z" * 600, "a full log makes room for the next run"


def test_an_error_whose_text_cannot_be_read_is_described() -> None:
    class Wordless(Exception):
        def __str__(self) -> str:
            raise KeyboardInterrupt

    assert describe(Wordless()) == "Wordless: (the text of this Wordless cannot be read: KeyboardInterrupt)"
