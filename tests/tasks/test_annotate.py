"""Text labels: which prompts are sent to the judge, what is frozen, and what repeated annotations do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import BudgetReachedError, ConfigError, DataError, TransientError, UsageError
from knowgen.tasks.folder import FolderTask
from knowgen.tasks.load import load_task
from knowgen.tasks.text_labels.annotate import AnnotationOutcome, annotate
from knowgen.tasks.text_labels.question import QUESTION_VERSION, read_answer
from knowgen.validation.task import check_task
from tests.helpers.archive_data import Command
from tests.helpers.judge_server import Call, JudgeServer, Step
from tests.helpers.processes import wait_until

PROMPTS = {
    "a": "A poster with the title HELLO",
    "b": "A heron in the mist",
    "c": "A sign that says OPEN",
    "d": "An old bridge",
    "e": "A heron in the mist",
}
EXPECTED = {"a": True, "b": False, "c": True, "d": False, "e": False}
FREE = {"price_call": 0}


def reply(required: object, reason: object = "because") -> str:
    return json.dumps({"reason": reason, "text_required": required})


def prompt_of(call: Call) -> str:
    return call.text.split("-----")[1].strip("\n")


def correct(call: Call) -> Step:
    words = prompt_of(call)
    return Step(reply=reply("HELLO" in words or "OPEN" in words))


@pytest.fixture
def folder(home: Path, tmp_path: Path) -> Path:
    place = tmp_path / "task"
    place.mkdir()
    (place / "task.yaml").write_text("name: five\nversion: '2'\n")
    rows = [{"id": name, "prompt": prompt} for name, prompt in PROMPTS.items()]
    (place / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "truth.jsonl").write_text("".join(json.dumps({"sample_id": name}) + "\n" for name in PROMPTS))
    return place


async def no_wait(seconds: float) -> None:
    """Return at once instead of sleeping."""
    assert seconds >= 0


def run_annotation(folder: Path, server: JudgeServer, **more: Any) -> AnnotationOutcome:
    args = {"base_url": server.url, **FREE, **more.pop("args", {})}
    return annotate(str(folder), "vlm:reader", args, wait=no_wait, **more)


def frozen_file(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "text_required.json").read_text())
    return result


def labels(folder: Path) -> dict[str, bool | None]:
    return {sample.id: sample.text_required for sample in FolderTask(folder).samples()}


# ------------------------------------------------------------------------------------------------ asking and freezing


def test_every_prompt_is_labelled_once_and_the_answers_are_frozen(folder: Path) -> None:
    before = FolderTask(folder).version
    with JudgeServer(correct) as server:
        outcome = run_annotation(folder, server)
    assert Counter(map(prompt_of, server.calls)) == dict.fromkeys(PROMPTS.values(), 1), "one question for equal prompts"
    assert outcome.fresh and outcome.frozen is not None and not outcome.failures
    assert labels(folder) == EXPECTED
    assert {name: FolderTask(folder).truth(name).text_required for name in PROMPTS} == EXPECTED
    assert outcome.task.version == FolderTask(folder).version != before
    result = frozen_file(folder)
    assert (result["judge_asked"], result["judge_returned"]) == ("vlm:reader", ["judge-2026-01-01"])
    assert result["rubric"] == QUESTION_VERSION and result["created"].endswith("+00:00")
    assert result["answers"]["a"]["required"] is True
    assert result["answers"]["a"]["attempts"] == [reply(True)]
    assert (
        "required in 2 of 5" in next(each for each in check_task(load_task(str(folder))) if each.check == "text").what
    )


def test_the_judge_gets_text_only(folder: Path) -> None:
    with JudgeServer(correct) as server:
        run_annotation(folder, server)
    for call in server.calls:
        assert "image" not in json.dumps(call.body["messages"][1])
        assert [part["type"] for part in call.parts] == ["text"]
        assert call.body["temperature"] == 0
        assert "one JSON object" in call.system


def test_a_second_annotation_makes_no_call(folder: Path) -> None:
    with JudgeServer(correct) as server:
        first = run_annotation(folder, server)
        calls = len(server.calls)
        second = run_annotation(folder, server)
    assert len(server.calls) == calls and not second.fresh and second.frozen == first.frozen


def test_the_version_follows_the_answers(folder: Path) -> None:
    versions = {FolderTask(folder).version}
    with JudgeServer(correct) as server:
        versions.add(run_annotation(folder, server).task.version)
    result = frozen_file(folder)
    result["answers"]["b"]["required"] = True
    (folder / "text_required.json").write_text(json.dumps(result))
    versions.add(FolderTask(folder).version)
    assert len(versions) == 3 and labels(folder)["b"] is True


def test_invalid_replies_are_retried_with_the_problem(folder: Path) -> None:
    bad = [reply("yes"), "Sure! It is true.", json.dumps({"text_required": True})]
    seen: Counter[str] = Counter()

    def script(call: Call) -> Step:
        words = prompt_of(call)
        seen[words] += 1
        return Step(reply=bad[seen[words] - 1]) if words == PROMPTS["a"] and seen[words] <= 3 else correct(call)

    with JudgeServer(script) as server:
        run_annotation(folder, server)
    assert labels(folder) == EXPECTED
    assert frozen_file(folder)["answers"]["a"]["attempts"] == [*bad, reply(True)]
    texts = [call.text for call in server.calls if prompt_of(call) == PROMPTS["a"]]
    assert "could not be used" not in texts[0]
    assert '"text_required" must be true or false' in texts[1]
    assert "is not one JSON object" in texts[2] and '"reason" must be a string' in texts[3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (reply(True), True),
        (f"```json\n{reply(False)}\n```", False),
        (json.dumps({"reason": "", "text_required": False, "sure": 1}), False),
        (f"Here: {reply(True)}", None),
        (reply("true"), None),
        (reply(1), None),
        (reply(None), None),
        (reply(True, reason=None), None),
        ('{"reason": "", "text_required": true, "text_required": false}', None),
        ("[true]", None),
        ("true", None),
        ("", None),
        ("```\n```", None),
        ("[" * 100_000, None),
    ],
)
def test_only_an_answer_that_matches_the_schema_is_parsed(text: str, expected: bool | None) -> None:
    result, fault = read_answer(text)
    assert result is expected and bool(fault) is (expected is None)


# ------------------------------------------------------------------------------------------------- what is not labelled


def test_nothing_is_frozen_until_all_prompts_have_an_answer(folder: Path) -> None:
    with JudgeServer(lambda call: Step(reply="no") if prompt_of(call) == PROMPTS["d"] else correct(call)) as server:
        outcome = run_annotation(folder, server)
        assert outcome.frozen is None and [name for name, _ in outcome.failures] == ["d"]
        assert "4 replies did not match the schema" in outcome.failures[0][1]
        assert not (folder / "text_required.json").exists()
        assert set(labels(folder).values()) == {None}
        server.script, before = correct, len(server.calls)
        outcome = run_annotation(folder, server)
    assert [prompt_of(call) for call in server.calls[before:]] == [PROMPTS["d"]]
    assert outcome.fresh and labels(folder) == EXPECTED
    assert frozen_file(folder)["answers"]["d"]["attempts"] == ["no"] * 4 + [reply(False)]


@pytest.mark.parametrize("content", [None, reply(True)])
def test_a_refusal_is_a_failure_with_its_reason(folder: Path, content: str | None) -> None:
    step = Step(reply=content, refusal="I would rather not")
    with JudgeServer(lambda call: step if prompt_of(call) == PROMPTS["c"] else correct(call)) as server:
        outcome = run_annotation(folder, server)
    assert [(name, "I would rather not" in why) for name, why in outcome.failures] == [("c", True)]
    assert len(server.calls) == len(set(PROMPTS.values()))  # a refusal is not retried


def test_incomplete_usage_leaves_the_reservation_spent(folder: Path) -> None:
    def script(call: Call) -> Step:
        message = {"role": "assistant", "content": correct(call).reply}
        usage = {"prompt_tokens": 400, "completion_tokens": "2000"}
        chat = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
        return Step(body=json.dumps(chat).encode(), tokens=(400, 2000))

    prices = {"price_call": None, "price_in": 1.0, "price_out": 10.0, "concurrency": 1}
    with JudgeServer(script, price=(1.0, 10.0)) as server:
        with pytest.raises(BudgetReachedError):
            run_annotation(folder, server, budget=0.06, args=prices)
        assert 0 < server.spent <= 0.06 and len(server.calls) == 2


def test_transient_errors_are_retried(folder: Path) -> None:
    seen: Counter[str] = Counter()

    def script(call: Call) -> Step:
        seen[prompt_of(call)] += 1
        return Step(status=503, headers={"Retry-After": "0"}) if seen[prompt_of(call)] == 1 else correct(call)

    with JudgeServer(script) as server:
        assert run_annotation(folder, server).fresh
    assert labels(folder) == EXPECTED


def test_a_judge_that_rejects_every_call_stops_the_annotation_at_once(folder: Path) -> None:
    with JudgeServer([Step(status=401, error="no such key")]) as server:
        with pytest.raises(ConfigError, match="vlm:reader: rejected: .*no such key"):
            run_annotation(folder, server, args={"concurrency": 1})
        assert len(server.calls) <= 2


def test_a_rejected_prompt_does_not_affect_the_others(folder: Path) -> None:
    step = Step(status=400, code="content_filter", error="this prompt is not allowed")
    with JudgeServer(lambda call: step if prompt_of(call) == PROMPTS["c"] else correct(call)) as server:
        outcome = run_annotation(folder, server, args={"concurrency": 1})
    assert [(name, "this prompt is not allowed" in why) for name, why in outcome.failures] == [("c", True)]
    assert {prompt_of(call) for call in server.calls} == set(PROMPTS.values())


def test_an_unreachable_judge_stops_the_annotation(folder: Path) -> None:
    args = {"base_url": "http://127.0.0.1:9/v1", "concurrency": 1, **FREE}
    with pytest.raises(TransientError, match="cannot be reached.*try again later"):
        annotate(str(folder), "vlm:reader", args, tries=1, wait=no_wait)


def test_tasks_and_judges_that_cannot_be_used_are_refused(folder: Path, home: Path) -> None:
    with pytest.raises(UsageError, match="knowgen_mini: sets text_required for every sample"):
        annotate("knowgen_mini", "vlm:reader", {})
    with pytest.raises(UsageError, match="has no chat endpoint"):
        annotate(str(folder), "pixels", {})
    with pytest.raises(DataError, match="is not prepared on this machine"):
        annotate("knowgen", "vlm:reader", {})


# --------------------------------------------------------------------------------------------------- annotating again


def test_force_labels_again_and_old_labels_stay_in_use_until_then(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", str(folder.parent / "cache"))
    with JudgeServer(correct) as server:
        first = run_annotation(folder, server).task.version
        server.script = lambda call: Step(reply="no") if prompt_of(call) == PROMPTS["d"] else Step(reply=reply(True))
        half = run_annotation(folder, server, force=True)
        assert half.frozen is None and labels(folder) == EXPECTED, "the old labels are still in use"
        server.script = lambda call: Step(reply=reply(True))
        calls = len(server.calls)
        second = run_annotation(folder, server)
        assert len(server.calls) == calls + 1, "the unfinished annotation is continued"
    assert second.fresh and set(labels(folder).values()) == {True}
    assert second.task.version != first


def test_answers_to_other_prompts_are_never_used(folder: Path) -> None:
    with JudgeServer(correct) as server:
        run_annotation(folder, server)
        samples = folder / "samples.jsonl"
        samples.write_text(samples.read_text().replace("An old bridge", "A bridge that says OPEN"))
        with pytest.raises(DataError, match="the label of sample 'd' is for another prompt"):
            list(FolderTask(folder).samples())
        calls = len(server.calls)
        run_annotation(folder, server)
        assert [prompt_of(call) for call in server.calls[calls:]] == ["A bridge that says OPEN"]
    assert labels(folder) == {**EXPECTED, "d": True}


def test_an_invalid_label_file_is_reported_with_its_fix(folder: Path) -> None:
    (folder / "text_required.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match=r"text_required\.json: judge_asked: .*knowgen task annotate NAME --force"):
        list(FolderTask(folder).samples())
    with JudgeServer(correct) as server:
        assert run_annotation(folder, server, force=True).fresh
    assert labels(folder) == EXPECTED


def test_a_value_set_by_the_task_takes_precedence(folder: Path) -> None:
    samples = folder / "samples.jsonl"
    samples.write_text(samples.read_text().replace('"id": "a"', '"text_required": false, "id": "a"'))
    with JudgeServer(correct) as server:
        run_annotation(folder, server)
        assert PROMPTS["a"] not in set(map(prompt_of, server.calls))
    assert labels(folder) == {**EXPECTED, "a": False}


def test_a_killed_annotation_is_continued(folder: Path, tmp_path: Path) -> None:
    many = {f"s{number}": f"Prompt {number}" for number in range(40)}
    rows = [{"id": name, "prompt": prompt} for name, prompt in many.items()]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def slow(call: Call) -> Step:
        return Step(reply=reply(False), delay=0.0 if call.number < 15 else 60.0)

    with JudgeServer(slow) as server:
        words = ["task", "annotate", str(folder), "--judge", "vlm:reader", "-s", f"base_url={server.url}"]
        process = subprocess.Popen([sys.executable, "-m", "knowgen", *words, "-s", "price_call=0"])
        journal = folder / "text_required.journal.jsonl"
        wait_until(lambda: journal.exists() and journal.read_text().count('"answer"') == 15)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with journal.open("a") as file:
            file.write('{"event": "answer", "sam')
        server.script = lambda call: Step(reply=reply(False))
        before = len(server.calls)
        assert run_annotation(folder, server).fresh
        assert len(server.calls) - before == 25
    assert set(labels(folder).values()) == {False} and len(labels(folder)) == 40


def test_two_concurrent_annotations_are_refused(folder: Path) -> None:
    from knowgen.tasks.text_labels.journal import journal_of

    with (
        JudgeServer(correct) as server,
        journal_of(folder),
        pytest.raises(ConfigError, match="another process is annotating"),
    ):
        run_annotation(folder, server)


# -------------------------------------------------------------------------------------------------------------- money


def test_a_budget_covers_all_calls_and_answers_so_far_are_recorded(folder: Path) -> None:
    # each call: 1000 tokens in and 100 out; 10 and 20 US$ a million, so 0.012 US$ a call
    prices = {"price_in": 10, "price_out": 20, "price_call": None, "max_tokens": 200}
    with JudgeServer(correct, price=(10, 20)) as server:
        with pytest.raises(BudgetReachedError, match=r"\$0\.03 allows no further call"):
            run_annotation(folder, server, args=prices, budget=0.03)
        assert 1 <= len(server.calls) <= 2 and server.spent <= 0.03
        paid = len(server.calls)
        outcome = run_annotation(folder, server, args=prices, budget=1.0)
        assert len(server.calls) == 4, "four different prompts, each paid for once"
    assert outcome.fresh and paid < 4
    assert outcome.spent == pytest.approx(server.spent) == pytest.approx(4 * 0.012)


def test_a_budget_without_prices_is_an_error(folder: Path) -> None:
    with JudgeServer(correct) as server:
        with pytest.raises(ConfigError, match="price of its calls is unknown"):
            run_annotation(folder, server, args={"price_call": None}, budget=1.0)
        assert not server.calls


def test_a_call_left_open_by_a_killed_process_counts_as_spent(folder: Path) -> None:
    (folder / "text_required.journal.jsonl").write_text('{"event": "call", "number": 0, "usd": 0.5}\n')
    with JudgeServer(correct) as server:
        prices = {"price_in": 10, "price_out": 20, "price_call": None, "max_tokens": 200}
        with pytest.raises(BudgetReachedError, match=r"\$0\.5000 is spent"):
            run_annotation(folder, server, args=prices, budget=0.5)


# -------------------------------------------------------------------------------------------------- the command line


def test_the_command_line_reports_the_outcome(folder: Path, knowgen: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with JudgeServer(lambda call: Step(reply="no") if prompt_of(call) == PROMPTS["d"] else correct(call)) as server:
        words = ["task", "annotate", folder, "--judge", "vlm:reader", "-s", f"base_url={server.url}"]
        words += ["-s", "price_in=10", "-s", "price_out=20", "-s", "key_env=JUDGE_KEY"]
        monkeypatch.setenv("JUDGE_KEY", "sk-madeup-secret")
        failed = knowgen(*words)
        assert failed.returncode == 6, failed.stderr
        assert "failed  d: 4 replies did not match the schema" in failed.stdout
        assert "nothing is frozen: 1 prompts have no answer" in failed.stdout
        server.script = correct
        done = knowgen(*words)
        assert done.returncode == 0, done.stderr
        assert "frozen: text is required in 2 of 5 prompts of five" in done.stdout
        assert "vlm:reader, which returned judge-2026-01-01" in done.stdout
        assert FolderTask(folder).version in done.stdout
        again = knowgen(*words)
        assert again.stdout.startswith("already frozen: text is required in 2 of 5 prompts of five; --force asks again")
        assert {call.headers["authorization"] for call in server.calls} == {"Bearer sk-madeup-secret"}
    output = "".join(each.stdout + each.stderr for each in (failed, done, again))
    written = "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert "madeup" not in output + written
