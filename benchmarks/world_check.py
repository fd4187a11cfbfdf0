"""Measure speed and accuracy of the world check: build a world, check its ground truths, change them, check again.

    python benchmarks/world_check.py [--samples 96] [--seed 51] [--processes 2]

Prints the seconds per image, the processor time by stage, how many ground truths get full scores, and for every change
of the images how often texts are read and subjects and distractors are distinguished.
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
from knowgen.worlds.checker.assessment import ImageAssessment, assess_image
from knowgen.worlds.checker.image_features import ImageFeatures
from knowgen.worlds.checker.matching import SubjectVerdict, match_subject
from knowgen.worlds.checker.ocr import read_lines
from knowgen.worlds.checker.requirements import read_requirements
from knowgen.worlds.checker.text import find_texts
from knowgen.worlds.rendering.appearance import Appearance, draw_appearance
from knowgen.worlds.rendering.compose import compose

ImageChange = Callable[[Image.Image, random.Random], Image.Image]


def resized(factor: float) -> ImageChange:
    """Return the change to another size."""
    return lambda image, _: image.resize(
        (round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC
    )


def jpeg(quality: int) -> ImageChange:
    """Return the change by JPEG compression."""

    def pack(image: Image.Image, _rng: random.Random) -> Image.Image:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return pack


def shifted(image: Image.Image, rng: random.Random) -> Image.Image:
    """Move an image by up to 5 % on each axis; its edge is repeated."""
    across, down = rng.randint(-38, 38), rng.randint(-25, 25)
    moved = cv2.warpAffine(
        np.asarray(image),
        np.array([[1, 0, across], [0, 1, down]], np.float32),
        image.size,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return Image.fromarray(moved)


def blurred(image: Image.Image, _rng: random.Random) -> Image.Image:
    """Blur by 1.2 pixels."""
    return Image.fromarray(cv2.GaussianBlur(np.asarray(image), (0, 0), 1.2))


def grainy(image: Image.Image, rng: random.Random) -> Image.Image:
    """Add noise of standard deviation 8."""
    grain = np.random.default_rng(rng.randrange(10**6)).normal(0, 8, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def relit(image: Image.Image, rng: random.Random) -> Image.Image:
    """Change contrast by up to 15 % and brightness by up to 15 of 255."""
    lit = (np.asarray(image).astype(np.float32) - 128) * rng.uniform(0.85, 1.1) + 128 + rng.uniform(-15, 15)
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))


WHOLE: Mapping[str, ImageChange] = {
    "unchanged": lambda image, _: image,
    "shifted": shifted,
    "0.7 x": resized(0.7),
    "1.3 x": resized(1.3),
    "JPEG 80": jpeg(80),
    "JPEG 60": jpeg(60),
    "blurred": blurred,
    "grainy": grainy,
    "relit": relit,
}
"""Changes of the whole image."""


def turned(degrees: float) -> ImageChange:
    """Return the change by a rotation in either direction."""
    return lambda image, rng: image.rotate(degrees * rng.choice((-1, 1)), Image.Resampling.BICUBIC, expand=True)


def bent(percent: float) -> ImageChange:
    """Return an elastic change of at most `percent` of the width."""

    def bend(image: Image.Image, rng: random.Random) -> Image.Image:
        noise, shape = np.random.default_rng(rng.randrange(10**6)), (image.height, image.width)
        drift: list[NDArray[np.float32]] = []
        for _ in range(2):
            wave = cv2.GaussianBlur(noise.normal(0, 1, shape).astype(np.float32), (0, 0), image.width / 9)
            drift.append(np.asarray(wave / np.abs(wave).max() * percent * image.width / 100, np.float32))
        down, across = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
        moved = cv2.remap(np.asarray(image), across + drift[0], down + drift[1], cv2.INTER_LINEAR)
        return Image.fromarray(moved)

    return bend


def recoloured(degrees: int) -> ImageChange:
    """Return the change by a rotation of all hues."""

    def recolour(image: Image.Image, _rng: random.Random) -> Image.Image:
        values = np.asarray(image)
        hsv = cv2.cvtColor(np.ascontiguousarray(values[..., :3]), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + degrees // 2) % 180
        return Image.fromarray(np.dstack([cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), values[..., 3]]))

    return recolour


SUBJECT: Mapping[str, ImageChange] = {
    "mirrored": lambda image, _: ImageOps.mirror(image),
    "turned 15": turned(15),
    "1.2 x wide": lambda image, _: image.resize((round(image.width * 1.2), image.height)),
    "bent 2 %": bent(2),
    "bent 4 %": bent(4),
    "bent 8 %": bent(8),
    "hue +16": recoloured(16),
    "hue +40": recoloured(40),
}
"""Changes of the subject alone, before it is composed into the image."""


@dataclass
class CheckTally:
    """Counts of one process, summed at the end."""

    images: int = 0
    wall: float = 0.0
    stages: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)
    texts: Counter[tuple[str, bool]] = field(default_factory=Counter)
    verdicts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)

    def add(self, other: CheckTally) -> None:
        """Add the counts of another process."""
        self.images += other.images
        self.wall += other.wall
        self.stages.update(other.stages)
        self.marks.update(other.marks)
        self.texts.update(other.texts)
        self.verdicts.update(other.verdicts)
        self.misses += other.misses


def check_truths(folder: Path, first: int, step: int) -> CheckTally:
    """Check every `step`-th ground truth and measure the time."""
    cv2.setNumThreads(1)
    task, tally = FolderTask(folder), CheckTally()
    items = [(truth, truth.image) for truth in _truths(task, first, step)]
    warm = np.zeros((64, 64, 3), np.uint8)
    assess_image(warm, read_requirements(items[0][0]))  # loads the recogniser and renders the scenes, once per process
    for truth, image in items:
        if image is None:
            continue
        started = time.perf_counter()
        assessment = assess_image(np.asarray(image.open()), read_requirements(truth))
        tally.wall += time.perf_counter() - started
        tally.images += 1
        tally.stages.update(assessment.seconds)
        _count_marks(tally, truth, assessment)
    return tally


def _truths(task: FolderTask, first: int, step: int) -> list[GroundTruth]:
    return [task.truth(sample.id) for number, sample in enumerate(task.samples()) if number % step == first]


def _count_marks(tally: CheckTally, truth: GroundTruth, assessment: ImageAssessment) -> None:
    for dimension, value in assessment.values.items():
        tally.marks[f"{dimension} full" if value == 1 else f"{dimension} less"] += 1
    tally.marks["all full" if set(assessment.values.values()) == {1.0} else "not all full"] += 1
    if set(assessment.values.values()) != {1.0}:
        tally.misses.append(f"{truth.sample_id}: {assessment.rationale}")


def check_changes(folder: Path, first: int, step: int) -> CheckTally:
    """Read texts and match subjects and distractors in changed images."""
    cv2.setNumThreads(1)
    tally = CheckTally()
    for truth in _truths(FolderTask(folder), first, step):
        if truth.image is None:
            continue
        image = truth.image.open()
        for name, change in WHOLE.items():
            changed = np.asarray(change(image, random.Random(f"{truth.sample_id}/{name}")).convert("RGB"))
            match = find_texts(truth.required_text, read_lines(changed))
            tally.texts[name, True] += len(match.recognised)
            tally.texts[name, False] += len(match.missing)
            if match.missing:
                tally.misses.append(f"{name}: {', '.join(match.missing)} not read in {truth.sample_id}")
        _check_subject(tally, truth)
    return tally


def _check_subject(tally: CheckTally, truth: GroundTruth) -> None:
    requirements = read_requirements(truth)
    subject, lines = requirements.subjects[0], list(truth.required_text)
    for role, appearance in (("right", subject.appearance), ("distractor", subject.distractor)):
        for name, change in (*WHOLE.items(), *SUBJECT.items()):
            rng = random.Random(f"{truth.sample_id}/{name}/{role}")
            cutout = _cut(appearance)
            shown = change(cutout, rng) if name in SUBJECT else cutout
            image = compose(
                requirements.scene,
                [shown],
                lines,
                truth.extra["surface"],
                layouts="painter",
                seed=truth.sample_id,
                scene_seed=truth.sample_id,
            ).image
            changed = np.asarray((change(image, rng) if name in WHOLE else image).convert("RGB"))
            verdict = match_subject(ImageFeatures.from_pixels(changed), subject.appearance, subject.distractor).verdict
            tally.verdicts[name, role, verdict.value] += 1


def _cut(appearance: Appearance) -> Image.Image:
    rendered = draw_appearance(appearance, 300)
    return rendered.crop(rendered.getbbox())


def in_processes(
    work: Callable[[Path, int, int], CheckTally], folder: Path, processes: int
) -> tuple[CheckTally, float]:
    """Run the work in processes and return the counts and the seconds."""
    started = time.perf_counter()
    total = CheckTally()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for tally in pool.map(work, [folder] * processes, range(processes), [processes] * processes):
            total.add(tally)
    return total, time.perf_counter() - started


def report_truths(tally: CheckTally, processes: int) -> None:
    """Print speed and scores of the ground truths."""
    print(
        f"{tally.images} ground truths, {processes} processes: {tally.wall / tally.images / processes:.3f} s an image"
    )
    for stage, seconds in tally.stages.items():
        print(f"  {stage:10s} {seconds / tally.images:.3f} s of processor time an image")
    print(f"full scores in all dimensions: {tally.marks['all full']} of {tally.images}")
    for name in ("faithfulness", "visual_correctness", "text_accuracy", "aesthetics"):
        full, less = tally.marks[f"{name} full"], tally.marks[f"{name} less"]
        print(f"  {name:20s} {full} of {full + less}")


def report_changes(tally: CheckTally) -> None:
    """Print the table of changes."""
    print(f"\n{'change':12s} {'texts read':>16s} {'right: right':>14s} {'distractor: right':>19s}")
    for name in dict.fromkeys((*WHOLE, *SUBJECT)):
        read, unread = tally.texts[name, True], tally.texts[name, False]
        texts = f"{read} of {read + unread}" if read + unread else ""
        cells = []
        for role in ("right", "distractor"):
            count = sum(tally.verdicts[name, role, verdict.value] for verdict in SubjectVerdict)
            cells.append(f"{tally.verdicts[name, role, 'right']} of {count}")
        print(f"{name:12s} {texts:>16s} {cells[0]:>14s} {cells[1]:>19s}")


def main() -> None:
    """Parse the arguments and print the results."""
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
