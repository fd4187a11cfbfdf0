"""The files of a diffusers pipeline: where they are on this machine, whether they are complete, and their hash."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError, MissingDependencyError, UsageError
from knowgen.core.home import expand_user
from knowgen.core.text import parse_json
from knowgen.generators.diffusers.components import INDEX, ComponentSource, folder_with
from knowgen.local_models.weight_sizes import folder_parameters, weight_files
from knowgen.local_models.weights import (
    SAFETENSORS,
    content_id,
    hub_folder,
    is_hub_name,
    looks_like_path,
    not_downloaded,
    online,
    refuse_pickles,
)

_TEXT_SUFFIXES = (".json", ".txt", ".model", ".jinja")


@dataclass(frozen=True)
class PipelineFiles:
    """The folder of a pipeline.

    Attributes:
        folder: Folder with `model_index.json`.
        revision: Commit on the hub; empty for a local folder.
        pipeline: Class of the pipeline as named in the folder.
        components: Names of its components.
        classes: Class of each component.
        libraries: Library of each component that has weights: diffusers or transformers.
        replaced: Components whose weights come from elsewhere, so that those in the folder are not used.
        sources: Models from which components come, by component; the others are in the pipeline's own repository.
    """

    folder: Path
    revision: str
    pipeline: str
    components: tuple[str, ...]
    classes: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    replaced: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def denoiser(self) -> str:
        """Name of the component that removes noise; empty for a pipeline without one."""
        return _denoiser(self.components)

    def parameters(self, variant: str = "") -> dict[str, int]:
        """Return the number of parameters of each component, as far as its files say it.

        Args:
            variant: Variant of the weights, such as `fp16`; empty for the default.
        """
        counts: dict[str, int] = {}
        for component in self.libraries:
            try:
                counts[component] = folder_parameters(self.folder / component, variant)
            except (ValueError, KeyError, TypeError):
                continue  # a damaged file, about which loading gives an error
        return counts

    def weight_files(self, variant: str = "") -> list[Path]:
        """Return the files with weights that are loaded; `variant` as above."""
        own = [component for component in self.libraries if component not in self.replaced]
        return [file for component in own for file in weight_files(self.folder / component, variant)]

    def digest(self) -> str:
        """Return a hash of the model's content: 12 hex digits over the files of its components."""
        return content_id(self.folder, self._files())

    def _files(self) -> Iterator[Path]:
        yield self.folder / INDEX
        for component in sorted(self.components):
            for file in sorted((self.folder / component).rglob("*")):
                weights = {SAFETENSORS} - ({SAFETENSORS} if component in self.replaced else set())
                if file.suffix in {*_TEXT_SUFFIXES, *weights} and file.is_file():
                    yield file


def find_files(
    model: str,
    revision: str,
    *,
    download: bool,
    where: str,
    variant: str = "",
    own_denoiser: bool = True,
    components: Mapping[str, ComponentSource] | None = None,
    lacking: Mapping[str, ComponentSource] | None = None,
) -> PipelineFiles:
    """Find the files of a pipeline.

    Args:
        model: A folder, or ORG/NAME on the hub.
        revision: Branch, tag or commit on the hub; ignored for a folder.
        download: Whether to download what is missing from the hub.
        where: Names the generator in errors.
        variant: Variant of the weights, such as `fp16`; empty for the default.
        own_denoiser: Whether the denoiser's weights are used; otherwise they may be missing.
        components: Where components come from, instead of from the pipeline's folder.
        lacking: Where those components come from that the folder lacks.

    Raises:
        UsageError: The model is neither a folder nor a name on the hub.
        MissingDependencyError: The files are not on this machine, or not complete.
        DataError: The folder is not a pipeline, its weights are pickles, or it contains code.
    """
    folder, commit = expand_user(model), ""
    if not folder.is_dir():
        _check_name(model, where)
        folder = _hub_snapshot(model, revision, download, variant, where, own_denoiser=own_denoiser)
        commit = folder.name if folder.parent.name == "snapshots" else revision
    index = _read_index(folder, where)
    absent = {name: source for name, source in (lacking or {}).items() if not (folder / name).is_dir()}
    sources = {**absent, **(components or {})}
    if sources:
        folder = folder_with(folder, index, sources, download=download, where=where)
        index = _read_index(folder, where)
    entries = {name: entry for name, entry in index.items() if _is_component(entry)}
    names = tuple(entries)
    replaced = () if own_denoiser else (_denoiser(names),)
    for component, (library, _) in entries.items():
        _check_component(folder, component, str(library), model, where, weights=component not in replaced)
    return PipelineFiles(
        folder,
        commit,
        str(index["_class_name"]),
        names,
        {component: str(name) for component, (_, name) in entries.items()},
        {component: str(library) for component, (library, _) in entries.items() if _has_weights(folder / component)},
        replaced,
        {name: source.text for name, source in sources.items()},
    )


def _check_name(model: str, where: str) -> None:
    """Check that what is not a folder is a name on the hub."""
    if looks_like_path(model):
        raise MissingDependencyError("the folder does not exist", where=where, fix=f"it should contain {INDEX}")
    if not is_hub_name(model, owner=True):
        raise UsageError(
            f"{model!r} is neither a preset nor a folder nor ORG/NAME on the hub",
            where=where,
            fix="presets are listed by `knowgen list generators -v`",
        )


def _denoiser(components: tuple[str, ...]) -> str:
    return next((name for name in ("transformer", "unet") if name in components), "")


def _has_weights(folder: Path) -> bool:
    """Return whether a component is a model: a tokenizer, a processor or a scheduler has no weights."""
    names = {file.name for file in folder.iterdir()}
    return "config.json" in names and not names & {"tokenizer_config.json", "preprocessor_config.json"}


def _hub_snapshot(model: str, revision: str, download: bool, variant: str, where: str, *, own_denoiser: bool) -> Path:
    """Return the folder of a pipeline in the hub's cache, downloaded on request.

    Of a denoiser whose weights come from elsewhere only the configuration is downloaded.
    """
    if not download:
        # a download leaves out files that are not needed; which of them are is checked by component
        return hub_folder(model, revision=revision, patterns=[INDEX], download=False, where=where, option="-g ")
    from diffusers import DiffusionPipeline
    from huggingface_hub import hf_hub_download

    options: dict[str, Any] = {"variant": variant} if variant else {}
    try:
        # downloads what the index names, and only safetensors
        with online():
            if own_denoiser:
                return Path(DiffusionPipeline.download(model, revision=revision, use_safetensors=True, **options))
            index = _read_index(Path(hf_hub_download(model, INDEX, revision=revision)).parent, where)
            denoiser = _denoiser(tuple(name for name, entry in index.items() if _is_component(entry)))
            given = {denoiser: None} if denoiser else {}  # what is given is left out of the download
            folder = Path(
                DiffusionPipeline.download(model, revision=revision, use_safetensors=True, **given, **options)
            )
            if denoiser:
                hf_hub_download(model, f"{denoiser}/config.json", revision=folder.name)
            return folder
    except (OSError, ValueError) as error:  # every error of the hub's client is one of the two
        raise not_downloaded(model, error, where) from error


def _incomplete(model: str, where: str, problem: str, other: str = "") -> MissingDependencyError:
    return MissingDependencyError(
        f"the weights of {model} are not complete on this machine: {problem}",
        where=where,
        fix=f"type `hf download {model}`, or give -g download=true"
        + (f"; a model that has it: -g '{other}'" if other else ""),
    )


def _read_index(folder: Path, where: str) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        raise DataError(f"{folder} is not a diffusers pipeline ({INDEX} is missing)", where=where)
    try:
        index = parse_json(path.read_text(encoding="utf-8"))
        name = index["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("not the index of a diffusers pipeline (_class_name is missing)", where=str(path)) from error
    if not isinstance(name, str):
        raise DataError("asks for code from the model's folder, which is not run", where=str(path))
    return dict(index)


def _is_component(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)


def _check_component(
    folder: Path, component: str, library: str, model: str, where: str, *, weights: bool = True
) -> None:
    """Check that a component has no code and, if its weights are used, has all of them as safetensors.

    Raises:
        MissingDependencyError: A file is missing.
        DataError: It has code, or its weights are pickles.
    """
    path = folder / component
    if not re.fullmatch(r"\w+", component) or (path / f"{library}.py").exists():
        raise DataError(f"its component {component!r} contains code, which is not run", where=where)
    if not path.is_dir():
        raise _incomplete(model, where, f"{component} is missing", f"components={{{component}: ORG/NAME}}")
    names = {file.name for file in path.iterdir()}
    if not weights or not _has_weights(path):
        return
    if not any(name.endswith(".safetensors") for name in names):
        refuse_pickles(names, component, where)
        raise _incomplete(model, where, f"{component} has no safetensors file")
    for name in names:
        if name.endswith(".safetensors.index.json"):
            shards = set(parse_json((path / name).read_text(encoding="utf-8"))["weight_map"].values())
            if missing := sorted(shards - names):
                raise _incomplete(model, where, f"{missing[0]} of {component} is missing")
