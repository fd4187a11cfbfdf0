"""The campaigns of faulty judge replies and of budgets, in a short form."""

from __future__ import annotations

import pytest

from benchmarks.campaigns import budget, judge_replies
from knowgen.clients.chat import response
from knowgen.clients.pricing import ChatPrice

pytestmark = pytest.mark.slow


def test_no_faulty_reply_becomes_a_number_or_is_lost() -> None:
    assert judge_replies.main(count=300) == 0


def test_the_campaign_of_replies_finds_what_it_looks_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(response, "_REFUSAL_FINISH_REASONS", frozenset())
    assert judge_replies.main(count=300) == 1
    assert "number: seed" in capsys.readouterr().out


def test_the_budget_is_kept_whatever_usage_is_reported() -> None:
    assert budget.main(rounds=8) == 0


def test_the_campaign_of_budgets_finds_what_it_looks_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ChatPrice.of
    monkeypatch.setattr(ChatPrice, "of", lambda *counts: (whole(*counts) or 0.0) / 2)
    assert budget.main(rounds=1) == 1
    assert "understated: whole" in capsys.readouterr().out
