"""CLIP models of open_clip: listed weights, a checkpoint file, a folder, or a hub repository."""

from __future__ import annotations

import difflib
import json
import pickle
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import ConfigError, MissingDependencyError, UsageError
from knowgen.core.home import expand_user, home_folder
from knowgen.core.spec import fingerprint
from knowgen.core.text import error_message, parse_json
from knowgen.local_models.weights import file_digest, hub_file, missing_weights, offline, require_packages, versions
from knowgen.scorers.similarity.names import ModelName
from knowgen.scorers.similarity.networks import NetworkIdentity, Vectors, autocast, move_to_device, unit_vectors

if TYPE_CHECKING:
    from PIL.Image import Image

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""File names under which open_clip looks for weights in a repository, in its order."""

FOLDER_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
"""File names under which open_clip looks for weights in a folder, in its order."""

LIBRARIES = ("open_clip_torch", "torch", "torchvision", "pillow")
PARTS = {"timm_model_name": "timm", "hf_model_name": "transformers", "hf_tokenizer_name": "transformers"}
"""Fields of a configuration that use another library, whose version then affects the embedding too."""


class ClipSource:
    """Finds and loads an open_clip model.

    Args:
        name: Name of any family but dino.
        download: Whether missing weights may be downloaded.
        where: Name of the scorer in errors.
    """

    def __init__(self, name: ModelName, *, download: bool, where: str) -> None:
        self._name, self._download, self._where = name, download, where
        self._weights = Path()
        self._preprocess: dict[str, Any] = {}

    def prepare(self) -> NetworkIdentity:
        """Find the weights; see `NetworkSource.prepare`."""
        require_packages(self._where, "open_clip", "torch", "torchvision")
        finders = {
            "hub": self._prepare_hub,
            "folder": self._prepare_folder,
            "tag": self._prepare_tag,
            "file": self._prepare_file,
        }
        config = finders[self._name.family]()
        return NetworkIdentity(
            model=self._display_name,
            weights=file_digest(self._weights),
            config=fingerprint({"model": config, "preprocess": self._preprocess}),
            libraries=versions(*LIBRARIES, *(library for part, library in PARTS.items() if part in json.dumps(config))),
        )

    def _prepare_hub(self) -> Any:
        repository = self._name.source
        path = hub_file(repository, [CONFIG], download=self._download, where=self._where)
        self._weights = hub_file(repository, WEIGHTS, download=self._download, where=self._where)
        return self._read(path)

    def _prepare_folder(self) -> Any:
        folder = expand_user(self._name.source)
        weights = [folder / name for name in FOLDER_WEIGHTS if (folder / name).is_file()]
        if not weights or not (folder / CONFIG).is_file():
            raise MissingDependencyError(
                f"{str(folder)!r} has no {CONFIG} with {' or '.join(FOLDER_WEIGHTS)}",
                where=self._where,
                fix="name a folder from which open_clip can load a model",
            )
        self._weights = weights[0]
        return self._read(folder / CONFIG)

    def _read(self, path: Path) -> Any:
        try:
            return parse_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"not valid JSON: {error}", where=str(path), fix="replace the file") from error

    def _prepare_file(self) -> Any:
        config = self._architecture()
        self._weights = expand_user(self._name.source)
        if not self._weights.is_file():
            raise MissingDependencyError(
                f"the file {str(self._weights)!r} does not exist", where=self._where, fix="put the checkpoint there"
            )
        return config

    def _prepare_tag(self) -> Any:
        import open_clip

        config, (arch, tag) = self._architecture(), (self._name.arch, self._name.source)
        config_of_tag = open_clip.get_pretrained_cfg(arch, tag)
        if not config_of_tag:
            tags = open_clip.list_pretrained_tags_by_model(arch)
            suggestions = difflib.get_close_matches(tag, tags, n=1, cutoff=0.4)
            fix = f"did you mean {arch}/{suggestions[0]}?" if suggestions else f"known are {', '.join(tags) or 'none'}"
            raise UsageError(f"open_clip lists no weights {tag!r} of {arch}", where=self._where, fix=fix)
        if config_of_tag.get("quick_gelu") and not config.get("quick_gelu"):
            # open_clip only warns, and then uses another activation than in training
            raise UsageError(
                f"the weights {tag!r} were trained with another activation than that of {arch}",
                where=self._where,
                fix=f"name it {arch}-quickgelu/{tag}",
            )
        self._preprocess = {key: config_of_tag.get(key) for key in ("mean", "std", "interpolation", "resize_mode")}
        self._weights = self._of_tag(config_of_tag)
        return config

    def _of_tag(self, config_of_tag: dict[str, Any]) -> Path:
        """Return the file of listed weights, from the hub's cache or open_clip's own folder."""
        repository, _, file = str(config_of_tag.get("hf_hub", "")).rpartition("/")
        home = home_folder()
        own = None if home is None else home / ".cache" / "clip" / Path(str(config_of_tag.get("url", ""))).name
        if config_of_tag.get("url") and own is not None and own.is_file():
            return own
        if not repository:
            raise missing_weights(f"{self._name.text} ({config_of_tag.get('url', '')})", self._where)
        names = WEIGHTS if not file else (str(Path(file).with_suffix(".safetensors")), file)
        return hub_file(repository, names, download=self._download, where=self._where)

    def _architecture(self) -> Any:
        """Return the configuration of the architecture.

        Raises:
            UsageError: open_clip has no architecture of this name.
        """
        if (bundled := _bundled(self._name.arch)) is not None:
            return bundled
        import open_clip

        config = open_clip.get_model_config(self._name.arch)
        if config is None:
            known = open_clip.list_models()
            suggestions = difflib.get_close_matches(self._name.arch, known, n=1, cutoff=0.4)
            fix = f"did you mean {suggestions[0]!r}?" if suggestions else "see open_clip.list_models()"
            raise UsageError(f"open_clip has no architecture {self._name.arch!r}", where=self._where, fix=fix)
        return config

    def load(self, device: str, precision: str) -> ClipNetwork:
        """Load the model; see `NetworkSource.load`."""
        import open_clip

        overlay = {f"image_{key}": value for key, value in self._preprocess.items()}
        try:
            with offline(not self._download):
                model, preprocess = open_clip.create_model_from_pretrained(
                    self._library_name, str(self._weights) if self._name.arch else None, weights_only=True, **overlay
                )
        except (RuntimeError, ValueError, KeyError, AttributeError, OSError, EOFError, pickle.UnpicklingError) as error:
            raise ConfigError(
                f"{self._weights.name} cannot be loaded as weights of {self._display_name}: {error_message(error)}",
                where=self._where,
                fix="give a checkpoint of this architecture",
            ) from error
        return ClipNetwork(move_to_device(model, device, self._where), preprocess, self._tokenizer, device, precision)

    @property
    def _library_name(self) -> str:
        """The name of the model for open_clip's functions."""
        if self._name.family == "folder":
            return f"local-dir:{expand_user(self._name.source)}"
        return self._name.arch or f"hf-hub:{self._name.source}"

    @property
    def _display_name(self) -> str:
        """The name of the model without a path."""
        return Path(self._name.source).name if self._name.family == "folder" else self._name.arch or self._name.source

    def _tokenizer(self) -> Any:
        import open_clip

        try:
            with offline(not self._download):
                return open_clip.get_tokenizer(self._library_name)
        except (OSError, ValueError) as error:
            raise MissingDependencyError(
                f"the tokenizer of {self._display_name} is not on this machine: {error_message(error)}",
                where=self._where,
                fix="give -s download=true",
            ) from error


def _bundled(arch: str) -> Any:
    """Return the configuration of an architecture from open_clip's files, without importing it; None if not there.

    Importing open_clip takes seconds and is not needed where all embeddings are cached. Where it is imported already,
    the result is None too, because the user may have added architectures to it.
    """
    spec = find_spec("open_clip")
    if "open_clip" in sys.modules or spec is None:
        return None
    for folder in spec.submodule_search_locations or ():
        file = Path(folder) / "model_configs" / f"{arch}.json"
        if file.is_file():
            return parse_json(file.read_text(encoding="utf-8"))
    return None


class ClipNetwork:
    """A loaded open_clip model; see `Network`.

    Args:
        model: Model on its device.
        preprocess: Function from an RGB image to a tensor.
        tokenizer: Function that returns the tokenizer, called for the first text.
        device: Device as torch names it.
        precision: fp32, bf16 or fp16.
    """

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, device: str, precision: str) -> None:
        self._model, self._preprocess, self._make_tokenizer = model, preprocess, tokenizer
        self._device, self._precision = device, precision
        self._tokenizer: Any = None

    def pixels(self, image: Image) -> Any:
        """Return a tensor of shape (3, size, size)."""
        return self._preprocess(image)

    def images(self, batch: Sequence[Any]) -> Vectors:
        """Return unit vectors of images."""
        import torch

        with torch.inference_mode(), autocast(self._device, self._precision):
            return unit_vectors(self._model.encode_image(torch.stack(list(batch)).to(self._device)))

    def texts(self, texts: Sequence[str]) -> tuple[Vectors, list[bool]]:
        """Return unit vectors of texts; a text longer than the model's context is cut at its end."""
        import torch

        if self._tokenizer is None:
            self._tokenizer = self._make_tokenizer()
        tokens = self._tokenizer(list(texts))
        with torch.inference_mode(), autocast(self._device, self._precision):
            vectors = unit_vectors(self._model.encode_text(tokens.to(self._device)))
        return vectors, [self._is_cut(text) for text in texts]

    def _is_cut(self, text: str) -> bool:
        """Return whether a text has more tokens than the model's context, with the start and end tokens."""
        inner = getattr(self._tokenizer, "tokenizer", None)  # the tokenizer of transformers that it wraps
        tokens = len(inner(text)["input_ids"]) if inner is not None else len(self._tokenizer.encode(text)) + 2
        return tokens > int(self._tokenizer.context_length)
