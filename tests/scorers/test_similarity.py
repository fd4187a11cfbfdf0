"""Similarity scorers with CLIP models: values, comparisons and errors."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from knowgen.core.errors import ConfigError, KnowgenError, MissingDependencyError, UsageError
from knowgen.core.records import Item, Score, ScoreStatus
from knowgen.scorers.contract import scorer_capabilities
from knowgen.scorers.similarity.scorers import PromptSimilarity, ReferencesSimilarity, Similarity, clip_cosine
from tests.helpers.images import path_of
from tests.helpers.similarity_models import (
    ARCH,
    MODEL,
    PREPROCESS,
    SAFE,
    add_architecture,
    as_hub_cache,
    item,
    items,
    reference,
    save_blocks,
    save_clip,
    save_clip_folder,
)

pytest.importorskip("open_clip")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use separate caches, and fail a test that opens a socket."""
    from huggingface_hub import constants

    monkeypatch.setenv("KNOWGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("something went to the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny.pt")


def scores(scorer: Similarity, batch: Sequence[Item]) -> list[Score]:
    return list(scorer.score_batch(batch))


def by_hand(weights: Path | str, arch: str = ARCH) -> tuple[Callable[[Path], Any], Callable[[str], Any]]:
    """Return the cosine computed with open_clip as in its README, one image at a time."""
    import open_clip
    import torch
    from PIL import Image

    model, _, preprocess = open_clip.create_model_and_transforms(arch, pretrained=str(weights) if weights else None)
    model.eval()
    tokenizer = open_clip.get_tokenizer(arch)

    def image(file: Path) -> Any:
        with torch.no_grad():
            vector = model.encode_image(preprocess(Image.open(file)).unsqueeze(0))[0]
        return (vector / vector.norm()).numpy()

    def text(words: str) -> Any:
        with torch.no_grad():
            vector = model.encode_text(tokenizer([words]))[0]
        return (vector / vector.norm()).numpy()

    return image, text


def test_the_value_is_the_cosine_of_open_clip(weights: Path, tmp_path: Path) -> None:
    batch = items(tmp_path / "p", 5)
    image, _ = by_hand(weights)
    for (sample, truth, generation), score in zip(batch, scores(Similarity(f"{ARCH}@{weights}"), batch), strict=True):
        expected = float(image(path_of(generation.image)) @ image(path_of(truth.image)))
        assert generation.image is not None
        assert (score.sample_id, score.status, score.image) == (sample.id, ScoreStatus.OK, generation.image.sha256)
        assert score.strict.values["truth"] == pytest.approx(max(0.0, expected), abs=1e-5)
        assert score.details["cosines"] == [pytest.approx(expected, abs=1e-5)]
        assert score.details["precision"] == "fp32"


def test_a_batch_gives_what_single_items_give(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", "off")
    batch = items(tmp_path / "p", 7)
    together = [score.strict.values["truth"] for score in scores(Similarity(f"{ARCH}@{weights}", batch_size=3), batch)]
    scorer = Similarity(f"{ARCH}@{weights}")
    alone = [scores(scorer, [one])[0].strict.values["truth"] for one in batch]
    assert together == pytest.approx(alone, abs=1e-5)


def test_prompt_similarity_is_the_cosine_of_image_and_text(weights: Path, tmp_path: Path) -> None:
    batch = items(tmp_path / "p", 4)
    image, text = by_hand(weights)
    results = scores(PromptSimilarity(f"{ARCH}@{weights}"), batch)
    expected = [float(image(path_of(one.image)) @ text(sample.prompt)) for sample, _, one in batch]
    assert [score.details["cosines"][0] for score in results] == pytest.approx(expected, abs=1e-5)
    assert [score.strict.values["prompt"] for score in results] == pytest.approx(
        [max(0, e) for e in expected], abs=1e-5
    )


def test_a_prompt_longer_than_the_context_is_marked_as_cut(weights: Path, tmp_path: Path) -> None:
    generated = save_blocks(tmp_path, 1)
    fits, long = "dog " * 14, "dog " * 15  # 16 tokens with begin and end, and one more
    batch = [item("a", generated, None, prompt=fits), item("b", generated, None, prompt=long)]
    for _ in range(2):  # the second time out of the cache
        results = scores(PromptSimilarity(f"{ARCH}@{weights}"), batch)
        assert [score.details["prompt_cut"] for score in results] == [False, True]


def test_references_give_their_mean_and_maximum(weights: Path, tmp_path: Path) -> None:
    generated, refs = save_blocks(tmp_path, 0), [save_blocks(tmp_path, n) for n in (1, 2, 3)]
    recorded = tuple({"title": "x", "path": str(ref.path), "sha256": ref.sha256} for ref in refs)
    image, _ = by_hand(weights)
    expected = [max(0.0, float(image(path_of(generated)) @ image(path_of(ref)))) for ref in refs]
    (score,) = scores(ReferencesSimilarity(f"{ARCH}@{weights}"), [item("a", generated, None, references=recorded)])
    assert score.strict.values["references_mean"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert score.strict.values["references_max"] == pytest.approx(max(expected), abs=1e-5)
    assert score.details["with"] == [ref.sha256 for ref in refs]


def test_references_without_a_file_are_not_applicable_and_lost_files_fail(weights: Path, tmp_path: Path) -> None:
    generated, ref = save_blocks(tmp_path, 0), save_blocks(tmp_path, 1)
    cases: dict[str, tuple[dict[str, Any], ...]] = {
        "none": (),
        "no file": ({"title": "x", "url": "world://x"},),
        "gone": ({"path": str(tmp_path / "gone.png")},),
        "relative": ({"path": "1.png"},),
        "swapped": ({"path": str(ref.path), "sha256": "0" * 64},),
        "fine": ({"title": "x"}, {"path": str(ref.path)}),
    }
    batch = [item(name, generated, None, references=recorded) for name, recorded in cases.items()]
    results = {score.sample_id: score for score in scores(ReferencesSimilarity(f"{ARCH}@{weights}"), batch)}
    assert {name: str(score.status) for name, score in results.items()} == {
        "none": "not_applicable", "no file": "not_applicable", "gone": "failed", "relative": "failed",
        "swapped": "failed", "fine": "ok",
    }  # fmt: skip
    assert "recorded no reference with a file" in results["no file"].strict.reason
    assert "No such file" in results["gone"].strict.reason
    assert "another file" in results["swapped"].strict.reason


def test_an_unreadable_image_fails_only_its_own_score(weights: Path, tmp_path: Path) -> None:
    good, truth = save_blocks(tmp_path, 0), save_blocks(tmp_path, 1)
    torn = tmp_path / "torn.png"
    torn.write_bytes(path_of(good).read_bytes()[:200])
    words = tmp_path / "words.png"
    words.write_text("not an image")
    batch = [
        item("good", good, truth),
        item("torn", reference(torn), truth),
        item("truth", good, reference(words)),
        item("nowhere", good.model_copy(update={"path": None, "sha256": "f" * 64}), truth),
        item("without image", None, truth),
        item("after", truth, good),
    ]
    results = scores(Similarity(f"{ARCH}@{weights}"), batch)
    assert [str(score.status) for score in results] == ["ok", "failed", "failed", "failed", "not_applicable", "ok"]
    reasons = [score.strict.reason for score in results]
    assert reasons[1].startswith("the generated image does not open: ")
    assert reasons[2].startswith("the ground truth does not open: ")
    assert "no file on this machine" in reasons[3]
    assert results[0].strict.values == results[5].strict.values  # the cosine is symmetric


def test_equal_images_score_1_and_values_stay_between_0_and_1(weights: Path, tmp_path: Path) -> None:
    one = save_blocks(tmp_path, 0)
    (score,) = scores(Similarity(f"{ARCH}@{weights}"), [item("a", one, one)])
    assert score.strict.values["truth"] == pytest.approx(1.0, abs=1e-6)
    assert [clip_cosine(x) for x in (-1.0, -0.01, 0.0, 0.25, 1.0000002)] == [0.0, 0.0, 0.0, 0.25, 1.0]


def test_a_folder_is_preprocessed_as_its_configuration_says(tmp_path: Path) -> None:
    folder = save_clip_folder(tmp_path / "model")
    batch = items(tmp_path / "p", 3)
    image, _ = by_hand("", f"local-dir:{folder}")
    expected = [float(image(path_of(one.image)) @ image(path_of(truth.image))) for _, truth, one in batch]
    results = scores(Similarity(f"local-dir:{folder}"), batch)
    assert [score.details["cosines"][0] for score in results] == pytest.approx(expected, abs=1e-5)
    add_architecture(tmp_path)
    plain = scores(Similarity(f"{ARCH}@{folder / SAFE}"), batch)  # the same weights, open_clip's own preprocessing
    assert [score.details["cosines"][0] for score in plain] != pytest.approx(expected, abs=1e-4)


def test_hub_models_are_loaded_from_the_cache_offline(tmp_path: Path) -> None:
    folder = save_clip_folder(tmp_path / "model")
    batch = items(tmp_path / "p", 3)
    local = [score.strict.values for score in scores(Similarity(f"local-dir:{folder}"), batch)]
    as_hub_cache(tmp_path / "hub", "someone/tiny", folder)
    hub = Similarity("hf-hub:someone/tiny")
    assert [score.strict.values for score in scores(hub, batch)] == local
    texts = scores(PromptSimilarity("hf-hub:someone/tiny"), batch)
    assert [str(score.status) for score in texts] == ["ok"] * 3


def test_listed_weights_are_loaded_from_the_cache_and_preprocessed_as_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from open_clip import pretrained

    folder = save_clip_folder(tmp_path / "model")
    batch = items(tmp_path / "p", 3)
    local = [score.strict.values["truth"] for score in scores(Similarity(f"local-dir:{folder}"), batch)]
    as_hub_cache(tmp_path / "hub", "someone/tiny", folder)
    listed = {"made_up": {"url": "", "hf_hub": "someone/tiny/", **PREPROCESS}}
    monkeypatch.setitem(pretrained._PRETRAINED, ARCH, listed)
    results = [score.strict.values["truth"] for score in scores(Similarity(f"{ARCH}/made_up"), batch)]
    assert results == pytest.approx(local, abs=1e-6)
    with pytest.raises(UsageError, match=f"did you mean {ARCH}/made_up"):
        Similarity(f"{ARCH}/made_it").setup("cpu")


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("ViT-B-32/laion2b_s34b_b79k", MissingDependencyError, "-s download=true"),
        ("hf-hub:someone/absent", MissingDependencyError, "hf download someone/absent"),
        ("local-dir:/no/such/folder", MissingDependencyError, "has no open_clip_config.json"),
        ("ViT-B-32@/no/such/file.pt", MissingDependencyError, "does not exist"),
        ("ViT-B-23/openai", UsageError, "did you mean 'ViT-B-32'"),
        ("ViT-B-32/laion2b_s34b", UsageError, "did you mean ViT-B-32/laion2b_s34b_b79k"),
        ("ViT-B-32/openai", UsageError, "ViT-B-32-quickgelu/openai"),
    ],
)
def test_a_missing_model_is_reported_in_one_line_and_not_downloaded(
    model: str, error: type[KnowgenError], words: str
) -> None:
    with pytest.raises(error) as raised:
        Similarity(model).setup("cpu")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("model", ["", "ViT-B-32", "hf-hub:oneword", "ViT-B-32/", "ViT-B-32@", "dino:", "/some/path"])
def test_a_name_of_unknown_form_is_rejected(model: str) -> None:
    with pytest.raises(UsageError, match="ARCH/PRETRAINED|ORG/NAME"):
        Similarity(model)


@pytest.mark.parametrize("wrong", [{"precision": "fp8"}, {"batch_size": -1}, {"batch_size": True}, {"download": "yes"}])
def test_invalid_arguments_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Similarity("ViT-B-32/openai", **wrong)


def test_weights_of_another_model_end_the_run_with_one_line(weights: Path, tmp_path: Path) -> None:
    import open_clip

    broken = tmp_path / "broken.pt"
    broken.write_bytes(weights.read_bytes()[:1000])
    wide = dict(MODEL, embed_dim=24)
    (tmp_path / "tiny-test-wide.json").write_text(json.dumps(wide))
    open_clip.add_model_config(tmp_path / "tiny-test-wide.json")
    for model in (f"{ARCH}@{broken}", f"tiny-test-wide@{weights}"):
        scorer = Similarity(model)
        scorer.setup("cpu")
        with pytest.raises(ConfigError, match="cannot be loaded as weights of") as raised:
            scores(scorer, items(tmp_path / "p", 1))
        assert "\n" not in str(raised.value)


def test_a_missing_package_names_the_extra(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from knowgen.local_models import weights as local_weights

    monkeypatch.setattr(local_weights, "find_spec", lambda name: None if name == "open_clip" else object())
    with pytest.raises(MissingDependencyError, match=r"needs open_clip.*pip install 'knowgen\[models\]'"):
        Similarity(f"{ARCH}@{weights}").setup("cpu")


def test_an_unavailable_device_is_reported(weights: Path, tmp_path: Path) -> None:
    scorer = Similarity(f"{ARCH}@{weights}", precision="fp32")
    scorer.setup("cuda:99")
    with pytest.raises(ConfigError, match="cannot be moved to the device 'cuda:99'"):
        scores(scorer, items(tmp_path / "p", 1))


def test_half_precision_differs_little_and_has_a_key_of_its_own(weights: Path, tmp_path: Path) -> None:
    batch = items(tmp_path / "p", 4)
    full = [score.strict.values["truth"] for score in scores(Similarity(f"{ARCH}@{weights}"), batch)]
    half = [score.strict.values["truth"] for score in scores(Similarity(f"{ARCH}@{weights}", precision="bf16"), batch)]
    assert half == pytest.approx(full, abs=0.02)  # bf16 keeps 8 bits
    assert half != full


def test_the_weights_hash_distinguishes_files_of_one_name(weights: Path, tmp_path: Path) -> None:
    import hashlib

    other = save_clip(tmp_path / "other.pt", seed=1)
    first, second = (Similarity.weights_identity(model=f"{ARCH}@{path}") for path in (weights, other))
    assert first == hashlib.sha256(weights.read_bytes()).hexdigest()[:12] != second
    assert Similarity.weights_identity(model="ViT-B-32/laion2b_s34b_b79k", download=True) == ""


def test_the_declared_capabilities() -> None:
    traits = {kind.__name__: scorer_capabilities(kind) for kind in (Similarity, ReferencesSimilarity, PromptSimilarity)}
    assert {name: (one.dimensions, set(one.needs)) for name, one in traits.items()} == {
        "Similarity": (("truth",), {"image", "truth_image"}),
        "ReferencesSimilarity": (("references_mean", "references_max"), {"image", "references"}),
        "PromptSimilarity": (("prompt",), {"image"}),
    }
    assert all(one.local and one.workers == 1 and one.shape == "score_batch" for one in traits.values())
    assert all("not a judgement" in one.note for one in traits.values())
