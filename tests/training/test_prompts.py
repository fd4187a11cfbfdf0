"""Prompts of a training: a pure function of seed and epoch, from several tasks, with fresh worlds and a curriculum."""

from __future__ import annotations

from typing import Any

import pytest

from knowgen.core.errors import ConfigError
from knowgen.core.records import GroundTruth, Sample
from knowgen.tasks.in_memory import InMemoryTask
from knowgen.tasks.load import load_task
from knowgen.training.config import PromptSource
from knowgen.training.prompts import TrainingPrompts, epoch_task


def task(name: str, count: int = 12) -> InMemoryTask:
    levels = ("hard", "easy", "medium")
    samples = [Sample(id=str(n), prompt=f"{name} {n}", difficulty=levels[n % 3]) for n in range(count)]
    truths = [GroundTruth(sample_id=str(n), required_text=(f"{name} {n}",)) for n in range(count)]
    return InMemoryTask(name, samples, truths, search=f"world:{name}")


def prompts(*sources: Any, seed: int = 0, loaded: list[str] | None = None, **options: Any) -> TrainingPrompts:
    def load(name: str) -> InMemoryTask:
        if loaded is not None:
            loaded.append(name)
        return task(name)

    return TrainingPrompts([PromptSource(**source) for source in sources], seed=seed, load=load, **options)


def keys(made: TrainingPrompts, epoch: int) -> list[str]:
    return [prompt.key for prompt in made(epoch)]


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    made = prompts({"task": "a"})
    first, second = keys(made, 0), keys(made, 1)
    assert first != second and sorted(first) == sorted(second) == sorted(f"a/{n}" for n in range(12))
    again = prompts({"task": "a"})
    assert keys(again, 1) == second and keys(again, 0) == first, "whatever was asked before"
    assert keys(prompts({"task": "a"}, seed=1), 0) != first


def test_several_tasks_are_mixed_and_each_prompt_has_its_truth_and_its_search() -> None:
    made = prompts({"task": "a", "limit": 5}, {"task": "b"}, search=lambda task: task.search)(0)
    assert len(made) == 17 and len({prompt.key for prompt in made}) == 17
    names = [prompt.key[0] for prompt in made]
    assert names != sorted(names), "the sources are mixed"
    for prompt in made:
        assert prompt.truth.required_text == (prompt.sample.prompt,) and prompt.search == f"world:{prompt.key[0]}"


def test_a_limit_takes_the_same_prompts_in_each_epoch() -> None:
    made = prompts({"task": "a", "limit": 5})
    assert sorted(keys(made, 0)) == sorted(keys(made, 3)) and len(made(0)) == 5


def test_a_curriculum_has_easy_prompts_first_and_shuffles_among_equals() -> None:
    made = prompts({"task": "a"}, curriculum="difficulty")
    levels = [prompt.sample.difficulty for prompt in made(0)]
    assert levels == ["easy"] * 4 + ["medium"] * 4 + ["hard"] * 4
    assert keys(made, 0)[:4] != keys(made, 1)[:4]


def test_a_difficulty_that_is_not_known_matters_to_a_curriculum_only() -> None:
    odd = InMemoryTask("odd", [Sample(id="1", prompt="p", difficulty="tricky"), Sample(id="2", prompt="p")])
    sources = [PromptSource(task="odd")]
    assert len(TrainingPrompts(sources, seed=0, load=lambda name: odd)(0)) == 2
    made = TrainingPrompts(sources, seed=0, load=lambda name: odd, curriculum="difficulty")
    with pytest.raises(ConfigError, match="task odd, sample 1: the difficulty 'tricky' is neither a number nor easy"):
        made(0)


def test_a_fresh_seed_counts_up_with_the_epoch() -> None:
    loaded: list[str] = []
    made = prompts({"task": "things:5", "fresh_seed": True}, {"task": "b"}, loaded=loaded)
    assert {key.split("/")[0] for key in keys(made, 0)} == {"things:5", "b"}
    assert {key.split("/")[0] for key in keys(made, 2)} == {"things:7", "b"}
    assert loaded == ["things:5", "b", "things:7"], "no task is loaded twice"
    with pytest.raises(ConfigError, match="'things' ends in no seed; name it as things:0"):
        epoch_task(PromptSource(task="things", fresh_seed=True), 1)


def test_a_task_says_by_how_much_its_seed_is_counted_up() -> None:
    class Paired(InMemoryTask):
        seed_step = 2

    names: list[str] = []

    def load(name: str) -> Paired:
        names.append(name)
        return Paired(name, [Sample(id="1", prompt="p")])

    made = TrainingPrompts([PromptSource(task="things:5", fresh_seed=True)], seed=0, load=load)
    assert [keys(made, epoch) for epoch in (3, 0, 1)] == [["things:11/1"], ["things:5/1"], ["things:7/1"]]
    with pytest.raises(ConfigError, match=r"'things:11' in epoch 4"):
        made.refuse_overlap(4, "things:11")


def test_a_fresh_seed_of_things_stays_in_one_half_of_the_names() -> None:
    made = TrainingPrompts([PromptSource(task="things:3:4", fresh_seed=True)], seed=0, load=load_task)
    assert [made.tasks(epoch)[0].name for epoch in range(3)] == ["things:3:4", "things:3:6", "things:3:8"]
    made.refuse_overlap(50, "things:5")


def test_a_task_of_the_evaluation_is_not_trained_on() -> None:
    fresh = prompts({"task": "things:0", "fresh_seed": True})
    fresh.refuse_overlap(10, "things:10")
    fresh.refuse_overlap(10, "")
    with pytest.raises(ConfigError, match=r"the task 'things:9' in epoch 10, on which it is evaluated"):
        fresh.refuse_overlap(10, "things:9")
    with pytest.raises(ConfigError, match=r"the task 'things:0' in epoch 1"):
        fresh.refuse_overlap(10, "things:400:0")
    with pytest.raises(ConfigError, match=r"the task 'b' in epoch 1"):
        prompts({"task": "b"}).refuse_overlap(1, "b")


def test_without_prompts_there_is_one_line() -> None:
    with pytest.raises(ConfigError, match="names no prompts; write prompts"):
        prompts()(0)


def test_truths_are_read_when_a_prompt_is_taken() -> None:
    read: list[str] = []

    class Counted(InMemoryTask):
        def truth(self, sample_id: str) -> GroundTruth:
            read.append(sample_id)
            return super().truth(sample_id)

    counted = Counted("c", [Sample(id=str(n), prompt="p") for n in range(100)])
    made = TrainingPrompts([PromptSource(task="c")], seed=0, load=lambda name: counted)(0)
    assert len(made[3:5]) == 2 and not read
    assert [prompt.sample.id for prompt in made[3:5]] == read
