"""Measure how long a board takes to be computed and its site to be built, and how much memory that needs.

    python benchmarks/board.py [--systems 60] [--samples 630] [--processes 2] [--thumbnails] [--figures-only]

A board of made-up systems is written to a temporary folder: scores on the grid of the judges with rationales, 3 % of
the images without a score or failed, two groups, 20 categories. It is built with a quarter of the systems and with all
of them. Prints the seconds, the processor time and the peak memory of all processes together, the largest files, the
ratio of both sizes, and whether the goals are met: 60 systems with 630 samples in under 60 s on two cores, below 1 GB.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from PIL import Image

from knowgen.core.records import (
    DIMENSIONS,
    GROUPS,
    TEXT,
    FailureCause,
    GenerationStatus,
    ParsedScore,
    ScoreStatus,
)
from knowgen.core.spec import GeneratorSpec, RunSpec, ScorerSpec, Selection, canonical
from knowgen.leaderboards.folder import BOARD_FILE, IMAGES, RESULT_FILE, SAMPLES_FILE, SYSTEM_FILE, result_text
from knowgen.leaderboards.records import (
    BoardSample,
    SubmissionResult,
    SubmittedGeneration,
    SubmittedImage,
    SubmittedSample,
    SubmittedScore,
)
from knowgen.stats.summary import Coverage

SECONDS, MEGABYTES = 60.0, 1000.0
"""Goals for 60 systems with 630 samples."""

CATEGORIES = tuple(category for group in GROUPS.values() for category in group)
JUDGE, VERSION = "made-up-judge-1", "1-0123456789ab"
WORDS = ("colour", "label", "crest", "bridge", "date", "emblem", "right", "wrong", "blurred", "missing", "legible")


def digest(*words: object) -> str:
    """Return 64 hex digits that depend on the words only."""
    return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()


def board_samples(number: int) -> list[BoardSample]:
    """Return the samples of the board."""
    rng = random.Random(number)
    return [
        BoardSample(
            id=digest("sample", place)[:16],
            prompt=" ".join(rng.choices(WORDS, k=40)),
            category=CATEGORIES[place % len(CATEGORIES)],
            difficulty=rng.choice(("easy", "medium", "hard")),
            text_required=rng.random() < 0.7,
        )
        for place in range(number)
    ]


def make_board(folder: Path, systems: int, samples: int, *, thumbnails: bool = False) -> None:
    """Write a board of made-up systems.

    Args:
        folder: Folder of the board.
        systems: Number of systems.
        samples: Number of samples.
        thumbnails: Whether each image has a thumbnail.
    """
    folder.mkdir(parents=True)
    scorer = {"name": "vlm:made-up", "versions": [VERSION], "judges": [JUDGE], "dimensions": list(DIMENSIONS)}
    board = {
        "title": "Made-up board",
        "task": {"name": "made_up", "version": VERSION},
        "scorer": scorer,
        "protocol": "strict",
        "protocol_version": "2",
    }
    (folder / BOARD_FILE).write_text(yaml.safe_dump(board), encoding="utf-8")
    of_board = board_samples(samples)
    lines = [canonical(sample.model_dump(mode="json")) for sample in of_board]
    (folder / SAMPLES_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    hardness = [random.Random(sample.id).gauss(0, 0.25) for sample in of_board]
    for number in range(systems):
        revision = folder / f"system-{number:03}" / "1"
        (revision / IMAGES).mkdir(parents=True)
        level = 0.15 + 0.7 * (number // 2 * 2) / systems  # pairs of equal systems
        (revision / SYSTEM_FILE).write_text(yaml.safe_dump(system_file(number)), encoding="utf-8")
        result = result_of(number, level, of_board, hardness, revision / IMAGES if thumbnails else None)
        (revision / RESULT_FILE).write_text(result_text(result), encoding="utf-8")


def system_file(number: int) -> dict[str, object]:
    """Return the content of `system.yaml`."""
    return {
        "name": f"System {number}",
        "revision": "1",
        "kind": ("image_model", "agent", "baseline")[number % 3],
        "authors": ["A. Author"],
        "licence": "Apache-2.0",
        "open_weights": number % 2 == 0,
        "search": number % 3 == 1,
        "parameters": f"{number} B",
        "training_data": "made up",
        "contact": "https://example.org",
        "adapter": {"generator": "noise"},
    }


def result_of(
    number: int, level: float, samples: list[BoardSample], hardness: list[float], images: Path | None
) -> SubmissionResult:
    """Return the result of a made-up system."""
    rng = random.Random(number)
    scorer = ScorerSpec(name="vlm:made-up", version=VERSION, dimensions=DIMENSIONS)
    return SubmissionResult(
        format=1,
        knowgen="0.2.0",
        created=f"2026-01-01T00:{number // 60:02}:{number % 60:02}+00:00",
        spec=RunSpec(
            task="made_up",
            task_version=VERSION,
            selection=Selection(n=len(samples)),
            generator=GeneratorSpec(name=f"made_up_{number}"),
            scorers=(scorer,),
        ),
        scorer=scorer,
        protocol="strict",
        protocol_version="2",
        judges={JUDGE: len(samples)},
        claimed=dict.fromkeys((*DIMENSIONS, "overall"), level),
        coverage=Coverage(expected=len(samples), scored=len(samples)),
        samples=tuple(
            SubmittedSample(
                id=sample.id, generations=(generation(rng, number, min(max(level - hard, 0.02), 0.98), sample, images),)
            )
            for sample, hard in zip(samples, hardness, strict=True)
        ),
    )


def generation(
    rng: random.Random, number: int, level: float, sample: BoardSample, images: Path | None
) -> SubmittedGeneration:
    """Return a made-up generation: 1 % failed, 2 % with a score that failed."""
    chance = rng.random()
    if chance < 0.01:
        score = SubmittedScore()
        return SubmittedGeneration(status=GenerationStatus.FAILED, reason="no image", scores=(score,))
    if chance < 0.03:
        failed = ParsedScore(status=ScoreStatus.FAILED, reason="the reply has no values")
        score = SubmittedScore(strict=failed, lenient=failed, cause=FailureCause.SYSTEM, judge=JUDGE)
    else:
        values = {name: (float(rng.random() < level) + float(rng.random() < level)) / 2 for name in DIMENSIONS}
        na: tuple[str, ...] = ()
        if not sample.text_required:
            del values[TEXT]
            na = (TEXT,)
        rationale = " ".join(rng.choices(WORDS, k=60))
        parsed = ParsedScore(status=ScoreStatus.OK, values=values, na=na, rationale=rationale)
        score = SubmittedScore(strict=parsed, lenient=parsed, judge=JUDGE)
    return SubmittedGeneration(
        status=GenerationStatus.OK,
        image=SubmittedImage(
            sha256=digest(number, sample.id),
            width=1024,
            height=1024,
            format="PNG",
            perceptual=digest(sample.id, number),
            thumbnail=thumbnail(rng, images) if images is not None else "",
        ),
        seconds=rng.uniform(2, 20),
        cost=0.04,
        scores=(score,),
    )


def thumbnail(rng: random.Random, images: Path) -> str:
    """Write a thumbnail of coarse noise, and return its hash."""
    small = Image.frombytes("RGB", (16, 16), rng.randbytes(768)).resize((256, 256), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=75)
    name = hashlib.sha256(buffer.getvalue()).hexdigest()
    (images / f"{name}.jpg").write_bytes(buffer.getvalue())
    return name


@dataclass(frozen=True)
class Measured:
    """Wall and processor time in seconds, and highest memory in MB, of a command and its children together."""

    seconds: float
    processor: float
    megabytes: float


def measured(command: list[str]) -> Measured:
    """Run a command, and measure it.

    Raises:
        SystemExit: It fails.
    """
    start, before = time.perf_counter(), _processor_time()
    process = subprocess.Popen(command)
    highest, ended = [0.0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, highest, ended))
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    return Measured(time.perf_counter() - start, _processor_time() - before, highest[0])


def _processor_time() -> float:
    """Return the processor time of all children that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _watch(pid: int, highest: list[float], ended: threading.Event) -> None:
    while not ended.wait(0.05):
        highest[0] = max(highest[0], sum(map(_resident, _with_children(pid))) / 1e6)


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _text(path).split():
            yield from _with_children(int(child))


def _resident(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 if it has ended."""
    words = _text(Path(f"/proc/{pid}/statm")).split()
    return int(words[1]) * resource.getpagesize() if words else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:  # the process has ended
        return ""


FIGURES = """
import sys
from pathlib import Path
from knowgen.leaderboards.figures import board_figures
from knowgen.leaderboards.folder import read_board
if __name__ == "__main__":
    board_figures(read_board(Path(sys.argv[1])), processes=int(sys.argv[2]))
"""


def build(roots: Path, output: Path, processes: int, *, figures_only: bool) -> Measured:
    """Build the site of a folder of boards, or only compute the figures of its board."""
    if figures_only:
        script = output.with_suffix(".py")
        script.write_text(FIGURES, encoding="utf-8")
        return measured([sys.executable, str(script), str(roots / "made-up"), str(processes)])
    words = ["-m", "knowgen", "board", "build", "-o", str(output), "--root", str(roots), "--processes", str(processes)]
    return measured([sys.executable, *words])


def measured_board(systems: int, chosen: argparse.Namespace) -> Measured:
    """Make a board, build it, and print what that took and the largest files."""
    with tempfile.TemporaryDirectory() as folder:
        roots, output = Path(folder) / "boards", Path(folder) / "site"
        make_board(roots / "made-up", systems, chosen.samples, thumbnails=chosen.thumbnails)
        found = build(roots, output, chosen.processes, figures_only=chosen.figures_only)
        words = f"{found.seconds:6.1f} s  processor {found.processor:6.1f} s  {found.megabytes:6.0f} MB"
        print(f"{systems:>4} systems  {words}", flush=True)
        files = sorted((path for path in output.rglob("*") if path.is_file()), key=lambda one: -one.stat().st_size)
        for path in files[:8]:
            print(f"     {path.stat().st_size / 1000:8.0f} kB  {path.relative_to(output)}")
        if files:
            print(f"     {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")
    return found


def main() -> None:
    """Print the measurements and whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", type=int, default=60)
    parser.add_argument("--samples", type=int, default=630)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--thumbnails", action="store_true")
    parser.add_argument("--figures-only", action="store_true", help="compute the figures without the pages")
    chosen = parser.parse_args()
    sizes = max(1, chosen.systems // 4), chosen.systems
    small, large = (measured_board(systems, chosen) for systems in sizes)
    print(f"ratio of {sizes[1]} to {sizes[0]} systems in processor time: {large.processor / small.processor:.1f}")
    for name, value, goal, unit in (
        ("time", large.seconds, SECONDS, "s"),
        ("memory", large.megabytes, MEGABYTES, "MB"),
    ):
        print(f"{name}: {value:.0f} {unit}, goal {goal:.0f} {unit}: {'met' if value < goal else 'MISSED'}")


if __name__ == "__main__":
    main()
