"""Matching of required texts against recognised lines."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen.worlds.checker import ocr
from knowgen.worlds.checker.ocr import TextLine
from knowgen.worlds.checker.text import find_texts


def sign(*texts: str) -> list[TextLine]:
    """Return lines one below the other, as on a sign."""
    return [TextLine(text, 0.99, (0.1, 0.1 * row, 0.5, 0.1 * row + 0.07)) for row, text in enumerate(texts)]


def value(required: list[str], *texts: str) -> float:
    return find_texts(required, sign(*texts)).value


@pytest.mark.parametrize(
    ("required", "lines"),
    [
        (["1931"], ["1931"]),
        (["1931"], ["Built in 1931."]),
        (["1931"], ["I931"]),
        (["Oruvane"], ["ORUVANE"]),
        (["Oruvane"], ["WelcometoOruvane"]),
        (["Seruri"], ["Serurl"]),
        (["Quiet Lantern"], ["Quiet", "Lantern"]),
        (["Quiet Lantern"], ["QuietLantern"]),
        (["Bero-Kan's Prize"], ["Bero Kans Prize"]),
        (["412"], ["412 metres"]),
        (["412"], ["412metres"]),
        (["9800"], ["9,800 seats"]),
        (["9800 seats"], ["9 800 seats"]),
        (["Oruvane", "1931"], ["Oruvane, 1931"]),
        (["Velora", "Velori"], ["Velori", "Velora"]),
    ],
)
def test_written_texts_are_recognised(required: list[str], lines: list[str]) -> None:
    assert value(required, *lines) == 1


@pytest.mark.parametrize(
    ("required", "lines"),
    [
        (["1931"], ["1937"]),
        (["1931"], ["19311"]),
        (["1931"], ["11931"]),
        (["1931"], ["19", "31"]),
        (["931"], ["1,931"]),
        (["45"], ["4.5 kg"]),
        (["Oruvane"], ["Oruvana"]),
        (["Oruvane"], ["Oruvanes"]),
        (["Ona"], ["Ramona"]),
        (["Quiet Lantern"], ["Quiet Lanterns"]),
        (["Oruvane"], ["Oru", "vane"]),
        (["10"], ["lo"]),
        (["Oruvane"], []),
    ],
)
def test_other_texts_are_not_recognised(required: list[str], lines: list[str]) -> None:
    assert value(required, *lines) == 0


def test_each_text_needs_its_own_position() -> None:
    assert value(["Oruvane", "Oruvane Medal"], "Oruvane Medal") == 0.5
    assert value(["Oruvane", "Oruvane Medal"], "Oruvane", "Oruvane Medal") == 1
    assert value(["1931", "1931"], "1931") == 0.5
    assert value(["Velora", "Velori"], "Velora") == 0.5


def test_half_of_the_texts_give_half_of_the_score() -> None:
    required = ["Oruvane", "1931", "Quiet Lantern", "Ansa Korund"]
    assert value(required, "Oruvane", "1937", "Quiet Lantern") == 0.5
    assert value(required, "Oruvane", "1937", "Quiet Letter") == 0


def test_text_wrapped_within_a_column_beside_another_column_is_recognised() -> None:
    lines = [
        TextLine("Patient", 0.9, (0.1, 0.10, 0.3, 0.16)),
        TextLine("Visitors", 0.9, (0.6, 0.11, 0.8, 0.17)),
        TextLine("Anthem", 0.9, (0.1, 0.18, 0.3, 0.24)),
        TextLine("welcome", 0.9, (0.6, 0.19, 0.8, 0.25)),
    ]
    assert find_texts(["Patient Anthem"], lines).missing == ()


def test_two_candidate_numbers_give_half_of_the_score() -> None:
    match = find_texts(["1931"], sign("1931", "1937"))
    assert (match.value, match.rivals) == (0.5, ("1937",))
    assert value(["1931", "1937"], "1931", "1937") == 1
    assert value(["1931", "412"], "1931", "412 metres") == 1


def test_writing_many_names_lowers_the_score() -> None:
    names = [f"{first}{last}" for first in ("Ba", "Te", "Ko", "Mu") for last in ("vane", "roth", "dale", "wyn", "ombe")]
    assert value([names[7]], *names[:7]) == 0
    assert value([names[3]], *names[:6]) == 0.5
    assert value([names[3]], *names) == 0


letters = st.text(alphabet="abcdefghkmnprstuvwyz", min_size=3, max_size=9).map(str.capitalize)
numbers = st.integers(10, 99999).map(str)


@given(st.lists(letters | numbers, min_size=1, max_size=4, unique_by=str.casefold), st.data())
def test_the_search_agrees_with_comparing_lists_of_words(words: list[str], data: st.DataObject) -> None:
    """For single words between word boundaries, the search agrees with comparing lists of words."""
    shown = data.draw(st.lists(st.sampled_from(words) | letters | numbers, max_size=5))
    lines = [text.upper() for text in shown]
    stock = [re.sub("[IL]", "1", line.replace("O", "0")) for line in lines]
    missing = []
    for word in words:
        plain = re.sub("[IL]", "1", word.upper().replace("O", "0"))
        if plain in stock:
            stock.remove(plain)
        else:
            missing.append(word)
    assert sorted(find_texts(words, sign(*lines)).missing) == sorted(missing)


@given(numbers, st.data())
def test_any_wrong_digit_makes_the_text_wrong(number: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(number) - 1))
    digit = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != number[place]]))
    wrong = number[:place] + digit + number[place + 1 :]
    assert value([number], number) == 1
    assert value([number], wrong) == 0


def test_marks_of_a_subject_are_no_rival_number_unless_they_are_read_with_certainty() -> None:
    sign = TextLine("1970", 0.99, (0.45, 0.1, 0.57, 0.2))
    subject = (0.3, 0.5, 0.6, 0.95)
    windows = TextLine("1901", 0.83, (0.36, 0.64, 0.48, 0.73))
    assert find_texts(["1970"], [sign, windows]).rivals == ("1901",)
    assert find_texts(["1970"], [sign, windows], marks=[subject]).value == 1.0
    written = TextLine("1901", 0.97, windows.box)  # written across the subject
    assert find_texts(["1970"], [sign, written], marks=[subject]).rivals == ("1901",)
    beside = TextLine("1901", 0.83, (0.7, 0.64, 0.82, 0.73))
    assert find_texts(["1970"], [sign, beside], marks=[subject]).rivals == ("1901",)


def test_a_faint_line_is_added_and_a_line_that_was_read_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read = TextLine("1697", 0.95, (0.4, 0.4, 0.6, 0.5))
    again = [
        TextLine("1897", 0.99, (0.41, 0.41, 0.59, 0.49)),
        TextLine("Romaren", 0.98, (0.4, 0.6, 0.6, 0.7)),
        TextLine("lll", 0.7, (0.1, 0.1, 0.2, 0.2)),
    ]
    monkeypatch.setattr(ocr, "read_lines", lambda image: tuple(again))
    assert [line.text for line in ocr.read_faint_lines(np.zeros((20, 30, 3), np.uint8), [read])] == ["Romaren"]
