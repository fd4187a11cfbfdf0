"""Similarity scorers with DINO models of `transformers`, from a folder and from the hub's cache."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import ConfigError, MissingDependencyError, UsageError
from knowgen.scorers.similarity.scorers import PromptSimilarity, Similarity
from tests.helpers.images import path_of
from tests.helpers.similarity_models import as_hub_cache, items, save_dino

pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("KNOWGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("something went to the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_dino(tmp_path / "dino")


def cosines(model: str, batch: list[Any]) -> list[float]:
    results = list(Similarity(model).score_batch(batch))
    assert [str(score.status) for score in results] == ["ok"] * len(batch), [score.strict.reason for score in results]
    return [score.details["cosines"][0] for score in results]


def test_the_value_is_the_cosine_of_class_tokens(folder: Path, tmp_path: Path) -> None:
    import torch
    from PIL import Image
    from transformers import BitImageProcessor, Dinov2Model

    model, processor = Dinov2Model.from_pretrained(folder).eval(), BitImageProcessor.from_pretrained(folder)

    def embed(file: Path) -> Any:
        with torch.no_grad():
            tokens = model(**processor(images=Image.open(file), return_tensors="pt")).last_hidden_state
        return torch.nn.functional.normalize(tokens[0, 0], dim=0)

    batch = items(tmp_path / "p", 5)
    expected = [float(embed(path_of(one.image)) @ embed(path_of(truth.image))) for _, truth, one in batch]
    assert cosines(f"dino:{folder}", batch) == pytest.approx(expected, abs=1e-5)


def test_a_second_pass_loads_no_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from knowgen.scorers.similarity.dino import DinoSource

    batch = items(tmp_path / "p", 3)
    first = cosines(f"dino:{folder}", batch)
    monkeypatch.setattr(DinoSource, "load", lambda *_: pytest.fail("a model was loaded"))
    assert cosines(f"dino:{folder}", batch) == first


def test_another_preprocessing_is_another_embedding(folder: Path, tmp_path: Path) -> None:
    batch = items(tmp_path / "p", 3)
    first = cosines(f"dino:{folder}", batch)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}))
    assert cosines(f"dino:{folder}", batch) != pytest.approx(first, abs=1e-5)


def test_a_hub_model_is_loaded_from_the_cache_offline(folder: Path, tmp_path: Path) -> None:
    batch = items(tmp_path / "p", 3)
    local = cosines(f"dino:{folder}", batch)
    as_hub_cache(tmp_path / "hub", "someone/tiny-dino", folder)
    assert cosines("dino:someone/tiny-dino", batch) == local


def test_a_missing_model_is_reported_and_not_downloaded(folder: Path) -> None:
    with pytest.raises(MissingDependencyError, match="-s download=true, or `hf download someone/absent`"):
        Similarity("dino:someone/absent").setup("cpu")
    with pytest.raises(MissingDependencyError, match="does not exist"):
        Similarity("dino:/no/such/folder").setup("cpu")
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingDependencyError, match="has no weights"):
        Similarity(f"dino:{folder}").setup("cpu")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(MissingDependencyError, match=r"has no preprocessor_config\.json"):
        Similarity(f"dino:{folder}").setup("cpu")


def test_prompt_similarity_is_refused_without_a_text_tower(folder: Path) -> None:
    with pytest.raises(UsageError, match="a DINO model has no text tower"):
        PromptSimilarity(f"dino:{folder}")


def test_a_model_of_another_type_is_rejected(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "vit"}))
    with pytest.raises(UsageError, match="'vit', which is neither DINOv2 nor DINOv3"):
        Similarity(f"dino:{folder}").setup("cpu")


def test_missing_weights_are_not_initialised_at_random(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    gone = next(name for name in sorted(tensors) if name.endswith("attention.attention.key.weight"))
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"weights are missing: encoder\.layer\.0\.attention\."):
        list(Similarity(f"dino:{folder}").score_batch(items(tmp_path / "p", 1)))


def test_a_download_gets_configurations_and_safetensors_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    downloads: list[tuple[str, list[str]]] = []

    def fetch(repository: str, *, allow_patterns: list[str]) -> str:
        downloads.append((repository, allow_patterns))
        return str(folder)

    batch = items(tmp_path / "p", 2)
    local = cosines(f"dino:{folder}", batch)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    results = list(Similarity("dino:someone/tiny-dino", download=True).score_batch(batch))
    assert [score.details["cosines"][0] for score in results] == local
    ((repository, patterns),) = downloads
    assert repository == "someone/tiny-dino"
    assert all(pattern.endswith((".json", ".safetensors")) for pattern in patterns)


def test_a_download_that_fails_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "no network here")

    monkeypatch.setattr(socket, "getaddrinfo", cut_off)
    with pytest.raises(MissingDependencyError, match=r"someone/absent could not be downloaded: .*no network") as raised:
        Similarity("dino:someone/absent", download=True).setup("cpu")
    assert "\n" not in str(raised.value)
