"""Plan a training with GRPO from its configuration: everything that is cheap is checked, and no model is loaded."""

from __future__ import annotations

import asyncio
import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn, cast

from knowgen.agents.policies.contract import PolicySession, Sampling
from knowgen.core.errors import ConfigError, KnowgenError, MissingDependencyError, UsageError
from knowgen.core.import_path import current_folder_last
from knowgen.core.text import error_summary
from knowgen.engine.components import GeneratorHandle, ScorerHandle
from knowgen.scorers.contract import TRUTH_NEEDS, missing_truth
from knowgen.tasks.contract import Task
from knowgen.training.backends.contract import GrpoBackend, TrainingPrompt
from knowgen.training.config import GrpoSection, TrainingConfig, grpo_of
from knowgen.training.prompts import TrainingPrompts
from knowgen.training.rollouts import RolloutParts, training_agent
from knowgen.workflows.described import open_task
from knowgen.workflows.located import Located, locate
from knowgen.workflows.resolve import resolve_generator, resolve_scorer, search_for

AGENT = "gen_searcher"

BACKENDS = {
    "trl": "knowgen.training.backends.trl:TrlBackend",
    "verl": "knowgen.training.backends.verl:VerlBackend",
}
"""Bundled backends."""

CHECKED_TRUTHS = 8
"""Number of prompts whose ground truths are read before a training."""

KNOWN_DIMENSIONS = 4
"""Number of dimensions of a judge of images, of which the overall is the reward."""


@dataclass(frozen=True)
class TrainingPlan:
    """A training that is ready to begin.

    Attributes:
        name: Name of its configuration.
        config: The configuration.
        backend: What trains.
        prompts: The prompts of each epoch.
        parts: Image model and scorers.
        steps: Number of optimizer steps.
    """

    name: str
    config: TrainingConfig
    backend: GrpoBackend
    prompts: TrainingPrompts
    parts: RolloutParts
    steps: int

    @property
    def grpo(self) -> GrpoSection:
        """The part of the configuration on GRPO."""
        assert self.config.grpo is not None
        return self.config.grpo


class NoPolicy:
    """Stands for the policy while everything else is checked."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def open(self, sampling: Sampling, prompt: str, session: str) -> PolicySession:
        """Raise: nothing is sampled."""
        raise RuntimeError("nothing is sampled while a training is checked")

    async def close(self) -> None:
        """Do nothing."""


def plan_training(config: TrainingConfig, name: str) -> TrainingPlan:
    """Check a configuration and resolve all that it names.

    Args:
        config: The configuration.
        name: Its name, for messages.

    Raises:
        UsageError: A name or an argument is wrong, or is missing.
        ConfigError, DataError: A task or a part of the agent cannot be used.
        MissingDependencyError: A package is not installed.
    """
    if config.method != "grpo":
        raise UsageError(f"the method is {config.method}", where=name, fix=f"use `knowgen train {config.method}`")
    assert config.grpo is not None
    if not config.model.path:
        raise UsageError("names no model", where="model.path", fix="add model.path=FOLDER, such as that of fine-tuning")
    backend = _backend(config)
    prompts = _prompts(config, config.grpo)
    first = prompts(0)
    tasks = prompts.tasks()
    steps, epochs = _length(config.grpo, len(first))
    prompts.refuse_overlap(epochs, config.evaluation.task)
    parts = _parts_with_search(config, config.grpo, tasks)
    _check_truths(first[:CHECKED_TRUTHS], parts)
    _check_agent(config, common_search=parts.common_search)
    check_evaluation(config)
    _check_prices(config.grpo, parts)
    if problems := backend.check():
        missing = "is not installed" in problems[0]
        raise (MissingDependencyError if missing else ConfigError)(problems[0], where=f"backend {config.backend}")
    return TrainingPlan(name, config, backend, prompts, parts, steps)


def _check_truths(prompts: Sequence[TrainingPrompt], parts: RolloutParts) -> None:
    """Check that ground truths have what the scorers need.

    Raises:
        ConfigError: No prompt has it, so that every answer would be masked.
    """
    for key, scorer in (("grpo.reward.image", parts.image), ("grpo.reward.text", parts.text)):
        if scorer is None:
            continue
        needs = scorer.capabilities.needs & TRUTH_NEEDS
        lacking = [missing_truth(needs, prompt.truth) for prompt in prompts]
        if lacking and all(lacking):
            what = f"{scorer.spec.name} needs {', '.join(lacking[0])}, which no ground truth of the first prompts has"
            raise ConfigError(what, where=key, fix="name another scorer, or a task with such ground truths")


def rollout_parts(config: TrainingConfig) -> RolloutParts:
    """Return what takes part in the rollouts of a training, as its plan has it.

    Raises:
        UsageError: A name or an argument is wrong, or is missing.
        DataError: A task cannot be used.
    """
    grpo = grpo_of(config)
    prompts = _prompts(config, grpo)
    prompts(0)
    return _parts_with_search(config, grpo, prompts.tasks())


def _prompts(config: TrainingConfig, grpo: GrpoSection) -> TrainingPrompts:
    return TrainingPrompts(
        grpo.prompts,
        seed=config.seed,
        curriculum=grpo.curriculum,
        load=partial(open_task, in_worker=True),
        search=partial(search_name, config.agent),
    )


def _parts_with_search(config: TrainingConfig, grpo: GrpoSection, tasks: list[Task]) -> RolloutParts:
    common = any(not search_name(config.agent, task) for task in tasks)
    return replace(_parts(grpo, tasks), common_search=common)


def search_arguments(agent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the search backend among those of the agent."""
    return {key.removeprefix("search."): value for key, value in agent.items() if key.startswith("search.")}


def search_name(agent: Mapping[str, Any], task: Task) -> str:
    """Return the name of a task's search backend; empty where the agent has one for all tasks.

    Raises:
        UsageError: The agent names none, and the task has none.
    """
    requested = agent.get("search")
    if requested is None and not task.search:
        what = f"the agent needs a search backend, and the task {task.name} has none"
        raise UsageError(what, where="agent.search", fix="add agent.search=NAME")
    name = search_for(requested, task, _agent(), search_arguments(agent)).backend
    return "" if name == requested else str(name)


def _agent() -> Located:
    return locate("generators", AGENT)


def _length(grpo: GrpoSection, prompts: int) -> tuple[int, int]:
    """Return the number of steps and of the epochs that these may take."""
    size = grpo.rollout.prompts
    if grpo.max_steps is None:
        return max(1, int(grpo.epochs * prompts / size)) * grpo.iterations, math.ceil(grpo.epochs)
    return grpo.max_steps, math.ceil(grpo.max_steps / grpo.iterations * size / max(1, prompts))


def _backend(config: TrainingConfig) -> GrpoBackend:
    """Return the backend, without what it imports when it trains.

    Raises:
        UsageError: It is not known.
        MissingDependencyError: A package that it imports is not installed.
        ConfigError: Its module cannot be imported.
    """
    where = f"backend {config.backend!r}"
    module, colon, attribute = BACKENDS.get(config.backend, config.backend).partition(":")
    if not colon:
        fix = f"name one of {', '.join(BACKENDS)}, or module:Class"
        raise UsageError("is not known", where=where, fix=fix)
    current_folder_last()
    try:
        target = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"needs the module {error.name!r}, which is not installed", where=where) from error
    except AttributeError as error:
        raise UsageError(f"{module} has no {attribute!r}", where=where) from error
    except KnowgenError:
        raise
    except Exception as error:
        raise ConfigError(f"failed while it was imported: {error_summary(error)}", where=where) from error
    return cast(GrpoBackend, target(config))


def _parts(grpo: GrpoSection, tasks: list[Task]) -> RolloutParts:
    """Return image model and scorers, as far as they have a weight."""
    reward = grpo.reward
    if reward.constant is not None:
        return RolloutParts()
    image = text = painter = None
    if reward.text_weight > 0:
        if not reward.text:
            fix = "name answer:MODEL, or a check such as world_answer, or set grpo.reward.text_weight=0"
            raise UsageError("names no scorer of the answer", where="grpo.reward.text", fix=fix)
        text = _text_scorer(resolve_scorer(reward.text, reward.text_args, in_worker=True))
    if reward.text_weight < 1:
        name = reward.image or next((task.default_scorers[0] for task in tasks if task.default_scorers), "")
        if not name:
            fix = "name one, such as vlm:MODEL, or set grpo.reward.text_weight=1"
            raise UsageError("names no scorer of images, and no task has one", where="grpo.reward.image", fix=fix)
        image = _image_scorer(resolve_scorer(name, reward.image_args, in_worker=True))
        painter = _painter(grpo, tasks)
    return RolloutParts(painter, image, text)


def _text_scorer(handle: ScorerHandle) -> ScorerHandle:
    where = f"grpo.reward.text: scorer {handle.spec.name!r}"
    if "image" in handle.capabilities.needs:
        raise UsageError("needs an image, and an answer has none", where=where, fix="name answer:MODEL")
    if len(handle.spec.dimensions) > 1:
        raise UsageError(f"has {len(handle.spec.dimensions)} dimensions", where=where, fix="name a scorer with one")
    return handle


def _image_scorer(handle: ScorerHandle) -> ScorerHandle:
    where, count = f"grpo.reward.image: scorer {handle.spec.name!r}", len(handle.spec.dimensions)
    if "image" not in handle.capabilities.needs:
        raise UsageError("does not look at the image", where=where, fix="name it as grpo.reward.text")
    if count not in (0, 1, KNOWN_DIMENSIONS):
        fix = "name a judge of the four KnowGen dimensions, or a scorer with one dimension"
        raise UsageError(f"has {count} dimensions, of which no reward is defined", where=where, fix=fix)
    return handle


def _painter(grpo: GrpoSection, tasks: list[Task]) -> GeneratorHandle:
    """Return the image model.

    Raises:
        UsageError: None is named, or one that takes no references where answers must have some.
    """
    painter = grpo.painter
    name = painter.name
    if painter.urls:
        if name not in ("", "http"):
            raise UsageError(f"urls are those of `http`, not of {name!r}", where="grpo.painter", fix="set name=http")
        name = f"http:{','.join(painter.urls)}"
    if not name:
        fix = "add grpo.painter.name=GENERATOR, or set grpo.reward.text_weight=1"
        raise UsageError("names no image model", where="grpo.painter.name", fix=fix)
    handle = resolve_generator(name, painter.args, tasks[0], in_worker=True)
    if not handle.capabilities.references and grpo.reward.least_references > 0:
        fix = "name a generator that declares `references = True`, or set grpo.reward.least_references=0"
        what = f"{name} takes no reference images, and answers must have {grpo.reward.least_references}"
        raise UsageError(what, where="grpo.painter.name", fix=fix)
    return handle


def _check_agent(config: TrainingConfig, *, common_search: bool) -> None:
    """Build the agent without its policy, and close it."""
    agent = training_agent(config, NoPolicy(), common_search=common_search)
    asyncio.run(agent.close_services())


def check_evaluation(config: TrainingConfig) -> None:
    """Check that checkpoints can be evaluated as a configuration with a section `grpo` says.

    Raises:
        UsageError: The task, its search, the image model or a scorer is missing or not known.
        DataError: The task cannot be used.
    """
    evaluation = config.evaluation
    if not evaluation.task:
        return
    assert config.grpo is not None
    task = open_task(evaluation.task, in_worker=True)
    agent = dict(config.agent)
    if evaluation.search:
        agent = {"search": evaluation.search}
    search_name(agent, task)
    if not (evaluation.painter or config.grpo.painter.name or config.grpo.painter.urls):
        raise UsageError("names no image model", where="evaluation.painter", fix="add evaluation.painter=GENERATOR")
    if evaluation.painter:
        resolve_generator(evaluation.painter, {}, task, in_worker=True)
    names = evaluation.scorers or task.default_scorers
    if not names:
        raise UsageError("names no scorer, and the task has none", where="evaluation.scorers")
    for name in names:
        resolve_scorer(name, scorer_arguments(config, name), in_worker=True)


def scorer_arguments(config: TrainingConfig, name: str) -> dict[str, Any]:
    """Return the arguments of a scorer of the evaluation: those of the reward where it is the same scorer."""
    assert config.grpo is not None
    return dict(config.grpo.reward.image_args) if name == config.grpo.reward.image else {}


def _check_prices(grpo: GrpoSection, parts: RolloutParts) -> None:
    if grpo.services.budget is None:
        return
    for part in (parts.painter, parts.image, parts.text):
        if part is not None and part.price_known is False:
            _refuse_price(part.spec.name)


def _refuse_price(name: str) -> NoReturn:
    raise ConfigError(
        "the price of its calls is unknown, so the budget cannot be enforced",
        where=name,
        fix="give its prices as arguments, or remove grpo.services.budget",
    )
