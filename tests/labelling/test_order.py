"""What is asked, in which order, and what happens when runs change."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import pytest

from knowgen.core.errors import UsageError
from knowgen.core.records import DIMENSIONS
from knowgen.labelling.items import left_out_lines, make_plan
from knowgen.labelling.label_files import read_label_file
from knowgen.labelling.rater import Answer, RaterProgress
from tests.labelling.conftest import SYSTEMS, Plans, make_runs

RATED = Answer({"aesthetics": 1.0}, seconds=2.0)


def all_of(progress: RaterProgress, answer: Answer = RATED, at_most: int = 10_000) -> list[tuple[str, tuple[str, ...]]]:
    """Label everything, and return sample and systems of each item."""
    seen: list[tuple[str, tuple[str, ...]]] = []
    while len(seen) < at_most and (found := progress.next()) is not None:
        progress.label(found[0], answer)
        seen.append((found[0].of.sample.id, tuple(one.system for one in found[0].images)))
    return seen


def test_every_image_is_asked_once_and_no_sample_twice_in_a_row(plans: Plans, tmp_path: Path) -> None:
    plan = plans()
    seen = all_of(RaterProgress(plan, tmp_path, "ann"))
    assert len(seen) == plan.total == 18
    assert len(set(seen)) == 18
    assert all(one[0] != other[0] for one, other in pairwise(seen))


def test_every_pair_is_asked_once_whichever_side(plans: Plans, tmp_path: Path) -> None:
    plan = plans("pairs")
    seen = all_of(RaterProgress(plan, tmp_path, "ann"), Answer({}, choice="left"))
    assert len(seen) == plan.total == 18
    assert len({(sample, frozenset(systems)) for sample, systems in seen}) == 18
    assert all(one[0] != other[0] for one, other in pairwise(seen))


def test_a_rater_who_stops_early_has_seen_all_pairs_of_systems(plans: Plans) -> None:
    plan = plans("pairs")
    for rater in ("ann", "bob", "eve"):
        first = Counter(tuple(sorted(one.system for one in item.images)) for item in islice(plan.order(rater), 6))
        assert sorted(first.values()) == [2, 2, 2]


def test_the_order_depends_on_seed_and_rater_and_on_nothing_else(plans: Plans) -> None:
    def order(seed: int, rater: str) -> list[object]:
        plan = plans("pairs", seed=seed)
        return [(item.key, [one.system for one in item.images]) for item in plan.order(rater)]

    assert order(0, "ann") == order(0, "ann")
    assert order(0, "ann") != order(0, "bob")
    assert order(0, "ann") != order(1, "ann")


def test_left_and_right_are_balanced(plans: Plans) -> None:
    plan = plans("pairs")
    sides = [item.images[0].system < item.images[1].system for rater in "abcdef" for item in plan.order(rater)]
    assert len(sides) == 108
    assert 36 <= sum(sides) <= 72  # 54 expected; 3.5 standard deviations on either side


def test_a_later_session_goes_on_where_the_last_one_stopped(plans: Plans, tmp_path: Path) -> None:
    first = all_of(RaterProgress(plans(), tmp_path, "ann"), at_most=7)
    again = RaterProgress(plans(), tmp_path, "Ann")
    assert (again.name, again.done, again.total) == ("ann", 7, 18)
    rest = all_of(again)
    assert len(set(first + rest)) == len(first + rest) == 18
    assert RaterProgress(plans(), tmp_path, "bob").done == 0


def test_two_processes_of_one_rater_see_each_other(plans: Plans, tmp_path: Path) -> None:
    one, other = (RaterProgress(plans(), tmp_path, "ann") for _ in range(2))
    all_of(one, at_most=5)
    item = other.next()
    assert item is not None
    assert other.done == 5
    other.label(item[0], RATED)
    one.next()
    assert one.done == 6


def test_undo_goes_back_step_by_step_and_shows_the_earlier_answer(plans: Plans, tmp_path: Path) -> None:
    progress = RaterProgress(plans(), tmp_path, "ann")
    assert not progress.undo()
    seen = all_of(progress, at_most=3)
    for expected in (seen[2], seen[1]):
        assert progress.undo()
        shown = progress.next()
        assert shown is not None
        item, earlier = shown
        assert (item.of.sample.id, tuple(one.system for one in item.images)) == expected
        assert earlier is not None
        assert earlier.values == {"aesthetics": 1.0}
    assert progress.done == 1
    progress.label(item, Answer({"aesthetics": 0.0}))
    assert RaterProgress(plans(), tmp_path, "ann").done == 2
    assert len(read_label_file(progress.path).labels) == 6


def test_undo_after_everything_is_labelled(plans: Plans, tmp_path: Path) -> None:
    progress = RaterProgress(plans(samples=1), tmp_path, "ann")
    seen = all_of(progress)
    assert progress.next() is None
    assert progress.undo()
    shown = progress.next()
    assert shown is not None
    assert (shown[0].of.sample.id, (shown[0].images[0].system,)) == seen[-1]


def test_a_clock_that_is_set_back_does_not_revive_an_older_label(plans: Plans, tmp_path: Path) -> None:
    progress = RaterProgress(plans(), tmp_path, "ann")
    all_of(progress, at_most=1)
    text = progress.path.read_text()
    progress.path.write_text(text.replace(text.split('"at":"')[1][:4], "2999"))
    later = RaterProgress(plans(), tmp_path, "ann")
    assert later.done == 1
    assert later.undo()
    assert RaterProgress(plans(), tmp_path, "ann").done == 0


def test_images_that_were_generated_again_are_asked_again(tmp_path: Path) -> None:
    def runs(folder: str, names: tuple[str, ...]) -> list[tuple[str, Path]]:
        made = make_runs(tmp_path / folder, 4, names)
        return [(SYSTEMS[place], path) for place, (_, path) in enumerate(made)]

    before, after = runs("before", SYSTEMS[:2]), runs("after", (SYSTEMS[0], "another_painter"))
    all_of(RaterProgress(make_plan(before, "rate"), tmp_path, "ann"))
    progress = RaterProgress(make_plan(after, "rate"), tmp_path, "ann")
    assert (progress.done, progress.total, progress.outdated) == (4, 8, 4)
    assert {systems for _, systems in all_of(progress)} == {(SYSTEMS[1],)}


def test_labels_of_other_systems_and_modes_are_no_changed_images(plans: Plans, runs: object, tmp_path: Path) -> None:
    all_of(RaterProgress(plans(), tmp_path, "ann"))
    assert RaterProgress(plans("pairs"), tmp_path, "ann").outdated == 0
    assert isinstance(runs, list)
    alone = RaterProgress(make_plan(runs[:1], "rate"), tmp_path, "ann")
    assert (alone.done, alone.total, alone.outdated) == (6, 6, 0)


def test_a_run_under_another_name_keeps_its_labels(runs: list[tuple[str, Path]], tmp_path: Path) -> None:
    all_of(RaterProgress(make_plan(runs, "rate"), tmp_path, "ann"))
    renamed = [(f"{name} (copy)", path) for name, path in runs]
    assert RaterProgress(make_plan(renamed, "rate"), tmp_path, "ann").done == 18


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_all_raters_get_the_same_drawn_samples(plans: Plans) -> None:
    one, other = (plans(samples=3, seed=seed) for seed in (1, 1))
    assert [each.sample.id for each in one.samples] == [each.sample.id for each in other.samples]
    assert len(one.samples) == 3
    assert one.total == 9


def test_dimensions_are_those_of_the_scorer(plans: Plans) -> None:
    assert plans().dimensions == DIMENSIONS
    with pytest.raises(UsageError, match="no scorer 'no_such'"):
        plans(scorer="no_such")


def test_missing_images_are_left_out_with_their_reasons(tmp_path: Path) -> None:
    plan = make_plan(make_runs(tmp_path, 40, SYSTEMS[:2], failing=True, fail_rate=0.3), "pairs")
    assert 0 < plan.total < 40
    lines = left_out_lines(plan)
    assert len(lines) == 2
    assert all("(generation failed)" in line for line in lines)
    assert all(len(item.images) == 2 for item in plan.order("ann"))


def test_wrong_requests_are_one_line(plans: Plans, runs: list[tuple[str, Path]], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sample 'none'"):
        plans(ids=["none"])
    with pytest.raises(UsageError, match="two runs"):
        make_plan(runs[:1], "pairs")
    other = make_runs(tmp_path, 2, SYSTEMS[1:2], version="2-abcdef012345")
    with pytest.raises(UsageError, match=r"different tasks: lighthouses 1-\w+ and lighthouses 2-"):
        make_plan([runs[0], other[0]], "rate")
    failed = make_runs(tmp_path / "failed", 2, SYSTEMS[:1], failing=True, fail_rate=1.0)
    with pytest.raises(UsageError, match="no image"):
        make_plan(failed, "rate")
