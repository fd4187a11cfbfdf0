"""What each engine that serves images is sent and how it is read, against stand-ins in the published form of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import knowgen
from knowgen.core.errors import AccountError, ConfigError, ServiceUnavailableError, UsageError
from knowgen.generators.hosted.openai import OpenAiImages
from knowgen.store.run import RunStore
from tests.helpers.engine_servers import (
    SGLANG,
    SGLANG_CARD,
    SGLANG_EDIT,
    SGLANG_FAULT,
    SGLANG_GENERATION,
    VLLM_EDIT,
    VLLM_GENERATION,
    VLLM_MODEL,
    VLLM_OMNI,
    VLLM_WITH_KEY,
    EngineProfile,
    EngineServer,
    detail,
    drawn,
    listing,
    vllm_of,
)
from tests.helpers.gateway_servers import LITELLM, OPENROUTER
from tests.helpers.hosted_generation import PROMPT, generate, image, on, reference
from tests.helpers.image_servers import KEY, OPENAI, ImageServer, Step

ROOT = Path(__file__).parents[2]
SEEDREAM = "bytedance-seed/seedream-4.5"


@pytest.fixture(autouse=True)
def set_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)


def sglang_of(model: str) -> EngineProfile:
    return replace(SGLANG, free={"/v1/models": ({}, listing(SGLANG_CARD | {"id": model}))})


RECOGNISED: dict[str, Callable[[str], EngineProfile]] = {
    "vllm-omni": vllm_of,
    "sglang": sglang_of,
    "litellm": lambda model: LITELLM,
}
ONE_MODEL = {"vllm-omni": VLLM_OMNI, "sglang": SGLANG}


@pytest.mark.parametrize("name", list(RECOGNISED))
def test_a_server_is_recognised_by_its_free_calls_and_not_by_the_name_of_the_model(name: str) -> None:
    for model in (VLLM_MODEL, "gpt-image-2"):
        profile = RECOGNISED[name](model)
        with EngineServer(profile) as server:
            generator = on(profile, server, model)
            asyncio.run(generator.check_service())
            assert generator.form.name == name and generator.service_facts().startswith(generator.form.title)
            assert server.asked[0] == "/v1/models" and not server.calls


@pytest.mark.parametrize("name", list(ONE_MODEL))
def test_a_server_that_runs_another_model_draws_nothing(name: str) -> None:
    profile = ONE_MODEL[name]
    with EngineServer(profile) as server:
        generator = on(profile, server, "Qwen/Qwen-Imagine")
        with pytest.raises(AccountError, match=f"runs {VLLM_MODEL}, not Qwen/Qwen-Imagine"):
            asyncio.run(generator.check_service())
        with pytest.raises(AccountError, match=f"runs {VLLM_MODEL}, not gpt-image-2"):
            generate(on(profile, server, "gpt-image-2"))  # no check before, as for the painter of an agent
        assert not server.calls


@pytest.mark.parametrize("documented", [False, True])
def test_another_model_behind_a_server_that_is_named_ends_the_run(documented: bool) -> None:
    words = f"Model mismatch: request specifies 'gpt-image-2' but server is running '{VLLM_MODEL}'."
    as_documented = (lambda call: detail(400, words)) if documented else (lambda call: None)
    with (
        EngineServer(VLLM_OMNI, as_documented) as server,
        pytest.raises(AccountError, match=f"server is running '{VLLM_MODEL}'"),
    ):
        generate(on(VLLM_OMNI, server, "gpt-image-2", server="vllm-omni"))


@pytest.mark.parametrize("name", list(ONE_MODEL))
@pytest.mark.parametrize("size", ["2K", "1024", "1024x"])
def test_a_size_that_an_engine_ignores_or_refuses_is_reported_before_anything_is_sent(name: str, size: str) -> None:
    profile = ONE_MODEL[name]
    with EngineServer(profile) as server, pytest.raises(UsageError, match="is not WIDTHxHEIGHT"):
        asyncio.run(on(profile, server, VLLM_MODEL, size=size).check_service())


def test_a_wrong_key_ends_the_run() -> None:
    with EngineServer(VLLM_WITH_KEY) as server:
        asyncio.run(on(VLLM_WITH_KEY, server, VLLM_MODEL).check_service())
        generator = on(VLLM_WITH_KEY, server, VLLM_MODEL, key_env="")  # none, as for a server on this machine
        with pytest.raises(AccountError, match="401: Unauthorized"):
            asyncio.run(generator.check_service())
        with pytest.raises(AccountError, match="401: Unauthorized"):
            generate(on(VLLM_WITH_KEY, server, VLLM_MODEL, key_env="", server="vllm-omni"))


def test_a_server_that_is_still_starting_does_not_pass_as_an_unknown_one() -> None:
    with EngineServer(VLLM_OMNI) as server:
        server.pages["/v1/models"] = Step(status=502, body=b"<html>Bad gateway</html>")
        generator = on(VLLM_OMNI, server, VLLM_MODEL, fields={"cfg_interval": [0.4, 1.0]})
        with pytest.raises(ServiceUnavailableError, match="502.*server=NAME"):
            generate(generator)
        del server.pages["/v1/models"]
        (result,) = generate(generator)
        assert image(result) and server.read[-1]["extra_params"] == {"cfg_interval": [0.4, 1.0]}


def test_a_fault_of_the_scheduler_may_pass() -> None:
    with (
        EngineServer(SGLANG, lambda call: SGLANG_FAULT) as server,
        pytest.raises(ServiceUnavailableError, match="500: Internal Server Error"),
    ):
        generate(on(SGLANG, server, VLLM_MODEL))


def test_openai_is_recognised_behind_a_proxy_and_any_other_server_is_not_named() -> None:
    with ImageServer(OPENAI) as server:
        generator = OpenAiImages("my-model", base_url=server.base)
        asyncio.run(generator.check_service())
    assert generator.form.name == "openai"
    with ImageServer(OPENAI, pages={"/v1/models": b"<html>no list</html>"}) as server:
        generator = OpenAiImages("gpt-image-2", base_url=server.base)
        asyncio.run(generator.check_service())
    assert generator.form.name == "other"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("", "openai"),
        ("https://NAME.openai.azure.com/openai/v1", "azure"),
        ("https://openrouter.ai/api/v1", "openrouter"),
    ],
)
def test_an_address_that_says_what_the_server_is_needs_no_call(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert OpenAiImages("any", base_url=url, key_env="MY_KEY").form.name == name
    assert OpenAiImages("any", base_url="http://127.0.0.1:9/v1", server=name).form.name == name
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if name == "openrouter":
        assert OpenAiImages("any", base_url=url)._client.key == KEY
        with pytest.raises(ConfigError, match="OPENAI_API_KEY"):  # its key goes to no other host
            OpenAiImages("any", base_url="https://openrouter.ai.example.com/api/v1")


def test_vllm_omni_reads_everything_that_it_is_sent(tmp_path: Path) -> None:
    fields = {"num_inference_steps": 40, "negative_prompt": "blurry", "true_cfg_scale": 4.0, "cfg_interval": [0.4, 1.0]}
    edit = {"num_inference_steps": 40, "guidance_scale": 1.0, "condition_resolution": 512}
    with EngineServer(VLLM_OMNI) as server:
        generator = on(VLLM_OMNI, server, VLLM_MODEL, size="1664x928", fields=fields, edit_fields=edit)
        (plain,) = generate(generator)
        (edited,) = generate(generator, reference(tmp_path, 1), reference(tmp_path, 2))
        one, two = server.calls
    assert one.fields == {
        "model": VLLM_MODEL,
        "prompt": PROMPT,
        "n": 1,
        "response_format": "b64_json",
        "size": "1664x928",
        "output_format": "png",
        "seed": 7,
        "num_inference_steps": 40,
        "negative_prompt": "blurry",
        "true_cfg_scale": 4.0,
        "extra_params": {"cfg_interval": [0.4, 1.0]},
    }
    assert server.read == [one.fields, two.fields]
    assert one.fields.keys() <= VLLM_GENERATION.keys() and two.fields.keys() <= VLLM_EDIT.keys()
    assert two.path == "/v1/images/edits" and [name for name, *_ in two.files] == ["image[]"] * 2
    assert two.fields["num_inference_steps"] == "40" and two.fields["seed"] == "7"
    assert (image(plain), image(edited)) == (drawn(PROMPT, 7), drawn(PROMPT, 7, 2))
    assert plain.settings["server"] == "vllm-omni" and plain.settings["fields"] == fields
    assert plain.settings["seed"] == 7 and edited.settings["operation"] == "edits"


def test_sglang_reads_everything_that_it_is_sent_and_returns_a_png(tmp_path: Path) -> None:
    fields = {"num_inference_steps": 9, "guidance_scale": 0.0, "negative_prompt": "text"}
    with EngineServer(SGLANG) as server:
        generator = on(SGLANG, server, VLLM_MODEL, size="1024x1024", fields=fields)
        (plain,) = generate(generator)
        (edited,) = generate(generator, *[reference(tmp_path, number) for number in range(5)])
        one, two = server.calls
    assert server.read == [one.fields, two.fields]
    assert one.fields.keys() <= SGLANG_GENERATION.keys() and two.fields.keys() <= SGLANG_EDIT.keys()
    assert len(two.files) == 5 and "fields_unchecked" not in {**plain.settings, **edited.settings}
    assert image(plain) == drawn(PROMPT, 7) and image(edited) == drawn(PROMPT, 7, 5)


READS_SEEDS = {"vllm-omni": VLLM_OMNI, "sglang": SGLANG, "openrouter": OPENROUTER}


@pytest.mark.parametrize("name", list(READS_SEEDS))
def test_repeats_differ_by_seed_where_a_seed_is_read(name: str) -> None:
    profile = READS_SEEDS[name]
    model = SEEDREAM if name == "openrouter" else VLLM_MODEL
    with EngineServer(profile) as server:
        results = generate(on(profile, server, model), seeds=(0, 1, 2, 1))
    images = [image(result) for result in results]
    assert len(set(images)) == 3 and images[1] == images[3]
    assert [result.settings["seed"] for result in results] == [0, 1, 2, 1]


def test_a_run_with_repeats_records_a_seed_of_its_own_for_each(tmp_path: Path) -> None:
    with EngineServer(VLLM_OMNI) as server:
        knowgen.evaluate(
            "knowgen_mini",
            f"openai:{VLLM_MODEL}",
            ["pixels"],
            out=tmp_path / "run",
            generator_args={"base_url": server.base, "fields": {"num_inference_steps": 9}},
            limit=2,
            repeats=2,
            progress=False,
        )
    with RunStore.read(tmp_path / "run") as store:
        generations = [generation for _, generation in store.generations()]
    assert sorted((each.repeat, each.settings["seed"]) for each in generations) == [(0, 0), (0, 0), (1, 1), (1, 1)]
    assert len({each.image.sha256 for each in generations if each.image}) == 4
    assert all(each.settings["fields"] == {"num_inference_steps": 9} for each in generations)


def test_a_field_that_a_server_would_ignore_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    for profile, args in (
        (VLLM_OMNI, {"quality": "high"}),
        (VLLM_OMNI, {"moderation": "auto"}),
        (VLLM_OMNI, {"api": "chat", "output_format": "jpeg"}),
        (VLLM_OMNI, {"edit_fields": {"cfg_text_scale": 4.0}}),
        (SGLANG, {"edit_fields": {"flow_shift": 3.0}}),
        (SGLANG, {"moderation": "auto"}),
        (SGLANG, {"api": "chat"}),
    ):
        with EngineServer(profile) as server, pytest.raises(ConfigError):
            asyncio.run(on(profile, server, VLLM_MODEL, **args).check_service())
        assert not server.calls
    with EngineServer(VLLM_OMNI) as server:  # known to the model, but its edits have no place for it
        generator = on(VLLM_OMNI, server, VLLM_MODEL, fields={"cfg_text_scale": 4.0})
        with pytest.raises(ConfigError, match=r"does not read cfg_text_scale.*edit_fields.*api=chat"):
            generate(generator, reference(tmp_path, 1))
        assert not server.calls


def test_a_chosen_field_that_a_server_refuses_is_never_left_out() -> None:
    with EngineServer(VLLM_OMNI) as server:
        generator = on(VLLM_OMNI, server, VLLM_MODEL, fields={"num_inference_steps": 500})
        with pytest.raises(AccountError, match=r"num_inference_steps.*leave num_inference_steps out"):
            generate(generator)
        assert "num_inference_steps" in server.calls[-1].fields


@pytest.mark.parametrize("most", [1, 3])
def test_the_limit_on_references_that_a_server_states_is_kept_from_then_on(most: int, tmp_path: Path) -> None:
    profile = replace(VLLM_OMNI, max_references=most)
    references = [reference(tmp_path, number) for number in range(6)]
    with EngineServer(profile) as server:
        generator = on(profile, server, VLLM_MODEL)
        (first, second) = generate(generator, *references, seeds=(1, 2))
        assert [len(call.files) for call in server.calls] == [6, most, most]
        generate(on(profile, server, VLLM_MODEL, api="chat"), *references)
        parts = [call.fields["messages"][0]["content"] for call in server.calls[3:]]
        assert [len(each) - 1 for each in parts] == [6, most]
    for result in (first, second):
        assert image(result) and result.settings["references_dropped"] == (
            f"{6 - most} past the service's limit of {most}"
        )


def test_the_user_may_use_fewer_references(tmp_path: Path) -> None:
    references = [reference(tmp_path, number) for number in range(3)]
    with EngineServer(VLLM_OMNI) as server:
        generate(on(VLLM_OMNI, server, VLLM_MODEL, max_references=1), *references)
        assert len(server.calls[0].files) == 1
    assert OpenAiImages.reference_limit(max_references=1) == 1
    assert OpenAiImages.reference_limit(server="vllm-omni") > OpenAiImages.reference_limit() == 16


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("steps=3", "must be names with values"),
        ({"size": "1x1"}, "write -g size=VALUE"),
        ({"seed": 3}, "--seed"),
        ({"prompt": "x"}, "made for each sample"),
        ({"input_references": []}, "made for each sample"),
        ({"a": float("nan")}, "cannot be sent as JSON"),
        ({1: 2}, "must be names with values"),
    ],
)
def test_fields_that_cannot_be_sent_are_reported(fields: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        OpenAiImages("any", base_url="http://127.0.0.1:9/v1", fields=fields)
    with pytest.raises(ConfigError, match="key"):
        OpenAiImages("any", base_url="http://127.0.0.1:9/v1", fields={"api_key": KEY})


def test_prompt_format_must_hold_the_prompt_once() -> None:
    with pytest.raises(UsageError, match="prompt_format"):
        OpenAiImages("any", base_url="http://127.0.0.1:9/v1", prompt_format="a red boat")
