"""An open VLM as judge, in this process through transformers: the same rubric, contract and readers as `vlm`."""

from __future__ import annotations

import hashlib
import io
import math
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowgen.clients.chat.image_encoding import ENCODING_VERSION, ImageEncoding, encode_bytes
from knowgen.core.errors import UnscorableError, UsageError
from knowgen.core.records import DIMENSIONS, Attempt, ImageRef, Item, ParsedScore, Sample, Score, Usage
from knowgen.core.text import clean_text
from knowgen.local_models.memory import free_memory
from knowgen.scorers.contract import failed_score, missing_needs, not_applicable_score, usage_of
from knowgen.scorers.hf.decoding import Decoder, DecoderPrompt, DecoderReply
from knowgen.scorers.hf.model import DTYPES, LocalVlm, ModelSource, load
from knowgen.scorers.hf.weights import weights_id
from knowgen.scorers.vlm.parsing import PARSER_VERSION, ReplyError, read_attempts, read_strict
from knowgen.scorers.vlm.retry import TOO_LONG
from knowgen.scorers.vlm.rubric import RUBRIC_VERSION, system_prompt, user_text

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPTING_VERSION = "hf-1"
"""Raised whenever the same sample could be put to the same model in other words or pixels by intent."""


class HfJudge:
    """Shows an open VLM the prompt, the generated picture and the ground truth, and reads four values from its reply.

    The model runs on this machine, several samples at a time. What a reply must look like and how it is read is the
    same as for `vlm`: a reply off the contract is asked again with what was wrong, up to `attempts` times, and every
    reply is kept. A sample on its own that does not fit into memory fails, with that reason.

    The name alone does not tell two trainings of one model apart: `judge_returned` of a score carries an id of the
    weights, and a folder whose weights were replaced wants a fresh run.

    Args:
        model: A folder with config.json, processor and *.safetensors, or a name on the Hugging Face hub.
        revision: Branch, tag or commit on the hub; empty for the default one.
        download: May the weights be fetched from the hub? Else they must be on this machine.
        temperature: Of the decoding; 0 is greedy.
        max_new_tokens: Longest reply.
        max_pixels: Pictures with more pixels are scaled down to so many; None leaves that to the model's processor.
        batch_size: Samples of one batch; halved whenever memory runs out.
        attempts: Replies for one judgement, when they are off the contract.
        dtype: Number format of the weights: auto (bfloat16 on a GPU, float32 on a processor), float32, bfloat16 or
            float16.
        device_map: How the model is spread over the devices this process sees, as transformers takes it, such as
            `auto`; empty puts it on one device.

    Raises:
        UsageError: An argument is out of its range.
    """

    needs = frozenset({"image", "truth_image"})
    dimensions = DIMENSIONS
    version = f"{RUBRIC_VERSION} {PARSER_VERSION} {ENCODING_VERSION} {PROMPTING_VERSION}"
    note = "open VLM judge in process"
    parser = PARSER_VERSION
    concurrency = 16
    workers = 1
    local = True
    deadline = 1800.0  # a processor may take minutes for one reply
    identity_excludes = frozenset({"download", "batch_size", "device_map"})

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
    ) -> None:
        where = f"scorer hf:{model}" if model else "scorer hf"
        if not isinstance(model, str) or not model.strip():
            raise UsageError("the judge needs a model", where="scorer hf", fix="name it as hf:FOLDER or hf:ORG/NAME")
        counts = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "attempts": attempts}
        _check_counts(counts if max_pixels is None else counts | {"max_pixels": max_pixels}, where)
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 2:
            raise UsageError(f"temperature={temperature} is not within 0 to 2", where=where)
        if dtype not in DTYPES:
            raise UsageError(f"dtype={dtype} is unknown", where=where, fix=f"give one of {', '.join(DTYPES)}")
        if not isinstance(download, bool):
            raise UsageError(f"download={download} is neither true nor false", where=where)
        self.label = f"hf:{model}"
        self.source = ModelSource(model, revision, download, dtype, device_map)
        self.attempts = attempts
        self.max_pixels = max_pixels
        self._decoding = {
            "batch_size": batch_size, "max_new_tokens": max_new_tokens, "temperature": float(temperature),
        }  # fmt: skip
        self._ready: tuple[LocalVlm, Decoder] | None = None

    @classmethod
    def weights_identity(cls, model: str, **_: Any) -> str:
        """Tells apart weights that come to lie in the same folder; no heavy library is imported.

        Returns:
            The first 12 digits of their hash for a folder; empty for a name of the hub, which the revision tells apart,
            and where nothing is there, which `setup` tells of.
        """
        folder = Path(model or "").expanduser()
        return weights_id(folder) if any(folder.glob("*.safetensors")) else ""

    def setup(self, device: str) -> None:
        """Loads the model onto a device, such as `cuda:0` or `cpu`.

        Raises:
            MissingDependencyError: A package or the weights are not there.
            DataError: The folder holds no model, or not all of it.
            ConfigError: It is no vision-language model, or cannot be loaded.
        """
        vlm = load(self.source, device)
        self._ready = (vlm, Decoder(vlm, **self._decoding))  # type: ignore[arg-type]

    @staticmethod
    def reparse(attempts: Sequence[Attempt], sample: Sample) -> tuple[ParsedScore, ParsedScore, str]:
        """Reads attempts of several tries together; see `knowgen.scorers.contract.with_earlier`."""
        return read_attempts(attempts, sample.text_required)

    def score_batch(self, items: Sequence[Item]) -> Iterator[Score]:
        """Yields one score an item, each as soon as it is settled; whatever is wrong with one is its own failure.

        Items wait in one line and are taken in batches; those to be asked again go to its end, and so are asked
        together.

        Args:
            items: Samples with truth and generation.
        """
        if self._ready is None:
            self.setup("cpu")
        assert self._ready is not None
        vlm, decoder = self._ready
        line: deque[_Conversation] = deque()
        for sample, truth, generation in items:
            if lacking := missing_needs(self.needs, truth, generation):
                reason = f"there is no {' and no '.join(lacking)}"
                yield not_applicable_score(sample.id, generation.repeat, self.label, reason)
                continue
            line.append(_Conversation((sample, truth, generation), self, vlm))
        while line:
            batch: list[_Conversation] = []
            while line and len(batch) < decoder.batch_size:
                talk = line.popleft()
                try:
                    talk.open()
                except UnscorableError as error:
                    yield talk.failed(str(error))
                else:
                    batch.append(talk)
            for talk, reply in zip(batch, decoder.replies([talk.prompt() for talk in batch]), strict=True):
                talk.hear(reply)
                if talk.settled:
                    yield talk.score()
                else:
                    line.append(talk)

    def close(self) -> None:
        """Lets go of the model and of the memory it takes."""
        if self._ready is None:
            return
        self._ready = None
        free_memory()


class _Conversation:
    """One sample on its way to a score: what was asked so far, and what came back."""

    def __init__(self, item: Item, judge: HfJudge, vlm: LocalVlm) -> None:
        self._sample, self._truth, self._generation = item
        self._judge, self._vlm = judge, vlm
        self._pictures: tuple[Image, ...] = ()
        self._digests: tuple[str, ...] = ()
        self._attempts: list[Attempt] = []
        self._fault = ""
        self.settled = False

    def open(self) -> None:
        """Opens the pictures, where they are not open yet.

        Raises:
            UnscorableError: A picture has no file or does not open.
        """
        if not self._pictures:
            most = self._judge.max_pixels
            drawn = _shown(self._generation.image, "the generated picture", most)
            true = _shown(self._truth.image, "the ground truth", most)
            self._pictures, self._digests = (drawn[0], true[0]), (drawn[1], true[1])

    def failed(self, reason: str) -> Score:
        """Returns the score of a sample that cannot be shown."""
        return failed_score(self._sample.id, self._generation.repeat, self._judge.label, reason)

    def prompt(self) -> DecoderPrompt:
        """Returns what is asked next; what was wrong with the reply before is said in it."""
        sample = self._sample
        text = user_text(sample.id, sample.prompt, sample.text_required, self._fault)
        return DecoderPrompt(system_prompt(), text, self._pictures)

    def hear(self, reply: DecoderReply) -> None:
        """Takes a reply, and tells whether that settles it."""
        usage = Usage(input_tokens=reply.input_tokens, output_tokens=reply.output_tokens, cost=0.0)
        attempt = Attempt(
            reply=clean_text(reply.text),
            error=reply.error,
            model=f"{self._judge.source.model}@{self._vlm.weights}",
            finish_reason=reply.finish,
            seconds=reply.seconds,
            usage=usage,
        )
        found = read_strict(attempt.reply, text_required=self._sample.text_required)
        if isinstance(found, ReplyError) and not reply.error:
            self._fault = TOO_LONG if reply.finish == "length" else str(found)  # the rest follows from its being cut
            attempt = attempt.model_copy(update={"error": self._fault})
        self._attempts.append(attempt)
        enough = len(self._attempts) >= self._judge.attempts
        self.settled = isinstance(found, ParsedScore) or bool(reply.error) or enough

    def score(self) -> Score:
        """Returns the score, read from all replies; failed, with the last fault, when none met the contract."""
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
                "pictures": dict(zip(("generated", "truth"), self._digests, strict=True)),
                "weights": self._vlm.weights,
                "dtype": self._vlm.dtype,
            },
            seconds=sum(attempt.seconds for attempt in self._attempts),
            usage=usage_of(self._attempts),
        )


def _shown(image: ImageRef | None, what: str, max_pixels: int | None) -> tuple[Image, str]:
    """Returns a picture as every judge is shown it, and the digest of the JPEG it was made from.

    Raises:
        UnscorableError: It has no file, or the file does not decode.
    """
    from PIL import Image

    if image is None or image.path is None:
        raise UnscorableError(f"{what} has no file on this machine")
    data, width, height = encode_bytes(image.path, what, ImageEncoding())
    with Image.open(io.BytesIO(data)) as opened:
        pixels = opened.convert("RGB")
    if max_pixels is not None and width * height > max_pixels:
        scale = math.sqrt(max_pixels / (width * height))
        pixels = pixels.resize((max(1, int(width * scale)), max(1, int(height * scale))), Image.Resampling.LANCZOS)
    return pixels, hashlib.sha256(data).hexdigest()


def _check_counts(counts: dict[str, Any], where: str) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name}={value} is not a whole number of 1 or more", where=where)
