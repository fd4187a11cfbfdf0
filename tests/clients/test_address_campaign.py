"""The campaign of addresses: the guarded fetch refuses all, and a fetch without a guard is noticed."""

from __future__ import annotations

from tests.helpers.processes import ROOT, run_python


def test_no_address_of_the_campaign_is_fetched_or_reached() -> None:
    ended = run_python("-m", "benchmarks.campaigns.addresses", cwd=ROOT, check=False)
    total = int(ended.stdout.split()[0])
    assert total >= 60
    assert ended.stdout == f"{total} addresses: 0 fetched, 0 reached, 0 crashed, {total} refused\n"
    assert ended.returncode == 0


def test_the_campaign_notices_a_fetch_without_a_guard() -> None:
    ended = run_python("-m", "benchmarks.campaigns.addresses", "--unguarded", cwd=ROOT, check=False)
    assert ended.returncode == 1
    assert "fetched  written: loopback" in ended.stdout and "reached  written: metadata" in ended.stdout
