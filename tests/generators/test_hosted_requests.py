"""Requests to each service, field by field, compared with its own client or, where there is none, its documentation."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

from knowgen.core.errors import AccountError, ConfigError, UsageError
from knowgen.core.records import GenerationRequest, GenerationStatus, ImageRef
from knowgen.generators.contract import GeneratedImage, capabilities_of
from knowgen.generators.hosted.ark import ArkImages
from knowgen.generators.hosted.base import HostedImages
from knowgen.generators.hosted.gemini import GeminiImages
from knowgen.generators.hosted.openai import OpenAiImages
from tests.helpers.image_servers import ARK, GEMINI, KEY, OPENAI, Call, ImageServer, Step, ark_response, image_bytes

PROMPT = "A lighthouse of Mirelle, „open“ above the door\nand a red boat"
SEED = 7
SERVICES = ("png", "jpeg", "webp")
GPT_IMAGE, GEMINI_3, SEEDREAM = "gpt-image-1", "gemini-3-pro-image-preview", "doubao-seedream-4-5-251128"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "ARK_API_KEY"):
        monkeypatch.setenv(name, KEY)


def reference(folder: Path, name: str, data: bytes) -> ImageRef:
    path = folder / name
    path.write_bytes(data)
    with Image.open(path) as opened:
        width, height, kind = opened.width, opened.height, opened.format or ""
    return ImageRef(sha256=hashlib.sha256(data).hexdigest(), width=width, height=height, format=kind, path=path)


def generate(generator: HostedImages, *references: ImageRef, prompt: str = PROMPT) -> GeneratedImage:
    async def once() -> GeneratedImage:
        try:
            request = GenerationRequest(id="r", prompt=prompt, seed=SEED, references=references)
            return await generator.generate(request)
        finally:
            await generator.close()

    return asyncio.run(once())


def comparable(call: Call) -> dict[str, Any]:
    """Return a call without what differs between clients: form boundary, file names and other headers."""
    return {
        "method": call.method,
        "path": call.path,
        "authorization": call.headers.get("authorization"),
        "type": call.headers["content-type"].partition(";")[0],
        "fields": call.fields,
        "files": [(name, kind, data) for name, _, kind, data in call.files],
    }


def test_openai_generations_equal_the_requests_of_the_official_client() -> None:
    with ImageServer(OPENAI) as server:
        result = generate(OpenAiImages(GPT_IMAGE, base_url=server.base, key_env="OPENAI_API_KEY"))
        client = openai.OpenAI(base_url=server.base, api_key=KEY, max_retries=0)
        official = client.images.generate(
            model=GPT_IMAGE,
            prompt=PROMPT,
            n=1,
            size="auto",
            quality="auto",
            moderation="low",
            output_format="png",
        )
    assert result.status is GenerationStatus.OK
    assert comparable(server.calls[0]) == comparable(server.calls[1])
    assert official.data is not None and result.image == base64.b64decode(official.data[0].b64_json or "")
    assert official.usage is not None
    assert (result.usage.input_tokens, result.usage.output_tokens) == (
        official.usage.input_tokens,
        official.usage.output_tokens,
    )


def test_openai_edits_equal_the_requests_of_the_official_client(tmp_path: Path) -> None:
    files = [image_bytes("red"), image_bytes("blue", "JPEG"), image_bytes("green", "WEBP")]
    references = [reference(tmp_path, f"{number}", data) for number, data in enumerate(files)]
    with ImageServer(OPENAI) as server:
        generator = OpenAiImages(
            GPT_IMAGE, base_url=server.base, key_env="OPENAI_API_KEY", size="1024x1536", quality="low"
        )
        result = generate(generator, *references)
        client = openai.OpenAI(base_url=server.base, api_key=KEY, max_retries=0)
        client.images.edit(
            model=GPT_IMAGE,
            image=[
                ("1.png", files[0], "image/png"),
                ("2.jpg", files[1], "image/jpeg"),
                ("3.webp", files[2], "image/webp"),
            ],
            prompt=PROMPT,
            n=1,
            size="1024x1536",
            quality="low",
            output_format="png",
        )
    assert comparable(server.calls[0]) == comparable(server.calls[1])
    assert [name for name, *_ in server.calls[0].files] == ["image[]"] * 3
    assert "moderation" not in server.calls[0].fields  # edits have no such field
    assert result.settings["operation"] == "edits"
    assert result.settings["references"] == [hashlib.sha256(data).hexdigest() for data in files]


def test_fields_that_an_unknown_server_does_not_take_are_left_out_and_recorded() -> None:
    """Whatever the model is called: a server without seeds says so, once each."""
    with ImageServer(replace(OPENAI, free={})) as server:
        generator = OpenAiImages("openai/gpt-image-2", base_url=server.base)
        result = generate(generator)
        again = generate(generator)
    sent = [call.fields.keys() & {"seed", "response_format"} for call in server.calls]
    assert sent == [{"seed", "response_format"}, {"seed"}, set(), set()]
    assert server.calls[-1].fields == {"model": "openai/gpt-image-2", "prompt": PROMPT, "n": 1}
    for each in (result, again):
        assert each.status is GenerationStatus.OK
        assert each.settings["seed"] == "not taken"
        assert each.settings["fields_not_taken"] == ["response_format", "seed"]


def test_a_size_that_the_user_chose_is_not_left_out() -> None:
    fields = {path: names - {"size"} for path, names in OPENAI.fields.items()}
    with (
        ImageServer(replace(OPENAI, fields=fields)) as server,
        pytest.raises(AccountError, match="'size'.*leave size out"),
    ):
        generate(OpenAiImages("gpt-image-2", base_url=server.base, size="1024x1024"))
    assert len(server.calls) == 1


ARK_BODY: Mapping[str, Any] = {
    "model": SEEDREAM,
    "prompt": PROMPT,
    "size": "2K",
    "watermark": False,
    "sequential_image_generation": "disabled",
    "response_format": "b64_json",
}


def test_ark_requests_equal_those_of_the_openai_client_as_documented(tmp_path: Path) -> None:
    files = [image_bytes("red"), image_bytes("blue", "JPEG")]
    references = [reference(tmp_path, f"{number}", data) for number, data in enumerate(files)]
    urls = [
        "data:image/png;base64," + base64.b64encode(files[0]).decode(),
        "data:image/jpeg;base64," + base64.b64encode(files[1]).decode(),
    ]
    with ImageServer(ARK) as server:
        result = generate(ArkImages(SEEDREAM, base_url=server.base, key_env="ARK_API_KEY"), *references)
        client = openai.OpenAI(base_url=server.base, api_key=KEY, max_retries=0)
        client.images.generate(
            model=SEEDREAM,
            prompt=PROMPT,
            size="2K",
            response_format="b64_json",
            extra_body={"image": urls, "watermark": False, "sequential_image_generation": "disabled"},
        )
    assert comparable(server.calls[0]) == comparable(server.calls[1])
    assert server.calls[0].fields == {**ARK_BODY, "image": urls}
    assert result.settings["seed"] == "not taken"
    assert result.settings["returned_size"] == "2048x2048"


def test_only_ark_models_of_the_third_generation_are_sent_the_seed() -> None:
    with ImageServer(ARK) as server:
        result = generate(ArkImages("doubao-seedream-3-0-t2i-250415", base_url=server.base, size="1024x1024"))
        forced = generate(ArkImages("ep-20260101-own", base_url=server.base, send_seed=True))
    assert server.calls[0].fields == {
        "model": "doubao-seedream-3-0-t2i-250415",
        "prompt": PROMPT,
        "size": "1024x1024",
        "watermark": False,
        "seed": SEED,
        "response_format": "b64_json",
    }
    assert server.calls[1].fields["seed"] == SEED
    assert result.settings["seed"] == forced.settings["seed"] == SEED


def test_gemini_requests_are_as_documented(tmp_path: Path) -> None:
    data = image_bytes("red")
    with ImageServer(GEMINI) as server:
        plain = GeminiImages(GEMINI_3, base_url=server.base, key_env="GEMINI_API_KEY")
        first = generate(plain)
        full = GeminiImages(GEMINI_3, base_url=f"{server.base}/v1beta/", size="2K", aspect="16:9", send_seed=True)
        second = generate(full, reference(tmp_path, "a", data))
    one, two = server.calls
    assert (one.method, one.path) == ("POST", "/v1beta/models/gemini-3-pro-image-preview:generateContent")
    assert one.headers["x-goog-api-key"] == KEY and "authorization" not in one.headers
    assert one.fields == {
        "contents": [{"role": "user", "parts": [{"text": PROMPT}]}],
        "generationConfig": {"responseModalities": ["TEXT", "IMAGE"]},
    }
    assert two.path == one.path
    inline = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(data).decode()}}
    assert two.fields == {
        "contents": [{"role": "user", "parts": [{"text": PROMPT}, inline]}],
        "generationConfig": {
            "responseModalities": ["TEXT", "IMAGE"],
            "imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"},
            "seed": SEED,
        },
    }
    assert first.settings["seed"] == "not taken" and second.settings["seed"] == SEED
    assert first.settings["returned_model"] == GEMINI_3
    # the response has a draft in a thought and the image; the image is taken
    assert isinstance(first.image, bytes) and first.image == image_bytes("teal")


def make_generator(server: ImageServer, **args: Any) -> HostedImages:
    kinds: dict[str, tuple[Any, str]] = {
        OPENAI.root: (OpenAiImages, GPT_IMAGE),
        ARK.root: (ArkImages, SEEDREAM),
        GEMINI.root: (GeminiImages, GEMINI_3),
    }
    kind, model = kinds[server.profile.root]
    generator: HostedImages = kind(model, base_url=server.base, **args)
    return generator


PROFILES = pytest.mark.parametrize("profile", [OPENAI, GEMINI, ARK], ids=["openai", "gemini", "ark"])


def sent_images(call: Call) -> list[bytes]:
    if call.files:
        return [data for *_, data in call.files]
    if "image" in call.fields:
        return [base64.b64decode(url.partition(",")[2]) for url in call.fields["image"]]
    parts = call.fields["contents"][0]["parts"][1:]
    return [base64.b64decode(part["inlineData"]["data"]) for part in parts]


@PROFILES
def test_references_past_the_limit_are_left_out_and_recorded(profile: Any, tmp_path: Path) -> None:
    references = [reference(tmp_path, f"{n}", image_bytes("red", size=(20 + n, 20))) for n in range(18)]
    with ImageServer(profile) as server:
        result = generate(make_generator(server), *references)
    limit = 16 if profile is OPENAI else 14
    assert [Image.open(io.BytesIO(data)).width for data in sent_images(server.calls[0])] == [
        20 + n for n in range(limit)
    ]
    assert result.settings["references_dropped"] == f"{18 - limit} past the service's limit of {limit}"


def test_gemini_models_of_the_second_generation_take_three_references(tmp_path: Path) -> None:
    references = [reference(tmp_path, f"{n}", image_bytes("red", size=(20 + n, 20))) for n in range(5)]
    with ImageServer(GEMINI) as server:
        generate(GeminiImages("gemini-2.5-flash-image", base_url=server.base), *references)
    assert len(sent_images(server.calls[0])) == 3


@PROFILES
def test_a_reference_in_another_format_or_too_large_is_encoded_again(
    profile: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = Image.effect_noise((400, 300), 80).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    gif = reference(tmp_path, "a", image_bytes("blue", "GIF"))
    with ImageServer(profile) as server:
        generator = make_generator(server)
        generator._reference_limits = replace(generator._reference_limits, max_bytes=20_000, max_pixels=90_000)
        result = generate(generator, gif, reference(tmp_path, "b", buffer.getvalue()))
    first, second = (Image.open(io.BytesIO(data)) for data in sent_images(server.calls[0]))
    assert (first.format, first.size, first.convert("RGB").getpixel((5, 5))) == ("PNG", (48, 32), (0, 0, 255))
    assert second.format == "JPEG" and len(sent_images(server.calls[0])[1]) <= 20_000
    assert abs(second.width / second.height - 4 / 3) < 0.02
    assert result.settings["references_changed"] == ["1: GIF sent as PNG", "2: made smaller, sent as JPEG"]


@PROFILES
def test_a_reference_that_does_not_open_fails_the_generation_before_anything_is_paid(
    profile: Any, tmp_path: Path
) -> None:
    broken = reference(tmp_path, "a", image_bytes("blue"))
    assert broken.path is not None
    broken.path.write_bytes(broken.path.read_bytes()[:10])
    with ImageServer(profile) as server:
        result = generate(make_generator(server), broken)
        missing = generate(make_generator(server), broken.model_copy(update={"path": None}))
    assert not server.calls
    for failed in (result, missing):
        assert failed.status is GenerationStatus.FAILED and "reference image 1" in failed.reason


@PROFILES
def test_a_hosted_generator_declares_its_capabilities(profile: Any) -> None:
    with ImageServer(profile) as server:
        generator = make_generator(server, concurrency=5, timeout=20)
    capabilities = capabilities_of(generator)
    assert (capabilities.shape, capabilities.references, capabilities.concurrency) == ("generate", True, 5)
    assert capabilities.revision.rpartition("-")[0].endswith("-images")
    assert {"key_env", "concurrency", "timeout", "rpm", "tpm", "price"} <= generator.identity_excludes
    assert KEY not in repr(generator._client)


@pytest.mark.parametrize(
    ("kind", "variable", "model"),
    [
        (OpenAiImages, "OPENAI_API_KEY", GPT_IMAGE),
        (GeminiImages, "GEMINI_API_KEY", "g"),
        (ArkImages, "ARK_API_KEY", "a"),
    ],
)
def test_the_error_of_a_missing_key_names_its_variable(
    kind: Any, variable: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(ConfigError, match=variable):
        kind(model)
    with pytest.raises(ConfigError, match=f"write key_env={variable}") as caught:
        kind(model, key_env="sk-live-abcdef")
    assert "abcdef" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        (OpenAiImages, {"output_format": "gif"}, "output_format='gif'"),
        (OpenAiImages, {"timeout": 0}, "timeout must be a number > 0, got 0"),
        (OpenAiImages, {"concurrency": 0}, "concurrency must be an integer >= 1, got 0"),
        (OpenAiImages, {"price": -1}, "price must be a number >= 0, got -1"),
        (OpenAiImages, {"rpm": "many"}, "rpm must be a number >= 0, got 'many'"),
        (OpenAiImages, {"base_url": "ftp://a"}, "http address"),
        (GeminiImages, {"size": "8K"}, "size='8K'"),
        (GeminiImages, {"aspect": "7:7"}, "aspect='7:7'"),
        (ArkImages, {"response_format": "png"}, "response_format='png'"),
        (ArkImages, {"watermark": "no"}, "watermark must be true or false, got 'no'"),
    ],
)
def test_wrong_arguments_are_reported(kind: Any, args: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        kind(GPT_IMAGE, **args)
    assert message in str(caught.value)


def test_a_rewritten_prompt_is_recorded_as_the_prompt_that_was_used() -> None:
    response = json.loads(json.dumps(OPENAI.default_response()))
    response["data"][0]["revised_prompt"] = f"A calm lighthouse {KEY}"
    with ImageServer(OPENAI, [Step(response=response)]) as server:
        result = generate(OpenAiImages(GPT_IMAGE, base_url=server.base, key_env="OPENAI_API_KEY"))
    assert result.used_prompt == "A calm lighthouse [key]"
    assert result.settings["returned_size"] == "1024x1024" and result.settings["returned_quality"] == "high"


def test_ark_returns_a_url_on_request() -> None:
    data = image_bytes("olive", "JPEG")
    with ImageServer(
        ARK,
        [Step(response=lambda url: ark_response(url=f"{url}/files/1.jpg", size="2048x2048"))],
        {"/files/1.jpg": data},
    ) as server:
        result = generate(ArkImages(SEEDREAM, base_url=server.base, response_format="url", key_env="ARK_API_KEY"))
    assert server.calls[0].fields["response_format"] == "url"
    assert result.image == data
    assert "authorization" not in server.fetched[0].headers
