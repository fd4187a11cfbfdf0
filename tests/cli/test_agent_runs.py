"""Runs of the agent from the command line: recorded and replayed without a network, killed and resumed."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest

from knowgen.cli.main import run
from knowgen.store.run import RunStore
from tests.helpers.processes import python_environment, start_python, wait_until

ROOT = Path(__file__).resolve().parents[2]
WORLD = f"world:{ROOT / 'tasks' / 'knowgen_mini' / 'search'}"

POLICY = '''
import asyncio
import json
import os
import time

from knowgen.agents.policies.contract import PolicyReply


class Slow:
    """Searches once and answers; writes down every prompt that it begins, with its process."""

    identity = {"policy": "slow"}
    segments = ()

    def open(self, sampling, prompt, session):
        with open(os.environ["STARTED"], "a", encoding="utf-8") as file:
            file.write(json.dumps([os.getpid(), prompt]) + "\\n")
        session = Slow()
        session.prompt = prompt
        return session

    async def reply(self, messages):
        await asyncio.sleep(0.1)
        if len(messages) == 2:
            return PolicyReply('<tool_call>{"name": "search", "arguments": {"queries": ["town"]}}</tool_call>')
        return PolicyReply("<answer>" + json.dumps({"gen_prompt": self.prompt, "reference_images": []}) + "</answer>")

    async def close(self):
        pass
'''


def answers_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return every stored answer by sample, without times."""
    with RunStore.read(folder) as store:
        return {answer.sample_id: without_times(answer.model_dump(mode="json")) for _, answer in store.answers()}


def images_of(folder: Path) -> dict[str, str]:
    """Return the digest of every image by sample."""
    with RunStore.read(folder) as store:
        return {each.sample_id: each.image.sha256 for _, each in store.generations() if each.image is not None}


def without_times(value: Any) -> Any:
    """Return plain data without the fields that are times."""
    if isinstance(value, dict):
        return {name: without_times(each) for name, each in value.items() if not name.endswith("seconds")}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def test_a_recorded_run_is_replayed_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["run", "--task", "knowgen_mini", "--limit", "3", "--generator", "gen_searcher", "-g", "policy=scripted"]
    words += ["-g", "painter=painter", "--scorer", "pixels", "--workers", "0"]
    assert run([*words, "-g", f"search=record:web.jsonl,{WORLD}", "--out", "recorded"]) == 0

    def refuse(*_: object) -> NoReturn:
        raise OSError("the network is off")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert run([*words, "-g", "search=replay:web.jsonl", "--out", "replayed"]) == 0, capsys.readouterr().err
    recorded, replayed = answers_of(tmp_path / "recorded"), answers_of(tmp_path / "replayed")
    assert len(recorded) == 3 and replayed == recorded
    assert all(answer["trajectory"] and answer["status"] == "ok" for answer in recorded.values())
    images = [images_of(tmp_path / name) for name in ("recorded", "replayed")]
    assert images[0] == images[1] and len(images[0]) == 3
    with RunStore.read(tmp_path / "recorded") as store:
        prompt = next(store.samples()).prompt
    capsys.readouterr()
    assert run(["agent", prompt, "--policy", "scripted", "--search", "replay:web.jsonl", "--json"]) == 0
    trajectory = json.loads(capsys.readouterr().out)["answer"]["trajectory"]
    assert without_times(trajectory) in [answer["trajectory"] for answer in recorded.values()]


@pytest.mark.slow
def test_a_killed_run_with_workers_repeats_no_finished_search(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(POLICY)
    started, out = tmp_path / "started.jsonl", tmp_path / "out"
    words = ["-m", "knowgen", "run", "--task", "knowgen_mini", "--generator", "gen_searcher", "--scorer", "pixels"]
    words += ["-g", "policy=slow.py:Slow", "-g", f"search={WORLD}", "-g", "painter=painter", "--out", "out"]
    words += ["--workers", "2", "--concurrency", "4", "--limit", "24"]
    environment = python_environment(STARTED=str(started))

    def begun() -> list[tuple[int, str]]:
        lines = started.read_text(encoding="utf-8").splitlines() if started.exists() else []
        return [(pid, prompt) for pid, prompt in map(json.loads, lines)]

    def finished() -> set[str]:
        if not (out / "run.sqlite").exists() or not begun():
            return set()
        with RunStore.read(out) as store:
            return {answer.prompt for _, answer in store.answers()}

    before: list[tuple[int, str]] = []
    for number in (1, 2):
        process = start_python(*words, cwd=tmp_path, env=environment)
        wait_until(lambda: len(finished()) >= 6 * number, process)  # noqa: B023 - called in this pass only
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.communicate()
        done, before = finished(), begun()
        assert process.pid not in {pid for pid, _ in before}, "the agent runs in worker processes"
    process = start_python(*words, cwd=tmp_path, env=environment)
    printed = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    again = [prompt for _, prompt in begun()[len(before) :]]
    assert done and not done & set(again), "a finished search is not repeated"
    assert len(finished()) == 24 and len(begun()) <= 24 + 2 * 4 + 24
