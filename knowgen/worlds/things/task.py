"""The task `things:SEED`: prompts that name a thing, with its colour and a picture of it as the ground truth."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from functools import cached_property
from itertools import islice

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import GroundTruth, ImageRef, Sample, group_of
from knowgen.tasks.things_words import PROMPT
from knowgen.worlds.things.pictures import PictureFiles
from knowgen.worlds.things.world import RECIPE_VERSION, draw_thing, things_of

NAME = "things"
SAMPLES = 800
"""Number of samples of a task that is named without one."""

CATEGORY = "art"
"""Category of all samples. It is one that has a group, because samples without a group are left out of a mean."""


class ThingsTask:
    """The task `things:SEED` with 800 samples, or `things:SAMPLES:SEED`.

    Seeds that are both even or both odd have the same names in other colours; an even and an odd one have no name in
    common. So test on the other half; `fresh_seed` of a training stays in one (`seed_step`). The search backend is
    `things:SEED`.

    Args:
        model: The seed, with the number of samples and a colon before it where that is not 800.

    Raises:
        UsageError: It is not of that form, or there are fewer names.

    Example:
        >>> task = ThingsTask("3:7")
        >>> [sample.prompt for sample in task.samples()][0].startswith("draw a ")
        True
        >>> len(task), task.search
        (3, 'things:7')
    """

    default_scorers = ("things_check",)
    limit = "first"
    seed_step = 2
    painter = "things_painter"

    def __init__(self, model: str = "0") -> None:
        self.seed, self.size = read_seed(model, f"task {NAME}", SAMPLES)
        self.name = f"{NAME}:{model}"
        self._things = dict(islice(things_of(self.seed).items(), self.size))
        if len(self._things) < self.size:
            raise UsageError(f"there are {len(self._things)} names, fewer than {self.size}", where=f"task {self.name}")
        self._files = PictureFiles()

    @property
    def search(self) -> str:
        """Name of the search backend."""
        return f"{NAME}:{self.seed}"

    @property
    def search_version(self) -> str:
        """Identity of the backend's content."""
        return search_version(self.seed)

    @cached_property
    def version(self) -> str:
        """Version of the recipe with a hash of names and colours."""
        content = json.dumps([RECIPE_VERSION, *self._things.items()])
        return f"{RECIPE_VERSION}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def __len__(self) -> int:
        return self.size

    def samples(self) -> Iterator[Sample]:
        """Yield the samples in order."""
        for name in self._things:
            yield Sample(
                id=name.replace(" ", "-"),
                prompt=f"{PROMPT}{name}",
                category=CATEGORY,
                group=group_of(CATEGORY),
                text_required=False,
            )

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the ground truth of a sample: name and colour, and a picture that no search returns.

        Raises:
            DataError: The sample is unknown.
            ConfigError: The picture cannot be written.
        """
        name = sample_id.replace("-", " ")
        if name not in self._things or sample_id != name.replace(" ", "-"):
            raise DataError(f"no sample {sample_id!r}", where=f"task {self.name}")
        return GroundTruth(
            sample_id=sample_id,
            image=self._picture(name),
            subjects=({"name": name, "colour": self._things[name]},),
            text_required=False,
        )

    def _picture(self, name: str) -> ImageRef:
        rng = random.Random(f"things/{RECIPE_VERSION}/{self.seed}/{name}/truth")
        return self._files.add(draw_thing(self._things[name], rng))


def read_seed(text: str, where: str, samples: int) -> tuple[int, int]:
    """Return the seed and the number of samples of `SEED` or `SAMPLES:SEED`.

    Args:
        text: The text.
        where: What is named so, for errors.
        samples: Number of samples where the text has none.

    Raises:
        UsageError: It is not of that form.
    """
    parts = text.split(":")
    if len(parts) > 2 or not all(part.isascii() and part.isdecimal() and len(part) <= 9 for part in parts):
        raise UsageError(f"{text!r} is not a seed", where=where, fix="write SEED or SAMPLES:SEED, such as 7 or 64:7")
    seed, size = int(parts[-1]), int(parts[0]) if len(parts) == 2 else samples
    if size < 1:
        raise UsageError("the number of samples must be at least 1", where=where)
    return seed, size


def search_version(seed: int) -> str:
    """Return the identity of the content of the search backend `things:SEED`."""
    return f"{RECIPE_VERSION}-{seed}"
