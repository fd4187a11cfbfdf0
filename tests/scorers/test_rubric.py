"""Instruction, JSON schema and strict parser follow from one contract and agree."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from knowgen.core.records import DIMENSIONS, TEXT, ParsedScore
from knowgen.scorers.vlm.parsing import read_strict
from knowgen.scorers.vlm.rubric import CONTRACT, na_flag, system_prompt, user_text

KEYS = ("rationale", *DIMENSIONS, "text_accuracy_na")


def fits_schema(schema: dict[str, Any], reply: dict[str, Any]) -> bool:
    """Validate a value by the parts of JSON schema that the contract uses, independently of the parser."""
    if not set(schema["required"]) <= set(reply) or not set(reply) <= set(schema["properties"]):
        return False
    kinds: dict[str, type | tuple[type, ...]] = {
        "string": str,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    for name, value in reply.items():
        rule = schema["properties"][name]
        expected = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
        if not any(
            isinstance(value, kinds[kind]) and not (kind == "number" and isinstance(value, bool)) for kind in expected
        ):
            return False
        if "enum" in rule and value not in rule["enum"]:
            return False
    return True


def test_the_instruction_names_exactly_the_keys_the_parser_takes() -> None:
    listed = re.findall(r'^- "(\w+)":', CONTRACT.format_instruction(), re.MULTILINE)
    assert tuple(listed) == KEYS == CONTRACT.keys
    schema = CONTRACT.json_schema()
    assert tuple(schema["required"]) == tuple(schema["properties"]) == KEYS
    assert schema["additionalProperties"] is False
    good = {"rationale": "r", **dict.fromkeys(DIMENSIONS, 1), "text_accuracy_na": False}
    assert isinstance(read_strict(json.dumps(good), text_required=None), ParsedScore)
    for key in KEYS:
        lacking = {name: value for name, value in good.items() if name != key}
        assert not isinstance(read_strict(json.dumps(lacking), text_required=None), ParsedScore), key


def test_each_dimension_is_described_once_with_all_its_values() -> None:
    prompt = system_prompt()
    described = re.findall(r"^(\w+)$", prompt, re.MULTILINE)
    assert tuple(described) == DIMENSIONS
    for block in re.split(r"^(?:\w+)$", prompt, flags=re.MULTILINE)[1:]:
        marks = re.findall(r"^- (1|0\.5|0): ", block, re.MULTILINE)
        assert marks == ["1", "0.5", "0"]


@pytest.mark.parametrize("name", DIMENSIONS)
def test_schema_and_parser_accept_the_same_values(name: str) -> None:
    """The parser accepts a value under some N/A flag if and only if the schema allows it."""
    values: list[Any] = [0, 0.5, 1, 1.0, None, True, 0.25, 2, -1, "1", "", [], {}]
    for value in values:
        replies = [
            {"rationale": "r", **dict.fromkeys(DIMENSIONS, 1), name: value, "text_accuracy_na": na}
            for na in (True, False)
        ]
        parsed = any(isinstance(read_strict(json.dumps(reply), text_required=None), ParsedScore) for reply in replies)
        assert parsed == any(fits_schema(CONTRACT.json_schema(), reply) for reply in replies), value


def test_the_user_text_contains_id_prompt_flag_and_fault() -> None:
    prompts = ["A crest.", "Two\nlines {with} braces", "", "日本の城 \u202e"]
    for prompt, required, fault in itertools.product(prompts, (None, True, False), ("", '"aesthetics" is missing')):
        text = user_text("id 3", prompt, required, fault)
        assert text.splitlines()[0] == "Sample id: id 3"
        assert f"Prompt:\n{prompt}\n" in text
        assert (na_flag(TEXT) in text) == (required is not None)
        assert ("could not be used" in text) == bool(fault) and fault in text
