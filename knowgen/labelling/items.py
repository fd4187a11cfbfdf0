"""What is labelled: the images of one or more runs, one by one or in pairs, and the order of each rater."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from knowgen.core.errors import UsageError
from knowgen.core.records import DIMENSIONS, GenerationStatus, GroundTruth, Sample
from knowgen.core.text import count
from knowgen.labelling.questions import question_version
from knowgen.labelling.records import Mode, StoredLabel
from knowgen.store.run import RunStore


@dataclass(frozen=True)
class LabelledImage:
    """An image of a system.

    Attributes:
        system: Name of the system.
        sha256: Hash of its file.
        path: Path of the file.
        side: Longer side in pixels.
    """

    system: str
    sha256: str
    path: Path
    side: int


@dataclass(frozen=True)
class LabelledSample:
    """A sample with its images.

    Attributes:
        sample: The sample.
        truth: Its ground truth.
        prompt_hash: SHA-256 of the prompt.
        images: Images of each repeat, in the order of the systems.
    """

    sample: Sample
    truth: GroundTruth
    prompt_hash: str
    images: Mapping[int, tuple[LabelledImage, ...]]


@dataclass(frozen=True)
class Item:
    """One image, or two in the order from left to right, that a rater is asked about.

    Attributes:
        of: The sample.
        repeat: Repeat of the generation.
        images: One image, or the left and the right one.
    """

    of: LabelledSample
    repeat: int
    images: tuple[LabelledImage, ...]

    @property
    def key(self) -> tuple[str, int, tuple[str, ...]]:
        """What identifies it for every rater, whichever image is on the left."""
        return (self.of.sample.id, self.repeat, tuple(sorted(one.system for one in self.images)))


ItemKey = tuple[str, int, tuple[str, ...]]


@dataclass(frozen=True)
class LabelPlan:
    """Everything that can be labelled.

    Attributes:
        mode: `rate` or `pairs`.
        task: Name of the task.
        task_version: Its version.
        systems: Names of the systems.
        dimensions: Dimensions that are rated.
        samples: Samples with at least one image, or two for pairs.
        left_out: Why images are missing, with their number, by system.
        seed: Seed of the orders.
    """

    mode: Mode
    task: str
    task_version: str
    systems: tuple[str, ...]
    dimensions: tuple[str, ...]
    samples: tuple[LabelledSample, ...]
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    seed: int = 0

    @property
    def total(self) -> int:
        """Number of images or pairs."""
        return sum(len(self._options(one)) for one in self.samples)

    @property
    def question(self) -> str:
        """Version of the questions."""
        return question_version(self.mode, self.dimensions)

    def _options(self, of: LabelledSample) -> list[tuple[int, tuple[LabelledImage, ...]]]:
        size = 2 if self.mode == "pairs" else 1
        return [(repeat, chosen) for repeat, images in of.images.items() for chosen in combinations(images, size)]

    def order(self, rater: str) -> Iterator[Item]:
        """Yield every item once, in an order that depends on the seed and the rater alone.

        Each round has every sample at most once, and all systems, or pairs of systems, about equally often, so that a
        rater who stops early has seen all of them.
        """
        chance = random.Random(f"order\0{self.seed}\0{rater}")
        shift = list(self.samples)
        chance.shuffle(shift)
        ranks = list(combinations(self.systems, 2 if self.mode == "pairs" else 1))
        chance.shuffle(ranks)
        place_of = {names: place for place, names in enumerate(ranks)}
        options = []
        for number, of in enumerate(shift):
            mine = self._options(of)
            mine.sort(
                key=lambda one: (
                    (place_of[tuple(each.system for each in one[1])] - number) % len(ranks),
                    one[0],
                )
            )
            options.append((of, mine))
        for place in range(max((len(mine) for _, mine in options), default=0)):
            turn = [Item(of, *mine[place]) for of, mine in options if place < len(mine)]
            chance.shuffle(turn)
            yield from (self._sided(item, rater) for item in turn)

    def _sided(self, item: Item, rater: str) -> Item:
        """Return an item with its images in the order from left to right for a rater."""
        turned = random.Random(f"side\0{self.seed}\0{rater}\0{item.key}").random() < 0.5
        return Item(item.of, item.repeat, item.images[::-1] if turned else item.images)


class LabelMatcher:
    """Finds what a stored label is about: by the hashes of its images, and by names only where these are not enough.

    Names of systems depend on the runs that are named together, hashes do not.

    Attributes:
        samples: Samples of the plan by id.
    """

    def __init__(self, plan: LabelPlan) -> None:
        self.plan = plan
        self.samples = {one.sample.id: one for one in plan.samples}

    def item(self, label: StoredLabel) -> Item | None:
        """Return the item with the images in the label's own order; None if the runs do not have it any more."""
        plan, of = self.plan, self.samples.get(label.sample)
        if (label.mode, label.task, label.task_version) != (plan.mode, plan.task, plan.task_version) or of is None:
            return None
        if label.prompt != of.prompt_hash or label.question != plan.question:
            return None
        images = of.images.get(label.repeat, ())
        found = []
        for system, sha256 in zip(label.systems, label.images, strict=True):
            same = [one for one in images if one.sha256 == sha256]
            named = [one for one in same if one.system == system]
            if not named and len(same) != 1:
                return None
            found.append((named or same)[0])
        if len({one.system for one in found}) < len(found):
            return None
        return Item(of, label.repeat, tuple(found))


def make_plan(
    runs: Sequence[tuple[str, Path]],
    mode: Mode,
    *,
    ids: Sequence[str] | None = None,
    samples: int | None = None,
    scorer: str | None = None,
    seed: int = 0,
) -> LabelPlan:
    """Read what can be labelled in some runs.

    Args:
        runs: Name and directory of each run.
        mode: `rate` or `pairs`.
        ids: Ids of the samples; all if None.
        samples: Number of samples to draw, the same for all raters; all if None.
        scorer: Scorer of the first run whose dimensions are rated; if None, the first with a dimension of KnowGen, else
            the first.
        seed: Seed of the drawn samples and of the orders.

    Raises:
        UsageError: The runs differ in task, there is only one to compare, an id or the scorer is unknown, or there is
            nothing to label.
        DataError: A directory is not a run.
    """
    if mode == "pairs" and len(runs) < 2:
        raise UsageError("pairs need two runs or more", where="label --mode pairs", fix="name another run")
    names = [name for name, _ in runs]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        places = " and ".join(str(path) for name, path in runs if name == doubled)
        raise UsageError(
            f"two runs are called {doubled!r}", where=places, fix="name each run once, or rename a directory"
        )
    found: dict[str, LabelledSample] = {}
    left_out: dict[str, Counter[str]] = {}
    first = None
    for name, path in runs:
        with RunStore.read(path) as store:
            if first is None:
                first = store.spec
                dimensions = _dimensions(store, scorer)
            elif (first.task, first.task_version) != (store.spec.task, store.spec.task_version):
                tasks = [f"{spec.task} {spec.task_version}" for spec in (first, store.spec)]
                what = f"different tasks: {' and '.join(tasks)}"
                raise UsageError(what, where=f"{runs[0][1]} and {path}", fix="name runs of one task version")
            left_out[name] = _read_run(store, name, set(ids) if ids is not None else None, found)
    assert first is not None
    if unknown := [one for one in ids or () if one not in found]:
        raise UsageError(f"no sample {unknown[0]!r} with an image in the runs", where="--ids", fix="name other ids")
    least = 2 if mode == "pairs" else 1
    usable = [one for one in found.values() if any(len(images) >= least for images in one.images.values())]
    if not usable:
        what = "no image" if mode == "rate" else "no sample of which two runs have an image"
        raise UsageError(what, where=", ".join(str(path) for _, path in runs), fix="generate images first")
    if samples is not None and samples < len(usable):
        drawn = set(random.Random(f"samples\0{seed}").sample([one.sample.id for one in usable], samples))
        usable = [one for one in usable if one.sample.id in drawn]
    return LabelPlan(
        mode=mode,
        task=first.task,
        task_version=first.task_version,
        systems=tuple(name for name, _ in runs),
        dimensions=dimensions,
        samples=tuple(usable),
        left_out={name: dict(reasons) for name, reasons in left_out.items() if reasons},
        seed=seed,
    )


def _dimensions(store: RunStore, scorer: str | None) -> tuple[str, ...]:
    specs = {spec.name: tuple(spec.dimensions) for spec in store.spec.scorers}
    if scorer is not None and scorer not in specs:
        fix = f"it has {', '.join(specs)}" if specs else "it has none"
        raise UsageError(f"no scorer {scorer!r} in this run", where=str(store.path), fix=fix)
    if scorer is not None:
        return specs[scorer]
    known = (names for names in specs.values() if set(names) & set(DIMENSIONS))  # not those of a measure of similarity
    return next(known, next(iter(specs.values()), DIMENSIONS))


def _read_run(store: RunStore, name: str, ids: set[str] | None, found: dict[str, LabelledSample]) -> Counter[str]:
    """Add the images of a run to those of its samples, and return the reasons of the missing ones with their number."""
    reasons: Counter[str] = Counter()
    generations = {(one.sample_id, one.repeat): one for _, one in store.generations()}
    for sample in store.samples():
        if ids is not None and sample.id not in ids:
            continue
        of = found.get(sample.id)
        images: dict[int, tuple[LabelledImage, ...]] = dict(of.images) if of is not None else {}
        for repeat in range(store.spec.repeats):
            generation = generations.get((sample.id, repeat))
            if generation is None or generation.status is not GenerationStatus.OK or generation.image is None:
                state = GenerationStatus.NOT_RUN if generation is None else generation.status
                reasons[f"generation {state.value.replace('_', ' ')}"] += 1
                continue
            ref = generation.image
            image = LabelledImage(name, ref.sha256, store.image_path(ref), max(ref.width, ref.height))
            images[repeat] = (*images.get(repeat, ()), image)
        if of is None:
            prompt_hash = hashlib.sha256(sample.prompt.encode("utf-8", "surrogatepass")).hexdigest()
            of = LabelledSample(sample, store.truth(sample.id), prompt_hash, {})
        found[sample.id] = LabelledSample(of.sample, of.truth, of.prompt_hash, images)
    return reasons


def left_out_lines(plan: LabelPlan) -> list[str]:
    """Return a line for each system that lacks images, with the reasons."""
    return [
        f"{system}: " + ", ".join(f"{count(number, 'image')} ({reason})" for reason, number in sorted(reasons.items()))
        for system, reasons in plan.left_out.items()
    ]
