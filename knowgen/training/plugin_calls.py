"""Calls of the image model and the scorers of a training: as in a run, and with a mask where a run stores a failure.

A plugin runs in the executor of a run, so that code of others, time limits and devices are handled as in an evaluation.
Every failure of a service is an attempt, and after the last one the episode is masked. A service that gives no answer
for too long, or rejects the account again and again, ends the training.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from knowgen.core.errors import (
    AccountError,
    BudgetReachedError,
    ConfigError,
    KnowgenError,
    NotRecordedError,
    RefusalError,
    ServiceUnavailableError,
    TransientError,
    UnscorableError,
)
from knowgen.core.records import FailureCause, Item, Score, ScoreStatus
from knowgen.engine.attempts import Attempts, check_service, with_retries
from knowgen.engine.budget import BudgetMeter, SpendingStore
from knowgen.engine.components import GeneratorHandle, ScorerHandle
from knowgen.engine.dispatcher import Dispatcher
from knowgen.engine.executors.concurrency import LoopBridge
from knowgen.engine.executors.in_process import ABORT_SECONDS
from knowgen.engine.executors.invoke import item_id
from knowgen.engine.options import EngineOptions
from knowgen.engine.placement import generator_dispatcher, scorer_dispatcher
from knowgen.engine.retry import (
    FATAL_ERRORS,
    CallTimeoutError,
    LeftOutError,
    PluginDisabledError,
    StoppedError,
    cause_of,
    describe,
)
from knowgen.engine.run_state import RunState
from knowgen.engine.scoring import repeated_attempts_of, validated_score
from knowgen.engine.services import Service
from knowgen.engine.work_plan import WorkItem
from knowgen.scorers.contract import missing_needs, with_earlier
from knowgen.training.config import PainterConfig, ServicesConfig

T = TypeVar("T")
H = TypeVar("H", bound=GeneratorHandle | ScorerHandle)

OnError = Callable[[Exception], None] | None

AGAIN_ADVICE = "correct it, and run the same command again to go on"
PATIENCE_ADVICE = "run the same command again later to go on, or raise grpo.services.patience"

STOPPING_ERRORS = (StoppedError, BudgetReachedError, asyncio.CancelledError, *FATAL_ERRORS)
"""Errors that end the training, and not one episode."""


class EpisodeMaskedError(Exception):
    """An episode cannot be completed for a reason that is not the policy's. Its text is the reason."""


class TrainingServices:
    """What the calls of a training share: whether it goes on, its meter, and the health of each service.

    Must be made in the event loop of the rollouts.

    Args:
        ledger: Where paid calls are recorded.
        config: Limits.
        folder: Directory of the training, for logs of plugins and images in transfer.
    """

    def __init__(self, ledger: SpendingStore, config: ServicesConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.bridge = LoopBridge(asyncio.get_running_loop())
        self.state = RunState()
        self.meter = BudgetMeter(ledger, config.budget, lambda: None)
        self._services: list[Service] = []

    def new_service(self, name: str) -> Service:
        """Return the service behind a plugin. Equal failures in a row pause it, which ends the training."""
        service = Service(
            name,
            self.state,
            self.config.patience,
            pausing=True,
            clock=asyncio.get_running_loop().time,
            advice=PATIENCE_ADVICE,
        )
        self._services.append(service)
        return service

    def final_error(self, error: BaseException) -> BaseException:
        """Return the error that ends the training, of the one that ended an episode."""
        if (given := self.state.error or self.state.final_error) is not None:
            return given
        if self.state.stop_reason == "unavailable":
            return ServiceUnavailableError(self.state.stop_line, busy=True)
        if isinstance(error, StoppedError):
            notices = [service.notice for service in self._services if service.notice]
            return ServiceUnavailableError(f"{notices[0] if notices else error}; {AGAIN_ADVICE}")
        return error

    @property
    def waiting_line(self) -> str:
        """Return what the training waits for, such as `waiting for vlm:gpt-4.1, 42 s`; empty when it does not."""
        return next((line for service in self._services if (line := service.waiting_line())), "")

    def disable(self, error: PluginDisabledError) -> StoppedError:
        """Have the training end, because a plugin cannot be called any more; return the error of this call."""
        self.state.end_with(ServiceUnavailableError(f"{error}; {AGAIN_ADVICE}"))
        return StoppedError(str(error))

    async def masked_after(self, call: Callable[[int], Awaitable[T]], service: Service, on_error: OnError = None) -> T:
        """Return the result of a call that is repeated after temporary errors.

        Args:
            call: Takes the number of the attempt, from 1.
            service: The service behind it.
            on_error: Called with each error after which it is repeated.

        Raises:
            EpisodeMaskedError: It failed for good.
            StoppedError, BudgetReachedError, ConfigError: The training ends.
        """
        tries = Attempts(service, self.config.tries, each_counts=True)
        try:
            return await with_retries(call, tries, service, on_error)
        except STOPPING_ERRORS:
            raise
        except PluginDisabledError as error:
            raise self.disable(error) from error
        except CallTimeoutError as error:
            service.unavailable(error, None)
            raise EpisodeMaskedError(describe(error)) from error
        except LeftOutError as error:
            raise EpisodeMaskedError(f"the account was rejected: {error}") from error
        except (RefusalError, UnscorableError) as error:
            service.answered()
            raise EpisodeMaskedError(describe(error)) from error
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            if isinstance(error, NotRecordedError):  # the policy asks what no recording can answer
                service.failed("the recording lacks what the policy asks for", "")
            elif not isinstance(error, (TransientError, AccountError)) and cause_of(error) is FailureCause.SYSTEM:
                service.failed(describe(error), "")
            raise EpisodeMaskedError(describe(error)) from error


class PluginCalls(Generic[H]):
    """The calls of a plugin of a training.

    Args:
        dispatcher: Sends requests to it.
        services: What all calls share.
        service: The service behind it.
        handle: The plugin.
    """

    def __init__(self, dispatcher: Dispatcher, services: TrainingServices, service: Service, handle: H) -> None:
        self.handle = handle
        self._dispatcher, self._services, self._service = dispatcher, services, service
        service.on_close = dispatcher.stop

    async def check(self) -> None:
        """Check that its service would take calls; see `attempts.check_service`."""
        if self.handle.capabilities.checks_service:
            await check_service(self._dispatcher.check, self._service)

    async def check_once(self) -> None:
        """Check its service with one call, without waiting for it.

        Raises:
            KnowgenError: It would take no calls, or the check itself failed.
        """
        if self.handle.capabilities.checks_service:
            await _checked_once(self._dispatcher, self._service.name)

    async def close(self) -> None:
        """Close it."""
        await self._dispatcher.close()

    async def abort(self) -> None:
        """Abort calls in progress, and close it."""
        self._dispatcher.kill()
        await asyncio.to_thread(self._dispatcher.join, ABORT_SECONDS)
        await self._dispatcher.close()


class PainterCalls(PluginCalls[GeneratorHandle]):
    """The image model of a training."""

    @classmethod
    def of(cls, handle: GeneratorHandle, services: TrainingServices, config: PainterConfig) -> PainterCalls:
        """Return the image model of a handle, in the executor of a run."""
        # the time limit of the training takes the place of the model's own
        capabilities = replace(handle.capabilities, deadline=0.0)
        if capabilities.shape != "generate":
            capabilities = replace(capabilities, concurrency=min(capabilities.concurrency, config.concurrency))
        limited = replace(handle, capabilities=capabilities)
        options = EngineOptions(concurrency=config.concurrency, timeout=config.timeout, gpus=0)
        dispatcher = generator_dispatcher(
            limited, options, services.bridge, services.state, services.meter, services.folder
        )
        return cls(dispatcher, services, services.new_service(f"image model {handle.spec.name}"), limited)

    async def generate(self, request: Any, write: Callable[[Any, float], Awaitable[T]]) -> T:
        """Generate an image.

        Args:
            request: The `GenerationRequest`.
            write: Takes what the image model returned and the seconds it took, and stores it.

        Raises:
            EpisodeMaskedError: The image could not be generated.
            StoppedError, BudgetReachedError, ConfigError: The training ends.
        """

        async def handle(value: Any, seconds: float) -> T:
            self._service.answered()
            written = await write(value, seconds)
            self._service.succeeded()
            return written

        async def attempt(number: int) -> T:
            return await self._dispatcher.submit(request.id, request, handle, alone=number > 1)

        return await self._services.masked_after(attempt, self._service)


class ScorerCalls(PluginCalls[ScorerHandle]):
    """A scorer of a training."""

    @classmethod
    def of(cls, handle: ScorerHandle, services: TrainingServices) -> ScorerCalls:
        """Return the scorer of a handle, in the executor of a run."""
        options = EngineOptions(concurrency=services.config.judge_concurrency)
        dispatcher = scorer_dispatcher(
            handle, options, services.bridge, services.state, services.meter, services.folder
        )
        return cls(dispatcher, services, services.new_service(f"scorer {handle.spec.name}"), handle)

    async def score(self, item: Item) -> Score:
        """Return the score of an item, which may be failed; earlier attempts are part of it.

        Several episodes may have one sample, so `repeat` of the item's generation must be unique among open calls.

        Raises:
            EpisodeMaskedError: There is none.
            StoppedError, BudgetReachedError, ConfigError: The training ends.
        """
        sample, truth, generation = item
        capabilities = self.handle.capabilities
        if missing := missing_needs(capabilities.needs - {"references"}, truth, generation):
            raise EpisodeMaskedError(f"{self.name}: the prompt lacks what it needs: {', '.join(missing)}")
        earlier: list[Any] = []

        async def attempt(number: int) -> Score:
            payload = (*item, 0) if capabilities.shape == "score" else item
            return await self._dispatcher.submit(
                item_id(sample.id, generation.repeat), payload, check, alone=number > 1
            )

        async def check(value: Any, seconds: float) -> Score:
            score = validated_score(value, WorkItem(sample, truth, "", generation.repeat, ""))
            if not (score.attempts and all(one.cached for one in score.attempts)):
                self._service.answered()  # a kept reply says nothing about the service
            return score if score.seconds else score.model_copy(update={"seconds": seconds})

        try:
            score = await self._services.masked_after(
                attempt, self._service, lambda error: earlier.extend(repeated_attempts_of(error))
            )
        except EpisodeMaskedError as error:
            raise EpisodeMaskedError(f"{self.name}: {error}") from error
        score = with_earlier(capabilities, score, sample, earlier)
        if score.status is ScoreStatus.FAILED and score.cause in (None, FailureCause.SYSTEM):
            self._service.failed(score.strict.reason, sample.id)
        else:
            self._service.succeeded()
        return score.model_copy(update={"scorer": self.name})

    @property
    def name(self) -> str:
        """Return the name of the scorer, such as `vlm:gpt-4.1`."""
        return self.handle.spec.name


async def _checked_once(dispatcher: Dispatcher, name: str) -> None:
    try:
        await dispatcher.check()
    except KnowgenError:
        raise
    except Exception as error:
        raise ConfigError(f"check_service failed: {describe(error)}", where=name) from error
