"""`knowgen task annotate`: ask a judge once per prompt whether it requires readable text, and freeze the answers.

Nothing is frozen until every prompt has an answer. Answers are recorded in a journal, so that an annotation that was
killed, reached its budget or had a failed prompt asks only about the missing prompts when it is run again.
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

from knowgen.clients.chat.response import ChatResponse
from knowgen.clients.service_errors import Outcome
from knowgen.core import registry
from knowgen.core.arguments import read_arguments
from knowgen.core.errors import ConfigError, DataError, KnowgenError, TransientError, UsageError
from knowgen.core.metering import current_meter
from knowgen.core.records import Sample
from knowgen.core.retry import exponential, retry
from knowgen.core.secrets import refuse_secrets
from knowgen.core.spec import text_hash
from knowgen.core.steps import step
from knowgen.tasks.data_home import write_json
from knowgen.tasks.folder import FolderTask
from knowgen.tasks.load import load_task
from knowgen.tasks.text_labels.journal import AnnotationMeter, Journal, journal_of
from knowgen.tasks.text_labels.labels import TEXT_FILE, FrozenText, TextAnswer, read_frozen
from knowgen.tasks.text_labels.question import QUESTION_VERSION, SCHEMA, messages, read_answer

CONCURRENCY = 16
"""Default maximum number of concurrent calls."""

MAX_TOKENS = 2048
"""Default maximum reply length: an answer is a sentence, and a budget reserves the worst case."""

MAX_REPLIES = 4
"""Maximum number of replies per prompt, when earlier ones do not match the schema."""

TRIES = 6
"""Maximum attempts at one call that meets transient errors."""

MAX_LOST = 3
"""Consecutive prompts that may be rejected or get no reply before the annotation stops."""

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
"""Seconds between two attempts of a call."""


class ChatClient(Protocol):
    """The part of `knowgen.clients.chat.client.ChatEndpoint` that an annotation uses."""

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
    """Result of an annotation.

    Attributes:
        task: The task, with its new labels.
        frozen: The frozen labels; None if a prompt failed.
        fresh: Whether labels were frozen by this call.
        failures: Sample id and reason of each prompt without an answer.
        spent: US dollars spent on all annotations of this folder, as far as prices are known.
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
    on_progress: Callable[[str], None] = lambda line: None,
    tries: int = TRIES,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AnnotationOutcome:
    """Label every prompt of a task with whether it requires readable text.

    Args:
        name: Name or folder of the task.
        judge: Judge, such as `vlm:gpt-4.1`. It gets text only, no images.
        args: Arguments of the judge.
        budget: Maximum total cost in US dollars of all annotations of the folder; None for no limit.
        force: Ask again about labelled prompts. The old labels stay in use until the new ones are complete.
        on_progress: Called with a line of text at each step.
        tries: Maximum attempts at one call that meets transient errors.
        wait: Sleep function between two attempts, called with seconds.

    Raises:
        UsageError: The task or the judge cannot be used here.
        ConfigError: The judge rejects every call, another process is annotating, or the folder cannot be written.
        BudgetReachedError: The budget allows no further call; answers so far are recorded.
        TransientError: The judge is unreachable; answers so far are recorded.
    """
    refuse_secrets({"judge": judge, **args})
    task = load_task(name)
    if not isinstance(task, FolderTask):
        raise UsageError("not a task in a folder", where=f"task {name}", fix="set text_required in the task itself")
    samples = [sample for sample in task.samples_as_written() if sample.text_required is None]
    if not samples:
        raise UsageError("sets text_required for every sample, so there is nothing to ask", where=f"task {name}")
    with journal_of(task.path) as journal:
        frozen = None if force or journal.pending else read_frozen(task.path / TEXT_FILE)
        if frozen is not None and _fits(frozen, samples):
            return AnnotationOutcome(task, frozen, fresh=False, spent=journal.spent)
        args = read_arguments(registry.load(registry.resolve("scorers", judge)), args, f"scorer {judge!r}")
        endpoint, question = _endpoint(judge, args)
        if force:
            journal.write("restart")
        work = _Annotation(journal, endpoint, judge, question, int(args.get("concurrency", CONCURRENCY)), tries, wait)
        missing = [sample for sample in samples if work.place(sample) not in journal.answers]
        on_progress(f"asking {judge} about {len(missing)} prompts; {len(samples) - len(missing)} have an answer")
        asyncio.run(work.run(missing, budget))
        if work.failures:
            return AnnotationOutcome(task, None, False, tuple(sorted(work.failures.items())), journal.spent)
        frozen = work.freeze(samples)
        try:
            write_json(task.path / TEXT_FILE, frozen.model_dump(mode="json"))
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", where=str(task.path / TEXT_FILE)) from error
        journal.write("frozen")
        return AnnotationOutcome(FolderTask(task.path, name=task.name), frozen, fresh=True, spent=journal.spent)


def _fits(frozen: FrozenText, samples: Sequence[Sample]) -> bool:
    """Return whether the frozen labels are for these prompts."""
    digests = {name: answer.prompt_sha256 for name, answer in frozen.answers.items()}
    return all(digests.get(sample.id) == text_hash(sample.prompt) for sample in samples)


def _endpoint(judge: str, args: Mapping[str, Any]) -> tuple[ChatClient, str]:
    """Return the judge's endpoint, and a key of everything that decides its answers.

    Args:
        judge: Name of the judge.
        args: Arguments of the judge; missing ones get defaults suited to this question.

    Raises:
        UsageError: The judge is unknown, or has no endpoint.
    """
    resolved = registry.resolve("scorers", judge)
    parameters = inspect.signature(registry.load(resolved)).parameters
    defaults = {"concurrency": CONCURRENCY, "max_tokens": MAX_TOKENS, "cache": False}  # the journal stores the replies
    scorer = registry.create(resolved, {**{name: defaults[name] for name in defaults if name in parameters}, **args})
    endpoint = getattr(scorer, "endpoint", None)
    if endpoint is None or not callable(getattr(endpoint, "ask", None)):
        raise UsageError("has no chat endpoint", where=judge, fix="name it as vlm:MODEL")
    identity = {name: str(getattr(endpoint, name, "")) for name in ("model", "base_url", "temperature")}
    key = json.dumps({"judge": judge, "question": QUESTION_VERSION, **identity}, sort_keys=True)
    return endpoint, hashlib.sha256(key.encode()).hexdigest()[:16]


class _Annotation:
    """An annotation in progress.

    Attributes:
        failures: Reason for each prompt without an answer, by sample id.
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
        """Return the key of a prompt's answer in the journal: question and prompt digest."""
        return self._question, text_hash(sample.prompt)

    async def run(self, samples: Sequence[Sample], budget: float | None) -> None:
        """Ask about each sample; samples with the same prompt share one answer.

        Raises:
            BudgetReachedError: The budget allows no further call.
            ConfigError: The judge rejects calls with a permanent error, or its price is unknown.
            TransientError: The judge is unreachable.
        """
        current_meter.set(AnnotationMeter(self._journal, budget))
        first = {self.place(sample): sample for sample in reversed(samples)}
        try:
            with step("labelling prompts", len(first)) as labelling:

                async def one(sample: Sample) -> None:
                    async with self._turns:
                        try:
                            if self._stop is None:
                                await self._label(sample)
                        except KnowgenError as error:  # would affect every prompt: start no further calls
                            self._stop = self._stop or error
                    labelling.advance()

                async with asyncio.TaskGroup() as group:
                    for sample in reversed(first.values()):
                        group.create_task(one(sample))
        finally:
            await self._endpoint.close()
        if self._stop is not None:
            raise self._stop

    async def _label(self, sample: Sample) -> None:
        """Ask about one prompt until a reply matches the schema."""
        fault = ""
        for number in range(MAX_REPLIES):
            answer = await self._ask(sample, fault, number)
            if answer.kind is not Outcome.REPLY:
                self._failed(sample, answer.attempt.error)
                return
            reply = answer.attempt.reply if answer.attempt.reply.strip() else answer.attempt.reasoning
            required, fault = read_answer(reply)
            if answer.attempt.finish_reason == "length" and fault:
                fault = "the answer was cut off because it was too long"
            self._write("reply", sample, reply=reply, fault=fault, model=answer.attempt.model)
            if required is not None:
                self._write("answer", sample, required=required, model=answer.attempt.model)
                return
        self._failed(sample, f"{MAX_REPLIES} replies did not match the schema; the last one: {fault}")

    async def _ask(self, sample: Sample, fault: str, attempt: int) -> ChatResponse:
        """Send one question, with retries and backoff on transient errors.

        Raises:
            ConfigError: The endpoint rejects the call with a permanent error.
            TransientError: The endpoint was unreachable for `MAX_LOST` consecutive prompts.
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
            unfinished=lambda each: each.kind.transient,
            wait=wait,
            sleep=self._wait,
        )
        if answer.kind in (Outcome.REJECTED, Outcome.ACCOUNT):
            self._lost += 1
            if answer.kind is Outcome.ACCOUNT or self._lost >= MAX_LOST:
                raise ConfigError(f"rejected: {answer.attempt.error}", where=self._judge, fix="correct its arguments")
            return answer
        if not answer.kind.transient:
            self._lost = 0
            return answer
        self._lost += 1
        if self._lost >= MAX_LOST:
            raise TransientError(f"{self._judge}: {answer.attempt.error}; answers so far are recorded, try again later")
        return answer

    def _failed(self, sample: Sample, why: str) -> None:
        self.failures[sample.id] = why
        self._write("failed", sample, why=why)

    def _write(self, event: str, sample: Sample, **data: Any) -> None:
        question, prompt = self.place(sample)
        self._journal.write(event, sample=sample.id, question=question, prompt_sha256=prompt, **data)

    def freeze(self, samples: Sequence[Sample]) -> FrozenText:
        """Return the labels of all samples."""
        answers = {}
        for sample in samples:
            place = self.place(sample)
            if place not in self._journal.answers:
                raise DataError(f"sample {sample.id!r} has no answer", where=self._judge)
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
