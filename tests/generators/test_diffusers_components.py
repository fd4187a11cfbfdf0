"""Components of a pipeline that come from another model, as the text encoder of HiDream-I1 does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import DataError, MissingDependencyError, UsageError
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.diffusers.generator import DiffusersGenerator
from tests.generators.test_diffusers import generate, max_difference, requests
from tests.helpers import tiny_classes


def save_llama(folder: Path, seed: int) -> Path:
    """Save a language model with its tokenizer beside it, as on the hub."""
    import torch

    torch.manual_seed(seed)
    parts = tiny_classes.hidream()
    parts["text_encoder_4"].save_pretrained(folder)
    parts["tokenizer_4"].save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A whole pipeline, one without its fourth text encoder, and that encoder: its own, and another."""
    root = tmp_path_factory.mktemp("components")
    whole = tiny_classes.build("HiDreamImagePipeline", root / "whole")
    lacking = root / "lacking"
    shutil.copytree(whole, lacking)
    index = json.loads((lacking / "model_index.json").read_text())
    own = root / "own"
    own.mkdir()
    for name in ("text_encoder_4", "tokenizer_4"):
        del index[name]
        shutil.copytree(lacking / name, own, dirs_exist_ok=True)
        shutil.rmtree(lacking / name)
    (lacking / "model_index.json").write_text(json.dumps(index))
    return {"whole": whole, "lacking": lacking, "own": own, "other": save_llama(root / "other", 7)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KNOWGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def drawn(model: Path | str, **args: Any) -> GeneratedImage:
    generator = DiffusersGenerator(str(model), size="32x32", steps=2, **args)
    generator.setup("cpu")
    result = generate(generator, requests(["a lamp"]))["r0"]
    assert result.image is not None, result.reason
    return result


def identity(model: Path, components: dict[str, str]) -> str:
    return DiffusersGenerator.weights_identity(str(model), components=components)


def test_a_text_encoder_of_another_model_is_used_with_its_tokenizer(folders: dict[str, Path]) -> None:
    own, other = ({"text_encoder_4": str(folders[name])} for name in ("own", "other"))
    result = drawn(folders["lacking"], components=own)
    assert result.settings["components"] == own
    assert result.settings["weights"] == identity(folders["lacking"], own) != identity(folders["lacking"], other)


@pytest.mark.slow
def test_images_are_those_of_the_pipeline_with_the_component(folders: dict[str, Path]) -> None:
    own, other = (
        drawn(folders["lacking"], components={"text_encoder_4": str(folders[name])}) for name in ("own", "other")
    )
    assert max_difference(drawn(folders["whole"]), own) == 0
    assert max_difference(own, other) > 0


@pytest.mark.slow
def test_a_component_that_the_pipeline_has_is_replaced(folders: dict[str, Path]) -> None:
    replaced = drawn(folders["whole"], components={"text_encoder_4": str(folders["other"])})
    assert max_difference(drawn(folders["whole"]), replaced) > 0
    as_subfolder = drawn(folders["lacking"], components={"text_encoder_4": f"{folders['whole']}:text_encoder_4",
                                                         "tokenizer_4": f"{folders['whole']}:tokenizer_4"})  # fmt: skip
    assert max_difference(drawn(folders["whole"]), as_subfolder) == 0


@pytest.mark.slow
def test_a_preset_names_what_its_repository_lacks(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    store, commit = tmp_path / "hub" / "models--meta-llama--Llama-3.1-8B-Instruct", "c0ffee" * 6 + "c0ff"
    lacking = str(folders["lacking"])
    with pytest.raises(MissingDependencyError, match=r"Llama-3\.1-8B-Instruct are not on this machine"):
        drawn("hidream-i1-fast", weights=lacking)
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text(commit)
    shutil.copytree(folders["own"], store / "snapshots" / commit)
    result = drawn("hidream-i1-fast", weights=lacking)
    assert result.settings["components"] == {"text_encoder_4": "meta-llama/Llama-3.1-8B-Instruct"}
    assert "components" not in drawn("hidream-i1-fast", weights=str(folders["whole"])).settings


@pytest.mark.parametrize(
    ("components", "error", "message"),
    [
        ({"text_encoder_4": "nowhere"}, UsageError, "'nowhere' for text_encoder_4 is neither a folder nor ORG/NAME"),
        ({"text_encoder_4": "./nowhere"}, MissingDependencyError, r"the folder \./nowhere of text_encoder_4 does not"),
        ({"text_encoder_4": "WHOLE:vae"}, DataError, "no readable tokenizer_config.json for tokenizer_4"),
        ({"made_up": "WHOLE:vae"}, UsageError, "HiDreamImagePipeline has no made_up"),
        ("ORG/NAME", UsageError, "components takes a model for each component"),
    ],
)
def test_what_cannot_be_a_component_is_an_error(
    folders: dict[str, Path], components: object, error: type[Exception], message: str
) -> None:
    if isinstance(components, dict):
        components = {name: model.replace("WHOLE", str(folders["whole"])) for name, model in components.items()}
    with pytest.raises(error, match=message):
        drawn(folders["lacking"], components=components)


def test_a_missing_component_says_how_it_is_given(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(folders["whole"], folder)
    shutil.rmtree(folder / "text_encoder_4")
    with pytest.raises(MissingDependencyError, match=r"-g 'components=\{text_encoder_4: ORG/NAME\}'"):
        drawn(folder)


def test_a_component_needs_no_folder_for_caches(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", "off")
    find: Callable[..., str] = DiffusersGenerator.weights_identity
    assert len(find(str(folders["lacking"]), components={"text_encoder_4": str(folders["own"])})) == 12
