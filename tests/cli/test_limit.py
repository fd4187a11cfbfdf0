"""`--limit N` takes a stratified sample, the same for everybody, unless a task is ordered for its first N."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen import api
from knowgen.cli.main import run
from knowgen.core.records import Sample, group_of
from knowgen.tasks.in_memory import InMemoryTask
from knowgen.tasks.load import load_task
from knowgen.workflows.selection import select_samples, stratified

pytestmark = pytest.mark.usefixtures("in_process")

SIZES = {"biology": 40, "art": 4, "sports": 20, "game": 24, "": 1}


def samples_of(sizes: dict[str, int]) -> list[Sample]:
    return [
        Sample(id=f"{category}-{number}", prompt="x", category=category, group=group_of(category))
        for category, size in sizes.items()
        for number in range(size)
    ]


def test_the_bundled_task_gives_both_groups_and_a_sample_of_eight_categories() -> None:
    chosen, selection = select_samples(load_task("knowgen_mini"), limit=8, ids=None)
    assert len({sample.category for sample in chosen}) == 8
    assert sorted(Counter(sample.group for sample in chosen).values()) == [3, 5], "of 18 and 30"
    assert selection.kind == "stratified" and selection.label == f"8 stratified ({selection.hash})"
    again, same = select_samples(load_task("knowgen_mini"), limit=8, ids=None)
    assert (again, same) == (chosen, selection)


@given(
    st.dictionaries(st.sampled_from(["biology", "art", "sports", "games", "", "other"]), st.integers(1, 12), min_size=1)
)
def test_groups_are_in_proportion_and_smaller_limits_are_parts_of_larger_ones(sizes: dict[str, int]) -> None:
    samples = samples_of(sizes)
    earlier: set[str] = set()
    groups = Counter(sample.group for sample in samples)
    for limit in range(1, len(samples) + 1):
        chosen = stratified(samples, limit, "version")
        ids = [sample.id for sample in chosen]
        assert len(ids) == limit and earlier <= set(ids)
        assert ids == [sample.id for sample in samples if sample.id in set(ids)], "the order of the task"
        share = Counter(sample.group for sample in chosen)
        assert all(abs(share[name] - limit * size / len(samples)) <= 1 for name, size in groups.items())
        earlier = set(ids)


def test_the_order_of_the_samples_and_other_versions() -> None:
    samples = samples_of(SIZES)
    chosen = {sample.id for sample in stratified(samples, 12, "1-abc")}
    assert chosen == {sample.id for sample in stratified(samples[::-1], 12, "1-abc")}
    assert chosen != {sample.id for sample in stratified(samples, 12, "1-abd")}


def test_a_task_that_is_ordered_for_it_gives_its_first_samples() -> None:
    task = InMemoryTask("ordered", samples_of(SIZES), limit="first")
    chosen, selection = select_samples(task, limit=3, ids=None)
    assert [sample.id for sample in chosen] == ["biology-0", "biology-1", "biology-2"]
    assert selection.kind == "limit" and selection.label == f"first 3 ({selection.hash})"


def test_a_limit_of_all_samples_or_more_is_the_whole_task() -> None:
    task = InMemoryTask("small", samples_of({"art": 3}))
    assert {select_samples(task, limit=limit, ids=None)[1].label for limit in (3, 4, None)} == {"all 3"}


@pytest.mark.parametrize(("field", "label"), [("", "3 stratified"), ("limit: first\n", "first 3")])
def test_the_table_says_which_samples_a_limit_took(
    field: str, label: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = workspace / "small" / "task.yaml"
    file.write_text(file.read_text() + field)
    words = ["run", "--task", "small", "--generator", "my_generator.py:draw", "--limit", "3", "--out", "out"]
    assert run([*words, "--dry-run"]) == 0
    assert f", {label} (" in capsys.readouterr().out
    assert run(words) == 0
    assert f"selection {label} (" in capsys.readouterr().out
    assert api.load_run("out").summary.selection.startswith(label)
