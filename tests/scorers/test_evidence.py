"""The scorer `evidence`: its requests, and how its replies are parsed."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import knowgen
from knowgen.core.errors import UnscorableError
from knowgen.core.records import Generation, GenerationStatus, GroundTruth, ImageRef, Sample, Score, ScoreStatus
from knowgen.scorers.contract import scorer_capabilities
from knowgen.scorers.vlm.evidence import CONTRACT, CUT, MAX_CHARACTERS, EvidenceJudge, truncate_evenly
from tests.helpers.judge_server import JudgeServer, Script, Step

PIECES: tuple[dict[str, Any], ...] = (
    {"title": "The club", "url": "http://a.test/1", "text": "Founded in 1907.\nIts crest holds two oars."},
    {"title": "Nothing", "text": "  "},
    {"text": "The oars are green."},
)


def verdict(value: Any) -> str:
    return json.dumps({"rationale": "Two green oars.", "evidence": value})


@pytest.fixture
def item(tmp_path: Path) -> tuple[Sample, GroundTruth, Generation]:
    path = tmp_path / "generated.png"
    Image.new("RGB", (50, 40), "red").save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    generation = Generation(
        sample_id="s7",
        repeat=1,
        status=GenerationStatus.OK,
        image=ImageRef(sha256=digest, width=50, height=40, format="PNG", path=path),
        evidence=PIECES,
        used_prompt="a rewritten prompt the judge must not see",
    )
    truth = GroundTruth(sample_id="s7", required_text=("a truth the judge must not see",))
    return Sample(id="s7", prompt="Draw the crest."), truth, generation


def score_with(script: Script, item: tuple[Sample, GroundTruth, Generation], **args: Any) -> tuple[Score, JudgeServer]:
    async def go(judge: EvidenceJudge) -> Score:
        try:
            return await judge.score(*item)
        finally:
            await judge.close()

    with JudgeServer(script) as server:
        return asyncio.run(go(EvidenceJudge("any", base_url=server.url, **args))), server


def test_the_request_contains_prompt_evidence_and_image(item: tuple[Sample, GroundTruth, Generation]) -> None:
    score, server = score_with([Step(verdict(0.5))], item)
    [call] = server.calls
    assert CONTRACT.instruction() in call.system
    assert [image.size for image in call.images] == [(50, 40)]
    assert "must not see" not in call.text + call.system
    pieces = [json.loads(line) for line in call.text.splitlines() if line.startswith("{")]
    assert pieces == [
        {"piece": 1, "title": "The club", "url": "http://a.test/1", "text": PIECES[0]["text"]},
        {"piece": 2, "text": "The oars are green."},
    ]
    assert score.strict.values == {"evidence": 0.5} and score.scorer == "evidence:any"
    assert score.details["pieces"] == 2 and score.details["cut"] == 0
    assert score.image == item[2].image.sha256  # type: ignore[union-attr]


def test_only_three_values_are_accepted(item: tuple[Sample, GroundTruth, Generation]) -> None:
    assert CONTRACT.grid == (0.0, 0.5, 1.0)
    score, server = score_with([Step(verdict(0.25)), Step(verdict(0))], item)
    assert score.strict.values == {"evidence": 0.0} and len(server.calls) == 2
    assert score.lenient is not None and score.lenient.values == {"evidence": 0.0}, "halfway goes down"


def test_without_evidence_no_call_is_made(item: tuple[Sample, GroundTruth, Generation]) -> None:
    sample, truth, generation = item
    score, server = score_with([Step()], (sample, truth, generation.model_copy(update={"evidence": ()})))
    assert score.status is ScoreStatus.NOT_APPLICABLE and "no evidence" in score.strict.reason
    with pytest.raises(UnscorableError, match="contains no text"):
        score_with([Step()], (sample, truth, generation.model_copy(update={"evidence": (PIECES[1],)})))
    assert server.calls == []


def test_long_evidence_is_cut_and_marked(item: tuple[Sample, GroundTruth, Generation]) -> None:
    sample, truth, generation = item
    long = ({"text": "short"}, {"text": "x" * MAX_CHARACTERS}, {"text": "y" * MAX_CHARACTERS})
    score, server = score_with([Step(verdict(1))], (sample, truth, generation.model_copy(update={"evidence": long})))
    assert score.details["cut"] == 2
    texts = [json.loads(line)["text"] for line in server.calls[0].text.splitlines() if line.startswith("{")]
    assert texts[0] == "short" and len(texts[1]) == len(texts[2]) == (MAX_CHARACTERS - 5) // 2 + len(CUT)


@given(st.lists(st.text(alphabet="ab", max_size=40), min_size=1, max_size=8), st.integers(8, 120))
def test_long_texts_are_cut_to_equal_length(texts: list[str], most: int) -> None:
    parts = [text.removesuffix(CUT) for text in truncate_evenly(texts, most)]
    assert sum(map(len, parts)) <= max(most, 0)
    assert all(text.startswith(part) for text, part in zip(texts, parts, strict=True))
    if sum(map(len, texts)) <= most:
        assert parts == texts
    else:  # all cut texts are equally long, and use the limit to the last character
        bound = max(map(len, parts))
        cut = [part for text, part in zip(texts, parts, strict=True) if part != text]
        assert cut and all(len(part) == bound for part in cut)
        assert most - sum(map(len, parts)) < len(cut)


def test_the_declared_capabilities() -> None:
    traits = scorer_capabilities(EvidenceJudge)
    assert (traits.shape, traits.needs, traits.dimensions) == ("score", frozenset({"image", "evidence"}), ("evidence",))
    assert "not by the ground truth" in traits.note


def test_a_run_scores_images_with_the_evidence_judge(tmp_path: Path) -> None:
    with JudgeServer([Step(verdict(1))]) as server:
        args = {"base_url": server.url, "price_call": 0.0}
        run = knowgen.evaluate("knowgen_mini", "open_book", "evidence:any", out=tmp_path, scorer_args=args, limit=2)
    assert run.summary.headline.value == pytest.approx(1.0) and len(server.calls) == 2
