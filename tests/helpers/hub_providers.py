"""Stand-ins for the hub's router with the inference providers behind it, in the published form of each.

    with hub_server("fal-ai") as server:
        generator = HubImages(model=f"fal-ai/{MODEL}", base_url=server.url)

The hub's list of providers of a model is served too; the caller points `huggingface_hub` at it. Paths and responses are
those that huggingface_hub 2.4.0 reads, and the documents of the providers (2026-11-29).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

from tests.helpers.engine_servers import EngineProfile, EngineServer, drawn
from tests.helpers.image_servers import Call, Step, b64

MODEL, EDIT_MODEL, OTHER = "made-up/Painter", "made-up/Painter-Edit", "made-up/Writer"
PROVIDER_MODEL = {"replicate": "made-up/painter", "fal-ai": "fal-ai/painter"}
MAPPED = ("fal-ai", "replicate", "together", "nscale", "wavespeed", "zai-org")


def hub_calls() -> dict[str, tuple[dict[str, str], Any]]:
    """Return the hub's free calls: providers and task of each model."""
    tasks = {MODEL: "text-to-image", EDIT_MODEL: "image-to-image", OTHER: "text-generation"}
    calls: dict[str, tuple[dict[str, str], Any]] = {}
    for model, task in tasks.items():
        mapping = {
            name: {"status": "live", "providerId": PROVIDER_MODEL.get(name, model), "task": task} for name in MAPPED
        }
        shown = {"id": model, "inferenceProviderMapping": mapping if model != OTHER else {}}
        calls[f"/api/models/{model}?expand=inferenceProviderMapping"] = ({}, shown)
        calls[f"/api/models/{model}"] = ({}, {"id": model, "pipeline_tag": task})
    return calls


def answer(server: EngineServer, call: Call) -> Step:
    """Answer as the provider that the path names."""
    provider = call.path.strip("/").partition("/")[0]
    return _ANSWERS[provider](server, call)


def fal(server: EngineServer, call: Call) -> Step:
    """Answer as fal.ai: an image at a URL, with the seed and a flag of its filter; edits wait in a queue."""
    fields = call.fields
    server.read.append(fields)
    if "image_urls" in fields:
        url = "https://queue.fal.run/fal-ai/painter/requests/r1"
        more = {"status_url": f"{url}/status", "cancel_url": f"{url}/cancel", "queue_position": 0}
        return Step(response={"status": "IN_QUEUE", "request_id": "r1", "response_url": url, **more})
    return Step(response=lambda url: _fal_result(server, fields, url))


def _fal_result(server: EngineServer, fields: dict[str, Any], url: str) -> dict[str, Any]:
    seed = fields.get("seed", 99)
    image = drawn(fields["prompt"], seed, len(fields.get("image_urls", [])))
    path = f"/files/{hashlib.sha256(image).hexdigest()[:12]}.png"
    server.pages[path] = image
    return {
        "images": [{"url": f"{url}{path}", "content_type": "image/png"}],
        "seed": seed,
        "has_nsfw_concepts": ["blocked" in fields["prompt"]],
        "prompt": fields["prompt"],
    }


def fal_queue(server: EngineServer, states: list[str]) -> dict[str, Any]:
    """Return the pages of a task in fal.ai's queue, which is in these states in turn."""
    path = "/fal-ai/fal-ai/painter/requests/r1"
    steps: list[Step | bytes] = [
        Step(status=200 if state == "COMPLETED" else 202, body=json.dumps({"status": state}).encode())
        for state in states
    ]
    result = Step(response=lambda url: _fal_result(server, server.read[-1], url))
    return {f"{path}/status?_subdomain=queue": steps, f"{path}?_subdomain=queue": result}


REPLICATE_INPUT = frozenset(
    {
        "prompt", "seed", "width", "height", "num_inference_steps", "guidance_scale", "image", "images", "input_image",
        "input_images",
    }
)  # fmt: skip
"""Inputs of a model there; others are ignored, as the library sends the image under four names."""


def replicate(server: EngineServer, call: Call) -> Step:
    """Answer as Replicate: a prediction that may not have ended when the wait of a minute is over."""
    fields = server.keep(call.fields["input"], dict.fromkeys(REPLICATE_INPUT))
    assert call.headers["prefer"] == "wait"
    seed, count = fields.get("seed"), len(fields.get("input_images", []))
    server.pages[f"/out{call.number}.webp"] = server.pages["/out.webp"] = drawn(fields["prompt"], seed, count, "WEBP")
    get = "https://api.replicate.com/v1/predictions/p1"
    if "slow" in fields["prompt"]:
        return Step(status=201, response={"id": "p1", "status": "processing", "output": None, "urls": {"get": get}})
    if "blocked" in fields["prompt"]:
        words = "NSFW content detected. Try running it again, or try a different prompt."
        return Step(
            status=201, response={"id": "p1", "status": "failed", "output": None, "error": words, "urls": {"get": get}}
        )
    return Step(
        status=201,
        response=lambda url: {
            "id": "p1", "status": "succeeded", "output": [f"{url}/out{call.number}.webp"], "error": None,
            "urls": {"get": get},
        },
    )  # fmt: skip


TOGETHER = frozenset(
    {
        "prompt", "model", "n", "steps", "seed", "width", "height", "negative_prompt", "response_format",
        "guidance_scale", "output_format", "image_url", "image_loras", "reference_images", "disable_safety_checker",
    }
)  # fmt: skip
"""Fields of Together's image API (docs.together.ai/reference/post-images-generations)."""


def in_base64(server: EngineServer, call: Call) -> Step:
    """Answer as Together and nscale: base64 in OpenAI's form."""
    fields = server.keep(call.fields, dict.fromkeys(TOGETHER | {"size"}))
    count = len(fields.get("reference_images", []))
    return Step(
        response={
            "id": "o1",
            "data": [{"index": 0, "b64_json": b64(drawn(fields["prompt"], fields.get("seed"), count))}],
        }
    )


def hf_inference(server: EngineServer, call: Call) -> Step:
    """Answer as HF Inference: the image is the body, a JPEG unless a PNG is asked for."""
    server.read.append(call.fields)
    parameters = call.fields.get("parameters", {})
    edit = call.path.endswith(EDIT_MODEL)
    prompt = parameters["prompt"] if edit else call.fields["inputs"]
    if edit:
        assert base64.b64decode(call.fields["inputs"]).startswith(b"\x89PNG")
    kind = "PNG" if call.headers.get("accept") == "image/png" else "JPEG"
    image = drawn(prompt, parameters.get("seed"), int(edit), kind)
    return Step(body=image, headers={"Content-Type": f"image/{kind.lower()}"})


WAVESPEED = frozenset(
    {
        "prompt", "image", "strength", "size", "num_inference_steps", "guidance_scale", "seed", "num_images",
        "output_format", "enable_safety_checker", "enable_sync_mode", "enable_base64_output",
    }
)  # fmt: skip
"""Fields of a model there (wavespeed.ai/docs/docs-api/flux-dev)."""


def wavespeed(server: EngineServer, call: Call) -> Step:
    """Answer as WaveSpeed: a task, whose result is asked for at another path."""
    fields = server.keep(call.fields, dict.fromkeys(WAVESPEED))
    job = f"w{call.number}"
    server.pages[f"/{job}.png"] = drawn(fields["prompt"], fields.get("seed"), int("image" in fields))
    get = f"https://api.wavespeed.ai/api/v3/predictions/{job}/result"
    waiting = {"data": {"status": "processing", "urls": {"get": get}, "outputs": []}}
    ended = Step(
        response=lambda url: {
            "data": {
                "status": "completed",
                "outputs": [f"{url}/{job}.png"],
                "has_nsfw_contents": ["blocked" in fields["prompt"]],
            }
        }
    )
    server.pages[f"/wavespeed/api/v3/predictions/{job}/result"] = [Step(response=waiting), ended]
    return Step(response={"data": {"id": job, "status": "created", "urls": {"get": get}, "outputs": []}})


def zai(server: EngineServer, call: Call) -> Step:
    """Answer as Z.ai: a task without a seed."""
    if "blocked" in call.fields["prompt"]:
        words = "System detected potentially unsafe or sensitive content in input or generation."
        return Step(status=400, error={"error": {"code": "1301", "message": words}})
    server.read.append(call.fields)
    job = f"z{call.number}"
    server.pages[f"/{job}.png"] = drawn(call.fields["prompt"], None)
    ended = Step(response=lambda url: {"task_status": "SUCCESS", "image_result": [{"url": f"{url}/{job}.png"}]})
    waiting: Step | bytes = Step(response={"id": job, "task_status": "PROCESSING"})
    server.pages[f"/zai-org/api/paas/v4/async-result/{job}"] = [waiting, ended]
    return Step(response={"id": job, "task_status": "PROCESSING", "model": call.fields["model"]})


_ANSWERS: dict[str, Callable[[EngineServer, Call], Step]] = {
    "fal-ai": fal,
    "replicate": replicate,
    "together": in_base64,
    "nscale": in_base64,
    "hf-inference": hf_inference,
    "wavespeed": wavespeed,
    "zai-org": zai,
}
PROVIDERS = list(_ANSWERS)


def hub_server(script: Callable[[Call], Step | None] = lambda call: None) -> EngineServer:
    """Return a server with the hub's router, its list of models, and every provider behind it."""
    return EngineServer(EngineProfile("", answer, hub_calls(), ("authorization", "Bearer "), key=""), script)
