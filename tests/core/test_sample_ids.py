"""Ids of samples in files: which values are ids, and which are equal."""

from __future__ import annotations

from typing import Any

import pytest

from knowgen.core.errors import DataError
from knowgen.core.sample_ids import SeenIds, comparable_id, id_text


@pytest.mark.parametrize(("value", "text"), [("a", "a"), (1, "1"), (0, "0"), (-3, "-3"), ("01", "01"), (" a ", " a ")])
def test_text_and_whole_numbers_are_ids(value: Any, text: str) -> None:
    assert id_text(value, "a.jsonl:1") == text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "null"), (True, "true"), (1.0, "1.0"), ("", '""'), ("  ", '" "'), ([1], "[1]"), ({"a": 1}, '{"a": 1}')],
)
def test_anything_else_is_an_error_that_names_the_line(value: Any, shown: str) -> None:
    with pytest.raises(DataError) as caught:
        id_text(value, "a.jsonl:7")
    assert str(caught.value).startswith(f"a.jsonl:7: the id must be text or a whole number, got {shown}")


def test_an_id_has_no_lone_surrogate() -> None:
    with pytest.raises(DataError, match="is not valid Unicode"):
        id_text("a\ud800", "a.jsonl:1")


def test_composed_and_decomposed_ids_are_equal() -> None:
    assert comparable_id("e\u0301") == comparable_id("\u00e9") != comparable_id("e")
    seen = SeenIds()
    seen.add("\u00e9", "line 1", "a.jsonl:1")
    seen.add("e", "line 2", "a.jsonl:2")
    with pytest.raises(DataError, match=r"a\.jsonl:3: duplicate id .* already on line 1 in another Unicode form"):
        seen.add("e\u0301", "line 3", "a.jsonl:3")
