"""Conversations for fine-tuning from trajectories: run the agent, keep what passes a filter, and write what it saw.

The agent runs on a task as in any run, in a run directory of its own, so that the same call goes on where an earlier
one ended. A conversation has what the policy saw: its messages, and the scaled copies of the images.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from knowgen.agents.images import MAX_PIXELS, scaled_png
from knowgen.agents.policies.contract import Policy
from knowgen.core.atomic import draft_of, write_file
from knowgen.core.errors import UsageError
from knowgen.core.images import open_rgb
from knowgen.core.records import AgentAnswer, AnswerStatus, Row, Sample, Score
from knowgen.core.run_config import RunConfig
from knowgen.store.files import explain_os_error
from knowgen.store.run import RunStore
from knowgen.tasks.prepare.published import IMAGE_MARK
from knowgen.training.conversations import CONVERSATIONS_FILE, marked_text
from knowgen.training.rewards import image_reward, text_reward
from knowgen.workflows.execute import execute
from knowgen.workflows.plan import Plan, plan
from knowgen.workflows.run import Run
from knowgen.workflows.trajectories import RunImages, chat_messages

AGENT = "gen_searcher"
PAINTER = "painter"
"""Image model where none is named: rules that draw without a model, for free."""

_RULE = re.compile(r"(ending)=([\w|]+)|(score|text)>=([0-9.]+)")


@dataclass(frozen=True)
class Keep:
    """What a trajectory has to be to be kept.

    Attributes:
        endings: Its ending is one of these; any when empty.
        score: Its image has at least this score by the first scorer; None for no limit.
        text: Its answer has at least this score by the scorer of answers; None for no limit.
    """

    endings: tuple[str, ...] = ("answer",)
    score: float | None = None
    text: float | None = None

    @classmethod
    def of(cls, rules: str) -> Keep:
        """Return the filter of a text such as `ending=answer,score>=0.8,text>=0.75`.

        Raises:
            UsageError: It is not of that form.

        Example:
            >>> Keep.of("ending=answer|no_answer,score>=0.8")
            Keep(endings=('answer', 'no_answer'), score=0.8, text=None)
        """
        from knowgen.agents.records import Ending

        found: dict[str, Any] = {}
        for rule in filter(None, (part.strip() for part in rules.split(","))):
            match = _RULE.fullmatch(rule)
            limit = _number(match[4]) if match is not None and match[4] else None
            if match is None or (match[3] and (limit is None or limit > 1)):
                fix = "write it as ending=answer,score>=0.8,text>=0.75"
                raise UsageError(f"{rule!r} is not a filter", where="--keep", fix=fix)
            if match[3]:
                found[match[3]] = limit
                continue
            found["endings"] = tuple(match[2].split("|"))
            known = [each.value for each in Ending]
            if unknown := [name for name in found["endings"] if name not in known]:
                raise UsageError(f"no ending {unknown[0]!r}", where="--keep", fix=f"name one of {', '.join(known)}")
        return cls(**found)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class OutputFiles:
    """Where conversations are written.

    Attributes:
        conversations: File of the conversations.
        images: Folder of their images.
        run: Run directory of the agent.
    """

    conversations: Path
    images: Path
    run: Path

    @classmethod
    def at(cls, out: Path) -> OutputFiles:
        """Return the files of an output: a folder, or a file that ends with `.jsonl` with two folders beside it."""
        if out.suffix == ".jsonl":
            return cls(out, out.with_suffix(".images"), out.with_suffix(".run"))
        return cls(out / CONVERSATIONS_FILE, out / "images", out / "run")


@dataclass
class MadeConversations:
    """What a call wrote.

    Attributes:
        files: Where.
        run: The run of the agent.
        kept: Number of conversations.
        left_out: Number of trajectories that each rule left out, with the reasons.
        failed: Number of trajectories that a failure of a service ended; a further call tries them again.
        missing: Number of trajectories that were not run.
    """

    files: OutputFiles
    run: Run
    kept: int = 0
    left_out: dict[str, Counter[str]] = field(default_factory=dict)
    failed: int = 0
    missing: int = 0


def plan_trajectories(
    task: str,
    policy: str | Policy,
    config: RunConfig,
    *,
    search: str = "",
    painter: str = "",
    scorers: Sequence[str] = (),
    text_scorer: str = "",
    keep: Keep = Keep(),
) -> Plan:
    """Resolve and check a run of the agent, without paying anything.

    Args:
        task: Name or folder of a task.
        policy: Policy of the agent, by name or as an object.
        config: Options of the run; its generator arguments are those of the agent.
        search: Search backend; that of the task when empty.
        painter: Image model; rules that draw for free when empty.
        scorers: Scorers of the image.
        text_scorer: Scorer of the answer.
        keep: What will be kept.

    Raises:
        UsageError: A name or argument is wrong, or a filter needs a scorer.
        DataError: The task is broken.
    """
    for limit, name, given in ((keep.score, "score", scorers), (keep.text, "text", text_scorer)):
        if limit is not None and not given:
            flag = "--scorer" if name == "score" else "--text-scorer"
            raise UsageError(f"{name}>={limit:g} needs a scorer", where="--keep", fix=f"give {flag} SCORER")
    arguments = {"policy": policy, "painter": painter or PAINTER, **(config.generator_args or {})}
    if search:
        arguments["search"] = search
    named = [*scorers, *([text_scorer] if text_scorer else [])]
    options = {each: getattr(config, each) for each in config.__dataclass_fields__}
    whole = RunConfig(**{**options, "generator_args": arguments})
    return plan(task, AGENT, named, whole, scored=bool(named))


def make_conversations(
    planned: Plan, out: Path, keep: Keep, *, scored: bool, text_scored: bool, before_calls: Callable[[], None]
) -> MadeConversations:
    """Run the agent, and write the conversations that pass a filter.

    Args:
        planned: What `plan_trajectories` returned.
        out: Folder, or file that ends with `.jsonl`.
        keep: What is kept.
        scored: Whether the first scorer scores images.
        text_scored: Whether the last scorer scores answers.
        before_calls: Called once before the first call of a service.

    Raises:
        ConfigError: The run directory belongs to another run, is locked, or cannot be written.
        DataError: The task's data or the directory is damaged, or the disk is full.
    """
    files = OutputFiles.at(out)
    run = execute(planned, files.run, before_calls)
    made = MadeConversations(files, run)
    names = [scorer.name for scorer in run.spec.scorers]
    reading = _RewardReadings(
        run.path, names[0] if scored else "", names[-1] if text_scored else "", planned.config.protocol
    )
    try:
        files.conversations.parent.mkdir(parents=True, exist_ok=True)
        with RunStore.read(run.path) as store, draft_of(files.conversations) as draft:
            writer = _Writer(store, files)
            with draft.open("w", encoding="utf-8") as file:
                for sample, repeat in _expected(planned):
                    answer = store.latest_answer(sample.id, repeat)
                    if answer is None or answer.status not in (AnswerStatus.OK, AnswerStatus.NONE):
                        made.missing += answer is None
                        made.failed += answer is not None
                        continue
                    figures = reading.of(sample.id, repeat)
                    if refused := _refused(answer, figures, keep):
                        made.left_out.setdefault(refused[0], Counter())[refused[1]] += 1
                        continue
                    made.kept += 1
                    file.write(writer.line(made.kept, sample, answer, figures) + "\n")
    except OSError as error:
        raise explain_os_error(error, files.conversations) from error
    return made


def _expected(planned: Plan) -> Iterator[tuple[Sample, int]]:
    """Yield each sample of a plan with each of its repeats."""
    for sample in planned.task.samples():
        for repeat in range(planned.spec.repeats):
            yield sample, repeat


def _refused(answer: AgentAnswer, figures: Mapping[str, float | None], keep: Keep) -> tuple[str, str] | None:
    """Return the rule that a trajectory does not pass, and why; None where it passes all."""
    if keep.endings and answer.ending not in keep.endings:
        return f"ending={'|'.join(keep.endings)}", answer.ending or "no ending"
    for name, limit in (("score", keep.score), ("text", keep.text)):
        value = figures.get(name)
        if limit is not None and (value is None or value < limit):
            return f"{name}>={limit:g}", "not scored" if value is None else "too low"
    return None


class _RewardReadings:
    """The scores of a run's images and answers.

    Args:
        run: The run directory.
        image: Name of the scorer of images; empty without one.
        text: Name of the scorer of answers; empty without one.
        protocol: Scoring protocol, which says how replies of judges are read.
    """

    def __init__(self, run: Path, image: str, text: str, protocol: str) -> None:
        from knowgen.stats.protocol import get_protocol

        self._run, self._names = run, {"score": image, "text": text}
        self._reading = get_protocol(protocol).reading

    def of(self, sample_id: str, repeat: int) -> dict[str, float | None]:
        """Return the values of a trajectory by name; None for one that was not scored."""
        return {name: self._values[name].get((sample_id, repeat)) for name, scorer in self._names.items() if scorer}

    @cached_property
    def _values(self) -> dict[str, dict[tuple[str, int], float]]:
        values: dict[str, dict[tuple[str, int], float]] = {}
        with RunStore.read(self._run) as store:
            for name, scorer in self._names.items():
                found: dict[tuple[str, int], list[float]] = {}
                for row in store.rows(scorer) if scorer else ():
                    value = self._value(name, scorer, row)
                    if value is not None:
                        found.setdefault((row.sample_id, row.repeat), []).append(value)
                values[name] = {key: sum(each) / len(each) for key, each in found.items()}
        return values

    def _value(self, name: str, scorer: str, row: Row) -> float | None:
        score = Score(
            sample_id=row.sample_id, scorer=scorer, status=row.strict.status, strict=row.strict, lenient=row.lenient
        )
        if name == "score":
            return image_reward(score, self._reading).image
        return text_reward(score, self._reading).text


class _Writer:
    """Writes conversations with their images.

    Args:
        store: The run.
        files: Where they are written.
    """

    def __init__(self, store: RunStore, files: OutputFiles) -> None:
        assert store.spec.agent is not None
        self._store, self._files = store, files
        self._agent = store.spec.agent
        self._pixels = int(self._agent.args.get("image_pixels", MAX_PIXELS))
        self._copies: dict[str, tuple[str, str]] = {}

    def line(self, number: int, sample: Sample, answer: AgentAnswer, figures: Mapping[str, float | None]) -> str:
        """Return the line of a trajectory, and write the images that it shows."""
        shown: list[tuple[str, str]] = []
        messages = []
        # absolute paths, because the images are read from there
        for message in chat_messages(answer, sample.prompt, RunImages.of(self._store, Path("/nowhere"))):
            messages.append({"role": message["role"], "content": self._content(message["content"], shown)})
        repeated = f"#{answer.repeat}" if self._store.spec.repeats > 1 else ""
        row = {
            "id": f"{sample.id}{repeated}",
            "row": number,
            "messages": messages,
            "images": [path for path, _ in shown],
            "sha256": [digest for _, digest in shown],
            "ending": answer.ending,
            **figures,
            "policy": self._agent.parts["policy"].name,
            "task": self._store.spec.task,
            "task_version": self._store.spec.task_version,
        }
        return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace").decode()

    def _content(self, content: str | Sequence[Mapping[str, Any]], shown: list[tuple[str, str]]) -> str:
        if isinstance(content, str):
            return marked_text(content)
        pieces = []
        for part in content:
            if part["type"] == "image":
                shown.append(self._copy(part["sha256"], Path(part["image"])))
                pieces.append(IMAGE_MARK)
            else:
                pieces.append(marked_text(part["text"]))
        return "".join(pieces)

    def _copy(self, digest: str, path: Path) -> tuple[str, str]:
        """Write the copy of an image that the policy was shown; return its path and digest."""
        if digest not in self._copies:
            scaled = bool(self._pixels)
            data = scaled_png(open_rgb(path), self._pixels) if scaled else path.read_bytes()
            name = sha256(data).hexdigest()
            target = self._files.images / name[:2] / f"{name}{'.png' if scaled else path.suffix}"
            if not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_file(target, data, durable=False)
            self._copies[digest] = target.relative_to(self._files.conversations.parent).as_posix(), name
        return self._copies[digest]
