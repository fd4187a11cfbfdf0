"""What gateways and hosted services of image models are sent and how they are read, against stand-ins of each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import knowgen
from knowgen.core.errors import AccountError, ConfigError, RefusalError, TransientError
from knowgen.generators.hosted.openai import OpenAiImages
from tests.helpers.engine_servers import EngineProfile, EngineServer, drawn
from tests.helpers.gateway_servers import (
    AZURE,
    AZURE_REFUSAL,
    AZURE_VERSION,
    LITELLM,
    LITELLM_BUDGET,
    LITELLM_COST,
    LITELLM_MODEL,
    LITELLM_REFUSAL,
    OPENROUTER,
    OPENROUTER_COST,
    openrouter_moderated,
)
from tests.helpers.hosted_generation import PROMPT, Meter, generate, image, on, reference
from tests.helpers.image_servers import KEY, Call, Step, b64

SEEDREAM, GPT_IMAGE = "bytedance-seed/seedream-4.5", "openai/gpt-image-2"


@pytest.fixture(autouse=True)
def set_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("OTHER_KEY", KEY[::-1])


def test_where_no_seed_is_read_the_record_says_so() -> None:
    with EngineServer(LITELLM) as server:
        (behind_litellm, again) = generate(on(LITELLM, server, LITELLM_MODEL), seeds=(1, 2))
        assert [sorted(call.fields.keys() & {"seed", "response_format"}) for call in server.calls] == [
            ["response_format", "seed"], ["seed"], [], [],
        ]  # fmt: skip
    with EngineServer(OPENROUTER) as server:
        (on_openrouter,) = generate(on(OPENROUTER, server, GPT_IMAGE))
        assert "seed" not in server.calls[0].fields and len(server.calls) == 1
    with EngineServer(AZURE) as server:
        (on_azure,) = generate(azure(server))
        assert not [call for call in server.calls if "seed" in call.fields] and len(server.read) == 1
    for result in (behind_litellm, again, on_openrouter, on_azure):
        assert image(result) and result.settings["seed"] == "not taken"


def test_an_edit_through_litellm_reads_no_seed_and_the_record_names_what_may_be_dropped(tmp_path: Path) -> None:
    with EngineServer(LITELLM) as server:
        generator = on(LITELLM, server, LITELLM_MODEL, quality="high", output_format="jpeg", fields={"steps": 4})
        (edited,) = generate(generator, reference(tmp_path, 1), seeds=(3,))
        sent, read = server.calls[-1].fields, server.read[-1]
    assert "seed" not in sent and sent["steps"] == "4" and sent["output_format"] == "jpeg"
    assert "steps" not in read and "output_format" not in read and read["quality"] == "high"
    assert image(edited) and edited.settings["seed"] == "not taken"
    assert edited.settings["fields_unchecked"] == ["output_format", "steps"]
    with EngineServer(LITELLM) as server:
        (plain,) = generate(on(LITELLM, server, LITELLM_MODEL, fields={"background": "opaque"}))
        assert server.calls[-1].fields["background"] == "opaque" and "background" not in server.read[-1]
    assert plain.settings["fields_unchecked"] == ["background", "moderation"]  # the seed was refused


LITELLM_ENDINGS: dict[str, tuple[Step, type[Exception], str]] = {
    "budget": (LITELLM_BUDGET, AccountError, "Budget has been exceeded"),
    "content": (LITELLM_REFUSAL, RefusalError, "ContentPolicyViolation"),
}


@pytest.mark.parametrize("name", list(LITELLM_ENDINGS))
def test_what_litellm_turns_away_does_not_count_as_a_failure_of_the_model(name: str) -> None:
    step, kind, words = LITELLM_ENDINGS[name]
    with EngineServer(LITELLM, lambda call: step) as server, pytest.raises(kind, match=words):
        generate(on(LITELLM, server, LITELLM_MODEL))


def test_a_model_that_litellm_does_not_have_is_warned_of_and_ends_the_run() -> None:
    with EngineServer(LITELLM) as server:
        warning = asyncio.run(on(LITELLM, server, "paintings").check_service())
        assert f"does not list the model paintings; it lists {LITELLM_MODEL}" in warning
        with pytest.raises(AccountError, match="Invalid model name passed in model=paintings"):
            generate(on(LITELLM, server, "paintings"))


@pytest.mark.parametrize(
    ("profile", "words"),
    [(LITELLM, "Invalid proxy server token"), (OPENROUTER, "User not found"), (AZURE, "Access denied")],
)
def test_a_wrong_key_ends_the_run(profile: EngineProfile, words: str) -> None:
    with EngineServer(profile) as server, pytest.raises(AccountError, match=words):
        if profile is AZURE:
            generate(azure(server, key_env="OTHER_KEY"))
        generate(on(profile, server, SEEDREAM, key_env="OTHER_KEY"))


@pytest.mark.parametrize(
    ("profile", "args", "words"),
    [(LITELLM, {"fields": {"style_strength": 3}}, "style_strength"), (AZURE, {"fields": {"steps": 3}}, "steps")],
)
def test_a_chosen_field_that_a_service_refuses_is_never_left_out(
    profile: EngineProfile, args: dict[str, Any], words: str
) -> None:
    with EngineServer(profile) as server:
        generator = azure(server, **args) if profile is AZURE else on(profile, server, LITELLM_MODEL, **args)
        with pytest.raises(AccountError, match=f"{words}.*leave {words} out"):
            generate(generator)
        assert not server.read


def azure(server: EngineServer, **args: Any) -> OpenAiImages:
    url = f"{server.base}?api-version={AZURE_VERSION}"
    return OpenAiImages("paint", base_url=url, server="azure", **({"key_env": "MY_KEY"} | args))


def test_azure_is_sent_openais_fields_whatever_the_deployment_is_called(tmp_path: Path) -> None:
    with EngineServer(AZURE) as server:
        generator = azure(server, size="1024x1024", fields={"background": "opaque"})
        (plain,) = generate(generator)
        generate(generator, reference(tmp_path, 1))
    refused, one, two = server.calls
    assert refused.fields["moderation"] == "low" and plain.settings["fields_not_taken"] == ["moderation"]
    assert "moderation" not in plain.settings and plain.settings["quality"] == "auto"
    assert one.fields == {
        "model": "paint",
        "prompt": PROMPT,
        "n": 1,
        "size": "1024x1024",
        "quality": "auto",
        "output_format": "png",
        "background": "opaque",
    }
    assert one.headers["api-key"] == KEY and "authorization" not in one.headers
    assert two.path.startswith("/openai/deployments/paint/images/edits?api-version=") and len(two.files) == 1
    assert "moderation" not in two.fields and two.fields["background"] == "opaque"
    with (
        EngineServer(AZURE, lambda call: Step(status=400, error=AZURE_REFUSAL)) as server,
        pytest.raises(RefusalError, match="safety system"),
    ):
        generate(azure(server))


def test_azure_is_sent_no_webp_files(tmp_path: Path) -> None:
    with EngineServer(AZURE) as server:
        (result,) = generate(azure(server), reference(tmp_path, 1, "WEBP"), reference(tmp_path, 2, "JPEG"))
        assert [kind for _, _, kind, _ in server.calls[0].files] == ["image/png", "image/jpeg"]
    assert image(result) and "WEBP sent as PNG" in str(result.settings)


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
    assert "output_format" not in result.settings and result.settings["size"] == "2K"  # what was sent, not the default
    assert meter.settled == [OPENROUTER_COST] and result.usage.cost == OPENROUTER_COST
    assert (result.usage.input_tokens, result.usage.output_tokens) == (12, 4175)


def test_a_parameter_that_the_model_behind_openrouter_does_not_take_is_refused_before_anything_is_paid() -> None:
    for args in ({"quality": "high"}, {"fields": {"background": "opaque"}}, {"fields": {"steps": 40}}):
        with EngineServer(OPENROUTER) as server, pytest.raises(ConfigError, match="OpenRouter does not read"):
            asyncio.run(on(OPENROUTER, server, SEEDREAM, **args).check_service())
        assert not server.calls


def test_a_size_at_openrouter_is_shorthand_for_what_the_model_lists() -> None:
    with EngineServer(OPENROUTER) as server:
        (result,) = generate(on(OPENROUTER, server, GPT_IMAGE, size="1536x1024"))
        assert server.calls[0].fields["size"] == "1536x1024" and image(result)
        with pytest.raises(ConfigError, match="does not read size"):
            generate(on(OPENROUTER, server, GPT_IMAGE, size="2K"))  # it lists no resolution
        assert len(server.calls) == 1


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
        (result,) = generate(on(LITELLM, server, LITELLM_MODEL, price=1.0), meter=meter)
    assert result.usage.cost == LITELLM_COST and meter.settled[-1] == LITELLM_COST


@pytest.mark.parametrize("reported", ["", "0.0", "None"])
def test_the_users_price_is_charged_where_litellm_does_not_know_one(reported: str) -> None:
    def without_cost(call: Call) -> Step:
        return Step(
            response={"created": 1, "data": [{"b64_json": b64(drawn(call.prompt, 1))}]},
            headers={"x-litellm-response-cost": reported},
        )

    with EngineServer(LITELLM, without_cost) as server:
        (result,) = generate(on(LITELLM, server, LITELLM_MODEL, price=0.25), meter=Meter())
    assert result.usage.cost == 0.25


def test_a_run_says_where_repeats_differ_by_chance_and_not_by_seed(tmp_path: Path) -> None:
    with EngineServer(LITELLM) as server:
        args = {"base_url": server.base, "key_env": "MY_KEY"}
        run = knowgen.evaluate(
            "knowgen_mini", f"openai:{LITELLM_MODEL}", ["pixels"], out=tmp_path / "run", generator_args=args, limit=2,
            repeats=2, progress=False,
        )  # fmt: skip
    note = "all 4 images have no seed, because the service takes none: repeats differ by chance"
    assert note in run.summary.notes
