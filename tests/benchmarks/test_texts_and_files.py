"""Every sixth case of the campaign with hostile texts and files."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "campaigns" / "texts_and_files.py"


@pytest.fixture
def campaign(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("texts_and_files", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "texts_and_files", module)
    spec.loader.exec_module(module)
    monkeypatch.setenv("KNOWGEN_DATA", "")  # the campaign sets it; restored at the end
    return module


@pytest.mark.slow
def test_hostile_texts_and_files_end_in_one_line_or_a_right_result(campaign: ModuleType) -> None:
    assert len(campaign.every_case()) >= 100
    counts, violations = campaign.campaign(every=6, deadline=120.0)
    assert violations == []
    assert {end for _, end in counts} == {"refused in one line", "right result"}
