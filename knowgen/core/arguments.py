"""Read arguments of the command line by the annotations of the parameters they are for.

`-g version=1.10` is text where `version: str` and a number where `version: float`. A parameter without an annotation,
and one that only `**kwargs` takes, is read conservatively: a JSON value is that value, everything else is text.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from knowgen.core.errors import UsageError

TRUE, FALSE = frozenset({"true", "yes", "1", "on"}), frozenset({"false", "no", "0", "off"})
NULL = frozenset({"null", "none"})
LISTS = (list, tuple, set, frozenset, Sequence, Collection, Iterable)
DICTS = (dict, Mapping)


_LESS_DEEP = "a value that is nested less deeply"
_SHOWN = 200
"""Maximum number of characters of a wrong value in an error."""


class ArgumentText(str):
    """The value of `KEY=VALUE` as written, before the parameter that it is for is known."""

    __slots__ = ()


class _MismatchError(ValueError):
    """A text is not of the expected type; the message is the expected type in words."""


def read_arguments(factory: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read the texts among some arguments by the annotations of a class or function.

    Args:
        factory: The class or function that takes the arguments.
        arguments: Arguments by name. A value that is not `ArgumentText` stays as it is.
        where: The plugin, for error messages.

    Raises:
        UsageError: A text is not a value of its parameter's type.

    Example:
        >>> def painter(version: str, steps: int = 20, **others): ...
        >>> read_arguments(painter, {name: ArgumentText("10") for name in ("version", "steps", "scale")}, "painter")
        {'version': '10', 'steps': 10, 'scale': 10}
    """
    if not any(isinstance(value, ArgumentText) for value in arguments.values()):
        return dict(arguments)
    hints = annotations_of(factory)
    values: dict[str, Any] = {}
    for name, value in arguments.items():
        try:
            values[name] = read_value(value, hints.get(name, Any)) if isinstance(value, ArgumentText) else value
        except _MismatchError as error:
            raise _wrong_value(name, value, error, where) from error
    return values


def _wrong_value(name: str, text: str, expected: _MismatchError, where: str) -> UsageError:
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return UsageError(f"argument {name!r} takes {expected}, got {shown!r}", where=where)


def plain_arguments(arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read the texts among some arguments without annotations; arguments and errors as in `read_arguments`."""
    values: dict[str, Any] = {}
    for name, value in arguments.items():
        try:
            values[name] = read_value(value, Any) if isinstance(value, ArgumentText) else value
        except _MismatchError as error:
            raise _wrong_value(name, value, error, where) from error
    return values


def annotations_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a factory's parameters; one that cannot be evaluated is left out."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}
    function: Any = factory.__init__ if inspect.isclass(factory) else factory
    module = sys.modules.get(getattr(factory, "__module__", ""))
    names = {**vars(typing), **(vars(module) if module else {}), **getattr(function, "__globals__", {})}
    hints: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if parameter.annotation is parameter.empty or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            continue
        holder = types.SimpleNamespace(__annotations__={name: parameter.annotation})
        try:
            hints[name] = typing.get_type_hints(holder, names)[name]
        except (NameError, TypeError, AttributeError, SyntaxError):
            continue  # imported for type checkers only: read as if it had no annotation
    return hints


def read_value(text: str, annotation: Any) -> Any:
    """Return the value that a text stands for, as plain data.

    Args:
        text: The text.
        annotation: Type of the value. `Any` and types that are not plain data are read without one.

    Raises:
        ValueError: The text is not of this type; the message is the type in words.

    Example:
        >>> read_value("1.10", str), read_value("1e-4", float), read_value("no", bool), read_value("no", Any)
        ('1.10', 0.0001, False, 'no')
        >>> read_value("[1.10, no]", list[str])
        ['1.10', 'no']
    """
    annotation = _unwrapped(annotation)
    origin = typing.get_origin(annotation) or annotation
    if annotation is str:
        return str(text)
    if annotation in _SIMPLE:
        return _SIMPLE[annotation](text)
    if origin in (typing.Union, types.UnionType):
        return _read_union(text, typing.get_args(annotation))
    if origin is typing.Literal:
        return _read_literal(text, typing.get_args(annotation))
    if origin in LISTS:
        return _read_list(text, typing.get_args(annotation))
    if origin in DICTS:
        return _read_dict(text, typing.get_args(annotation))
    return _read_plain(text) if annotation in (Any, object) or isinstance(annotation, typing.TypeVar) else str(text)


def _unwrapped(annotation: Any) -> Any:
    """Return a type without `Annotated`, `NewType` and aliases."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def _read_plain(text: str) -> Any:
    """Read a text without an annotation: a JSON value is that value, everything else is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return str(text)
    except RecursionError as error:
        raise _MismatchError(_LESS_DEEP) from error
    return str(text) if isinstance(value, float) and not math.isfinite(value) else value


def _read_bool(text: str) -> bool:
    word = text.strip().lower()
    if word not in TRUE | FALSE:
        raise _MismatchError("true or false")
    return word in TRUE


def _read_int(text: str) -> int:
    if not re.fullmatch(r"\s*[+-]?\d+\s*", text, re.ASCII):
        raise _MismatchError("a whole number")
    return int(text)


def _read_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise _MismatchError("a number")
    return value


def _read_none(text: str) -> None:
    if text.strip().lower() not in NULL:
        raise _MismatchError("null")


_SIMPLE: Mapping[Any, Callable[[str], Any]] = {
    bool: _read_bool, int: _read_int, float: _read_float, type(None): _read_none, None: _read_none
}  # fmt: skip


def _read_union(text: str, members: tuple[Any, ...]) -> Any:
    """Read a text as the first member that it fits; text is the last, because everything is text.

    Beside other types, true and false alone are booleans, and beside text, null alone is None.
    """
    kinds = [_unwrapped(member) for member in members]
    if type(None) in kinds and (text == "null" if str in kinds else text.strip().lower() in NULL):
        return None
    kinds = [kind for kind in kinds if kind is not type(None)]
    expected: list[str] = []
    for kind in sorted(kinds, key=_rank):
        if kind is bool and len(kinds) > 1 and text.strip().lower() not in {"true", "false"}:
            expected.append("true or false")
            continue
        try:
            return read_value(text, kind)
        except _MismatchError as error:
            expected.append(str(error))
    raise _MismatchError(" or ".join(dict.fromkeys([*expected, *(["null"] if type(None) in members else [])])))


def _rank(kind: Any) -> int:
    """Return the position of a type in a union: the more texts it takes, the later."""
    if kind in (bool, int, float):
        return (bool, int, float).index(kind)
    if typing.get_origin(kind) is typing.Literal:
        return 3
    if (typing.get_origin(kind) or kind) in (*LISTS, *DICTS):
        return 4
    return 6 if kind is str else 5


def _read_literal(text: str, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        try:
            if read_value(text, type(choice)) == choice:
                return choice
        except _MismatchError:
            continue
    raise _MismatchError(f"one of {', '.join(str(choice) for choice in choices)}")


def _nested(text: str, kind: type, expected: str) -> Any:
    """Parse a list or dict whose values are texts."""
    import yaml

    try:
        value = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        value = None
    except RecursionError as error:
        raise _MismatchError(_LESS_DEEP) from error
    if not isinstance(value, kind):
        raise _MismatchError(expected)
    return value


def _read_list(text: str, elements: tuple[Any, ...]) -> list[Any]:
    """Read a list such as `[a, b]`; its elements by their annotation, or as JSON values where they have none."""
    expected = "a list such as [a, b]"
    if not elements:
        plain = _read_plain(text)
        if isinstance(plain, list):
            return plain
    values = _nested(text, list, expected)
    fixed = bool(elements) and len(elements) > 1 and elements[-1] is not Ellipsis
    if fixed and len(values) != len(elements):
        raise _MismatchError(f"a list of {len(elements)} values")
    kinds = elements if fixed else (elements[:1] or (Any,)) * len(values)
    return [_element(value, kind, expected) for value, kind in zip(values, kinds, strict=True)]


def _read_dict(text: str, elements: tuple[Any, ...]) -> dict[Any, Any]:
    """Read a dict such as `{a: 1}`."""
    expected = "a dict such as {a: 1}"
    if not elements:
        plain = _read_plain(text)
        if isinstance(plain, dict):
            return plain
    key_kind, kind = elements or (str, Any)
    return {
        _element(key, key_kind, expected): _element(value, kind, expected)
        for key, value in _nested(text, dict, expected).items()
    }


def _element(value: Any, kind: Any, expected: str) -> Any:
    """Read a value inside a list or dict, which is a text, or a list or dict of its own."""
    if isinstance(value, str):
        try:
            return read_value(value, kind)
        except _MismatchError as error:
            raise _MismatchError(f"{expected} whose values are {error}") from error
    return read_value(json.dumps(value), kind)


def argument_text(value: Any, annotation: Any) -> str:
    """Return a text from which `read_value` reads a value again.

    Example:
        >>> argument_text("1.10", str), argument_text("1.10", Any), argument_text([1, "a"], list)
        ('1.10', '"1.10"', '[1, "a"]')
    """
    texts = [value] if isinstance(value, str) else []
    for text in [*texts, json.dumps(value, ensure_ascii=False)]:
        try:
            if read_value(text, annotation) == value:
                return text
        except _MismatchError:
            continue
    return json.dumps(value, ensure_ascii=False)


def arguments_line(arguments: Mapping[str, Any]) -> str:
    """Return arguments as they were understood: text in quotes, and numbers, true, false and null without.

    Example:
        >>> arguments_line({"version": "1.10", "steps": 20, "tiling": False})
        'version="1.10" steps=20 tiling=false'
    """
    return " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
