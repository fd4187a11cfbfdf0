"""The arguments of judges over an endpoint: names, defaults, and which are not part of a key."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from knowgen.scorers.contract import scorer_capabilities
from knowgen.scorers.vlm.answer import AnswerJudge
from knowgen.scorers.vlm.evidence import EvidenceJudge
from knowgen.scorers.vlm.judge import VlmJudge

SHARED: dict[str, Any] = {
    "model": inspect.Parameter.empty, "base_url": "", "temperature": 0.0, "max_tokens": 2048, "attempts": 4,
    "schema": "auto", "max_side": 4096, "quality": 100, "price_in": None, "price_out": None, "price_call": None,
    "key_env": "", "concurrency": 256, "rpm": 0, "tpm": 0, "timeout": 120.0, "cache": None, "endpoint_id": "",
}  # fmt: skip
EXCLUDED = {"price_in", "price_out", "price_call", "key_env", "concurrency", "timeout", "rpm", "tpm", "cache"}
JUDGES = [
    (
        VlmJudge,
        {**SHARED, "max_tokens": 8192, "rubric": "own", "upstream_dir": "", "unreadable_attempts": 0},
        EXCLUDED | {"upstream_dir", "unreadable_attempts"},
    ),
    (AnswerJudge, {**SHARED, "max_tokens": 0, "rubric": "own", "upstream_dir": ""}, EXCLUDED | {"upstream_dir"}),
    (EvidenceJudge, SHARED, EXCLUDED),
]


@pytest.mark.parametrize(("judge", "arguments", "identity_excludes"), JUDGES)
def test_arguments_have_their_documented_defaults(
    judge: Any, arguments: dict[str, Any], identity_excludes: set[str]
) -> None:
    signature = inspect.signature(judge)
    assert {name: parameter.default for name, parameter in signature.parameters.items()} == arguments
    assert judge.identity_excludes == identity_excludes


@pytest.mark.parametrize("judge", [judge for judge, _, _ in JUDGES])
def test_the_declared_concurrency_is_the_limit_of_the_endpoint(judge: Any) -> None:
    assert scorer_capabilities(judge).concurrency == 128
    scorer = judge("m", "http://127.0.0.1:1/v1")
    assert scorer_capabilities(scorer).concurrency == 256 and scorer.endpoint.limits.concurrency == 256


@pytest.mark.parametrize("judge", [judge for judge, _, _ in JUDGES])
def test_arguments_reach_the_endpoint(judge: Any) -> None:
    scorer = judge(
        "m", base_url="http://127.0.0.1:1/v1", temperature=0.5, max_tokens=9, schema="off", max_side=64, quality=80,
        price_in=1.0, price_out=2.0, concurrency=3, rpm=4, tpm=5, timeout=6.0, cache=False,
    )  # fmt: skip
    endpoint = scorer.endpoint
    assert (endpoint.temperature, endpoint.max_tokens, endpoint.schema, endpoint.timeout) == (0.5, 9, "off", 6.0)
    assert (endpoint.encoding.max_side, endpoint.encoding.quality, endpoint.use_cache) == (64, 80, False)
    assert endpoint.price.of(1_000_000, 1_000_000) == 3.0
