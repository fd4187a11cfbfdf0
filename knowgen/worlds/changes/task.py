"""Changed pictures as a task and a generator, so that judging them is an ordinary run.

Judges must not learn which change they look at. So a changed picture gets an opaque id of its own, and its sample and
truth are those of the original in all else: what was changed stands only in `ChangedTask.pictures`.
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
from knowgen.worlds.changes.kinds import CHANGES, REVISION, Change
from knowgen.worlds.changes.originals import Original, read_original
from knowgen.worlds.changes.redraw import draw_change, what_changes

if TYPE_CHECKING:
    from PIL.Image import Image

    from knowgen.tasks.contract import Task


@dataclass(frozen=True)
class ChangedPicture:
    """One change to one sample.

    Attributes:
        id: Opaque; the id of the sample in the run.
        original: The sample that is changed.
        change: What is done to it.
        what: What it comes to for this sample, in a few words.
        seed: Of the changes.
    """

    id: str
    original: Original
    change: Change
    what: str
    seed: int

    def draw(self) -> Image:
        """Draws it; see `draw_change`."""
        return draw_change(self.original, self.change, self.seed)


class ChangedTask:
    """The samples of a world, each once for every change that can be made to it.

    Args:
        name: Of the world's task.
        version: Of the world's task.
        pictures: The changed pictures.
        seed: Of the changes.
    """

    default_scorers: tuple[str, ...] = ()
    search = ""
    search_version = ""

    def __init__(self, name: str, version: str, pictures: Sequence[ChangedPicture], seed: int) -> None:
        self.name = f"{name} with known changes"
        self.pictures = {picture.id: picture for picture in pictures}
        self.seed = seed
        digest = hashlib.sha256(f"{version}\0{seed}\0{REVISION}".encode()).hexdigest()[:12]
        self._version = f"changes-{REVISION}-{digest}"

    @property
    def version(self) -> str:
        """Changes with the world, the seed and the recipe of the changes; more samples leave it as it is."""
        return self._version

    def __len__(self) -> int:
        return len(self.pictures)

    def samples(self) -> Iterator[Sample]:
        """Yields the sample of each changed picture, under an opaque id."""
        for picture in self.pictures.values():
            yield picture.original.sample.model_copy(update={"id": picture.id})

    def truth(self, sample_id: str) -> GroundTruth:
        """Returns the unchanged truth.

        Raises:
            DataError: There is no such changed picture.
        """
        if sample_id not in self.pictures:
            raise DataError(f"no changed picture {sample_id!r}", where=self.name)
        return self.pictures[sample_id].original.truth.model_copy(update={"sample_id": sample_id})


class ChangedPictures:
    """Draws the pictures of a `ChangedTask`. It works from the truth, so it is privileged, and boards refuse it.

    Args:
        task: Whose pictures.
    """

    revision = REVISION
    privileged = True
    concurrency = 2

    def __init__(self, task: ChangedTask) -> None:
        self._pictures = {request_id(picture.id, 0): picture for picture in task.pictures.values()}

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Draws the changed picture that a request asks for.

        Raises:
            ConfigError: The request belongs to another task.
        """
        picture = self._pictures.get(request.id)
        if picture is None:
            raise ConfigError("the request asks for no changed picture", where="ChangedPictures")
        return GeneratedImage(image=await asyncio.to_thread(picture.draw), request_id=request.id)


def make_changed_task(task: Task, samples: Sequence[Sample], count: int, seed: int) -> ChangedTask:
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
    picked[0][0].original.redrawn()  # a world drawn by another version is told before anything is paid
    return ChangedTask(task.name, task.version, [picture for plan in picked for picture in plan], seed)


def _plan(original: Original, seed: int) -> list[ChangedPicture]:
    """Plans the changes of one sample, `nothing` first."""
    plan = []
    for change in CHANGES:
        what = what_changes(original, change, seed)
        if what is not None:
            plan.append(ChangedPicture(_opaque(original.sample.id, change, seed), original, change, what, seed))
    return plan


def _opaque(sample_id: str, change: Change, seed: int) -> str:
    return hashlib.sha256(f"changed\0{REVISION}\0{seed}\0{sample_id}\0{change.name}".encode()).hexdigest()[:16]


def _spread(plans: Sequence[list[ChangedPicture]], seed: int) -> list[list[ChangedPicture]]:
    """Orders samples so that each category comes once, then each again, and so on.

    Within a category those to which most changes can be made come first, in random order among equals: a sample
    without writing says nothing of digits and names.
    """
    rng = random.Random(f"changes/{seed}/samples")
    categories: dict[str, list[list[ChangedPicture]]] = {}
    for plan in plans:
        categories.setdefault(plan[0].original.sample.category, []).append(plan)
    for members in categories.values():
        rng.shuffle(members)
        members.sort(key=len, reverse=True)
    rounds = max(map(len, categories.values()))
    return [members[turn] for turn in range(rounds) for members in categories.values() if turn < len(members)]
