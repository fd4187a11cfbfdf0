"""From a teacher's trajectories to a model that answers on names that it has never seen."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from knowgen.core.records import AnswerStatus
from knowgen.store.run import RunStore
from knowgen.training.conversations import load_conversations
from tests.helpers.processes import run_python

pytest.importorskip("trl")

AGENT = ("prompt=short", "date=2026-01-01", "tools=image_search", "rounds=2", "tool_calls=2")


@pytest.mark.slow
def test_a_small_model_learns_the_protocol_and_to_look(tmp_path: Path) -> None:
    def knowgen(*words: str) -> str:
        return run_python("-m", "knowgen", *words, cwd=tmp_path, timeout=900).stdout

    agent = [word for argument in AGENT for word in ("-g", argument)]
    teacher = ["--policy", "things_teacher", "-g", "policy.look=1", "-g", "policy.right=1", "--repeats", "2"]
    made = knowgen("trajectories", "make", "--task", "things:300:0", *teacher, *agent, "-o", "conversations")
    assert "kept     600 of 600 trajectories in conversations/conversations.jsonl" in made
    assert len(load_conversations(tmp_path / "conversations")) == 600

    trained = knowgen("train", "sft", "--config", "sft/cpu-mini", "sft.max_steps=250", "-o", "sft")
    assert "model    sft/model" in trained
    printed = dict(line.split(maxsplit=1) for line in trained.splitlines())
    _, *evaluate = shlex.split(printed["evaluate"].replace("-m knowgen ", ""))
    knowgen(*evaluate, "--limit", "2", "--out", "tried")
    with RunStore.read(tmp_path / "tried") as store:
        assert len(list(store.answers())) == 2

    policy = ["-g", "policy=hf:sft/model", "-g", "temperature=0", "-g", "max_new_tokens=16"]
    painter = ["-g", "painter=things_painter", "--out", "run"]
    knowgen("run", "--task", "things:30:1", "--generator", "gen_searcher", *policy, *agent, *painter)
    with RunStore.read(tmp_path / "run") as store:
        answers = [answer for _, answer in store.answers()]
        values = [row.strict.values["colour"] for row in store.rows("things_check")]
    assert sum(answer.status is AnswerStatus.OK for answer in answers) >= 12  # untrained: none
    assert sum(values) / len(values) > 0.35  # by chance one in six of those with an answer
