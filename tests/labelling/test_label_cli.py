"""`knowgen label` from the command line: the page, the tables, and the way to `knowgen agree`."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import threading
import urllib.request
from collections.abc import Callable, Sequence
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from knowgen.cli import label as label_command
from knowgen.cli.main import run
from knowgen.labelling.items import make_plan
from knowgen.labelling.label_files import append_label
from knowgen.labelling.questions import CHOICES
from knowgen.labelling.rater import Answer, RaterProgress
from knowgen.labelling.records import StoredLabel
from knowgen.labelling.server import LabelServer
from tests.labelling.conftest import SYSTEMS, make_runs

Runs = list[tuple[str, Path]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rated(runs: Runs, folder: Path, rater: str, values: dict[str, float], at_most: int = 1000) -> None:
    """Rate every image with the same values."""
    progress = RaterProgress(make_plan(runs, "rate"), folder, rater)
    for _ in range(at_most):
        if (found := progress.next()) is None:
            return
        na = ("text_accuracy",) if found[0].of.sample.text_required is False else ()
        progress.label(found[0], Answer({name: each for name, each in values.items() if name not in na}, na))


def compared(
    runs: Runs, folder: Path, rater: str, order: Sequence[str], turn: Callable[[int], str] = lambda number: ""
) -> None:
    """Compare every pair: the system that is earlier in `order` is better, where `turn` does not say otherwise."""
    progress = RaterProgress(make_plan(runs, "pairs"), folder, rater)
    number = 0
    while (found := progress.next()) is not None:
        first, second = (order.index(one.system) for one in found[0].images)
        choice = turn(number) or ("left" if first < second else "right")
        progress.label(found[0], Answer({}, choice=choice, seconds=3.0))  # type: ignore[arg-type]
        number += 1


def words(*more: object) -> list[str]:
    """Return the words of a command."""
    return ["label", *map(str, more)]


# -- the page ----------------------------------------------------------------------------------------------------------


def at_the_page(monkeypatch: pytest.MonkeyPatch, act: Callable[[Callable[..., Any]], None]) -> None:
    """Let a thread act on the page as soon as it is announced, and then end it as Ctrl-C does.

    Args:
        monkeypatch: Fixture.
        act: Called with a function that sends fields to `/api/<path>` and returns the answer.
    """
    announce = label_command._announce

    def announced(server: LabelServer, address: str, no_browser: bool) -> None:
        announce(server, address, no_browser)

        def work() -> None:
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
            base = address.split("?", maxsplit=1)[0]

            def ask(path: str, **fields: object) -> Any:
                head = {"Content-Type": "application/json"}
                sent = urllib.request.Request(f"{base}api/{path}", json.dumps(fields).encode(), head)
                with opener.open(sent, timeout=60) as answer:
                    return json.loads(answer.read())

            try:
                opener.open(address, timeout=60).close()
                act(ask)
            finally:
                os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=work).start()

    monkeypatch.setattr(label_command, "_announce", announced)


def test_label_then_agree(
    runs: Runs, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(ask: Callable[..., Any]) -> None:
        item = ask("next", rater="ann")["item"]
        for number in range(5):
            values: dict[str, float | None] = {"faithfulness": 1, "visual_correctness": 0.5, "aesthetics": number % 2}
            values["text_accuracy"] = None if item["text_required"] is False else 1
            item = ask("label", rater="ann", item=item["id"], values=values)["item"]
        ask("label", rater="ann", item=item["id"], skipped="cannot_tell")

    at_the_page(monkeypatch, act)
    paths = [str(path) for _, path in runs]
    assert run(words(*paths, "-o", "mine", "--no-browser")) == 0
    out, error = capsys.readouterr()
    assert error == ""
    lines = out.splitlines()
    assert lines[0] == "label    18 images of 6 samples, 3 systems"
    assert re.fullmatch(r"open     http://127\.0\.0\.1:\d+/\?token=[\w-]+", lines[1])
    port = lines[1].split(":")[2].split("/")[0]
    assert f"ssh -L {port}:127.0.0.1:{port}" in lines[2]
    assert "labelled ann: 6 of 18, 1 skipped" in lines
    assert f"wrote    {Path('mine/ratings.csv')} (5 ratings)" in lines
    agree = next(line for line in lines if line.startswith("agree    ")).removeprefix("agree    knowgen ")
    assert run(shlex.split(agree)) == 0
    table = capsys.readouterr().out
    assert "world_check and human:ann" in table
    assert lines[-1] == f"resume   knowgen label {' '.join(paths)} -o mine --no-browser"


def test_a_signal_before_anything_is_labelled(
    runs: Runs, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_the_page(monkeypatch, lambda ask: None)
    assert run(words(runs[0][1], "--no-browser")) == 0
    out = capsys.readouterr().out
    assert "labelled nothing" in out
    assert not (folder / "labels").exists()


def test_a_browser_is_opened_where_there_is_a_screen(
    runs: Runs, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def open_browser(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr("webbrowser.open", open_browser)
    for name in ("SSH_CONNECTION", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", ":7")
    server = LabelServer(make_plan(runs, "rate"), folder)
    label_command._announce(server, "http://127.0.0.1:1234/?token=abc", False)
    assert opened[0].startswith("http://127.0.0.1:1234/?start=")
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")
    label_command._announce(server, "http://127.0.0.1:1234/?token=abc", False)
    assert len(opened) == 1
    assert "ssh -L 1234:127.0.0.1:1234" in capsys.readouterr().out


# -- tables of some runs -----------------------------------------------------------------------------------------------


def test_ratings_of_several_folders_are_read_by_agree(
    runs: Runs, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = dict.fromkeys(("faithfulness", "visual_correctness", "text_accuracy", "aesthetics"), 0.5)
    rated(runs, folder / "here", "Ann", values)
    rated(runs, folder / "there", "=cmd|bob", values)
    paths = [path for _, path in runs]
    assert run(words(*paths, "-o", "here", "-o", "there", "--export", "out/labels.csv")) == 0
    assert capsys.readouterr().out == f"wrote    {Path('out/labels.csv')} (36 ratings)\n"
    rows = list(csv.DictReader((folder / "out" / "labels.csv").open(newline="")))
    assert {row["rater"] for row in rows} == {"Ann", "'=cmd|bob"}
    assert {row["system"].removesuffix("(steps=4)") for row in rows} == set(SYSTEMS)
    assert all((row["text_accuracy"] == "") == (int(row["sample_id"][1:]) % 4 == 3) for row in rows)
    assert run(["agree", *map(str, paths), "--labels", "out/labels.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["raters"] == ["world_check", "human:=cmd|bob", "human:Ann"]
    people = next(one for one in found["pairs"] if one["first"].startswith("human"))
    assert people["dimensions"]["faithfulness"]["exact"] == {
        "value": 1.0, "low": None, "high": None, "n": 18, "note": "n too small", "partial": None,
    }  # fmt: skip


def test_labels_of_images_that_changed_are_left_out_with_a_note(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = make_runs(folder / "before", 3, SYSTEMS[:1])
    rated(runs, folder / "labels", "ann", {"aesthetics": 1.0})
    after = make_runs(folder / "after", 4, SYSTEMS[1:2])
    rated(after, folder / "labels", "ann", {"aesthetics": 1.0})
    assert run(words(after[0][1], "--export", "labels.csv")) == 0
    out, error = capsys.readouterr()
    assert "(4 ratings)" in out
    assert "3 labels of other images, prompts or questions than those of the runs: left out" in error


def test_comparisons_are_written_as_a_table(runs: Runs, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(runs, folder / "labels", "ann", SYSTEMS, lambda number: ("", "tie", "both_bad")[number % 3])
    assert run(words(*(path for _, path in runs), "--mode", "pairs", "--export", "pairs.csv")) == 0
    rows = list(csv.DictReader((folder / "pairs.csv").open(newline="")))
    assert len(rows) == 18
    assert {row["winner"] for row in rows} == {"first", "second", "tie", "both_bad"}
    for row in rows:
        if row["winner"] in ("first", "second"):
            sides = [row[side].removesuffix("(steps=4)") for side in ("first", "second")]
            assert SYSTEMS.index(sides[row["winner"] == "second"]) == min(map(SYSTEMS.index, sides))


# -- the board ---------------------------------------------------------------------------------------------------------


def test_the_board_of_comparisons(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = make_runs(folder / "runs", 24)
    wrong = [*CHOICES]
    compared(runs, folder / "labels", "ann", SYSTEMS, lambda number: wrong[number // 5 % 4] if number % 5 == 0 else "")
    compared(runs, folder / "labels", "bob", SYSTEMS, lambda number: wrong[number // 4 % 4] if number % 4 == 0 else "")
    assert run(words("--show", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    board = found["board"]
    assert [one["system"] for one in board["systems"]] == list(SYSTEMS)
    assert all(one["low"] < one["strength"] < one["high"] for one in board["systems"])
    assert sum(one["strength"] for one in board["systems"]) == pytest.approx(0, abs=1e-9)
    assert (board["comparisons"], board["samples"], board["raters"]) == (144, 24, 2)
    assert found["left"]["low"] < 0.5 < found["left"]["high"]
    assert found["agreement"][0]["dimensions"]["preference"]["exact"]["n"] == 72
    assert found["ties"] + found["both_bad"] > 0

    assert run(words("--show")) == 0
    text = capsys.readouterr().out
    assert "144 comparisons of 24 samples by 2 raters" in text
    assert "left image preferred: " in text
    assert re.search(r"quokka_painter +1 +\+\d\.\d\d +\[\+\d\.\d\d, \+\d\.\d\d\]", text)
    assert "ann and bob" in text
    assert run(words("--show", "--markdown")) == 0
    assert "| quokka_painter | 1 |" in capsys.readouterr().out


def test_a_system_that_always_wins_has_no_strength_and_says_why(
    runs: Runs, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared(runs, folder / "labels", "ann", SYSTEMS)
    assert run(words("--show")) == 0
    out = capsys.readouterr().out
    assert "no strengths: quokka_painter won every comparison with the others" in out
    assert "inf" not in out.replace("infinite", "")


def test_a_bias_of_position_is_shown(runs: Runs, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(runs, folder / "labels", "ann", SYSTEMS, lambda number: "left")
    assert run(words("--show")) == 0
    assert "left image preferred: 100 % [82, 100] of 18 decided: a bias of position" in capsys.readouterr().out


def test_only_answers_about_the_newest_images_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = make_runs(folder / "before", 4, SYSTEMS[:2])
    compared(before, folder / "labels", "ann", SYSTEMS)
    other = make_runs(folder / "after", 4, ("another_painter", SYSTEMS[1]))
    after = [(SYSTEMS[0], other[0][1]), other[1]]
    compared(after, folder / "labels", "ann", SYSTEMS)
    assert run(words("--show")) == 0
    out = capsys.readouterr().out
    assert "4 comparisons of 4 samples by 1 rater;" in out
    assert "note: 4 comparisons of images that were replaced, or with another question: left out" in out


def test_the_board_of_some_runs_has_their_names_and_images(
    runs: Runs, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared(runs, folder / "here", "ann", SYSTEMS)
    renamed = [(f"{name} (a copy)", path) for name, path in runs]
    compared(renamed, folder / "there", "bob", [name for name, _ in renamed])
    folders = ("-o", "here", "-o", "there")
    assert run(words(*folders, "--show", "--json")) == 0
    assert len(json.loads(capsys.readouterr().out)["board"]["systems"]) == 6
    assert run(words(*(path for _, path in runs[:2]), *folders, "--show", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["system"] for one in found["board"]["systems"]] == [f"{name}(steps=4)" for name in SYSTEMS[:2]]
    assert found["board"]["comparisons"] == 12
    assert found["notes"] == ["24 labels of other images, prompts or questions than those of the runs: left out"]


def test_ratings_alone_show_the_progress_of_each_rater(
    runs: Runs, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rated(runs, folder / "labels", "ann", {"aesthetics": 1.0}, at_most=4)
    assert run(words("--show")) == 0
    out = capsys.readouterr().out
    assert "Raters of lighthouses 1-abcdef012345" in out
    assert re.search(r"ann +4 +0 +0 +0\.0 s", out)


# -- wrong words -------------------------------------------------------------------------------------------------------


def a_label(task: str) -> StoredLabel:
    """Return a label of a task."""
    return StoredLabel(
        mode="rate", at="2026-05-01T10:00:00.000000+00:00", rater="ann", task=task, task_version="1", sample=task,
        systems=("a",), images=("0" * 64,), prompt="p", question="q", values={"aesthetics": 0.5},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("more", "code", "line"),
    [
        ((), 2, "name one or more runs, or --show"),
        (("none",), 3, "none: not a run directory"),
        (("RUN", "--mode", "pairs"), 2, "pairs need two runs or more"),
        (("RUN", "--json"), 2, "--markdown and --json need --show"),
        (("RUN", "--show", "-o", "mixed"), 3, "mixed: no label is of the images of the runs"),
        (("RUN", "-o", "a", "-o", "b"), 2, "labels are written to one"),
        (("--show",), 3, "labels: cannot be read: No such file or directory; name a folder of labels"),
        (("RUN", "--export", "x.csv", "-o", "mixed"), 3, "x.csv: no label of these runs to export"),
        (("--show", "-o", "mixed"), 3, "labels of several tasks: one 1 and two 1"),
        (("RUN", "RUN"), 2, "two runs are called 'quokka_painter(steps=4) (run-0)'"),
        (("RUN", "-o", "mixed/ann.jsonl/more"), 3, "mixed/ann.jsonl: is not a folder; name another folder with -o"),
        (("RUN", "--rater", " "), 2, "the name of the rater is empty"),
        (("RUN", "--ids", "none"), 2, "no sample 'none' with an image in the runs"),
    ],
)
def test_wrong_words_are_one_line(
    more: tuple[str, ...], code: int, line: str, runs: Runs, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in ("one", "two"):
        append_label(folder / "mixed" / "ann.jsonl", a_label(task))
    assert run(words(*(str(runs[0][1]) if each == "RUN" else each for each in more))) == code
    error = capsys.readouterr().err.splitlines()
    assert line in error[-1]
    assert error[-1].startswith("knowgen: ")
