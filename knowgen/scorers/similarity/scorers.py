"""The scorers of embedding similarity: the generated image with the ground truth, with references, or with the prompt.

    similarity:MODEL             with the ground truth                        dimension truth
    similarity_references:MODEL  with the references a generator recorded     dimensions references_mean, references_max
    similarity_prompt:MODEL      with the prompt (CLIP models only)           dimension prompt

They are three scorers because they need different parts of a sample, and because cosines of two images and cosines of
an image and a text must not be averaged. They share a cache, so that an image is embedded once for all three. MODEL is
`ARCH/PRETRAINED` as open_clip lists it, `ARCH@/path/to/weights`, `local-dir:FOLDER` or `hf-hub:ORG/NAME` in the format
of open_clip, or `dino:FOLDER_OR_NAME` for DINOv2 and DINOv3 models of transformers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.errors import UnscorableError, UsageError
from knowgen.core.home import expand_user
from knowgen.core.records import Generation, GroundTruth, ImageRef, Item, ParsedScore, Sample, Score, ScoreStatus
from knowgen.local_models.weights import file_digest, files_digest
from knowgen.scorers.contract import failed_score, missing_needs, not_applicable_score
from knowgen.scorers.similarity.clip import ClipSource
from knowgen.scorers.similarity.dino import DinoSource
from knowgen.scorers.similarity.embedder import Embedder, EmbeddingResult
from knowgen.scorers.similarity.images import ImageFile
from knowgen.scorers.similarity.names import parse_name
from knowgen.scorers.similarity.networks import NetworkSource, check_precision


class NothingToCompareError(Exception):
    """The sample has nothing to compare the generated image with; the message says what is missing."""


@dataclass(frozen=True)
class ComparisonTarget:
    """The images, or the text, that a generated image is compared with."""

    images: tuple[ImageFile, ...] = ()
    text: str = ""


class Similarity:
    """Cosine similarity of the embeddings of the generated image and the ground truth.

    Formula: max(0, cos(f(generated), f(truth))), where f is the model's image tower. This is CLIPScore (Hessel et al.
    2021, arXiv 2104.08718) with an image in the place of the caption, and without its factor 2.5, which would exceed
    [0, 1]. The details of the score contain the cosine itself, in [-1, 1].

    There is one worker process, with one model and all cores; for several GPUs use a subclass with `workers = N` as
    `file.py:Class`. Missing weights are an error unless `download` is true.

    Args:
        model: Name of the model, see the module.
        precision: auto, fp32, bf16 or fp16; auto is 16 bits on CUDA and fp32 elsewhere.
        batch_size: Number of images per batch, 0 for the default; halved when memory runs out.
        download: Whether missing weights may be downloaded.

    Raises:
        UsageError: An argument is invalid.
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
            raise UsageError(f"batch_size must be a whole number >= 0, got {batch_size!r}", where=self.label)
        if not isinstance(download, bool):
            raise UsageError(f"download must be true or false, got {download!r}", where=self.label)
        self.model, self.precision, self.batch_size, self.download = model, precision, batch_size, download
        self._name = name
        self._embedder: Embedder | None = None

    @classmethod
    def weights_identity(cls, model: str, **_: Any) -> str:
        """Identify the weights in a file or folder by content, without importing torch.

        Args:
            model: As in the constructor.

        Returns:
            The first 12 hex digits of the weights' hash for a file or folder. Empty where the name identifies the
            weights, and where there are none, which `setup` reports.
        """
        name = parse_name(model)
        path = expand_user(name.source)
        if name.family == "file" and path.is_file():
            return file_digest(path)[:12]
        if name.family in {"folder", "dino"} and (
            weights := sorted([*path.glob("*.safetensors"), *path.glob("*.bin")])
        ):
            return files_digest(weights)[:12]
        return ""

    def setup(self, device: str) -> None:
        """Find packages and weights, and set the device. The model is loaded when it is first needed.

        Args:
            device: Device as torch names it, such as `cpu` or `cuda:0`.

        Raises:
            UsageError: The architecture or its weights are unknown.
            MissingDependencyError: A package is not installed, or the weights are not on this machine.
        """
        make = DinoSource if self._name.family == "dino" else ClipSource
        source: NetworkSource = make(self._name, download=self.download, where=f"scorer {self.label}")
        self._embedder = Embedder(source, device, self.precision, self.batch_size)

    def close(self) -> None:
        """Release the model."""
        if self._embedder is not None:
            self._embedder.close()
            self._embedder = None

    def score_batch(self, items: Sequence[Item]) -> Iterator[Score]:
        """Yield one score per item, in order. An image that cannot be opened gives a failed score.

        Without an earlier call of `setup` the model runs on the CPU.

        Raises:
            ConfigError: The model cannot be loaded.
        """
        started = time.perf_counter()
        if self._embedder is None:
            self.setup("cpu")
        assert self._embedder is not None
        prepared = [self._prepare(item) for item in items]
        compared = [
            (item, target) for item, target in zip(items, prepared, strict=True) if isinstance(target, ComparisonTarget)
        ]
        generated = [_generated_image(item[2]) for item, _ in compared]
        images = self._embedder.images([*generated, *(image for _, target in compared for image in target.images)])
        texts = self._embedder.texts([target.text for _, target in compared if target.text])
        seconds = round((time.perf_counter() - started) / max(1, len(compared)), 4)
        for item, one in zip(items, prepared, strict=True):
            if isinstance(one, Score):
                yield one
            else:
                yield self._score(item, one, images, texts).model_copy(update={"seconds": seconds})

    def _prepare(self, item: Item) -> ComparisonTarget | Score:
        """Return the comparison target of an item, or its score if it has none."""
        sample, truth, generation = item
        if missing := missing_needs(self.needs, truth, generation):
            reason = f"no {' and no '.join(missing)}"
            return not_applicable_score(sample.id, generation.repeat, self.label, reason)
        try:
            return self._target(sample, truth, generation)
        except NothingToCompareError as error:
            return not_applicable_score(sample.id, generation.repeat, self.label, str(error))
        except UnscorableError as error:
            return failed_score(sample.id, generation.repeat, self.label, str(error), image=_digest(generation.image))

    def _score(self, item: Item, target: ComparisonTarget, images: EmbeddingResult, texts: EmbeddingResult) -> Score:
        sample, _, generation = item
        generated = _generated_image(generation)
        fault = _first_fault([generated, *target.images], images)
        if not fault and target.text in texts.faults:
            fault = f"the prompt {texts.faults[target.text]}"
        if fault:
            return failed_score(sample.id, generation.repeat, self.label, fault, image=generated.sha256)
        vectors = [images.vectors[image.sha256] for image in target.images]
        if target.text:
            vectors.append(texts.vectors[target.text])
        own = images.vectors[generated.sha256]
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
            image=generated.sha256,
            details=self._details(target, cosines, target.text in texts.cut),
        )

    def _details(self, target: ComparisonTarget, cosines: Sequence[float], cut: bool) -> dict[str, Any]:
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
        if target.images:
            details["with"] = [image.sha256 for image in target.images]
        if target.text:
            details["prompt_cut"] = cut  # whether only the beginning of the prompt was embedded
        return details

    def _target(self, sample: Sample, truth: GroundTruth, generation: Generation) -> ComparisonTarget:
        """Return the target that the generated image is compared with.

        Raises:
            NothingToCompareError: The sample has nothing to compare with.
            UnscorableError: A recorded file is missing or was changed.
        """
        assert truth.image is not None
        return ComparisonTarget(images=(_image_file(truth.image, "the ground truth"),))

    def _values(self, cosines: Sequence[float]) -> dict[str, float]:
        """Return the values by dimension."""
        return {"truth": clip_cosine(cosines[0])}


class ReferencesSimilarity(Similarity):
    """Cosine similarity of the generated image with the reference images that the generator recorded: mean and maximum.

    A recorded reference is compared if it has a `path`, an absolute path on this machine; its `sha256`, if it has one,
    must be that of the file. Without such a reference the score is not applicable. A missing or changed file fails the
    score. The values are the mean and the maximum of max(0, cos) over the references; see `Similarity` for the
    formula, arguments and errors.
    """

    needs = frozenset({"image", "references"})
    dimensions: tuple[str, ...] = ("references_mean", "references_max")

    def _target(self, sample: Sample, truth: GroundTruth, generation: Generation) -> ComparisonTarget:
        recorded = [reference for reference in generation.references if reference.get("path")]
        if not recorded:
            raise NothingToCompareError("the generator recorded no reference with a file (`path`)")
        return ComparisonTarget(images=tuple(_reference(number, one) for number, one in enumerate(recorded, 1)))

    def _values(self, cosines: Sequence[float]) -> dict[str, float]:
        values = [clip_cosine(cosine) for cosine in cosines]
        return {"references_mean": sum(values) / len(values), "references_max": max(values)}


class PromptSimilarity(Similarity):
    """Cosine similarity of the generated image and the sample's prompt: CLIPScore without its factor 2.5.

    Formula: max(0, cos(f(generated), g(prompt))), where f is the image tower and g the text tower (Hessel et al. 2021,
    arXiv 2104.08718). Cosines of images and texts are small, 0.2 to 0.4 for CLIP: compare systems under one model only.
    A prompt longer than the model's context is cut at its end, and the details of the score say so. See `Similarity`
    for arguments and errors.

    Raises:
        UsageError: The model has no text tower.
    """

    needs = frozenset({"image"})
    dimensions: tuple[str, ...] = ("prompt",)

    def __init__(self, model: str, precision: str = "auto", batch_size: int = 0, download: bool = False) -> None:
        super().__init__(model, precision, batch_size, download)
        if not self._name.has_text:
            raise UsageError("a DINO model has no text tower", where=self.label, fix="name a CLIP model")

    def _target(self, sample: Sample, truth: GroundTruth, generation: Generation) -> ComparisonTarget:
        if not sample.prompt.strip():
            raise NothingToCompareError("the prompt is empty")
        return ComparisonTarget(text=sample.prompt)

    def _values(self, cosines: Sequence[float]) -> dict[str, float]:
        return {"prompt": clip_cosine(cosines[0])}


def clip_cosine(cosine: float) -> float:
    """Return a cosine clipped to [0, 1], as CLIPScore does.

    Example:
        >>> clip_cosine(-0.2), clip_cosine(0.3)
        (0.0, 0.3)
    """
    return min(1.0, max(0.0, cosine))


def _image_file(image: ImageRef, what: str) -> ImageFile:
    return ImageFile(image.sha256, image.path, what)


def _generated_image(generation: Generation) -> ImageFile:
    assert generation.image is not None  # checked by `missing_needs`
    return _image_file(generation.image, "the generated image")


def _digest(image: ImageRef | None) -> str:
    return image.sha256 if image is not None else ""


def _reference(number: int, recorded: Mapping[str, Any]) -> ImageFile:
    """Return a recorded reference as an image file.

    Raises:
        UnscorableError: The file is missing or was changed.
    """
    what, path = f"reference {number}", Path(str(recorded["path"]))
    if not path.is_absolute():
        raise UnscorableError(f"{what} has no absolute path")
    try:
        digest = file_digest(path)
    except OSError as error:
        raise UnscorableError(f"{what} cannot be read: {error.strerror}") from error
    if recorded.get("sha256") not in (None, "", digest):
        raise UnscorableError(f"{what} is another file than the generator recorded")
    return ImageFile(digest, path, what)


def _first_fault(images: Sequence[ImageFile], embedded: EmbeddingResult) -> str:
    """Return why images cannot be compared, empty where they can."""
    for image in images:
        if image.sha256 in embedded.faults:
            return f"{image.what} {embedded.faults[image.sha256]}"
    return ""
