"""A run that is killed repeatedly ends with the same results as one that was not, and pays for nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.engine import Bench, ScoreServer
from tests.helpers.processes import PATIENCE, start_python, wait_until


def child(path: Path, count: int, url: str, **more: Any) -> subprocess.Popen[str]:
    arguments = {"path": str(path), "count": count, "url": url, **more}
    return start_python("-m", "tests.helpers.engine_child", json.dumps(arguments))


def has_stored(bench: Bench, server: ScoreServer, scores: int) -> bool:
    """Return whether a run has committed some scores; the store exists once the server has answered."""
    return server.answered() >= scores and len(bench.scores()) >= scores


def has_answers(bench: Bench, server: ScoreServer, answers: int) -> bool:
    """Return whether a run has committed some answers; the store exists once the server has answered."""
    return server.answered() >= answers and len(bench.answers()) >= answers


def plain(bench: Bench) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return everything that is stored, except times."""
    untimed = {"seconds": 0.0}
    generations = {name: one.model_copy(update=untimed).model_dump() for name, one in bench.generations().items()}
    return generations, {name: one.model_copy(update=untimed).model_dump() for name, one in bench.scores().items()}


def image_files(bench: Bench) -> dict[str, tuple[int, int]]:
    """Return inode and time of the image file of every committed row."""
    files = {}
    for generation in bench.generations().values():
        assert generation.image is not None and generation.image.path is not None
        stat = generation.image.path.stat()
        files[generation.image.sha256] = (stat.st_ino, stat.st_mtime_ns)
    return files


def kill_and_resume(tmp_path: Path, count: int, kills: int) -> tuple[Bench, Bench]:
    """Return a run that was killed several times and continued, and one that was not."""
    killed, whole = Bench(tmp_path / "killed"), Bench(tmp_path / "whole")
    in_flight = 0
    files: dict[str, tuple[int, int]] = {}
    with ScoreServer(seconds=0.01) as server:
        for number in range(1, kills + 1):
            before = len(server.calls)
            process = child(killed.path, count, server.url, pause=0.002)
            wait_until(partial(has_stored, killed, server, number * count // (kills + 1)), process)
            assert process.poll() is None, "it ended before it could be killed"
            process.kill()
            process.wait()
            time.sleep(0.05)  # requests in flight reach the server
            new_calls = server.calls[before:]
            done = {sample for sample, _, _, _ in killed.scores()}
            in_flight += len({call.name for call in new_calls} - done)
            present = image_files(killed)
            assert files.items() <= present.items(), "a finished image was written again"
            files = present
        outcome = json.loads(child(killed.path, count, server.url).communicate()[0])
        assert outcome["stopped"] == ""
        assert len(server.calls) <= count + in_flight
        assert in_flight / kills < count / 4, "more was lost than can have been in flight"
        assert {call.name for call in server.calls} == {f"s{number}" for number in range(count)}
        assert files.items() <= image_files(killed).items()
        child(whole.path, count, server.url).communicate()
    return killed, whole


def test_a_run_killed_twice_loses_nothing(tmp_path: Path) -> None:
    killed, whole = kill_and_resume(tmp_path, count=90, kills=2)
    assert plain(killed) == plain(whole) and len(whole.scores()) == 90


def test_a_killed_run_repeats_no_finished_search(tmp_path: Path) -> None:
    bench, count = Bench(tmp_path / "run"), 60
    with ScoreServer(seconds=0.01) as server:

        def searches() -> list[str]:
            return [
                call.name.removeprefix("search Draw number ").strip(".") for call in server.calls if " " in call.name
            ]

        for number in (1, 2):
            process = child(bench.path, count, server.url, pause=0.01, agent=True)
            wait_until(partial(has_answers, bench, server, number * count // 3), process)
            process.kill()
            process.wait()
            finished = {sample.removeprefix("s") for sample, _ in bench.answers()}
            made = len(searches())
            time.sleep(0.05)  # requests in flight reach the server
            before = len(searches())
            assert before - made <= 4, "more was in flight than the agent's concurrency"
        outcome = json.loads(child(bench.path, count, server.url, agent=True).communicate()[0])
        assert not finished & set(searches()[before:])
        assert (outcome["stopped"], outcome["answered"] + outcome["answer_cached"]) == ("", count)
        assert len(searches()) <= count + 2 * 4 + 20, "a kill costs what was in flight or not committed yet"
    assert len(bench.answers()) == count == len(bench.generations())


@pytest.mark.slow
def test_a_run_killed_thirty_times_loses_nothing(tmp_path: Path) -> None:
    killed, whole = kill_and_resume(tmp_path, count=1240, kills=30)
    assert plain(killed) == plain(whole) and len(whole.scores()) == 1240


def test_ctrl_c_ends_in_order_even_while_a_generation_hangs(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    with ScoreServer() as server:
        process = child(bench.path, 30, server.url, hang="20")
        assert process.stdout is not None and process.stdout.readline() == "hanging\n"
        wait_until(lambda: server.answered() >= 20, process)
        process.send_signal(signal.SIGINT)
        outcome = json.loads(process.communicate(timeout=PATIENCE)[0])
        assert outcome["stopped"] == "interrupted"
        assert outcome["scored"] == 20
        assert len(bench.scores()) == len(bench.generations()) == 20
        resumed = json.loads(child(bench.path, 30, server.url).communicate()[0])
        assert (resumed["generated"], resumed["generation_cached"], resumed["stopped"]) == (10, 20, "")
        assert len(server.calls) == 30


def test_sigterm_is_handled_like_ctrl_c(tmp_path: Path) -> None:
    with ScoreServer(seconds=0.02) as server:
        process = child(tmp_path / "run", 400, server.url, grace=20)
        wait_until(lambda: server.answered() >= 10, process)
        process.terminate()
        outcome = json.loads(process.communicate(timeout=PATIENCE)[0])
        bench = Bench(tmp_path / "run")
        assert outcome["stopped"] == "interrupted"
        assert len(bench.scores()) == outcome["scored"] < 400
        assert outcome["scored"] == len(server.calls), "calls in flight could finish"


def test_a_second_ctrl_c_ends_the_process_at_once(tmp_path: Path) -> None:
    with ScoreServer() as server:
        process = child(tmp_path / "run", 3, server.url, hang="1")
        assert process.stdout is not None and process.stdout.readline() == "hanging\n"
        wait_until(lambda: process.send_signal(signal.SIGINT), process)
        assert process.wait(timeout=PATIENCE) == 130
        assert process.stdout.read() == "", "it did not wait to print the outcome"


def test_no_worker_process_outlives_a_killed_run(tmp_path: Path, hostile: Path) -> None:
    code = (
        "import sys; from tests.helpers.engine import *\n"
        "kind = ComponentRef('generators', 'knowgen_hostile.generators:HangsAlways')\n"
        "from knowgen_hostile.generators import HangsAlways\n"
        "handle = generator_handle(HangsAlways(), component_ref=kind)\n"
        "Bench(Path(sys.argv[1])).run(3, handle, options=quick(workers=2))\n"
    )
    process = start_python("-c", code, tmp_path / "run")

    def workers() -> list[int]:
        processes = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True).stdout
        rows = [
            line.split(maxsplit=2) for line in processes.splitlines() if "knowgen.engine.executors.worker_main" in line
        ]
        return [int(row[0]) for row in rows if int(row[1]) == process.pid]

    wait_until(lambda: len(workers()) == 2, process)
    mine = workers()
    process.kill()
    process.wait()
    wait_until(lambda: not any(_alive(pid) for pid in mine))
    assert not any(_alive(pid) for pid in mine)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return not Path("/proc").exists()
