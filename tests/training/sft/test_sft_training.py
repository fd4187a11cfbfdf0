"""Fine-tuning from conversations to a model that the policy `hf` loads."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.store.training_run import TrainingRun
from knowgen.training.backends.contract import TrainingResult
from knowgen.training.config import TrainingConfig
from knowgen.workflows.fine_tuning import FineTuned, fine_tune
from tests.helpers import conversations
from tests.helpers.processes import run_python
from tests.helpers.tiny_models import tiny_vlm

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

IMAGES = (True, False, True, True, False, True)


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_vlm(tmp_path_factory.mktemp("models") / "vlm")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [conversations.searching(number, image=image) for number, image in enumerate(IMAGES)]
    return conversations.write(tmp_path_factory.mktemp("conversations"), rows)


def config_of(vlm: Path, data: Path, **sections: Any) -> TrainingConfig:
    values: dict[str, Any] = {
        "method": "sft",
        "model": {"path": str(vlm)},
        "optimizer": {"learning_rate": 1e-2, "schedule": "cosine", "warmup_ratio": 0.02},
        "sft": {"conversations": [{"path": str(data)}], "max_steps": 4, "batch_size": 2},
        "checkpoints": {"every": 2},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return TrainingConfig.model_validate(values)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def assert_same_weights(first: Path, second: Path) -> None:
    expected = weights(second)
    for name, value in weights(first).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def stopped_after(step: int) -> Callable[[str], None]:
    """Return a report that sends SIGINT once a step is done, as Ctrl-C does."""

    def report(line: str) -> None:
        if line.startswith(f"step {step}/"):
            os.kill(os.getpid(), signal.SIGINT)

    return report


def test_it_learns_and_freezes_the_vision_tower_and_the_projector(
    vlm: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.delenv("CI", raising=False)  # where it is set, the library sends nothing anyway
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", lambda *args, **kwargs: sent.append(args))
    result = fine_tune(config_of(vlm, data), tmp_path / "run", name="test")

    assert sent == []
    assert (result.steps, result.stopped, result.used, result.left_out) == (4, "", 6, [])
    before, after = weights(vlm), weights(result.weights)
    assert set(before) == set(after)
    for name in before:
        same = torch.equal(before[name], after[name])
        assert same == ("visual" in name), name
    steps = TrainingRun(tmp_path / "run").metrics()
    assert list(steps) == [1, 2, 3, 4]
    assert steps[4]["loss"] < 0.7 * steps[1]["loss"]
    assert all(values["tokens_per_second"] > 0 and values["cut"] == 0 for values in steps.values())
    assert [round(values["learning_rate"], 6) for values in steps.values()] == [0.0, 0.01, 0.0075, 0.0025]
    description = TrainingRun(tmp_path / "run").description()
    assert (description["steps"], description["stopped"], description["conversations"]) == (4, "", 6)
    assert description["config"]["optimizer"]["learning_rate"] == 0.01


@pytest.mark.parametrize(
    "lora",
    [pytest.param(None, id="full"), pytest.param({"rank": 2, "dropout": 0.1}, id="lora", marks=pytest.mark.slow)],
)
def test_a_training_that_is_interrupted_and_continued_ends_with_the_same_weights(
    vlm: Path, data: Path, tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    config = config_of(vlm, data, model={"lora": lora}, checkpoints={"every": 100})
    whole = fine_tune(config, tmp_path / "whole", name="test")

    part = fine_tune(config, tmp_path / "run", name="test", report=stopped_after(2))
    assert part.stopped == "interrupted"
    assert part.steps in (2, 3)  # the step that runs is finished
    assert not part.weights.exists()
    assert TrainingRun(tmp_path / "run").description()["stopped"] == "interrupted"
    again = fine_tune(config, tmp_path / "run", name="test")

    assert (again.steps, again.stopped) == (4, "")
    assert_same_weights(again.weights, whole.weights)
    steps, expected = TrainingRun(tmp_path / "run").metrics(), TrainingRun(tmp_path / "whole").metrics()
    assert [values["loss"] for values in steps.values()] == [values["loss"] for values in expected.values()]


def test_a_step_does_not_depend_on_how_its_conversations_are_divided(vlm: Path, data: Path, tmp_path: Path) -> None:
    losses = []
    for batch_size, accumulation in ((2, 1), (1, 2)):
        sections = {"sft": {"max_steps": 3, "batch_size": batch_size, "accumulation": accumulation}}
        folder = tmp_path / f"{batch_size}"
        fine_tune(config_of(vlm, data, **sections), folder, name="test")
        losses.append([values["loss"] for values in TrainingRun(folder).metrics().values()])
    # conversations have different lengths: a mean of means would differ in the third digit
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_two_processes_one_of_them_without_images_train_as_one(vlm: Path, data: Path, tmp_path: Path) -> None:
    config = config_of(vlm, data, optimizer={"learning_rate": 1e-3, "schedule": "constant"}, checkpoints={"every": 2})
    alone = fine_tune(config, tmp_path / "one", name="test")
    divided = config.model_copy(update={"sft": config.sft and config.sft.model_copy(update={"batch_size": 1})})
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(divided.model_dump(mode="json")))
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2, "-m", "knowgen")

    done = run_python(*launch, "train", "sft", "--config", file, "-o", tmp_path / "two", timeout=600)

    assert done.stdout.count("6 conversations, 0 left out; 4 steps") == 1  # said by the main process alone
    figures = [TrainingRun(tmp_path / name).metrics() for name in ("one", "two")]
    for step in range(1, 5):
        for name in ("loss", "grad_norm", "token_accuracy"):
            assert figures[1][step][name] == pytest.approx(figures[0][step][name], rel=1e-4), (step, name)
    expected = weights(alone.weights)
    for name, value in weights(tmp_path / "two" / "model").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=2e-3)


def test_adapters_are_trained_and_merged(vlm: Path, data: Path, tmp_path: Path) -> None:
    config = config_of(vlm, data, model={"lora": {"rank": 2, "targets": ["q_proj"]}}, sft={"max_steps": 2})
    result = fine_tune(config, tmp_path / "run", name="test")
    before, after = weights(vlm), weights(result.weights)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert set(after) == set(before)
    assert changed == {name for name in before if "language_model" in name and name.endswith("q_proj.weight")}


def test_a_complete_training_is_not_loaded_again(
    vlm: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(vlm, data, sft={"max_steps": 1})
    first = fine_tune(config, tmp_path / "run", name="test")
    monkeypatch.setattr("knowgen.workflows.fine_tuning.train_sft", lambda *_: pytest.fail("it is complete"))
    assert fine_tune(config, tmp_path / "run", name="test") == FineTuned(first.folder, first.weights, 1)
    with pytest.raises(ConfigError, match=r"the training began with sft\.max_steps=1, not 2"):
        fine_tune(config_of(vlm, data, sft={"max_steps": 2}), tmp_path / "run", name="test")


def test_a_mistake_that_was_found_before_the_first_step_can_be_corrected(vlm: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no linear layer 'q_prj'"):
        fine_tune(config_of(vlm, data, model={"lora": {"targets": ["q_prj"]}}), tmp_path / "run", name="test")
    right = config_of(vlm, data, model={"lora": {"targets": ["q_proj"]}}, sft={"max_steps": 1})
    assert fine_tune(right, tmp_path / "run", name="test").steps == 1


def test_conversations_that_cannot_be_trained_are_left_out_and_counted(vlm: Path, tmp_path: Path) -> None:
    rows = [
        conversations.searching(0),
        conversations.row(1, [("user", "Hello.")]),
        conversations.row(2, [("user", "x" * 900), ("assistant", "One.")]),
        conversations.row(3, [("user", "Hello."), ("assistant", "One."), ("user", "x" * 900), ("assistant", "Two.")]),
    ]
    data = conversations.write(tmp_path / "data", rows)
    config = config_of(vlm, data, sft={"max_steps": 1, "max_tokens": 200})
    result = fine_tune(config, tmp_path / "run", name="test")
    assert result.used == 2
    assert result.left_out == [
        "conversation 2 (id 'c1'): it has no reply",
        "conversation 3 (id 'c2'): the first reply ends after 200 tokens",
    ]
    assert TrainingRun(tmp_path / "run").metrics()[1]["cut"] == 0.5


def test_an_evaluation_decides_which_weights_are_kept(vlm: Path, data: Path, tmp_path: Path) -> None:
    from knowgen.training.sft.trainer import SftTools, train_sft

    headlines = {0: 0.1, 2: 0.9, 4: 0.5}
    seen: dict[int, dict[str, Any]] = {}

    def evaluate(step: int, folder: Path) -> float:
        seen[step] = weights(folder)
        return headlines[step]

    config = config_of(vlm, data, evaluation={"every": 2})
    result = train_sft(config, SftTools(tmp_path, "test", evaluate=evaluate))

    assert list(seen) == [0, 2, 4]
    kept = weights(result.weights)
    assert all(torch.equal(kept[name], seen[2][name]) for name in kept)
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 2
    assert not (tmp_path / "candidate").exists()


@pytest.mark.parametrize(("step", "asked"), [(1, [0, 1, 1, 2]), (2, [0, 1, 2, 2])])
def test_an_evaluation_that_was_interrupted_is_repeated_before_any_further_step(
    vlm: Path, data: Path, tmp_path: Path, step: int, asked: list[int]
) -> None:
    from knowgen.training.sft.trainer import SftTools, train_sft

    seen: list[int] = []

    def evaluate(number: int, folder: Path) -> float:
        seen.append(number)
        if number == step and seen.count(number) == 1:
            raise KeyboardInterrupt
        return 0.1 * number

    config = config_of(vlm, data, sft={"max_steps": 2}, evaluation={"every": 1}, checkpoints={"every": 9})
    first = train_sft(config, SftTools(tmp_path, "test", evaluate=evaluate))
    assert (first.steps, first.stopped) == (step, "interrupted")
    second = train_sft(config, SftTools(tmp_path, "test", resume=True, evaluate=evaluate))
    assert (second.steps, second.stopped, seen) == (2, "", asked)
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 2


def test_a_process_that_joins_writes_nothing_and_counts_no_evaluation_again(
    vlm: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def joined(config: TrainingConfig, tools: Any) -> TrainingResult:
        assert tools.evaluate is not None and not tools.folder.exists()  # the leading process opens the directory
        return TrainingResult(1, tools.folder / "model")

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("knowgen.workflows.fine_tuning.train_sft", joined)
    config = config_of(vlm, data, evaluation={"task": "things:0", "painter": "things_painter"})
    assert not fine_tune(config, tmp_path / "run", name="test").main
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_result_answers_as_the_policy_hf(vlm: Path, data: Path, tmp_path: Path) -> None:
    import asyncio

    from knowgen.agents.policies.contract import Sampling
    from knowgen.agents.policies.hf import HfPolicy
    from knowgen.agents.records import Message
    from knowgen.core.records import image_ref

    config = config_of(vlm, data, sft={"max_steps": 60, "batch_size": 3}, checkpoints={"every": 100})
    result = fine_tune(config, tmp_path / "run", name="test")

    async def replies() -> list[str]:
        policy = HfPolicy(str(result.weights), device="cpu")
        session = policy.open(Sampling(temperature=0.0, max_new_tokens=60), "Draw the harbour 2.", "s")
        messages = [Message("system", "You search."), Message("user", "Draw the harbour 2.")]
        texts = []
        for shown in ("", "blue"):
            if shown:
                image = image_ref(data / f"{shown}.png")
                messages.append(Message("user", "<tool_response>\nIMG_001\n</tool_response>", (image,)))
            reply = await session.reply(messages)
            messages.append(Message("assistant", reply.text))
            texts.append(reply.text)
        await policy.close()
        return texts

    assert asyncio.run(replies()) == [
        '<tool_call>\n{"name": "image_search"}\n</tool_call>',
        "<think>\nIt is there.\n</think>\n<answer>blue</answer>",
    ]


def test_bfloat16_computes_with_exact_copies_of_the_trained_weights(vlm: Path, data: Path, tmp_path: Path) -> None:
    config = config_of(vlm, data, model={"dtype": "bfloat16"}, optimizer={"learning_rate": 1e-6}, sft={"max_steps": 3})
    result = fine_tune(config, tmp_path / "run", name="test")
    assert {value.dtype for value in weights(result.weights).values()} == {torch.bfloat16}
    checkpoint = weights(tmp_path / "run" / "checkpoints" / "checkpoint-3")
    name = next(name for name in checkpoint if name.endswith("layers.0.mlp.up_proj.weight"))
    assert checkpoint[name].dtype == torch.float32
    moved = (checkpoint[name] - weights(vlm)[name].bfloat16().float()).abs()
    assert (moved > 0).float().mean() > 0.9  # in bfloat16 itself a step of 1e-6 would be lost


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sft": {"conversations": []}}, UsageError, "there are no conversations to train on"),
        ({"sft": {"conversations": [{"path": "nowhere.jsonl"}]}}, UsageError, "nowhere.jsonl: there are no conv"),
        ({"sft": {"max_tokens": 3}}, DataError, "none of 6 conversations can be trained on"),
        ({"model": {"path": ""}}, UsageError, "no model is named"),
        ({"evaluation": {"task": "things:0"}}, UsageError, "evaluation.painter: names no image model"),
        ({"evaluation": {"task": "rl_tiny", "painter": "noise"}}, UsageError, "unknown task 'rl_tiny'"),
        ({"method": "grpo"}, UsageError, "use `knowgen train grpo`"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(
    vlm: Path, data: Path, tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    method = change.pop("method", "sft")
    config = config_of(vlm, data, **change).model_copy(update={"method": method})
    with pytest.raises(error, match=message):
        fine_tune(config, tmp_path / "run", name="test")


@pytest.mark.slow
def test_every_figure_of_every_step_is_logged_and_a_stop_too(vlm: Path, data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config, log = config_of(vlm, data), [f"tensorboard:{tmp_path / 'curves'}"]
    assert fine_tune(config, tmp_path / "run", name="test", report=stopped_after(2), log=log).stopped == "interrupted"
    (folder,) = (tmp_path / "curves").iterdir()
    first = EventAccumulator(str(folder)).Reload()
    assert first.Tensors("ending")[0].tensor_proto.string_val[0] == b"interrupted"
    fine_tune(config, tmp_path / "run", name="test", log=log)
    assert list((tmp_path / "curves").iterdir()) == [folder]
    events = EventAccumulator(str(folder)).Reload()
    stored = TrainingRun(tmp_path / "run").metrics()
    assert list(stored) == [1, 2, 3, 4]
    for name in stored[1]:
        logged = {each.step: each.tensor_proto.float_val[0] for each in events.Tensors(f"train/{name}")}
        assert logged == pytest.approx({step: values[name] for step, values in stored.items()}), name
