"""The specification of a run, and the keys by which results are stored and reused.

Both are plain data that decide a result. Paths, secrets and settings that only affect speed are part of neither.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import ConfigDict, Field

from knowgen.core.models import BaseModel
from knowgen.core.text import one_line

KEY_VERSION = 1
"""Version of the key format. Raising it makes all earlier results unusable for new runs."""


LABEL_LENGTH = 40
"""Maximum length of the arguments in a label; longer ones are cut and end in their hash."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _label(name: str, args: dict[str, Any]) -> str:
    """Return a name with its arguments, which distinguishes two settings of one class."""
    if not args:
        return name
    given = ", ".join(f"{key}={_short(args[key])}" for key in sorted(args))
    if len(given) > LABEL_LENGTH:
        given = f"{given[:LABEL_LENGTH].rstrip()}… {fingerprint(args)[:6]}"
    return f"{name}({one_line(given)})"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value)


class GeneratorSpec(_Plain):
    """The identity of a generator.

    Attributes:
        name: Name as the user wrote it, such as `open_book` or `module:Class`.
        args: Arguments that decide the image. No paths, secrets or settings that only affect speed.
        revision: Version of its model or code.
        search: Identity of its search backend; empty when it uses none.
        privileged: Whether it receives the ground truth.
    """

    name: str
    args: dict[str, Any] = Field(default_factory=dict)
    revision: str = ""
    search: str = ""
    privileged: bool = False

    @property
    def label(self) -> str:
        """Name with the arguments, which distinguishes two settings of one class.

        Example:
            >>> GeneratorSpec(name="duck.py:Duck", args={"style": "ink", "steps": 8}).label
            'duck.py:Duck(steps=8, style=ink)'
        """
        return _label(self.name, self.args)


class PartSpec(_Plain):
    """The identity of a part of an agent, such as its policy.

    Attributes:
        name: Name as the user wrote it, without an address.
        args: Arguments that decide what it returns.
        version: Version of its model or code.
    """

    name: str
    args: dict[str, Any] = Field(default_factory=dict)
    version: str = ""


Fallback = Literal["draw", "fail"]
"""What happens to a sample without a usable answer: its own prompt is generated, or it fails."""


class AgentSpec(_Plain):
    """The identity of an agent that searches before an image model, the run's generator, generates.

    Attributes:
        name: Name as the user wrote it, such as `gen_searcher` or `module:Class`.
        args: Arguments that decide its answers. No paths, secrets or settings that only affect speed.
        revision: Version of its code.
        search: Identity of its search backend; empty when it uses none.
        parts: Identity of its parts by role, such as `policy` and `summary`.
        privileged: Whether it receives the ground truth.
        fallback: What happens to a sample without a usable answer. This and the following decide how answers are used,
            and are not part of their keys.
        most_references: Maximum number of reference images of an answer that are used; None for no maximum.
        references_optional: Whether an answer without reference images is used.
    """

    name: str
    args: dict[str, Any] = Field(default_factory=dict)
    revision: str = ""
    search: str = ""
    parts: dict[str, PartSpec] = Field(default_factory=dict)
    privileged: bool = False
    fallback: Fallback = "draw"
    most_references: int | None = None
    references_optional: bool = False

    @property
    def label(self) -> str:
        """Name with its parts and arguments, which distinguishes two settings of one class.

        Example:
            >>> AgentSpec(name="gen_searcher", args={"rounds": 4}, parts={"policy": PartSpec(name="scripted")}).label
            'gen_searcher(policy=scripted, rounds=4)'
        """
        return _label(
            self.name, {**{role: _label(part.name, part.args) for role, part in self.parts.items()}, **self.args}
        )


class ScorerSpec(_Plain):
    """The identity of a scorer.

    Attributes:
        name: Name as the user wrote it, such as `world_check` or `vlm:gpt-4.1`; also its label in tables.
        args: Arguments that decide the score.
        version: Version of its rubric, arithmetic and parser.
        note: Note that tables show beside its figures.
        dimensions: Dimensions that it gives values for.
        judge_repeats: Number of scores per image; the run's when None. Not part of keys.
    """

    name: str
    args: dict[str, Any] = Field(default_factory=dict)
    version: str = ""
    note: str = ""
    dimensions: tuple[str, ...] = ()
    judge_repeats: int | None = Field(default=None, ge=1)


SelectionKind = Literal["all", "limit", "stratified", "ids", "shard"]


class Selection(_Plain):
    """The samples of a task that a run covers, identified by a hash unless they are all.

    Attributes:
        kind: all samples, the first ones (limit), some of every category (stratified), some by id (ids), or every Nth
            of another selection (shard).
        n: Number of samples.
        hash: First 12 hex digits of the hash of the ids in order; empty for all.
    """

    kind: SelectionKind = "all"
    n: int
    hash: str = ""

    @property
    def label(self) -> str:
        """The selection in words, such as `all 48`, `8 stratified (3f2a…)` or `first 8 (3f2a…)`."""
        if self.kind == "all":
            return f"all {self.n}"
        words = {"limit": f"first {self.n}", "stratified": f"{self.n} stratified"}
        return f"{words.get(self.kind, f'{self.kind} {self.n}')} ({self.hash})"


class RunShard(_Plain):
    """One shard of a run that is distributed over several machines.

    Attributes:
        number: Number of the shard, from 1. It covers samples number, number + count, … of the run, counted from 1.
        count: Number of shards.
        of: Selection of the whole run.
    """

    number: int = Field(ge=1)
    count: int = Field(ge=1)
    of: Selection

    @property
    def label(self) -> str:
        """The shard in words, such as `shard 2/3`."""
        return f"shard {self.number}/{self.count}"


class RunSpec(_Plain):
    """Everything that decides the results of a run.

    Attributes:
        task: Name of the task.
        task_version: Version of the task, with the hash of its content.
        selection: The samples.
        generator: The generator.
        scorers: The scorers.
        seed: Seed of the first repeat; the image of repeat r has seed + r.
        repeats: Number of images per sample.
        judge_repeats: Number of scores per image and scorer.
        shard: The shard that this run is; None for a whole run. Not part of keys.
        requests: Identity of the agent's answers that replace the prompts; empty when there are none.
        name: Name of the system in tables and pages; made from agent and generator when empty. Not part of keys.
        agent: The agent whose answers the generator generates from; None for the samples' prompts.
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
    name: str = ""
    agent: AgentSpec | None = None

    @property
    def system(self) -> str:
        """Name of the system in tables and pages: the given one, else agent and generator with their arguments."""
        return self.name or self.label

    @property
    def label(self) -> str:
        """Agent and generator with their arguments, such as `gen_searcher(policy=scripted) + painter`."""
        return f"{self.agent.label} + {self.generator.label}" if self.agent is not None else self.generator.label

    @property
    def generator_names(self) -> str:
        """Names of agent and generator without arguments, such as `gen_searcher + painter`."""
        return f"{self.agent.name} + {self.generator.name}" if self.agent is not None else self.generator.name

    @property
    def privileged(self) -> bool:
        """Whether agent or generator receives the ground truth."""
        return self.generator.privileged or (self.agent is not None and self.agent.privileged)

    def judge_repeats_of(self, scorer: ScorerSpec) -> int:
        """Return the number of scores per image of a scorer."""
        return scorer.judge_repeats or self.judge_repeats

    def directory_identity(self) -> dict[str, Any]:
        """Return the part of the specification that a run directory is bound to: task, agent, generator and seed.

        Selection, repeats and scorers may change between calls on a directory; stored results are reused by key.
        """
        return {
            "task": self.task,
            "task_version": self.task_version,
            "generator": self.generator.model_dump(mode="json"),
            "seed": self.seed,
            **({"requests": self.requests} if self.requests else {}),
            **({"agent": self.agent.model_dump(mode="json")} if self.agent is not None else {}),
        }


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, the same on every machine.

    Raises:
        TypeError: The value is not plain data.
        ValueError: It contains NaN, infinity or a reference to itself.

    Example:
        >>> canonical({"b": 1, "a": [2.5, None]})
        '{"a":[2.5,null],"b":1}'
    """
    return _ENCODER.encode(value)


def is_plain(value: Any) -> bool:
    """Return whether a value is plain data, of which `canonical` makes JSON.

    Example:
        >>> is_plain({"size": [512, 512]}), is_plain({"model": object()})
        (True, False)
    """
    try:
        canonical(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def fingerprint(value: Any) -> str:
    """Return the SHA-256 hex digest of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def text_hash(text: str) -> str:
    """Return the SHA-256 hex digest of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def select(ids: list[str], kind: SelectionKind) -> Selection:
    """Return the selection of some sample ids.

    Args:
        ids: Ids in the task's order.
        kind: How they were selected.
    """
    return Selection(kind=kind, n=len(ids), hash="" if kind == "all" else fingerprint(ids)[:12])


_last_generator: list[tuple[GeneratorSpec, dict[str, Any]]] = []


def _plain_generator(generator: GeneratorSpec) -> dict[str, Any]:
    """Return a generator's specification as plain data; the last one is cached, because every sample needs it."""
    if not _last_generator or _last_generator[0][0] is not generator:
        _last_generator[:] = [(generator, generator.model_dump(mode="json"))]
    return _last_generator[0][1]


def generation_key(spec: RunSpec, *, sample_id: str, prompt_hash: str, references: tuple[str, ...], repeat: int) -> str:
    """Return the key of a generation: a hash of everything that decides it.

    Args:
        spec: Specification of the run.
        sample_id: Id of the sample.
        prompt_hash: `text_hash` of the prompt.
        references: SHA-256 digests of the reference images, in order.
        repeat: Number of the repeat, from 0.

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


_ANSWER_USE = {"fallback", "most_references", "references_optional"}
"""Fields of an agent that say how its answers are used, and decide none."""


def answer_key(spec: RunSpec, *, sample_id: str, prompt_hash: str, repeat: int) -> str:
    """Return the key of an agent's answer: a hash of everything that decides it, which the image model does not.

    Args:
        spec: Specification of a run with an agent.
        sample_id: Id of the sample.
        prompt_hash: `text_hash` of its prompt.
        repeat: Number of the repeat, from 0.

    Returns:
        64 hex digits.

    Raises:
        ValueError: The run has no agent.
    """
    if spec.agent is None:
        raise ValueError("the run has no agent")
    return fingerprint(
        {
            "key": KEY_VERSION,
            "task_version": spec.task_version,
            "sample": sample_id,
            "prompt": prompt_hash,
            "agent": spec.agent.model_dump(mode="json", exclude=_ANSWER_USE),
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
    """Return the key of a score: a hash of everything that decides it.

    Args:
        scorer: Specification of the scorer.
        task_version: Version of the task.
        sample_id: Id of the sample.
        truth_hash: `fingerprint` of the sample and its ground truth.
        image: SHA-256 digest of the scored image.
        repeat: Number of the generation's repeat, from 0.
        judge_repeat: Number of the score, from 0.

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
