"""The record of one label: a line of `LABELS_DIR/<rater>.jsonl`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from knowgen.core.records import Record

Mode = Literal["rate", "pairs"]
Choice = Literal["", "left", "right", "tie", "both_bad"]
Skip = Literal["", "does_not_load", "cannot_tell"]


class StoredLabel(Record):
    """What a rater said about one image, or about two of them.

    Attributes:
        mode: `rate` for values of one image, `pairs` for a choice between two.
        at: Time in UTC, ISO 8601 with microseconds.
        rater: Name of the rater.
        task: Name of the task.
        task_version: Its version.
        sample: Id of the sample.
        repeat: Repeat of the generation, from 0.
        systems: The system, or the systems of the left and of the right image.
        images: SHA-256 of the files of these images.
        prompt: SHA-256 of the prompt.
        question: Version of the questions, as `question_version` returns it.
        page: Version of the page.
        values: Value of each dimension, in [0, 1].
        na: Dimensions that are not applicable.
        choice: The choice between two images; empty for a rating.
        skipped: Why there is neither value nor choice; empty if there is.
        seconds: Time from the display of the images to the answer.
        undone: Whether the record withdraws the label of this image or pair.
    """

    mode: Mode
    at: str
    rater: str
    task: str
    task_version: str
    sample: str
    repeat: int = Field(default=0, ge=0)
    systems: tuple[str, ...] = Field(min_length=1, max_length=2)
    images: tuple[str, ...] = Field(min_length=1, max_length=2)
    prompt: str
    question: str
    page: str = ""
    values: dict[str, float] = Field(default_factory=dict)
    na: tuple[str, ...] = ()
    choice: Choice = ""
    skipped: Skip = ""
    seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    undone: bool = False

    @property
    def key(self) -> tuple[str, str, int, tuple[str, ...], tuple[str, ...], str, str]:
        """What the label is about. Of two labels of one rater with the same key, the later counts."""
        pairs = sorted(zip(self.systems, self.images, strict=True))
        names, images = tuple(name for name, _ in pairs), tuple(image for _, image in pairs)
        return (self.mode, self.sample, self.repeat, names, images, self.prompt, self.question)
