"""Short forms of the campaigns in `benchmarks/campaigns`: what they count holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.processes import ROOT, run_python

CAMPAIGNS = ROOT / "benchmarks" / "campaigns"
HOSTILE = ("ExitsHard", "HoldsTheInterpreter", "WritesToSockets", "Forks", "StartsMultiprocessing", "GivesPipe",
           "PatchesModules", "YieldsCircle", "StopsLoop", "JudgeExits", "ScorerInvalid", "HoldsWhenBuilt",
           "ImportCrashes", "ImportReplacesJson", "ImportHoldsTheInterpreter", "ScorerImportCrashes",
           "TaskImportCrashes", "SearchImportCrashes")  # fmt: skip
SLACK = 5.0
"""Seconds within which a result is stored on a busy machine; the campaign itself allows 0.25. What is stored is neither
lost nor asked for again, which needs no slack.
"""


@pytest.mark.slow
def test_kills_lose_nothing(tmp_path: Path) -> None:
    ended = run_python(CAMPAIGNS / "kills.py", "--kills", 8, "--slack", SLACK, check=False, cwd=tmp_path, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ": 0 results lost, 0 calls repeated without need" in ended.stdout


@pytest.mark.slow
def test_hostile_plugins_harm_one_sample_each(tmp_path: Path) -> None:
    arguments = ["--only", *HOSTILE, "--limit", "4"]
    ended = run_python("-m", "benchmarks.campaigns.plugins", *arguments, check=False, cwd=tmp_path, timeout=1200)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{len(HOSTILE)} held, 0 did not" in ended.stdout
