"""Perturbed images as a task and a generator, so that scoring them is an ordinary run.

A judge must not learn which perturbation it scores. Each perturbed image therefore has an opaque id, and its sample and
ground truth are otherwise those of the original: only `PerturbedTask.images` records the perturbation. One perturbation
adds an instruction to the prompt.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.core.records import GenerationRequest, GroundTruth, Sample, request_id
from knowgen.generators.contract import GeneratedImage
from knowgen.worlds.perturbations.apply import describe_perturbation, perturbed_prompt, render_perturbation
from knowgen.worlds.perturbations.kinds import PERTURBATIONS, REVISION, Perturbation
from knowgen.worlds.perturbations.originals import OriginalSample, read_original

if TYPE_CHECKING:
    from PIL.Image import Image

    from knowgen.tasks.contract import Task


@dataclass(frozen=True)
class PerturbedImage:
    """One perturbation of one sample.

    Attributes:
        id: Opaque id of the sample in the run.
        original: The original sample.
        perturbation: The perturbation.
        summary: Short description of the change to this sample.
        seed: Seed of the perturbations.
    """

    id: str
    original: OriginalSample
    perturbation: Perturbation
    summary: str
    seed: int

    def render(self) -> Image:
        """Return the perturbed image; see `render_perturbation`."""
        return render_perturbation(self.original, self.perturbation, self.seed)


class PerturbedTask:
    """The samples of a world, each once for every perturbation that can be applied to it.

    Args:
        name: Name of the world's task.
        version: Version of the world's task.
        images: The perturbed images.
        seed: Seed of the perturbations.
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
        """Version that depends on the world, the seed and the revision of the perturbations, not on the samples."""
        return self._version

    def __len__(self) -> int:
        return len(self.images)

    def samples(self) -> Iterator[Sample]:
        """Yield the sample of each perturbed image, with its opaque id."""
        for perturbed in self.images.values():
            sample = perturbed.original.sample
            prompt = perturbed_prompt(sample.prompt, perturbed.perturbation)
            yield sample.model_copy(update={"id": perturbed.id, "prompt": prompt})

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the ground truth of the original.

        Raises:
            DataError: If the id is unknown.
        """
        if sample_id not in self.images:
            raise DataError(f"unknown perturbed image {sample_id!r}", where=self.name)
        return self.images[sample_id].original.truth.model_copy(update={"sample_id": sample_id})


class PerturbedImages:
    """Generator that renders the images of a `PerturbedTask`. It is privileged, so leaderboards refuse it.

    Args:
        task: Task with the images to render.
    """

    spec_name = "knowgen.worlds.changes.task:ChangedPictures"
    """Name in keys. It is fixed, so that results stay valid if the class is moved or renamed."""

    revision = REVISION
    privileged = True
    concurrency = 2

    def __init__(self, task: PerturbedTask) -> None:
        self._images = {request_id(perturbed.id, 0): perturbed for perturbed in task.images.values()}

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Render the perturbed image of a request.

        Raises:
            ConfigError: If the request belongs to another task.
        """
        perturbed = self._images.get(request.id)
        if perturbed is None:
            raise ConfigError("the request belongs to another task", where="PerturbedImages")
        return GeneratedImage(image=await asyncio.to_thread(perturbed.render), request_id=request.id)


def make_perturbed_task(task: Task, samples: Sequence[Sample], count: int, seed: int) -> PerturbedTask:
    """Select samples of a world and plan every perturbation that can be applied to them.

    Args:
        task: Task of the world.
        samples: Candidates, samples of the task.
        count: Number of samples to select, spread over categories; all if there are fewer. A smaller count selects a
            subset of a larger one.
        seed: Seed of the selection and of the perturbations, at least 0.

    Raises:
        UsageError: If there are no samples or `count` is below 1.
        DataError: If the task is not a synthetic world.
    """
    if count < 1 or not samples:
        raise UsageError("no sample to perturb", where=f"task {task.name}", fix="give a count of 1 or more")
    planned = [_plan_sample(read_original(sample, task.truth(sample.id)), seed) for sample in samples]
    selected = _spread_over_categories(planned, seed)[:count]
    selected[0][0].original.rerender()  # fail before anything is paid if the world was rendered by another version
    return PerturbedTask(task.name, task.version, [perturbed for plan in selected for perturbed in plan], seed)


def _plan_sample(original: OriginalSample, seed: int) -> list[PerturbedImage]:
    """Return the perturbed images of one sample, `nothing` first."""
    plan = []
    for perturbation in PERTURBATIONS:
        summary = describe_perturbation(original, perturbation, seed)
        if summary is not None:
            plan.append(
                PerturbedImage(
                    _opaque_id(original.sample.id, perturbation, seed), original, perturbation, summary, seed
                )
            )
    return plan


def _opaque_id(sample_id: str, perturbation: Perturbation, seed: int) -> str:
    return hashlib.sha256(f"changed\0{REVISION}\0{seed}\0{sample_id}\0{perturbation.name}".encode()).hexdigest()[:16]


def _spread_over_categories(plans: Sequence[list[PerturbedImage]], seed: int) -> list[list[PerturbedImage]]:
    """Return the plans in rounds of one sample per category.

    Within a category, samples with more possible perturbations come first, in random order among equals: a sample
    without text cannot test digits and names.
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
