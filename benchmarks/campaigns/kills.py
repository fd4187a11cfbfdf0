"""Kill a run again and again, and check that nothing is lost and little is paid twice.

    python benchmarks/campaigns/kills.py [--kills 200] [--slack 0.25] [--seed 0] [--limit-seconds 1800]

A run draws images in a worker process and has them scored, in another one, by a judge on the loopback interface. The
judge logs every call. The run is killed with SIGKILL at random times and started again, until it was killed often
enough. Then it runs to its end. A result counts as received when the scorer has its reply.

Prints the number of kills, calls, lost results (received more than the slack before a kill and not stored afterwards,
or stored before and missing later), calls that were repeated although they were neither in flight nor received within
the slack before a kill, or although their result was stored when the run was started, processes left behind, and
whether the last run ended with every result. Exits with 1 if anything was lost, repeated or left behind.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from benchmarks.setting import LoopbackServer, NumberedTask, Reply, noise_image, specification
from knowgen.core.records import Generation, GroundTruth, Sample, ScoreStatus
from knowgen.store.run import RunStore

CALL_SECONDS = 0.02
"""Time that the judge takes for a call."""


class Painter:
    """Draw an image that depends on the prompt."""

    revision = "1"

    def draw(self, prompt: str, references: list[Image.Image], seed: int) -> Image.Image:
        """Return an image."""
        return noise_image(prompt, (32, 32))


class Judge:
    """Ask the judge on the loopback interface, and log when a reply was received.

    Args:
        url: Its address.
        log: File of the times.
    """

    version = "1"
    dimensions = ("quality",)
    concurrency = 4
    identity_excludes = frozenset({"url", "log"})

    def __init__(self, url: str, log: str) -> None:
        self._url = url
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> float:
        """Return the score."""
        import asyncio

        return await asyncio.to_thread(self._ask, sample.id)

    def _ask(self, name: str) -> float:
        request = urllib.request.Request(self._url, data=name.encode())
        with urllib.request.urlopen(request, timeout=60) as reply:
            value = float(reply.read())
        os.write(self._log, f"{name} {time.monotonic()}\n".encode())
        return value


class JudgeServer(LoopbackServer):
    """A judge that logs the time of every call.

    Attributes:
        calls: Name of the sample and time of each call, in order.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []
        super().__init__(self._answer)

    def _answer(self, body: bytes) -> Reply:
        self.calls.append((body.decode(), time.monotonic()))
        time.sleep(CALL_SECONDS)
        return 200, {}, b"0.5"


def run_child(arguments: dict[str, Any]) -> None:
    """Carry out the run in this process."""
    from knowgen.engine import EngineOptions, run
    from knowgen.workflows.resolve import resolve_generator, resolve_scorer

    file, task = Path(__file__).resolve(), NumberedTask(arguments["count"])
    painter = resolve_generator(f"{file}:Painter", {}, None)
    judge = resolve_scorer(f"{file}:Judge", {"url": arguments["url"], "log": arguments["log"]})
    spec = specification(task, painter.spec, [judge.spec])
    with RunStore.open(Path(arguments["out"]), spec) as store:
        run(spec, task, painter, [judge], store, EngineOptions(progress=False))


def stored(out: Path) -> set[str]:
    """Return the samples whose scores are stored."""
    if not (out / "run.json").is_file():
        return set()
    with RunStore.read(out) as store:
        return {score.sample_id for _, score in store.scores() if score.status is ScoreStatus.OK}


def received(log: Path) -> dict[str, list[float]]:
    """Return the times at which the reply on each sample was received."""
    times: dict[str, list[float]] = defaultdict(list)
    for line in log.read_text().splitlines() if log.is_file() else []:
        name, _, when = line.partition(" ")
        times[name].append(float(when))
    return times


def left_behind(marker: str) -> int:
    """Return the number of worker processes of this campaign that are running."""
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                count += (
                    marker.encode() in (entry / "environ").read_bytes()
                    and b"worker_main" in (entry / "cmdline").read_bytes()
                )
            except OSError:
                continue  # it has ended, or belongs to another user
    return count


class Campaign(NamedTuple):
    """The counts of a campaign.

    Attributes:
        kills: Times the run was killed.
        calls: Calls that the judge received.
        lost: Results that were received or stored and are gone.
        longest: Seconds between a result that a kill lost and the kill, at most; those within the slack included.
        repeated: Calls that were repeated without need.
        in_flight: Calls that were repeated because they were in flight, or received just before a kill.
        left: Worker processes that outlived their run by more than some seconds.
        complete: Whether the last run ended with every result.
    """

    kills: int
    calls: int
    lost: int
    longest: float
    repeated: int
    in_flight: int
    left: int
    complete: bool


def campaign(folder: Path, kills: int, slack: float, seed: int, limit_seconds: float) -> Campaign:
    """Kill and continue a run, and count.

    Args:
        folder: Folder for the run.
        kills: How often it is killed.
        slack: Seconds before a kill in which a received result may be lost.
        seed: Seed of the times.
        limit_seconds: Seconds after which no further kill is made.
    """
    dice, server = random.Random(seed), JudgeServer()
    out, log, marker = folder / "run", folder / "received.log", f"KNOWGEN_CAMPAIGN_RUN={folder.name}"
    count = 40 * kills + 60  # a run scores about 30 samples until it is killed
    arguments = json.dumps({"out": str(out), "count": count, "url": server.url, "log": str(log)})
    command = [sys.executable, str(Path(__file__).resolve()), "--child", arguments]
    environment = {**os.environ, marker.partition("=")[0]: folder.name}
    before: set[str] = set()
    starts: list[float] = []
    deaths: list[float] = []
    lost = left = again = 0
    longest = 0.0
    deadline = time.monotonic() + limit_seconds
    while len(deaths) < kills and time.monotonic() < deadline:
        started = time.monotonic()
        starts.append(started)
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
        first = len(server.calls)
        while len(server.calls) == first and process.poll() is None:
            time.sleep(0.002)
        try:
            process.wait(dice.uniform(0.0, 0.6))
            break  # every sample is scored
        except subprocess.TimeoutExpired:
            process.kill()
        deaths.append(time.monotonic())
        process.wait()
        again += sum(name in before for name, _ in server.calls[first:])
        patience = time.monotonic() + 10
        while left_behind(marker) and time.monotonic() < patience:
            time.sleep(0.02)
        left += left_behind(marker)
        after = stored(out)
        latest = {name: max(times) for name, times in received(log).items()}
        sure = {name for name, when in latest.items() if started < when < deaths[-1] - slack}
        lost += len((before | sure) - after)
        gone = [deaths[-1] - when for name, when in latest.items() if when > started and name not in after]
        longest = max([longest, *gone])
        before = after
    starts.append(time.monotonic())
    first = len(server.calls)
    ended = subprocess.run(command, env=environment, check=False)
    again += sum(name in before for name, _ in server.calls[first:])
    repeated, in_flight = repetitions(server.calls, received(log), starts, deaths, slack)
    complete = ended.returncode == 0 and len(stored(out)) == count
    return Campaign(len(deaths), len(server.calls), lost, longest, max(repeated, again), in_flight, left, complete)


def repetitions(
    calls: list[tuple[str, float]],
    times: dict[str, list[float]],
    starts: list[float],
    deaths: list[float],
    slack: float,
) -> tuple[int, int]:
    """Return how many calls were repeated without need, and how many because a kill came in between.

    Args:
        calls: Sample and time of each call. One that arrives just after a kill was in flight.
        times: Times at which the replies on each sample were received.
        starts: Times at which the run was started.
        deaths: Times at which it was killed; the first belongs to the first start, and so on.
        slack: Seconds before a kill in which a received result may be lost.
    """
    by_sample: dict[str, list[float]] = defaultdict(list)
    for name, when in calls:
        by_sample[name].append(when)
    repeated = in_flight = 0
    for name, asked in by_sample.items():
        for earlier, later in itertools.pairwise(asked):
            session = bisect.bisect(starts, earlier) - 1
            replied = [when for when in times.get(name, ()) if earlier < when < later]
            same = bisect.bisect(starts, later) - 1 == session
            if same or session >= len(deaths) or (replied and min(replied) < deaths[session] - slack):
                repeated += 1
            else:
                in_flight += 1
    return repeated, in_flight


def main() -> int:
    """Run the campaign and print its counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--slack", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-seconds", type=float, default=1800.0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(json.loads(options.child))
        return 0
    with tempfile.TemporaryDirectory(prefix="knowgen-campaign-") as folder:
        result = campaign(Path(folder), options.kills, options.slack, options.seed, options.limit_seconds)
    print(
        f"{result.kills} kills, {result.calls} calls: {result.lost} results lost, {result.repeated} calls repeated "
        f"without need, {result.in_flight} because of a kill (which lost what was received at most "
        f"{result.longest:.2f} s before it), {result.left} processes left behind, "
        f"{'complete' if result.complete else 'NOT complete'} at the end"
    )
    return int(bool(result.lost or result.repeated or result.left or not result.complete))


if __name__ == "__main__":
    sys.exit(main())
