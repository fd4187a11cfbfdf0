"""Episodes as rows of the trainer."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowgen.agents.records import Ending, Message, Segment, Trajectory
from knowgen.core.errors import KnowgenError
from knowgen.training.backends.contract import Episode
from knowgen.training.batches import blank_image
from knowgen.training.grpo.rows import RowBuilder
from knowgen.training.rewards import EpisodeReward, masked
from tests.helpers import tiny_models
from tests.helpers.grpo import prompts, shown_picture

PROCESSOR = tiny_models.processor()
ROWS = RowBuilder(PROCESSOR, "test")
TAIL = PROCESSOR.tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"])


def episode(segments: list[Segment], messages: list[Message] | None = None) -> Episode:
    """Return an episode with a trajectory."""
    trajectory = Trajectory(messages or [], segments=segments, ending=Ending.ANSWER)
    return Episode(prompts(1)[0], 3, trajectory, None, EpisodeReward(0.5))


def test_ids_are_those_that_were_sampled_and_shown(tmp_path: Path) -> None:
    image = shown_picture(tmp_path, "red", 64)
    row = ROWS.row(
        episode(
            [
                Segment([1, 2, 3], False),
                Segment([4, 5], True, [-0.1, -0.2]),
                Segment([6, *TAIL, 7], False, images=[image.sha256]),
                Segment([8], True, [-0.3]),
            ],
            [Message("user", "x", (image,))],
        )
    )
    assert row.prompt == [1, 2, 3] and row.completion == [4, 5, 6, *TAIL, 7, 8]
    assert row.sampled == [1, 1, 0, 0, 0, 0, 0, 1]
    assert row.logprobs == [-0.1, -0.2, 0, 0, 0, 0, 0, -0.3]
    assert row.images == [image]


def test_what_follows_the_last_sampled_id_is_left_out_with_its_images(tmp_path: Path) -> None:
    """A tool's result that did not fit is never cut inside an image."""
    image = shown_picture(tmp_path, "red", 64)
    segments = [Segment([1], False), Segment([2], True, [-0.1]), Segment([3, *TAIL], False, images=[image.sha256])]
    row = ROWS.row(episode(segments, [Message("user", "x", (image,))]))
    assert row.completion == [2, *TAIL] and row.images == [None] and row.sampled == [1, 0, 0, 0]


def test_a_row_without_an_image_gets_a_blank_one_after_its_end() -> None:
    row = ROWS.row(episode([Segment([1], False), Segment([2, 3], True, [-0.1, -0.2])]))
    assert row.completion == [2, 3, *TAIL] and row.sampled == [1, 1, 0, 0, 0] and row.images == [None]
    assert row.logprobs == [-0.1, -0.2, 0.0, 0.0, 0.0]


def test_the_blank_image_is_one_placeholder_of_a_32_by_32_picture() -> None:
    from PIL import Image

    pixels, grid = blank_image(PROCESSOR.image_processor)
    picture = PROCESSOR.image_processor(images=[Image.new("RGB", (32, 32))], return_tensors="pt")
    assert pixels.shape == picture["pixel_values"].shape and grid.tolist() == picture["image_grid_thw"].tolist()


@pytest.mark.parametrize("segments", [None, [], [Segment([1, 2], False)]])
def test_an_episode_in_which_nothing_was_sampled_is_a_row_that_is_not_trained_on(
    segments: list[Segment] | None,
) -> None:
    given = episode(segments or [])
    if segments is None:
        given.trajectory, given.reward = None, masked("the service failed")
    row = ROWS.row(given)
    assert row.prompt and row.completion[-3:] == TAIL
    assert not any(row.sampled) and row.images == [None]


@pytest.mark.parametrize(
    ("segments", "problem"),
    [
        ([Segment([1], False), Segment([2, 3], True)], "no log-probability"),
        ([Segment([1], False), Segment([2, 3], True, [-0.1])], "no log-probability"),
        ([Segment([1], True, [-0.1])], "without a prompt"),
        ([Segment([1], False, images=["0" * 64]), Segment([2], True, [-0.1])], "in none of its messages"),
    ],
)
def test_an_episode_that_cannot_be_a_row_is_named(segments: list[Segment], problem: str) -> None:
    with pytest.raises(KnowgenError, match=problem) as error:
        ROWS.row(episode(segments))
    assert "episode test/0-0#3" in str(error.value)
