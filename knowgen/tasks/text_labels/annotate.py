"""`knowgen task annotate`: asks a judge once a prompt whether it demands readable text, and freezes the answers.

Nothing is frozen until every prompt is settled. What was settled stands in a journal, so that a call after a kill, a
spent budget or a failed prompt asks only what is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from knowgen.clients.chat.response import ChatResponse, ResponseKind
from knowgen.core import registry
from knowgen.core.errors import ConfigError, DataError, KnowgenError, TransientError, UsageError
from knowgen.core.metering import current_meter
from knowgen.core.records import Sample
from knowgen.core.retry import exponential, retry
from knowgen.core.secrets import refuse_secrets
from knowgen.tasks.data_home import write_json
from knowgen.tasks.folder import FolderTask
from knowgen.tasks.load import load_task
from knowgen.tasks.text_labels.journal import AnnotationMeter, Journal, journal_of
from knowgen.tasks.text_labels.labels import TEXT_FILE, FrozenText, TextAnswer, prompt_hash, read_frozen
from knowgen.tasks.text_labels.question import QUESTION_VERSION, SCHEMA, messages, read_answer

CONCURRENCY = 16
MAX_TOKENS = 2048
"""Longest reply, unless the user says otherwise: an answer is a sentence, and a budget reserves the worst case."""

READINGS = 4
"""Replies asked for where those before were off the contract."""

TRIES = 6
"""Tries of one call that meets faults that may pass."""

LOST = 3
"""Prompts in a row that may be rejected, or fail for want of an answer, before all is given up."""

_FOR_ALL = frozenset({401, 402, 403, 404})
"""Rejections that would hit every prompt alike; another one may be of this prompt alone."""

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0


class ChatClient(Protocol):
    """What is needed of `knowgen.clients.chat.client.ChatEndpoint`."""

    async def ask(
        self,
        messages: Sequence[Mapping[str, Any]],
        caller: str,
        schema: Mapping[str, Any] | None = None,
        *,
        attempt: int = 0,
    ) -> ChatResponse: ...

    def cache_replies(self, answers: Sequence[ChatResponse]) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class AnnotationOutcome:
    """What came of an annotation.

    Attributes:
        task: The task, as it is now.
        frozen: The frozen answers, None when a prompt failed.
        fresh: Was anything frozen this time?
        failures: Sample id and reason of each prompt that is not settled.
        spent: US dollars over all annotations of this folder, as far as prices are known.
    """

    task: FolderTask
    frozen: FrozenText | None
    fresh: bool
    failures: tuple[tuple[str, str], ...] = ()
    spent: float = 0.0


def annotate(
    name: str,
    judge: str,
    args: Mapping[str, Any],
    *,
    budget: float | None = None,
    force: bool = False,
    told: Callable[[str], None] = lambda line: None,
    tries: int = TRIES,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AnnotationOutcome:
    """Settles for every prompt of a task whether it demands readable text.

    Args:
        name: Of the task, or its folder.
        judge: Such as `vlm:gpt-4.1`; it is shown text alone.
        args: Arguments of the judge.
        budget: US dollars that may be spent over all annotations of the folder, None for no limit.
        force: Ask anew what is frozen; the old answers stay until the new ones are complete.
        told: Told what is being done.
        tries: Of one call that meets faults that may pass.
        wait: Wait so many seconds between two tries of a call.

    Raises:
        UsageError: The task or the judge is none that can be used here.
        ConfigError: The judge rejects every call, another process is at work, or the folder cannot be written.
        BudgetReachedError: The budget admits no further call; what was settled is kept.
        TransientError: The judge is out of reach; what was settled is kept.
    """
    refuse_secrets({"judge": judge, **args})
    task = load_task(name)
    if not isinstance(task, FolderTask):
        raise UsageError("is no task that lies in a folder", where=name, fix="settle text_required in the task itself")
    samples = [sample for sample in task.samples_as_written() if sample.text_required is None]
    if not samples:
        raise UsageError("settles text_required itself, so there is nothing to ask", where=name)
    with journal_of(task.path) as journal:
        frozen = None if force or journal.pending else read_frozen(task.path / TEXT_FILE)
        if frozen is not None and _fits(frozen, samples):
            return AnnotationOutcome(task, frozen, fresh=False, spent=journal.spent)
        endpoint, question = _endpoint(judge, args)
        if force:
            journal.write("anew")
        work = _Work(journal, endpoint, judge, question, int(args.get("concurrency", CONCURRENCY)), tries, wait)
        missing = [sample for sample in samples if work.place(sample) not in journal.answers]
        told(f"asking {judge} about {len(missing)} prompts; {len(samples) - len(missing)} are settled")
        asyncio.run(work.run(missing, budget))
        if work.failures:
            return AnnotationOutcome(task, None, False, tuple(sorted(work.failures.items())), journal.spent)
        made = work.freeze(samples)
        try:
            write_json(task.path / TEXT_FILE, made.model_dump(mode="json"))
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", where=str(task.path / TEXT_FILE)) from error
        journal.write("frozen")
        return AnnotationOutcome(FolderTask(task.path, name=task.name), made, fresh=True, spent=journal.spent)


def _fits(frozen: FrozenText, samples: Sequence[Sample]) -> bool:
    """Tells whether the frozen answers are those to these prompts."""
    asked = {name: answer.prompt_sha256 for name, answer in frozen.answers.items()}
    return all(asked.get(sample.id) == prompt_hash(sample.prompt) for sample in samples)


def _endpoint(judge: str, args: Mapping[str, Any]) -> tuple[ChatClient, str]:
    """Returns where a judge is asked, and a key of everything that decides what it answers.

    Args:
        judge: Its name.
        args: Its arguments; those that are left out are set as it suits this question.

    Raises:
        UsageError: The judge is unknown, or is not asked over an endpoint.
    """
    resolved = registry.resolve("scorers", judge)
    takes = inspect.signature(registry.load(resolved)).parameters
    usual = {"concurrency": CONCURRENCY, "max_tokens": MAX_TOKENS, "cache": False}  # the journal finds replies again
    scorer = registry.create(resolved, {**{name: usual[name] for name in usual if name in takes}, **args})
    endpoint = getattr(scorer, "endpoint", None)
    if endpoint is None or not callable(getattr(endpoint, "ask", None)):
        raise UsageError("is not asked over an endpoint", where=judge, fix="name it as vlm:MODEL")
    told = {name: str(getattr(endpoint, name, "")) for name in ("model", "base_url", "temperature")}
    key = json.dumps({"judge": judge, "question": QUESTION_VERSION, **told}, sort_keys=True)
    return endpoint, hashlib.sha256(key.encode()).hexdigest()[:16]


class _Work:
    """One annotation under way.

    Attributes:
        failures: Why a prompt is not settled, by sample id.
    """

    def __init__(
        self,
        journal: Journal,
        endpoint: ChatClient,
        judge: str,
        question: str,
        concurrency: int,
        tries: int,
        wait: Callable[[float], Awaitable[None]],
    ) -> None:
        self._tries, self._wait = tries, wait
        self._journal, self._endpoint, self._judge, self._question = journal, endpoint, judge, question
        self._turns = asyncio.Semaphore(concurrency)
        self.failures: dict[str, str] = {}
        self._stop: KnowgenError | None = None
        self._lost = 0

    def place(self, sample: Sample) -> tuple[str, str]:
        """Returns where the journal keeps what was settled for a prompt under this question."""
        return self._question, prompt_hash(sample.prompt)

    async def run(self, samples: Sequence[Sample], budget: float | None) -> None:
        """Asks about each sample; samples with one prompt share one answer.

        Raises:
            BudgetReachedError: The budget admits no further call.
            ConfigError: The judge rejects calls for a reason that will not pass, or its price is not known.
            TransientError: The judge is out of reach.
        """
        from tqdm import tqdm

        current_meter.set(AnnotationMeter(self._journal, budget))
        first = {self.place(sample): sample for sample in reversed(samples)}
        try:
            with tqdm(total=len(first), unit="prompt", leave=False, disable=None) as bar:

                async def one(sample: Sample) -> None:
                    async with self._turns:
                        try:
                            if self._stop is None:
                                await self._settle(sample)
                        except KnowgenError as error:  # it would hit every prompt alike: what is under way ends
                            self._stop = self._stop or error
                    bar.update()

                async with asyncio.TaskGroup() as group:
                    for sample in reversed(first.values()):
                        group.create_task(one(sample))
        finally:
            await self._endpoint.close()
        if self._stop is not None:
            raise self._stop

    async def _settle(self, sample: Sample) -> None:
        """Asks about one prompt until an answer meets the contract."""
        fault = ""
        for number in range(READINGS):
            answer = await self._ask(sample, fault, number)
            if answer.kind is not ResponseKind.REPLY:
                self._failed(sample, answer.attempt.error)
                return
            required, fault = read_answer(answer.attempt.reply)
            if answer.attempt.finish_reason == "length" and fault:
                fault = "the answer was cut off because it was too long"
            self._write("reply", sample, reply=answer.attempt.reply, fault=fault, model=answer.attempt.model)
            if required is not None:
                self._write("answer", sample, required=required, model=answer.attempt.model)
                return
        self._failed(sample, f"{READINGS} replies were off the contract, the last one because {fault}")

    async def _ask(self, sample: Sample, fault: str, attempt: int) -> ChatResponse:
        """Sends one question; a fault that may pass is tried again, after a wait.

        Raises:
            ConfigError: The endpoint rejects the call for a reason that will not pass.
            TransientError: The endpoint is out of reach for one prompt after the other.
        """
        answer: ChatResponse

        async def ask(number: int) -> ChatResponse:
            nonlocal answer
            answer = await self._endpoint.ask(messages(sample.prompt, fault), self._judge, SCHEMA, attempt=attempt)
            return answer

        def wait(number: int, error: BaseException | None) -> float:
            seconds = exponential(number, _FIRST_WAIT) if answer.retry_after is None else answer.retry_after
            return min(seconds, _LONGEST_WAIT) * random.uniform(1.0, 1.2)

        answer = await retry(
            ask,
            attempts=self._tries,
            retryable=lambda error: False,
            unfinished=lambda each: each.kind is ResponseKind.TRANSIENT,
            wait=wait,
            sleep=self._wait,
        )
        if answer.kind is ResponseKind.REJECTED:
            self._lost += 1
            if answer.status in _FOR_ALL or self._lost >= LOST:
                raise ConfigError(f"rejected: {answer.attempt.error}", where=self._judge, fix="correct its arguments")
            return answer
        if answer.kind is not ResponseKind.TRANSIENT:
            self._lost = 0
            return answer
        self._lost += 1
        if self._lost >= LOST:
            raise TransientError(f"{self._judge}: {answer.attempt.error}; what was settled is kept, try again later")
        return answer

    def _failed(self, sample: Sample, why: str) -> None:
        self.failures[sample.id] = why
        self._write("failed", sample, why=why)

    def _write(self, event: str, sample: Sample, **data: Any) -> None:
        question, prompt = self.place(sample)
        self._journal.write(event, sample=sample.id, question=question, prompt_sha256=prompt, **data)

    def freeze(self, samples: Sequence[Sample]) -> FrozenText:
        """Returns the answers to all samples."""
        answers = {}
        for sample in samples:
            place = self.place(sample)
            if place not in self._journal.answers:
                raise DataError(f"sample {sample.id!r} is not settled", where=self._judge)
            answers[sample.id] = TextAnswer(
                required=self._journal.answers[place],
                prompt_sha256=place[1],
                attempts=tuple(self._journal.replies[place]),
            )
        models = {self._journal.models[self.place(sample)] for sample in samples}
        return FrozenText(
            judge_asked=self._judge,
            judge_returned=tuple(sorted(models)),
            rubric=QUESTION_VERSION,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            answers=answers,
        )
