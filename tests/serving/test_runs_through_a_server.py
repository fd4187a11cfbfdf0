"""A run through `knowgen serve` gives the images of a run in process, even if a server dies."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from knowgen.core.records import Generation, GenerationRequest, GenerationStatus
from knowgen.generators.http.generator import HttpGenerator
from knowgen.store.run import RunStore
from tests.helpers.processes import wait_until
from tests.helpers.serving import Served, served


def run(folder: Path, out: Path, generator: str, *words: str, limit: int = 4) -> dict[str, Generation]:
    """Run `knowgen run` on the mini world in a process of its own; return the generations by sample."""
    command = ["run", "--task", "knowgen_mini", "--generator", generator, "--limit", str(limit), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "knowgen", *command, "--scorer", "pixels", "--seed", "11", *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    with RunStore.read(out) as store:
        return {one.sample_id: one for _, one in store.generations()}


def pixels(generation: Generation) -> bytes:
    assert generation.image is not None
    return generation.image.open().convert("RGB").tobytes()


def test_the_same_pixels_come_through_a_server(tmp_path: Path) -> None:
    here = run(tmp_path, tmp_path / "here", "noise")
    with served(tmp_path, "noise") as server:
        there = run(tmp_path, tmp_path / "there", f"http:{server.url}")
        assert server.metric('knowgen_requests_total{outcome="ok"}') == 4
    assert here.keys() == there.keys() and len(here) == 4
    assert all(pixels(here[name]) == pixels(there[name]) for name in here)
    assert len({pixels(one) for one in there.values()}) == 4
    settings = next(iter(there.values())).settings
    assert settings["served"]["generator"] == "noise" and settings["server"] == server.url


def test_servers_that_cannot_be_reached_end_a_run_with_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "knowgen", "run", "--task", "knowgen_mini", "--generator", "http:http://127.0.0.1:1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1 and "start it first" in done.stderr


def test_two_runs_share_a_server_without_a_queue(tmp_path: Path) -> None:
    async def scenario(url: str) -> list[Any]:
        generators = [HttpGenerator(url), HttpGenerator(url, per_server=3)]
        requests = [GenerationRequest(id=f"q{number}", prompt=f"p{number}", seed=number) for number in range(4)]
        try:
            return await asyncio.gather(*(generator.generate(one) for generator in generators for one in requests))
        finally:
            for generator in generators:
                await generator.close()

    with served(tmp_path, "makers.py:Plain", "-g", "seconds=0.2", "--queue", "0") as server:
        results = asyncio.run(scenario(server.url))
        assert server.metric('knowgen_requests_total{outcome="busy"}') > 0  # and yet nothing was lost
    assert len(results) == 8 and all(one.status is GenerationStatus.OK for one in results)


def kill_in_the_middle(server: Served) -> None:
    wait_until(lambda: len(server.log()) >= 3)
    server.process.kill()


def test_no_image_is_lost_when_a_server_dies_during_a_run(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        served(tmp_path / "one", "makers.py:Plain", "-g", "seconds=0.3") as one,
        served(tmp_path / "two", "makers.py:Plain", "-g", "seconds=0.3") as two,
    ):
        killer = threading.Thread(target=kill_in_the_middle, args=[one], daemon=True)
        killer.start()
        run_of_both = run(tmp_path, tmp_path / "out", f"http:{one.url},{two.url}", limit=12)
        killer.join()
        assert len(run_of_both) == 12 and all(each.image is not None for each in run_of_both.values())
        assert len(two.log()) >= 8
    assert {each.settings["server"] for each in run_of_both.values()} == {one.url, two.url}
