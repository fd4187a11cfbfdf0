"""The training sets: typed records, the published split, and data sets whose images stay on disk."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import DataError, UsageError
from knowgen.tasks.data_home import find_prepared
from knowgen.tasks.prepare.run import prepare
from knowgen.training.datasets import load_rl, load_sft, rl_dataset, sft_dataset
from knowgen.training.rl_items import RlItems
from tests.helpers.archive_data import RL_FILE, SFT_FILE, TRAIN, Command, image_bytes, sft_row, train_files, zipped
from tests.helpers.hub_server import HubServer

SFT = [sft_row(0, 2), sft_row(1, 0), sft_row(2, 3)]
SFT_IMAGES = [(row, each) for row, count in ((0, 2), (2, 3)) for each in range(count)]


def rl_rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"q{n}", "prompt": f"Draw {n}", "gt_image": f"/far/away/rl/g{n}.png"} for n in range(count)]


def members(rl: int) -> dict[str, bytes]:
    sft = {f"train/images/p{row}_{each}.png": image_bytes(10 * row + each) for row, each in SFT_IMAGES}
    return {**sft, **{f"rl/g{n}.png": image_bytes(100 + n) for n in range(rl)}}


def local(folder: Path, sft: list[dict[str, Any]], rl: list[dict[str, Any]], images: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in train_files(sft, rl, images).items():
        (folder / name).write_bytes(data)
    return folder


def the_split(rows: list[dict[str, Any]], have: set[str]) -> tuple[list[str], list[str]]:
    """Return the published split, computed as published: with the global random number generator."""
    usable = [row for row in rows if row.get("id") and row.get("prompt") and Path(row["gt_image"]).name in have]
    state = random.getstate()
    random.seed(42)
    random.shuffle(usable)
    random.setstate(state)
    cut = int(len(usable) * 0.9)
    return [row["id"] for row in usable[:cut]], [row["id"] for row in usable[cut:]]


def test_conversations_have_their_images_in_order(home: Path, tmp_path: Path) -> None:
    prepare("gen_searcher_sft", data_dir=local(tmp_path / "t", SFT, rl_rows(3), members(3)))
    rows = list(load_sft())
    assert [each.id for each in rows] == ["c0", "c1", "c2"] and [each.row for each in rows] == [1, 2, 3]
    for conversation, row in zip(rows, SFT, strict=True):
        assert [(message.role, message.content) for message in conversation.messages] == [
            (message["role"], message["content"]) for message in row["messages"]
        ]
    assert [path.read_bytes() for path in rows[0].images] == [image_bytes(0), image_bytes(1)]
    assert rows[1].images == ()
    assert [path.read_bytes() for path in rows[2].images] == [image_bytes(20), image_bytes(21), image_bytes(22)]


@pytest.mark.parametrize(("images", "marks"), [(2, 1), (1, 2), (0, 1), (1, 0)])
def test_a_wrong_number_of_marks_names_row_and_id(home: Path, tmp_path: Path, images: int, marks: int) -> None:
    rows = [sft_row(0, 2), sft_row(2, images, marks)]
    with pytest.raises(DataError) as caught:
        prepare("gen_searcher_sft", data_dir=local(tmp_path / "t", rows, [], members(0)))
    assert f"{SFT_FILE}, row 2 (id 'c2'): has {marks} <image> marks but {images} images" in str(caught.value)


def test_a_mark_lost_after_preparation_is_detected_on_reading(home: Path, tmp_path: Path) -> None:
    prepared, _ = prepare("gen_searcher_sft", data_dir=local(tmp_path / "t", SFT, [], members(0)))
    rows = prepared.folder / "rows.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text(lines[0] + lines[1] + lines[2].replace("<image>", "", 1))
    conversations = load_sft()
    assert [next(conversations).id, next(conversations).id] == ["c0", "c1"]
    with pytest.raises(DataError, match=r"gen_searcher_sft, row 3 \(id 'c2'\): has 2 <image> marks but 3 images"):
        next(conversations)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": []}, "has no messages"),
        ({"messages": [{"role": "tool", "content": ""}]}, "message 1 has the role 'tool'"),
        ({"messages": [{"role": "user", "content": 3}]}, "content of message 1 must be a string"),
        ({"images": "a.png"}, "images must be a list"),
        ({"images": [None, "a.png"]}, "image 1 has no path"),
        ({"images": ["none.png", "p0_1.png"]}, "the image 'none.png' is not among"),
    ],
)
def test_invalid_conversations_are_refused(home: Path, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    rows = [sft_row(0, 2), {**sft_row(0, 2), **change}]
    with pytest.raises(DataError) as caught:
        prepare("gen_searcher_sft", data_dir=local(tmp_path / "t", rows, [], members(0)))
    assert f"{SFT_FILE}, row 2 (id 'c0'): {words}" in str(caught.value)


def test_the_split_is_the_published_one(home: Path, tmp_path: Path) -> None:
    rows = rl_rows(37)
    del rows[4]["id"]
    rows[9]["prompt"] = ""
    rows[11]["gt_image"] = "rl/gone.png"
    rows[12]["gt_image"] = ""
    have = {Path(name).name for name in members(37)}
    prepared, _ = prepare("gen_searcher_rl", data_dir=local(tmp_path / "t", [], rows, members(37)))
    train, test = the_split(rows, have)
    assert (len(train), len(test)) == (29, 4)
    for split, expected in (("train", train), ("test", test)):
        prompts = list(load_rl(split))  # type: ignore[arg-type]
        assert [prompt.source_id for prompt in prompts] == expected
        assert [prompt.id for prompt in prompts] == list(range(len(expected)))
        for prompt in prompts:
            number = int(prompt.source_id[1:])
            assert prompt.prompt == f"Draw {number}" and prompt.gt_image.read_bytes() == image_bytes(100 + number)
    assert prepared.index["left_out"] == [
        f"{RL_FILE}, row 5: has no id",
        f"{RL_FILE}, row 10 (id 'q9'): has no prompt",
        f"{RL_FILE}, row 13 (id 'q12'): has no ground truth",
        f"{RL_FILE}, row 12 (id 'q11'): the image 'rl/gone.png' is not among the data set's files",
    ]


def test_the_shuffle_does_not_change_the_global_random_state(home: Path, tmp_path: Path) -> None:
    prepare("gen_searcher_rl", data_dir=local(tmp_path / "t", [], rl_rows(5), members(5)))
    random.seed(1)
    expected = random.random()
    random.seed(1)
    list(load_rl("train"))
    assert random.random() == expected
    with pytest.raises(UsageError, match="name train or test"):
        load_rl("dev")  # type: ignore[arg-type]


def test_both_sets_are_prepared_from_the_hub_and_list_rows_left_out(hub: HubServer, knowgen: Command) -> None:
    rows = [*rl_rows(4), {"id": "q9", "prompt": "no image"}]
    hub.commit(TRAIN, train_files(SFT, rows, members(4)))
    done = knowgen("task", "prepare", "gen_searcher_rl")
    assert done.returncode == 0, done.stderr
    assert "4 rows, 4 images" in done.stdout and "1 rows left out" in done.stdout
    assert f"left out  {RL_FILE}, row 5 (id 'q9'): has no ground truth" in done.stdout
    assert knowgen("task", "prepare", "gen_searcher_sft").returncode == 0
    assert hub.fetched("train_1.zip") == 1, "the second set uses what the first one fetched"
    assert len(list(load_sft())) == 3 and len(list(load_rl("train"))) == 3


def test_an_unprepared_set_is_reported_with_the_command_that_prepares_it(home: Path) -> None:
    for load, name in ((load_sft, "gen_searcher_sft"), (load_rl, "gen_searcher_rl"), (sft_dataset, "gen_searcher_sft")):
        with pytest.raises(DataError, match=f"is not prepared on this machine; run: knowgen task prepare {name}"):
            load()


def test_a_missing_image_is_an_error_and_does_not_change_the_split(home: Path, tmp_path: Path) -> None:
    prepare("gen_searcher_rl", data_dir=local(tmp_path / "t", [], rl_rows(10), members(10)))
    first = next(iter(load_rl("train")))
    first.gt_image.unlink()
    with pytest.raises(DataError, match="is missing; run: knowgen task prepare gen_searcher_rl --force"):
        list(load_rl("train"))


def test_data_sets_contain_paths_and_not_images(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "rows")
    source = local(tmp_path / "t", SFT, rl_rows(20), members(20))
    prepare("gen_searcher_sft", data_dir=source)
    prepare("gen_searcher_rl", data_dir=source)
    conversations = sft_dataset()
    assert conversations.column_names == ["id", "messages", "images"]
    for row, expected in zip(conversations, load_sft(), strict=True):
        assert row["messages"] == [{"role": each.role, "content": each.content} for each in expected.messages]
        assert row["images"] == [{"bytes": None, "path": str(path)} for path in expected.images]
    prompts = rl_dataset("train")
    assert prompts["id"] == list(range(18))
    for row, prompt in zip(prompts, load_rl("train"), strict=True):
        assert (row["prompt"], row["gt_image"]) == (prompt.prompt, {"bytes": None, "path": str(prompt.gt_image)})
    assert len(rl_dataset("test")) == 2
    decoded = prompts.cast_column("gt_image", datasets.Image())[0]["gt_image"]
    assert decoded.size == (20 + (100 + int(next(iter(load_rl("train"))).source_id[1:])) % 7, 16)


def test_a_fault_in_a_row_is_reported_through_the_library(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "rows")
    prepare("gen_searcher_sft", data_dir=local(tmp_path / "t", SFT, [], members(0)))
    next(iter(load_sft())).images[0].unlink()
    with pytest.raises(DataError, match=r"gen_searcher_sft, row 1 \(id 'c0'\): the image .* is missing"):
        sft_dataset()


@pytest.mark.slow
def test_sixteen_thousand_rows_are_prepared_and_split(home: Path, tmp_path: Path) -> None:
    count = 16_000
    folder = tmp_path / "t"
    folder.mkdir()
    (folder / RL_FILE).write_text(json.dumps(rl_rows(count)))
    (folder / "p.zip").write_bytes(zipped({f"rl/g{n}.png": image_bytes(n) for n in range(count)}))
    prepare("gen_searcher_rl", data_dir=folder)
    assert len(list(load_rl("train"))) == 14_400
    prepared = find_prepared("gen_searcher_rl")
    assert prepared is not None and prepared.index["pictures"] == count


def test_the_prepared_prompts_are_a_task_with_ground_truth_images(home: Path, tmp_path: Path) -> None:
    prepare("gen_searcher_rl", data_dir=local(tmp_path / "t", [], rl_rows(10), members(10)))
    train, test = RlItems(), RlItems("test")
    assert (len(train), len(test)) == (9, 1) and (train.name, test.name) == ("rl_items", "rl_items:test")
    for sample, expected in zip(train.samples(), load_rl(), strict=True):
        truth = train.truth(sample.id)
        assert sample.prompt == expected.prompt and sample.meta == {"source_id": expected.source_id}
        assert truth.image is not None and truth.image.path == expected.gt_image
    assert train.version != test.version
    with pytest.raises(UsageError, match="no split 'dev'; name rl_items or rl_items:test"):
        RlItems("dev")
    with pytest.raises(DataError, match="no sample '99'"):
        train.truth("99")
