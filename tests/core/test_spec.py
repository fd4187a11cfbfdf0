"""Keys: equal for equal content, different as soon as anything that decides a result differs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen.core.records import Sample, group_of, request_id
from knowgen.core.spec import (
    GeneratorSpec,
    RunSpec,
    ScorerSpec,
    canonical,
    fingerprint,
    generation_key,
    score_key,
    select,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def spec(**changes: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "task": "t", "task_version": "1-abc", "selection": select(["a", "b"], "all"),
        "generator": GeneratorSpec(name="g", args={"steps": 4}, revision="r1"), "seed": 7,
    }  # fmt: skip
    return RunSpec(**(fields | changes))


def key(of: RunSpec, **changes: Any) -> str:
    fields: dict[str, Any] = {"sample_id": "a", "prompt_hash": "p", "references": (), "repeat": 0}
    return generation_key(of, **(fields | changes))


@given(plain)
def test_canonical_json_is_json_and_ignores_the_order_of_keys(value: Any) -> None:
    assert json.loads(canonical(value)) == value
    if isinstance(value, dict):
        assert canonical(dict(reversed(value.items()))) == canonical(value)
    assert fingerprint(value) == hashlib.sha256(canonical(value).encode()).hexdigest()


def test_nan_has_no_key() -> None:
    with pytest.raises(ValueError):
        canonical({"x": float("nan")})


def test_a_generation_key_changes_with_everything_that_decides_the_image() -> None:
    generator = GeneratorSpec(name="g", args={"steps": 4}, revision="r1")
    keys = {
        key(spec()),
        key(spec(task_version="1-abd")),
        key(spec(seed=8)),
        key(spec(generator=generator.model_copy(update={"name": "h"}))),
        key(spec(generator=generator.model_copy(update={"args": {"steps": 5}}))),
        key(spec(generator=generator.model_copy(update={"revision": "r2"}))),
        key(spec(generator=generator.model_copy(update={"search": "world@1"}))),
        key(spec(), sample_id="b"),
        key(spec(), prompt_hash="q"),
        key(spec(), references=("x",)),
        key(spec(), repeat=1),
    }
    assert len(keys) == 11


def test_a_generation_key_ignores_what_does_not_decide_the_image() -> None:
    scorer = ScorerSpec(name="s")
    assert key(spec(scorers=(scorer,), repeats=3, judge_repeats=2)) == key(spec())
    assert key(spec(selection=select(["a"], "limit"))) == key(spec())


def test_a_score_key_changes_with_judge_image_and_truth() -> None:
    base: dict[str, Any] = {
        "task_version": "1", "sample_id": "a", "truth_hash": "t", "image": "i", "repeat": 0, "judge_repeat": 0
    }  # fmt: skip
    one = ScorerSpec(name="s", args={"rubric": "x"}, version="1")
    keys = {score_key(one, **base)}
    changes: list[dict[str, Any]] = [
        {"truth_hash": "u"}, {"image": "j"}, {"repeat": 1}, {"judge_repeat": 1}, {"sample_id": "b"},
        {"task_version": "2"},
    ]  # fmt: skip
    keys |= {score_key(one, **(base | change)) for change in changes}
    others: list[dict[str, Any]] = [{"name": "z"}, {"args": {}}, {"version": "2"}]
    for change in others:
        keys.add(score_key(one.model_copy(update=change), **base))
    assert len(keys) == 10
    assert score_key(one.model_copy(update={"note": "other words"}), **base) in keys


def test_a_part_of_a_task_is_named_by_its_ids() -> None:
    assert select(["a", "b"], "limit").hash == fingerprint(["a", "b"])[:12]
    assert select(["a", "b"], "limit").hash != select(["b", "a"], "ids").hash
    assert select(["a"], "all").label == "all 1"


def test_a_request_id_reveals_nothing_and_separates_repeats() -> None:
    assert len({request_id(sample, repeat) for sample in ("a", "b", "a0") for repeat in range(3)}) == 9
    assert "astronomy" not in request_id("astronomy-1", 0)


def test_each_category_belongs_to_its_published_group() -> None:
    assert group_of("sports") == "science_and_knowledge"
    assert group_of("multi-subject-anime") == "pop_culture_and_news"
    assert group_of("Sports") == "unknown"
    assert Sample(id="x", prompt="p").group == "unknown"
