"""Trajectories of a run: exported in chat form, read back as requests and as replies, and shown in a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import knowgen
from knowgen import api
from knowgen.cli.main import run as run_command
from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import AgentAnswer, AnswerStatus, FailureCause, Sample
from knowgen.interchange.agent_answers import open_answers
from knowgen.store.run import RunStore
from knowgen.workflows.trajectories import export_trajectories
from knowgen.workflows.trajectory_text import trajectory_text
from knowgen.workflows.verify import verify
from tests.helpers.report_runs import RunMaker
from tests.helpers.trajectories import searched_answer

COUNT = 2
TIMES = {"policy_seconds", "tool_seconds", "policy_usage", "tool_usage"}


def evaluate(out: Path, policy: str, rounds: int, repeats: int = 1, **arguments: Any) -> api.Run:
    ids = [sample.id for sample in knowgen.load_task("knowgen_mini").samples()][:COUNT]
    given = {"policy": policy, "search": "world", "painter": "painter", "rounds": rounds, **arguments}
    return knowgen.evaluate(
        "knowgen_mini", "gen_searcher", "pixels", out=out, ids=ids, repeats=repeats, workers=0, generator_args=given
    )


def answers_of(path: Path) -> dict[tuple[str, int], AgentAnswer]:
    with RunStore.read(path) as store:
        return {(answer.sample_id, answer.repeat): answer for _, answer in store.answers()}


def without_times(answer: AgentAnswer) -> list[dict[str, Any]]:
    return [{name: value for name, value in step.items() if name not in TIMES} for step in answer.trajectory]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def maker(tmp_path: Path) -> RunMaker:
    """Return a builder of runs in an empty folder."""
    (tmp_path / "runs").mkdir()
    return RunMaker(tmp_path / "runs")


@pytest.fixture(scope="module", params=[(9, 2), (2, 1)], ids=["answers", "last calls"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """Return a run of the agent, its exported trajectories, and the agent's number of rounds."""
    rounds, repeats = request.param
    folder = tmp_path_factory.mktemp("exported")
    run = evaluate(folder / "run", "scripted", rounds, repeats)
    written = export_trajectories(run.path, folder / "trajectories.jsonl")
    assert (written.lines, written.left_out) == (COUNT * repeats, 0)
    return run.path, folder / "trajectories.jsonl", rounds


def test_a_line_has_the_conversation_with_images_calls_and_the_ending_and_no_score(exported: Any) -> None:
    run, file, rounds = exported
    stored = answers_of(run)
    for line in lines_of(file):
        answer = stored[line["id"], line["repeat"]]
        assert (line["ending"], line["gen_prompt"]) == (answer.ending, answer.prompt)
        roles = [message["role"] for message in line["messages"]]
        assert roles[:3] == ["system", "user", "assistant"] and line["messages"][1]["content"] == line["prompt"]
        replies = [message for message in line["messages"] if message["role"] == "assistant"]
        assert [each["content"] for each in replies] == [step["reply"] for step in answer.trajectory]
        calls = [call["name"] for each in replies for call in each.get("calls", ())]
        assert calls == [call["name"] for step in answer.trajectory for call in step["calls"]]
        shown = [part for each in line["messages"] if isinstance(each["content"], list) for part in each["content"]]
        pictures = [part for part in shown if part["type"] == "image"]
        assert [each["id"] for each in pictures] == [name for step in answer.trajectory for name in step["images"]]
        assert all((file.parent / each["image"]).is_file() and len(each["sha256"]) == 64 for each in pictures)
        assert not Path(pictures[0]["image"]).is_absolute() if pictures else rounds == 2
        if rounds == 2:
            assert roles[-2:] == ["user", "assistant"] and "FINAL STEP" in line["messages"][-2]["content"]
        assert not {"score", "scores", "reward", "values"} & set(line)


def test_requests_read_the_same_answers_from_an_export_as_from_the_run(exported: Any) -> None:
    run, file, _ = exported
    from_run, from_file = open_answers(run), open_answers(file)
    for sample_id, repeat in answers_of(run):
        first, second = (source.answer(sample_id, repeat) for source in (from_run, from_file))
        kept = {"trajectory", "system", "usage", "seconds", "reference_notes"}
        assert second.model_dump(exclude=kept) == first.model_dump(exclude=kept)
        assert second.reference_notes == first.reference_notes
        assert [each.path for each in second.references] == [each.path for each in first.references]


def test_replies_of_an_export_give_the_same_trajectories(exported: Any, tmp_path: Path) -> None:
    run, file, rounds = exported
    stored = answers_of(run)
    repeats = 1 + max(repeat for _, repeat in stored)
    again = evaluate(tmp_path / "again", f"replay:{file}", rounds, repeats)
    replayed = answers_of(again.path)
    assert replayed.keys() == stored.keys()
    for key, answer in stored.items():
        other = replayed[key]
        assert (other.ending, other.reason, other.prompt) == (answer.ending, answer.reason, answer.prompt)
        assert [each.sha256 for each in other.references] == [each.sha256 for each in answer.references]
        steps = [
            [{k: v for k, v in step.items() if k not in TIMES} for step in one.trajectory] for one in (answer, other)
        ]
        assert steps[0] == steps[1]


@pytest.mark.slow
def test_requests_of_an_export_generate_the_same_images(exported: Any, tmp_path: Path) -> None:
    run, file, _ = exported
    with RunStore.read(run) as store:
        images = {(each.sample_id, each.repeat): each.image for _, each in store.generations()}
    ids = sorted({sample_id for sample_id, _ in images})
    repeats = 1 + max(repeat for _, repeat in images)
    made = knowgen.evaluate(
        "knowgen_mini", "painter", "pixels", out=tmp_path / "made", ids=ids, repeats=repeats, workers=0, requests=file
    )
    with RunStore.read(made.path) as store:
        again = {(each.sample_id, each.repeat): each.image for _, each in store.generations()}
    assert {key: image and image.sha256 for key, image in again.items()} == {
        key: image and image.sha256 for key, image in images.items()
    }


def test_an_invalid_repeat_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"id": "a", "repeat": 0, "gen_prompt": "x"}\n{"id": "b", "repeat": "1"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"answers.jsonl:2: repeat must be a whole number >= 0, got '1'"):
        open_answers(file)
    file.write_text('{"id": "a", "repeat": 0}\n{"id": "a", "repeat": 1}\n{"id": "a", "repeat": 0}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"answers.jsonl:3: duplicate id 'a', already on line 1"):
        open_answers(file)


# -- runs without trajectories ---------------------------------------------------------------------------------------


def test_runs_without_trajectories_and_unknown_samples_are_one_clear_line(maker: RunMaker, tmp_path: Path) -> None:
    def failed(store: RunStore, sample: Sample, repeat: int) -> AgentAnswer:
        return AgentAnswer(sample_id=sample.id, status=AnswerStatus.FAILED, cause=FailureCause.INFRASTRUCTURE)

    plain = maker.run("plain", maker.samples(2), 0.5).store.path
    with pytest.raises(UsageError, match="its generator is not an agent; name a run directory whose generator"):
        export_trajectories(plain, tmp_path / "out.jsonl")
    agent = maker.run("agent", maker.samples(2), 0.5, agent=searched_answer).store.path
    with pytest.raises(UsageError, match="has no sample 'nope'"):
        export_trajectories(agent, tmp_path / "out.jsonl", ["s001", "nope"])
    with pytest.raises(UsageError, match="is a folder"):
        export_trajectories(agent, tmp_path)
    broken = maker.run("broken", maker.samples(2), 0.5, agent=failed).store.path
    with pytest.raises(DataError, match="has no trajectory to export: 2 answers failed"):
        export_trajectories(broken, tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("out*")), "no partial file is left"


# -- the terminal ----------------------------------------------------------------------------------------------------


def test_show_prints_a_few_lines_a_step_and_everything_with_full(
    maker: RunMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(maker.run("agent", maker.samples(3), 0.5, agent=searched_answer).store.path)
    assert run_command(["trajectories", "show", run, "--ids", "s001"]) == 0
    short = capsys.readouterr().out
    assert [line.strip() for line in short.splitlines() if line.startswith("  ") and line[2] != " "] == [
        "round 1: search  (policy 0.50 s, tools 0.25 s)",
        "round 2: image_search  (tools 2.00 s)",
        "last call",
        "ended: answer (3 rounds, 3 calls, 3.00 s, $0.0320)",
    ]
    for words in ("blocked: leak_blocked", "cut: 120 tokens", "images: IMG_001 Teld; IMG_002 Teld", "the stripes of"):
        assert words in short, words
    assert "was lit in 1898" not in short and "s002" not in short
    assert run_command(["trajectories", "show", run, "--full"]) == 0
    whole = capsys.readouterr().out
    assert "Teld was lit in 1898." in whole and "Answer now." in whole and "<answer>" in whole
    assert [line.split(":")[0] for line in whole.splitlines() if line.startswith("s00")] == ["s000", "s001", "s002"]


def test_text_of_a_trajectory_cannot_control_the_terminal(maker: RunMaker) -> None:
    words = "\x1b[2J\x1b]0;title\x07 \u202egnp.exe \r overwritten"
    run = maker.run("agent", maker.samples(2), 0.5)
    with RunStore.read(run.store.path) as store:
        sample = next(iter(store.samples())).model_copy(update={"prompt": words})
    step = {
        "round": 1, "thought": words, "reply": words, "observation": words, "error": words, "blocked": [words],
        "calls": [{"name": words, "arguments": {words: words}}], "finish": "stop", "instruction": words,
        "images": [words],
    }  # fmt: skip
    note = {"img_id": words, "title": words, "note": words}
    answer = AgentAnswer(
        sample_id=sample.id, ending=words, reason=words, prompt=words, trajectory=(step,), reference_notes=(note,)
    )
    for full in (False, True):
        text = trajectory_text(sample, answer, full=full)
        assert not {"\x1b", "\x07", "\u202e", "\r"} & set(text)


# -- verification ----------------------------------------------------------------------------------------------------


def test_a_changed_table_of_the_agent_is_found(exported: Any) -> None:
    table = exported[0] / "tables" / "agent.csv"
    written = table.read_text(encoding="utf-8")
    assert verify(exported[0]).ok
    try:
        table.write_text(written.replace("rounds,,", "rounds,,1"), encoding="utf-8")
        found = verify(exported[0]).findings
        assert [(each.check, each.where) for each in found] == [("tables", "tables/agent.csv")]
    finally:
        table.write_text(written, encoding="utf-8")
