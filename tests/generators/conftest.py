"""Fixtures of the tests of generators."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.helpers import tiny_classes


@pytest.fixture(scope="session")
def tiny_class(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return a function that returns the folder of a tiny pipeline of a class."""
    return tiny_classes.builder(tmp_path_factory.mktemp("classes"))
