"""Plugins with weights: another file under the same name is another system."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.records import GenerationRequest, Item
from knowgen.workflows import resolve

HERE = Path(__file__)


class Weighted:
    """Generates and judges from a file of weights."""

    revision = "3"
    version = "judge-1"
    needs = frozenset({"image"})

    def __init__(self, model: str, steps: int = 5) -> None:
        raise AssertionError("identifying it must not build it")

    @classmethod
    def weights_identity(cls, model: str, **_: Any) -> str:
        return hashlib.sha256(Path(model).read_bytes()).hexdigest()[:12]

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Any:
        raise NotImplementedError

    def score_batch(self, items: Sequence[Item]) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("kind", ["generator", "scorer"])
def test_other_weights_are_another_system(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "w.bin"
    versions = []
    for content in (b"one", b"two", b"one"):
        weights.write_bytes(content)
        name = f"{HERE}:Weighted"
        if kind == "generator":
            spec = resolve.resolve_generator(name, {"model": str(weights)}, None).spec
            versions.append(spec.revision)
        else:
            versions.append(resolve.resolve_scorer(name, {"model": str(weights)}).spec.version)
    assert versions[0] == versions[2] != versions[1]
    assert versions[0].startswith("3 " if kind == "generator" else "judge-1 ")


def test_a_plugin_without_weights_keeps_its_version() -> None:
    handle = resolve.resolve_scorer("pixels", {})
    assert " " not in handle.spec.version
