"""Files of a model are read side by side while it is loaded, where memory has room for them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from knowgen.local_models import read_ahead as module
from knowgen.local_models.host_memory import HostMemory
from knowgen.local_models.read_ahead import read_ahead


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for path in paths:
        path.write_bytes(bytes(1000))
    return paths


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are read; a file is read only together with a second one."""
    together, names = threading.Barrier(2, timeout=30), list[str]()
    original = Path.open

    def recorded(path: Path, *args: object, **kwargs: object) -> object:
        if threading.current_thread().name == "knowgen read ahead":
            names.append(path.name)
            if path.name != "2.safetensors":
                together.wait()
        return original(path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", recorded)
    return names


def ended() -> None:
    for thread in threading.enumerate():
        if thread.name == "knowgen read ahead":
            thread.join(30)


def test_files_are_read_side_by_side(files: list[Path], opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "host_memory", lambda: HostMemory(10**6, 10**6))
    with read_ahead(files):
        ended()
    assert sorted(opened) == ["0.safetensors", "1.safetensors", "2.safetensors"]


@pytest.mark.parametrize("memory", [HostMemory(10**6, 3000), None])
def test_files_are_left_where_memory_has_too_little_room(
    files: list[Path], opened: list[str], monkeypatch: pytest.MonkeyPatch, memory: HostMemory | None
) -> None:
    monkeypatch.setattr(module, "host_memory", lambda: memory)
    with read_ahead(files):
        ended()
    assert opened == []


def test_a_file_that_cannot_be_read_is_left_to_whoever_loads_it(
    files: list[Path], opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "host_memory", lambda: HostMemory(10**6, 10**6))
    monkeypatch.setattr(module, "THREADS", 2)
    for path in files[:2]:
        path.unlink()
        path.mkdir()
    with read_ahead(files):
        ended()
    assert opened[-1] == "2.safetensors"  # by a thread that had an error before
