"""Single files of weights that a user names: low-rank adapters (LoRA) and quantized denoisers (GGUF)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from knowgen.core.errors import DataError, MissingDependencyError, UsageError
from knowgen.core.home import expand_user
from knowgen.local_models.weights import (
    SAFETENSORS,
    file_digest,
    hub_file,
    hub_folder,
    is_hub_name,
    looks_like_path,
    refuse_pickles,
)

GGUF = ".gguf"
_USUAL = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class WeightFile:
    """A file of weights as it was named.

    Attributes:
        source: A file, a folder, or ORG/NAME on the hub.
        name: Name of the file in the folder or on the hub; empty for the only one.
        scale: How strongly an adapter is applied.
    """

    source: str
    name: str = ""
    scale: float = 1.0

    def find(self, suffix: str, option: str, *, download: bool, where: str) -> Path:
        """Return the path of the file on this machine.

        Args:
            suffix: `.safetensors` or `.gguf`.
            option: Name of the argument, for messages.
            download: Whether it may be downloaded from the hub.
            where: Names the generator in errors.

        Raises:
            UsageError: It is neither a path nor a name on the hub.
            MissingDependencyError: It is not on this machine.
            DataError: There are several, or it is of another type.
        """
        path = expand_user(self.source)
        if path.is_file():
            return _checked(path, suffix, option, where)
        if path.is_dir():
            return _only(path, self.name, suffix, option, where)
        if looks_like_path(self.source) or self.source.endswith(suffix):
            raise MissingDependencyError(f"{option}: {self.source} does not exist", where=where, fix="name a file")
        if not is_hub_name(self.source, owner=True):
            what = f"{option}: {self.source!r} is neither a file nor ORG/NAME on the hub"
            raise UsageError(what, where=where, fix=f"write {option}=PATH or {option}=ORG/NAME:FILE{suffix}")
        if self.name:
            return _checked(
                hub_file(self.source, [self.name], download=download, where=where, option="-g "), suffix, option, where
            )
        folder = hub_folder(self.source, download=download, where=where, patterns=[f"*{suffix}"], option="-g ")
        return _only(folder, "", suffix, option, where)


def parse_weight_file(text: str, option: str, where: str) -> WeightFile:
    """Return a file of weights from `PATH` or `ORG/NAME`, either with `:FILE` and `@SCALE`.

    Raises:
        UsageError: It names nothing.

    Example:
        >>> parse_weight_file("ORG/NAME:style.safetensors@0.8", "lora", "generator")
        WeightFile(source='ORG/NAME', name='style.safetensors', scale=0.8)
        >>> parse_weight_file("styles/ink.safetensors", "lora", "generator").scale
        1.0
    """
    source, at, scale_text = text.strip().rpartition("@")
    try:
        scale = float(scale_text) if at else 1.0
    except ValueError:
        at, scale = "", 1.0
    if not at:
        source = text.strip()
    name = ""
    if not expand_user(source).exists():
        before, colon, after = source.rpartition(":")
        if colon and len(before) > 1 and not after.startswith(("/", "\\")):  # `C:\…` is a drive
            source, name = before, after
    if not source:
        raise UsageError(f"{option} names no file", where=where, fix=f"write {option}=PATH or {option}=ORG/NAME:FILE")
    return WeightFile(source, name, scale)


def parse_weight_files(value: str | list[str], option: str, where: str) -> tuple[WeightFile, ...]:
    """Return the files of an argument that takes one or several; errors as for `parse_weight_file`."""
    texts = [value] if isinstance(value, str) else list(value)
    return tuple(parse_weight_file(str(text), option, where) for text in texts if str(text).strip())


def digest_of(path: Path) -> str:
    """Return the first 12 hex digits of the SHA-256 of a file."""
    return file_digest(path)[:12]


def _checked(path: Path, suffix: str, option: str, where: str) -> Path:
    if path.suffix != suffix:
        refuse_pickles([path.name], option, where)
        raise DataError(f"{option}: {path.name} is not a {suffix} file", where=where)
    return path


def _only(folder: Path, name: str, suffix: str, option: str, where: str) -> Path:
    """Return the named file of a folder, else the only one of a type.

    Raises:
        DataError: There is none, or several and none has the usual name.
    """
    if name:
        if not (folder / name).is_file():
            raise DataError(f"{option}: {folder} has no {name}", where=where)
        return _checked(folder / name, suffix, option, where)
    files = sorted(file for file in folder.iterdir() if file.suffix == suffix)
    usual = [file for file in files if file.name == _USUAL]
    if len(files) == 1 or usual:
        return (usual or files)[0]
    if not files:
        refuse_pickles([file.name for file in folder.iterdir()], option, where)
        raise DataError(f"{option}: {folder} has no {suffix} file", where=where)
    assert suffix in (SAFETENSORS, GGUF)
    some = ", ".join(file.name for file in files[:4])
    raise DataError(
        f"{option}: {folder} has {len(files)} {suffix} files ({some})", where=where, fix="name one as FOLDER:FILE"
    )
