"""Rollouts of the agent in their own event loop: with a policy, a search and an image model that are real."""

from __future__ import annotations

import _thread
import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from knowgen.agents.records import Ending
from knowgen.core.errors import UsageError
from knowgen.store.training_ledger import TrainingLedger
from knowgen.store.training_run import TrainingRun
from knowgen.tasks.load import load_task
from knowgen.training.backends.contract import TrainingPrompt
from knowgen.training.config import ModelConfig, TrainingConfig
from knowgen.training.episode_images import EpisodeImages
from knowgen.training.rollouts import AgentRollouts, RolloutParts
from knowgen.worlds.things.teacher import ThingsTeacher


def config(**grpo: Any) -> TrainingConfig:
    agent = {"prompt": "short", "tools": "image_search", "tool_calls": 1}
    grpo = {"reward": {"constant": 0.5}, **grpo}
    return TrainingConfig(method="grpo", model=ModelConfig(path="mini:0"), agent=agent, grpo=grpo)


def prompts(name: str, count: int) -> list[TrainingPrompt]:
    task = load_task(name)
    samples = list(task.samples())[:count]
    return [TrainingPrompt(f"{name}/{each.id}", each, task.truth(each.id), search=task.search) for each in samples]


class Opened:
    """Rollouts in a temporary directory."""

    def __init__(self, folder: Path, policy: Any, **grpo: Any) -> None:
        self.ledger = TrainingLedger(folder)
        images = EpisodeImages(TrainingRun(folder).images)
        parts = RolloutParts(common_search=False)
        self.rollouts = AgentRollouts(config(**grpo), policy, parts, folder=folder, images=images, ledger=self.ledger)

    def __enter__(self) -> AgentRollouts:
        return self.rollouts

    def __exit__(self, *_: object) -> None:
        self.rollouts.close()
        self.ledger.close()


class HangingSession:
    """A session that never replies."""

    segments = ()

    def __init__(self, policy: HangingPolicy) -> None:
        self._policy = policy

    async def reply(self, messages: Any) -> Any:
        self._policy.asked.release()
        await asyncio.sleep(10**6)

    async def close(self) -> None:
        self._policy.closed += 1


class HangingPolicy:
    """A policy whose sessions never reply."""

    identity: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.asked, self.closed = threading.Semaphore(0), 0

    def open(self, sampling: Any, prompt: str, session: str) -> HangingSession:
        return HangingSession(self)

    async def close(self) -> None:
        raise AssertionError("the policy belongs to the backend")


def test_steps_share_an_event_loop_and_each_task_has_its_own_search(tmp_path: Path) -> None:
    both = prompts("things:0", 2) + prompts("things:1", 2)
    loops: set[Any] = set()

    class Noted(ThingsTeacher):
        def open(self, *arguments: Any) -> Any:
            loops.add(asyncio.get_running_loop())
            return super().open(*arguments)

    with Opened(tmp_path, Noted(look=1.0, right=1.0)) as rollouts:
        for step in (1, 2):
            episodes = rollouts.run(both, step=step, seeds=[1, 2, 3, 4])
            assert [each.prompt.key for each in episodes] == [each.key for each in both]
            for each in episodes:
                assert each.trajectory is not None and each.trajectory.ending is Ending.ANSWER
                colour = each.prompt.truth.subjects[0]["colour"]
                assert colour in (each.trajectory.gen_prompt or ""), "it has seen the picture of its own world"
    assert len(loops) == 1
    loop = loops.pop()
    assert loop.is_closed()


def test_the_same_seeds_give_the_same_trajectories(tmp_path: Path) -> None:
    chosen = prompts("things:0", 1) * 6
    with Opened(tmp_path, ThingsTeacher(look=0.0)) as rollouts:
        runs = [rollouts.run(chosen, step=1, seeds=seeds) for seeds in (range(6), range(6), range(6, 12))]
    first, second, third = ([each.trajectory and each.trajectory.gen_prompt for each in run] for run in runs)
    assert first == second and first != third and len(set(first)) > 1


def test_an_interruption_ends_all_trajectories_in_order(tmp_path: Path) -> None:
    policy = HangingPolicy()

    def interrupt() -> None:
        for _ in range(3):
            policy.asked.acquire()
        _thread.interrupt_main()

    with Opened(tmp_path, policy) as rollouts:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            rollouts.run(prompts("things:0", 3), step=1, seeds=[1, 2, 3])
        assert policy.closed == 3
    assert not [thread for thread in threading.enumerate() if thread.name == "knowgen rollouts"]


def test_a_wrong_argument_of_the_agent_leaves_nothing_running(tmp_path: Path) -> None:
    wrong = config().model_copy(update={"agent": {"roundz": 3}})
    with pytest.raises(UsageError, match="roundz"):
        AgentRollouts(
            wrong, ThingsTeacher(), RolloutParts(), folder=tmp_path,
            images=EpisodeImages(TrainingRun(tmp_path).images), ledger=TrainingLedger(tmp_path),
        )  # fmt: skip
    assert not [thread for thread in threading.enumerate() if thread.name == "knowgen rollouts"]


def test_rollouts_close_although_a_search_could_not_be_built(tmp_path: Path) -> None:
    policy = ThingsTeacher(look=1.0, right=1.0)
    first, second = prompts("things:0", 2)
    with Opened(tmp_path, policy) as rollouts:
        with pytest.raises(UsageError, match="nowhere"):
            rollouts.run([replace(first, search="nowhere"), second], step=1, seeds=[1, 2])
        loop = rollouts._loop
    assert loop.is_closed()
