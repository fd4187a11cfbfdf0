"""What decides a result, as plain data: the run's specification, and keys made from content.

Nothing here is secret and nothing depends on this machine: a path, a token or a speed setting is never part of a key.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

KEY_VERSION = 1
"""Raised when the making of keys changes, so that no old result answers for a new question."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GeneratorSpec(_Plain):
    """Which generator draws.

    Attributes:
        name: As it was named, such as `open_book` or `module:Class`.
        args: Arguments that decide the picture; no paths, no secrets, no speed settings.
        revision: Version of its model or code.
        search: Identity of the search backend it looks things up in, empty when it uses none.
        privileged: Does it see the ground truth?
    """

    name: str
    args: dict[str, Any] = Field(default_factory=dict)
    revision: str = ""
    search: str = ""
    privileged: bool = False


class ScorerSpec(_Plain):
    """Which scorer judges.

    Attributes:
        name: As it was named, such as `world_check` or `vlm:gpt-4.1`; also its label in tables.
        args: Arguments that decide the score.
        version: Version of its rubric, arithmetic and parser.
        note: What tables say beside its figures.
        dimensions: What it gives values for.
        judge_repeats: Judgements of each picture; the run's number when None. No part of a key.
    """

    name: str
    args: dict[str, Any] = Field(default_factory=dict)
    version: str = ""
    note: str = ""
    dimensions: tuple[str, ...] = ()
    judge_repeats: int | None = Field(default=None, ge=1)


SelectionKind = Literal["all", "limit", "ids", "shard"]


class Selection(_Plain):
    """Which samples of the task take part. A part of a task is another selection, named by its hash.

    Attributes:
        kind: all, limit, ids, or shard: every so manieth sample of another selection.
        n: Number of samples.
        hash: First 12 hex digits over the ids in order; empty for all.
    """

    kind: SelectionKind = "all"
    n: int
    hash: str = ""

    @property
    def label(self) -> str:
        """Returns `all 48` or `limit 8 (3f2a…)`."""
        return f"all {self.n}" if self.kind == "all" else f"{self.kind} {self.n} ({self.hash})"


class RunShard(_Plain):
    """Which part of a run that is shared out among machines.

    Attributes:
        number: From 1; the part takes the samples at places number, number + count, … of the whole, counted from 1.
        count: Into how many parts the run is shared out.
        of: The selection of the whole run.
    """

    number: int = Field(ge=1)
    count: int = Field(ge=1)
    of: Selection

    @property
    def label(self) -> str:
        """Returns `shard 2/3`."""
        return f"shard {self.number}/{self.count}"


class RunSpec(_Plain):
    """Everything that decides the results of a run.

    Attributes:
        task: Name of the task.
        task_version: Version of the task, with the hash of its content.
        selection: Which samples.
        generator: Who draws.
        scorers: Who judges.
        seed: Seed of the run; the picture of repeat r is drawn with seed + r.
        repeats: Pictures a sample.
        judge_repeats: Judgements a picture and scorer.
        shard: Which part of a run this is; None for a run by itself. No part of a key.
        requests: Identity of an agent's answers that are drawn in place of the prompts; empty for the prompts.
    """

    task: str
    task_version: str
    selection: Selection
    generator: GeneratorSpec
    scorers: tuple[ScorerSpec, ...] = ()
    seed: int = Field(default=0, ge=0, lt=2**31)
    repeats: int = Field(default=1, ge=1)
    judge_repeats: int = Field(default=1, ge=1)
    shard: RunShard | None = None
    requests: str = ""

    def judgements(self, scorer: ScorerSpec) -> int:
        """Returns how many judgements of each picture a scorer makes."""
        return scorer.judge_repeats or self.judge_repeats

    def drawn_by(self) -> dict[str, Any]:
        """Returns the part of the specification that a run directory is bound to: task, generator and seed.

        Selection, repeats and scorers may grow in the same directory; what is there is reused by key.
        """
        return {
            "task": self.task,
            "task_version": self.task_version,
            "generator": self.generator.model_dump(mode="json"),
            "seed": self.seed,
            **({"requests": self.requests} if self.requests else {}),
        }


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> str:
    """Returns JSON with sorted keys and no spaces, the same on every machine.

    Raises:
        TypeError, ValueError: The value is not plain data.
    """
    return _ENCODER.encode(value)


def fingerprint(value: Any) -> str:
    """Returns the SHA-256 hex digest of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def text_hash(text: str) -> str:
    """Returns the SHA-256 hex digest of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def select(ids: list[str], kind: SelectionKind) -> Selection:
    """Names a selection of sample ids."""
    return Selection(kind=kind, n=len(ids), hash="" if kind == "all" else fingerprint(ids)[:12])


_last_generator: list[tuple[GeneratorSpec, dict[str, Any]]] = []


def _plain_generator(generator: GeneratorSpec) -> dict[str, Any]:
    """Returns a generator's specification as plain data; the last one is kept, since a run asks for each sample."""
    if not _last_generator or _last_generator[0][0] is not generator:
        _last_generator[:] = [(generator, generator.model_dump(mode="json"))]
    return _last_generator[0][1]


def generation_key(spec: RunSpec, *, sample_id: str, prompt_hash: str, references: tuple[str, ...], repeat: int) -> str:
    """Names a drawing by everything that decides it.

    Args:
        spec: The run.
        sample_id: The sample.
        prompt_hash: `text_hash` of the prompt.
        references: Digests of the reference images, in order.
        repeat: From 0.

    Returns:
        64 hex digits.
    """
    return fingerprint(
        {
            "key": KEY_VERSION,
            "task_version": spec.task_version,
            "sample": sample_id,
            "prompt": prompt_hash,
            "references": references,
            "generator": _plain_generator(spec.generator),
            "seed": spec.seed + repeat,
            "repeat": repeat,
        }
    )


def score_key(
    scorer: ScorerSpec,
    *,
    task_version: str,
    sample_id: str,
    truth_hash: str,
    image: str,
    repeat: int,
    judge_repeat: int,
) -> str:
    """Names a judgement by everything that decides it.

    Args:
        scorer: Who judges.
        task_version: Version of the task.
        sample_id: The sample.
        truth_hash: `fingerprint` of the sample and its ground truth.
        image: Digest of the picture that is judged.
        repeat: Of the generation.
        judge_repeat: From 0.

    Returns:
        64 hex digits.
    """
    return fingerprint(
        {
            "key": KEY_VERSION,
            "task_version": task_version,
            "scorer": {"name": scorer.name, "args": scorer.args, "version": scorer.version},
            "sample": sample_id,
            "truth": truth_hash,
            "image": image,
            "repeat": repeat,
            "judge_repeat": judge_repeat,
        }
    )
