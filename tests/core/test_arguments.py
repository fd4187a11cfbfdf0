"""Arguments of the command line are read by the annotations of the parameters they are for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowgen.cli.main import run
from knowgen.core.arguments import ArgumentText, argument_text, arguments_line, plain_arguments, read_arguments
from knowgen.core.errors import UsageError

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]

Steps = NewType("Steps", int)


class Plugin:
    """One parameter per kind of annotation; the annotations are text, as `from __future__` makes them."""

    def __init__(  # type: ignore[no-untyped-def]
        self,
        text: str = "",
        whole: int = 0,
        number: float = 0.0,
        flag: bool = False,
        maybe: Optional[int] = None,  # noqa: UP045
        maybe_text: str | None = None,
        either: int | str = 0,
        flag_or_text: bool | str = False,
        size: Literal[512, 1024, "auto"] = 512,
        names: list[str] | None = None,
        pair: tuple[int, float] = (0, 0.0),
        weights: dict[str, float] | None = None,
        things: list = (),  # type: ignore[type-arg, assignment]
        nested: Sequence[Sequence[int]] = (),
        steps: Annotated[Steps, "how many"] = Steps(1),
        folder: Path = Path(),
        unknown: Unknown = None,
        free=None,
        anything: Any = None,
        **others: object,
    ) -> None: ...


def read(name: str, text: str) -> Any:
    return read_arguments(Plugin, {name: ArgumentText(text)}, "generator 'x'")[name]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *(("text", text, text) for text in ("1.10", "no", "1e-4", "2024-05-01", "null", "[1]", "", "0x10", "a: b")),
        ("whole", "20", 20), ("whole", "-3", -3),
        ("number", "1e-4", 1e-4), ("number", "3", 3.0), ("number", ".5", 0.5),
        *(("flag", text, True) for text in ("true", "True", "yes", "1")),
        *(("flag", text, False) for text in ("false", "no", "0", "FALSE")),
        ("maybe", "5", 5), ("maybe", "null", None), ("maybe", "None", None),
        ("maybe_text", "null", None), ("maybe_text", "None", "None"), ("maybe_text", "1.10", "1.10"),
        ("either", "5", 5), ("either", "5.0", "5.0"), ("either", "no", "no"),
        ("flag_or_text", "true", True), ("flag_or_text", "no", "no"), ("flag_or_text", "1", "1"),
        ("size", "1024", 1024), ("size", "auto", "auto"),
        ("names", "[1.10, no, 2024-05-01]", ["1.10", "no", "2024-05-01"]), ("names", '["a b", c]', ["a b", "c"]),
        ("names", "null", None),
        ("pair", "[3, 1]", [3, 1.0]),
        ("weights", "{a: 1, b: 2e-1}", {"a": 1.0, "b": 0.2}), ("weights", '{"a": 1}', {"a": 1.0}),
        ("things", '[1, "1", no, true]', [1, 1, "no", True]), ("things", '["1", null]', ["1", None]),
        ("nested", "[[1], [2, 3]]", [[1], [2, 3]]),
        ("steps", "8", 8),
        ("folder", "2024", "2024"),
        *((name, text, value) for name in ("unknown", "free", "anything", "others_take_it") for text, value in (
            ("3", 3), ("1e-4", 1e-4), ("true", True), ("null", None), ("[1, 2]", [1, 2]), ('"1.10"', "1.10"),
            ("no", "no"), ("yes", "yes"), ("2024-05-01", "2024-05-01"), ("1:30", "1:30"), ("NaN", "NaN"), ("", ""),
            ("{a: b}", "{a: b}"), ("word", "word"), ("0o17", "0o17"), ("~", "~"),
        )),
    ],
)  # fmt: skip
def test_a_text_is_read_by_the_annotation_of_its_parameter(name: str, text: str, value: Any) -> None:
    assert (read(name, text), type(read(name, text))) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("whole", "many", "a whole number"), ("whole", "2.5", "a whole number"), ("whole", "1_000", "a whole number"),
        ("number", "fast", "a number"), ("number", "nan", "a number"), ("number", "inf", "a number"),
        ("flag", "maybe", "true or false"), ("flag", "", "true or false"), ("flag", "2", "true or false"),
        ("maybe", "x", "a whole number or null"), ("size", "768", "one of 512, 1024, auto"),
        ("names", "a, b", "a list such as [a, b]"), ("names", "[a", "a list such as [a, b]"),
        ("pair", "[1, 2, 3]", "a list of 2 values"), ("weights", "[1]", "a dict such as {a: 1}"),
        ("weights", "{a: b}", "whose values are a number"), ("steps", "few", "a whole number"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line_with_parameter_type_and_value(name: str, text: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(name, text)
    message = str(caught.value)
    assert f"argument {name!r} takes " in message and expected in message and f"got {text!r}" in message
    assert "generator 'x'" in message and "\n" not in message


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(deadline=None)
@given(PLAIN)
def test_a_printed_argument_is_read_as_the_same_value(value: Any) -> None:
    text = argument_text(value, Any)
    assert read_arguments(Plugin, {"anything": ArgumentText(text)}, "x") == {"anything": value}


@pytest.mark.parametrize("value", ["1.10", "null", "no", "[a]"])
def test_text_is_printed_for_a_text_parameter_without_quotes(value: str) -> None:
    assert argument_text(value, str) == value


def test_values_of_python_stay_as_they_are() -> None:
    given = {"text": 1.1, "whole": "many", "free": (1, 2)}
    assert read_arguments(Plugin, given, "x") == given


@pytest.mark.parametrize("name", ["text", "free", "words", "table"])
@pytest.mark.parametrize("start", ["[", '{"a":', "{a: "])
def test_a_value_that_is_nested_too_deeply_is_one_short_line(name: str, start: str) -> None:
    def plugin(text: str, free: object, words: list[str], table: dict[str, object]) -> None: ...

    given = {name: ArgumentText(start * 50_000)}
    readers = [partial(plain_arguments, given, "x")]
    if name == "text" or (name == "free" and start == "{a: "):  # which is not JSON
        assert read_arguments(plugin, given, "x") == given
    else:
        readers.append(partial(read_arguments, plugin, given, "x"))
    for read in readers if start != "{a: " else readers[1:]:
        with pytest.raises(UsageError, match=f"'{name}' takes a value that is nested less deeply") as caught:
            read()
        assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


GENERATOR = """
from __future__ import annotations

from PIL import Image


class Duck:
    revision = "1"

    def __init__(self, version: str = "1.0", style="ink", strength: float = 1.0, borders: bool = True):
        assert isinstance(version, str) and isinstance(strength, float) and isinstance(borders, bool)

    def draw(self, prompt, references, seed):
        return Image.new("RGB", (32, 32), "red")
"""


def test_a_run_shows_and_records_the_arguments_as_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("duck.py").write_text(GENERATOR)
    words = ["run", "--task", "knowgen_mini", "--generator", "duck.py:Duck", "--scorer", "pixels", "--limit", "1"]
    given = ["-g", "version=1.10", "-g", "strength=1e-4", "-g", "borders=no", "-g", "style=no"]
    assert run([*words, *given, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    understood = {"version": "1.10", "strength": 0.0001, "borders": False, "style": "no"}
    assert arguments_line(understood) in shown
    assert 'version="1.10" strength=0.0001 borders=false style="no"' in shown
    assert run([*words, *given, "--out", "out"]) == 0
    assert json.loads(Path("out/run.json").read_text())["spec"]["generator"]["args"] == understood
    capsys.readouterr()
    assert run([*words, "-g", "strength=strong"]) == 2
    error = capsys.readouterr().err
    assert "'strength'" in error and "a number" in error and "'strong'" in error and error.count("\n") == 1
