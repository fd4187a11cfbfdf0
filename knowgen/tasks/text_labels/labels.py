"""Text labels: which prompts require readable text, frozen in a file of the task folder.

Whether text accuracy applies is a property of the prompt, not of the image. `knowgen task annotate` asks a judge once
per prompt and writes the answers to this file. The file is part of the task's version, so that figures with and
without it, or with different answers, have different names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from knowgen.core.errors import DataError
from knowgen.core.records import Sample
from knowgen.core.spec import text_hash
from knowgen.core.text_files import read_text

TEXT_FILE = "text_required.json"
JOURNAL_FILE = "text_required.journal.jsonl"
_AGAIN = "annotate again with `knowgen task annotate NAME --force`"


class _LabelModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextAnswer(_LabelModel):
    """The label of one prompt.

    Attributes:
        required: Whether the prompt requires readable text.
        prompt_sha256: SHA-256 of the prompt that the judge was asked about, as UTF-8.
        attempts: The judge's raw replies, in order; `required` was parsed from the last one.
    """

    required: bool
    prompt_sha256: str
    attempts: tuple[str, ...]


class FrozenText(_LabelModel):
    """The content of `text_required.json`.

    Attributes:
        format: Format version of the file.
        judge_asked: Judge and model as named by the user.
        judge_returned: All model names returned by the endpoint, sorted; more than one means that an alias was moved.
        rubric: Version of the question.
        created: Creation time, ISO 8601.
        answers: Labels by sample id.
    """

    format: Literal[1] = 1
    judge_asked: str
    judge_returned: tuple[str, ...]
    rubric: str
    created: str
    answers: dict[str, TextAnswer]

    def label_of(self, sample_id: str) -> bool | None:
        """Return whether a sample requires text; None if it has no label."""
        answer = self.answers.get(sample_id)
        return None if answer is None else answer.required

    def apply(self, sample: Sample) -> Sample:
        """Return a copy of a sample with its label as `text_required`; a value set by the task itself takes precedence.

        Raises:
            DataError: The sample has no label, or its label is for another prompt.
        """
        if sample.text_required is not None:
            return sample
        answer = self.answers.get(sample.id)
        if answer is None:
            raise DataError(f"no label for sample {sample.id!r}", where=TEXT_FILE, fix=_AGAIN)
        if answer.prompt_sha256 != text_hash(sample.prompt):
            raise DataError(f"the label of sample {sample.id!r} is for another prompt", where=TEXT_FILE, fix=_AGAIN)
        return sample.model_copy(update={"text_required": answer.required})


def read_frozen(path: Path) -> FrozenText | None:
    """Read the frozen labels; return None if the file does not exist.

    Raises:
        DataError: The file is invalid.
    """
    if not path.exists():
        return None
    try:
        return FrozenText.model_validate_json(read_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise DataError(f"{field}: {first['msg']}", where=str(path), fix=_AGAIN) from error
