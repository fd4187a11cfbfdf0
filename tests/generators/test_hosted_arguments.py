"""The arguments of hosted generators, as `-g name=value` sets them: names, defaults, and what keys are made of."""

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
NOT_KEYED = {"key_env", "timeout", "concurrency", "rpm", "tpm", "price"}
GENERATORS = [
    (OpenAiImages, {"size": "auto", "quality": "auto", "moderation": "low", "output_format": "png"}, NOT_KEYED),
    (GeminiImages, {"size": "", "aspect": "", "send_seed": False}, NOT_KEYED),
    (
        ArkImages,
        {"size": "2K", "watermark": False, "response_format": "b64_json", "send_seed": None},
        NOT_KEYED | {"response_format"},
    ),
]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "ARK_API_KEY"):
        monkeypatch.setenv(name, "sk-any")


@pytest.mark.parametrize(("generator", "own", "identity_excludes"), GENERATORS)
def test_arguments_and_their_defaults(generator: Any, own: dict[str, Any], identity_excludes: set[str]) -> None:
    signature = inspect.signature(generator)
    assert {name: parameter.default for name, parameter in signature.parameters.items()} == {**SHARED, **own}
    assert (
        generator.identity_excludes == identity_excludes
        and generator.references is True
        and generator.concurrency == 32
    )


@pytest.mark.parametrize(
    ("args", "other"),
    [({"size": "1024x1024"}, True), ({"base_url": "http://127.0.0.1:1/v1"}, True), ({"rpm": 5}, False)],
)
def test_generators_made_in_python_have_keys_of_their_own_where_images_differ(
    args: dict[str, Any], other: bool
) -> None:
    plain = resolve_generator(OpenAiImages("gpt-image-1"), {}, None).spec
    changed = resolve_generator(OpenAiImages("gpt-image-1", **args), {}, None).spec
    assert (plain != changed) is other


def test_a_name_and_its_arguments_make_the_key_they_made_before() -> None:
    spec = resolve_generator("openai:gpt-image-1", {"size": "1024x1024", "timeout": 9.0, "price": 1}, None).spec
    assert (spec.name, spec.args, spec.revision) == ("openai:gpt-image-1", {"size": "1024x1024"}, "openai-images-1")
