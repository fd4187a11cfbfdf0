"""The scorer `hf`: an open VLM as judge in this process, with the rubric, contract and parsers of `vlm`."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from knowgen.clients.chat.image_encoding import ENCODING_VERSION, ImageEncoding, encode_bytes
from knowgen.core.errors import UnscorableError, UsageError
from knowgen.core.home import expand_user
from knowgen.core.images import open_rgb
from knowgen.core.records import DIMENSIONS, Attempt, ImageRef, Item, ParsedScore, Sample, Score, Usage
from knowgen.core.text import clean_text
from knowgen.local_models.memory import free_memory
from knowgen.local_models.vlm import DTYPES, LocalVlm, ModelSource, load
from knowgen.local_models.vlm_weights import weights_id
from knowgen.scorers.contract import failed_score, missing_needs, not_applicable_score, usage_of
from knowgen.scorers.hf.decoding import Decoder, DecoderPrompt, DecoderReply
from knowgen.scorers.vlm.parsing import PARSER_VERSION, ReplyError, read_attempts, read_strict
from knowgen.scorers.vlm.retry import TOO_LONG
from knowgen.scorers.vlm.rubric import RUBRIC_VERSION, rubric_hash, system_prompt, user_text

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPTING_VERSION = "hf-1"
"""Version of the prompts to the model. Increment it with any change to their text or to the pixels of their images."""


class HfJudge:
    """A judge of the four KnowGen dimensions that runs an open VLM on this machine, several samples at a time.

    It sees the prompt, the generated image and the ground truth. The contract of a reply and its parsers are those of
    `vlm`: a reply that breaks the contract is requested again, with what was wrong, up to `attempts` times, and every
    attempt is stored. A sample for which memory runs out even in a batch of one gets a failed score.

    The weights of a folder are part of the scorer's version (`weights_identity`), and `judge_returned` of a score
    contains their content id.

    Args:
        model: Folder with config.json, processor and *.safetensors, or name on the Hugging Face hub.
        revision: Branch, tag or commit on the hub; empty for the default one.
        download: Whether the weights may be downloaded from the hub; otherwise they must be in its cache.
        temperature: Sampling temperature, 0 to 2; 0 is greedy.
        max_new_tokens: Maximum number of tokens of a reply.
        max_pixels: Maximum number of pixels of an image, larger ones are scaled down; None leaves it to the model's
            processor.
        batch_size: Number of samples per batch; halved when memory runs out.
        attempts: Maximum number of replies for one score, when they break the contract.
        dtype: Number format of the weights: auto (bfloat16 on a GPU, float32 on a CPU), float32, bfloat16 or float16.
        device_map: Placement over several devices as in transformers, such as `auto`; empty for one device.
        gpus_per_worker: Number of GPUs over which the model is spread, those with the most free memory.

    Raises:
        UsageError: An argument is invalid.
    """

    needs = frozenset({"image", "truth_image"})
    dimensions = DIMENSIONS
    version = f"{RUBRIC_VERSION} {PARSER_VERSION} {ENCODING_VERSION} {PROMPTING_VERSION}"
    note = "open VLM judge in process"
    parser = PARSER_VERSION
    concurrency = 16
    workers = 1
    local = True
    deadline = 1800.0  # a CPU may take minutes for one reply
    identity_excludes = frozenset({"download", "batch_size", "device_map", "gpus_per_worker"})

    def __init__(
        self,
        model: str,
        revision: str = "",
        download: bool = False,
        temperature: float = 0.0,
        max_new_tokens: int = 1024,
        max_pixels: int | None = None,
        batch_size: int = 4,
        attempts: int = 3,
        dtype: str = "auto",
        device_map: str = "",
        gpus_per_worker: int = 1,
    ) -> None:
        where = f"scorer hf:{model}" if model else "scorer hf"
        if not isinstance(model, str) or not model.strip():
            raise UsageError("the judge needs a model", where="scorer hf", fix="name it as hf:FOLDER or hf:ORG/NAME")
        counts = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "attempts": attempts}
        counts["gpus_per_worker"] = gpus_per_worker
        _check_counts(counts if max_pixels is None else counts | {"max_pixels": max_pixels}, where)
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 2:
            raise UsageError(f"temperature must be a number from 0 to 2, got {temperature!r}", where=where)
        if dtype not in DTYPES:
            raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}", where=where)
        if not isinstance(download, bool):
            raise UsageError(f"download must be true or false, got {download!r}", where=where)
        self.label = f"hf:{model}"
        if gpus_per_worker > 1:
            device_map = device_map or "balanced"
        self.source = ModelSource(model, revision, download, dtype, device_map, where=f"scorer hf:{model}")
        self.attempts = attempts
        self.max_pixels = max_pixels
        self._decoding = {
            "batch_size": batch_size, "max_new_tokens": max_new_tokens, "temperature": float(temperature),
        }  # fmt: skip
        self._loaded: tuple[LocalVlm, Decoder] | None = None

    @classmethod
    def weights_identity(cls, model: str, **_: Any) -> str:
        """Identify the weights in a folder by content, without importing torch.

        Args:
            model: As in the constructor.

        Returns:
            The content id of a folder, 12 hex digits. Empty for a hub name, which the revision identifies, and where
            there are no weights, which `setup` reports.
        """
        folder = expand_user(model or "")
        return weights_id(folder) if any(folder.glob("*.safetensors")) else ""

    @staticmethod
    def gpu_limit(gpus_per_worker: int = 1, **_: Any) -> int:
        """Return the number of GPUs that a worker process sees."""
        return gpus_per_worker

    def setup(self, device: str) -> None:
        """Load the model.

        Args:
            device: Device such as `cuda:0` or `cpu`.

        Raises:
            MissingDependencyError: A package or the weights are missing.
            DataError: The folder is not a model, or some of its weights are missing.
            ConfigError: The model is not a vision-language model, or cannot be loaded.
        """
        vlm = load(self.source, device)
        self._loaded = (vlm, Decoder(vlm, **self._decoding))  # type: ignore[arg-type]

    @staticmethod
    def reparse(attempts: Sequence[Attempt], sample: Sample) -> tuple[ParsedScore, ParsedScore, str]:
        """Parse attempts of several runs together; see `knowgen.scorers.contract.with_earlier`."""
        return read_attempts(attempts, sample.text_required)

    def score_batch(self, items: Sequence[Item]) -> Iterator[Score]:
        """Yield one score per item, each as soon as it is complete. An unusable image fails only its own score.

        Samples wait in a queue and are taken in batches. Those whose reply must be requested again go to its end, so
        that they share batches too.

        Args:
            items: Samples with ground truths and generations.
        """
        if self._loaded is None:
            self.setup("cpu")
        assert self._loaded is not None
        vlm, decoder = self._loaded
        queue: deque[_SampleInProgress] = deque()
        for sample, truth, generation in items:
            if missing := missing_needs(self.needs, truth, generation):
                reason = f"no {' and no '.join(missing)}"
                yield not_applicable_score(sample.id, generation.repeat, self.label, reason)
                continue
            queue.append(_SampleInProgress((sample, truth, generation), self, vlm))
        while queue:
            batch: list[_SampleInProgress] = []
            while queue and len(batch) < decoder.batch_size:
                pending = queue.popleft()
                try:
                    pending.load_images()
                except UnscorableError as error:
                    yield pending.failed(str(error))
                else:
                    batch.append(pending)
            for pending, reply in zip(batch, decoder.replies([pending.prompt() for pending in batch]), strict=True):
                pending.add_reply(reply)
                if pending.complete:
                    yield pending.score()
                else:
                    queue.append(pending)

    def close(self) -> None:
        """Release the model and its memory."""
        if self._loaded is None:
            return
        self._loaded = None
        free_memory()


class _SampleInProgress:
    """A sample and the attempts to score it so far.

    Attributes:
        complete: Whether no further reply is needed.
    """

    def __init__(self, item: Item, judge: HfJudge, vlm: LocalVlm) -> None:
        self._sample, self._truth, self._generation = item
        self._judge, self._vlm = judge, vlm
        self._images: tuple[Image, ...] = ()
        self._digests: tuple[str, ...] = ()
        self._attempts: list[Attempt] = []
        self._fault = ""
        self.complete = False

    def load_images(self) -> None:
        """Load the images, once.

        Raises:
            UnscorableError: An image has no file or cannot be opened.
        """
        if not self._images:
            max_pixels = self._judge.max_pixels
            generated = _load_image(self._generation.image, "the generated image", max_pixels)
            truth = _load_image(self._truth.image, "the ground truth", max_pixels)
            self._images, self._digests = (generated[0], truth[0]), (generated[1], truth[1])

    def failed(self, reason: str) -> Score:
        """Return the failed score of a sample whose images cannot be loaded."""
        return failed_score(self._sample.id, self._generation.repeat, self._judge.label, reason)

    def prompt(self) -> DecoderPrompt:
        """Return the next prompt, which says what was wrong with the previous reply."""
        sample = self._sample
        text = user_text(sample.id, sample.prompt, sample.text_required, self._fault)
        return DecoderPrompt(system_prompt(), text, self._images)

    def add_reply(self, reply: DecoderReply) -> None:
        """Add a reply to the attempts, and set `complete`."""
        usage = Usage(input_tokens=reply.input_tokens, output_tokens=reply.output_tokens, cost=0.0)
        attempt = Attempt(
            reply=clean_text(reply.text),
            error=reply.error,
            model=f"{self._judge.source.model}@{self._vlm.weights}",
            finish_reason=reply.finish,
            seconds=reply.seconds,
            usage=usage,
        )
        parsed = read_strict(attempt.reply, text_required=self._sample.text_required)
        if isinstance(parsed, ReplyError) and not reply.error:
            self._fault = TOO_LONG if reply.finish == "length" else str(parsed)  # other faults follow from the cut
            attempt = attempt.model_copy(update={"error": self._fault})
        self._attempts.append(attempt)
        exhausted = len(self._attempts) >= self._judge.attempts
        self.complete = isinstance(parsed, ParsedScore) or bool(reply.error) or exhausted

    def score(self) -> Score:
        """Return the score parsed from all attempts; failed, with the last fault, where none meets the contract."""
        strict, lenient, returned = read_attempts(self._attempts, self._sample.text_required)
        image = self._generation.image
        return Score(
            sample_id=self._sample.id,
            repeat=self._generation.repeat,
            scorer=self._judge.label,
            status=strict.status,
            strict=strict,
            lenient=lenient,
            image=image.sha256 if image is not None else "",
            attempts=tuple(self._attempts),
            judge_asked=self._judge.source.model,
            judge_returned=returned,
            parser=PARSER_VERSION,
            details={
                "rubric": RUBRIC_VERSION,
                "rubric_hash": rubric_hash(),
                "pictures": dict(zip(("generated", "truth"), self._digests, strict=True)),
                "weights": self._vlm.weights,
                "dtype": self._vlm.dtype,
            },
            seconds=sum(attempt.seconds for attempt in self._attempts),
            usage=usage_of(self._attempts),
        )


def _load_image(image: ImageRef | None, what: str, max_pixels: int | None) -> tuple[Image, str]:
    """Return an image in the encoding of every VLM judge, and the SHA-256 of the encoded JPEG.

    Args:
        image: Image with its path on this machine.
        what: Name of the image in errors.
        max_pixels: Maximum number of pixels, None for no limit.

    Raises:
        UnscorableError: The image has no file, or the file cannot be decoded.
    """
    from PIL import Image

    if image is None or image.path is None:
        raise UnscorableError(f"{what} has no file on this machine")
    data, width, height = encode_bytes(image.path, what, ImageEncoding())
    pixels = open_rgb(data)
    if max_pixels is not None and width * height > max_pixels:
        scale = math.sqrt(max_pixels / (width * height))
        pixels = pixels.resize((max(1, int(width * scale)), max(1, int(height * scale))), Image.Resampling.LANCZOS)
    return pixels, hashlib.sha256(data).hexdigest()


def _check_counts(counts: dict[str, Any], where: str) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} must be a whole number >= 1, got {value!r}", where=where)
