"""A damaged installed package is named and skipped; it does not keep other plugins from being used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from knowgen.cli import doctor
from knowgen.core import registry
from knowgen.core.errors import UsageError
from tests.helpers.processes import python_environment, run_python

BROKEN: dict[str, str | bytes] = {"words": "[knowgen.generators]\njust words\n", "bytes": b"\xff\xfe\x00["}
MODULES = {
    "hangs_at_import": "import time\ntime.sleep(3600)\n",
    "ends_at_import": "import os\nos._exit(3)\n",
    "exits_at_import": "import sys\nsys.exit('no licence')\n",
    "good_module": "class Duck:\n    def draw(self, prompt, references, seed): ...\n",
}


def install(site: Path, name: str, entry_points: str | bytes) -> None:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_bytes(entry_points if isinstance(entry_points, bytes) else entry_points.encode())


@pytest.fixture(params=BROKEN)
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site"
    install(folder, "broken", BROKEN[request.param])
    install(folder, "plugins", "[knowgen.generators]\n" + "".join(f"{name} = {name}:Duck\n" for name in MODULES))
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    clear()
    yield folder
    clear()


def clear() -> None:
    for cached in (registry.entries, registry.unreadable, registry._readable):
        cached.cache_clear()


def test_other_plugins_are_found_and_the_damaged_one_is_named(site: Path) -> None:
    names = registry.entries("generators")
    assert {"noise", "good_module"} <= set(names) and names["noise"].origin.startswith("knowgen ")
    (folder,) = registry.unreadable()
    assert folder.endswith("broken-1.0.dist-info")
    with pytest.raises(UsageError, match=r"broken-1\.0\.dist-info"):
        registry.resolve("generators", "no_such_thing")


def test_list_and_run_work_and_say_what_was_skipped(site: Path) -> None:
    environment = python_environment(PYTHONPATH=f"{site}:{python_environment()['PYTHONPATH']}")
    listed = run_python("-m", "knowgen", "list", "generators", env=environment)
    assert "good_module" in listed.stdout and "broken-1.0.dist-info" in listed.stderr
    code = "import knowgen.core.records, knowgen.core.spec"
    run_python("-c", code, env=environment)  # pydantic looks at the metadata of every package


def test_doctor_names_plugins_whose_import_hangs_or_ends_the_process(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PLUGIN_SECONDS", 3.0)
    monkeypatch.setattr(registry, "KINDS", ("generators",))
    lines = {text: mark for mark, text in doctor._plugins() if "plugins 1.0" in text or "broken" in text}
    failed = [text for text, mark in lines.items() if mark == "FAIL"]
    assert any("broken-1.0.dist-info" in text for text in failed)
    assert any("hangs_at_import" in text and "did not end within 3 s" in text for text in failed)
    assert any("ends_at_import" in text and "os._exit(3)" in text for text in failed)
    assert any("exits_at_import" in text and "no licence" in text for text in failed)
