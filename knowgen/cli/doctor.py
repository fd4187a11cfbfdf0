"""`knowgen doctor`: what is installed here, what works, what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

EPILOG = """\b
Example:
  knowgen doctor
"""

NEEDED = (
    "aiohttp", "aiolimiter", "bm25s", "click", "datasets", "huggingface-hub", "jinja2", "numpy", "onnxruntime",
    "opencv-python-headless", "pandas", "pillow", "pyarrow", "pydantic", "pystemmer", "pyyaml", "rapidocr",
    "scikit-learn", "scipy", "tenacity", "tqdm",
)  # fmt: skip
OPTIONAL = {
    "torch": "local models",
    "torchvision": "local models",
    "transformers": "local models",
    "open-clip-torch": "image similarity",
    "diffusers": "local models",
}
KEYS = ("OPENAI_API_KEY",)

Line = tuple[str, str]
"""ok, -- (absent, not needed) or FAIL; and what is said."""


@click.command("doctor", epilog=EPILOG)
def command() -> int:
    """Say what is installed here, what works, and what is missing. Exit code 4 when something needed is."""
    failed = False
    for check in (_python, _packages, _ocr, _plugins, _content, _disk, _accelerator, _keys):
        for mark, text in check():
            failed |= mark == "FAIL"
            click.echo(f"{mark:<5}{text}")
    return 4 if failed else 0


def _python() -> Iterator[Line]:
    good = sys.version_info >= (3, 11)
    yield (
        "ok" if good else "FAIL",
        f"Python {platform.python_version()}" + ("" if good else "; 3.11 or newer is needed"),
    )
    yield "ok", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _packages() -> Iterator[Line]:
    for name in ("knowgen", *NEEDED):
        found = _version(name)
        yield ("ok", f"{name} {found}") if found else ("FAIL", f"{name} is missing; pip install {name}")
    for name, purpose in OPTIONAL.items():
        found = _version(name)
        yield ("ok", f"{name} {found}") if found else ("--", f"{name} is not installed (for: {purpose})")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _ocr() -> Iterator[Line]:
    """Reads a drawn word, because an installed package is not yet a working one."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from knowgen.worlds.checker import ocr

    picture = Image.new("RGB", (420, 120), "white")
    ImageDraw.Draw(picture).text((30, 30), "Oruvane 1931", font=ImageFont.load_default(44), fill="black")
    try:
        read = " ".join(line.text for line in ocr.read_lines(np.asarray(picture)))
    except Exception as error:  # noqa: BLE001  whatever the reader raises is the finding
        yield "FAIL", f"text recognition does not work: {type(error).__name__}: {error}"
        return
    good = "1931" in read
    yield ("ok", "text recognition reads a drawn word") if good else ("FAIL", f"text recognition read {read!r} wrongly")


def _plugins() -> Iterator[Line]:
    from knowgen.core import registry
    from knowgen.core.errors import KnowgenError

    for kind in registry.KINDS:
        for entry in registry.entries(kind).values():
            name = f"{registry.SINGULAR[kind]} {entry.name}"
            try:
                registry.load(registry.resolve(kind, entry.name))
            except KnowgenError as error:
                yield "FAIL", str(error)
            else:
                yield "ok", f"{name} ({entry.origin})"


def _content() -> Iterator[Line]:
    from knowgen.core.errors import KnowgenError
    from knowgen.tasks.load import load_task

    try:
        task = load_task("knowgen_mini")
        yield "ok", f"task knowgen_mini {task.version}, {len(task)} samples"
    except KnowgenError as error:
        yield "FAIL", str(error)


def _disk() -> Iterator[Line]:
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free / 1e9
    try:
        with tempfile.TemporaryDirectory(dir=folder):
            yield "ok", f"this folder can be written, {free:.0f} GB free"
    except OSError as error:
        yield "--", f"this folder cannot be written ({error.strerror}); use --out elsewhere"


def _accelerator() -> Iterator[Line]:
    if importlib.util.find_spec("torch") is None:
        yield "--", "no torch, so no accelerator is used"
        return
    import torch  # type: ignore[import-not-found, unused-ignore]

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        yield "ok", f"cuda:{index} {torch.cuda.get_device_name(index)}"
    if not count:
        yield "--", "torch sees no accelerator"


def _keys() -> Iterator[Line]:
    for name in KEYS:
        yield ("ok", f"{name} is set") if os.environ.get(name) else ("--", f"{name} is not set (for hosted judges)")
