"""The training sets, as prepared on this machine: conversations for SFT, prompts for reinforcement learning.

    for conversation in load_sft(): ...
    for prompt in load_rl(split="train"): ...
    trainer = SFTTrainer(train_dataset=sft_dataset(), ...)

Images stay files: records and data sets contain paths, not bytes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from knowgen.core.errors import DataError, UsageError
from knowgen.core.text_files import numbered_lines, parse_strict_json
from knowgen.tasks.data_home import PreparedData, need_prepared, prepare_again
from knowgen.tasks.prepare.rows import ROWS_FILE
from knowgen.training.conversations import SFT_NAME, DatasetRow, SftConversation, load_conversations

if TYPE_CHECKING:
    from datasets import Dataset

RL_NAME = "gen_searcher_rl"

Split = Literal["train", "test"]
SPLIT_SEED = 42
TRAIN_SHARE = 0.9
"""The published split: rows are shuffled with this seed; the first `int(share * n)` are the train split."""


class RlPrompt(DatasetRow):
    """A prompt of the reinforcement-learning set.

    Attributes:
        id: Number within its split, from 0.
        source_id: Published id.
        prompt: The prompt.
        gt_image: Local path of the ground-truth image.
    """

    id: int
    source_id: str
    prompt: str
    gt_image: Path


def load_sft() -> Iterator[SftConversation]:
    """Yield the conversations in published order.

    Raises:
        DataError: The set is not prepared, a row's `<image>` marks and images differ in number, or an image is missing.
    """
    return iter(load_conversations(SFT_NAME))


def load_rl(split: Split = "train") -> Iterator[RlPrompt]:
    """Yield the prompts of one split, in the published order.

    The rows that have id, prompt and ground truth are shuffled as by `random.seed(42); random.shuffle(rows)`. The first
    `int(0.9 * n)` are the train split, the others the test split. Each split is numbered from 0.

    Args:
        split: train or test.

    Raises:
        UsageError: `split` is neither.
        DataError: The set is not prepared, or an image is missing.
    """
    if split not in ("train", "test"):
        raise UsageError(f"no split {split!r}", where=RL_NAME, fix="name train or test")
    prepared = need_prepared(RL_NAME)
    rows = list(_rows(prepared))
    random.Random(SPLIT_SEED).shuffle(rows)
    cut = int(TRAIN_SHARE * len(rows))
    return _prompts(prepared, rows[:cut] if split == "train" else rows[cut:])


def _prompts(prepared: PreparedData, rows: list[dict[str, Any]]) -> Iterator[RlPrompt]:
    for number, row in enumerate(rows):
        image = _image(prepared, row["gt_image"], _where(prepared, row))
        yield RlPrompt(id=number, source_id=row["id"], prompt=row["prompt"], gt_image=image)


def sft_dataset() -> Dataset:
    """Return the conversations as a `datasets.Dataset` with the columns id, messages and images.

    `messages` contains role and content; `images` contains images that are not decoded: `{"path": ..., "bytes": None}`.

    Raises:
        DataError: See `load_sft`.
    """
    from datasets import Dataset, Features, Image, Value
    from datasets.exceptions import DatasetGenerationError

    features = Features(
        {
            "id": Value("string"),
            "messages": [{"role": Value("string"), "content": Value("string")}],
            "images": [Image(decode=False)],
        }
    )
    try:
        return Dataset.from_generator(_sft_rows, features=features, gen_kwargs={"folder": _cache_key(SFT_NAME)})
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):  # report the row and its problem instead of the library's wrapper
            raise error.__cause__ from None
        raise


def rl_dataset(split: Split = "train") -> Dataset:
    """Return the prompts of one split as a `datasets.Dataset` with the columns id, prompt and gt_image.

    `gt_image` contains images that are not decoded: `{"path": ..., "bytes": None}`.

    Raises:
        UsageError: The split is unknown.
        DataError: See `load_rl`.
    """
    from datasets import Dataset, Features, Image, Value

    features = Features({"id": Value("int64"), "prompt": Value("string"), "gt_image": Image(decode=False)})
    rows = [{"id": each.id, "prompt": each.prompt, "gt_image": str(each.gt_image)} for each in load_rl(split)]
    return Dataset.from_list(rows, features=features)


def _cache_key(name: str) -> str:
    """Return the prepared folder and its creation time, which identify the rows in the cache of `datasets`."""
    prepared = need_prepared(name)
    return f"{prepared.folder}\0{prepared.index['created']}"


def _sft_rows(folder: str) -> Iterator[dict[str, Any]]:
    """Yield rows for `datasets`; `folder` only identifies the data in its cache."""
    for each in load_sft():
        messages = [{"role": message.role, "content": message.content} for message in each.messages]
        yield {"id": each.id, "messages": messages, "images": [str(path) for path in each.images]}


def _rows(prepared: PreparedData) -> Iterator[dict[str, Any]]:
    path, fix = prepared.folder / ROWS_FILE, prepare_again(prepared.name)
    for number, line in numbered_lines(path, fix=fix):
        try:
            row = parse_strict_json(line, f"{path}:{number}")
        except DataError as error:
            raise DataError(error.what, where=error.where, fix=fix) from error
        if not isinstance(row, dict):
            raise DataError("must be a JSON object", where=f"{path}:{number}", fix=fix)
        yield row


def _where(prepared: PreparedData, row: dict[str, Any]) -> str:
    identity = f" (id {str(row['id'])[:80]!r})" if row["id"] else ""
    return f"{prepared.name}, row {row['row']}{identity}"


def _image(prepared: PreparedData, name: str, where: str) -> Path:
    path = prepared.folder / name
    if not path.is_file():
        raise DataError(f"the image {name} is missing", where=where, fix=prepare_again(prepared.name))
    return path
