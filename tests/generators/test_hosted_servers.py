"""What each server and gateway is sent and how it is read, against stand-ins in the published form of each."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

import knowgen
from knowgen.core.errors import AccountError, ConfigError, RefusalError, TransientError, UsageError
from knowgen.core.metering import current_meter
from knowgen.core.records import GenerationRequest, GenerationStatus, ImageRef
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.hosted.openai import OpenAiImages
from knowgen.generators.hosted.served import ServedImages, served_presets
from knowgen.store.run import RunStore
from tests.helpers.engine_servers import (
    AZURE,
    AZURE_REFUSAL,
    AZURE_VERSION,
    LITELLM,
    LITELLM_COST,
    OPENROUTER,
    OPENROUTER_COST,
    SGLANG,
    SGLANG_EDIT,
    SGLANG_GENERATION,
    VLLM_EDIT,
    VLLM_GENERATION,
    VLLM_MODEL,
    VLLM_OMNI,
    EngineProfile,
    EngineServer,
    drawn,
    openrouter_moderated,
)
from tests.helpers.image_servers import KEY, OPENAI, ImageServer, Step, image_bytes

ROOT = Path(__file__).parents[2]
PROMPT = "A lighthouse of Mirelle, „open“ above the door"
SEEDREAM = "bytedance-seed/seedream-4.5"


@pytest.fixture(autouse=True)
def set_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)


class Meter:
    """A meter without a limit that keeps what was settled."""

    def __init__(self) -> None:
        self.settled: list[float | None] = []

    async def reserve(self, worst_case: float | None, caller: str) -> int:
        return 0

    async def settle(self, number: int, cost: float | None) -> None:
        self.settled.append(cost)


def reference(folder: Path, number: int) -> ImageRef:
    data = image_bytes("red", size=(20 + number, 20))
    path = folder / f"{number}.png"
    path.write_bytes(data)
    return ImageRef(sha256=hashlib.sha256(data).hexdigest(), width=20 + number, height=20, format="PNG", path=path)


def generate(
    generator: OpenAiImages, *references: ImageRef, seeds: tuple[int, ...] = (7,), meter: Meter | None = None
) -> list[GeneratedImage]:
    """Return one image for each seed."""

    async def each() -> list[GeneratedImage]:
        current_meter.set(meter)
        try:
            requests = [GenerationRequest(id=str(s), prompt=PROMPT, seed=s, references=references) for s in seeds]
            return [await generator.generate(request) for request in requests]
        finally:
            await generator.close()

    return asyncio.run(each())


def image(result: GeneratedImage) -> bytes:
    assert result.status is GenerationStatus.OK, result.reason
    assert isinstance(result.image, bytes)
    return result.image


def on(profile: EngineProfile, server: EngineServer, model: str = "any", **args: Any) -> OpenAiImages:
    """Return a generator for a server that it has to recognise, but for those that only their address shows."""
    if profile is OPENROUTER:
        args = {"server": "openrouter", **args}
    return OpenAiImages(model, base_url=server.base, **({"key_env": "MY_KEY"} | args))


RECOGNISED: dict[str, EngineProfile] = {"vllm-omni": VLLM_OMNI, "sglang": SGLANG, "litellm": LITELLM}


@pytest.mark.parametrize("name", list(RECOGNISED))
def test_a_server_is_recognised_by_its_free_calls_and_not_by_the_name_of_the_model(name: str) -> None:
    profile = RECOGNISED[name]
    for model in (VLLM_MODEL, "gpt-image-2"):
        with EngineServer(profile) as server:
            generator = on(profile, server, model)
            asyncio.run(generator.check_service())
            assert generator.form.name == name
            assert server.asked[0] == "/v1/models" and not server.calls


def test_a_model_that_the_server_does_not_list_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with EngineServer(VLLM_OMNI) as server:
        warning = asyncio.run(on(VLLM_OMNI, server, "Qwen/Qwen-Imagine").check_service())
    assert "does not list the model Qwen/Qwen-Imagine; it lists Qwen/Qwen-Image" in warning
    assert warning in caplog.text


def test_a_server_that_runs_another_model_ends_the_run_instead_of_failing_every_sample() -> None:
    with EngineServer(VLLM_OMNI) as server, pytest.raises(AccountError, match="server is running 'Qwen/Qwen-Image'"):
        generate(on(VLLM_OMNI, server, "gpt-image-2"))


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
    edit = {"num_inference_steps": 40, "guidance_scale": 1.0}
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
        generator = on(SGLANG, server, size="1024x1024", fields=fields)
        (plain,) = generate(generator)
        (edited,) = generate(generator, *[reference(tmp_path, number) for number in range(5)])
        one, two = server.calls
    assert server.read == [one.fields, two.fields]
    assert one.fields.keys() <= SGLANG_GENERATION.keys() and two.fields.keys() <= SGLANG_EDIT.keys()
    assert len(two.files) == 5
    assert image(plain) == drawn(PROMPT, 7) and image(edited) == drawn(PROMPT, 7, 5)


READS_SEEDS = {"vllm-omni": VLLM_OMNI, "sglang": SGLANG, "openrouter": OPENROUTER}


@pytest.mark.parametrize("name", list(READS_SEEDS))
def test_repeats_differ_by_seed_where_a_seed_is_read(name: str) -> None:
    profile = READS_SEEDS[name]
    model = {"openrouter": SEEDREAM, "vllm-omni": VLLM_MODEL}.get(name, "any")
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


def test_where_no_seed_is_read_the_record_says_so() -> None:
    with EngineServer(LITELLM) as server:
        (behind_litellm, again) = generate(on(LITELLM, server, "painting"), seeds=(1, 2))
        assert [sorted(call.fields.keys() & {"seed", "response_format"}) for call in server.calls] == [
            ["response_format", "seed"], ["seed"], [], [],
        ]  # fmt: skip
    with EngineServer(OPENROUTER) as server:
        (on_openrouter,) = generate(on(OPENROUTER, server, "openai/gpt-image-2"))
        assert "seed" not in server.calls[0].fields and len(server.calls) == 1
    with EngineServer(AZURE) as server:
        (on_azure,) = generate(azure(server))
        assert "seed" not in server.calls[0].fields and len(server.calls) == 1
    for result in (behind_litellm, again, on_openrouter, on_azure):
        assert image(result) and result.settings["seed"] == "not taken"


def azure(server: EngineServer, **args: Any) -> OpenAiImages:
    url = f"{server.base}?api-version={AZURE_VERSION}"
    return OpenAiImages("paint", base_url=url, key_env="MY_KEY", server="azure", **args)


def test_azure_is_sent_openais_fields_whatever_the_deployment_is_called(tmp_path: Path) -> None:
    with EngineServer(AZURE) as server:
        generator = azure(server, size="1024x1024", fields={"background": "opaque"})
        generate(generator)
        generate(generator, reference(tmp_path, 1))
    one, two = server.calls
    assert one.fields == {
        "model": "paint",
        "prompt": PROMPT,
        "n": 1,
        "size": "1024x1024",
        "quality": "auto",
        "moderation": "low",
        "output_format": "png",
        "background": "opaque",
    }
    assert two.path.startswith("/openai/deployments/paint/images/edits?api-version=") and len(two.files) == 1
    assert "moderation" not in two.fields and two.fields["background"] == "opaque"
    with (
        EngineServer(AZURE, lambda call: Step(status=400, error=AZURE_REFUSAL)) as server,
        pytest.raises(RefusalError, match="safety system"),
    ):
        generate(azure(server))


def test_openrouter_is_sent_what_the_model_takes_and_its_cost_is_charged(tmp_path: Path) -> None:
    meter = Meter()
    fields = {"aspect_ratio": "16:9", "provider": {"options": {"bytedance": {"watermark": False}}}}
    with EngineServer(OPENROUTER) as server:
        generator = on(OPENROUTER, server, SEEDREAM, size="2K", fields=fields, price=0.2)
        (result,) = generate(generator, *[reference(tmp_path, number) for number in range(4)], meter=meter)
        (call,) = server.calls
    references = call.fields.pop("input_references")
    assert call.path == "/api/v1/images"
    assert call.fields == {"model": SEEDREAM, "prompt": PROMPT, "size": "2K", "seed": 7, **fields}
    assert [part["type"] for part in references] == ["image_url"] * 2  # its model takes two
    assert all(part["image_url"]["url"].startswith("data:image/png;base64,") for part in references)
    assert result.settings["references_dropped"].startswith("2 past")
    assert image(result) == drawn(PROMPT, 7, 2)
    assert meter.settled == [OPENROUTER_COST] and result.usage.cost == OPENROUTER_COST
    assert (result.usage.input_tokens, result.usage.output_tokens) == (12, 4175)


def test_a_parameter_that_the_model_behind_openrouter_does_not_take_is_refused_before_anything_is_paid() -> None:
    for args in ({"quality": "high"}, {"fields": {"background": "opaque"}}, {"fields": {"steps": 40}}):
        with EngineServer(OPENROUTER) as server, pytest.raises(ConfigError, match="OpenRouter does not read"):
            asyncio.run(on(OPENROUTER, server, SEEDREAM, **args).check_service())
        assert not server.calls


def test_openrouter_draws_through_chat_with_the_modalities_of_the_model(tmp_path: Path) -> None:
    model, meter = "google/gemini-3.1-flash-image", Meter()
    with EngineServer(OPENROUTER) as server:
        chat = on(OPENROUTER, server, model, api="chat", size="2K", fields={"image_config": {"aspect_ratio": "1:1"}})
        (result,) = generate(chat, reference(tmp_path, 1), meter=meter)
        (only_image,) = generate(on(OPENROUTER, server, SEEDREAM, api="chat"))
        one, two = server.calls
    assert one.path == "/api/v1/chat/completions"
    content = one.fields.pop("messages")[0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url"] and content[0]["text"] == PROMPT
    assert one.fields == {
        "model": model,
        "modalities": ["image", "text"],
        "image_config": {"image_size": "2K", "aspect_ratio": "1:1"},
        "seed": 7,
    }
    assert two.fields["modalities"] == ["image"]
    assert image(result) == drawn(PROMPT, 7, 1) and image(only_image) == drawn(PROMPT, 7)
    assert meter.settled == [OPENROUTER_COST] and result.usage.output_tokens == 4175


CHAT_ENDINGS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "filtered": ({"finish_reason": "content_filter", "message": {"content": ""}}, RefusalError, "content_filter"),
    "refused": ({"finish_reason": "stop", "message": {"refusal": "I will not."}}, RefusalError, "I will not"),
    "native": ({"native_finish_reason": "SAFETY", "message": {"content": "No."}}, RefusalError, "No."),
    "words": ({"finish_reason": "stop", "message": {"content": "A boat is…"}}, TransientError, "no image: A boat"),
    "nothing": ({"finish_reason": "stop", "message": {}}, TransientError, "no words"),
    "behind": ({"error": {"code": 502, "message": "Upstream is away"}}, TransientError, "Upstream is away"),
    "key": ({"error": {"code": 401, "message": "No auth"}}, AccountError, "No auth"),
}


@pytest.mark.parametrize("name", list(CHAT_ENDINGS))
def test_a_chat_reply_without_an_image_is_a_refusal_or_asked_again(name: str) -> None:
    choice, kind, words = CHAT_ENDINGS[name]
    with (
        EngineServer(OPENROUTER, lambda call: Step(response={"choices": [choice], "usage": {"cost": 0.01}})) as server,
        pytest.raises(kind, match=words),
    ):
        generate(on(OPENROUTER, server, SEEDREAM, api="chat"))


def test_a_prompt_that_openrouter_moderates_is_a_refusal() -> None:
    with EngineServer(OPENROUTER, openrouter_moderated) as server, pytest.raises(RefusalError, match="flagged"):
        generate(on(OPENROUTER, server, SEEDREAM))


def test_the_cost_that_litellm_names_in_a_header_is_charged() -> None:
    meter = Meter()
    with EngineServer(LITELLM) as server:
        (result,) = generate(on(LITELLM, server, "painting", price=1.0), meter=meter)
    assert result.usage.cost == LITELLM_COST and meter.settled[-1] == LITELLM_COST


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
        (result,) = generate(generator, reference(tmp_path, 1))
        assert not server.calls
    assert result.status is GenerationStatus.FAILED
    assert "does not read cfg_text_scale" in result.reason and "api=chat" in result.reason


@pytest.mark.parametrize(
    ("profile", "args", "words"),
    [
        (VLLM_OMNI, {"fields": {"num_inference_steps": 500}}, "num_inference_steps"),
        (LITELLM, {"fields": {"style_strength": 3}}, "style_strength"),
        (AZURE, {"fields": {"steps": 3}}, "steps"),
    ],
)
def test_a_chosen_field_that_a_server_refuses_is_never_left_out(
    profile: EngineProfile, args: dict[str, Any], words: str
) -> None:
    with EngineServer(profile) as server:
        generator = azure(server, **args) if profile is AZURE else on(profile, server, VLLM_MODEL, **args)
        with pytest.raises(AccountError, match=f"{words}.*leave {words} out"):
            generate(generator)
        assert not server.read or words in str(server.calls[-1].fields)


@pytest.mark.parametrize("most", [1, 3])
def test_the_limit_on_references_that_a_server_states_is_kept_from_then_on(most: int, tmp_path: Path) -> None:
    profile = EngineProfile("/v1", VLLM_OMNI.answer, VLLM_OMNI.free, max_references=most)
    references = [reference(tmp_path, number) for number in range(6)]
    with EngineServer(profile) as server:
        generator = on(profile, server, VLLM_MODEL)
        (first, second) = generate(generator, *references, seeds=(1, 2))
        assert [len(call.files) for call in server.calls] == [6, most, most]
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


def test_bagel_is_drawn_through_vllm_omni_as_published(tmp_path: Path) -> None:
    with EngineServer(VLLM_OMNI) as server:
        generator = ServedImages(model="bagel", base_url=server.base)
        (plain, edited) = generate(generator) + generate(generator, reference(tmp_path, 1), reference(tmp_path, 2))
        one, two = server.calls
    prompt = f"<|im_start|>{PROMPT}<|im_end|>"
    assert one.path == "/v1/chat/completions"
    assert one.fields == {
        "model": "ByteDance-Seed/BAGEL-7B-MoT",
        "messages": [{"role": "user", "content": [{"type": "text", "text": prompt}]}],
        "modalities": ["image"],
        "extra_body": {
            "width": 1024,
            "height": 1024,
            "seed": 7,
            "num_inference_steps": 50,
            "cfg_text_scale": 4.0,
            "cfg_img_scale": 1.0,
            "cfg_interval": [0.4, 1.0],
            "timestep_shift": 3.0,
            "cfg_renorm_min": 0.0,
            "cfg_renorm_type": "global",
        },
    }
    assert two.fields["extra_body"]["cfg_img_scale"] == 2.0 and len(two.fields["messages"][0]["content"]) == 2
    assert image(plain) == drawn(prompt, 7) and image(edited) == drawn(prompt, 7, 1)
    assert (plain.settings["preset"], plain.settings["row"]) == ("bagel", "BAGEL")
    assert not plain.used_prompt and plain.settings["prompt_format"] == "<|im_start|>{prompt}<|im_end|>"


def test_hunyuanimage_is_drawn_through_vllm_omni_as_published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = "tencent/HunyuanImage-3.0"
    monkeypatch.setattr("tests.helpers.engine_servers.VLLM_MODEL", model)
    with EngineServer(VLLM_OMNI) as server:
        generator = ServedImages(model="HunyuanImage-3.0", base_url=server.base, fields={"guidance_scale": 4.0})
        (result,) = generate(generator, reference(tmp_path, 1))
        (call,) = server.calls
    assert call.path == "/v1/images/generations" and server.read == [call.fields]
    assert {name: call.fields[name] for name in ("model", "size", "num_inference_steps", "guidance_scale", "seed")} == {
        "model": model, "size": "1024x1024", "num_inference_steps": 50, "guidance_scale": 4.0, "seed": 7,
    }  # fmt: skip
    assert image(result) == drawn(PROMPT, 7)
    assert result.settings["references_dropped"].startswith("1 past") and result.settings["operation"] == "generations"


def test_every_open_row_of_the_published_table_has_a_preset() -> None:
    import csv

    from knowgen.generators.diffusers.presets import presets

    with (ROOT / "leaderboards/knowgen-official/published.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if "open" in row.values()]
    known = {preset.row for preset in presets() if not preset.unsupported} | {each.row for each in served_presets()}
    systems = {next(iter(row.values())) for row in rows}
    assert len(systems) > 10
    assert {system for system in systems if "Searcher" not in str(system)} - known == set()
    with pytest.raises(UsageError, match="served:bagel"):
        ServedImages(model="nothing")
