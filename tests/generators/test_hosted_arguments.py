"""Arguments of hosted generators, as `-g name=value` sets them: names, defaults and which are part of keys."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from knowgen.generators.hosted.ark import ArkImages
from knowgen.generators.hosted.gemini import GeminiImages
from knowgen.generators.hosted.openai import OpenAiImages
from knowgen.workflows.resolve import resolve_generator

SHARED: dict[str, Any] = {
    "model": inspect.Parameter.empty, "base_url": "", "key_env": "", "timeout": 300.0, "concurrency": 32, "rpm": 0,
    "tpm": 0, "price": None,
}  # fmt: skip
EXCLUDED = {"key_env", "timeout", "concurrency", "rpm", "tpm", "price"}
GENERATORS = [
    (
        OpenAiImages,
        {
            "size": "auto",
            "quality": "auto",
            "moderation": "low",
            "output_format": "png",
            "send_seed": None,
            "server": "auto",
            "api": "images",
            "fields": None,
            "edit_fields": None,
            "prompt_format": "{prompt}",
            "max_references": None,
        },
        EXCLUDED,
    ),
    (GeminiImages, {"size": "", "aspect": "", "send_seed": False}, EXCLUDED),
    (
        ArkImages,
        {"size": "2K", "watermark": False, "response_format": "b64_json", "send_seed": None},
        EXCLUDED | {"response_format"},
    ),
]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "ARK_API_KEY"):
        monkeypatch.setenv(name, "sk-any")


@pytest.mark.parametrize(("generator", "own", "identity_excludes"), GENERATORS)
def test_arguments_have_their_documented_defaults(
    generator: Any, own: dict[str, Any], identity_excludes: set[str]
) -> None:
    signature = inspect.signature(generator)
    assert {name: parameter.default for name, parameter in signature.parameters.items()} == {**SHARED, **own}
    assert (
        generator.identity_excludes == identity_excludes
        and generator.references is True
        and generator.concurrency == 32
    )


@pytest.mark.parametrize(
    ("args", "differs"),
    [
        ({"size": "1024x1024"}, True),
        ({"fields": {"background": "opaque"}}, True),
        ({"base_url": "http://127.0.0.1:1/v1"}, True),
        ({"rpm": 5}, False),
    ],
)
def test_the_key_of_a_generator_object_changes_with_what_decides_its_images(
    args: dict[str, Any], differs: bool
) -> None:
    plain = resolve_generator(OpenAiImages("gpt-image-1"), {}, None).spec
    changed = resolve_generator(OpenAiImages("gpt-image-1", **args), {}, None).spec
    assert (plain != changed) is differs


def test_the_key_of_a_generator_follows_its_name_and_arguments() -> None:
    spec = resolve_generator("openai:gpt-image-1", {"size": "1024x1024", "timeout": 9.0, "price": 1}, None).spec
    assert (spec.name, spec.args, spec.revision) == ("openai:gpt-image-1", {"size": "1024x1024"}, "openai-images-3")
