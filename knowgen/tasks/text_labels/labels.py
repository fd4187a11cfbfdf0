"""Which prompts ask for written text, frozen in a file of the task folder.

Whether text accuracy applies belongs to the prompt, not to the picture. `knowgen task annotate` asks a judge once a
prompt and writes the answers here; the file is part of the task's version, so that figures with and without it, or
with other answers, never share a name.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from knowgen.core.errors import DataError
from knowgen.core.records import Sample

TEXT_FILE = "text_required.json"
JOURNAL_FILE = "text_required.journal.jsonl"
_AGAIN = "settle them again with `knowgen task annotate NAME --force`"


class _LabelModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextAnswer(_LabelModel):
    """What was settled for one prompt.

    Attributes:
        required: Does the prompt ask for readable text?
        prompt_sha256: Of the prompt that was asked about, UTF-8.
        attempts: The judge's raw replies, in order; the last one was read.
    """

    required: bool
    prompt_sha256: str
    attempts: tuple[str, ...]


class FrozenText(_LabelModel):
    """The content of `text_required.json`.

    Attributes:
        format: Of this file.
        judge_asked: Judge and model as named by the user.
        judge_returned: Every model name the endpoint returned, sorted; more than one means that an alias moved.
        rubric: Version of the question.
        created: ISO time.
        answers: By sample id.
    """

    format: Literal[1] = 1
    judge_asked: str
    judge_returned: tuple[str, ...]
    rubric: str
    created: str
    answers: dict[str, TextAnswer]

    def of(self, sample_id: str) -> bool | None:
        """Returns what was settled for a sample, None when it was not asked about."""
        answer = self.answers.get(sample_id)
        return None if answer is None else answer.required

    def settle(self, sample: Sample) -> Sample:
        """Returns a sample with what was settled for its prompt; what the task itself says stands.

        Raises:
            DataError: The sample is not settled here either, or another prompt was asked about.
        """
        if sample.text_required is not None:
            return sample
        answer = self.answers.get(sample.id)
        if answer is None:
            raise DataError(f"holds no answer for sample {sample.id!r}", where=TEXT_FILE, fix=_AGAIN)
        if answer.prompt_sha256 != prompt_hash(sample.prompt):
            raise DataError(f"was made for another prompt of sample {sample.id!r}", where=TEXT_FILE, fix=_AGAIN)
        return sample.model_copy(update={"text_required": answer.required})


def read_frozen(path: Path) -> FrozenText | None:
    """Reads the frozen answers; None where there are none.

    Raises:
        DataError: The file is broken.
    """
    try:
        return FrozenText.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise DataError(f"{field}: {first['msg']}", where=str(path), fix=_AGAIN) from error


def prompt_hash(prompt: str) -> str:
    """Returns the digest of a prompt."""
    return hashlib.sha256(prompt.encode()).hexdigest()
