"""Measure the report of a large run: how long it takes to write, how heavy it is, and how quickly it can be used.

    python benchmarks/report.py [--samples 5000] [--systems 1 3] [--slow 1] [--times 1] [--against COMMIT]

Makes runs of several systems with two scorers under two protocols, and images of 96 x 64 pixels. For each number of
systems it prints

1. time and memory of `knowgen report`, the first time and again, when the images are reused (before that, how the
   memory of one system grows with the samples);
2. the size of page, index and details, and what Chromium loads before the page can be used;
3. the time until the first content is painted, and until the first samples are there, from the start of navigation;
4. the longest response to a filter, a search or another order, from the event to the next frame; a search waits 100 ms
   for the next letter;
5. elements and memory of the page after 30 screens and after 600 samples were scrolled through.

`--slow 4` divides the speed of the browser's processor by four. The last column is the goal; a missed one ends the
command with exit code 1. It needs Chromium and playwright.

With `--against` both commits write the report of the first number of systems in turn, `--times` times, each into a new
folder, and the figures of this one are printed with their ratio to the other; no browser is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.against import HELP, Cost, checkouts, compared, load, python
from tests.helpers.report_runs import RunMaker

SYSTEMS = (("open_book", 0.8), ("closed_book", 0.3), ("oracle", 0.95))

WRITE_GOAL = 10.0
"""Seconds to write the report of one system with 5,000 samples for the first time, on two idle cores."""

OPEN_GOAL = 2.0
"""Seconds until the first samples can be read."""

RESPONSE_GOAL = 0.2
"""Seconds until a filter or another order is shown."""

ASK = """async ([name, value]) => {
  const start = performance.now();
  const field = document.getElementById("filters").elements[name];
  field.value = value;
  const changed = new Promise((done) => addEventListener("hashchange", () => setTimeout(done, 0), { once: true }));
  field.dispatchEvent(new Event("input", { bubbles: true }));
  await changed;
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  return performance.now() - start;
}"""

CHANGES = (
    ("sort", "low"), ("sort", "apart"), ("category", "game"), ("category", ""), ("q", "number 4321"), ("q", "stormy"),
    ("q", ""), ("status", "problem"), ("sort", "high"), ("status", ""),
)  # fmt: skip


class Goals:
    """Prints figures beside their goals, and remembers whether one was missed."""

    def __init__(self) -> None:
        self.missed = False

    def show(self, name: str, value: str, met: bool | None = None, goal: str = "") -> None:
        """Print one line."""
        self.missed |= met is False
        verdict = {None: "", True: f"{goal}: met", False: f"{goal}: MISSED"}[met]
        print(f"  {name:<42} {value:>14}  {verdict}", flush=True)


def make_runs(folder: Path, samples: int, systems: int) -> list[Path]:
    """Write the runs, with prompts and rationales of usual length, and return their directories."""
    folder.mkdir(exist_ok=True)
    maker = RunMaker(folder)
    maker.rationale *= 4
    prompts = [
        f"A painting of the lighthouse number {number} at the coast of Teld on a stormy evening of 1898, with the "
        "three stripes of its tower, the house of its keeper, a boat, and a sign with its name and the year."
        for number in range(samples)
    ]
    chosen = maker.samples(samples, prompts)
    scorers = (maker.CHECK, maker.JUDGE)
    return [
        maker.run(name, chosen, skill, scorers=scorers, folder=name).store.path for name, skill in SYSTEMS[:systems]
    ]


def write(runs: list[Path], out: Path, goals: Goals, name: str) -> int:
    """Write the report in a process of its own, print its time and memory, and return the memory in KiB."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "knowgen", "report", *map(str, runs), "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the report was not written: status {status}")
    goals.show(f"written {name}", f"{time.perf_counter() - start:.1f} s")
    goals.show(f"  memory, {name}", f"{usage.ru_maxrss / 1024:.0f} MiB")
    return int(usage.ru_maxrss)


def growth(folder: Path, samples: int, goals: Goals) -> None:
    """Print how much more memory a report takes than one of a fifth of the samples."""
    fifth = max(1, samples // 5)
    peaks = []
    for number in (fifth, samples):
        (run,) = make_runs(folder / f"runs-{number}", number, 1)
        peaks.append(write([run], folder / f"grown-{number}", goals, f"with {number:,} samples"))
    goals.show(f"memory of {samples:,} to {fifth:,} samples", f"{peaks[1] / peaks[0]:.2f}")


def compare(commit: str, runs: list[Path], folder: Path, times: int, goals: Goals) -> None:
    """Print what this commit takes to write a report, and its ratio to an earlier one."""
    costs: dict[str, list[Cost]] = {}
    with checkouts(commit) as trees:
        for number in range(times):  # no report is deleted meanwhile: ext4 would create files slowly for half a minute
            for name, tree in trees.items():
                command = ("-m", "knowgen", "report", *map(str, runs), "-o", str(folder / f"{number}-{name}"))
                costs.setdefault(name, []).append(python(tree, *command))
    print(compared("wall time", {name: [each.seconds for each in own] for name, own in costs.items()}, "s"))
    print(compared("processor time", {name: [each.cpu for each in own] for name, own in costs.items()}, "s"))
    best = min(each.seconds for each in costs["now"])
    goals.show("written the first time", f"{best:.1f} s", best < WRITE_GOAL, f"{WRITE_GOAL:.0f} s")


def size(*paths: Path) -> str:
    """Return the size of files in kB or MB."""
    total = sum(path.stat().st_size for path in paths)
    return f"{total / 1e6:.1f} MB" if total >= 1e6 else f"{total / 1e3:.0f} kB"


def weigh(out: Path, goals: Goals) -> None:
    """Print the sizes of a report's files."""
    details = [*(out / "data").glob("chunk-*.js")]
    goals.show("page, scripts and style sheet", size(out / "index.html", *(out / "static").iterdir()))
    goals.show("index of the samples", size(out / "data" / "index.js"))
    goals.show(f"details in {len(details)} files", size(*details))


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Start Chromium."""
    from playwright.sync_api import sync_playwright

    path = next((each for each in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if each), None)
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path)
        yield started
        started.close()


def use(index: Path, chromium: Any, slow: float, goals: Goals) -> None:
    """Open a report, use it, and print what it took."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, offline=True)
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": slow})
    session.send("Performance.enable")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(index.as_uri(), wait_until="commit")
    page.wait_for_selector(".card", state="attached")
    usable = page.evaluate("performance.now()") / 1000
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
    goals.show("first content painted", f"{painted:.2f} s")
    goals.show("first samples there", f"{usable:.2f} s", usable < OPEN_GOAL, f"{OPEN_GOAL:.0f} s")
    goals.show("files loaded until then", str(len(requests)))
    _memory(page, session, goals, "when opened")
    times = {change: page.evaluate(ASK, list(change)) / 1000 for change in CHANGES}
    for kind, name in (("sort", "order"), ("category", "filter"), ("status", "filter by status"), ("q", "search")):
        longest = max(seconds for change, seconds in times.items() if change[0] == kind)
        goals.show(f"response to {name}", f"{longest * 1000:.0f} ms", longest < RESPONSE_GOAL, "200 ms")
    for screens, name in ((30, "after 30 screens"), (None, "after 600 samples")):
        _scroll(page, screens)
        _memory(page, session, goals, name)
    again = page.evaluate(ASK, ["sort", "low"]) / 1000
    goals.show("response to order then", f"{again * 1000:.0f} ms", again < RESPONSE_GOAL, "200 ms")
    context.close()


def _scroll(page: Any, screens: int | None) -> None:
    """Scroll down some screens, or until 600 samples were shown."""
    while screens is None or screens > 0:
        page.evaluate(
            "window.scrollBy(0, innerHeight)" if screens else "window.scrollTo(0, document.body.scrollHeight)"
        )
        page.wait_for_timeout(40)
        if screens is not None:
            screens -= 1
        elif page.locator(".card").count() >= min(600, page.evaluate("KNOWGEN.data.samples.length")):
            return


def _memory(page: Any, session: Any, goals: Goals, when: str) -> None:
    session.send("HeapProfiler.collectGarbage")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    elements = page.evaluate("document.querySelectorAll('*').length")
    goals.show(f"elements and heap {when}", f"{elements:,}, {metrics['JSHeapUsedSize'] / 1e6:.0f} MB")


def main() -> int:
    """Measure, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--systems", type=int, nargs="+", default=[1, 3], choices=[1, 2, 3])
    parser.add_argument("--slow", type=float, default=1.0, help="how much slower the browser's processor is")
    parser.add_argument("--times", type=int, default=1, help="how often each commit is measured, with --against")
    parser.add_argument("--against", metavar="COMMIT", help=HELP)
    options = parser.parse_args()
    goals = Goals()
    print(load())
    with tempfile.TemporaryDirectory(prefix="knowgen.benchmark.") as folder:
        runs = make_runs(Path(folder), options.samples, max(options.systems))
        if options.against:
            compare(options.against, runs[: options.systems[0]], Path(folder), options.times, goals)
            return int(goals.missed)
        growth(Path(folder), options.samples, goals)
        for systems in options.systems:
            print(f"{options.samples:,} samples, {systems} {'system' if systems == 1 else 'systems'}")
            out = Path(folder) / f"report-{systems}"
            write(runs[:systems], out, goals, "the first time")
            write(runs[:systems], out, goals, "again")
            weigh(out, goals)
            with browser() as chromium:
                use(out / "index.html", chromium, options.slow, goals)
    return int(goals.missed)


if __name__ == "__main__":
    sys.exit(main())
