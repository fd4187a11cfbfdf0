"""The registry: listing without importing, suggestions for mistyped names, and plugins that fail to import."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowgen.core import registry
from knowgen.core.errors import ConfigError, MissingDependencyError, UsageError


def install(folder: Path, name: str, code: str, points: str, version: str = "1.0") -> None:
    """Write an installed distribution: one module and its metadata."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(points)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.entries.cache_clear()
    yield tmp_path
    registry.entries.cache_clear()
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def test_names_are_listed_without_importing_the_plugin(site: Path) -> None:
    install(site, "quits", "import sys\nsys.exit('bye')\n", "[knowgen.generators]\nquits = quits:Gen\n")
    assert registry.entries("generators")["quits"].origin == "quits 1.0"
    assert "quits" not in sys.modules


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys\nsys.exit('bye')\n", "SystemExit: bye"),
        ("import os\nos._exit(2)\n", "it called os._exit(2)"),
        ("raise RuntimeError('no\\nluck')\n", "RuntimeError: no luck"),
        ("x = (\n", "SyntaxError"),
        ("Other = 1\n", "has no 'Gen'"),
    ],
)
def test_a_broken_plugin_is_named_and_others_still_load(site: Path, code: str, message: str) -> None:
    install(site, "broken", code, "[knowgen.generators]\nbroken = broken:Gen\n")
    with pytest.raises(UsageError, match="broken") as caught:
        registry.load(registry.resolve("generators", "broken"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert registry.load(registry.resolve("generators", "noise")).__name__ == "Noise"


@pytest.mark.parametrize("name", ["my_own.py:Gen", "my_own:Gen"])
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = (\n", "SyntaxError"), ("raise RuntimeError('no luck')\n", "RuntimeError: no luck"),
        ("import sys\nsys.exit('bye')\n", "SystemExit: bye"),
        ("import my_own.part\n", "my_own.part"),
    ],
)  # fmt: skip
def test_an_error_asks_users_to_fix_their_own_file(
    site: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, message: str
) -> None:
    (site / "my_own.py").write_text(code)
    monkeypatch.chdir(site)
    with pytest.raises(ConfigError, match="fix that file") as caught:
        registry.load(registry.resolve("generators", name))
    assert message in str(caught.value) and "plugin" not in str(caught.value)
    (site / "my_own.py").write_text("Other = 1\n")
    importlib.invalidate_caches()
    with pytest.raises(UsageError, match="has no 'Gen'"):
        registry.load(registry.resolve("generators", name))


def test_a_missing_package_is_named_with_what_to_install(site: Path) -> None:
    install(site, "needy", "import surely_not_installed\n", "[knowgen.generators]\nneedy = needy:Gen\n")
    with pytest.raises(MissingDependencyError, match="pip install surely_not_installed"):
        registry.load(registry.resolve("generators", "needy"))


def test_a_mistyped_name_is_answered_with_the_near_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'open_book'"):
        registry.resolve("generators", "open_bok")
    with pytest.raises(UsageError, match="known are .*world_check"):
        registry.resolve("scorers", "qqqqqq")


def test_a_name_that_two_plugins_register_is_refused_and_a_bundled_one_stays(site: Path) -> None:
    install(site, "one", "class Gen: pass\n", "[knowgen.generators]\ntwice = one:Gen\nnoise = one:Gen\n")
    install(site, "two", "class Gen: pass\n", "[knowgen.generators]\ntwice = two:Gen\n")
    with pytest.raises(UsageError, match="registered by both"):
        registry.resolve("generators", "twice")
    assert registry.resolve("generators", "noise").target == "knowgen.worlds.baselines.systems:Noise"
    assert registry.resolve("generators", "two:Gen").origin == "local"


def test_names_may_have_a_model_a_module_or_a_file(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.resolve("scorers", "vlm:gpt-4.1").model == "gpt-4.1"
    assert registry.resolve("scorers", "vlm:org/model:free").model == "org/model:free"
    (site / "mine.py").write_text("class Mine:\n    def __init__(self, size=3): self.size = size\n")
    monkeypatch.chdir(site)
    assert registry.create(registry.resolve("generators", "mine:Mine"), {"size": 5}).size == 5
    assert registry.create(registry.resolve("generators", "mine.py:Mine"), {}).size == 3


def test_wrong_arguments_are_named_with_the_accepted_ones(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "mine2.py").write_text("class Mine:\n    def __init__(self, size=3): self.size = size\n")
    monkeypatch.chdir(site)
    with pytest.raises(UsageError, match=r"unexpected keyword argument 'sise'.*it takes size"):
        registry.create(registry.resolve("generators", "mine2:Mine"), {"sise": 5})
