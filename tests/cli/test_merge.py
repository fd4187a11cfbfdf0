"""Merging shards: the merged run directory equals the directory of one run without shards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen import api
from knowgen.cli.main import run
from knowgen.store import merge as store_merge
from knowgen.store.run import RunStore
from knowgen.tasks.load import load_task
from knowgen.workflows import artifacts
from knowgen.workflows import merge as merging
from knowgen.workflows.selection import select_samples
from tests.helpers.text import one_line

pytestmark = pytest.mark.usefixtures("in_process")

TIMES = {"generation_seconds", "score_seconds"}
RUN = ["run", "--task", "small", "--generator", "my_generator:Picky", "--repeats", "2", "--judge-repeats", "2"]


def exported(run_directory: Path, out: Path) -> list[dict[str, Any]]:
    """Return the exported rows without their times."""
    assert run(["export", str(run_directory), "--format", "jsonl", "-o", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def figures(run_directory: Path) -> list[dict[str, Any]]:
    """Return all summaries without their times."""
    summaries = json.loads((run_directory / "summary.json").read_text())["summaries"]
    return [{name: value for name, value in each.items() if name != "seconds"} for each in summaries]


def images(run_directory: Path) -> dict[str, str]:
    """Return the hash of every image file of a run, by its relative path."""
    root = run_directory / "images"
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def table(run_directory: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(run_directory / "run.sqlite")) as database:
        return database.execute(sql).fetchall()


def shards(count: int, *words: str) -> list[str]:
    """Run all shards and return their directories."""
    names = [f"part{number}" for number in range(1, count + 1)]
    for number, name in enumerate(names, 1):
        assert run([*RUN, *words, "--shard", f"{number}/{count}", "--out", name]) in (0, 6)
    return names


@pytest.mark.parametrize("count", [1, 2, 3])
def test_merged_shards_equal_one_run(workspace: Path, count: int) -> None:
    assert run([*RUN, "--out", "one"]) == 6
    names = shards(count)
    assert run(["merge", *reversed(names), "-o", "whole"]) == 0
    assert exported(workspace / "whole", workspace / "whole.jsonl") == exported(
        workspace / "one", workspace / "one.jsonl"
    )
    assert figures(workspace / "whole") == figures(workspace / "one")
    assert images(workspace / "whole") == images(workspace / "one")
    for sql in (
        "select key, sample_id, repeat, status, reason, image from generations order by key",
        "select key, scorer, scorer_hash, image, status, strict_values from scores order by key",
        "select place, sample_id, category, sample, truth, truth_file from samples order by place",
    ):
        assert table(workspace / "whole", sql) == table(workspace / "one", sql)
    with RunStore.read(workspace / "whole") as whole, RunStore.read(workspace / "one") as one:
        assert whole.spec == one.spec
        assert whole.manifest.versions == one.manifest.versions
    assert (workspace / "whole" / "report" / "index.html").is_file()
    assert sorted(p.name for p in (workspace / "whole" / "tables").iterdir()) == sorted(
        p.name for p in (workspace / "one" / "tables").iterdir()
    )


def test_shards_take_every_nth_sample_and_record_their_run(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards(2, "--limit", "5")
    chosen = [sample.id for sample in select_samples(load_task("small"), limit=5, ids=None)[0]]
    output = capsys.readouterr().out
    for name, ids in (("part1", chosen[::2]), ("part2", chosen[1::2])):
        with RunStore.read(workspace / name) as store:
            assert [sample.id for sample in store.samples()] == ids
            assert store.spec.selection.kind == "shard"
            assert store.spec.shard is not None and store.spec.shard.of.n == 5
    assert "a part of the task (shard 3 " in output, "a shard alone is not fit for a leaderboard"


def test_a_merged_run_is_continued_like_a_run_without_shards(workspace: Path) -> None:
    assert run(["merge", *shards(2), "-o", "whole"]) == 0
    (workspace / "calls.txt").unlink()
    assert run([*RUN, "--out", "whole"]) == 6
    assert not (workspace / "calls.txt").exists(), "nothing was scored again"
    with RunStore.read(workspace / "whole") as store:
        assert max(each.attempts for _, each in store.generations() if each.status == "ok") == 1


def test_images_are_hard_links_if_possible_and_copies_otherwise(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = shards(2)
    assert run(["merge", *names, "-o", "whole"]) == 0
    assert {path.stat().st_nlink for path in (workspace / "whole" / "images").rglob("*.png")} == {2}

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert run(["merge", *names, "-o", "copied"]) == 0
    assert images(workspace / "copied") == images(workspace / "whole")
    assert {path.stat().st_nlink for path in (workspace / "copied" / "images").rglob("*.png")} == {1}


def test_costs_sessions_and_notes_add_up(workspace: Path) -> None:
    names = shards(2)
    for number, name in enumerate(names):
        with RunStore.open(workspace / name, api.load_run(name).spec) as store:
            store.settle(store.reserve(0.5, "judge"), 0.25 + number)
            store.reserve(0.125, "judge")  # a call without a reply
            store.put_note("judge", "weather", {"wind": number})
    assert run(["merge", *names, "-o", "whole"]) == 0
    with RunStore.read(workspace / "whole") as whole:
        assert whole.spent() == 0.25 + 1.25 + 2 * 0.125
        assert [data["wind"] for _, _, data in whole.notes("weather")] == [0, 1]
        assert whole.seconds() == pytest.approx(sum(_seconds(workspace / name) for name in names))
        ((_, _, origin),) = whole.notes("merged")
    assert [part["part"] for part in origin["parts"]] == ["shard 1/2", "shard 2/2"]
    assert len(table(workspace / "whole", "select number from sessions")) == 2
    assert figures(workspace / "whole")[0]["cost"] == 1.75


def _seconds(run_directory: Path) -> float:
    with RunStore.read(run_directory) as store:
        return store.seconds()


def test_merging_again_does_nothing_and_changed_shards_require_fresh(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = shards(2)
    assert run(["merge", *names, "-o", "whole"]) == 0
    before = {path: path.stat().st_mtime_ns for path in (workspace / "whole").rglob("*")}
    assert run(["merge", *names, "-o", "whole"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (workspace / "whole").rglob("*")} == before
    assert run([*RUN, "--shard", "1/2", "--out", "part1"]) == 6, "the failing sample is retried"
    capsys.readouterr()
    assert run(["merge", *names, "-o", "whole"]) == 3
    assert "contains an earlier state of these shards" in one_line(capsys.readouterr().err)
    assert run(["merge", *names, "-o", "whole", "--fresh"]) == 0
    with RunStore.read(workspace / "whole") as store:
        assert {g.attempts for _, g in store.generations() if g.sample_id == "s2"} != {1}
    assert not [path for path in workspace.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("point", ["_copy_image", "_write_rows", "lock", "outputs"])
def test_a_killed_merge_leaves_nothing_incomplete_and_can_be_repeated(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    names = shards(2)
    assert run(["merge", *names, "-o", "expected"]) == 0
    calls = 0

    def killed(*_: object) -> None:
        nonlocal calls
        calls += 1
        if point != "_copy_image" or calls == 3:
            raise SystemExit("killed")

    with monkeypatch.context() as patch:
        home, name = {
            "lock": (shutil, "rmtree"), "outputs": (artifacts, "write")
        }.get(point, (store_merge, point))  # fmt: skip
        patch.setattr(home, name, killed)
        if point == "lock":  # between the last row and the renaming
            patch.setattr(Path, "rename", killed)
        with pytest.raises(SystemExit):
            merging.merge(names, "whole")
    assert calls
    assert (workspace / "whole").exists() == (point == "outputs")
    assert run(["merge", *names, "-o", "whole"]) == 0
    assert figures(workspace / "whole") == figures(workspace / "expected")
    assert images(workspace / "whole") == images(workspace / "expected")
    assert len(table(workspace / "whole", "select 1 from notes where what = 'merged'")) == 1
    assert not [path for path in workspace.iterdir() if path.name.startswith(".")]


def test_directories_that_are_not_shards_of_one_run_are_refused_in_one_line(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards(3)
    other = [*RUN, "--shard", "2/3"]
    assert run([*other, "--out", "seeded", "--seed", "4"]) in (0, 6)
    assert run([*other, "--out", "scored", "-s", "value=1.0"]) in (0, 6)
    assert run([*other, "--out", "limited", "--limit", "5"]) in (0, 6)
    assert run([*RUN, "--shard", "2/2", "--out", "halves"]) in (0, 6)
    assert run([*RUN, "--out", "one"]) == 6
    (workspace / "taken").mkdir()
    (workspace / "taken" / "thesis.txt").write_text("x")
    shutil.copytree("part1", "twin")
    for words, code, message in [
        (["part1", "part3"], 2, "shard 2/3 is not among the directories; name all shards"),
        (["part3"], 2, "shard 1/3 and 1 more is not among"),
        (["part1", "part2", "part3", "twin"], 2, "both contain shard 1/3"),
        (["part1", "part1"], 2, "both contain shard 1/3"),
        (["part1", "seeded", "part3"], 3, "seeded: is a shard of another run than part1: seed is 0 there and 4 here"),
        (["part1", "scored", "part3"], 3, "scorer my_scorer:Half 1"),
        (["part1", "limited", "part3"], 3, "selection all 6 there and 5 stratified"),
        (["part1", "halves", "part3"], 3, "3 shards there and 2 here"),
        (["part1", "one", "part3"], 2, "one: is not a shard of a run"),
        (["part1", "nowhere"], 3, "nowhere: not a run directory"),
        (["part1", "part2", "part3", "-o", "part2"], 2, "is one of the shards"),
        (["part1", "part2", "part3", "-o", "one"], 3, "contains another run"),
        (["part1", "part2", "part3", "-o", "taken"], 3, "not a run directory"),
        (["part1", "part2", "part3", "-o", "taken", "--fresh"], 3, "not a run directory"),
    ]:
        capsys.readouterr()
        assert run(["merge", "-o", "whole", *words]) == code, words
        assert message in one_line(capsys.readouterr().err)
    assert not (workspace / "whole").exists()
    assert (workspace / "taken" / "thesis.txt").read_text() == "x"


def test_an_unfinished_shard_is_refused_unless_allowed(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = shards(2)
    with closing(sqlite3.connect(workspace / "part2" / "run.sqlite")) as database, database:
        database.execute("delete from scores where sample_id = 's1'")
    capsys.readouterr()
    assert run(["merge", *names, "-o", "whole"]) == 3
    assert "part2: shard 2/2 is not finished: 4 scores by my_scorer:Half are missing" in capsys.readouterr().err
    with closing(sqlite3.connect(workspace / "part2" / "run.sqlite")) as database, database:
        database.execute("delete from generations where sample_id = 's1' and repeat = 1")
    assert run(["merge", *names, "-o", "whole"]) == 3
    assert "1 of 6 images are missing" in one_line(capsys.readouterr().err)
    assert run(["merge", *names, "-o", "whole", "--unfinished"]) == 0
    coverage = figures(workspace / "whole")[0]["slices"][0]["coverage"]
    assert coverage["generation_not_run"] == 2  # one generation, scored twice


def test_a_damaged_image_is_named(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = shards(2)
    with RunStore.read(workspace / "part1") as store:
        damaged = next(g.image for _, g in store.generations() if g.sample_id == "s4")
    assert damaged is not None and damaged.path is not None
    damaged.path.write_bytes(damaged.path.read_bytes()[:-1])
    capsys.readouterr()
    assert run(["merge", *names, "-o", "whole"]) == 3
    assert "part1: the image of sample 's4' is missing or damaged" in one_line(capsys.readouterr().err)
    assert not (workspace / "whole").exists()


def test_a_shard_scored_again_stays_a_shard(workspace: Path) -> None:
    names = shards(2)
    for name in names:
        assert run(["score", name, "--scorer", "my_scorer:Half", "-s", "value=1.0", "--judge-repeats", "2"]) in (0, 6)
    assert run(["merge", *names, "-o", "whole"]) == 0
    coverage = figures(workspace / "whole")[0]["slices"][0]["coverage"]
    assert coverage["generation_failed"] == 4  # two generations, scored twice
    assert {
        row["faithfulness"]
        for row in exported(workspace / "whole", workspace / "x.jsonl")
        if row["score_status"] == "ok"
    } == {1.0}


def test_a_run_is_scored_in_shards(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*RUN, "--out", "generated"]) == 6
    score = ["score", "generated", "--scorer", "my_scorer:Half", "-s", "value=1.0"]
    for number in (1, 2):
        assert run([*score, "--shard", f"{number}/2", "--out", f"scored{number}"]) in (0, 6)
    assert run(["merge", "scored1", "scored2", "-o", "whole"]) == 0
    assert run([*score, "--out", "elsewhere"]) == 6
    assert figures(workspace / "whole") == figures(workspace / "elsewhere")
    capsys.readouterr()
    assert run([*score, "--shard", "1/2"]) == 2
    assert "give each shard an --out" in one_line(capsys.readouterr().err)
    assert run(["score", "scored1", "--shard", "1/2", "--out", "again"]) == 2
    assert "shard 1/2 of a run already" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("shard", "message"),
    [("0/2", "counted from 1"), ("3/2", "counted from 1"), ("x", "is not I/N"), ("1/7", "cannot split 6 samples")],
)
def test_an_invalid_shard_is_refused_in_one_line(
    workspace: Path, capsys: pytest.CaptureFixture[str], shard: str, message: str
) -> None:
    assert run([*RUN, "--shard", shard, "--out", "x"]) == 2
    assert message in one_line(capsys.readouterr().err)


def test_shards_without_a_name_get_directories_of_their_own(workspace: Path) -> None:
    for number in (1, 2):
        assert run([*RUN, "--shard", f"{number}/2"]) in (0, 6)
    assert sorted(path.name for path in (workspace / "reports").iterdir()) == [
        "small__my_generator-Picky__shard-1-of-2", "small__my_generator-Picky__shard-2-of-2"
    ]  # fmt: skip


def test_a_results_file_is_scored_in_shards_and_exported_as_a_whole(workspace: Path) -> None:
    rows = []
    (workspace / "images").mkdir()
    for number in range(5):
        Image.new("RGB", (64, 48), (number, 9, 9)).save(workspace / "images" / f"{number}.png")
        rows.append({
            "id": number, "success": number != 2, "prompt": f"prompt {number}",
            "meta": {"category": "art", "difficulty": "easy"}, "note": f"note {number}",
            "output_path": f"images/{number}.png", "gt_image": f"small/truth/s{number}.png",
        })  # fmt: skip
    (workspace / "results.json").write_text(json.dumps(rows))
    score = ["score", "results.json", "--scorer", "my_scorer:Half", "--out"]
    assert run([*score, "one"]) == 6
    for number in (1, 2):
        assert run([*score, f"part{number}", "--shard", f"{number}/2"]) in (0, 6)
    assert run(["merge", "part2", "part1", "-o", "whole"]) == 0
    for name in ("one", "whole"):
        assert run(["export", name, "--format", "official", "-o", f"{name}.json"]) == 0
    assert json.loads((workspace / "whole.json").read_text()) == json.loads((workspace / "one.json").read_text())
    assert figures(workspace / "whole") == figures(workspace / "one")


def test_shards_of_different_machines_are_distinguished(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = shards(2)
    manifest = json.loads((workspace / "part2" / "run.json").read_text())
    manifest["versions"]["pillow"], manifest["machine"]["host"] = "9.0.1", "elsewhere"
    (workspace / "part2" / "run.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    assert run(["merge", *names, "-o", "whole"]) == 0
    with RunStore.read(workspace / "part1") as first, RunStore.read(workspace / "whole") as whole:
        here = first.manifest
        assert whole.manifest.versions["pillow"] == f"{here.versions['pillow']}, 9.0.1"
        assert whole.manifest.versions["numpy"] == here.versions["numpy"]
        assert whole.manifest.machine["host"] == [here.machine["host"], "elsewhere"]
        ((_, _, origin),) = whole.notes("merged")
    assert [part["versions"]["pillow"] for part in origin["parts"]] == [here.versions["pillow"], "9.0.1"]
    assert f"made with pillow {here.versions['pillow']}, 9.0.1" in capsys.readouterr().out


@pytest.mark.slow
def test_a_merge_killed_at_any_moment_is_continued(workspace: Path) -> None:
    """Kill the merge after an increasing time, until it finishes."""
    names = shards(3)
    assert run(["merge", *names, "-o", "expected"]) == 0
    command = [sys.executable, "-m", "knowgen", "merge", *names, "-o", "whole"]
    killed = 0
    for step in range(200):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, message = child.communicate(timeout=0.25 + 0.05 * step)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            killed += 1
            continue
        assert child.returncode == 0, message
        break
    assert killed
    assert figures(workspace / "whole") == figures(workspace / "expected")
    assert images(workspace / "whole") == images(workspace / "expected")
    assert exported(workspace / "whole", workspace / "a.jsonl") == exported(
        workspace / "expected", workspace / "b.jsonl"
    )
    assert not [path for path in workspace.iterdir() if path.name.startswith(".")]
