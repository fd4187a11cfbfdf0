"""Embedding each content once: the cache and its keys, duplicates within a batch, and running out of memory."""

from __future__ import annotations

import dataclasses
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from knowgen.core.records import ScoreStatus
from knowgen.scorers.similarity import clip as embedding_clip
from knowgen.scorers.similarity.cache import EmbeddingCache
from knowgen.scorers.similarity.clip import ClipNetwork, ClipSource
from knowgen.scorers.similarity.embedder import Embedder
from knowgen.scorers.similarity.images import ImageFile
from knowgen.scorers.similarity.networks import NetworkIdentity, Vectors
from knowgen.scorers.similarity.scorers import PromptSimilarity, Similarity
from tests.helpers.images import path_of
from tests.helpers.processes import run_python
from tests.helpers.similarity_models import ARCH, item, items, save_blocks, save_clip, save_clip_folder

pytest.importorskip("open_clip")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", str(tmp_path / "cache"))


class Mean:
    """A network that embeds an image as its mean colour and records its calls."""

    def __init__(self, most: int = 10_000, nan: bool = False) -> None:
        self.most, self.nan = most, nan
        self.batches: list[int] = []
        self.opened = 0

    def pixels(self, image: Any) -> Any:
        self.opened += 1
        return np.asarray(image, dtype=np.float32).mean(axis=(0, 1))

    def images(self, batch: Sequence[Any]) -> Vectors:
        if len(batch) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.batches.append(len(batch))
        rows = np.stack(batch)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        result: Vectors = rows * np.float32(np.nan) if self.nan else rows
        return result

    def texts(self, texts: Sequence[str]) -> tuple[Vectors, list[bool]]:
        if len(texts) > self.most:
            raise RuntimeError("CUDA out of memory")
        self.batches.append(len(texts))
        rows = np.array([[len(text), 1, 0] for text in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True), [len(text) > 9 for text in texts]


IDENTITY = NetworkIdentity(model="mean", weights="0" * 64, config="1" * 64, libraries={"numpy": "2"})


class Source:
    def __init__(self, network: Mean, identity: NetworkIdentity = IDENTITY) -> None:
        self.network, self.identity = network, identity
        self.loads = 0

    def prepare(self) -> NetworkIdentity:
        return self.identity

    def load(self, device: str, precision: str) -> Mean:
        self.loads += 1
        return self.network


def images(folder: Path, count: int) -> list[ImageFile]:
    refs = [save_blocks(folder, number) for number in range(count)]
    return [ImageFile(ref.sha256, ref.path, f"image {number}") for number, ref in enumerate(refs)]


def test_duplicates_are_opened_and_embedded_once(tmp_path: Path) -> None:
    network = Mean()
    three = images(tmp_path / "p", 3)
    result = Embedder(Source(network), "cpu", "auto", 0).images([*three, *three, three[0]])
    assert (network.opened, network.batches) == (3, [3])
    assert set(result.vectors) == {one.sha256 for one in three}
    texts = Embedder(Source(network), "cpu", "auto", 0).texts(["a", "b", "a", "a long text"])
    assert network.batches == [3, 3]
    assert texts.cut == {"a long text"}


def test_a_second_pass_loads_no_model_and_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = save_clip(tmp_path / "w.pt")
    batch = items(tmp_path / "p", 4)
    kinds = (Similarity, PromptSimilarity)
    first = [list(kind(f"{ARCH}@{weights}").score_batch(batch)) for kind in kinds]

    def refuse(*_: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr(ClipSource, "load", refuse)
    for _, truth, generation in batch:  # no image is opened either
        path_of(truth.image).unlink()
        path_of(generation.image).unlink()
    second = [list(kind(f"{ARCH}@{weights}").score_batch(batch)) for kind in kinds]
    assert [[s.strict for s in part] for part in first] == [[s.strict for s in part] for part in second]
    assert [[s.details for s in part] for part in first] == [[s.details for s in part] for part in second]


def test_other_weights_at_the_same_path_miss_the_cache(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    batch = items(tmp_path / "p", 2)
    results = []
    for seed in (0, 1, 0):
        save_clip(file, seed=seed)
        results.append(
            [(s.details["weights"], s.strict.values) for s in Similarity(f"{ARCH}@{file}").score_batch(batch)]
        )
    assert results[0] == results[2]
    assert all(a != b and c != d for (a, c), (b, d) in zip(results[0], results[1], strict=True))


def test_everything_that_affects_an_embedding_changes_its_key() -> None:
    changes: list[dict[str, Any]] = [
        {}, {"model": "other"}, {"weights": "2" * 64}, {"config": "3" * 64}, {"libraries": {"numpy": "3"}}
    ]  # fmt: skip
    keys = {EmbeddingCache(dataclasses.replace(IDENTITY, **change), "fp32").image_key("ab") for change in changes}
    keys.add(EmbeddingCache(IDENTITY, "bf16").image_key("ab"))
    keys.add(EmbeddingCache(IDENTITY, "fp32").image_key("cd"))
    keys.add(EmbeddingCache(IDENTITY, "fp32").text_key("ab"))
    assert len(keys) == len(changes) + 3


def test_the_preprocessing_is_part_of_a_clip_models_identity(tmp_path: Path) -> None:
    from knowgen.scorers.similarity.names import parse_name

    def config(folder: Path) -> str:
        return ClipSource(parse_name(f"local-dir:{folder}"), download=False, where="here").prepare().config

    folder = save_clip_folder(tmp_path / "model")
    before = config(folder)
    file = folder / "open_clip_config.json"
    file.write_text(file.read_text().replace('"squash"', '"shortest"'))
    assert config(folder) != before


def test_a_damaged_cache_entry_is_computed_again(tmp_path: Path) -> None:
    one = images(tmp_path / "p", 1)
    first = Embedder(Source(Mean()), "cpu", "auto", 0).images(one)
    with sqlite3.connect(tmp_path / "cache" / "embeddings.sqlite") as connection:
        connection.execute("update entries set value = ?", (b"\x00\x00\xc0\x7f" * 3,))
    connection.close()
    source = Source(Mean())
    again = Embedder(source, "cpu", "auto", 0).images(one)
    assert source.loads == 1
    assert np.array_equal(again.vectors[one[0].sha256], first.vectors[one[0].sha256])


def test_the_batch_is_halved_until_it_fits_into_memory(tmp_path: Path) -> None:
    network = Mean(most=3)
    inputs = images(tmp_path / "p", 20)
    embedder = Embedder(Source(network), "cpu", "auto", 16)
    result = embedder.images(inputs)
    assert embedder.batch_size == 2  # 16, 8, 4, 2
    assert network.batches == [2] * 10
    assert network.opened == 20  # images are not opened again
    assert not result.faults
    roomy = Embedder(Source(Mean(), dataclasses.replace(IDENTITY, model="again")), "cpu", "auto", 16).images(inputs)
    assert all(np.allclose(result.vectors[key], roomy.vectors[key]) for key in roomy.vectors)
    assert len(roomy.vectors) == 20


def test_an_image_too_large_for_memory_fails_only_itself(tmp_path: Path) -> None:
    class Picky(Mean):
        heavy = 0.0

        def images(self, batch: Sequence[Any]) -> Vectors:
            if any(abs(float(row.sum()) - self.heavy) < 1e-3 for row in batch):
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return super().images(batch)

    network, inputs = Picky(), images(tmp_path / "p", 6)
    from knowgen.core.images import open_rgb

    network.heavy = float(Mean().pixels(open_rgb(inputs[3].path)).sum())
    result = Embedder(Source(network), "cpu", "auto", 4).images(inputs)
    assert result.faults == {inputs[3].sha256: "does not fit into memory, even as a single image"}
    assert len(result.vectors) == 5


def test_batches_of_texts_are_halved_too() -> None:
    network = Mean(most=1)
    result = Embedder(Source(network), "cpu", "auto", 4).texts(["a", "bb", "ccc"])
    assert network.batches == [1, 1, 1]
    assert set(result.vectors) == {"a", "bb", "ccc"}


def test_other_errors_are_not_treated_as_out_of_memory(tmp_path: Path) -> None:
    class Wrong(Mean):
        def images(self, batch: Sequence[Any]) -> Vectors:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        Embedder(Source(Wrong()), "cpu", "auto", 4).images(images(tmp_path / "p", 2))


def test_a_vector_of_nan_is_a_failure_and_is_not_cached(tmp_path: Path) -> None:
    one = images(tmp_path / "p", 1)
    result = Embedder(Source(Mean(nan=True)), "cpu", "auto", 0).images(one)
    assert "no finite embedding at fp32" in result.faults[one[0].sha256]
    source = Source(Mean())
    assert Embedder(source, "cpu", "auto", 0).images(one).vectors
    assert source.loads == 1


def test_halving_reaches_the_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    weights = save_clip(tmp_path / "w.pt")
    batch = items(tmp_path / "p", 5)
    monkeypatch.setenv("KNOWGEN_CACHE", "off")
    roomy = [score.strict for score in Similarity(f"{ARCH}@{weights}").score_batch(batch)]
    whole = ClipNetwork.images

    def narrow(self: ClipNetwork, tensors: Sequence[Any]) -> Vectors:
        if len(tensors) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, tensors)

    monkeypatch.setattr(ClipNetwork, "images", narrow)
    tight = [score.strict for score in Similarity(f"{ARCH}@{weights}").score_batch(batch)]
    assert [one.status for one in tight] == [ScoreStatus.OK] * 5
    assert [one.values["truth"] for one in tight] == pytest.approx([one.values["truth"] for one in roomy], abs=1e-5)


def test_embeddings_are_computed_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", "off")
    weights = save_clip(tmp_path / "w.pt")
    one = save_blocks(tmp_path, 1)
    (score,) = Similarity(f"{ARCH}@{weights}").score_batch([item("a", one, one)])
    assert score.strict.values["truth"] == pytest.approx(1.0, abs=1e-6)
    assert not (tmp_path / "cache").exists()


def test_a_second_pass_imports_no_torch(tmp_path: Path) -> None:
    folder, batch = save_clip_folder(tmp_path / "model"), items(tmp_path / "p", 1)
    (first,) = Similarity(f"local-dir:{folder}").score_batch(batch)
    code = (
        "import sys; from pathlib import Path; from tests.helpers.similarity_models import items\n"
        "from knowgen.scorers.similarity.scorers import Similarity\n"
        "(score,) = Similarity(sys.argv[1]).score_batch(items(Path(sys.argv[2]), 1))\n"
        "print(score.strict.values['truth'], 'torch' in sys.modules, 'open_clip' in sys.modules)"
    )
    arguments = [f"local-dir:{folder}", str(tmp_path / "p")]
    done = run_python("-c", code, *arguments)
    assert done.stdout.split() == [str(first.strict.values["truth"]), "False", "False"]


def test_a_bundled_architecture_reads_the_same_from_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    configs = {arch: open_clip.get_model_config(arch) for arch in ("ViT-B-32", "RN50", "ViT-SO400M-14-SigLIP")}
    monkeypatch.delitem(sys.modules, "open_clip")
    assert {arch: embedding_clip._bundled(arch) for arch in configs} == configs
    assert embedding_clip._bundled("ViT-B-23") is None
