"""Components of a pipeline that come from another model: one that its repository lacks, or one to use instead.

The pipeline is loaded from a folder of links to the files of both, so that whatever is done with a component's files is
done with these: quantization, placement, the hash of the weights.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.atomic import folder_draft
from knowgen.core.cache import cache_folder
from knowgen.core.errors import ConfigError, DataError, MissingDependencyError, UsageError
from knowgen.core.home import expand_user
from knowgen.core.spec import fingerprint
from knowgen.core.text import parse_json
from knowgen.local_models.weights import hub_folder, is_hub_name, looks_like_path

INDEX = "model_index.json"
"""Names the class of the pipeline and of each component, which has a folder of its name."""

_EXAMPLE = "components={text_encoder_4: ORG/NAME}"
_CONFIG, _TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")
_TOKENIZER = re.compile(r"(tokenizer|vocab|merges|special_tokens|added_tokens|spiece|sentencepiece|chat_template)")
_TEXT_ENCODER = re.compile(r"text_encoder(_\d+)?\Z")


@dataclass(frozen=True)
class ComponentSource:
    """Where a component comes from.

    Attributes:
        model: A folder, or ORG/NAME on the hub.
        subfolder: Folder in it; empty for itself.
    """

    model: str
    subfolder: str = ""

    @property
    def text(self) -> str:
        """The source as it is written."""
        return f"{self.model}:{self.subfolder}" if self.subfolder else self.model

    def find(self, component: str, *, download: bool, where: str) -> Path:
        """Return the folder with the component's files on this machine.

        Args:
            component: Name of the component, for messages.
            download: Whether it may be downloaded from the hub.
            where: Names the generator in errors.

        Raises:
            UsageError: The model is neither a folder nor a name on the hub.
            MissingDependencyError: It is not on this machine.
        """
        folder = expand_user(self.model)
        if not folder.is_dir():
            if looks_like_path(self.model):
                what = f"components: the folder {self.model} of {component} does not exist"
                raise MissingDependencyError(what, where=where, fix="name a folder, or ORG/NAME on the hub")
            if not is_hub_name(self.model, owner=True):
                what = f"components: {self.model!r} for {component} is neither a folder nor ORG/NAME on the hub"
                raise UsageError(what, where=where, fix=f"write {_EXAMPLE}")
            inside = f"{self.subfolder}/" if self.subfolder else ""
            patterns = [f"{inside}*{suffix}" for suffix in _SUFFIXES]
            folder = hub_folder(self.model, download=download, where=where, patterns=patterns, option="-g ")
        path = folder / self.subfolder
        if not path.is_dir():
            raise MissingDependencyError(f"components: {self.model} has no folder {self.subfolder!r}", where=where)
        return path


def parse_components(value: Any, option: str, where: str) -> dict[str, ComponentSource]:
    """Return where components come from, by name.

    Args:
        value: A model for each component: a folder or ORG/NAME, with `:SUBFOLDER` where it is not the whole model.
        option: Name of the argument.
        where: Names the generator in errors.

    Raises:
        UsageError: It is of another form.

    Example:
        >>> parse_components({"vae": "ORG/NAME:vae"}, "components", "generator")
        {'vae': ComponentSource(model='ORG/NAME', subfolder='vae')}
    """
    if not value:
        return {}
    if not isinstance(value, Mapping) or not all(str(name).isidentifier() and model for name, model in value.items()):
        raise UsageError(f"{option} takes a model for each component, not {value!r}", where=where, fix=_EXAMPLE)
    return {str(name): _source(str(model).strip()) for name, model in value.items()}


def _source(text: str) -> ComponentSource:
    before, colon, after = text.rpartition(":")
    if expand_user(text).is_dir() or not colon or len(before) < 2 or after.startswith(("/", "\\")):
        return ComponentSource(text)
    return ComponentSource(before, after)


def folder_with(
    folder: Path, index: Mapping[str, Any], sources: Mapping[str, ComponentSource], *, download: bool, where: str
) -> Path:
    """Return a folder with the files of a pipeline in which components come from elsewhere.

    A text encoder brings the tokenizer of its number along where the pipeline lacks it.

    Args:
        folder: Folder of the pipeline.
        index: Its `model_index.json`.
        sources: Where components come from, by name.
        download: Whether they may be downloaded from the hub.
        where: Names the generator in errors.

    Raises:
        UsageError: A model is neither a folder nor a name on the hub.
        MissingDependencyError: A component is not on this machine.
        DataError: It does not say which class it is of.
        ConfigError: No links can be made on this disk.
    """
    entries, links = dict(index), {}
    for name, source in sources.items():
        found = source.find(name, download=download, where=where)
        entries[name] = _entry(name, found, index.get(name), source, where)
        links.update(_links(name, found))
        tokenizer = name.replace("text_encoder", "tokenizer")
        if _TEXT_ENCODER.match(name) and tokenizer not in sources and not (folder / tokenizer).is_dir():
            entries[tokenizer] = _entry(tokenizer, found, index.get(tokenizer), source, where)
            links.update(_links(tokenizer, found))
    replaced = {link.partition("/")[0] for link in links}
    links.update({path.name: path for path in folder.iterdir() if path.name not in {INDEX, *replaced}})
    return _linked(entries, links, where)


def _entry(component: str, folder: Path, known: Any, source: ComponentSource, where: str) -> list[str]:
    """Return library and class of a component: those of the pipeline's index, else what its own files say."""
    if isinstance(known, list) and len(known) == 2 and all(isinstance(word, str) for word in known):
        return known
    config_name = _TOKENIZER_CONFIG if component.startswith("tokenizer") else _CONFIG
    try:
        config = parse_json((folder / config_name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = f"components: {source.text} has no readable {config_name} for {component}"
        raise DataError(what, where=where) from error
    if isinstance(name := config.get("_class_name"), str):
        return ["diffusers", name]
    names = [config.get("tokenizer_class")] if config_name == _TOKENIZER_CONFIG else config.get("architectures")
    if not names or not isinstance(names[0], str):
        raise DataError(f"components: {source.text} does not name the class of {component}", where=where)
    return ["transformers", names[0]]


def _links(component: str, folder: Path) -> dict[str, Path]:
    """Return the files of a component by their place in the pipeline's folder.

    A model of transformers has its tokenizer beside it, which is a component of its own in a pipeline.
    """
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name != INDEX]
    if (folder / _CONFIG).is_file() and (folder / _TOKENIZER_CONFIG).is_file():
        of_tokenizer = component.startswith("tokenizer")
        files = [file for file in files if (_TOKENIZER.match(file.name) is not None) == of_tokenizer]
    return {f"{component}/{file.name}": file for file in files}


def _linked(index: Mapping[str, Any], links: Mapping[str, Path], where: str) -> Path:
    """Return a folder with an index and links to files; the same one for the same content."""
    targets = {link: str(file.absolute()) for link, file in sorted(links.items())}
    parent = cache_folder() or Path(tempfile.gettempdir()) / "knowgen"
    target = parent / "pipelines" / fingerprint([dict(index), targets])[:16]
    if target.is_dir():
        return target
    try:
        with folder_draft(target, replace=False) as draft:
            (draft / INDEX).write_text(json.dumps(dict(index), indent=2), encoding="utf-8")
            for link, file in targets.items():
                (draft / link).parent.mkdir(parents=True, exist_ok=True)
                (draft / link).symlink_to(file)
    except OSError as error:
        if target.is_dir():  # another process was faster
            return target
        what = f"components: cannot link files in {target.parent}: {error.strerror or error}"
        raise ConfigError(what, where=where, fix="put the component into the model's folder") from error
    return target
