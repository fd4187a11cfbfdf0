"""Weights: digests depend on content alone, and the hub is contacted only on request."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.cache import Cache
from knowgen.core.errors import DataError, MissingDependencyError
from knowgen.local_models import weights
from knowgen.local_models.weights import (
    content_id,
    file_digest,
    files_digest,
    hub_file,
    hub_folder,
    is_hub_name,
    looks_like_path,
    offline,
    online,
    refuse_pickles,
)
from tests.helpers.hub_server import HubServer

constants = pytest.importorskip("huggingface_hub.constants")
NAMES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_digests", {})
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_offline() -> bool:
    states = {constants.HF_HUB_OFFLINE, *(os.environ.get(name) == "1" for name in NAMES)}
    assert len(states) == 1, "the constant and the environment differ"
    return bool(states.pop())


def test_a_digest_is_the_hash_of_the_bytes_and_changes_with_them(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    cache = Cache("embeddings")
    for data in (b"one", b"other"):
        path.write_bytes(data)
        assert file_digest(path) == file_digest(path, cache) == sha256(data)
    cache.close()


def test_digests_of_weights_are_cached_for_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = tmp_path / "model.safetensors", tmp_path / "config.json"
    for path in (large, small):
        path.write_bytes(b"content")
    cache = Cache("embeddings")
    digests = [file_digest(path, cache) for path in (large, small)]
    monkeypatch.setattr(weights, "_digests", {})
    read: list[str] = []
    digest = hashlib.file_digest

    def recording(file: Any, name: str) -> Any:
        read.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", recording)
    assert [file_digest(path, cache) for path in (large, small)] == digests
    assert read == ["config.json"]
    cache.close()


def test_the_hubs_cache_names_large_files_by_their_digest(tmp_path: Path) -> None:
    name = "ab" * 32
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / name).write_bytes(b"not read")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / name)
    assert file_digest(tmp_path / "model.safetensors") == name
    (tmp_path / "blobs" / name).unlink()
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "model.safetensors")


def test_an_id_depends_on_names_and_content_and_not_on_the_folder(tmp_path: Path) -> None:
    def model(name: str, **files: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text)
        return content_id(folder, sorted(folder.iterdir()))

    first = model("first", a="1", b="2")
    assert len(first) == 12 and first == model("copy", a="1", b="2")
    assert len({first, model("changed", a="1", b="3"), model("renamed", a="1", c="2"), model("less", a="1")}) == 4


def test_the_digest_of_several_files_includes_their_names(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text(path.name)
    assert files_digest(paths) == files_digest(paths[::-1])
    assert files_digest(paths[:1]) == sha256(b"a") != files_digest(paths)


@pytest.mark.parametrize(
    ("name", "path", "hub", "owned"),
    [
        ("Qwen/Qwen-Image", False, True, True), ("gpt2", False, True, False), ("./model", True, False, False),
        ("~/model", True, False, False), ("C:\\model", True, False, False), ("/model", True, False, False),
        ("a/b/c", False, False, False), ("a b", False, False, False),
    ],
)  # fmt: skip
def test_hub_names_and_paths_are_distinguished(name: str, path: bool, hub: bool, owned: bool) -> None:
    assert (looks_like_path(name), is_hub_name(name), is_hub_name(name, owner=True)) == (path, hub, owned)


def test_pickles_are_an_error() -> None:
    refuse_pickles(["config.json", "model.safetensors"], "the model", "here")
    with pytest.raises(DataError, match="the weights of the model are pickles"):
        refuse_pickles(["config.json", "pytorch_model.bin"], "the model", "here")


def test_the_client_is_offline_until_the_last_thread_leaves() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with offline():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with offline(False):
        assert not is_offline()
    with offline():
        thread.start()
        assert entered.wait(10) and is_offline()
    assert is_offline(), "the other thread is still in its block"
    leave.set()
    thread.join(10)
    assert not is_offline() and not any(name in os.environ for name in NAMES)


def test_previous_settings_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RuntimeError, match="broken"), offline():
        assert is_offline()
        raise RuntimeError("broken")
    assert constants.HF_HUB_OFFLINE and (os.environ["HF_HUB_OFFLINE"], os.environ["TRANSFORMERS_OFFLINE"]) == ("1", "0")


def test_a_download_is_not_switched_offline_while_it_runs() -> None:
    states: list[bool] = []
    started = threading.Event()

    def download() -> None:
        started.set()
        with online():
            states.append(is_offline())

    thread = threading.Thread(target=download)
    with offline():
        thread.start()
        assert started.wait(10)
        thread.join(0.05)
        assert states == []
    thread.join(10)
    assert states == [False]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace the hub's client by one that finds nothing; return its calls, each with whether it was offline."""
    calls: list[dict[str, Any]] = []

    def not_found(repository: str, *names: str, **options: Any) -> str:
        calls.append({**options, "names": names, "offline": is_offline()})
        raise FileNotFoundError(f"no {repository}")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", not_found)
    monkeypatch.setattr("huggingface_hub.snapshot_download", not_found)
    return calls


def test_nothing_is_downloaded_by_default(hub: list[dict[str, Any]]) -> None:
    with pytest.raises(MissingDependencyError, match=r"-s download=true, or `hf download a/b`"):
        hub_file("a/b", ["x", "y"], download=False, where="scorer x")
    with pytest.raises(MissingDependencyError, match=r"-g download=true, or `hf download a/b`"):
        hub_folder("a/b", download=False, where="generator x", option="-g ")
    assert len(hub) == 3 and all(call["offline"] and call["local_files_only"] for call in hub)


def test_a_download_runs_online(hub: list[dict[str, Any]]) -> None:
    with pytest.raises(MissingDependencyError, match="a/b could not be downloaded: no a/b"):
        hub_file("a/b", ["x"], download=True, where="scorer x")
    with pytest.raises(MissingDependencyError, match="a/b could not be downloaded: no a/b"):
        hub_folder("a/b", download=True, where="scorer x", patterns=["*.json"], revision="main")
    assert [call["offline"] for call in hub] == [True, False, False]
    assert (hub[-1]["revision"], hub[-1]["allow_patterns"]) == ("main", ["*.json"])


DOWNLOADED = """
from knowgen.local_models.weights import hub_folder

for download in (True, False):
    folder = hub_folder("owner/model", download=download, where="scorer x", patterns=["*.json", "*.safetensors"])
    print(sorted(path.name for path in folder.iterdir()))
"""


def test_a_folder_of_which_only_some_files_were_downloaded_is_found_afterwards(tmp_path: Path) -> None:
    """The hub's client knows all files of a repository, and would call a folder without the others incomplete."""
    with HubServer() as hub:
        hub.commit("owner/model", {"README.md": b"#", "config.json": b"{}", "model.safetensors": b"w", "old.bin": b"w"})
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_TOKEN": ""}
        done = subprocess.run(
            [sys.executable, "-c", DOWNLOADED], env=environment, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["['config.json', 'model.safetensors']"] * 2
