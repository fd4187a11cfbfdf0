"""What the guides' tests share: their code blocks and commands, and an installation without any network."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from knowgen.core import registry

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs" / "guides"


def files_of(guide: str) -> dict[str, str]:
    """Return the python and toml blocks of a guide by file name, which the first line of each says."""
    text = (GUIDES / guide).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:python|toml)\n# (\S+\.(?:py|toml))\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(re.findall(r"^```(?:python|toml)$", text, re.MULTILINE)), "a block says no file"
    return dict(blocks)


def commands_of(guide: str) -> list[list[str]]:
    """Return the commands of a guide in order."""
    text = (GUIDES / guide).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line.strip()]


def install(package: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install a package as `pip install -e` would, and return its distribution's name."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))
    name, version = project["project"]["name"], project["project"]["version"]
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines: list[str] = []
    for group, points in project["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{point} = {target}" for point, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    source = package / "src" if (package / "src").is_dir() else package
    for folder in (site, source.resolve()):
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    registry.entries.cache_clear()
    return str(name)
