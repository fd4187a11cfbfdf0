"""What every test needs: caches of its own, so that no test is answered by another one's replies."""

from __future__ import annotations

import itertools

import pytest

pytest.register_assert_rewrite("tests.helpers")

_numbers = itertools.count()


@pytest.fixture(scope="session")
def cache_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("caches"))


@pytest.fixture(autouse=True)
def own_caches(cache_base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", f"{cache_base}/{next(_numbers)}")
