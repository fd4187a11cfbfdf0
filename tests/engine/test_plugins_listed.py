"""A plugin that cannot be imported is reported where it is used, and does not affect others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from knowgen.core import registry
from knowgen.core.errors import UsageError


@pytest.mark.parametrize("kind", registry.KINDS)
def test_the_command_lists_a_plugin_that_exits_at_import(hostile: Path, kind: str) -> None:
    command = [sys.executable, "-c", "from knowgen.cli.main import main; main()", "list", kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "hostile_exits_at_import" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_listing_imports_no_plugin(hostile: Path) -> None:
    assert "hostile_exits_at_import" in registry.entries("generators")
    assert not any(name.startswith("knowgen_hostile") for name in sys.modules)


def test_a_bundled_name_cannot_be_taken_over(hostile: Path) -> None:
    assert registry.entries("generators")["noise"].origin.startswith("knowgen ")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hostile_exits_at_import", "failed while it was imported: SystemExit: 3"),
        ("hostile_broken_import", "failed while it was imported: RuntimeError: this module is broken over two lines"),
        ("hostile_missing_module", "knowgen_hostile.not_there"),
        ("hostile_missing_class", "has no 'NotThere'"),
    ],
)
def test_using_a_broken_plugin_names_it_in_one_line(hostile: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        registry.load(registry.resolve("generators", name))
    message = str(caught.value)
    assert words in message
    assert name in message and "knowgen-hostile 6.6.6" in message
    assert "\n" not in message


def test_a_working_plugin_beside_broken_ones_is_listed(hostile: Path) -> None:
    kind = registry.load(registry.resolve("generators", "hostile_good_order"))
    assert kind.__name__ == "OutOfOrder"
