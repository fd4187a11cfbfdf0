"""Parsing Python source: a pause of the garbage collector that ends, and no other reading."""

from __future__ import annotations

import ast
import gc

import pytest

from knowgen.core.python_source import parse_python

SOURCE = "\n".join(f"value_{number} = [({number}, {{'a': {number}}})] + [{number}]" for number in range(400)) + "\n"


def test_it_reads_what_ast_reads() -> None:
    assert ast.dump(parse_python(SOURCE)) == ast.dump(ast.parse(SOURCE))
    with pytest.raises(SyntaxError):
        parse_python("value =")


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        parse_python("value = 1")
        assert gc.isenabled() is enabled
        with pytest.raises(SyntaxError):
            parse_python("value =")
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


class Parses:
    """Garbage that parses when it is collected, as another thread may that the collector lets run."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        deeper(30)


def deeper(levels: int) -> ast.Module:
    """Parse so many calls deeper."""
    return ast.parse("value = 1") if levels == 0 else deeper(levels - 1)


def test_a_tree_is_built_while_others_parse() -> None:
    source, threshold = SOURCE * 10, gc.get_threshold()
    gc.disable()
    try:
        for _ in range(50):
            Parses()
        gc.set_threshold(700, 1, 1)
        gc.enable()
        assert len(parse_python(source).body) == 4000
    finally:
        gc.set_threshold(*threshold)
        gc.enable()
