"""Servers with an Images API in OpenAI's style, and the form in which each of them takes a request.

The forms are published, and were looked up on 2026-11-29:

- `openai`: the parameter types of the official client, openai 2 (`image_generate_params`, `image_edit_params`); an edit
  as a form has no `moderation`, one as JSON has.
- `azure`: Microsoft's guide to image generation models (learn.microsoft.com/azure/ai-services/openai/how-to/dall-e) and
  the reference of the inference API: OpenAI's fields, without `moderation` under the path with the deployment and
  `api-version` (2025-04-01-preview), where edits take PNG and JPEG files, no WebP.
- `vllm-omni`: docs/serving/image_generation_api.md, image_edit_api.md and chat_completions_api.md of
  vllm-project/vllm-omni, and its entrypoints/openai/protocol/images.py and api_server.py. Fields that it does not know
  are ignored without an error; those of a model belong into `extra_params`.
- `sglang`: docs/diffusion/api/openai_api.md of sgl-project/sglang, and entrypoints/openai/protocol.py, image_api.py and
  utils.py of its multimodal_gen. A generation may have fields of its model; those of an edit are ignored if they are
  unknown. The name of the model is ignored, and so is a size that is not WIDTHxHEIGHT. An image without `output_format`
  is a JPEG, and one without `seed` always has the same or a random seed.
- `litellm`: docs.litellm.ai/docs/image_generation, image_edits and proxy/response_headers, and
  proxy/image_endpoints/endpoints.py, utils.py, images/utils.py and types/images/main.py of BerriAI/litellm. What a
  request may have depends on the model behind it. An edit keeps the fields of `ImageEditOptionalRequestParams` and
  drops all others without an error, a seed too; a generation drops some of them for GPT image models.
- `openrouter`: guides/overview/multimodal/image-generation.mdx of OpenRouterTeam/docs: `POST /images`, with references
  in the JSON; models also answer `POST /chat/completions` with `modalities`. `size` is shorthand, which no model lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from knowgen.clients.endpoint_url import OPENAI_URL, is_azure

Api = Literal["images", "chat"]

AUTO = "auto"
"""The value of `server` that asks the server what it is."""

OPENROUTER_HOST = "openrouter.ai"

ARGUMENTS = frozenset({"size", "quality", "moderation", "output_format"})
"""Arguments of the generator that are fields of a request."""

_OPENAI_EDIT_LIMIT = 16
ANY_NUMBER = 64
"""Maximum number of references for servers that have no limit of their own: the model behind them has one."""


@dataclass(frozen=True)
class ServerForm:
    """How a server takes requests.

    Attributes:
        name: Name, as `server=NAME`.
        title: Name for messages.
        arguments: Arguments of the generator that it has fields for.
        sent_by_default: Those of them that are sent with their default value too.
        fixed: Fields of every request to `/images/…`.
        seed: Whether it reads a seed, or may.
        seed_in_edits: The same for edits, where it is another answer.
        generation_fields: Fields that it reads in a generation; None where it rejects what it does not know.
        edit_fields: The same for edits.
        further: Field of a generation that takes fields of the model; empty where they stand beside the others.
        open_generations: Whether a generation may have fields that are not listed, which are then not checked.
        open_edits: The same for edits.
        chat_further: Field of a chat request that takes fields of the model; empty where they stand beside the others.
        chat_modalities: Modalities of a chat request; empty where the server has no chat for images.
        max_references: Maximum number of reference images.
        reference_formats: Formats of their files, as PIL names them.
        one_model: Whether it runs one model, which its list of models names.
        pixel_sizes: Whether a size must be WIDTHxHEIGHT.
        references_in_json: Whether references are sent as data URLs in the JSON of a generation.
        path: Path of a generation.
        listing: Path of the free list of models.
    """

    name: str
    title: str
    arguments: frozenset[str] = ARGUMENTS
    sent_by_default: frozenset[str] = frozenset()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    seed: bool = True
    seed_in_edits: bool = True
    generation_fields: frozenset[str] | None = None
    edit_fields: frozenset[str] | None = None
    further: str = ""
    open_generations: bool = False
    open_edits: bool = False
    chat_further: str = ""
    chat_modalities: tuple[str, ...] = ()
    max_references: int = _OPENAI_EDIT_LIMIT
    reference_formats: frozenset[str] = frozenset({"PNG", "JPEG", "WEBP"})
    one_model: bool = False
    pixel_sizes: bool = False
    references_in_json: bool = False
    path: str = "/images/generations"
    listing: str = "/models"

    def known_fields(self, api: Api, *, edit: bool) -> frozenset[str] | None:
        """Return the fields that are read in a request; None where they are not known or the server checks them.

        Args:
            api: The API.
            edit: Whether the request has references.
        """
        if api == "chat" or (self.open_edits if edit else self.open_generations):
            return None
        return self.edit_fields if edit and not self.references_in_json else self.generation_fields

    def unchecked_fields(self, names: Iterable[str], api: Api, *, edit: bool) -> list[str]:
        """Return those of some fields that are sent though it is not known whether they are read, in order.

        Args:
            names: Names of fields.
            api: The API.
            edit: Whether the request has references.
        """
        if api == "chat" or not (self.open_edits if edit else self.open_generations):
            return []
        return sorted(set(names) - ((self.edit_fields if edit else self.generation_fields) or frozenset()))

    def nested_in(self, api: Api, *, edit: bool) -> str:
        """Return the field that takes what is not among the known ones; empty where there is none."""
        if api == "chat":
            return self.chat_further
        return "" if edit else self.further


_VLLM_GENERATION = frozenset(
    {
        "prompt", "model", "n", "size", "response_format", "user", "layers", "bot_task", "negative_prompt",
        "system_prompt", "use_system_prompt", "num_inference_steps", "guidance_scale", "true_cfg_scale", "flow_shift",
        "extra_params", "infer_align_image_size", "seed", "generator_device", "lora", "vae_use_slicing",
        "vae_use_tiling", "output_format", "output_compression", "return_stage_metrics",
    }
)  # fmt: skip
_VLLM_EDIT = frozenset(
    {
        "prompt", "model", "n", "size", "response_format", "output_format", "background", "output_compression",
        "stream", "user", "mask_image", "reference_image", "negative_prompt", "num_inference_steps", "guidance_scale",
        "guidance_scale_2", "strength", "true_cfg_scale", "infer_align_image_size", "seed", "generator_device", "lora",
        "layers", "resolution", "condition_resolution", "bot_task", "sys_type", "system_prompt", "return_stage_metrics",
    }
)  # fmt: skip
_SGLANG_GENERATION = frozenset(
    {
        "prompt", "model", "n", "quality", "response_format", "size", "style", "background", "output_format", "user",
        "width", "height", "num_inference_steps", "guidance_scale", "true_cfg_scale", "seed", "generator_device",
        "negative_prompt", "output_quality", "output_compression", "enable_teacache", "max_sequence_length",
        "flow_shift", "enable_upscaling", "upscaling_model_path", "upscaling_scale", "diffusers_kwargs",
        "perf_dump_path", "progressive_mode", "progressive_levels", "progressive_delta", "enhance_prompt", "task_type",
        "enable_cache_dit", "cache_dit_params", "cfg_gate_step", "attention_backend_override", "skip_softmax_params",
        "dpcache_budget",
    }
)  # fmt: skip
_SGLANG_EDIT = frozenset(
    {
        "prompt", "enhance_prompt", "mask", "model", "task_type", "n", "response_format", "size", "output_format",
        "background", "seed", "generator_device", "user", "negative_prompt", "guidance_scale", "true_cfg_scale",
        "num_inference_steps", "quality", "output_quality", "output_compression", "enable_teacache",
        "enable_upscaling", "upscaling_model_path", "upscaling_scale", "perf_dump_path", "num_frames",
    }
)  # fmt: skip
_LITELLM_GENERATION = frozenset({"prompt", "model", "n", "quality", "response_format", "size", "style", "user"})
_LITELLM_EDIT = frozenset(
    {
        "prompt", "model", "background", "input_fidelity", "n", "quality", "response_format", "size", "user",
        "imageConfig",
    }
)  # fmt: skip
_OPENROUTER = frozenset(
    {
        "model", "prompt", "n", "resolution", "aspect_ratio", "size", "quality", "output_format", "background",
        "output_compression", "seed", "stream", "input_references", "provider",
    }
)  # fmt: skip

FORMS: Mapping[str, ServerForm] = {
    form.name: form
    for form in (
        ServerForm(
            name="openai",
            title="OpenAI",
            sent_by_default=ARGUMENTS,
            fixed={"n": 1},
            seed=False,
        ),
        ServerForm(
            name="azure",
            title="Azure",
            sent_by_default=ARGUMENTS,
            fixed={"n": 1},
            seed=False,
            reference_formats=frozenset({"PNG", "JPEG"}),
        ),
        ServerForm(
            name="vllm-omni",
            title="vLLM-Omni",
            arguments=frozenset({"size", "output_format"}),
            sent_by_default=frozenset({"output_format"}),
            fixed={"n": 1, "response_format": "b64_json"},
            generation_fields=_VLLM_GENERATION,
            edit_fields=_VLLM_EDIT,
            further="extra_params",
            chat_further="extra_body",
            chat_modalities=("image",),
            max_references=ANY_NUMBER,
            one_model=True,
            pixel_sizes=True,
        ),
        ServerForm(
            name="sglang",
            title="SGLang-Diffusion",
            arguments=frozenset({"size", "quality", "output_format"}),
            sent_by_default=frozenset({"output_format"}),
            fixed={"n": 1, "response_format": "b64_json"},
            generation_fields=_SGLANG_GENERATION,
            edit_fields=_SGLANG_EDIT,
            open_generations=True,
            max_references=ANY_NUMBER,
            one_model=True,
            pixel_sizes=True,
        ),
        ServerForm(
            name="litellm",
            title="LiteLLM",
            sent_by_default=frozenset({"moderation"}),
            fixed={"n": 1, "response_format": "b64_json"},
            seed_in_edits=False,
            generation_fields=_LITELLM_GENERATION,
            edit_fields=_LITELLM_EDIT,
            open_generations=True,
            open_edits=True,
            chat_modalities=("image", "text"),
        ),
        ServerForm(
            name="openrouter",
            title="OpenRouter",
            arguments=frozenset({"size", "quality", "output_format"}),
            sent_by_default=frozenset({"output_format"}),
            generation_fields=_OPENROUTER,
            chat_modalities=("image", "text"),
            references_in_json=True,
            path="/images",
            listing="/images/models",
        ),
        ServerForm(
            name="other",
            title="a server that is not recognised",
            fixed={"n": 1, "response_format": "b64_json"},
            open_generations=True,
            open_edits=True,
            chat_modalities=("image", "text"),
        ),
    )
}
"""Forms by the name of the server. `other` is any server that is none of these: fields that it may not know are sent,
and left out from then on where it refuses them."""


def form_of_host(url: str) -> ServerForm | None:
    """Return the form of a server that its address names; None where it has to be asked.

    Example:
        >>> form_of_host("https://NAME.openai.azure.com/openai/v1").name
        'azure'
        >>> form_of_host("http://127.0.0.1:8000/v1") is None
        True
    """
    host = urlsplit(url or OPENAI_URL).hostname or ""
    if host == urlsplit(OPENAI_URL).hostname:
        return FORMS["openai"]
    if is_azure(url):
        return FORMS["azure"]
    return FORMS["openrouter"] if host == OPENROUTER_HOST else None
