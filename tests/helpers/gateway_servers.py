"""Stand-ins for gateways and hosted services of image models in OpenAI's style: LiteLLM, OpenRouter, Azure.

In the published form of each, as `tests/helpers/engine_servers.py` describes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.helpers.engine_servers import (
    EngineProfile,
    EngineServer,
    as_json,
    data_url,
    detail,
    drawn,
    images_of,
    in_pixels,
    listing,
)
from tests.helpers.image_servers import Call, Step, b64, openai_error

# --- LiteLLM ---------------------------------------------------------------------------------------------------------

LITELLM_COST = 0.041
LITELLM_MODEL = "painting"
LITELLM_EDIT = frozenset(
    {"model", "prompt", "background", "input_fidelity", "n", "quality", "response_format", "size", "user"}
)
"""Fields of an edit that go on to the model; all others are dropped without an error."""

_LITELLM_LOST = frozenset({"background", "moderation", "output_format", "output_compression"})
"""Fields of a generation that do not reach a GPT image model, which the proxy does not say."""

_GPT_IMAGE = frozenset({"model", "prompt", "n", "size", "quality", "background", "input_fidelity", "user"})


def litellm_error(status: int, message: str, kind: str | None = None, param: str | None = None) -> Step:
    """Return an error as the proxy sends it: the status as a text in `code`."""
    return as_json(status, {"error": {"message": message, "type": kind, "param": param, "code": str(status)}})


def litellm_answer(server: EngineServer, call: Call) -> Step:
    """Answer as a LiteLLM proxy with a GPT image model behind it, which takes neither a seed nor a response format."""
    if call.path not in ("/v1/images/generations", "/v1/images/edits"):
        return detail(404, "Not Found")
    edit = call.path.endswith("edits")
    model = call.fields.get("model")
    if model != LITELLM_MODEL:
        path = call.path.removeprefix("/v1")
        words = (
            f"{path}: Invalid model name passed in model={model}. Call `/v1/models` to view available models for your"
        )
        return litellm_error(400, str({"error": f"{words} key."}), "invalid_request_error")
    fields = {
        name: v for name, v in call.fields.items() if (name in LITELLM_EDIT if edit else name not in _LITELLM_LOST)
    }
    more = f"Received Model Group={model}\nAvailable Model Group Fallbacks=None LiteLLM Retried: 1 times"
    if not edit and "response_format" in fields:
        words = "litellm.UnsupportedParamsError: Setting `response_format` is not supported by openai, gpt-image-2. "
        return litellm_error(400, f"{words}To drop it from the call, set `litellm.drop_params = True`. {more}")
    if unknown := sorted(fields.keys() - _GPT_IMAGE):
        words = f"litellm.BadRequestError: OpenAIException - Unknown parameter: '{unknown[0]}'."
        return litellm_error(400, f"{words}. {more}", "invalid_request_error", unknown[0])
    if edit and not images_of(call):
        return litellm_error(400, f"litellm.BadRequestError: Missing required parameter: 'image'. {more}")
    server.read.append(fields)
    data = [{"b64_json": b64(drawn(fields["prompt"], None, images_of(call))), "url": None, "revised_prompt": None}]
    headers = {"x-litellm-response-cost": str(LITELLM_COST), "x-litellm-model-id": "d1", "x-litellm-version": "1.94.0"}
    return Step(response={"created": 1, "data": data}, headers=headers)


LITELLM_BUDGET = litellm_error(400, "Budget has been exceeded! Current cost: 2.1, Max budget: 2.0", "budget_exceeded")
LITELLM_REFUSAL = litellm_error(
    400, "litellm.BadRequestError: litellm.ContentPolicyViolationError: OpenAIException - moderation_blocked"
)
LITELLM = EngineProfile(
    "/v1",
    litellm_answer,
    {
        "/v1/models": ({}, listing({"id": LITELLM_MODEL, "object": "model", "created": 1, "owned_by": "openai"})),
        "/health/liveliness": ({}, b'"I\'m alive!"'),
    },
    ("authorization", "Bearer "),
    keyed=("/v1/models",),
    unauthorized=litellm_error(
        401,
        "Authentication Error, Invalid proxy server token passed. Unable to find token",
        "token_not_found_in_db",
        "key",
    ),
)

# --- OpenRouter ------------------------------------------------------------------------------------------------------

OPENROUTER_COST = 0.0425
OPENROUTER_MODELS = [
    {
        "id": "bytedance-seed/seedream-4.5",
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["image"]},
        "supported_parameters": {
            "resolution": {"type": "enum", "values": ["1K", "2K", "4K"]},
            "aspect_ratio": {"type": "enum", "values": ["1:1", "16:9"]},
            "seed": {"type": "boolean"},
            "input_references": {"type": "range", "min": 0, "max": 2},  # 14 there
        },
    },
    {
        "id": "openai/gpt-image-2",
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["image"]},
        "supported_parameters": {
            "aspect_ratio": {"type": "enum", "values": ["1:1", "3:2", "2:3", "16:9", "auto"]},
            "quality": {"type": "enum", "values": ["auto", "low", "medium", "high"]},
            "background": {"type": "enum", "values": ["auto", "opaque"]},
            "n": {"type": "range", "min": 1, "max": 10},
            "input_references": {"type": "range", "min": 0, "max": 16},
            "output_compression": {"type": "range", "min": 0, "max": 100},
        },
    },
    {
        "id": "google/gemini-3.1-flash-image",
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["image", "text"]},
        "supported_parameters": {"input_references": {"type": "range", "min": 0, "max": 14}},
    },
]


def openrouter_answer(server: EngineServer, call: Call) -> Step:
    """Answer as OpenRouter: `/images` with the parameters of the model, `/chat/completions` with `modalities`."""
    usage = {"prompt_tokens": 12, "completion_tokens": 4175, "total_tokens": 4187, "cost": OPENROUTER_COST}
    model = next((entry for entry in OPENROUTER_MODELS if entry["id"] == call.fields.get("model")), None)
    if model is None:
        return _openrouter_error(404, f"No endpoints found for {call.fields.get('model')}.")
    if call.path == "/api/v1/images":
        if error := _openrouter_unsupported(model, call.fields):
            return error
        server.read.append(call.fields)
        references = call.fields.get("input_references", [])
        image = drawn(call.fields["prompt"], call.fields.get("seed"), len(references))
        data = [{"b64_json": b64(image), "media_type": "image/png"}]
        return Step(response={"created": 1748372400, "data": data, "usage": usage})
    if call.path == "/api/v1/chat/completions":
        outputs = model["architecture"]["output_modalities"]  # type: ignore[index]
        if set(call.fields["modalities"]) - set(outputs):
            asked = ", ".join(call.fields["modalities"])
            return _openrouter_error(404, f"No endpoints found that support the requested output modalities: {asked}")
        server.read.append(call.fields)
        parts = call.fields["messages"][0]["content"]
        image = drawn(parts[0]["text"], call.fields.get("seed"), len(parts) - 1)
        shown = {"type": "image_url", "image_url": {"url": data_url(image)}}
        message = {"role": "assistant", "content": "Here it is.", "images": [shown]}
        return Step(response={"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})
    return _openrouter_error(404, "Not Found")


def _openrouter_unsupported(model: Mapping[str, Any], fields: Mapping[str, Any]) -> Step | None:
    """Return the error of a parameter or value that a model does not have; `size` stands for a resolution or shape."""
    listed = model["supported_parameters"]
    if unknown := sorted(fields.keys() - {"model", "prompt", "provider", "size", *listed}):
        return _openrouter_error(400, f"Unsupported parameter '{unknown[0]}' for {model['id']}")
    values = dict(fields)
    if (size := values.pop("size", None)) is not None and not in_pixels(size):
        values["resolution"] = size
    for name, value in values.items():
        described = listed.get(name) or {"type": ""}
        if described["type"] == "enum" and value not in described["values"]:
            return _openrouter_error(400, f"Invalid value '{value}' for '{name}'")
    if len(fields.get("input_references", [])) > (listed.get("input_references") or {"max": 0})["max"]:
        return _openrouter_error(400, "Too many values in 'input_references'")
    return None


def _openrouter_error(status: int, message: str, **more: Any) -> Step:
    return Step(status=status, error={"error": {"code": status, "message": message, **more}})


def openrouter_moderated(call: Call) -> Step:
    """Answer as OpenRouter does for a prompt that a moderation flags."""
    metadata = {"reasons": ["violence"], "flagged_input": call.prompt[:20], "provider_name": "OpenAI"}
    return _openrouter_error(403, "The prompt was flagged", metadata=metadata)


OPENROUTER = EngineProfile(
    "/api/v1",
    openrouter_answer,
    {"/api/v1/images/models": ({}, {"data": OPENROUTER_MODELS})},
    ("authorization", "Bearer "),
    unauthorized=_openrouter_error(401, "User not found."),
)

# --- Azure -----------------------------------------------------------------------------------------------------------

AZURE_PATH = "/openai/deployments/paint/images"
AZURE_VERSION = "2025-04-01-preview"
_AZURE = {
    "model", "prompt", "n", "size", "quality", "output_format", "output_compression", "background", "user", "stream",
    "partial_images",
}  # fmt: skip


def azure_answer(server: EngineServer, call: Call) -> Step:
    """Answer as Azure with a deployment of a GPT image model, whose name says nothing about the model."""
    path, _, query = call.path.partition("?")
    if path not in (f"{AZURE_PATH}/generations", f"{AZURE_PATH}/edits") or query != f"api-version={AZURE_VERSION}":
        return Step(status=404, error={"error": {"code": "404", "message": "Resource not found"}})
    edit = path.endswith("edits")
    if unknown := sorted(call.fields.keys() - _AZURE - ({"input_fidelity"} if edit else set())):
        what = f"Unknown parameter: '{unknown[0]}'."
        return Step(status=400, error=openai_error(400, "unknown_parameter", what))
    if edit and any(kind not in ("image/png", "image/jpeg") for _, _, kind, _ in call.files):
        what = "Invalid image format: each image should be a png or jpg file."
        return Step(status=400, error=openai_error(400, "invalid_image_format", what))
    server.read.append(call.fields)
    image = drawn(call.fields["prompt"], None, images_of(call))
    usage = {"input_tokens": 12, "output_tokens": 1056, "total_tokens": 1068}
    return Step(response={"created": 1, "data": [{"b64_json": b64(image)}], "usage": usage})


AZURE_REFUSAL = {
    "error": {
        "code": "contentFilter",
        "message": "Your task failed as a result of our safety system.",
        "inner_error": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_results": {"violence": {"filtered": True}},
        },
    }
}
AZURE = EngineProfile(
    "/openai/deployments/paint",
    azure_answer,
    key_header=("api-key", ""),
    unauthorized=as_json(401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key."}}),
)
