"""Stand-ins for servers of image models, in the published form of each.

    with EngineServer(VLLM_OMNI) as server:
        generator = OpenAiImages("m", base_url=server.base)

Each draws an image that depends on the prompt, the references and the seed as the real one reads it, ignores or refuses
unknown fields, other models and wrong keys as the real one does, answers errors in its form, and keeps what it read in
`server.read`. The forms were transcribed on 2026-11-29 from the sources that `knowgen/generators/hosted/servers.py` and
`knowgen/clients/service_errors.py` name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from tests.helpers.image_servers import (
    KEY,
    Call,
    ImageServer,
    ServiceProfile,
    Step,
    b64,
    image_bytes,
    openai_error,
)

Answer = Callable[["EngineServer", Call], Step]


def drawn(prompt: str, seed: Any, references: int = 0, kind: str = "PNG") -> bytes:
    """Return an image that depends on prompt, seed and number of references; without a seed it is another each time."""
    seed = random.random() if seed is None else int(seed)
    digest = hashlib.sha256(f"{prompt} {seed} {references}".encode()).hexdigest()
    return image_bytes(f"#{digest[:6]}", kind)


def listing(*entries: Mapping[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": list(entries)}


def as_json(status: int, body: Any, **headers: str) -> Step:
    return Step(status=status, body=json.dumps(body).encode(), headers=headers)


def detail(status: int, message: Any) -> Step:
    """Return an error as FastAPI's applications send it."""
    return as_json(status, {"detail": message})


def invalid(name: str, message: str, value: Any) -> dict[str, Any]:
    """Return a failed validation as pydantic describes it."""
    return {"type": "value_error", "loc": ("body", name), "msg": message, "input": value}


@dataclass(frozen=True)
class EngineProfile:
    """A kind of server.

    Attributes:
        root: Path at the end of the base URL.
        answer: Answers a POST request.
        free: Headers, and JSON or bytes, of its free calls by path.
        key_header: Header with the key and the scheme before the key; empty where a server needs no key.
        key: The key that it takes; empty for any.
        keyed: Paths of the free calls that need the key.
        unauthorized: Its answer to another key.
        model: Name of the model that it runs.
        max_references: Maximum number of reference images of that model.
    """

    root: str
    answer: Answer
    free: Mapping[str, tuple[Mapping[str, str], Any]] = field(default_factory=dict)
    key_header: tuple[str, str] = ("", "")
    key: str = KEY
    keyed: tuple[str, ...] = ()
    unauthorized: Step = field(default_factory=Step)
    model: str = ""
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
        return self._key_error(call.headers)

    def _free_error(self, path: str, headers: Mapping[str, str]) -> Step | None:
        return self._key_error(headers) if path in self.engine.keyed else None

    def _key_error(self, headers: Mapping[str, str]) -> Step | None:
        name, scheme = self.engine.key_header
        sent = headers.get(name, "")
        right = sent == scheme + self.engine.key if self.engine.key else sent.startswith(scheme) and sent != scheme
        return None if not name or right else self.engine.unauthorized

    def keep(self, fields: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
        """Keep the fields that are read, and return them."""
        kept = {name: value for name, value in fields.items() if name in names}
        self.read.append(kept)
        return kept


def _wrong_type(fields: Mapping[str, Any], names: Mapping[str, Any], form: bool) -> dict[str, Any] | None:
    """Return the failed validation of a field of a wrong type, None when there is none."""
    for name, value in fields.items():
        kinds = names.get(name)
        if kinds is None:
            continue
        if form:
            try:
                kinds(value) if kinds in (int, float) else None
            except ValueError:
                return invalid(name, "Input should be a valid number", value)
        elif not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
            return invalid(name, "Input should be of another type", value)
    return None


def in_pixels(size: Any) -> bool:
    """Return whether a size is WIDTHxHEIGHT."""
    return re.fullmatch(r"\d+x\d+", str(size).lower().replace(" ", "")) is not None


def images_of(call: Call) -> int:
    """Return how many images of a form are read: those under `image`, else those under `image[]`."""
    names = [name for name, *_ in call.files]
    return names.count("image") or names.count("image[]")


# --- vLLM-Omni -------------------------------------------------------------------------------------------------------

NUMBER = (int, float)
VLLM_GENERATION: dict[str, Any] = {
    "prompt": str, "model": str, "n": int, "size": str, "response_format": str, "user": str, "layers": int,
    "bot_task": str, "negative_prompt": str, "system_prompt": str, "use_system_prompt": str,
    "num_inference_steps": int, "guidance_scale": NUMBER, "true_cfg_scale": NUMBER, "flow_shift": NUMBER,
    "extra_params": dict, "infer_align_image_size": bool, "seed": int, "generator_device": str, "lora": dict,
    "vae_use_slicing": bool, "vae_use_tiling": bool, "output_format": str, "output_compression": int,
    "return_stage_metrics": bool,
}  # fmt: skip
VLLM_EDIT: dict[str, Any] = {
    "prompt": str, "model": str, "n": int, "size": str, "response_format": str, "output_format": str,
    "background": str, "output_compression": int, "stream": str, "user": str, "negative_prompt": str,
    "num_inference_steps": int, "guidance_scale": float, "guidance_scale_2": float, "strength": float,
    "true_cfg_scale": float, "seed": int, "generator_device": str, "lora": str, "layers": int, "resolution": int,
    "condition_resolution": int, "bot_task": str, "sys_type": str, "system_prompt": str,
    "infer_align_image_size": str, "return_stage_metrics": str,
}  # fmt: skip
VLLM_CHAT = frozenset(
    {
        "height", "width", "num_inference_steps", "guidance_scale", "true_cfg_scale", "seed", "negative_prompt",
        "cfg_text_scale", "cfg_img_scale", "cfg_interval", "timestep_shift", "cfg_renorm_type", "cfg_renorm_min",
        "think",
    }
)  # fmt: skip
"""Fields of `extra_body` that are read for BAGEL; others are ignored with a line in the server's log."""

VLLM_MODEL = "Qwen/Qwen-Image"
_BOUNDS = {"n": (1, 10), "num_inference_steps": (1, 200), "guidance_scale": (0, 20), "true_cfg_scale": (0, 20)}
_KINDS = {"jpeg": "JPEG", "jpg": "JPEG", "webp": "WEBP", "png": "PNG"}


def vllm_error(status: int, message: str, kind: str = "", param: str | None = None) -> Step:
    """Return an error as the handlers of vLLM's application send it, those of FastAPI among them."""
    kind = kind or HTTPStatus(status).phrase
    return as_json(status, {"error": {"message": message, "type": kind, "param": param, "code": status}})


def vllm_invalid(name: str, message: str, value: Any) -> Step:
    """Return a failed validation as vLLM sends it: 400, with pydantic's description as text."""
    error = invalid(name, message, value)
    return vllm_error(400, f"1 validation error:\n  {error} {[error]}")


def vllm_answer(server: EngineServer, call: Call) -> Step:
    """Answer as `vllm serve MODEL --omni`: unknown fields are ignored, the model must be the one that is served."""
    if call.path == "/v1/chat/completions":
        return _vllm_chat(server, call)
    if call.path not in ("/v1/images/generations", "/v1/images/edits"):
        return vllm_error(404, "Not Found")
    edit = call.path.endswith("edits")
    names = VLLM_EDIT if edit else VLLM_GENERATION
    fields = server.keep(call.fields, names)
    if error := _wrong_type(fields, names, form=edit) or (None if edit else _vllm_out_of_bounds(fields)):
        return vllm_invalid(error["loc"][1], error["msg"], error["input"])
    runs, most = server.engine.model, server.engine.max_references
    if fields.get("model", runs) != runs:
        return vllm_error(400, f"Model mismatch: request specifies '{fields['model']}' but server is running '{runs}'.")
    if edit and fields.get("response_format", "b64_json") != "b64_json":
        return vllm_error(400, "Only response_format 'b64_json' is supported now.")
    if edit and not images_of(call):
        return vllm_error(422, "Field 'image' or 'url' is required")
    if (count := images_of(call)) > most:
        return vllm_error(400, _vllm_too_many(count, most))
    size = fields.get("size", "auto" if edit else "1x1")
    if not in_pixels(size) and not (edit and size == "auto"):
        return vllm_error(400, f"Invalid size format: '{size}'. Expected format: 'WIDTHxHEIGHT' (e.g., '1024x1024').")
    kind = _KINDS.get(fields.get("output_format", "png"), "JPEG")
    image = drawn(fields["prompt"], fields.get("seed"), count, kind)
    entry = {"b64_json": b64(image), "url": None, "revised_prompt": None}
    response = {"created": 1, "data": [entry], "output_format": kind.lower(), "size": "48x32", "cot_output": None}
    return Step(response={**response, "metrics": {"stage_durations": None, "peak_memory_mb": None}})


def _vllm_out_of_bounds(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the request model of a generation refuses; that of an edit has no bounds."""
    for name, (least, most) in _BOUNDS.items():
        if name in fields and not least <= fields[name] <= most:
            return invalid(name, f"Input should be between {least} and {most}", fields[name])
    if "size" in fields and "x" not in fields["size"]:
        return invalid("size", "size must be in format 'WIDTHxHEIGHT' (e.g., '1024x1024')", fields["size"])
    if fields.get("response_format", "b64_json") not in ("b64_json", "file"):
        return invalid("response_format", "Only 'b64_json' or 'file' is supported", fields["response_format"])
    return None


def _vllm_too_many(count: int, most: int) -> str:
    if most == 1:
        return "Received multiple input images. Only a single image is supported by this model."
    return f"Received {count} input images. At most {most} images are supported by this model."


def _vllm_chat(server: EngineServer, call: Call) -> Step:
    if call.fields["model"] != server.engine.model:
        return vllm_error(404, f"The model `{call.fields['model']}` does not exist.", "NotFoundError", "model")
    sent = call.fields.get("extra_body") or {}
    extra = {name: value for name, value in sent.items() if name in VLLM_CHAT}
    server.read.append(extra)
    parts = call.fields["messages"][0]["content"]
    prompt = next(part["text"] for part in parts if part["type"] == "text")
    count = sum(part["type"] == "image_url" for part in parts)
    if count > server.engine.max_references:
        return vllm_error(400, _vllm_too_many(count, server.engine.max_references))
    image = {"type": "image_url", "image_url": {"url": data_url(drawn(prompt, extra.get("seed"), count))}}
    message = {"role": "assistant", "content": [image]}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return Step(response={"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def vllm_of(model: str) -> EngineProfile:
    """Return a server of vLLM-Omni with a model."""
    card = {"id": model, "object": "model", "owned_by": "vllm", "root": model, "parent": None, "max_model_len": None}
    return EngineProfile("/v1", vllm_answer, {"/v1/models": ({}, listing(card))}, model=model)


VLLM_OMNI = vllm_of(VLLM_MODEL)
VLLM_WITH_KEY = replace(
    VLLM_OMNI,
    key_header=("authorization", "Bearer "),
    keyed=("/v1/models",),
    unauthorized=as_json(401, {"error": "Unauthorized"}),
)
"""A server that was started with `--api-key`."""

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
    """Answer as `sglang serve`: a JPEG unless a format is named, in generations a URL unless base64 is asked for.

    The name of the model is ignored, and so is a size that is not WIDTHxHEIGHT.
    """
    if call.path not in ("/v1/images/generations", "/v1/images/edits"):
        return detail(404, "Not Found")
    edit = call.path.endswith("edits")
    names = SGLANG_EDIT if edit else SGLANG_GENERATION
    fields = server.keep(call.fields, names)
    if error := _wrong_type(fields, names, form=edit):
        return detail(422, [error])
    if not in_pixels(fields.get("size", "1x1")):
        del fields["size"]
    if edit and not images_of(call):
        return detail(422, "Field 'image' or 'url' is required")
    if not edit and fields.get("response_format", "url") == "url":
        return detail(400, "response_format='url' requires cloud storage to be configured.")
    kind = _KINDS.get(fields.get("output_format", ""), "JPEG")
    image = drawn(fields["prompt"], fields.get("seed", 1024), images_of(call), kind)
    entry = {"b64_json": b64(image), "url": None, "revised_prompt": fields["prompt"], "file_path": None, "resize": None}
    return Step(response={"id": "r1", "created": 1, "data": [entry], "inference_time_s": 0.1, "usage": None})


SGLANG_FAULT = Step(status=500, body=b"Internal Server Error", headers={"Content-Type": "text/plain; charset=utf-8"})
"""The answer to a generation that failed in the scheduler."""

SGLANG_CARD = {
    "id": VLLM_MODEL, "object": "model", "owned_by": "sglang", "task_type": "T2I",
    "pipeline_class": "QwenImagePipeline", "num_gpus": 1,
}  # fmt: skip
SGLANG = EngineProfile("/v1", sglang_answer, {"/v1/models": ({}, listing(SGLANG_CARD))})
