"""A training from its configuration to its directory: checks before it, its record, its stops, and going on with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from knowgen.cli.main import run as command_line
from knowgen.core.errors import ConfigError, KnowgenError, ServiceUnavailableError, UsageError
from knowgen.core.records import Sample
from knowgen.store.training_ledger import TrainingLedger
from knowgen.store.training_run import EpisodeRecord, TrainingRun
from knowgen.tasks.in_memory import InMemoryTask
from knowgen.training.config import PromptSource, load_config
from knowgen.workflows import checkpoint_evaluation
from knowgen.workflows.checkpoint_evaluation import FittingTask, fitting_task
from knowgen.workflows.training import GrpoTraining, train_grpo
from knowgen.workflows.training_plan import TrainingPlan, plan_training
from tests.helpers.judge_server import Call, JudgeServer, Script, Step
from tests.helpers.scripted_backend import ScriptedBackend

CONFIG = """
method: grpo
backend: tests.helpers.scripted_backend:ScriptedBackend
model: {path: "mini:0"}
agent: {prompt: short, tools: image_search, tool_calls: 1, date: "2026-01-01"}
grpo:
  prompts: [{task: "things:0", limit: 6}]
  max_steps: 2
  rollout: {prompts: 2, group: 2, max_prompt_tokens: 64, max_completion_tokens: 400, max_new_tokens: 32}
  reward: {text_weight: 1.0, text: "answer:any"}
  services: {tries: 2}
"""


def verdict(value: float = 1.0) -> str:
    return json.dumps({"rationale": "As scripted.", "answer": value})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "training.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer(lambda call: Step(reply=verdict())) as running:
        yield running


def planned(file: Path, *values: str, judge: JudgeServer | None = None) -> TrainingPlan:
    own = [] if judge is None else [f"grpo.reward.text_args={{base_url: '{judge.url}'}}"]
    return plan_training(load_config(file, [*own, *values]), "training")


class Training:
    """Trainings of one configuration in one directory, with the judge's script."""

    def __init__(self, file: Path, folder: Path) -> None:
        self.file, self.folder = file, folder
        self.lines: list[str] = []
        self.run = TrainingRun(folder)

    def call(self, script: Script, *values: str, fresh: bool = False) -> GrpoTraining:
        with JudgeServer(script) as server:
            plan = planned(self.file, *values, judge=server)
            return train_grpo(plan, self.folder, fresh=fresh, show=self.lines.append)

    def episodes(self, step: int) -> list[EpisodeRecord]:
        return list(self.run.episodes(step))


@pytest.fixture
def training(file: Path, tmp_path: Path) -> Training:
    return Training(file, tmp_path / "out")


def always(value: float = 1.0) -> Callable[[Call], Step]:
    return lambda call: Step(reply=verdict(value))


# ---------------------------------------------------------------------------------------- checks before a training


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (["model.path=''"], "model.path: names no model; add model.path=FOLDER, such as that of fine-tuning"),
        (["backend=trlx"], "backend 'trlx': is not known; name one of trl, verl, or module:Class"),
        (["backend=nowhere:Class"], "backend 'nowhere:Class': needs the module 'nowhere', which is not installed"),
        (["grpo.prompts=[]"], "grpo.prompts: names no prompts; write prompts: [{task: NAME}]"),
        (["grpo.prompts=[{task: thigns:0}]"], "unknown task 'thigns:0'; did you mean 'things'?"),
        (["grpo.reward.text=''"], "grpo.reward.text: names no scorer of the answer"),
        (["grpo.reward.text=answr:x"], "unknown scorer 'answr:x'; did you mean 'answer'?"),
        (["grpo.reward.text=things_check"], "scorer 'things_check': needs an image, and an answer has none"),
        (["grpo.reward.text_weight=0.5"], "grpo.painter.name: names no image model"),
        (["grpo.reward.text_weight=0", "grpo.reward.image=answer:x"], "scorer 'answer:x': does not look at the image"),
        (["grpo.reward.text_weight=0", "grpo.painter.name=noise"], "noise takes no reference images"),
        (["grpo.reward.text_weight=0", "grpo.painter={name: noise, urls: ['http://a:1']}"], "are those of `http`"),
        (["agent.search=wikipedia"], "unknown search backend 'wikipedia'"),
        (["agent.rounds=-1"], "rounds"),
        (["evaluation.task=things:0", "grpo.painter.name=things_painter"], "in epoch 1, on which it is evaluated"),
        (["evaluation.task=things", "grpo.painter.name=things_painter"], "in epoch 1, on which it is evaluated"),
        (["evaluation.task=things:1"], "evaluation.painter: names no image model"),
        (["grpo.services.budget=1", "grpo.reward.text_args={base_url: 'http://example.org/v1'}"], "price of its calls"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_before_anything_is_loaded(file: Path, values: list[str], line: str) -> None:
    with pytest.raises(KnowgenError) as caught:
        planned(file, *values)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_prompts_without_what_the_reward_needs_are_refused(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bare.py").write_text(
        "from knowgen.plugin import InMemoryTask, Sample\n"
        "def bare(): return InMemoryTask('bare', [Sample(id='1', prompt='a'), Sample(id='2', prompt='b')])\n"
    )
    monkeypatch.chdir(tmp_path)
    values = ["grpo.prompts=[{task: bare.py:bare}]", "grpo.reward.text=world_answer"]
    with pytest.raises(ConfigError, match=r"^grpo.reward.text: world_answer needs subjects, which no ground truth"):
        planned(file, *values, "agent.search=things:0")
    with pytest.raises(UsageError, match=r"^agent.search: the agent needs a search .* bare has none; add agent.search"):
        planned(file, *values)


def test_what_stands_in_the_way_of_the_backend_is_one_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedBackend, "problems", ("the GPU is missing", "and no disk"))
    with pytest.raises(ConfigError, match="the GPU is missing"):
        planned(file)


def test_a_training_of_another_method_names_its_command(file: Path) -> None:
    with pytest.raises(UsageError, match="the method is sft; use `knowgen train sft`"):
        plan_training(load_config("sft/paper"), "sft/paper")


def test_the_number_of_steps_follows_from_epochs_or_is_given(file: Path) -> None:
    assert planned(file).steps == 2
    assert planned(file, "grpo.max_steps=null", "grpo.epochs=3").steps == 9


# ---------------------------------------------------------------------------------------- what a training writes


def test_each_step_has_its_figures_its_episodes_and_a_line(training: Training) -> None:
    trained = training.call(lambda call: Step(reply=verdict(1.0 if call.number % 2 else 0.5)))
    assert trained.result.steps == 2 and not trained.result.stopped
    description = training.run.description()
    assert description["method"] == "grpo" and description["model"] == "mini:0" and description["steps"] == 2
    assert description["config"]["grpo"]["max_steps"] == 2 and list(description["tasks"]) == ["things:0"]
    first, second = training.run.metrics().values()
    assert first["reward"] == first["reward_text"] == 0.75 and first["reward_std"] == pytest.approx(0.25)
    assert (first["masked"], first["ending/answer"], first["searched"], first["calls"]) == (0, 1, 1, 1)
    assert first["references"] >= 1 and first["images_seen"] >= 1 and second["cost"] == 0
    assert first["share/agent"] + first["share/text_reward"] + first["share/train"] == pytest.approx(1)
    episodes = training.episodes(1)
    assert [each.number for each in episodes] == [0, 1, 0, 1] and len({each.key for each in episodes}) == 2
    for each in episodes:
        assert each.answer is not None and each.answer.status == "ok"
        assert each.text == each.reward in (0.5, 1.0)
        for image in (*each.answer.images, *each.answer.references):
            assert training.run.images.path(image).is_file(), "the report shows it"
        assert each.scores[0].attempts[0].reply
    assert [line.split("  ")[:3] for line in training.lines] == [
        ["step 1/2", "reward 0.750 ± 0.250", "answers 100 %"], ["step 2/2", "reward 0.750 ± 0.250", "answers 100 %"],
    ]  # fmt: skip


def test_images_are_generated_scored_and_kept(training: Training) -> None:
    def judge(call: Call) -> Step:
        grades = {"rationale": "x", "faithfulness": 1, "visual_correctness": 0.5, "text_accuracy": None}
        return Step(reply=json.dumps({**grades, "aesthetics": 1, "text_accuracy_na": True}))

    with JudgeServer(judge) as images:
        training.call(
            always(), "grpo.reward.text_weight=0.5", "grpo.painter.name=things_painter", "grpo.max_steps=1",
            "grpo.reward.image=vlm:any", f"grpo.reward.image_args={{base_url: '{images.url}'}}",
        )  # fmt: skip
    for each in training.episodes(1):
        assert each.generation is not None and each.generation.image is not None
        assert training.run.images.path(each.generation.image).is_file()
        assert each.image == pytest.approx(0.1 + 0.2 + 0.2 + 0.1) and each.reward == pytest.approx(0.8)
        assert "path" not in each.generation.references[0]
        assert {"agent", "image", "image_reward", "text_reward"} == set(each.seconds)


def test_a_judge_outage_is_counted_and_shown(training: Training) -> None:
    broken: set[str] = set()

    def judge(call: Call) -> Step:
        if not broken:
            broken.add(call.sample_id)
        return Step(status=500) if call.sample_id in broken else Step(reply=verdict())

    training.call(judge)
    for step in (1, 2):
        episodes, figures = training.episodes(step), training.run.metrics()[step]
        masked = [each for each in episodes if each.masked]
        assert figures["masked"] == len(masked) / 4
        assert all(each.reward is None and "answer:any" in each.masked for each in masked)
    assert sum(bool(each.masked) for each in training.episodes(1)) == 2
    assert "  masked 2 of 4 (answer:any: " in training.lines[0]


def test_episodes_are_not_kept_where_that_is_not_wanted(training: Training) -> None:
    training.call(always(), "keep_episodes=false", "grpo.max_steps=1")
    assert not training.run.episode_steps() and training.run.metrics()[1]["reward"] == 1.0


# ---------------------------------------------------------------------------------------- stops, and going on


def test_a_second_call_goes_on_and_a_complete_training_is_not_repeated(training: Training) -> None:
    training.call(always(), "grpo.max_steps=1")
    before = training.run.episodes_file(1).read_bytes()
    trained = training.call(always(0.5), "grpo.max_steps=3", "grpo.services.tries=3")
    assert trained.result.steps == 3 and [line[:8] for line in training.lines] == ["step 1/1", "step 2/3", "step 3/3"]
    assert training.run.episodes_file(1).read_bytes() == before
    assert trained.rewards == {1: 1.0, 2: 0.5, 3: 0.5}
    training.call(always(), "grpo.max_steps=3")
    assert len(training.lines) == 3


def test_a_further_process_writes_no_figures_and_spends_its_share(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    price = "grpo.reward.text_args.price_call=0.1"
    training.call(always(), price, "grpo.services.budget=2", "grpo.max_steps=1")
    written = {
        path: path.read_bytes() for path in (training.folder / "training.json", training.folder / "metrics.jsonl")
    }
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    calls: list[Call] = []

    def judge(call: Call) -> Step:
        calls.append(call)
        return Step(reply=verdict())

    monkeypatch.setattr(ScriptedBackend, "logs", False)
    trained = training.call(judge, price, "grpo.services.budget=2", "grpo.max_steps=9")
    assert not trained.leads
    assert trained.result.stopped == "budget" and len(calls) == 8, "half of what the first process left"
    assert {path: path.read_bytes() for path in written} == written and len(training.lines) == 1
    ledger = TrainingLedger(training.folder)
    assert [ledger.spent(), ledger.total()] == pytest.approx([0.4, 1.2])
    ledger.close()


def test_another_training_is_refused_and_fresh_starts_again(training: Training, tmp_path: Path) -> None:
    training.call(always(), "grpo.max_steps=1")
    with pytest.raises(ConfigError, match=r"the training began with optimizer.learning_rate=1e-06, not 0.001; choose"):
        training.call(always(), "optimizer.learning_rate=1e-3")
    with pytest.raises(ConfigError, match=r"the training began with optimizer.schedule='constant', not 'cosine'"):
        training.call(always(), "grpo.max_steps=9", "optimizer.schedule=cosine")
    training.call(always(), "optimizer.learning_rate=1e-3", "grpo.max_steps=1", fresh=True)
    assert training.run.description()["config"]["optimizer"]["learning_rate"] == 1e-3
    assert list(training.run.metrics()) == [1]
    other = Training(training.file, tmp_path / "other")
    other.folder.mkdir()
    (other.folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds files and is not the directory of a training"):
        other.call(always(), fresh=True)
    assert [path.name for path in other.folder.iterdir()] == ["notes.txt"]


def test_a_training_that_failed_before_its_first_step_may_be_corrected(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(ScriptedBackend, "train", lambda self, tools: _missing_model())
        with pytest.raises(ConfigError, match="no such model"):
            training.call(always(), "model.path=typo")
    assert {path.name for path in training.folder.iterdir()} >= {"spending.sqlite", "training.json"}
    assert training.call(always(), "grpo.max_steps=1").result.steps == 1
    assert training.run.description()["config"]["model"]["path"] == "mini:0"


def _missing_model() -> NoReturn:
    raise ConfigError("no such model")


def test_a_directory_that_cannot_be_made_is_one_line(training: Training, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"cannot be written \(.*\); fix its permissions or choose another --out"):
            Training(training.file, folder).call(always())


@pytest.mark.parametrize(
    ("values", "task", "painter"),
    [
        ([], "things:1", "things_painter"),
        (["grpo.prompts=[{task: things:6:0}, {task: things:1}]"], "things:6:3", "things_painter"),
        (["grpo.prompts=[{task: things:0, fresh_seed: true}]"], "things:10001", "things_painter"),
        (["grpo.prompts=[{task: knowgen_mini}]"], "knowgen_mini", "painter"),
        (["evaluation.task=things:5:7", "evaluation.painter=noise"], "things:5:7", "things_painter"),
    ],
)
def test_weights_are_evaluated_on_what_was_not_trained_on(
    file: Path, values: list[str], task: str, painter: str
) -> None:
    plan = planned(file, *values)
    assert fitting_task(plan.config, plan.grpo.prompts, plan.prompts.tasks()) == FittingTask(task, painter)


def test_weights_of_prompts_without_a_search_are_evaluated_on_the_benchmark(file: Path) -> None:
    config = planned(file, "agent.search=things:0").config
    task = InMemoryTask("bare", [Sample(id="1", prompt="p")])
    assert fitting_task(config, [PromptSource(task="bare")], [task]) == FittingTask("knowgen", "painter")


def test_a_service_that_takes_no_calls_ends_before_a_model_is_loaded(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedBackend, "policy", lambda self: pytest.fail("the backend was started"))
    plan = planned(file, "grpo.reward.text_args={base_url: 'http://127.0.0.1:9/v1'}", "grpo.services.patience=0.1")
    with pytest.raises(ServiceUnavailableError, match="gave no answer"):
        train_grpo(plan, tmp_path / "out")


def test_an_account_that_is_rejected_ends_the_training_with_its_line(training: Training) -> None:
    trained = training.call(lambda call: Step(status=401))
    assert "401" in trained.result.stopped and trained.result.steps == 0


def test_spending_of_earlier_calls_and_evaluations_counts_and_the_budget_is_kept(training: Training) -> None:
    price = "grpo.reward.text_args.price_call=0.1"
    first = training.call(always(), price, "grpo.services.budget=1", "grpo.max_steps=1")
    assert not first.result.stopped and training.run.metrics()[1]["cost_total"] == pytest.approx(0.4)
    second = training.call(always(), price, "grpo.services.budget=0.65", "grpo.max_steps=3")
    assert second.result.stopped == "budget" and second.result.steps == 1
    ledger = TrainingLedger(training.folder)
    assert 0.4 < ledger.total() <= 0.65
    ledger.record("evaluation 000001", 0.2)
    ledger.record("evaluation 000001", 0.2)
    spent = ledger.total()
    ledger.close()
    other = TrainingLedger(training.folder, process=1)
    assert other.spent() == 0 and other.total() == pytest.approx(spent) and 0.6 < spent < 0.9
    other.close()


# ---------------------------------------------------------------------------------------- evaluation


def test_weights_are_evaluated_by_a_run_whose_headline_is_a_figure(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = checkpoint_evaluation.agent_arguments
    seen: list[str] = []

    def by_rules(config: Any, weights: Path) -> dict[str, Any]:
        seen.append(own(config, weights)["policy"])
        return {**own(config, weights), "policy": "things_teacher", "policy.look": 1.0, "policy.right": 1.0}

    monkeypatch.setattr(checkpoint_evaluation, "agent_arguments", by_rules)
    with JudgeServer(always()) as judge:
        trained = training.call(
            always(), "evaluation.task=things:3:1", "evaluation.every=2", "evaluation.painter=things_painter",
            "evaluation.scorers=['answer:any']", f"grpo.reward.image_args={{base_url: '{judge.url}'}}",
            "grpo.reward.image='answer:any'",
        )  # fmt: skip
    assert trained.headlines == {0: 1.0, 2: 1.0} and set(seen) == {f"hf:{training.folder / 'model'}"}
    assert (training.run.evaluation(2) / "summary.json").is_file()
    assert "step 0  answer:any on things:3:1: 1.000" in training.lines


def test_an_evaluation_of_weights_that_are_gone_gives_way_to_one_of_those_there_are(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed training comes to the step once more, from a checkpoint before it, with other weights."""
    own = checkpoint_evaluation.agent_arguments
    rights = iter([1.0, 1.0, 0.5])
    evaluated = checkpoint_evaluation.CheckpointEvaluation

    def by_rules(config: Any, weights: Path) -> dict[str, Any]:
        return {**own(config, weights), "policy": "things_teacher", "policy.look": 1.0, "policy.right": next(rights)}

    monkeypatch.setattr(checkpoint_evaluation, "agent_arguments", by_rules)
    with JudgeServer(always()) as judge:
        values = [
            "evaluation.task=things:3:1", "evaluation.painter=things_painter", "evaluation.scorers=['answer:any']",
            "grpo.services.budget=2", "grpo.reward.image='answer:any'",
            f"grpo.reward.image_args={{base_url: '{judge.url}', price_call: 0.3}}",
        ]  # fmt: skip
        config = planned(training.file, *values, judge=judge).config
        ledger = TrainingLedger(training.folder)
        evaluate = evaluated(config, training.run, ledger, training.lines.append)
        evaluate.share = 0.65
        evaluate(2, training.folder / "model")
        assert ledger.total() == pytest.approx(0.6)  # two of three samples
        evaluate = evaluated(config, training.run, ledger, training.lines.append)
        assert evaluate(2, training.folder / "model") == 1.0 and ledger.total() == pytest.approx(0.9)
        evaluate.share = None
        assert evaluate(2, training.folder / "model") == 1.0 and ledger.total() == pytest.approx(1.8)
        assert training.lines[-2].startswith("step 2  in place of an evaluation of weights that are gone")
        ledger.close()


def test_the_leading_process_evaluates_with_its_share_of_the_budget(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other processes may spend the rest at the same time."""
    budgets: list[float | None] = []

    def noted(planned: Any, folder: Path) -> Any:
        budgets.append(planned.config.budget)
        raise KnowgenError("not run")

    monkeypatch.setattr(checkpoint_evaluation, "execute", noted)
    monkeypatch.setenv("WORLD_SIZE", "4")
    values = ["evaluation.task=things:3:1", "evaluation.painter=things_painter", "evaluation.scorers=['world_answer']"]
    values += ["grpo.services.budget=8", "grpo.reward.text_args.price_call=0.1"]
    with pytest.raises(KnowgenError, match="not run"):
        training.call(always(), *values)
    assert budgets == [2.0]
    ledger, other = (TrainingLedger(training.folder, process) for process in (0, 1))
    other.record("of a process whose share was larger", 7.0)
    config = planned(training.file, *values).config
    with pytest.raises(KnowgenError, match="not run"):
        checkpoint_evaluation.CheckpointEvaluation(config, training.run, ledger, training.lines.append)(0, Path())
    assert budgets == [2.0, 1.0]
    ledger.close()
    other.close()


def test_the_number_of_steps_may_change_only_where_the_learning_rate_does_not_follow_it(training: Training) -> None:
    training.call(always(), "grpo.max_steps=1", "optimizer.warmup_ratio=0.5")
    with pytest.raises(ConfigError, match=r"the training began with grpo\.max_steps=1, not 2"):
        training.call(always(), "grpo.max_steps=2", "optimizer.warmup_ratio=0.5")


def test_an_evaluation_that_cannot_be_run_ends_only_a_training_that_has_not_begun(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(config: Any, weights: Path) -> dict[str, Any]:
        return {"policy": "nowhere", "painter": "things_painter"}

    monkeypatch.setattr(checkpoint_evaluation, "agent_arguments", missing)
    values = ["evaluation.task=things:3:1", "evaluation.every=2", "evaluation.painter=things_painter"]
    with pytest.raises(UsageError, match="unknown policy 'nowhere'"):
        training.call(always(), *values)


# ---------------------------------------------------------------------------------------- commands


def test_the_command_prints_figures_and_how_to_go_on(
    file: Path, tmp_path: Path, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["train", "grpo", "--config", str(file), f"grpo.reward.text_args={{base_url: '{server.url}'}}"]
    assert command_line([*words, "-o", str(out)]) == 0
    printed = capsys.readouterr()
    assert "step 2/2  reward 1.000 ± 0.000  answers 100 %" in printed.err
    lines = dict(line.split(maxsplit=1) for line in printed.out.splitlines())
    assert lines["steps"] == "2" and lines["reward"] == "1.000 at first, 1.000 at last"
    assert lines["model"] == str(out / "model")
    assert f"-g policy=hf:{out / 'model'}" in lines["evaluate"] and "--generator gen_searcher" in lines["evaluate"]
    assert "--task things:1 " in lines["evaluate"] and "-g painter=things_painter" in lines["evaluate"]
    assert lines["resume"].endswith(f"-o {out}") and lines["report"].endswith(f"report {out} -o {out / 'report'}")
    assert command_line([*words[:-1], "-o", str(tmp_path / "x"), "grpo.reward.text=answr"]) == 2
    assert capsys.readouterr().err == "knowgen: unknown scorer 'answr'; did you mean 'answer'?\n"


@pytest.mark.parametrize(("values", "code"), [(["grpo.services.budget=0.05"], 5), ([], 0)])
def test_exit_codes(file: Path, tmp_path: Path, server: JudgeServer, values: list[str], code: int) -> None:
    arguments = f"grpo.reward.text_args={{base_url: '{server.url}', price_call: 0.1}}"
    words = ["train", "grpo", "--config", str(file), arguments, "grpo.max_steps=1", *values, "-o", str(tmp_path / "o")]
    assert command_line(words) == code
