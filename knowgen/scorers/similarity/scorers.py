"""Similarity of embeddings: of the generated picture with the ground truth, with references, or with the prompt.

Three scorers, one a measure, because they need different things of a sample and because a cosine of two pictures
and one of a picture and a text must not be averaged:

    similarity:MODEL                                   with the ground truth                  dimension truth
    knowgen.scorers.similarity.scorers:ReferencesSimilarity    with the references a generator noted  references_mean, _max
    knowgen.scorers.similarity.scorers:PromptSimilarity        with the prompt (CLIP only)            prompt

The last two take the model as `-s model=…`. All of them share one cache of embeddings, so that a picture is embedded
once for all three. MODEL is `ARCH/PRETRAINED` as open_clip lists them, `ARCH@/path/to/weights`, `local-dir:FOLDER`
or `hf-hub:ORG/NAME` as open_clip stores models, or `dino:FOLDER_OR_NAME` (DINOv2 and DINOv3, `transformers`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.errors import UnscorableError, UsageError
from knowgen.core.records import Generation, GroundTruth, ImageRef, Item, ParsedScore, Sample, Score, ScoreStatus
from knowgen.local_models.weights import file_digest, files_digest
from knowgen.scorers.contract import failed_score, missing_needs, not_applicable_score
from knowgen.scorers.similarity.clip import ClipSource
from knowgen.scorers.similarity.dino import DinoSource
from knowgen.scorers.similarity.embedder import Embedder, EmbeddingResult
from knowgen.scorers.similarity.images import ImageFile
from knowgen.scorers.similarity.names import parse_name
from knowgen.scorers.similarity.networks import NetworkSource, check_precision


class NotApplicableError(Exception):
    """A sample has nothing to compare with; the message says what is missing."""


@dataclass(frozen=True)
class Counterpart:
    """What a generated picture is compared with: pictures, or a text."""

    images: tuple[ImageFile, ...] = ()
    text: str = ""


class Similarity:
    """Cosine of the embeddings of the generated picture and the ground truth.

    Formula: max(0, cos(f(generated), f(truth))), f being the model's image tower. It is CLIPScore (Hessel et al.
    2021, arXiv 2104.08718) without its factor 2.5, which would leave [0, 1], and with a picture in the place of the
    caption. The cosine itself, in [-1, 1], stands in the score's details.

    The device is chosen when the run starts (`setup`). On a GPU the products are taken in 16 bits, on the processor
    in 32. There is one worker process, which holds one model and uses all cores; for several GPUs name a subclass
    with `workers = N` as `file.py:Class`. Weights that are not on this machine are an error: nothing is downloaded
    unasked.

    Args:
        model: See the module.
        precision: auto, fp32, bf16 or fp16; auto is 16 bits on CUDA, else fp32.
        batch_size: Pictures the model takes at once, 0 to choose; halved where memory runs out.
        download: Fetch weights that are not on this machine.

    Raises:
        UsageError: An argument is out of its range, or the name has no known form.
    """

    needs = frozenset({"image", "truth_image"})
    dimensions: tuple[str, ...] = ("truth",)
    version = "similarity-1"
    note = "embedding similarity, not a judgement of correctness"
    concurrency = 32
    workers = 1
    local = True
    identity_excludes = frozenset({"batch_size", "download"})

    def __init__(self, model: str, precision: str = "auto", batch_size: int = 0, download: bool = False) -> None:
        name = parse_name(model)
        self.label = f"similarity:{model}"
        check_precision(precision, self.label)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 0:
            raise UsageError(f"batch_size={batch_size!r} is no whole number of 0 or more", where=self.label)
        if not isinstance(download, bool):
            raise UsageError(f"download={download!r} is neither true nor false", where=self.label)
        self.model, self.precision, self.batch_size, self.download = model, precision, batch_size, download
        self._name = name
        self._embedder: Embedder | None = None

    @classmethod
    def weights_identity(cls, model: str, **_: Any) -> str:
        """Tells apart weights that come under the same name; no heavy library is imported.

        Returns:
            The first 12 digits of their hash for a file or folder; empty where the name says enough, or where nothing
            is there, which `setup` tells of.
        """
        name = parse_name(model)
        path = Path(name.source).expanduser()
        if name.family == "file" and path.is_file():
            return file_digest(path)[:12]
        if name.family in {"folder", "dino"} and (
            weights := sorted([*path.glob("*.safetensors"), *path.glob("*.bin")])
        ):
            return files_digest(weights)[:12]
        return ""

    def setup(self, device: str) -> None:
        """Finds packages and weights, and remembers the device; the model is loaded when it is first needed.

        Args:
            device: As torch names it, `cpu` or `cuda:0`.

        Raises:
            UsageError: The architecture or its weights are unknown.
            MissingDependencyError: A package is not installed, or the weights are not on this machine.
        """
        make = DinoSource if self._name.family == "dino" else ClipSource
        source: NetworkSource = make(self._name, download=self.download, where=f"scorer {self.label}")
        self._embedder = Embedder(source, device, self.precision, self.batch_size)

    def close(self) -> None:
        """Lets go of the model."""
        if self._embedder is not None:
            self._embedder.close()
            self._embedder = None

    def score_batch(self, items: Sequence[Item]) -> Iterator[Score]:
        """Yields one score an item, in order; a picture that does not open gives a failed score.

        Computes on the processor where `setup` was not called.

        Raises:
            ConfigError: The model cannot be loaded.
        """
        started = time.perf_counter()
        if self._embedder is None:
            self.setup("cpu")
        assert self._embedder is not None
        asked = [self._asked(item) for item in items]
        beside = [one for one in asked if isinstance(one, Counterpart)]
        drawn = [_generated(item[2]) for item, one in zip(items, asked, strict=True) if isinstance(one, Counterpart)]
        images = self._embedder.images([*drawn, *(image for one in beside for image in one.images)])
        texts = self._embedder.texts([one.text for one in beside if one.text])
        seconds = round((time.perf_counter() - started) / max(1, len(beside)), 4)
        for item, one in zip(items, asked, strict=True):
            if isinstance(one, Score):
                yield one
            else:
                yield self._score(item, one, images, texts).model_copy(update={"seconds": seconds})

    def _asked(self, item: Item) -> Counterpart | Score:
        """Returns what an item is compared with, or its score where that is settled without looking."""
        sample, truth, generation = item
        if lacking := missing_needs(self.needs, truth, generation):
            reason = f"there is no {' and no '.join(lacking)}"
            return not_applicable_score(sample.id, generation.repeat, self.label, reason)
        try:
            return self._beside(sample, truth, generation)
        except NotApplicableError as error:
            return not_applicable_score(sample.id, generation.repeat, self.label, str(error))
        except UnscorableError as error:
            return failed_score(sample.id, generation.repeat, self.label, str(error), image=_digest(generation.image))

    def _score(self, item: Item, beside: Counterpart, images: EmbeddingResult, texts: EmbeddingResult) -> Score:
        sample, _, generation = item
        drawn = _generated(generation)
        fault = _fault([drawn, *beside.images], images)
        if not fault and beside.text in texts.faults:
            fault = f"the prompt {texts.faults[beside.text]}"
        if fault:
            return failed_score(sample.id, generation.repeat, self.label, fault, image=drawn.sha256)
        vectors = [images.vectors[image.sha256] for image in beside.images]
        if beside.text:
            vectors.append(texts.vectors[beside.text])
        own = images.vectors[drawn.sha256]
        cosines = [float(own @ vector) for vector in vectors]
        reading = ParsedScore(
            status=ScoreStatus.OK,
            values=self._values(cosines),
            rationale=f"cosine {', '.join(f'{cosine:.4f}' for cosine in cosines)}",
        )
        return Score(
            sample_id=sample.id,
            repeat=generation.repeat,
            scorer=self.label,
            status=ScoreStatus.OK,
            strict=reading,
            image=drawn.sha256,
            details=self._details(beside, cosines, beside.text in texts.cut),
        )

    def _details(self, beside: Counterpart, cosines: Sequence[float], cut: bool) -> dict[str, Any]:
        assert self._embedder is not None
        identity = self._embedder.identity
        details: dict[str, Any] = {
            "model": identity.model,
            "weights": identity.weights,
            "config": identity.config[:12],
            "precision": self._embedder.precision,
            "device": self._embedder.device,
            "cosines": [round(cosine, 6) for cosine in cosines],
        }
        if beside.images:
            details["with"] = [image.sha256 for image in beside.images]
        if beside.text:
            details["prompt_cut"] = cut  # the model saw its beginning only
        return details

    def _beside(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Counterpart:
        """Returns what the generated picture is compared with.

        Raises:
            NotApplicableError: There is nothing.
            UnscorableError: There should be something, and it cannot be had.
        """
        assert truth.image is not None
        return Counterpart(images=(_picture(truth.image, "the ground truth"),))

    def _values(self, cosines: Sequence[float]) -> dict[str, float]:
        """Returns the values by dimension."""
        return {"truth": clip_cosine(cosines[0])}


class ReferencesSimilarity(Similarity):
    """Cosine of the generated picture with each reference image that the generator noted: their mean and the highest.

    A noted reference is compared when it says in `path` where its file lies, as an absolute path on this machine; a
    `sha256` beside it must be the digest of that file. A sample whose generator noted no such file is not applicable;
    a file that is gone, or is another one by now, makes the score fail. Values: mean and maximum of max(0, cos) over
    the references; see `Similarity` for the formula, arguments and errors.
    """

    needs = frozenset({"image", "references"})
    dimensions: tuple[str, ...] = ("references_mean", "references_max")

    def _beside(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Counterpart:
        noted = [reference for reference in generation.references if reference.get("path")]
        if not noted:
            raise NotApplicableError("the generator noted no reference with a file (`path`)")
        return Counterpart(images=tuple(_reference(number, one) for number, one in enumerate(noted, 1)))

    def _values(self, cosines: Sequence[float]) -> dict[str, float]:
        values = [clip_cosine(cosine) for cosine in cosines]
        return {"references_mean": sum(values) / len(values), "references_max": max(values)}


class PromptSimilarity(Similarity):
    """Cosine of the generated picture and the sample's prompt: CLIPScore without its factor 2.5.

    Formula: max(0, cos(f(generated), g(prompt))), f being the image and g the text tower (Hessel et al. 2021,
    arXiv 2104.08718). Cosines of pictures and texts lie low, .2 to .4 for CLIP; the figures compare systems under one
    model and mean nothing beside those of another. A prompt that is longer than the model's context is cut at its
    end, and the details say so. See `Similarity` for arguments and errors.

    Raises:
        UsageError: The model has no text tower.
    """

    needs = frozenset({"image"})
    dimensions: tuple[str, ...] = ("prompt",)

    def __init__(self, model: str, precision: str = "auto", batch_size: int = 0, download: bool = False) -> None:
        super().__init__(model, precision, batch_size, download)
        if not self._name.has_text:
            raise UsageError("a DINO model has no text tower", where=self.label, fix="name a CLIP model")

    def _beside(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Counterpart:
        if not sample.prompt.strip():
            raise NotApplicableError("the prompt is empty")
        return Counterpart(text=sample.prompt)

    def _values(self, cosines: Sequence[float]) -> dict[str, float]:
        return {"prompt": clip_cosine(cosines[0])}


def clip_cosine(cosine: float) -> float:
    """Maps a cosine to [0, 1] as CLIPScore does: what points the other way counts 0; rounding beyond 1 is cut."""
    return min(1.0, max(0.0, cosine))


def _picture(image: ImageRef, what: str) -> ImageFile:
    return ImageFile(image.sha256, image.path, what)


def _generated(generation: Generation) -> ImageFile:
    assert generation.image is not None  # `missing_needs` lets none pass
    return _picture(generation.image, "the generated picture")


def _digest(image: ImageRef | None) -> str:
    return image.sha256 if image is not None else ""


def _reference(number: int, noted: Mapping[str, Any]) -> ImageFile:
    """Returns a noted reference as a picture.

    Raises:
        UnscorableError: Its file is not there, or not the one that was noted.
    """
    what, path = f"reference {number}", Path(str(noted["path"]))
    if not path.is_absolute():
        raise UnscorableError(f"{what} has no absolute path")
    try:
        digest = file_digest(path)
    except OSError as error:
        raise UnscorableError(f"{what} cannot be read: {error.strerror}") from error
    if noted.get("sha256") not in (None, "", digest):
        raise UnscorableError(f"{what} is another file than the generator noted")
    return ImageFile(digest, path, what)


def _fault(images: Sequence[ImageFile], found: EmbeddingResult) -> str:
    """Returns why a comparison cannot be made, empty when it can."""
    for image in images:
        if image.sha256 in found.faults:
            return f"{image.what} {found.faults[image.sha256]}"
    return ""
