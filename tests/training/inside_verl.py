"""The backend inside a real verl, without GPUs. Runs in the environment of verl: see `test_verl.py`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transfer_queue as tq
import yaml
from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.import_utils import import_external_libs
from verl.workers.utils.losses import ppo_loss

from knowgen.training.backends.verl.advantages import ESTIMATOR, MASKED, group_advantages
from knowgen.training.backends.verl.backend import checkpoint_steps, export
from knowgen.training.backends.verl.files import VerlFiles
from knowgen.training.backends.verl.settings import FREEZE_VARIABLE, composed, verl_settings
from knowgen.training.config import TrainingConfig, load_config
from tests.helpers.tiny_models import tiny_vlm
from tests.helpers.verl_parts import (
    GUESSING,
    SEARCHING,
    ScriptedServers,
    number_of,
    prompts_of,
    verl_config,
    written,
)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    tiny_vlm(folder / "model")
    return folder


def verl_config_of(config: TrainingConfig, files: VerlFiles, model: str = "model", **options: Any) -> Any:
    """Return verl's whole configuration of a training."""
    settings = verl_settings(config, files, model, steps=10, resume=False)
    files.folder.mkdir(parents=True, exist_ok=True)
    files.settings.write_text(yaml.safe_dump(composed(settings)))
    with initialize_config_dir(str(files.folder), version_base=None):
        return compose("verl")


def leaves(settings: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


@pytest.mark.parametrize("name", ["grpo/verl-1x8", "grpo/verl-4x8"])
@pytest.mark.parametrize("overrides", [[], ["model.lora.rank=16"], ["grpo.kl=0.01", "verl.tokens_per_gpu=null"]])
def test_verl_knows_and_accepts_every_setting(name: str, overrides: list[str], tmp_path: Path) -> None:
    config = load_config(name, overrides)
    files = VerlFiles(tmp_path)
    whole = verl_config_of(config, files)
    if config.model.lora is None:  # its check asks an installed vLLM for the ranks that it takes
        validate_config(whole, use_reference_policy=config.grpo.kl > 0, use_critic=False)  # type: ignore[union-attr]
    for section in ("actor", "rollout"):
        omega_conf_to_dataclass(whole.actor_rollout_ref[section])
    omega_conf_to_dataclass(whole.algorithm)
    with initialize_config_module("verl.trainer.config", version_base=None):
        own = compose("ppo_trainer")
    ours = set(leaves(verl_settings(config, files, "model", 10, False)))
    missing = {path for path in ours if OmegaConf.select(own, path, default="absent") == "absent"}
    environment = "ray_kwargs.ray_init.runtime_env.env_vars"
    assert {path.partition(environment)[0] for path in missing} <= {
        "",
        "actor_rollout_ref.rollout.name",  # must be given
        "ray_kwargs.ray_init.address",
        "actor_rollout_ref.model.override_config.attn_implementation",
    }


def test_verl_reads_the_prompts_in_the_order_of_the_training_and_never_a_ground_truth(training: Path) -> None:
    config = verl_config(training)
    files = VerlFiles(training)
    files.begin(config, "a:b")
    assert files.put_prompts([prompts_of("one", "two"), prompts_of("two", "one")]) == 4
    assert b"SECRET" not in files.order.read_bytes() and files.prompts.read_text().count("SECRET") == 2
    whole = verl_config_of(config, files, str(training / "model"))
    rows = RLHFDataset([str(files.order)], None, whole.data)
    assert [rows[place]["raw_prompt"][0]["content"] for place in range(4)] == [
        "Draw one.", "Draw two.", "Draw two.", "Draw one."
    ]  # fmt: skip
    found = [files.prompt_at(rows[place]["extra_info"]["place"]).key for place in range(4)]
    assert found == ["boats/one", "boats/two", "boats/two", "boats/one"]
    assert [rows[place]["index"] for place in range(4)] == [0, 1, 2, 3]
    assert rows[0]["agent_name"] == "knowgen"


def generated(training: Path, files: VerlFiles, config: TrainingConfig, rows: list[tuple[str, int]]) -> Any:
    """Return what verl's agent-loop worker makes of episodes, by name of the prompt and number within the group."""
    whole = verl_config_of(config, files, str(training / "model"))
    servers = ScriptedServers(training / "model")
    worker = AgentLoopWorker(whole, servers)
    data = RLHFDataset([str(files.order)], None, whole.data)
    places = {data[place]["extra_info"]["key"].partition("/")[2]: place for place in range(len(data))}
    fields = [data[places[name]] for name, _ in rows]

    def column(values: list[Any]) -> Any:
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array

    batch = DataProto.from_dict(
        tensors={"dummy_tensor": torch.zeros(len(rows), 1)},
        non_tensors={
            "raw_prompt": column([each["raw_prompt"] for each in fields]),
            "extra_info": column([each["extra_info"] for each in fields]),
            "agent_name": column([each["agent_name"] for each in fields]),
            "global_steps": column([5] * len(rows)),
            "session_id": column([number for _, number in rows]),
        },
        meta_info={"global_steps": 5},
    )
    return asyncio.run(worker.generate_sequences(batch)), servers, worker


GROUP = [("boat", 0), ("boat", 1), ("boat", 2)]


@pytest.fixture(scope="module")
def step(training: Path) -> Any:
    folder = training / "step"
    folder.mkdir()
    config = verl_config(training)
    files = written(folder, config, prompts_of("boat", "outage"))
    output, servers, worker = generated(training, files, config, [*GROUP, *(("outage", number) for number in range(3))])
    return output, servers, worker, files


def decoded(worker: Any, ids: Any) -> str:
    return str(worker.tokenizer.decode(ids))


def test_the_mask_covers_exactly_what_was_sampled(step: Any) -> None:
    output, _, worker, _ = step
    for row, script in enumerate((SEARCHING, GUESSING)):
        mask = output.batch["response_mask"][row].bool()
        sampled = "".join(f"{text}<|im_end|>" for text in script)
        assert decoded(worker, output.batch["responses"][row][mask]) == sampled


def test_rewards_endings_and_versions_of_the_weights_reach_verl(step: Any) -> None:
    output, *_ = step
    assert output.batch["rm_scores"].sum(-1).tolist()[:3] == [1.0, 0.0, 0.0]
    extra = output.non_tensor_batch
    assert list(extra["ending"][:3]) == ["answer", "answer", "no_answer"]
    assert set(extra["min_global_steps"]) == set(extra["max_global_steps"]) == {4}
    assert list(extra["reward_text"][:1]) == [1.0] and np.isnan(extra["reward_image"].astype(float)).all()


def test_a_masked_ending_counts_for_its_group_and_has_no_gradient(step: Any) -> None:
    output, *_ = step
    assert output.batch["response_mask"][2].sum() == 0
    advantages = verl_advantages_of(output)
    assert advantages[:2] == pytest.approx(group_advantages([1.0, 0.0, 0.0], [0, 0, 0])[:2], abs=1e-5)


def test_a_judge_that_cannot_be_reached_masks_its_episodes_and_is_counted(step: Any) -> None:
    output, _, _, files = step
    outage = output.batch["rm_scores"].sum(-1)[3:]
    assert outage.tolist()[0] == MASKED and output.batch["response_mask"][3].sum() == 0
    assert output.non_tensor_batch["masked"][3] == "judge: no connection"
    [group, masked] = files.take_groups(5)
    assert [episode.reward.masked for episode in masked] == [True, False, False]
    assert [episode.number for episode in group] == [0, 1, 2] and group[0].trajectory.segments
    assert not list(files.episodes.iterdir())


def verl_advantages_of(output: Any) -> list[float]:
    """Return the advantage of each row of the group by verl's estimator of that name."""
    estimator = get_adv_estimator_fn(ESTIMATOR)
    advantages, _ = estimator(
        token_level_rewards=output.batch["rm_scores"],
        response_mask=torch.ones_like(output.batch["response_mask"]),
        index=np.array(["boat"] * 3 + ["outage"] * 3, dtype=object),
        config=None,
    )
    return [float(value) for value in advantages[:, 0]]


def test_the_log_probabilities_are_those_of_the_ids_images_and_positions_that_verl_trains_on(step: Any) -> None:
    output, servers, *_ = step
    model, processor = servers._model()
    widest = 0.0
    for row in (0, 1):
        inputs = output.non_tensor_batch["multi_modal_inputs"][row]
        pixels = {name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs}
        assert bool(pixels) is (row == 0)
        ids, attention = output.batch["input_ids"][row : row + 1], output.batch["attention_mask"][row : row + 1]
        if pixels:
            pixels["mm_token_type_ids"] = (ids == processor.image_token_id).int()
        positions = output.batch["position_ids"][row : row + 1].transpose(0, 1)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=attention, position_ids=positions, **pixels).logits.float()
        length = output.batch["responses"].shape[1]
        values = torch.log_softmax(logits[:, -length - 1 : -1], dim=-1).gather(-1, ids[:, -length:].unsqueeze(-1))[
            0, :, 0
        ]
        mask = output.batch["response_mask"][row].bool()
        gap = (values[mask] - output.batch["rollout_log_probs"][row][mask]).abs()
        widest = max(widest, float(gap.max()))
    assert widest < 1e-4


def test_the_servers_are_asked_with_the_settings_of_the_training(step: Any) -> None:
    _, servers, *_ = step
    asked = servers.requests[0]["parameters"]
    assert (asked["temperature"], asked["top_p"], asked["top_k"], asked["max_tokens"]) == (1.0, 1.0, -1, 400)
    assert set(asked["logit_bias"].values()) == {-100.0} and len(asked["logit_bias"]) == 4
    assert len({request["id"] for request in servers.requests}) == 6  # one session a trajectory
    assert {request["images"] for request in servers.requests if number_of(request["id"]) == 0} == {0, 2}


@pytest.mark.parametrize("policy", ["on", "off"])
def test_the_loss_is_the_mean_over_sequences_of_the_clipped_sum_over_sampled_ids(policy: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = load_config("grpo/verl-1x8", ["grpo.rollout.prompts=2", "grpo.rollout.group=4", "verl.gpus_per_node=1"])
    whole = verl_config_of(config, VerlFiles(tmp_path))
    import_external_libs(whole.actor_rollout_ref.model.external_lib)  # as verl's model configuration does
    actor = omega_conf_to_dataclass(whole.actor_rollout_ref.actor)
    mask = (torch.rand(8, 12) < 0.6).long()
    mask[3] = 0  # an episode that could not be scored
    rewards = [1.0, 0.0, 0.5, None, 0.25, 0.25, 1.0, 0.0]
    logprobs = (-torch.rand(8, 12) * 3).requires_grad_()
    old = logprobs.detach() + (0.4 * torch.randn(8, 12) if policy == "off" else 0)
    scores = torch.zeros(8, 12)
    scores[:, -1] = torch.tensor([MASKED if reward is None else reward for reward in rewards])
    groups = np.array(["a"] * 4 + ["b"] * 4, dtype=object)
    advantages, _ = get_adv_estimator_fn(ESTIMATOR)(
        token_level_rewards=scores, response_mask=mask, index=groups, config=None
    )
    batch = TensorDict({"response_mask": mask, "old_log_probs": old, "advantages": advantages}, batch_size=8)
    loss = verl_loss(actor, logprobs, batch)
    loss.backward()
    gradient = logprobs.grad.clone()
    logprobs.grad = None
    hand: Any = 0.0
    for row, reward in enumerate(rewards):
        others = [
            each for each, group in zip(rewards, groups, strict=True) if group == groups[row] and each is not None
        ]
        if reward is None:
            continue
        advantage = (reward - np.mean(others)) / (np.std(others, ddof=1) + 1e-4)
        ratio = torch.exp(logprobs[row] - old[row])
        clipped = ratio.clamp(1 - 0.2, 1 + 0.28)
        hand = hand - (torch.minimum(ratio * advantage, clipped * advantage) * mask[row]).sum() / 8
    hand.backward()
    assert loss.item() == pytest.approx(float(hand), abs=1e-6)
    assert torch.allclose(gradient, logprobs.grad, atol=1e-6)


def verl_loss(actor: Any, logprobs: Any, batch: TensorDict) -> Any:
    """Return verl's loss of padded rows, as its trainer computes it for one rank with the whole batch."""
    import verl.workers.utils.losses as losses

    class Whole(dict[str, Any]):
        """A batch that is not nested."""

        def select(self, *names: str) -> TensorDict:
            return batch.select(*names)

    whole = Whole(dp_size=1, batch_num_tokens=None, global_batch_size=8)
    original, losses.no_padding_2_padding = losses.no_padding_2_padding, lambda values, data: values
    try:
        batch.to_padded_tensor = lambda: batch
        return ppo_loss(actor, {"log_probs": logprobs}, whole)[0]
    finally:
        losses.no_padding_2_padding = original


def test_what_is_frozen_stays_frozen_in_the_model_that_verl_loads(
    training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """verl's own setting for it is not read by its FSDP engine."""
    from transformers import AutoConfig, AutoModelForImageTextToText
    from verl.utils.model import get_hf_auto_model_class

    from knowgen.training.backends.verl import registration

    monkeypatch.setenv(FREEZE_VARIABLE, "vision,projector")
    before = dict(AutoModelForImageTextToText._model_mapping._extra_content)
    registration.register()
    try:
        auto = get_hf_auto_model_class(AutoConfig.from_pretrained(training / "model"))
        model = auto.from_pretrained(training / "model", dtype=torch.float32)
    finally:
        AutoModelForImageTextToText._model_mapping._extra_content = before
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and not {name for name in trained if "visual" in name}
    assert type(model).__name__ == "Qwen3VLForConditionalGeneration"


def test_the_worker_of_verls_trainer_puts_whole_groups_into_its_queue(training: Path) -> None:
    import ray
    from verl.trainer.ppo.v1 import AgentLoopWorkerTQ
    from verl.utils import tensordict_utils as tu

    folder = training / "queue"
    folder.mkdir()
    config = verl_config(training)
    files = written(folder, config, prompts_of("boat", "outage"))
    whole = verl_config_of(config, files, str(training / "model"))
    whole.transfer_queue.enable = True
    whole.transfer_queue.backend.SimpleStorage.num_data_storage_units = 1
    data = RLHFDataset([str(files.order)], None, whole.data)
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        tq.init(whole.transfer_queue)
        worker = AgentLoopWorkerTQ.options(num_cpus=1).remote(whole, ScriptedServers(training / "model"))
        fields = {name: [data[0][name], data[1][name]] for name in ("raw_prompt", "extra_info", "agent_name", "index")}
        batch = tu.get_tensordict({**fields, "uid": ["one", "two"]}, {"global_steps": 5})
        ray.get(worker.generate_sequences.remote(batch))
        tags = asyncio.run(finished(2))
        keys = [f"one_{number}_0" for number in range(3)]
        rows = tq.kv_batch_get(
            keys=keys, partition_id="train", select_fields=["rm_scores", "response_mask", "responses"]
        )
    finally:
        ray.shutdown()
    assert {tags[key]["status"] for key in ("one", "two")} == {"finished"}
    assert {tags[key]["min_global_steps"] for key in keys} == {4}
    assert [float(row.sum()) for row in rows["rm_scores"].unbind()] == [1.0, 0.0, 0.0]
    assert [bool(row.any()) for row in rows["response_mask"].unbind()] == [True, True, False]


async def finished(prompts: int) -> dict[str, Any]:
    """Return the tags of verl's queue when a number of prompts has ended."""
    async with asyncio.timeout(240):
        while True:
            tags: dict[str, Any] = tq.kv_list("train").get("train", {})
            if sum(tag.get("status") in ("finished", "failure") for tag in tags.values()) == prompts:
                return tags
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("adapters", [[], ["adapters"]])
def test_a_sharded_checkpoint_of_verl_becomes_a_folder_that_is_loaded_with_its_processor(
    training: Path, tmp_path: Path, adapters: list[str]
) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    (tmp_path / "model").symlink_to(training / "model")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.helpers.verl_checkpoint", str(tmp_path), *adapters]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("3")
    assert checkpoint_steps(tmp_path / "checkpoints") == [3]
    export(tmp_path / "checkpoints" / "global_step_3", tmp_path / "exported")
    found, before = (
        AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).state_dict()
        for path in (tmp_path / "exported", training / "model")
    )
    expected = torch.load(tmp_path / "expected.pt", weights_only=True)
    assert found.keys() == expected.keys()
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights, rtol=1e-2, atol=4e-3)  # bfloat16
    changed = {name for name, weights in expected.items() if not torch.allclose(weights, before[name], atol=4e-3)}
    assert changed and all(
        ("q_proj" in name or "v_proj" in name) if adapters else "lm_head" in name for name in changed
    )
    assert AutoProcessor.from_pretrained(tmp_path / "exported").tokenizer.get_vocab()
    assert not (tmp_path / "exported" / "lora_adapter").exists()
