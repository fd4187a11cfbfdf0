"""Parsing a judge's reply: leniently by the table of the KnowGen protocol, strictly by the contract."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen.core.records import DIMENSIONS, TEXT, ParsedScore, ScoreStatus
from knowgen.scorers.vlm.parsing import ReplyError, read_lenient, read_strict

GOOD: dict[str, Any] = {
    "rationale": "All there.",
    "faithfulness": 1,
    "visual_correctness": 0.5,
    "text_accuracy": 1,
    "aesthetics": 0,
    "text_accuracy_na": False,
}


def reply(**changes: Any) -> str:
    return json.dumps(GOOD | changes)


def without(name: str) -> str:
    return json.dumps({key: value for key, value in GOOD.items() if key != name})


def lenient(text: str) -> ParsedScore:
    reading = read_lenient(text)
    assert reading is not None
    return reading


# ------------------------------------------------------------------------------------------- the official value table


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0", 0.0), ("0.5", 0.5), ("1", 1.0), ("1.0", 1.0), ("0.333", 0.33), ("0.125", 0.12), ("0.675", 0.68),
        ("7", 1.0), ("-3", 0.0), ("1e400", 1.0), ("-1e400", 0.0), ("NaN", 1.0), ("Infinity", 1.0), ("-Infinity", 0.0),
        ('"0.5"', 0.5), ('" 1 "', 1.0), ('"nan"', 1.0), ('"inf"', 1.0), ('"2"', 1.0), ("true", 1.0), ("false", 0.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", DIMENSIONS)
def test_numbers_in_any_form_are_clipped_and_rounded(name: str, written: str, read: float) -> None:
    text = reply(**{name: "HERE"}).replace('"HERE"', written)
    reading = lenient(text)
    assert reading.status is ScoreStatus.OK
    assert reading.values[name] == read
    assert set(reading.values) == set(DIMENSIONS)


@pytest.mark.parametrize("name", DIMENSIONS)
def test_a_missing_dimension_is_zero(name: str) -> None:
    assert lenient(without(name)).values[name] == 0.0


@pytest.mark.parametrize("written", ["null", "[]", "[1]", "{}", '{"value": 1}', '"high"', '""', '"1/2"', '"50%"'])
def test_another_value_is_na_in_text_and_fails_the_sample_elsewhere(written: str) -> None:
    for name in DIMENSIONS:
        reading = lenient(reply(**{name: "HERE"}).replace('"HERE"', written))
        if name == TEXT:
            assert (reading.status, reading.na) == (ScoreStatus.OK, (TEXT,))
            assert TEXT not in reading.values and len(reading.values) == 3
        else:
            assert reading.status is ScoreStatus.FAILED
            assert name in reading.reason and reading.values == {}


@pytest.mark.parametrize("flag", ["true", '"true"', '"True"', "1", "1.0"])
def test_flags_that_count_as_true_mean_na(flag: str) -> None:
    reading = lenient(reply(text_accuracy_na="HERE").replace('"HERE"', flag))
    assert reading.na == (TEXT,) and TEXT not in reading.values


@pytest.mark.parametrize("flag", ["false", '"TRUE"', '"yes"', "2", "0", "null", "[true]", '"1"', "{}"])
def test_other_flags_do_not_mean_na(flag: str) -> None:
    reading = lenient(reply(text_accuracy_na="HERE").replace('"HERE"', flag))
    assert reading.na == () and reading.values[TEXT] == 1.0


@pytest.mark.parametrize(
    "text",
    ["", "   \n", "I cannot judge this.", "[1, 2]", "3", "null", '{"faithfulness": 1', "{'faithfulness': 1}", "} {",
     '{"a": 1} and {"b": 2}', "```json\n```", "{" * 200_000, '{"a":' * 200_000 + "1" + "}" * 200_000,
     '{"faithfulness": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_replies_without_an_object_have_no_official_score(text: str) -> None:
    assert read_lenient(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "```json\n%s\n```", "```\n%s```", "Here is my verdict:\n%s\nI hope this helps.", "  %s  ", "\ufeff%s",
        "<think>short</think>%s", "```JSON5 %s",
    ],
)  # fmt: skip
def test_text_around_the_object_is_ignored(text: str) -> None:
    reading = lenient(text % reply())
    assert reading.read_from == ("" if text.strip() == "%s" else "from the first { to the last }")
    assert reading.model_copy(update={"read_from": ""}) == lenient(reply())


def test_trailing_commas_are_removed_in_a_second_parse() -> None:
    text = reply(extra=[1, 2]).replace("2]", "2 , ]").replace("}", ",\n}")
    assert lenient(text) == lenient(reply())
    # A parse that works at once leaves a comma inside a string alone.
    assert lenient(reply(rationale="a set {a,}")).rationale == "a set {a,}"


@pytest.mark.parametrize(
    ("written", "read"),
    [("null", "None"), ("7", "7"), ('["a"]', "['a']"), ("true", "True"), ('"' + "x" * 3000 + '"', "x" * 1000)],
)
def test_the_rationale_is_a_string_of_at_most_1000_characters(written: str, read: str) -> None:
    assert lenient(reply(rationale="HERE").replace('"HERE"', written)).rationale == read


def test_a_missing_rationale_is_empty_and_lone_surrogates_can_be_stored() -> None:
    assert lenient(without("rationale")).rationale == ""
    text = reply(rationale="HERE").replace("HERE", "\\ud800 and 🙂")
    stored = lenient(text).rationale.encode()
    assert stored.decode() == "\ufffd and 🙂"


@pytest.mark.parametrize("name", DIMENSIONS)
def test_a_number_beyond_a_float_fails_the_sample(name: str) -> None:
    reading = lenient(reply(**{name: 10**400}))
    assert reading.status is ScoreStatus.FAILED and name in reading.reason


def test_the_lenient_parser_takes_the_last_of_duplicate_keys() -> None:
    text = reply().replace('"aesthetics": 0', '"aesthetics": 0, "aesthetics": 1')
    assert lenient(text).values["aesthetics"] == 1.0
    assert "twice" in str(read_strict(text, text_required=None))


# ------------------------------------------------------------------------------------------------- the strict reading


def test_a_reply_that_meets_the_contract_is_parsed() -> None:
    reading = read_strict(reply(), text_required=True)
    assert reading == ParsedScore(
        status=ScoreStatus.OK,
        values={"faithfulness": 1.0, "visual_correctness": 0.5, "text_accuracy": 1.0, "aesthetics": 0.0},
        rationale="All there.",
    )


@pytest.mark.parametrize("wrapped", ["```json\n%s\n```", "```%s```", "\n\t%s \n"])
def test_a_fence_and_white_space_are_tolerated(wrapped: str) -> None:
    assert isinstance(read_strict(wrapped % reply(), text_required=None), ParsedScore)


@pytest.mark.parametrize(
    "text",
    ["", "```json\n```", "nothing", "[]", "1", "Sure: %s", "%s Anything else?", "%s %s", "[%s]",
     "{" * 200_000, reply()[:-10], reply().replace("}", ",}")],
)  # fmt: skip
def test_other_text_around_the_object_is_a_fault(text: str) -> None:
    assert isinstance(read_strict(text.replace("%s", reply()), text_required=None), ReplyError)


@pytest.mark.parametrize("name", DIMENSIONS)
@pytest.mark.parametrize("written", ["0.7", "2", "-1", '"1"', "true", "false", "null", "[]", "{}", "NaN", "1e999"])
def test_values_off_the_grid_are_faults(name: str, written: str) -> None:
    fault = read_strict(reply(**{name: "HERE"}).replace('"HERE"', written), text_required=None)
    assert isinstance(fault, ReplyError)
    assert name in str(fault) or "NaN" in str(fault)


@pytest.mark.parametrize("name", list(GOOD))
def test_a_missing_key_is_named(name: str) -> None:
    fault = read_strict(without(name), text_required=None)
    assert isinstance(fault, ReplyError) and f'"{name}"' in str(fault)


def test_every_fault_is_reported_at_once() -> None:
    fault = read_strict(reply(faithfulness=0.3, aesthetics="good", rationale=3), text_required=None)
    assert isinstance(fault, ReplyError)
    assert len(fault.faults) == 3
    assert "0, 0.5 or 1" in str(fault)


@pytest.mark.parametrize("value", [None, 0, 0.5, 1])
def test_na_is_taken_from_the_flag(value: float | None) -> None:
    reading = read_strict(reply(text_accuracy=value, text_accuracy_na=True), text_required=None)
    assert isinstance(reading, ParsedScore)
    assert reading.na == (TEXT,) and TEXT not in reading.values


@pytest.mark.parametrize("flag", ["true", "True", 1, 0, None, []])
def test_the_flag_must_be_a_boolean(flag: Any) -> None:
    assert "must be true or false" in str(read_strict(reply(text_accuracy_na=flag), text_required=None))


def test_the_na_flag_must_agree_with_the_task() -> None:
    na = reply(text_accuracy=None, text_accuracy_na=True)
    assert "must be false" in str(read_strict(na, text_required=True))
    assert "must be true" in str(read_strict(reply(), text_required=False))
    assert isinstance(read_strict(na, text_required=False), ParsedScore)
    assert isinstance(read_strict(na, text_required=None), ParsedScore)
    assert isinstance(read_strict(reply(), text_required=None), ParsedScore)


# --------------------------------------------------------------------------------------------------- properties

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from([0, 0.5, 1, "0.5", "true", "True"]),
)  # fmt: skip
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
objects = st.fixed_dictionaries({}, optional=dict.fromkeys([*GOOD, "extra"], values))
grid_objects = st.fixed_dictionaries(
    {name: st.sampled_from([0, 0.5, 1, None]) for name in DIMENSIONS}
    | {"rationale": st.text(max_size=1200), "text_accuracy_na": st.booleans()}
)
texts = st.one_of(
    st.text(),
    st.text(alphabet='{}[]",:01.5 \\nNaInfity`json\ud800'),
    objects.map(json.dumps),
    grid_objects.map(json.dumps),
    st.tuples(st.text(max_size=5), objects.map(json.dumps), st.text(max_size=5)).map("".join),
)


@given(texts, st.sampled_from([None, True, False]))
def test_no_text_raises_and_every_parsed_score_can_be_stored(text: str, text_required: bool | None) -> None:
    official = read_lenient(text)
    if official is not None:
        official.model_dump_json().encode()
        assert all(0.0 <= value <= 1.0 for value in official.values.values())
    strict = read_strict(text, text_required=text_required)
    if isinstance(strict, ReplyError):
        assert strict.faults and all(strict.faults)
        str(strict).encode()
    else:
        strict.model_dump_json().encode()


@given(
    st.one_of(grid_objects, objects), st.sampled_from([None, True, False]), st.sampled_from(["%s", "```json\n%s\n```"])
)
def test_strictly_valid_replies_parse_the_same_leniently(
    fields: dict[str, Any], text_required: bool | None, wrapped: str
) -> None:
    text = wrapped.replace("%s", json.dumps(fields))
    strict = read_strict(text, text_required=text_required)
    if isinstance(strict, ParsedScore):
        official = lenient(text)
        assert (official.values, official.na, official.rationale) == (strict.values, strict.na, strict.rationale)
        assert set(strict.values.values()) <= {0.0, 0.5, 1.0}
        assert set(strict.values) | set(strict.na) == set(DIMENSIONS)


@given(grid_objects, st.sampled_from([None, True, False]))
def test_the_strict_parser_accepts_exactly_the_contract(fields: dict[str, Any], text_required: bool | None) -> None:
    """Compare with a separate definition of valid objects of grid values and nulls."""
    na = fields["text_accuracy_na"]
    others = all(fields[name] is not None for name in DIMENSIONS if name != TEXT)
    text_fits = na or fields[TEXT] is not None
    agrees = text_required is None or na is not text_required
    accepted = isinstance(read_strict(json.dumps(fields), text_required=text_required), ParsedScore)
    assert accepted == (others and text_fits and agrees)


def test_an_object_without_keys_is_read_as_zeros() -> None:
    assert set(lenient("{}").values.values()) == {0.0}
    assert lenient("{,}") == lenient("{}") == lenient("[{}]").model_copy(update={"read_from": ""})
