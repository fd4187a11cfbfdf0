"""run.json: specification, versions, machine and start time of a run."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from knowgen.core.errors import DataError
from knowgen.core.secrets import refuse_secrets
from knowgen.core.spec import RunSpec
from knowgen.core.text import parse_json
from knowgen.store.files import write_text

MANIFEST_FILE = "run.json"
FORMAT = 1

LIBRARIES = (
    "aiohttp", "bm25s", "numpy", "onnxruntime", "opencv-python", "opencv-python-headless", "pandas", "pillow",
    "pydantic", "pystemmer", "rapidocr", "torch", "transformers", "diffusers", "open-clip-torch",
)  # fmt: skip
"""Distributions whose version may affect a result; the installed ones are recorded."""


class Manifest(BaseModel):
    """The content of run.json.

    Attributes:
        format: Format version of the file.
        spec: Specification of the last run in the directory.
        versions: Versions of knowgen, Python and libraries.
        git: Commit of the working directory, with `-dirty` if it has changes; empty without git.
        machine: Host, system, cores, memory, accelerators.
        started: When the directory was created, ISO 8601 in UTC.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = FORMAT
    spec: RunSpec
    versions: dict[str, str] = Field(default_factory=dict)
    git: str = ""
    machine: dict[str, Any] = Field(default_factory=dict)
    started: str = ""


def read_manifest(folder: Path) -> Manifest | None:
    """Read run.json; return None if it does not exist.

    Raises:
        DataError: It is damaged, or written by a newer version.
    """
    path = folder / MANIFEST_FILE
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from error
    fix = "restore a copy or start again with --fresh"
    try:
        data = parse_json(raw)
    except ValueError as error:
        raise DataError(f"is damaged ({error})", where=str(path), fix=fix) from error
    if isinstance(data, dict) and isinstance(data.get("format"), int) and data["format"] > FORMAT:
        raise DataError("was written by a newer knowgen", where=str(path), fix="update knowgen")
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "top level"
        raise DataError(f"is damaged ({field}: {first['msg']})", where=str(path), fix=fix) from error


def write_manifest(folder: Path, spec: RunSpec, earlier: Manifest | None) -> Manifest:
    """Write run.json atomically, preserving when the directory was created.

    Raises:
        ConfigError: An argument looks like a secret, or the folder cannot be written.
        DataError: The disk is full.
    """
    refuse_spec_secrets(spec)
    manifest = Manifest(
        spec=spec,
        versions=library_versions(),
        git=git_commit(),
        machine=machine_facts(),
        started=earlier.started if earlier else datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_text(folder / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def refuse_spec_secrets(spec: RunSpec) -> None:
    """Raise an error if a specification contains what looks like a key, at any depth.

    Raises:
        ConfigError: A value looks like a key.
    """
    plain = spec.model_dump(mode="json")
    generator, scorers, agent = plain.pop("generator"), plain.pop("scorers"), plain.pop("agent")
    refuse_secrets(plain)
    parts = [("generator", generator), *(("scorer", each) for each in scorers)]
    if agent is not None:
        parts += [(role, part) for role, part in agent.pop("parts").items()] + [("agent", agent)]
    for kind, part in parts:
        name, args = part.pop("name"), part.pop("args")
        refuse_secrets({kind: name, **part})
        refuse_secrets(args, where=name)


def spec_difference(earlier: RunSpec, now: RunSpec) -> str:
    """Return the first difference that makes two runs incompatible in one directory, in words; empty if none."""
    return _difference(earlier.directory_identity(), now.directory_identity(), "")


def _difference(earlier: Any, now: Any, name: str) -> str:
    if isinstance(earlier, dict) and isinstance(now, dict):
        for key in sorted(earlier.keys() | now.keys()):
            what = _difference(earlier.get(key), now.get(key), f"{name}.{key}" if name else key)
            if what:
                return what
        return ""
    return "" if earlier == now else f"{name} is {_short(earlier)} there and {_short(now)} here"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def library_versions() -> dict[str, str]:
    """Return the versions of knowgen, Python and the installed `LIBRARIES`."""
    from knowgen.core.version import __version__

    versions = {"knowgen": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def git_commit() -> str:
    """Return the commit of the working directory, with `-dirty` if it has changes; empty without git."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def machine_facts() -> dict[str, Any]:
    """Return host, system, processor, cores, memory in GiB, and the names of NVIDIA accelerators."""
    facts: dict[str, Any] = {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count() or 0,
        "executable": Path(sys.executable).name,
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    accelerators = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Model:"):
                accelerators.append(line.partition(":")[2].strip())
    if accelerators:
        facts["accelerators"] = accelerators
    return facts
