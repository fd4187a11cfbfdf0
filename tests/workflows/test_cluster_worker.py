"""A process of a cluster: it builds the rollouts of a training from the files of the training alone."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from knowgen.store.training_ledger import TrainingLedger
from knowgen.training.backends.verl.files import VerlFiles
from knowgen.training.backends.verl.worker import imported
from knowgen.training.config import TrainingConfig, load_config
from knowgen.workflows.cluster_worker import WORKER_ROLLOUTS, cluster_rollouts
from knowgen.workflows.training_plan import plan_training
from knowgen.worlds.things.teacher import ThingsTeacher
from tests.helpers.judge_server import JudgeServer, Step

CONFIG = """
method: grpo
backend: tests.helpers.scripted_backend:ScriptedBackend
model: {path: "mini:0"}
agent: {prompt: short, tools: image_search, tool_calls: 1, date: "2026-01-01"}
grpo:
  prompts: [{task: "things:0", limit: 4}]
  max_steps: 2
  rollout: {prompts: 2, group: 2}
  reward: {text_weight: 1.0, text: "answer:any"}
  services: {budget: 8.0}
verl: {workers: 2}
"""


def config_of(tmp_path: Path, server: JudgeServer) -> TrainingConfig:
    path = tmp_path / "training.yaml"
    path.write_text(CONFIG)
    prices = f"{{base_url: '{server.url}', price_call: 0.01}}"
    return load_config(path, [f"grpo.reward.text_args={prices}"])


def test_a_worker_runs_episodes_from_the_files_of_the_training(tmp_path: Path) -> None:
    with JudgeServer(lambda call: Step(reply=json.dumps({"rationale": "So.", "answer": 0.5}))) as server:
        config = config_of(tmp_path, server)
        planned = plan_training(config, "training").prompts(0)
        files = VerlFiles(tmp_path / "out")
        files.begin(config, WORKER_ROLLOUTS)
        files.put_prompts([planned])
        places = [row["extra_info"]["place"] for row in pq.read_table(files.order).to_pylist()]
        prompts = [files.prompt_at(place) for place in places]
        assert repr(prompts) == repr(list(planned))
        truths = [prompt.truth.image for prompt in prompts]
        assert all(truth is not None and truth.path and files.training in truth.path.parents for truth in truths)
        read, builder = files.read_task()
        rollouts = imported(builder)(read, files.training, ThingsTeacher(look=1.0, right=1.0))
        try:
            episodes = rollouts.run([prompts[0]] * 2, step=3, seeds=[1, 2])
            files.put_group(3, 0, episodes)
        finally:
            rollouts.close()
    assert [(each.prompt.key, each.number, each.reward.value) for each in episodes] == [
        (prompts[0].key, 0, 0.5), (prompts[0].key, 1, 0.5)
    ]  # fmt: skip
    [group] = files.take_groups(3)
    assert [each.reward for each in group] == [each.reward for each in episodes]
    before, after = (repr([each.trajectory for each in some]).replace("=()", "=[]") for some in (episodes, group))
    assert after == before
    shown = [image for each in group if each.trajectory for m in each.trajectory.messages for image in m.images]
    assert len(shown) == 2 and all(image.open().size == (image.width, image.height) for image in shown)


def test_each_worker_may_spend_an_equal_part_of_what_is_left(tmp_path: Path) -> None:
    with JudgeServer(lambda call: Step(reply="{}")) as server:
        config = config_of(tmp_path, server)
        folder = tmp_path / "out"
        earlier = TrainingLedger(folder)
        earlier.settle(earlier.reserve(2.0, "judge"), 2.0)
        workers = [cluster_rollouts(config, folder, ThingsTeacher()) for _ in range(2)]
        for worker in workers:
            worker.close()
        earlier.close()
    assert sorted(path.name for path in folder.glob("spending*.sqlite")) == [
        "spending-1.sqlite", "spending-2.sqlite", "spending.sqlite"
    ]  # fmt: skip
    assert [worker._services.meter._budget for worker in workers] == pytest.approx([3.0, 3.0])
