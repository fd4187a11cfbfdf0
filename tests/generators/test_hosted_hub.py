"""Models behind the inference providers of the hub, against stand-ins in the published form of each provider."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.inference._providers import PROVIDERS as INSTALLED
from huggingface_hub.inference._providers import _common, hf_inference

import knowgen
from knowgen.core.errors import (
    AccountError,
    ConfigError,
    KnowgenError,
    RefusalError,
    ServiceUnavailableError,
    UsageError,
)
from knowgen.core.records import GenerationRequest, GenerationStatus, ImageRef
from knowgen.generators.hosted import hub
from knowgen.generators.hosted.hub import HubImages
from tests.helpers.engine_servers import EngineServer, drawn
from tests.helpers.hosted_generation import PROMPT, generate
from tests.helpers.hub_providers import EDIT_MODEL, MODEL, OTHER, PROVIDERS, fal_queue, hub_server
from tests.helpers.image_servers import Step, image_bytes

TOKEN = "hf_" + "abcdefghijKLMNOPQRST0123456789"


@pytest.fixture(autouse=True)
def hub_calls_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(hub, "POLL_SECONDS", 0.0)
    caches = (_common._fetch_inference_provider_mapping, hf_inference._check_supported_task)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineServer]:
    with hub_server() as started:
        monkeypatch.setattr(constants, "ENDPOINT", started.url)
        yield started


def make(server: EngineServer, provider: str, model: str = MODEL, **args: Any) -> HubImages:
    return HubImages(model=f"{provider}/{model}", base_url=server.url, **({"key_env": "HF_TOKEN"} | args))


def reference(folder: Path, number: int = 1) -> ImageRef:
    data = image_bytes("red", size=(20 + number, 20))
    path = folder / f"{number}.png"
    path.write_bytes(data)
    return ImageRef(sha256=hashlib.sha256(data).hexdigest(), width=20 + number, height=20, format="PNG", path=path)


KIND = {"replicate": "WEBP"}


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != "zai-org"])
def test_repeats_differ_by_seed_and_the_file_is_kept_as_it_was_sent(provider: str, server: EngineServer) -> None:
    results = generate(make(server, provider), seeds=(0, 1, 0))
    assert [result.status for result in results] == [GenerationStatus.OK] * 3, [result.reason for result in results]
    assert [result.image for result in results] == [
        drawn(PROMPT, seed, kind=KIND.get(provider, "PNG")) for seed in (0, 1, 0)
    ]
    assert [result.settings["seed"] for result in results] == [0, 1, 0]
    assert results[0].settings["provider"] == provider and results[0].settings["endpoint"].endswith(provider)


def test_where_a_provider_reads_no_seed_the_record_says_so(server: EngineServer) -> None:
    (first, second) = generate(make(server, "zai-org", size="1024x768"), seeds=(1, 2))
    assert first.status is second.status is GenerationStatus.OK
    assert first.settings["seed"] == second.settings["seed"] == "not taken"
    assert server.read[0] == {"model": MODEL, "prompt": PROMPT, "size": "1024x768"}


FIELDS = {"num_inference_steps": 28, "guidance_scale": 3.5}
SENT: dict[str, dict[str, Any]] = {
    "fal-ai": {"prompt": PROMPT, "seed": 7, "image_size": {"width": 640, "height": 512}, **FIELDS},
    "replicate": {"prompt": PROMPT, "seed": 7, "width": 640, "height": 512, **FIELDS},
    "together": {
        "prompt": PROMPT, "response_format": "base64", "seed": 7, "width": 640, "height": 512, "guidance_scale": 3.5,
        "steps": 28, "model": MODEL,
    },
    "hf-inference": {"inputs": PROMPT, "parameters": {"seed": 7, "width": 640, "height": 512, **FIELDS}},
    "wavespeed": {"prompt": PROMPT, "seed": 7, "size": "640*512", **FIELDS},
}  # fmt: skip


@pytest.mark.parametrize("provider", list(SENT))
def test_parameters_are_named_as_the_provider_has_them(provider: str, server: EngineServer) -> None:
    (result,) = generate(make(server, provider, size="640x512", fields=FIELDS))
    assert result.status is GenerationStatus.OK and server.read == [SENT[provider]]
    assert result.settings["fields"] == FIELDS and result.settings["size"] == "640x512"
    assert result.settings["fields_unchecked"] == ["guidance_scale", "num_inference_steps", "seed", "size"]


SIZE_OF_EDIT: dict[str, dict[str, Any]] = {
    "fal-ai": {"image_size": {"width": 640, "height": 512}},
    "replicate": {"width": 640, "height": 512},
    "together": {"width": 640, "height": 512},
    "wavespeed": {"size": "640*512"},
    "hf-inference": {"parameters": {"prompt": PROMPT, "seed": 7, "target_size": {"width": 640, "height": 512}}},
}


@pytest.mark.parametrize("provider", list(SIZE_OF_EDIT))
def test_the_size_of_an_edit_is_read(provider: str, server: EngineServer, tmp_path: Path) -> None:
    server.pages.update(fal_queue(server, ["COMPLETED"]))
    (result,) = generate(make(server, provider, EDIT_MODEL, size="640x512"), reference(tmp_path))
    assert result.status is GenerationStatus.OK and server.read[-1].items() >= SIZE_OF_EDIT[provider].items()


def test_a_parameter_that_the_library_leaves_out_is_refused_before_anything_is_sent(server: EngineServer) -> None:
    generator = make(server, "nscale", fields={"num_inference_steps": 28, "negative_prompt": "blurry"})
    with pytest.raises(ConfigError, match="sends no num_inference_steps to nscale"):
        asyncio.run(generator.check_service())
    with pytest.raises(ConfigError, match="sends no num_inference_steps to nscale"):
        generate(generator)
    assert not server.calls


@pytest.mark.parametrize("provider", ["fal-ai", "replicate", "together", "wavespeed", "hf-inference"])
def test_references_are_sent_to_the_model_that_edits(provider: str, server: EngineServer, tmp_path: Path) -> None:
    server.pages.update(fal_queue(server, ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]))
    generator = make(server, provider, edit_model=EDIT_MODEL)
    (result,) = generate(generator, reference(tmp_path, 1), reference(tmp_path, 2))
    assert result.status is GenerationStatus.OK, result.reason
    assert result.image == drawn(PROMPT, 7, 1, KIND.get(provider, "PNG"))
    assert result.settings["references_dropped"].startswith("1 past") and result.settings["edit_model"] == EDIT_MODEL
    assert result.settings["operation"] == "image-to-image"


@pytest.mark.parametrize("provider", ["fal-ai", "replicate", "together"])
def test_several_references_are_sent_where_the_user_says_that_the_model_takes_them(
    provider: str, server: EngineServer, tmp_path: Path
) -> None:
    server.pages.update(fal_queue(server, ["COMPLETED"]))
    references = [reference(tmp_path, number) for number in (1, 2, 3)]
    (result,) = generate(make(server, provider, EDIT_MODEL, max_references=2), *references)
    assert result.image == drawn(PROMPT, 7, 2, KIND.get(provider, "PNG"))
    name = {"fal-ai": "image_urls", "replicate": "input_images", "together": "reference_images"}[provider]
    urls = server.read[0][name]
    assert len(urls) == 2 and all(url.startswith("data:image/png;base64,") for url in urls)
    assert HubImages.reference_limit(max_references=2) == 2 and HubImages.reference_limit() == 1


@pytest.mark.parametrize("provider", ["fal-ai", "replicate", "wavespeed", "zai-org"])
def test_an_image_that_a_filter_blackened_is_a_refusal(provider: str, server: EngineServer) -> None:
    with pytest.raises(RefusalError, match="declined"):
        generate(make(server, provider), prompt="something blocked")


def test_a_prediction_that_takes_longer_than_a_minute_is_waited_for(server: EngineServer) -> None:
    path = "/replicate/v1/predictions/p1"
    waiting = Step(response={"id": "p1", "status": "processing", "output": None})
    ended = Step(response=lambda url: {"id": "p1", "status": "succeeded", "output": f"{url}/out.webp"})
    away = Step(status=502, body=b"<html>Bad gateway</html>")
    server.pages[path] = [waiting, away, waiting, ended]
    (result,) = generate(make(server, "replicate"), prompt="a slow boat")
    assert result.image == drawn("a slow boat", 7, kind="WEBP") and len(server.calls) == 1
    server.pages[path] = [Step(response={"id": "p1", "status": "failed", "error": "CUDA out of memory"})]
    (failed,) = generate(make(server, "replicate"), prompt="a slow boat")
    assert failed.status is GenerationStatus.FAILED and "CUDA out of memory" in failed.reason


def test_an_image_that_stays_in_the_queue_is_given_up_after_the_timeout(server: EngineServer, tmp_path: Path) -> None:
    server.pages.update(fal_queue(server, ["IN_QUEUE"]))
    with pytest.raises(ServiceUnavailableError, match=r"did not finish an image within 0\.2 s"):
        generate(make(server, "fal-ai", EDIT_MODEL, timeout=0.2), reference(tmp_path))


def test_a_seed_that_was_not_used_is_recorded(server: EngineServer) -> None:
    (sent,) = generate(make(server, "fal-ai"))
    assert (sent.settings["seed"], sent.settings["returned_seed"]) == (7, 7)
    (other,) = generate(make(server, "fal-ai", send_seed=False))
    assert (other.settings["seed"], other.settings["returned_seed"]) == ("not taken", 99)


ERRORS: dict[str, tuple[int, dict[str, Any], type[KnowgenError], str]] = {
    "key": (401, {"error": "Invalid username or password."}, AccountError, "Invalid username"),
    "credit": (402, {"error": "You have exceeded your monthly included credits"}, AccountError, "monthly"),
    "rate": (429, {"error": "Too many requests"}, ServiceUnavailableError, "Too many requests"),
    "cold": (503, {"error": "Model is loading", "estimated_time": 20}, ServiceUnavailableError, "loading"),
    "content": (422, {"detail": [{"msg": "flagged by a content checker", "type": "content_policy_violation"}]},
                RefusalError, "content_policy_violation"),
    "field": (422, {"detail": [{"loc": ["body", "guidance_scale"], "msg": "ensure it is less than 20"}]},
              AccountError, "leave guidance_scale out"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ERRORS))
def test_errors_of_providers_become_the_runs_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, body, kind, words = ERRORS[name]
    with hub_server(lambda call: Step(status=status, error={**body, "key": TOKEN})) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        with pytest.raises(kind, match=words) as caught:
            generate(make(server, "fal-ai", fields={"guidance_scale": 50}))
    assert TOKEN not in str(caught.value)


def test_the_key_goes_to_the_provider_and_not_to_the_address_of_an_image(server: EngineServer) -> None:
    (result,) = generate(make(server, "fal-ai"))
    assert server.calls[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert server.calls[0].headers["user-agent"] == "knowgen"
    (fetched,) = server.fetched
    assert fetched.path.startswith("/files/") and "authorization" not in fetched.headers
    assert TOKEN not in repr(result) + repr(make(server, "fal-ai")._client)


def test_a_run_stores_no_key_and_charges_the_price(server: EngineServer, tmp_path: Path) -> None:
    target = "knowgen.generators.hosted.hub:HubImages"
    args = {"model": f"together/{MODEL}", "base_url": server.url, "key_env": "HF_TOKEN", "price": 0.25}
    run = knowgen.evaluate(
        "knowgen_mini", target, ["pixels"], out=tmp_path / "run", generator_args=args, limit=2, budget=5.0,
        progress=False,
    )  # fmt: skip
    assert run.outcome is not None and (run.outcome.generated, run.outcome.cost) == (2, 0.5)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 5 and not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_a_provider_is_called_directly_with_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_KEY", "fal-secret-0123456789")
    direct = HubImages(model=f"fal-ai/{MODEL}", key_env="FAL_KEY")
    assert direct._client.url == "https://queue.fal.run"
    assert HubImages(model=f"fal-ai/{MODEL}")._client.url == "https://router.huggingface.co/fal-ai"
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        generator = make(server, "fal-ai", key_env="FAL_KEY")
        composed = generator.compose(GenerationRequest(id="r", prompt=PROMPT), [])
        assert composed.headers["Authorization"] == "Key fal-secret-0123456789"


def test_a_model_that_the_provider_does_not_serve_is_found_before_anything_is_generated(
    server: EngineServer, tmp_path: Path
) -> None:
    for model, words in ((OTHER, "not supported by provider fal-ai"), ("made-up/none", "the hub has no model")):
        with pytest.raises(AccountError, match=words):
            asyncio.run(make(server, "fal-ai", model).check_service())
    asyncio.run(make(server, "fal-ai").check_service())
    asyncio.run(make(server, "fal-ai", EDIT_MODEL).check_service())  # for agents, whose requests have references
    for provider in ("fal-ai", "nscale"):
        with pytest.raises(ConfigError, match=r"edit_model=OWNER/MODEL|nscale has no image-to-image"):
            generate(make(server, provider), reference(tmp_path))
    (only_edits,) = generate(make(server, "fal-ai", EDIT_MODEL))
    assert only_edits.status is GenerationStatus.FAILED and "for text-to-image" in only_edits.reason
    assert not server.calls
    (without,) = generate(make(server, "fal-ai", max_references=0), reference(tmp_path))
    assert without.status is GenerationStatus.OK and without.settings["operation"] == "text-to-image"


def test_a_hub_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_server() as server:
        generator = make(server, "fal-ai")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ServiceUnavailableError, match="the hub cannot be reached"):
        asyncio.run(generator.check_service())


@pytest.mark.parametrize(
    ("args", "kind", "words"),
    [
        ({"model": "fal-ai"}, UsageError, "hub:PROVIDER/OWNER/MODEL"),
        ({"model": "groq/a/b"}, ConfigError, "use fal-ai, hf-inference"),
        ({"model": "fal-ai/a/b", "size": "big"}, UsageError, "WIDTHxHEIGHT"),
        ({"model": "nscale/a/b", "max_references": 2}, UsageError, "one reference image"),
        ({"model": "fal-ai/a/b", "fields": {"width": 3}}, UsageError, "must not hold width"),
    ],
)
def test_wrong_arguments_are_reported(args: dict[str, Any], kind: type[KnowgenError], words: str) -> None:
    with pytest.raises(kind, match=words):
        HubImages(**args)


def test_a_budget_needs_the_price_of_an_image(server: EngineServer) -> None:
    class Refusing:
        async def reserve(self, worst_case: float | None, caller: str) -> int:
            assert worst_case is not None, "the price is not known"
            return 0

        async def settle(self, number: int, cost: float | None) -> None:
            assert cost == 0.05

    (result,) = generate(make(server, "together", price=0.05), meter=Refusing())
    assert result.usage.cost == 0.05
    with pytest.raises(AssertionError, match="price is not known"):
        generate(make(server, "together"), meter=Refusing())
    assert not HubImages.price_known(f"fal-ai/{MODEL}") and HubImages.price_known(f"fal-ai/{MODEL}", price=0.05)


def test_every_provider_of_the_installed_library_that_makes_images_is_read() -> None:
    """A provider that the library adds needs an entry in `hub_tasks` where its response has a form of its own."""
    able = {name for name, tasks in INSTALLED.items() if {"text-to-image", "image-to-image"} & tasks.keys()}
    assert able == set(PROVIDERS)
