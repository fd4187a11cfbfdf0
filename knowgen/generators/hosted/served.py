"""Published systems that diffusers cannot run, through a server that can: its settings and its command line.

The data is in `served.yaml`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import Field

from knowgen.core.errors import UsageError
from knowgen.core.records import Record
from knowgen.generators.hosted.openai import PROMPT_MARK, OpenAiImages
from knowgen.generators.hosted.request_fields import merged
from knowgen.generators.hosted.servers import AUTO

DEFAULT_URL = "http://127.0.0.1:8000/v1"
"""Where vLLM serves on this machine."""

_DATA = files("knowgen.generators.hosted").joinpath("served.yaml")


class ServedPreset(Record):
    """The settings of a published system behind a server.

    Attributes:
        name: Name, as in `served:NAME`.
        row: Its row in the published table.
        model: Name that the server serves.
        serve: Command line of the server.
        server: Kind of the server.
        api: API of the server that is used.
        size: `WIDTHxHEIGHT` in pixels.
        prompt_format: Text around the prompt.
        max_references: Maximum number of reference images.
        fields: Fields of requests.
        edit_fields: Fields of requests with reference images; None for the same.
        published_seed: Seed of the published images, `none` where it was not fixed.
        source: Where the settings are from.
    """

    name: str = ""
    row: str
    model: str
    serve: str
    server: str
    api: str = "images"
    size: str = "auto"
    prompt_format: str = PROMPT_MARK
    max_references: int = 0
    fields: dict[str, Any] = Field(default_factory=dict)
    edit_fields: dict[str, Any] | None = None
    published_seed: str | int = "none"
    source: str


class _ServedFile(Record):
    presets: dict[str, ServedPreset]


@cache
def _served_file() -> _ServedFile:
    import yaml

    data = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    for name, entry in data["presets"].items():
        entry["name"] = name
    return _ServedFile.model_validate(data)


def served_presets() -> list[ServedPreset]:
    """Return all presets, in the order of the data file."""
    return list(_served_file().presets.values())


def served_preset(name: str) -> ServedPreset:
    """Return the preset of a name in any case.

    Raises:
        UsageError: There is none.

    Example:
        >>> served_preset("BAGEL").model
        'ByteDance-Seed/BAGEL-7B-MoT'
    """
    found = _served_file().presets.get(str(name).strip().casefold())
    if found is None:
        names = ", ".join(f"served:{preset.name}" for preset in served_presets())
        raise UsageError(f"no preset {name!r}", where="generator served", fix=f"write {names}; or openai:MODEL")
    return found


@dataclass(eq=False, repr=False, kw_only=True)
class ServedImages(OpenAiImages):
    """A published system behind a server that runs it, with the settings of its preset.

    Args:
        model: Name of the preset, such as `bagel`.
        base_url: URL of the server, up to and with `/v1`.

    Further arguments are those of `OpenAiImages`. They replace the preset's; `fields` and `edit_fields` are added to
    them.

    Raises:
        UsageError: The preset does not exist, or an argument is out of its range.
        ConfigError: The key is missing, or the URL holds a secret.

    Example:
        >>> generator = ServedImages(model="bagel", fields={"num_inference_steps": 25})
        >>> generator.model, generator.fields["num_inference_steps"], generator.fields["cfg_text_scale"]
        ('ByteDance-Seed/BAGEL-7B-MoT', 25, 4.0)
    """

    revision = f"served-images-{hashlib.sha256(OpenAiImages.revision.encode() + _DATA.read_bytes()).hexdigest()[:8]}"
    service_url = DEFAULT_URL

    base_url: str = field(default=DEFAULT_URL, kw_only=True)

    def __post_init__(self) -> None:
        """Fill in the settings of the preset, check the arguments and create the client."""
        preset = served_preset(self.model)
        for name, default in (("server", AUTO), ("api", "images"), ("size", "auto"), ("prompt_format", PROMPT_MARK)):
            if getattr(self, name) == default:
                setattr(self, name, getattr(preset, name))
        if self.max_references is None:
            self.max_references = preset.max_references
        edit = preset.fields if preset.edit_fields is None else preset.edit_fields
        more = self.fields if isinstance(self.fields, dict) else {}
        if self.edit_fields is None or isinstance(self.edit_fields, dict):
            self.edit_fields = merged(edit, self.edit_fields if self.edit_fields is not None else more)
        if self.fields is None or isinstance(self.fields, dict):
            self.fields = merged(preset.fields, more)
        self.model = preset.model
        super().__post_init__()
        self._settings |= {"preset": preset.name, "row": preset.row}

    @classmethod
    def reference_limit(  # type: ignore[override]
        cls, model: str = "", max_references: int | None = None, **_: Any
    ) -> int:
        """Return the maximum number of reference images that some arguments allow."""
        return served_preset(model).max_references if max_references is None else int(max_references)

    @classmethod
    def price_known(cls, model: str, base_url: str = DEFAULT_URL, price: float | None = None, **_: Any) -> bool:
        """Return whether the cost of an image is known, or the server is on this machine."""
        return super().price_known(model, base_url, price)
