"""The task `rl_items`: the prompts of the prepared reinforcement-learning set, with their ground-truth images.

`rl_items` is the train split, `rl_items:test` the other one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, cast

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import GroundTruth, Sample, image_ref
from knowgen.tasks.data_home import need_prepared
from knowgen.training.datasets import RL_NAME, RlPrompt, Split, load_rl

NAME = "rl_items"


class RlItems:
    """The prompts of one split as a task; ids count from 0 in the published order.

    Args:
        model: The split: train or test, as in `rl_items:test`.

    Raises:
        UsageError: The set has no such split.
        DataError: The set is not prepared on this machine.
    """

    default_scorers: tuple[str, ...] = ()
    search = ""
    search_version = ""
    limit: Literal["first"] = "first"

    def __init__(self, model: str = "train") -> None:
        if model not in ("train", "test"):
            raise UsageError(f"no split {model!r}", where=NAME, fix=f"name {NAME} or {NAME}:test")
        self.name = NAME if model == "train" else f"{NAME}:{model}"
        self._prepared = need_prepared(RL_NAME)
        self._prompts: dict[str, RlPrompt] = {str(each.id): each for each in load_rl(cast(Split, model))}

    @property
    def version(self) -> str:
        """The split, and the commit of the prepared set."""
        return f"{self.name}-{self._prepared.commit}"

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self._prompts)

    def samples(self) -> Iterator[Sample]:
        """Yield the samples."""
        for name, each in self._prompts.items():
            yield Sample(id=name, prompt=each.prompt, meta={"source_id": each.source_id})

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the ground truth of a sample: its image.

        Raises:
            DataError: The split has no such sample, or its image does not open.
        """
        if sample_id not in self._prompts:
            raise DataError(f"no sample {sample_id!r}", where=f"task {self.name}")
        return GroundTruth(sample_id=sample_id, image=image_ref(self._prompts[sample_id].gt_image))
