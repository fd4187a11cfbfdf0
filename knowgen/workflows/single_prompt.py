"""Run the agent on one prompt of the user's: search, answer, and generate an image, in a run directory of its own.

It is a run of a task with one sample and no scorer, so that budget, waiting, interruption, resuming and the storage of
images are those of any run. The agent runs in this process, and each of its steps is passed on as it happens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from knowgen.core.errors import UsageError
from knowgen.core.records import AgentAnswer, Generation, GenerationRequest, GenerationStatus, Sample
from knowgen.core.run_config import GENERATION_TIMEOUT, PATIENCE
from knowgen.core.secrets import refuse_secrets
from knowgen.core.spec import GeneratorSpec, RunSpec, fingerprint, select
from knowgen.engine.components import AgentHandle, GeneratorHandle
from knowgen.engine.options import EngineOptions, RunOutcome
from knowgen.generators.contract import GeneratedImage, GenerationSource
from knowgen.store.run import RunStore
from knowgen.tasks.in_memory import InMemoryTask
from knowgen.tasks.load import load_task
from knowgen.workflows.agents import PAINTER, resolve_agent, resolve_system

if TYPE_CHECKING:
    from knowgen.agents.gen_searcher import GenSearcher
    from knowgen.agents.records import Step

AGENT = "gen_searcher"
TASK = "prompt"
SAMPLE_ID = "prompt"

NO_PAINTER = "none"
"""Name of the generator of a run that ends with the agent's answer."""

BUNDLED_TASK, WORLD_SEARCH = "knowgen_mini", "world"

_NAME_LENGTH = 40
_HASH_LENGTH = 8


class Watcher(Protocol):
    """Receives what the agent does, in the thread of the agent."""

    def started(self) -> None:
        """Note that the agent begins; again after a service failed in the middle."""
        ...

    def stepped(self, step: Step) -> None:
        """Note a step: when its reply was read, and again when its tools have run."""
        ...

    def warned(self, warning: str) -> None:
        """Note a warning of a service that was checked."""
        ...


@dataclass(frozen=True)
class PromptPlan:
    """An agent and its image model, ready to run on a prompt.

    Attributes:
        prompt: The prompt.
        spec: Specification of the run.
        agent: The agent.
        generator: The image model, or a source without any image.
    """

    prompt: str
    spec: RunSpec
    agent: AgentHandle
    generator: GeneratorHandle | GenerationSource

    @property
    def draws(self) -> bool:
        """Whether there is an image model."""
        return isinstance(self.generator, GeneratorHandle)

    @property
    def draws_over_network(self) -> bool:
        """Whether the image model calls a service, whose price may be unknown."""
        return isinstance(self.generator, GeneratorHandle) and self.generator.capabilities.shape == "generate"

    @property
    def task(self) -> InMemoryTask:
        """The task with the prompt as its one sample."""
        return _task(self.prompt)


@dataclass(frozen=True)
class PromptResult:
    """What became of a prompt.

    Attributes:
        folder: The run directory.
        outcome: Counts, cost and the reason of an early end.
        answer: The agent's answer; None where the run ended before there was one.
        generation: The image, or why there is none; None where none was tried.
    """

    folder: Path
    outcome: RunOutcome
    answer: AgentAnswer | None = None
    generation: Generation | None = None


class _NoImages:
    """The source of a run that generates no image."""

    name, revision = NO_PAINTER, ""

    def generation(self, sample_id: str, repeat: int) -> GeneratedImage:
        """Return that none was tried."""
        return GeneratedImage(status=GenerationStatus.NOT_RUN, reason="no image model was named")


class _WatchedAgent:
    """The agent, whose steps go to a watcher."""

    def __init__(self, agent: GenSearcher, watcher: Watcher) -> None:
        self._agent, self._watcher = agent, watcher

    async def answer(self, request: GenerationRequest) -> AgentAnswer:
        """Search for a request; as `GenSearcher.answer`."""
        from knowgen.agents.gen_searcher import answer_of

        self._watcher.started()
        run = self._agent.run(request.prompt, session=request.id, seed=request.seed, watch=self._watcher.stepped)
        return answer_of(await run)

    async def check_service(self) -> str:
        """Check the services of all parts; as `GenSearcher.check_service`."""
        warning = await self._agent.check_service()
        if warning:
            self._watcher.warned(warning)
        return warning

    async def close(self) -> None:
        """Close the agent."""
        await self._agent.close()


def plan_prompt(prompt: str, arguments: Mapping[str, Any], *, seed: int = 0) -> PromptPlan:
    """Resolve and check agent and image model, without building or calling them.

    Args:
        prompt: The prompt.
        arguments: Arguments of the agent, flat as on the command line; without `painter`, no image is generated.
            The search backend `world` without a folder is that of the bundled task.
        seed: Seed of the agent's sampling and of the image.

    Raises:
        UsageError: The prompt is empty, or a name or argument is wrong.
    """
    refuse_secrets({"prompt": prompt, **arguments})
    if not prompt.strip():
        raise UsageError("the prompt is empty", where="prompt", fix='give it in quotes, such as "A poster of …"')
    task = load_task(BUNDLED_TASK) if arguments.get("search") == WORLD_SEARCH else None
    generator: GeneratorHandle | GenerationSource
    if arguments.get(PAINTER):
        system = resolve_system(AGENT, arguments, task)
        assert system.agent is not None
        agent, generator, generator_spec = system.agent, system.generator, system.generator.spec
    else:
        agent = resolve_agent(AGENT, {**arguments, PAINTER: NO_PAINTER}, task).agent
        generator, generator_spec = _NoImages(), GeneratorSpec(name=NO_PAINTER)
    spec = RunSpec(
        task=TASK,
        task_version=_task(prompt).version,
        selection=select([SAMPLE_ID], "all"),
        generator=generator_spec,
        seed=seed,
        agent=agent.spec,
    )
    return PromptPlan(prompt, spec, agent, generator)


def _task(prompt: str) -> InMemoryTask:
    return InMemoryTask(TASK, [Sample(id=SAMPLE_ID, prompt=prompt)])


def default_folder(plan: PromptPlan) -> Path:
    """Return the default run directory of a prompt: one for each prompt, agent, image model and seed."""
    words = re.sub(r"[^a-z0-9]+", "-", plan.prompt.lower())[:_NAME_LENGTH].strip("-") or "prompt"
    return Path("reports") / f"agent__{words}-{fingerprint(plan.spec.model_dump(mode='json'))[:_HASH_LENGTH]}"


def run_prompt(
    plan: PromptPlan,
    folder: Path,
    watcher: Watcher,
    *,
    budget: float | None = None,
    timeout: float = GENERATION_TIMEOUT,
    patience: float = PATIENCE,
    fresh: bool = False,
) -> PromptResult:
    """Run the agent on a prompt and generate the image; results that the directory holds are reused.

    The agent is closed before the image model is built, so that both fit on one accelerator, one after the other.

    Args:
        plan: What `plan_prompt` returned.
        folder: The run directory.
        watcher: Receives each step as it happens.
        budget: Maximum cost of the directory in US dollars; None for no limit.
        timeout: Maximum time of the image in seconds.
        patience: Longest wait for a service that gives no answer, in seconds.
        fresh: Whether to delete earlier results of the directory first.

    Raises:
        ConfigError: A part cannot be built or configured, or the directory belongs to another run.
        AccountError: A service rejects the account.
        DataError: The disk is full.
    """
    from knowgen.engine import run as run_engine
    from knowgen.engine.progress import WaitingNotice

    options = EngineOptions(budget=budget, schedule="phased", timeout=timeout, patience=patience, fresh=fresh)
    build = plan.agent.build
    agent = replace(plan.agent, build=lambda: _WatchedAgent(build(), watcher), component_ref=None)
    with RunStore.open(folder.absolute(), plan.spec, fresh=fresh) as store:
        outcome = run_engine(
            plan.spec, plan.task, plan.generator, (), store, options, agent=agent, progress=WaitingNotice()
        )
        answer = next((answer for _, answer in store.answers()), None)
        generation = next((generation for _, generation in store.generations()), None)
    return PromptResult(folder, outcome, answer, generation)
