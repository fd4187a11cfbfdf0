"""How fast and how exact is the world check? Builds a world, checks its ground truths, changes them, checks again.

    python benchmarks/world_check.py [--samples 96] [--seed 51] [--processes 2]

Prints seconds an image, processor time by stage, how many required texts are read, how many ground truths earn full
marks, and for every change of the pictures how often texts are read and subjects and look-alikes told apart.
"""

from __future__ import annotations

import argparse
import io
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from knowgen.core.records import GroundTruth
from knowgen.tasks.folder import FolderTask
from knowgen.worlds.build import build_world
from knowgen.worlds.check.judgement import Judgement, judge
from knowgen.worlds.check.matching import Verdict, match_subject
from knowgen.worlds.check.ocr import read_lines
from knowgen.worlds.check.sight import Sight, open_pixels
from knowgen.worlds.check.text import find_texts
from knowgen.worlds.check.wanted import read_wanted
from knowgen.worlds.drawing.compose import compose
from knowgen.worlds.drawing.looks import Look, draw_look

Change = Callable[[Image.Image, random.Random], Image.Image]


def resized(factor: float) -> Change:
    """Returns the change to another size."""
    return lambda picture, _: picture.resize(
        (round(picture.width * factor), round(picture.height * factor)), Image.Resampling.BICUBIC
    )


def jpeg(quality: int) -> Change:
    """Returns the change that packing as JPEG does."""

    def pack(picture: Image.Image, _rng: random.Random) -> Image.Image:
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return pack


def shifted(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Moves a picture by up to 5 % each way; what comes in at the edge repeats it."""
    across, down = rng.randint(-38, 38), rng.randint(-25, 25)
    moved = cv2.warpAffine(
        np.asarray(picture),
        np.array([[1, 0, across], [0, 1, down]], np.float32),
        picture.size,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return Image.fromarray(moved)


def blurred(picture: Image.Image, _rng: random.Random) -> Image.Image:
    """Blurs by 1.2 pixels."""
    return Image.fromarray(cv2.GaussianBlur(np.asarray(picture), (0, 0), 1.2))


def grainy(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Adds noise of standard deviation 8."""
    grain = np.random.default_rng(rng.randrange(10**6)).normal(0, 8, (picture.height, picture.width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


def relit(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Changes contrast by up to 15 % and brightness by up to 15 of 255."""
    lit = (np.asarray(picture).astype(np.float32) - 128) * rng.uniform(0.85, 1.1) + 128 + rng.uniform(-15, 15)
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))


WHOLE: Mapping[str, Change] = {
    "as drawn": lambda picture, _: picture,
    "shifted": shifted,
    "0.7 x": resized(0.7),
    "1.3 x": resized(1.3),
    "JPEG 80": jpeg(80),
    "JPEG 60": jpeg(60),
    "blurred": blurred,
    "grainy": grainy,
    "relit": relit,
}
"""Changes of the whole picture."""


def turned(degrees: float) -> Change:
    """Returns the change by a turn to either side."""
    return lambda picture, rng: picture.rotate(degrees * rng.choice((-1, 1)), Image.Resampling.BICUBIC, expand=True)


def bent(percent: float) -> Change:
    """Returns an elastic change of at most `percent` of the width."""

    def bend(picture: Image.Image, rng: random.Random) -> Image.Image:
        noise, shape = np.random.default_rng(rng.randrange(10**6)), (picture.height, picture.width)
        drift: list[NDArray[np.float32]] = []
        for _ in range(2):
            wave = cv2.GaussianBlur(noise.normal(0, 1, shape).astype(np.float32), (0, 0), picture.width / 9)
            drift.append(np.asarray(wave / np.abs(wave).max() * percent * picture.width / 100, np.float32))
        down, across = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
        moved = cv2.remap(np.asarray(picture), across + drift[0], down + drift[1], cv2.INTER_LINEAR)
        return Image.fromarray(moved)

    return bend


def recoloured(degrees: int) -> Change:
    """Returns the change by a turn of all hues."""

    def recolour(picture: Image.Image, _rng: random.Random) -> Image.Image:
        values = np.asarray(picture)
        hsv = cv2.cvtColor(np.ascontiguousarray(values[..., :3]), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + degrees // 2) % 180
        return Image.fromarray(np.dstack([cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), values[..., 3]]))

    return recolour


SUBJECT: Mapping[str, Change] = {
    "mirrored": lambda picture, _: ImageOps.mirror(picture),
    "turned 15": turned(15),
    "1.2 x wide": lambda picture, _: picture.resize((round(picture.width * 1.2), picture.height)),
    "bent 2 %": bent(2),
    "bent 4 %": bent(4),
    "bent 8 %": bent(8),
    "hue +16": recoloured(16),
    "hue +40": recoloured(40),
}
"""Changes of the subject alone, before it is put into the picture."""


@dataclass
class Tally:
    """Counts of one process, added up at the end."""

    images: int = 0
    wall: float = 0.0
    stages: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)
    texts: Counter[tuple[str, bool]] = field(default_factory=Counter)
    verdicts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Adds another process's counts."""
        self.images += other.images
        self.wall += other.wall
        self.stages.update(other.stages)
        self.marks.update(other.marks)
        self.texts.update(other.texts)
        self.verdicts.update(other.verdicts)
        self.misses += other.misses


def check_truths(folder: Path, first: int, step: int) -> Tally:
    """Checks every `step`-th ground truth as drawn, timed."""
    cv2.setNumThreads(1)
    task, tally = FolderTask(folder), Tally()
    items = [(truth, truth.image) for truth in _truths(task, first, step)]
    warm = np.zeros((64, 64, 3), np.uint8)
    judge(warm, read_wanted(items[0][0]))  # loads the recogniser and draws the scenes, once a process
    for truth, image in items:
        if image is None:
            continue
        started = time.perf_counter()
        judgement = judge(open_pixels(image.open()), read_wanted(truth))
        tally.wall += time.perf_counter() - started
        tally.images += 1
        tally.stages.update(judgement.seconds)
        _count_marks(tally, truth, judgement)
    return tally


def _truths(task: FolderTask, first: int, step: int) -> list[GroundTruth]:
    return [task.truth(sample.id) for number, sample in enumerate(task.samples()) if number % step == first]


def _count_marks(tally: Tally, truth: GroundTruth, judgement: Judgement) -> None:
    for dimension, value in judgement.values.items():
        tally.marks[f"{dimension} full" if value == 1 else f"{dimension} less"] += 1
    tally.marks["all full" if set(judgement.values.values()) == {1.0} else "not all full"] += 1
    if set(judgement.values.values()) != {1.0}:
        tally.misses.append(f"{truth.sample_id}: {judgement.rationale}")


def check_changes(folder: Path, first: int, step: int) -> Tally:
    """Reads texts and looks for subjects in changed pictures, right ones and look-alikes."""
    cv2.setNumThreads(1)
    tally = Tally()
    for truth in _truths(FolderTask(folder), first, step):
        if truth.image is None:
            continue
        picture = truth.image.open().convert("RGB")
        for name, change in WHOLE.items():
            changed = open_pixels(change(picture, random.Random(f"{truth.sample_id}/{name}")))
            found = find_texts(truth.required_text, read_lines(changed))
            tally.texts[name, True] += len(found.found)
            tally.texts[name, False] += len(found.missing)
            if found.missing:
                tally.misses.append(f"{name}: {', '.join(found.missing)} not read in {truth.sample_id}")
        _check_subject(tally, truth)
    return tally


def _check_subject(tally: Tally, truth: GroundTruth) -> None:
    wanted = read_wanted(truth)
    subject, lines = wanted.subjects[0], list(truth.required_text)
    for role, look in (("right", subject.look), ("look-alike", subject.look_alike)):
        for name, change in (*WHOLE.items(), *SUBJECT.items()):
            rng = random.Random(f"{truth.sample_id}/{name}/{role}")
            drawn = _cut(look)
            shown = change(drawn, rng) if name in SUBJECT else drawn
            picture = compose(
                wanted.scene,
                [shown],
                lines,
                truth.extra["surface"],
                layouts="painter",
                seed=truth.sample_id,
                scene_seed=truth.sample_id,
            ).image
            changed = change(picture, rng) if name in WHOLE else picture
            verdict = match_subject(Sight.of(open_pixels(changed)), subject.look, subject.look_alike).verdict
            tally.verdicts[name, role, verdict.value] += 1


def _cut(look: Look) -> Image.Image:
    drawn = draw_look(look, 300)
    return drawn.crop(drawn.getbbox())


def in_processes(work: Callable[[Path, int, int], Tally], folder: Path, processes: int) -> tuple[Tally, float]:
    """Runs the work in processes and returns what it counted and the seconds it took."""
    started = time.perf_counter()
    total = Tally()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for tally in pool.map(work, [folder] * processes, range(processes), [processes] * processes):
            total.add(tally)
    return total, time.perf_counter() - started


def report_truths(tally: Tally, processes: int) -> None:
    """Prints speed and marks of the ground truths."""
    print(
        f"{tally.images} ground truths, {processes} processes: {tally.wall / tally.images / processes:.3f} s an image"
    )
    for stage, seconds in tally.stages.items():
        print(f"  {stage:10s} {seconds / tally.images:.3f} s of processor time an image")
    print(f"full marks in all dimensions: {tally.marks['all full']} of {tally.images}")
    for name in ("faithfulness", "visual_correctness", "text_accuracy", "aesthetics"):
        full, less = tally.marks[f"{name} full"], tally.marks[f"{name} less"]
        print(f"  {name:20s} {full} of {full + less}")


def report_changes(tally: Tally) -> None:
    """Prints the table of changes."""
    print(f"\n{'change':12s} {'texts read':>16s} {'right: right':>14s} {'look-alike: right':>19s}")
    for name in dict.fromkeys((*WHOLE, *SUBJECT)):
        read, unread = tally.texts[name, True], tally.texts[name, False]
        texts = f"{read} of {read + unread}" if read + unread else ""
        cells = []
        for role in ("right", "look-alike"):
            count = sum(tally.verdicts[name, role, verdict.value] for verdict in Verdict)
            cells.append(f"{tally.verdicts[name, role, 'right']} of {count}")
        print(f"{name:12s} {texts:>16s} {cells[0]:>14s} {cells[1]:>19s}")


def main() -> None:
    """Parses the arguments and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--seed", type=int, default=51)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--speed-only", action="store_true", help="leave the changes out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = build_world(Path(scratch) / "world", args.seed, args.samples)
        truths, _ = in_processes(check_truths, folder, args.processes)
        report_truths(truths, args.processes)
        misses = truths.misses
        if not args.speed_only:
            changes, seconds = in_processes(check_changes, folder, args.processes)
            report_changes(changes)
            print(f"({seconds:.0f} s)")
            misses = misses + changes.misses
        print("\n".join(("", "misses:", *misses)) if misses else "\nno miss")


if __name__ == "__main__":
    main()
