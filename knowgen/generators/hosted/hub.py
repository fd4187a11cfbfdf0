"""Models behind the inference providers of the Hugging Face hub: fal, Replicate, Together, and others.

`huggingface_hub` knows how each provider is reached and how it names parameters: its provider helpers make the request
(the library's `InferenceClient` calls the same ones). It is sent and read here, because the client drops what a run
needs: a provider's flag that its filter replaced the image, the seed that was used, the file as it was sent, a limit on
waiting for a queued image, and rate control. Looked up in huggingface_hub 2.4.0 (2026-11-29).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from knowgen.clients.endpoint_url import endpoint_url, key_for
from knowgen.clients.http_service import json_object
from knowgen.clients.service_errors import read_error
from knowgen.core.errors import (
    AccountError,
    ConfigError,
    MissingDependencyError,
    ServiceUnavailableError,
    TransientError,
    UsageError,
)
from knowgen.core.metering import ReportedUsage
from knowgen.core.records import GenerationRequest
from knowgen.generators.contract import SEED_NOT_TAKEN
from knowgen.generators.hosted.base import HostedImages, ResponseImage, ServiceFormat
from knowgen.generators.hosted.client import ServiceRequest
from knowgen.generators.hosted.errors import ServiceRejectedError, exception_of
from knowgen.generators.hosted.hub_tasks import ProviderTask, image_of, size_parameters, task_of
from knowgen.generators.hosted.images import EncodedReference, ReferenceLimits
from knowgen.generators.hosted.request_fields import checked_fields, width_height

ROUTER = "https://router.huggingface.co"
"""Address of the hub's router, which reaches every provider with a token of the hub."""

KEY_ENV = "HF_TOKEN"
POLL_SECONDS = 1.0
"""Time between two questions for a queued image."""

SEED_NOT_READ = frozenset({"zai-org"})
"""Providers whose API for images has no seed (docs.z.ai, 2026-11-29)."""

_LISTS = {"fal-ai": ("image_urls",), "together": ("reference_images",), "replicate": ("images", "input_images")}
"""Fields that take several reference images, by provider, as the helpers of huggingface_hub name them."""

_TO_IMAGE, _EDIT = "text-to-image", "image-to-image"


@dataclass(eq=False, repr=False, kw_only=True)
class HubImages(HostedImages):
    """A model behind an inference provider of the hub.

    Args:
        model: `PROVIDER/OWNER/MODEL`, such as `fal-ai/black-forest-labs/FLUX.1-dev`.
        base_url: URL in place of the hub's router, without the provider.
        size: `WIDTHxHEIGHT`; empty for the model's own.
        fields: Further parameters by name, such as `{num_inference_steps: 28, guidance_scale: 3.5}`.
        edit_model: Model for requests with reference images, `OWNER/MODEL`; empty for the same model.
        max_references: Maximum number of reference images that are used. More than one is sent to fal-ai, replicate and
            together, whose models differ in how many they take.
        send_seed: Whether the seed is sent. When None, to every provider that has a field for it.

    The key is a token of the hub in `HF_TOKEN`, which is billed by the hub; or, with `key_env`, one of the provider,
    which is then called without the hub's router. Further arguments are those of `ServiceAccess`.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: The key is missing, or the provider makes no images.
        MissingDependencyError: The installed huggingface_hub has no inference providers.

    Example:
        >>> generator = HubImages(model="fal-ai/black-forest-labs/FLUX.1-dev", base_url="http://127.0.0.1:9")
        >>> generator.provider, generator.hub_model
        ('fal-ai', 'black-forest-labs/FLUX.1-dev')
    """

    revision = "hub-images-1"
    service_url = ROUTER
    most_references = 1
    models_path = ""

    size: str = ""
    fields: dict[str, Any] | None = None
    edit_model: str = ""
    max_references: int = 1
    send_seed: bool | None = None

    def __post_init__(self) -> None:
        """Check the arguments and create the client."""
        where = f"generator hub:{self.model}"
        self.provider, _, self.hub_model = str(self.model).partition("/")
        if not self.hub_model or "/" not in self.hub_model:
            raise UsageError("no provider and model are named", where=where, fix="write hub:PROVIDER/OWNER/MODEL")
        if type(self.max_references) is not int or self.max_references < 0:
            raise UsageError(f"max_references must be an integer >= 0, got {self.max_references!r}", where=where)
        if self.max_references > 1 and self.provider not in _LISTS:
            fix = f"leave max_references out, or use {', '.join(sorted(_LISTS))}"
            raise UsageError(f"{self.provider} takes one reference image", where=where, fix=fix)
        self._further = checked_fields(self.fields, where, frozenset({"size", "width", "height", "target_size"}))
        self._size = width_height(self.size, where) if self.size else {}
        self._tried: set[str] = set()
        helpers = provider_helpers(where)
        tasks = helpers.get(self.provider, {})
        if not {_TO_IMAGE, _EDIT} & tasks.keys():
            able = sorted(name for name, made in helpers.items() if {_TO_IMAGE, _EDIT} & made.keys())
            raise ConfigError(f"no provider {self.provider!r} makes images", where=where, fix=f"use {', '.join(able)}")
        self._helpers = {name: tasks[name] for name in (_TO_IMAGE, _EDIT) if name in tasks}
        service_format = ServiceFormat("hub", ROUTER, KEY_ENV, "Authorization", "Bearer", _LIMITS)
        url = endpoint_url(self.base_url, where, ROUTER)
        self._key = key_for(url, self.key_env, where, KEY_ENV)
        self.connect(replace(service_format, reference_limits=self._limits), self._recorded, self._provider_url(url))

    @property
    def _limits(self) -> ReferenceLimits:
        return replace(_LIMITS, max_images=self.max_references)

    @cached_property
    def _recorded(self) -> dict[str, Any]:
        edit = {"edit_model": self.edit_model} if self.edit_model else {}
        size = {"size": self.size} if self.size else {}
        fields = {"fields": self._further} if self._further else {}
        return {"provider": self.provider, **size, **edit, **fields}

    def _provider_url(self, url: str) -> str:
        """Return the URL of the provider: behind the router, or its own for a key of its own."""
        if self.base_url or self._key.startswith("hf_"):
            return f"{url}/{self.provider}"
        task = _EDIT if _EDIT in self._helpers else _TO_IMAGE  # the queue of fal.ai takes both
        return str(self._helpers[task].base_url)

    @classmethod
    def reference_limit(cls, max_references: int = 1, **_: Any) -> int:
        """Return the maximum number of reference images that some arguments allow."""
        return int(max_references)

    async def check_service(self) -> str:
        """Check that the provider serves the model, with a free call to the hub.

        Raises:
            AccountError: The model does not exist, or the provider does not serve it.
            ServiceUnavailableError: The hub cannot be reached, or is busy.
            ConfigError: The provider is not sent one of the chosen parameters.
        """
        task = _TO_IMAGE if _TO_IMAGE in self._helpers else _EDIT
        try:
            await asyncio.to_thread(self._try, task)
        except ServiceRejectedError as error:
            if _EDIT not in error.what:  # a model that edits only is used for requests with references
                raise AccountError(error.what, where=f"generator {self._client.name}") from error
        return ""

    def service_facts(self) -> str:
        """Return how the provider is reached, in one line."""
        seed = "a seed is sent" if self._sends_seed else "it takes no seed"
        tasks = " and ".join(self._helpers)
        return f"{self.provider} serves {self.hub_model} at {self._client.url}, which has {tasks}: {seed}"

    async def composed(self, request: GenerationRequest, references: Sequence[EncodedReference]) -> ServiceRequest:
        """Return the request as the provider takes it; the first one asks the hub for the provider's model name."""
        return await asyncio.to_thread(self.compose, request, references)

    def compose(self, request: GenerationRequest, references: Sequence[EncodedReference]) -> ServiceRequest:
        """Return the request as the provider takes it.

        Raises:
            ServiceRejectedError: The model edits only, and the request has no reference image.
            AccountError: The model does not exist, or the provider does not serve it.
            ServiceUnavailableError: The hub cannot be reached.
            ConfigError: The provider is not sent one of the chosen parameters, or does not serve the model for requests
                with reference images.
        """
        task = _EDIT if references else _TO_IMAGE
        if task not in self._tried:
            self._try(task)
        parameters: dict[str, Any] = {"seed": request.seed} if self._sends_seed else {}
        parameters |= size_parameters(self.provider, self._size, edit=bool(references))
        if not references:
            return self._prepared(_TO_IMAGE, request.prompt, parameters | self._further)
        parameters |= {"prompt": request.prompt}
        if len(references) > 1:
            urls = [reference.data_url for reference in references]
            parameters |= dict.fromkeys(_LISTS[self.provider], urls)
        as_url = self.provider in _LISTS  # their helpers keep its type; others read bytes, and a text as a path
        first = references[0].data_url if as_url else references[0].data
        return self._prepared(_EDIT, first, parameters | self._further)

    def _try(self, task: str) -> None:
        """Make a request that is not sent, and check that every chosen parameter is in it.

        Raises:
            ConfigError: The helper of the provider leaves one out.
            KnowgenError: As `compose`.
        """
        inputs: Any = "A red boat."
        if task == _EDIT:
            inputs = "data:image/png;base64,AA==" if self.provider in _LISTS else b"\x00"
        whole = self._prepared(task, inputs, self._further)
        dropped = [
            name
            for name in sorted(self._further)
            if self._prepared(task, inputs, {other: self._further[other] for other in self._further if other != name})
            == whole
        ]
        if dropped:
            what = f"huggingface_hub sends no {' and no '.join(dropped)} to {self.provider}"
            raise ConfigError(what, where=f"generator {self._client.name}", fix="leave it out of fields")
        self._tried.add(task)

    def _prepared(self, task: str, inputs: Any, parameters: dict[str, Any]) -> ServiceRequest:
        """Return a request as a helper of huggingface_hub makes it."""
        helper = self._helpers.get(task)
        if helper is None:
            where = f"generator {self._client.name}"
            raise ConfigError(
                f"{self.provider} has no {task}", where=where, fix="use another provider, or max_references=0"
            )
        model = self.edit_model or self.hub_model if task == _EDIT else self.hub_model
        try:
            made = helper.prepare_request(
                inputs=inputs, parameters=dict(parameters), headers={}, model=model, api_key=self._key
            )
        except ValueError as error:  # the model is not served by this provider, or for another task
            where = f"generator {self._client.name}"
            if self._serves_other_task(str(error)):
                what = f"{self.provider} does not serve {model} for {task} ({error})"
                if task == _EDIT:
                    fix = (
                        "name one that edits with edit_model=OWNER/MODEL, or leave references out with max_references=0"
                    )
                    raise ConfigError(what, where=where, fix=fix) from error
                raise ServiceRejectedError(what) from error
            raise AccountError(str(error), where=where, fix=f"see https://huggingface.co/{model}") from error
        except Exception as error:
            raise self._hub_error(error, model) from error
        base = helper._prepare_base_url(self._key).rstrip("/")
        own = ("authorization", "user-agent", "accept")
        headers = {name: value for name, value in made.headers.items() if name not in own}
        headers["Accept"] = "image/png"  # as the library's client asks; HF Inference would return a JPEG
        if self._own_scheme(made.headers):
            headers["Authorization"] = made.headers["authorization"]
        content = bytes(made.data) if made.data is not None else json.dumps(made.json).encode()
        return ServiceRequest(
            made.url.removeprefix(base), made.json or {}, content=content, headers=headers, error_inside=False
        )

    def _own_scheme(self, headers: Mapping[str, str]) -> bool:
        """Return whether a provider takes its key in another way than as a bearer token (fal: `Key …`)."""
        return not headers.get("authorization", "").startswith("Bearer ") and bool(headers.get("authorization"))

    @staticmethod
    def _serves_other_task(message: str) -> bool:
        return "is not supported for task" in message or "doesn't support task" in message

    def _hub_error(self, error: Exception, model: str) -> Exception:
        """Return the error of the call to the hub that looks up the provider's name of a model."""
        response = getattr(error, "response", None)
        name = self._client.name
        if response is not None:
            body, status = bytes(response.content or b""), int(response.status_code)
            found = read_error(status, response.headers, body, self._key)
            if status == 404:
                return AccountError(f"the hub has no model {model}", where=f"generator {name}", fix="correct its name")
            return exception_of(found, f"the hub, asked for {model},")
        if type(error).__name__ == "OfflineModeIsEnabled":
            return ConfigError("HF_HUB_OFFLINE is set", where=f"generator {name}", fix="unset it")
        what = f"the hub cannot be reached ({type(error).__name__})"
        return ServiceUnavailableError(what, service=name, busy=True)

    @property
    def _sends_seed(self) -> bool:
        return self.provider not in SEED_NOT_READ if self.send_seed is None else self.send_seed

    def optional_fields(self) -> frozenset[str]:
        """Return no field: what a provider refuses is an error, since its model decides what it takes."""
        return frozenset()

    def chosen_fields(self) -> frozenset[str]:
        """Return the parameters that the user chose."""
        sizes = {"width", "height", "size", "image_size", "target_size"}  # names of a size at the providers
        return frozenset(self._further) | (sizes if self._size else frozenset())

    def seed_settings(self, request: GenerationRequest) -> dict[str, Any]:
        """Return the settings to record about the seed and the operation."""
        seed = request.seed if self._sends_seed else SEED_NOT_TAKEN
        edit = bool(request.references) and self.max_references > 0
        sent = self._further.keys() | ({"seed"} if self._sends_seed else set()) | ({"size"} if self._size else set())
        unchecked = {"fields_unchecked": sorted(sent)} if sent else {}
        return {"seed": seed, "operation": _EDIT if edit else _TO_IMAGE, **unchecked}

    def price_options(self) -> tuple[str, ...]:
        """Return nothing: no published price depends on the settings here."""
        return ()

    def usage(self, data: Mapping[str, Any], headers: Mapping[str, str]) -> ReportedUsage:
        """Return the user's price of an image. Providers report no cost with an image."""
        return ReportedUsage(0, 0, self.prices.per_image, self.prices.per_image is not None)

    async def finished(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data of a finished image, and wait for it where the provider has put it into a queue."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self.timeout
        task, last = task_of(self.provider, data), ""
        while task.path and not (task.done and not task.result_path):
            if clock.time() >= deadline:
                what = f"{self._client.name} did not finish an image within {self.timeout:g} s{last}"
                raise ServiceUnavailableError(what, service=self._client.name)
            try:
                task = await self._next(task)
            except TransientError as error:  # the image is being made, and paid for: ask again
                last = f"; the last answer was: {error.what}"
                await asyncio.sleep(POLL_SECONDS)
        return task.data

    async def _next(self, task: ProviderTask) -> ProviderTask:
        """Return the result of a task that has ended, or its state after a moment."""
        if task.done:
            return ProviderTask(await self._get(task.result_path))
        await asyncio.sleep(POLL_SECONDS)
        after = task_of(self.provider, await self._get(task.path))
        return replace(after, path=after.path or task.path, result_path=after.result_path or task.result_path)

    async def _get(self, path: str) -> Mapping[str, Any]:
        """Return the JSON object of a free call; an error of the provider becomes an exception."""
        queue = "?_subdomain=queue" if self.provider == "fal-ai" and self._key.startswith("hf_") else ""
        status, headers, body = await self._client.get(path + queue)
        if not 200 <= status < 300:
            raise exception_of(read_error(status, headers, body, self._key), self._client.name)
        data = json_object(body, self._key)
        if data is None:
            raise ServiceUnavailableError(f"{self._client.name} answered without a JSON object", busy=False)
        return data

    def read_image(self, data: Mapping[str, Any]) -> ResponseImage:
        """Return the image, as bytes, in base64 or as a URL."""
        return image_of(self.provider, data, self._client.name, self.clean)


_LIMITS = ReferenceLimits(max_images=1, max_bytes=7_000_000, max_pixels=36_000_000)


def provider_helpers(where: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the helpers of huggingface_hub by provider and task.

    Raises:
        MissingDependencyError: The installed version has none.
    """
    try:
        from huggingface_hub.inference._providers import PROVIDERS
    except ImportError as error:
        fix = "pip install -U 'huggingface_hub>=1.0'"
        raise MissingDependencyError("huggingface_hub has no inference providers", where=where, fix=fix) from error
    return {str(name): dict(tasks) for name, tasks in PROVIDERS.items()}
