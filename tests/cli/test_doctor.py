"""`knowgen doctor` says what an agent needs: its packages, and which keys are set, never what they are."""

from __future__ import annotations

import pytest

from knowgen.cli import doctor


def lines(check: object) -> dict[str, str]:
    return {text: mark for mark, text in check()}  # type: ignore[operator]


def test_packages_that_an_agent_needs_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["json5", *doctor.SEARCH_EXTRA]
    found = lines(doctor._packages)
    assert [name for name in names if not any(text.startswith(f"{name} ") for text in found)] == []
    monkeypatch.setattr(doctor, "_version", lambda name: "" if name == "trafilatura" else "1")
    found = lines(doctor._packages)
    assert found["trafilatura is not installed (for an agent that reads web pages)"] == "--"
    assert [mark for text, mark in found.items() if "pip install 'knowgen[search]'" in text] == ["--"]
    assert "FAIL" not in found.values(), "the agent is optional"


def test_keys_are_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERPER_API_KEY", "value-of-the-key")
    monkeypatch.delenv("KNOWGEN_CONTACT", raising=False)
    found = lines(doctor._keys)
    assert found["SERPER_API_KEY is set"] == "ok" and "value-of-the-key" not in str(found)
    assert any(text.startswith("KNOWGEN_CONTACT is not set (for the search backend wikimedia") for text in found)
