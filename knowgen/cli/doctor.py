"""`knowgen doctor`: check the installation."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

EPILOG = """\b
Example:
  knowgen doctor
Each line starts with ok, -- (optional and not available) or FAIL. The exit code
is 4 when something required does not work.
"""

NEEDED = (
    "aiohttp", "aiolimiter", "bm25s", "click", "datasets", "huggingface-hub", "jinja2", "json5", "numpy", "onnxruntime",
    "opencv-python-headless", "pandas", "pillow", "pyarrow", "pydantic", "pystemmer", "pyyaml", "rapidocr",
    "scikit-learn", "scipy", "tenacity", "tqdm",
)  # fmt: skip
"""Required packages."""

OPTIONAL = {
    "torch": "local models",
    "torchvision": "local models",
    "transformers": "local models",
    "open-clip-torch": "image similarity",
    "diffusers": "local models",
    "trafilatura": "an agent that reads web pages",
    "lxml_html_clean": "an agent that reads web pages",
    "protego": "an agent that reads web pages, for robots rules",
    "ImageHash": "an agent that searches images of the web, to block ground truth",
    "warcio": "search of WARC files",
}
"""Optional packages and what they are for."""

SEARCH_EXTRA = ("trafilatura", "lxml_html_clean", "protego", "ImageHash")
"""Packages without which an agent cannot search the web."""

KEYS = {
    "OPENAI_API_KEY": "hosted judges, generators and policies",
    "GEMINI_API_KEY": "the generator gemini",
    "ARK_API_KEY": "the generator ark",
    "SERPER_API_KEY": "the search backend serper",
    "TAVILY_API_KEY": "the search backend tavily",
    "BRAVE_SEARCH_API_KEY": "the search backend brave",
    "JINA_API_KEY": "more pages a minute through Jina's reader",
    "KNOWGEN_CONTACT": "the search backend wikimedia, which asks for an address",
}
"""Environment variables with API keys and the like, and what they are for."""

Line = tuple[str, str]
"""`ok`, `--` (optional and not available) or `FAIL`, and the text."""


@click.command("doctor", epilog=EPILOG)
def command() -> int:
    """Check the installation: packages, plugins, text recognition, task data, disk, GPUs and API keys."""
    failed = False
    for check in (_python, _packages, _ocr, _plugins, _content, _disk, _accelerator, _keys):
        for mark, text in _lines(check):
            failed |= mark == "FAIL"
            click.echo(f"{mark:<5}{text}")
    return 4 if failed else 0


def _lines(check: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """Yield the lines of a check. An error that it does not expect is a line too, so that the others still run."""
    from knowgen.core.text import error_summary

    try:
        yield from check()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an installed package may raise anything
        yield "FAIL", f"{check.__name__.strip('_')}: {error_summary(error)}"


def _python() -> Iterator[Line]:
    good = sys.version_info >= (3, 11)
    yield (
        "ok" if good else "FAIL",
        f"Python {platform.python_version()}" + ("" if good else "; 3.11 or newer is required"),
    )
    yield "ok", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _packages() -> Iterator[Line]:
    for name in ("knowgen", *NEEDED):
        installed = _version(name)
        yield ("ok", f"{name} {installed}") if installed else ("FAIL", f"{name} is missing; pip install {name}")
    for name, purpose in OPTIONAL.items():
        installed = _version(name)
        yield ("ok", f"{name} {installed}") if installed else ("--", f"{name} is not installed (for {purpose})")
    if any(not _version(name) for name in SEARCH_EXTRA):
        yield "--", "an agent cannot search the web yet; pip install 'knowgen[search]'"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _ocr() -> Iterator[Line]:
    """Recognise a word, because an installed package may still fail to load its model."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from knowgen.worlds.checker import ocr

    image = Image.new("RGB", (420, 120), "white")
    ImageDraw.Draw(image).text((30, 30), "Oruvane 1931", font=ImageFont.load_default(44), fill="black")
    try:
        text = " ".join(line.text for line in ocr.read_lines(np.asarray(image)))
    except Exception as error:  # noqa: BLE001  every error means that it does not work
        yield "FAIL", f"text recognition does not work: {type(error).__name__}: {error}"
        return
    if "1931" in text:
        yield "ok", "text recognition works"
    else:
        yield "FAIL", f"text recognition read {text!r} instead of 'Oruvane 1931'"


PLUGIN_SECONDS = 60.0
"""Time limit for importing a plugin of another package."""

_LOAD = """
import sys
from knowgen.core import registry
from knowgen.core.errors import KnowgenError
try:
    registry.load(registry.resolve(sys.argv[1], sys.argv[2]))
except KnowgenError as error:
    print(f"\\n{error}", file=sys.stderr)
    sys.exit(1)
"""


def _plugins() -> Iterator[Line]:
    from knowgen.core import registry
    from knowgen.core.errors import KnowgenError

    for folder, reason in registry.unreadable().items():
        yield "FAIL", f"{folder}: {reason}; reinstall or uninstall that package"
    for kind in registry.KINDS:
        for entry in registry.entries(kind).values():
            name = f"{registry.SINGULAR[kind]} {entry.name}"
            try:
                resolved = registry.resolve(kind, entry.name)
                if registry.is_bundled(entry.origin):
                    registry.load(resolved)
                else:
                    _load_apart(kind, entry.name, f"{name} ({entry.origin})")
            except KnowgenError as error:
                yield "FAIL", str(error)
            else:
                yield "ok", f"{name} ({entry.origin})"


def _load_apart(kind: str, name: str, where: str) -> None:
    """Import a plugin of another package in a process of its own, because its import may hang or end the process.

    Raises:
        UsageError: It cannot be imported.
    """
    from knowgen.core.errors import UsageError
    from knowgen.core.import_path import child_environment

    fix = "update or uninstall the plugin"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _LOAD, kind, name],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=child_environment(), text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        _, errors = process.communicate(timeout=PLUGIN_SECONDS)
    except subprocess.TimeoutExpired:
        raise UsageError(f"its import did not end within {PLUGIN_SECONDS:g} s", where=where, fix=fix) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    lines = [line for line in errors.splitlines() if line.strip()]
    if process.returncode == 1 and lines:
        raise UsageError(lines[-1])
    if process.returncode:
        raise UsageError(f"its import ended the process with code {process.returncode}", where=where, fix=fix)


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
            yield "ok", f"the current folder is writable, {free:.0f} GB free"
    except OSError as error:
        yield "--", f"the current folder is not writable ({error.strerror}); give --out another folder"


def _accelerator() -> Iterator[Line]:
    if importlib.util.find_spec("torch") is None:
        yield "--", "torch is not installed, so no GPU is used"
        return
    import torch  # type: ignore[import-not-found, unused-ignore]

    from knowgen.engine.devices import accelerators
    from knowgen.local_models.devices import device_name

    kind, count = accelerators()
    for index in range(count):
        device = kind if kind == "mps" else f"{kind}:{index}"
        yield "ok", f"{device} {device_name(device)}".rstrip()
    if not count and (torch.version.cuda or torch.version.hip):
        yield "--", "torch finds no GPU"
    elif not count:
        yield "--", f"torch {torch.__version__} is built for CPUs only, so no GPU is used"


def _keys() -> Iterator[Line]:
    for name, purpose in KEYS.items():
        yield ("ok", f"{name} is set") if os.environ.get(name) else ("--", f"{name} is not set (for {purpose})")
