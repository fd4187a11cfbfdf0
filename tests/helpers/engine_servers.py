"""Stand-ins for servers and gateways of image models, in the published form of each.

    with EngineServer(VLLM_OMNI) as server:
        generator = OpenAiImages("m", base_url=server.base)

Each draws an image that depends on the prompt, the references and the seed as the real one reads it, ignores or refuses
unknown fields as the real one does, and keeps what it read in `server.read`. The forms were transcribed on 2026-11-29
from the sources that `knowgen/generators/hosted/servers.py` names.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.image_servers import Call, ImageServer, ServiceProfile, Step, b64, image_bytes, openai_error

Answer = Callable[["EngineServer", Call], Step]


def drawn(prompt: str, seed: Any, references: int = 0, kind: str = "PNG") -> bytes:
    """Return an image that depends on prompt, seed and number of references; without a seed it is another each time."""
    seed = random.random() if seed is None else int(seed)
    digest = hashlib.sha256(f"{prompt} {seed} {references}".encode()).hexdigest()
    return image_bytes(f"#{digest[:6]}", kind)


def listing(*entries: Mapping[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": list(entries)}


def detail(status: int, message: Any) -> Step:
    """Return an error as FastAPI's applications send it."""
    return Step(status=status, body=json.dumps({"detail": message}).encode())


def invalid(name: str, message: str) -> Step:
    """Return a failed validation as FastAPI's applications send it."""
    return detail(422, [{"type": "value_error", "loc": ["body", name], "msg": message}])


@dataclass(frozen=True)
class EngineProfile:
    """A kind of server.

    Attributes:
        root: Path at the end of the base URL.
        answer: Answers a POST request.
        free: Headers, and JSON or bytes, of its free calls by path.
        key_header: Header with the key and the scheme before the key; empty where a server needs no key.
        max_references: Maximum number of reference images of the model that it serves.
    """

    root: str
    answer: Answer
    free: Mapping[str, tuple[Mapping[str, str], Any]] = field(default_factory=dict)
    key_header: tuple[str, str] = ("", "")
    max_references: int = 4


class EngineServer(ImageServer):
    """Serve an API until the block is left.

    Args:
        profile: The kind of server.
        script: Answers a call in place of the profile where it returns a step.

    Attributes:
        read: Fields that were read of each call, in order; what was sent beside them was ignored.
    """

    def __init__(self, profile: EngineProfile, script: Callable[[Call], Step | None] = lambda call: None) -> None:
        self.engine, self.read = profile, list[dict[str, Any]]()
        shown = ServiceProfile(profile.root, profile.key_header, {}, dict, openai_error, profile.free)
        super().__init__(shown, lambda call: script(call) or profile.answer(self, call))

    def _request_error(self, call: Call) -> Step | None:
        name, scheme = self.engine.key_header
        if name and not call.headers.get(name, "").startswith(scheme):
            return Step(status=401, error=openai_error(401, "invalid_api_key", "The key is missing."))
        return None

    def keep(self, fields: Mapping[str, Any], names: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
        """Keep the fields that are read, and return them."""
        kept = {name: value for name, value in fields.items() if name in names}
        self.read.append(kept)
        return kept


def _typed(fields: Mapping[str, Any], names: Mapping[str, Any], form: bool) -> Step | None:
    """Return the error of a field of a wrong type, None when there is none."""
    for name, value in fields.items():
        kinds = names.get(name)
        if kinds is None:
            continue
        if form:
            try:
                kinds(value) if kinds in (int, float) else None
            except ValueError:
                return invalid(name, "Input should be a valid number")
        elif not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
            return invalid(name, f"Input should be a valid {kinds}")
    return None


# --- vLLM-Omni -------------------------------------------------------------------------------------------------------

NUMBER = (int, float)
VLLM_GENERATION: dict[str, Any] = {
    "prompt": str, "model": str, "n": int, "size": str, "response_format": str, "user": str, "layers": int,
    "bot_task": str, "negative_prompt": str, "system_prompt": str, "use_system_prompt": str,
    "num_inference_steps": int, "guidance_scale": NUMBER, "true_cfg_scale": NUMBER, "flow_shift": NUMBER,
    "extra_params": dict, "infer_align_image_size": bool, "seed": int, "generator_device": str, "lora": dict,
    "vae_use_slicing": bool, "vae_use_tiling": bool, "output_format": str,
}  # fmt: skip
VLLM_EDIT: dict[str, Any] = {
    "prompt": str, "model": str, "n": int, "size": str, "response_format": str, "output_format": str,
    "background": str, "output_compression": int, "stream": str, "user": str, "negative_prompt": str,
    "num_inference_steps": int, "guidance_scale": float, "strength": float, "true_cfg_scale": float, "seed": int,
    "generator_device": str, "lora": str, "layers": int, "resolution": int, "bot_task": str, "sys_type": str,
    "system_prompt": str, "infer_align_image_size": str,
}  # fmt: skip
VLLM_MODEL = "Qwen/Qwen-Image"


def vllm_answer(server: EngineServer, call: Call) -> Step:
    """Answer as `vllm serve MODEL --omni`: unknown fields are ignored, the model must be the one that is served."""
    if call.path == "/v1/chat/completions":
        return _vllm_chat(server, call)
    if call.path not in ("/v1/images/generations", "/v1/images/edits"):
        return detail(404, "Not Found")
    edit = call.path.endswith("edits")
    names = VLLM_EDIT if edit else VLLM_GENERATION
    fields = server.keep(call.fields, names)
    if error := _typed(fields, names, form=edit):
        return error
    if fields.get("model", VLLM_MODEL) != VLLM_MODEL:
        what = f"Model mismatch: request specifies '{fields['model']}' but server is running '{VLLM_MODEL}'."
        return detail(400, what)
    if not edit and "size" in fields and "x" not in fields["size"]:
        return invalid("size", "size must be in format 'WIDTHxHEIGHT' (e.g., '1024x1024')")
    if not 1 <= int(fields.get("num_inference_steps", 50)) <= 200:
        return invalid("num_inference_steps", "Input should be less than or equal to 200")
    if fields.get("response_format", "b64_json") not in ("b64_json", "file"):
        return detail(400, "Only response_format 'b64_json' is supported now.")
    most = server.engine.max_references
    if len(call.files) > most:
        one = "Received multiple input images. Only a single image is supported by this model."
        many = f"Received {len(call.files)} input images. At most {most} images are supported by this model."
        return detail(400, one if most == 1 else many)
    image = drawn(fields["prompt"], fields.get("seed"), len(call.files))
    entry = {"b64_json": b64(image), "url": None, "revised_prompt": None}
    return Step(response={"created": 1, "data": [entry], "output_format": fields.get("output_format", "png")})


def _vllm_chat(server: EngineServer, call: Call) -> Step:
    extra = call.fields.get("extra_body") or {}
    server.read.append(dict(extra))
    parts = call.fields["messages"][0]["content"]
    prompt = next(part["text"] for part in parts if part["type"] == "text")
    references = [part for part in parts if part["type"] == "image_url"]
    image = {"type": "image_url", "image_url": {"url": data_url(drawn(prompt, extra.get("seed"), len(references)))}}
    message = {"role": "assistant", "content": [image]}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return Step(response={"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


VLLM_OMNI = EngineProfile(
    "/v1", vllm_answer, {"/v1/models": ({}, listing({"id": VLLM_MODEL, "object": "model", "owned_by": "vllm"}))}
)

# --- SGLang-Diffusion ------------------------------------------------------------------------------------------------

SGLANG_GENERATION: dict[str, Any] = {
    "prompt": str, "model": str, "n": int, "quality": str, "response_format": str, "size": str, "style": str,
    "background": str, "output_format": str, "user": str, "width": int, "height": int, "num_inference_steps": int,
    "guidance_scale": NUMBER, "true_cfg_scale": NUMBER, "seed": (int, list), "generator_device": str,
    "negative_prompt": str, "output_quality": str, "output_compression": int, "enable_teacache": bool,
    "max_sequence_length": int, "flow_shift": NUMBER, "enable_upscaling": bool, "diffusers_kwargs": dict,
}  # fmt: skip
SGLANG_EDIT: dict[str, Any] = {
    "prompt": str, "enhance_prompt": str, "model": str, "n": int, "response_format": str, "size": str,
    "output_format": str, "background": str, "seed": int, "generator_device": str, "negative_prompt": str,
    "guidance_scale": float, "true_cfg_scale": float, "num_inference_steps": int, "quality": str,
}  # fmt: skip


def sglang_answer(server: EngineServer, call: Call) -> Step:
    """Answer as `sglang serve`: a JPEG unless a format is named, in generations a URL unless base64 is asked for."""
    if call.path not in ("/v1/images/generations", "/v1/images/edits"):
        return detail(404, "Not Found")
    edit = call.path.endswith("edits")
    names = SGLANG_EDIT if edit else SGLANG_GENERATION
    fields = server.keep(call.fields, names)
    if error := _typed(fields, names, form=edit):
        return error
    if not edit and fields.get("response_format", "url") == "url":
        return detail(400, "response_format='url' requires cloud storage to be configured.")
    kind = {"png": "PNG", "webp": "WEBP"}.get(fields.get("output_format", ""), "JPEG")
    image = drawn(fields["prompt"], fields.get("seed", 1024), len(call.files), kind)
    entry = {"b64_json": b64(image), "url": None, "revised_prompt": fields["prompt"], "file_path": None}
    return Step(response={"id": "r1", "created": 1, "data": [entry], "inference_time_s": 0.1})


SGLANG_CARD = {
    "id": "Qwen/Qwen-Image", "object": "model", "owned_by": "sglang", "task_type": "T2I",
    "pipeline_class": "QwenImagePipeline", "num_gpus": 1,
}  # fmt: skip
SGLANG = EngineProfile("/v1", sglang_answer, {"/v1/models": ({}, listing(SGLANG_CARD))})

# --- LiteLLM ---------------------------------------------------------------------------------------------------------

LITELLM_COST = 0.041
_GPT_IMAGE = {"model", "prompt", "n", "size", "quality", "moderation", "output_format", "background", "user"}


def litellm_answer(server: EngineServer, call: Call) -> Step:
    """Answer as a LiteLLM proxy with a GPT image model behind it, which takes neither a seed nor a response format."""
    if call.path not in ("/v1/images/generations", "/v1/images/edits"):
        return Step(status=404, body=b'{"detail": "Not Found"}')
    if "response_format" in call.fields:
        what = "litellm.UnsupportedParamsError: Setting `response_format` is not supported by openai, gpt-image-2."
        return Step(status=400, error=openai_error(400, "", what))
    if unknown := sorted(call.fields.keys() - _GPT_IMAGE):
        what = f"litellm.BadRequestError: OpenAIException - Unknown parameter: '{unknown[0]}'."
        return Step(status=400, error=openai_error(400, "unknown_parameter", what))
    server.read.append(call.fields)
    data = [{"b64_json": b64(drawn(call.fields["prompt"], None, len(call.files)))}]
    return Step(response={"created": 1, "data": data}, headers={"x-litellm-response-cost": str(LITELLM_COST)})


LITELLM = EngineProfile(
    "/v1",
    litellm_answer,
    {
        "/v1/models": ({}, listing({"id": "painting", "object": "model", "owned_by": "openai"})),
        "/health/liveliness": ({}, b'"I\'m alive!"'),
    },
    ("authorization", "Bearer "),
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
            "size": {"type": "enum", "values": ["2K"]},
            "seed": {"type": "boolean"},
            "input_references": {"type": "range", "min": 0, "max": 2},
        },
    },
    {
        "id": "openai/gpt-image-2",
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["image"]},
        "supported_parameters": {
            "quality": {"type": "enum", "values": ["auto", "low", "medium", "high"]},
            "output_format": {"type": "enum", "values": ["png", "jpeg"]},
            "background": {"type": "enum", "values": ["auto", "opaque"]},
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
        taken = {"model", "prompt", "provider", *model["supported_parameters"]}
        if unknown := sorted(call.fields.keys() - taken):
            return _openrouter_error(400, f"Unsupported parameter '{unknown[0]}' for {model['id']}")
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
)

# --- Azure -----------------------------------------------------------------------------------------------------------

AZURE_PATH = "/openai/deployments/paint/images"
AZURE_VERSION = "2025-04-01-preview"
_AZURE = {
    "model", "prompt", "n", "size", "quality", "output_format", "output_compression", "moderation", "background",
    "user",
}  # fmt: skip


def azure_answer(server: EngineServer, call: Call) -> Step:
    """Answer as Azure with a deployment of a GPT image model, whose name says nothing about the model."""
    path, _, query = call.path.partition("?")
    if path not in (f"{AZURE_PATH}/generations", f"{AZURE_PATH}/edits") or query != f"api-version={AZURE_VERSION}":
        return Step(status=404, error={"error": {"code": "404", "message": "Resource not found"}})
    if unknown := sorted(call.fields.keys() - _AZURE):
        what = f"Unknown parameter: '{unknown[0]}'."
        return Step(status=400, error=openai_error(400, "unknown_parameter", what))
    server.read.append(call.fields)
    return Step(response={"created": 1, "data": [{"b64_json": b64(drawn(call.fields["prompt"], None))}]})


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
AZURE = EngineProfile("/openai/deployments/paint", azure_answer, key_header=("authorization", "Bearer "))
