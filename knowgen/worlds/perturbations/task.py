"""Changed pictures as a task and a generator, so that judging them is an ordinary run.

Judges must not learn which change they look at. So a changed picture gets an opaque id of its own, and its sample and
truth are those of the original in all else: what was changed stands only in `PerturbedTask.images`.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knowgen.errors import ConfigError, DataError, UsageError
from knowgen.generators.contract import Drawing
from knowgen.records import GenerationRequest, GroundTruth, Sample, request_id
from knowgen.worlds.perturbations.apply import describe_perturbation, render_perturbation
from knowgen.worlds.perturbations.kinds import PERTURBATIONS, REVISION, Perturbation
from knowgen.worlds.perturbations.originals import OriginalSample, read_original

if TYPE_CHECKING:
    from PIL.Image import Image

    from knowgen.tasks.contract import Task


@dataclass(frozen=True)
class PerturbedImage:
    """One change to one sample.

    Attributes:
        id: Opaque; the id of the sample in the run.
        original: The sample that is changed.
        perturbation: What is done to it.
        summary: What it comes to for this sample, in a few words.
        seed: Of the changes.
    """

    id: str
    original: OriginalSample
    perturbation: Perturbation
    summary: str
    seed: int

    def render(self) -> Image:
        """Draws it; see `render_perturbation`."""
        return render_perturbation(self.original, self.perturbation, self.seed)


class PerturbedTask:
    """The samples of a world, each once for every change that can be made to it.

    Args:
        name: Of the world's task.
        version: Of the world's task.
        images: The changed pictures.
        seed: Of the changes.
    """

    default_scorers: tuple[str, ...] = ()
    search = ""
    search_version = ""

    def __init__(self, name: str, version: str, images: Sequence[PerturbedImage], seed: int) -> None:
        self.name = f"{name} with known changes"
        self.images = {perturbed.id: perturbed for perturbed in images}
        self.seed = seed
        digest = hashlib.sha256(f"{version}\0{seed}\0{REVISION}".encode()).hexdigest()[:12]
        self._version = f"changes-{REVISION}-{digest}"

    @property
    def version(self) -> str:
        """Changes with the world, the seed and the recipe of the changes; more samples leave it as it is."""
        return self._version

    def __len__(self) -> int:
        return len(self.images)

    def samples(self) -> Iterator[Sample]:
        """Yields the sample of each changed picture, under an opaque id."""
        for perturbed in self.images.values():
            yield perturbed.original.sample.model_copy(update={"id": perturbed.id})

    def truth(self, sample_id: str) -> GroundTruth:
        """Returns the unchanged truth.

        Raises:
            DataError: There is no such changed picture.
        """
        if sample_id not in self.images:
            raise DataError(f"no changed picture {sample_id!r}", where=self.name)
        return self.images[sample_id].original.truth.model_copy(update={"sample_id": sample_id})


class PerturbedImages:
    """Draws the pictures of a `PerturbedTask`. It works from the truth, so it is privileged, and boards refuse it.

    Args:
        task: Whose pictures.
    """

    spec_name = "knowgen.worlds.changes.task:ChangedPictures"
    """Name in keys. It is fixed, so that results made before the class was moved or renamed are found again."""

    revision = REVISION
    privileged = True
    concurrency = 2

    def __init__(self, task: PerturbedTask) -> None:
        self._images = {request_id(perturbed.id, 0): perturbed for perturbed in task.images.values()}

    async def generate(self, request: GenerationRequest) -> Drawing:
        """Draws the changed picture that a request asks for.

        Raises:
            ConfigError: The request belongs to another task.
        """
        perturbed = self._images.get(request.id)
        if perturbed is None:
            raise ConfigError("the request asks for no changed picture", where="ChangedPictures")
        return Drawing(image=await asyncio.to_thread(perturbed.render), request_id=request.id)


def make_perturbed_task(task: Task, samples: Sequence[Sample], count: int, seed: int) -> PerturbedTask:
    """Picks samples of a world and plans every change that can be made to them.

    Args:
        task: The world.
        samples: Those of its samples to pick from.
        count: How many to pick, spread over categories; all where there are fewer. A smaller count picks some of
            those that a larger one picks.
        seed: Decides the pick and the changes, 0 or more.

    Raises:
        UsageError: There is no sample to pick, or none was asked for.
        DataError: The task is no made-up world.
    """
    if count < 1 or not samples:
        raise UsageError("no sample to change", where=f"task {task.name}", fix="take one or more")
    planned = [_plan(read_original(sample, task.truth(sample.id)), seed) for sample in samples]
    picked = _spread(planned, seed)[:count]
    picked[0][0].original.rerender()  # a world drawn by another version is told before anything is paid
    return PerturbedTask(task.name, task.version, [perturbed for plan in picked for perturbed in plan], seed)


def _plan(original: OriginalSample, seed: int) -> list[PerturbedImage]:
    """Plans the changes of one sample, `nothing` first."""
    plan = []
    for perturbation in PERTURBATIONS:
        summary = describe_perturbation(original, perturbation, seed)
        if summary is not None:
            plan.append(
                PerturbedImage(_opaque(original.sample.id, perturbation, seed), original, perturbation, summary, seed)
            )
    return plan


def _opaque(sample_id: str, perturbation: Perturbation, seed: int) -> str:
    return hashlib.sha256(f"changed\0{REVISION}\0{seed}\0{sample_id}\0{perturbation.name}".encode()).hexdigest()[:16]


def _spread(plans: Sequence[list[PerturbedImage]], seed: int) -> list[list[PerturbedImage]]:
    """Orders samples so that each category comes once, then each again, and so on.

    Within a category those to which most changes can be made come first, in random order among equals: a sample
    without writing says nothing of digits and names.
    """
    rng = random.Random(f"changes/{seed}/samples")
    categories: dict[str, list[list[PerturbedImage]]] = {}
    for plan in plans:
        categories.setdefault(plan[0].original.sample.category, []).append(plan)
    for members in categories.values():
        rng.shuffle(members)
        members.sort(key=len, reverse=True)
    rounds = max(map(len, categories.values()))
    return [members[turn] for turn in range(rounds) for members in categories.values() if turn < len(members)]
