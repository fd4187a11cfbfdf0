"""What keeps a judged run off a board: the judge that answered, prompts without labels, the published arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.records import AgentAnswer, Row, Sample, Usage, UsagePart
from knowgen.core.spec import AgentSpec, GeneratorSpec, PartSpec
from knowgen.leaderboards.eligibility import result_reasons, spec_reasons, system_reasons
from knowgen.leaderboards.records import BoardFile, SubmissionResult, SystemFile
from knowgen.leaderboards.submission import replies_of, result_of
from knowgen.report.view import ReportRun
from knowgen.store.run import RunStore
from tests.helpers.report_runs import JUDGE, RunMaker

FILE: dict[str, Any] = {
    "title": "Judged",
    "task": {"name": "lighthouses", "version": "1-abcdef012345"},
    "scorer": {
        "name": "vlm:tiny-judge",
        "versions": ["3"],
        "judges": ["tiny-judge-2"],
        "dimensions": list(JUDGE.dimensions),
    },
    "protocol": "strict",
    "protocol_version": "2",
    "min_coverage": 0.9,
}


def board(**changes: Any) -> BoardFile:
    return BoardFile.model_validate({**FILE, **changes})


def store_of(made: ReportRun) -> RunStore:
    assert isinstance(made.store, RunStore)
    return made.store


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReportRun]:
    """Yield a run of 12 samples that a judge has scored."""
    maker = RunMaker(tmp_path_factory.mktemp("judged"))
    maker.failing = False
    made = maker.run("duck", maker.samples(12), 0.7, scorers=(JUDGE,))
    with store_of(made):
        yield made


@pytest.fixture(scope="module")
def result(judged: ReportRun) -> SubmissionResult:
    return result_of(store_of(judged), judged.summaries[0])


def rows(judged: ReportRun, **changes: Any) -> list[Row]:
    return [row.model_copy(update=changes) for row in judged.store.rows(JUDGE.name)]


def test_a_judged_run_is_eligible(judged: ReportRun, result: SubmissionResult) -> None:
    assert result.judges == {"tiny-judge-2": 12}
    assert result.rubric == "ab12" * 16
    assert spec_reasons(board(), result.spec, name="judged") == []
    assert result_reasons(board(), result, rows(judged)) == []


def test_a_judge_that_has_moved_is_named_with_those_that_are_accepted(
    judged: ReportRun, result: SubmissionResult
) -> None:
    moved = result.model_copy(update={"judges": {"tiny-judge-3": 12}})
    assert result_reasons(board(), moved, rows(judged)) == [
        "the judge has moved: 12 scores from tiny-judge-3, the board accepts tiny-judge-2"
    ]


def test_several_judges_are_refused_although_each_is_accepted(judged: ReportRun, result: SubmissionResult) -> None:
    accepted = board(scorer={**FILE["scorer"], "judges": ["tiny-judge-1", "tiny-judge-2"]})
    mixed = result.model_copy(update={"judges": {"tiny-judge-1": 5, "tiny-judge-2": 7}})
    assert result_reasons(accepted, mixed, rows(judged)) == [
        "several judges answered: tiny-judge-1 (5), tiny-judge-2 (7); all scores of a submission must be from one"
    ]


def test_scores_without_the_name_of_their_judge_are_counted(judged: ReportRun, result: SubmissionResult) -> None:
    first = result.samples[0]
    score = first.generations[0].scores[0].model_copy(update={"judge": ""})
    generation = first.generations[0].model_copy(update={"scores": (score,)})
    samples = (first.model_copy(update={"generations": (generation,)}), *result.samples[1:])
    unnamed = result.model_copy(update={"samples": samples})
    assert result_reasons(board(), unnamed, rows(judged)) == [
        "1 score without the name of the judge that the endpoint returned"
    ]


def test_prompts_without_labels_are_refused_under_strict_and_not_under_official(
    judged: ReportRun, result: SubmissionResult
) -> None:
    unlabelled = rows(judged, text_required=None)
    (reason,) = result_reasons(board(), result, unlabelled)
    assert reason.startswith("na=per-image: the task does not say whether 12 prompts of 12 require text")
    published = board(protocol="official", protocol_version="1")
    claimed = result.model_copy(update={"protocol": "official", "protocol_version": "1"})
    assert result_reasons(published, claimed, unlabelled) == []


def test_figures_of_another_protocol_are_refused(judged: ReportRun, result: SubmissionResult) -> None:
    other = result.model_copy(update={"protocol": "official", "protocol_version": "1"})
    assert result_reasons(board(), other, rows(judged)) == [
        "another protocol: its figures are those of official 1, the board's of strict 2"
    ]


def test_the_coverage_of_the_board_is_needed_where_it_is_higher_than_that_of_the_protocol(
    judged: ReportRun, result: SubmissionResult
) -> None:
    every = rows(judged)
    lost = every[0].model_copy(
        update={"strict": every[0].strict.model_copy(update={"status": "failed", "values": {}, "na": ()})}
    )
    held = [lost, *every[1:], *(row.model_copy(update={"sample_id": f"{row.sample_id}b"}) for row in every[1:])]
    assert result_reasons(board(), result, held) == []  # 22 of 23
    (reason,) = result_reasons(board(min_coverage=1), result, held)
    assert reason.startswith("No result: 1 of 23 scores failed (at least 100 % are needed)")


def test_answers_of_an_agent_that_were_stored_elsewhere_are_refused(result: SubmissionResult) -> None:
    spec = result.spec.model_copy(update={"requests": "answers 1"})
    assert spec_reasons(board(), spec, name="judged") == [
        "the images were generated from answers of an agent that were stored elsewhere: run the agent itself"
    ]


def test_an_agent_that_receives_the_ground_truth_is_refused(result: SubmissionResult) -> None:
    spec = result.spec.model_copy(update={"agent": AgentSpec(name="oracle", privileged=True)})
    assert spec_reasons(board(), spec, name="judged") == ["oracle is privileged: it receives the ground truth"]


def test_a_system_says_what_its_run_searched(result: SubmissionResult) -> None:
    spec = result.spec.model_copy(
        update={
            "generator": GeneratorSpec(name="painter", args={"steps": 4}),
            "agent": AgentSpec(
                name="searcher", search="world@1", fallback="fail", parts={"policy": PartSpec(name="scripted")}
            ),
        }
    )
    stated = {
        "name": "Searcher", "revision": "1", "kind": "image_model", "authors": ["A"], "licence": "MIT",
        "open_weights": True, "search": False, "parameters": "8B", "training_data": "none", "contact": "a@b.org",
        "adapter": {"generator": "searcher", "arguments": {"policy": "scripted", "painter": "painter"}},
    }  # fmt: skip
    assert system_reasons(SystemFile.model_validate(stated), spec) == [
        "system.yaml: adapter.arguments.painter.steps is null, the run has painter.steps=4",
        "system.yaml: adapter.arguments.fallback is null, the run has fallback=fail",
        "system.yaml: adapter.search is '', the run has 'world@1'",
        "system.yaml: search is false, and the run searched with world@1",
        "system.yaml: kind is image_model, and the run has the agent searcher",
    ]


# --- what a result records of a run with an agent ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReportRun]:
    """Yield a run whose agent took 2.5 seconds and 0.01 dollars for each sample."""

    def answered(store: RunStore, sample: Sample, repeat: int) -> AgentAnswer:
        used = UsagePart(part="policy", calls=2, usage=Usage(input_tokens=10, output_tokens=5, cost=0.01))
        return AgentAnswer(sample_id=sample.id, repeat=repeat, ending="answer", seconds=2.5, usage=(used,))

    maker = RunMaker(tmp_path_factory.mktemp("agent"))
    maker.failing = False
    made = maker.run("searcher", maker.samples(6), 0.7, scorers=(JUDGE,), agent=answered, painter="painter")
    with store_of(made):
        yield made


def test_time_and_cost_of_an_image_include_those_of_the_agent(with_agent: ReportRun) -> None:
    result = result_of(store_of(with_agent), with_agent.summaries[0])
    stored = {each.sample_id: each for _, each in store_of(with_agent).generations()}
    for sample in result.samples:
        (generation,) = sample.generations
        assert generation.seconds == round(2.5 + stored[sample.id].seconds, 3)
        assert generation.cost == pytest.approx(0.014)
        assert generation.answer is not None
        assert generation.answer.ending == "answer"
    assert result.cost.agent == pytest.approx(0.06)
    assert result.cost.generation == pytest.approx(0.024)
    assert result.cost.scoring == 0.0
    assert result.cost.total == 0.24
    assert result.seconds == 81.0


def test_every_reply_of_the_judge_is_kept(judged: ReportRun) -> None:
    replies = list(replies_of(store_of(judged), JUDGE.name))
    assert [reply.sample for reply in replies] == [f"s{number:03d}" for number in range(12)]
    assert {reply.model for reply in replies} == {"tiny-judge-2"}
    assert all(reply.reply.startswith('{"reasoning": "') for reply in replies)
    assert {(reply.repeat, reply.judge_repeat, reply.attempt) for reply in replies} == {(0, 0, 0)}


def test_a_key_in_a_reply_is_masked(tmp_path: Path) -> None:
    maker = RunMaker(tmp_path)
    maker.failing, maker.rationale = False, "The sign says hf_" + "abcdefghij" * 3
    made = maker.run("duck", maker.samples(2), 0.7, scorers=(JUDGE,))
    with store_of(made) as store:
        texts = [reply.reply for reply in replies_of(store, JUDGE.name)]
        texts += [
            score.strict.rationale
            for sample in result_of(store, made.summaries[0]).samples
            for score in sample.generations[0].scores
        ]
    assert all("abcdefghij" not in text and "[key]" in text for text in texts)
