"""`vllm`: the same ids over HTTP as in this process, against a server that speaks vLLM's protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from knowgen.agents.policies.contract import ContextFullError, Sampling
from knowgen.agents.policies.hf import HfPolicy
from knowgen.agents.policies.vllm import VllmPolicy, _ImageData, _RequestBody
from knowgen.agents.records import Message
from knowgen.core.errors import AccountError, ConfigError, KnowgenError, ServiceUnavailableError, UsageError
from knowgen.core.metering import spending
from knowgen.core.records import ImageRef
from tests.helpers.policies import SYSTEM, picture, sampled_ids, trajectory
from tests.helpers.tiny_models import tiny_vlm
from tests.helpers.vllm_server import VllmServer

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch", "torchvision", "transformers")), reason="needs knowgen[models]"
)

GREEDY = Sampling(temperature=0.0, max_new_tokens=8)
WARM = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=8, seed=5)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HfPolicy]:
    import torch

    torch.set_num_threads(1)
    made = HfPolicy(str(tiny_vlm(tmp_path_factory.mktemp("models") / "tiny")), device="cpu")
    asyncio.run(made.engine.open())
    yield made
    asyncio.run(made.close())


@pytest.fixture
def server(local: HfPolicy) -> Iterator[VllmServer]:
    with VllmServer(local.engine) as running:
        yield running


@pytest.fixture
def pictures(tmp_path: Path) -> list[ImageRef]:
    return [picture(tmp_path, "red"), picture(tmp_path, "blue", (40, 200))]


def remote(server: VllmServer, local: HfPolicy, **arguments: Any) -> VllmPolicy:
    return VllmPolicy("tiny", server.address + "/v1", tokenizer=local.source.model, **arguments)


async def with_closing(policy: VllmPolicy, *runs: Any) -> list[Any]:
    try:
        return await asyncio.gather(*runs, return_exceptions=True)
    finally:
        await policy.close()


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_ids_and_log_probabilities_are_those_of_the_model_in_this_process(
    server: VllmServer, local: HfPolicy, pictures: list[ImageRef], sampling: Sampling
) -> None:
    policy = remote(server, local)
    [session] = asyncio.run(with_closing(policy, trajectory(policy, sampling, "t", pictures)))
    same = asyncio.run(trajectory(local, sampling, "t", pictures))
    plain, expected = ([replace(each, weights="", logprobs=None) for each in run.segments] for run in (session, same))
    assert plain == expected
    for there, here in zip(session.segments, same.segments, strict=True):
        assert (there.logprobs is None) == (here.logprobs is None)
        assert (there.logprobs or []) == pytest.approx(here.logprobs or [], abs=1e-5)
    assert len(sampled_ids(session)) == 3


def test_an_image_is_prepared_once_over_all_trajectories(
    server: VllmServer, local: HfPolicy, pictures: list[ImageRef]
) -> None:
    policy = remote(server, local)
    runs = [trajectory(policy, GREEDY, f"t{number}", pictures) for number in range(3)]
    sessions = asyncio.run(with_closing(policy, *runs))
    assert all(len(sampled_ids(session)) == 3 for session in sessions)
    assert len(server.rendered) == 2 and len(server.requests) == 9


def test_a_trajectory_has_one_session_and_begins_with_its_earlier_ids(
    server: VllmServer, local: HfPolicy, pictures: list[ImageRef]
) -> None:
    policy = remote(server, local)
    asyncio.run(with_closing(policy, trajectory(policy, GREEDY, "run-7", pictures)))
    assert server.sessions == ["run-7"] * 3
    before: list[int] = []
    for request in server.requests:
        assert request["token_ids"][: len(before)] == before
        before = request["token_ids"]
    assert len({request["request_id"] for request in server.requests}) == 3


def test_images_that_do_not_fit_the_cache_are_prepared_again(
    server: VllmServer, local: HfPolicy, pictures: list[ImageRef]
) -> None:
    policy = remote(server, local, image_cache=0)
    [session] = asyncio.run(with_closing(policy, trajectory(policy, GREEDY, "t", pictures)))
    assert sampled_ids(session) == sampled_ids(asyncio.run(trajectory(local, GREEDY, "t", pictures)))
    assert len(server.rendered) > 2


def test_the_limit_of_the_server_ends_the_trajectory_before_a_call(local: HfPolicy) -> None:
    with VllmServer(local.engine, max_model_len=40) as server:
        policy = remote(server, local)
        [error] = asyncio.run(with_closing(policy, trajectory(policy, GREEDY, "t", [])))
    assert isinstance(error, ContextFullError) and "the model takes 40" in error.what
    assert not server.requests


def test_a_context_error_of_the_server_is_one(server: VllmServer, local: HfPolicy) -> None:
    message = "The decoder prompt (length 99) is longer than the maximum model length of 40."
    server.fail = [(400, {"error": {"message": message, "type": "BadRequestError", "code": 400}})]
    policy = remote(server, local)
    [error] = asyncio.run(with_closing(policy, trajectory(policy, GREEDY, "t", [])))
    assert isinstance(error, ContextFullError) and message in error.what


def test_a_call_may_be_repeated_after_the_server_was_away(
    server: VllmServer, local: HfPolicy, pictures: list[ImageRef]
) -> None:
    policy = remote(server, local)
    server.fail = [(503, {"error": {"message": "loading"}})] * 2  # one for the image, one for the reply

    async def run() -> list[list[int]]:
        session = policy.open(GREEDY, "", "t")
        conversation = [SYSTEM, Message("user", "What is it?", tuple(pictures[:1]))]
        for _ in range(2):
            with pytest.raises(ServiceUnavailableError) as raised:
                await session.reply(conversation)
            assert raised.value.busy and raised.value.service == "vllm:tiny"
        await session.reply(conversation)
        await policy.close()
        return sampled_ids(session)

    ids = asyncio.run(run())
    session = local.open(GREEDY, "", "t")
    asyncio.run(session.reply([SYSTEM, Message("user", "What is it?", tuple(pictures[:1]))]))
    assert ids == sampled_ids(session)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda answer: answer["choices"][0].pop("token_ids"), KnowgenError, "no token ids"),
        (lambda answer: answer["choices"][0]["logprobs"]["content"].pop(), KnowgenError, "log-probabilities"),
        (lambda answer: answer["choices"].clear(), KnowgenError, "no token ids"),
        (lambda answer: answer["choices"][0].update(finish_reason="abort"), ServiceUnavailableError, "abort"),
    ],
)
def test_an_answer_of_another_form_is_an_error(
    server: VllmServer, local: HfPolicy, change: Any, error: type[Exception], words: str
) -> None:
    def changed(answer: dict[str, Any]) -> dict[str, Any]:
        change(answer)
        return answer

    server.change = changed
    policy = remote(server, local)
    [raised] = asyncio.run(with_closing(policy, trajectory(policy, GREEDY, "t", [])))
    assert isinstance(raised, error) and words in str(raised)


def test_older_servers_name_the_token_in_a_text_and_send_no_log_probabilities(
    server: VllmServer, local: HfPolicy
) -> None:
    def older(answer: dict[str, Any]) -> dict[str, Any]:
        for each in answer["choices"][0]["logprobs"]["content"]:
            each["token"] = f"token_id:{each.pop('token_id')}"
        return answer

    def none(answer: dict[str, Any]) -> dict[str, Any]:
        answer["choices"][0]["logprobs"] = None
        return answer

    policy = remote(server, local)
    expected = sampled_ids(asyncio.run(trajectory(local, GREEDY, "t", [])))
    for change, stated in ((older, True), (none, False)):
        server.change = change
        [session] = asyncio.run(with_closing(policy, trajectory(policy, GREEDY, "t", [])))
        assert sampled_ids(session) == expected
        assert (session.segments[-1].logprobs is not None) is stated


def test_the_version_of_the_weights_is_recorded(server: VllmServer, local: HfPolicy) -> None:
    def versioned(answer: dict[str, Any]) -> dict[str, Any]:
        spans = [{"version": "7", "start": 0, "end": 3}, {"version": "8", "start": 3, "end": 8}]
        answer["choices"][0]["weight_versions"] = spans
        return answer

    server.change = versioned
    policy = remote(server, local)
    [session] = asyncio.run(with_closing(policy, trajectory(policy, GREEDY, "t", [])))
    assert session.segments[-1].weights == "7 8"


def test_what_the_server_is_not_is_said_in_one_line(server: VllmServer, local: HfPolicy) -> None:
    async def error_of(policy: VllmPolicy) -> str:
        [error] = await with_closing(policy, policy.check_service())
        assert isinstance(error, KnowgenError)
        return f"{type(error).__name__} {error}"

    folder = local.source.model
    other = VllmPolicy("another", server.address, tokenizer=folder)
    assert asyncio.run(error_of(other)) == (
        "AccountError policy vllm:another: the server does not serve 'another'; it serves tiny"
    )
    away = VllmPolicy("tiny", "http://127.0.0.1:9", tokenizer=folder)
    assert asyncio.run(error_of(away)).startswith("ServiceUnavailableError http://127.0.0.1:9 cannot be reached")
    missing = VllmPolicy("tiny", server.address, tokenizer="./nowhere")
    assert "the folder ./nowhere does not exist" in asyncio.run(error_of(missing))


def test_a_server_without_the_token_paths_is_named_with_the_option_that_opens_them(
    server: VllmServer, local: HfPolicy
) -> None:
    server.fail = [(404, {"detail": "Not Found"})]
    policy = remote(server, local)
    [error] = asyncio.run(with_closing(policy, trajectory(policy, GREEDY, "t", [])))
    assert isinstance(error, AccountError) and "--enable-scale-out" in error.fix


def test_a_key_is_sent_when_one_is_named(local: HfPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_KEY", "secret-of-this-server")
    monkeypatch.setenv("OPENAI_API_KEY", "never-sent-here")
    with VllmServer(local.engine, key="secret-of-this-server") as server:
        named = remote(server, local, key_env="VLLM_KEY")
        assert asyncio.run(with_closing(named, named.check_service())) == [""]
        bare = remote(server, local)
        [error] = asyncio.run(with_closing(bare, bare.check_service()))
    assert isinstance(error, AccountError) and "401" in error.what


def test_a_trajectory_stays_at_one_of_several_servers(
    server: VllmServer, local: HfPolicy, pictures: list[ImageRef]
) -> None:
    with VllmServer(local.engine) as other:
        policy = VllmPolicy("tiny", f"{server.address},{other.address}/v1", tokenizer=local.source.model)

        async def one_after_another() -> None:
            for name in ("a", "b", "c", "d"):
                session = await trajectory(policy, GREEDY, name, pictures)
                if name in "ab":
                    continue  # they stay open
                await session.close()
            await policy.close()

        asyncio.run(one_after_another())
    assert server.sessions == ["a"] * 3 + ["c"] * 3 + ["d"] * 3
    assert other.sessions == ["b"] * 3


@pytest.mark.parametrize("data", [["AAA=", None], ["A+/b", "c-_d"], ['a"b', "é\\"], []])
def test_a_body_is_sent_as_the_json_that_it_is(data: list[str | None]) -> None:
    features = {"mm_hashes": {"image": ["x"] * len(data)}, "kwargs_data": {"image": [_ImageData.of(d) for d in data]}}
    plain = {"token_ids": [1, 2], "model": "é", **({"features": features} if data else {})}
    body = _RequestBody(plain)

    async def sent() -> bytes:
        return b"".join([piece async for piece in body.stream()])

    content = asyncio.run(sent())
    assert json.loads(content) == plain and len(content) == body.length


def test_each_call_is_counted(server: VllmServer, local: HfPolicy, pictures: list[ImageRef]) -> None:
    policy = remote(server, local)

    async def run() -> tuple[int, float | None]:
        with spending() as spent:
            await trajectory(policy, GREEDY, "t", pictures)
        await policy.close()
        return spent.calls, spent.cost

    assert asyncio.run(run()) == (3, 0.0)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(UsageError, match="name it as vllm:MODEL"):
        VllmPolicy("")
    with pytest.raises(UsageError, match="timeout must be a number > 0"):
        VllmPolicy("m", timeout=0)
    with pytest.raises(UsageError, match="not an http address"):
        VllmPolicy("m", "localhost:8000")
    with pytest.raises(ConfigError):
        VllmPolicy("m", "http://user:pw@127.0.0.1:8000")


def test_the_identity_names_model_and_server() -> None:
    one = VllmPolicy("m", "http://127.0.0.1:8000/v1", timeout=3.0)
    assert one.identity == VllmPolicy("m").identity
    assert one.identity != VllmPolicy("m", "http://127.0.0.1:8001").identity
