"""The official arithmetic, against a second implementation that reads the same raw replies."""

from __future__ import annotations

import json
import math
import random

from knowgen.core.records import DIMENSIONS, ParsedScore, Row
from knowgen.scorers.vlm.parsing import read_lenient
from knowgen.stats.aggregate import aggregate
from knowgen.stats.official import stored_overall, summary_rows
from tests.helpers import official_reference as reference
from tests.helpers.official_reference import Case
from tests.helpers.score_rows import FAILED, row

MISSING = object()
TABLE: dict[str, list[object]] = {
    "missing": [MISSING],
    "grid": [0, 0.5, 1],
    "off grid": [0.123456, 0.7, 0.005, 0.015, 0.335],
    "out of range": [-3, 1.5, 7, -0.0],
    "numeric string": ["0.5", " 1 ", "1e-1", "0.335", "-2"],
    "boolean": [True, False],
    "not a number": [float("nan"), float("inf"), "nan", "inf"],
    "minus infinity": [float("-inf"), "-inf"],
    "null": [None],
    "list": [[], [1]],
    "object": [{}, {"value": 1}],
    "other string": ["", "N/A", "high", "1/2"],
}
HARMLESS = [kind for kind in TABLE if kind not in {"null", "list", "object", "other string"}]
FLAGS = [MISSING, True, False, "true", "True", "TRUE", "yes", 1, 1.0, 0, None, [True], {}, "false", 2]
NOT_AN_OBJECT = ["", "   ", "no JSON here", "[1, 2]", "{", "{]}", '{"faithfulness": }', "null", "}{"]
CATEGORIES = [*reference.SCIENCE, *reference.POP, "volcanology", "", "Physics"]


def one_reply(random_: random.Random, seen: set[str], values: dict[str, str] | None = None) -> str:
    """Write a reply whose values come from named rows of the table, in one of the shapes that models wrap them in."""
    kinds = values or {
        name: random_.choice(list(TABLE) if name == "text_accuracy" else HARMLESS) for name in DIMENSIONS
    }
    result: dict[str, object] = {"rationale": random_.choice(["fine", "a } b { c", "x, ]", "ü\n"])}
    for name, kind in kinds.items():
        seen.add(f"{'text' if name == 'text_accuracy' else 'other'}: {kind}")
        value = random_.choice(TABLE[kind])
        if value is not MISSING:
            result[name] = value
    flag = random_.choice(FLAGS)
    if flag is not MISSING:
        result["text_accuracy_na"] = flag
    seen.add(f"flag: {flag!r}" if flag is not MISSING else "flag: missing")
    text = json.dumps(result)
    shape = random_.choice(["plain", "fence", "bare fence", "prose", "trailing comma", "spaces"])
    seen.add(f"shape: {shape}")
    if shape == "trailing comma":
        return text[:-1] + ", }"
    wrapped = {
        "plain": text,
        "fence": f"```json\n{text}\n```",
        "bare fence": f"\n```\n{text}```  ",
        "prose": f"Here is my verdict: {text} I hope it helps.",
        "spaces": f"\n\n {text}\t",
    }
    return wrapped[shape]


def a_set(seed: int, seen: set[str]) -> list[Case]:
    """Return replies that use every row of the value table in every kind of dimension."""
    random_ = random.Random(seed)
    forced = [{**dict.fromkeys(DIMENSIONS, "grid"), name: kind} for name in DIMENSIONS for kind in TABLE]
    plans: list[dict[str, str] | None] = [*forced, *([None] * random_.randrange(0, 60))]
    random_.shuffle(plans)
    allowed = random_.choice([CATEGORIES, CATEGORIES, reference.SCIENCE, [*reference.POP, "volcanology"]])
    cases = []
    for number, plan in enumerate(plans):
        requested_again = [random_.choice(NOT_AN_OBJECT) for _ in range(random_.choice([0, 0, 0, 1, 3]))]
        seen.update(f"requested again: {reply!r}" for reply in requested_again)
        replies = [*requested_again, one_reply(random_, seen, plan)] if random_.random() > 0.03 else requested_again
        cases.append(Case(str(number), random_.choice(allowed), random_.random() > 0.1, replies))
    return cases


def as_row(case: Case) -> Row:
    """Parse the attempts as the official evaluator does: the first reply that is an object counts."""
    result: ParsedScore | None = None
    for reply in case.replies:
        result = read_lenient(reply)
        if result is not None:
            break
    generation = "ok" if case.success else "failed"
    return row(case.id, case.category, FAILED, generation, lenient=result if case.success else None)


def test_three_hundred_random_reply_sets_agree_to_the_last_digit() -> None:
    seen: set[str] = set()
    for seed in range(300):
        cases = a_set(seed, seen)
        ours = summary_rows(aggregate([as_row(case) for case in cases], "official"))
        assert ours == reference.summary_rows(cases), f"set {seed}"
    expected = {f"{kind}: {row_}" for kind in ("text", "other") for row_ in TABLE}
    expected |= {f"flag: {flag!r}" for flag in FLAGS if flag is not MISSING} | {"flag: missing"}
    expected |= {f"requested again: {reply!r}" for reply in NOT_AN_OBJECT}
    expected |= {f"shape: {shape}" for shape in ("plain", "fence", "bare fence", "prose", "trailing comma", "spaces")}
    assert expected <= seen


def test_the_reference_is_right_on_a_case_worked_by_hand() -> None:
    cases = [
        Case("1", "physics", replies=['{"faithfulness": 1, "visual_correctness": 0.5, "text_accuracy": null}']),
        Case("2", "art", replies=["nothing", '{"faithfulness": "x"}']),
        Case("3", "news", success=False, replies=['{"faithfulness": 1}']),
    ]
    science = {"faithfulness": 1.0, "visual_correctness": 0.5, "text_accuracy": 0.5, "aesthetics": 0.0, "overall": 0.5}
    rows = reference.summary_rows(cases)
    assert rows[0] == {"summary_type": "science_and_knowledge", "avg_scores": science, "count": 1}
    assert rows[1]["count"] == 0 and rows[1]["avg_scores"]["text_accuracy"] == 0.0
    assert rows[2]["avg_scores"] == {name: value / 2 for name, value in science.items()}


def test_the_overall_stored_with_a_sample_counts_a_half_for_text_that_is_not_applicable() -> None:
    values = {"faithfulness": 1.0, "visual_correctness": 0.5, "aesthetics": 0.5}
    assert stored_overall(values) == 0.55  # .1 + .2 + .4 * .5 + .05
    assert stored_overall({**values, "text_accuracy": 0.0}) == 0.35
    assert stored_overall({}) is None


def test_sums_run_in_row_order_from_left_to_right() -> None:
    """The exact mean of these is 0.31875, a tie of the fourth decimal: only plain additions in this order round up."""
    values = [0.5, 0.1, 0.3, 0.1, 0.5, 0.7, 0.15, 0.2]

    def published(order: list[float]) -> float | None:
        cases = [Case(str(i), "art", replies=[json.dumps(dict.fromkeys(DIMENSIONS, v))]) for i, v in enumerate(order)]
        summary = aggregate([as_row(case) for case in cases], "official")
        assert summary_rows(summary) == reference.summary_rows(cases)
        return summary.slice("group", "science_and_knowledge").figures["faithfulness"].value

    assert published(values) == 0.3188
    assert published(sorted(values)) == 0.3187 == round(math.fsum(values) / 8, 4)
