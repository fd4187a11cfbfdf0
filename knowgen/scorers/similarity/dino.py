"""DINOv2 and DINOv3 models of transformers, from a folder or the hub's cache; the embedding is the class token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import ConfigError, MissingDependencyError, UsageError
from knowgen.core.home import expand_user
from knowgen.core.spec import fingerprint
from knowgen.core.text import error_message, parse_json
from knowgen.local_models.weights import (
    files_digest,
    hub_folder,
    missing_weights,
    offline,
    require_packages,
    versions,
)
from knowgen.scorers.similarity.names import ModelName, is_hub_name
from knowgen.scorers.similarity.networks import NetworkIdentity, Vectors, autocast, move_to_device, unit_vectors

if TYPE_CHECKING:
    from PIL.Image import Image

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
PATTERNS = (CONFIG, PREPROCESSOR, "*.safetensors", "*.safetensors.index.json")
"""Files of a model. Weights must be safetensors, because other formats can run code when they are opened."""

LIBRARIES = ("transformers", "torch", "torchvision", "pillow")


class DinoSource:
    """Finds and loads a DINO model.

    Args:
        name: Name of the family dino.
        download: Whether missing weights may be downloaded.
        where: Name of the scorer in errors.
    """

    def __init__(self, name: ModelName, *, download: bool, where: str) -> None:
        self._name, self._download, self._where = name, download, where
        self._folder = Path()

    def prepare(self) -> NetworkIdentity:
        """Find the weights; see `NetworkSource.prepare`."""
        require_packages(self._where, "transformers", "torch", "torchvision")
        self._folder = self._find()
        configs = {name: self._config(name) for name in (CONFIG, PREPROCESSOR)}
        kind = str(configs[CONFIG].get("model_type", ""))
        if not kind.startswith(("dinov2", "dinov3")):
            raise UsageError(
                f"{self._name.source} is a model of type {kind!r}, which is neither DINOv2 nor DINOv3",
                where=self._where,
                fix="name a CLIP model without `dino:`",
            )
        weights = sorted(self._folder.glob("*.safetensors"))
        if not weights:
            raise MissingDependencyError(
                f"{self._folder} has no weights (*.safetensors)", where=self._where, fix="give -s download=true"
            )
        return NetworkIdentity(
            model=self._name.source if is_hub_name(self._name.source) else self._folder.name,
            weights=files_digest(weights),
            config=fingerprint(configs),
            libraries=versions(*LIBRARIES),
        )

    def _find(self) -> Path:
        source = self._name.source
        folder = expand_user(source)
        if folder.is_dir():
            return folder
        if not is_hub_name(source):
            raise MissingDependencyError(
                f"the folder {source!r} does not exist", where=self._where, fix="name a folder, or ORG/NAME on the hub"
            )
        return hub_folder(source, patterns=PATTERNS, download=self._download, where=self._where)

    def _config(self, name: str) -> dict[str, Any]:
        path = self._folder / name
        if not path.is_file():
            if is_hub_name(self._name.source) and not Path(self._name.source).is_dir():
                raise missing_weights(self._name.source, self._where)
            raise MissingDependencyError(f"{self._folder} has no {name}", where=self._where, fix="add the file")
        try:
            config: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"not valid JSON: {error}", where=str(path), fix="download the model again") from error
        return config

    def load(self, device: str, precision: str) -> DinoNetwork:
        """Load the model; see `NetworkSource.load`."""
        import transformers

        library: Any = transformers  # it is not fully typed
        try:
            with offline(True):
                processor = library.AutoImageProcessor.from_pretrained(str(self._folder), local_files_only=True)
                model, report = library.AutoModel.from_pretrained(
                    str(self._folder), local_files_only=True, use_safetensors=True, output_loading_info=True
                )
        except (RuntimeError, ValueError, KeyError, AttributeError, OSError) as error:
            raise self._load_error(error_message(error)) from error
        if report["missing_keys"]:  # transformers would initialise them at random
            missing = sorted(report["missing_keys"])
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise self._load_error(f"weights are missing: {missing[0]}{more}")
        return DinoNetwork(move_to_device(model, device, self._where), processor, device, precision)

    def _load_error(self, what: str) -> ConfigError:
        fix = "download the model again"
        return ConfigError(f"{self._folder} cannot be loaded: {what}", where=self._where, fix=fix)


class DinoNetwork:
    """A loaded DINO model; see `Network`.

    Args:
        model: Model on its device.
        processor: Image processor, from an RGB image to a tensor.
        device: Device as torch names it.
        precision: fp32, bf16 or fp16.
    """

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        self._model, self._processor, self._device, self._precision = model, processor, device, precision

    def pixels(self, image: Image) -> Any:
        """Return a tensor of shape (3, height, width)."""
        return self._processor(images=image, return_tensors="pt")["pixel_values"][0]

    def images(self, batch: Sequence[Any]) -> Vectors:
        """Return the class tokens after the last norm, as unit vectors."""
        import torch

        with torch.inference_mode(), autocast(self._device, self._precision):
            outputs = self._model(pixel_values=torch.stack(list(batch)).to(self._device))
            return unit_vectors(outputs.pooler_output)

    def texts(self, texts: Sequence[str]) -> tuple[Vectors, list[bool]]:
        """Raise an error, because a DINO model has no text tower.

        Raises:
            UsageError: Always.
        """
        raise UsageError("a DINO model has no text tower", fix="name a CLIP model")
