"""The examples in the docstrings of worlds run and give the output they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from knowgen import worlds

MODULES = sorted(module.name for module in pkgutil.walk_packages(worlds.__path__, "knowgen.worlds."))


def examples_of(name: str) -> list[doctest.DocTest]:
    tests = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    runner = doctest.DocTestRunner()
    for test in examples_of(name):
        assert runner.run(test).failed == 0, test.name


def test_some_modules_have_examples() -> None:
    assert sum(bool(examples_of(name)) for name in MODULES) >= 10
