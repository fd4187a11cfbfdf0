"""Suites: one file runs every system on every task, and gives one table per task."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from knowgen.api import load_run
from knowgen.cli.main import run
from knowgen.core.errors import DataError, UsageError
from knowgen.stats.summary import Figure
from knowgen.store.run import RunStore
from knowgen.suites import plan_suite, read_suite, run_suite
from knowgen.suites.macro_mean import mean_figure
from knowgen.tasks.load import content_folder
from knowgen.worlds.build import build_world
from tests.helpers.judge_server import JudgeServer, Step
from tests.helpers.small_task import make_task

pytestmark = pytest.mark.usefixtures("in_process")

SEEDS = (0, 90, 180)
"""Seeds of images that differ after JPEG encoding too, so that no cached judge reply fits another image."""

DRAW = "my_generator.py:draw"
SMALL = """\
systems:
  - name: first
    generator: my_generator.py:draw
  - name: second
    generator: my_generator.py:Picky
    args: {size: 80}
tasks:
  - small
"""


def write(workspace: Path, text: str, name: str = "suite.yaml") -> Path:
    path = workspace / name
    path.write_text(text)
    return path


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error, which must be one line."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    return lines[0]


def stamps(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Return time of change and content of every file."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_every_system_runs_a_shipped_task(workspace: Path) -> None:
    write(workspace, "systems: [noise, closed_book, oracle]\ntasks: [{task: knowgen_mini, limit: 2}]\n"
                "scorers: ['my_scorer.py:Half']\n")  # fmt: skip
    result = run_suite(workspace / "suite.yaml", workspace / "out")
    assert [(each.system, each.status) for each in result.runs] == [
        ("noise", "done"), ("closed_book", "done"), ("oracle", "done"),
    ]  # fmt: skip
    digests = set()
    for each in result.runs:
        with RunStore.read(each.path) as store:
            digests |= {generation.image.sha256 for _, generation in store.generations() if generation.image}
    assert len(digests) == 6, "every system has images of its own"


@pytest.mark.slow
def test_the_shipped_suite_ranks_the_baseline_systems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = yaml.safe_load((content_folder("tasks") / "suites" / "example.yaml").read_text())
    shipped["tasks"] = [{"task": "knowgen_mini", "limit": 4}]
    write(tmp_path, yaml.safe_dump(shipped), "mine.yaml")
    assert run(["suite", "mine.yaml", "--out", "out"]) == 0
    text = capsys.readouterr().out
    ranked = re.findall(r"^(noise|closed_book|open_book|oracle) +\d", text, re.MULTILINE)
    assert ranked == ["oracle", "open_book", "closed_book", "noise"]
    folders = {path.name for path in (tmp_path / "out").iterdir() if (path / "run.json").is_file()}
    assert folders == {f"knowgen_mini__{name}" for name in ranked}
    written = json.loads((tmp_path / "out" / "suite.json").read_text())
    assert {each["status"] for each in written["runs"]} == {"done"}
    for each in written["runs"]:  # the same figures as each run's own
        own = load_run(tmp_path / "out" / each["directory"]).summary
        assert each["summaries"][0]["slices"][0]["figures"]["overall"]["value"] == own.headline.value
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert all(name in page for name in ranked)
    assert re.search(r"^resume +knowgen suite mine.yaml --out out$", text, re.MULTILINE)
    compare = re.findall(r"^compare +knowgen (.*)$", text, re.MULTILINE)[0]
    assert run(compare.split()) == 0
    assert "oracle" in capsys.readouterr().out


def test_a_repeated_suite_changes_nothing(workspace: Path) -> None:
    write(workspace, SMALL.replace("Picky\n    args: {size: 80}", "draw\n    seed: 5"))
    assert run(["suite", "suite.yaml", "--out", "out"]) == 0
    before, calls = stamps(workspace / "out"), (workspace / "calls.txt").read_text()
    assert len(calls.splitlines()) == 12
    assert run(["suite", "suite.yaml", "--out", "out"]) == 0
    assert stamps(workspace / "out") == before
    assert (workspace / "calls.txt").read_text() == calls


def test_a_damaged_image_is_generated_again(workspace: Path) -> None:
    write(workspace, "systems: ['my_generator.py:draw']\ntasks: [small]\n")
    assert run(["suite", "suite.yaml", "--out", "out"]) == 0
    image_file = next((workspace / "out" / "small__my_generator.py-draw" / "images").rglob("*.png"))
    whole = image_file.read_bytes()
    image_file.write_bytes(whole[:40])
    assert run(["suite", "suite.yaml", "--out", "out"]) == 0
    assert image_file.read_bytes() == whole


def test_a_broken_system_in_the_middle_is_a_row_with_its_reason(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (workspace / "my_generator.py").open("a") as file:
        file.write("class NoWeights:\n    def __init__(self):\n        raise RuntimeError('no weights\\x1b here')\n"
                   "    def draw(self, prompt, references, seed):\n        return draw(prompt, seed)\n")  # fmt: skip
    write(workspace, f"systems: [{DRAW}, 'my_generator.py:NoWeights', {{name: last, generator: {DRAW}, seed: 3}}]\n"
                "tasks: [small]\n")  # fmt: skip
    assert run(["suite", "suite.yaml", "--out", "out"]) == 6
    text = capsys.readouterr().out
    assert "\x1b" not in text
    row = re.findall(r"^my_generator.py:NoWeights +(.*)$", text, re.MULTILINE)[0]
    assert row.startswith("no result ") and "0/6" in row
    assert re.search(r"^failed my_generator.py:NoWeights on small: .*no weights", text, re.MULTILINE)
    written = json.loads((workspace / "out" / "suite.json").read_text())
    assert [each["status"] for each in written["runs"]] == ["done", "failed", "done"]
    assert "no weights" in written["runs"][1]["reason"]
    for protocol in ("strict", "official"):  # the official arithmetic would give 0
        with (workspace / "out" / "tables" / f"small-{protocol}.csv").open() as file:
            cells = [line for line in csv.DictReader(file) if line["kind"] == "all" and line["figure"] == "overall"]
        assert {line["system"]: line["value"] for line in cells}["my_generator.py:NoWeights"] == ""
        assert {line["generation_not_run"] for line in cells} == {"0", "6"}


def test_failed_samples_end_with_6_and_are_counted(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(workspace, SMALL)
    assert run(["suite", "suite.yaml", "--out", "out"]) == 6
    assert "failed second on small: 1 generation failed" in capsys.readouterr().out
    result = run_suite(workspace / "suite.yaml", workspace / "out")
    assert [each.status for each in result.runs] == ["done", "failed_samples"]


def test_paths_are_read_from_the_files_folder(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SMALL.replace("Picky", "draw").replace("args: {size: 80}", "seed: 1")
    write(workspace, f"workers: 1\n{text}")  # in processes of their own, which find the files too
    (workspace / "deep").mkdir()
    monkeypatch.chdir(workspace / "deep")
    assert run(["suite", "../suite.yaml", "--out", "../out"]) == 0
    monkeypatch.chdir(workspace)
    before = stamps(workspace / "out")
    assert run(["suite", "suite.yaml", "--out", "out"]) == 0  # the same runs, from another current folder
    assert stamps(workspace / "out") == before
    assert (
        json.loads((workspace / "out" / "small__first" / "run.json").read_text())["spec"]["generator"]["name"] == DRAW
    )


def test_a_scorer_beside_the_file_has_its_own_arguments(workspace: Path) -> None:
    (workspace / "other.py").write_text((workspace / "my_scorer.py").read_text())
    scorers = "[{scorer: 'my_scorer.py:Half', args: {value: 1.0}}, {scorer: 'other.py:Half', args: {value: 0.0}}]"
    write(workspace, f"systems: [{DRAW}]\ntasks: [small]\nscorers: {scorers}\n")
    result = run_suite(workspace / "suite.yaml", workspace / "out")
    assert {one.scorer: one.headline.value for one in result.summaries("small")} == {
        "my_scorer.py:Half": 1.0,
        "other.py:Half": 0.0,
    }


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("systems: [open_bok]\ntasks: [small]\n", 2,
         "suite.yaml:1: unknown generator 'open_bok'; did you mean 'open_book'?"),
        ("systems: [oracle]\ntasks:\n- small\n- knowgen_minni\n", 2,
         "suite.yaml:4: unknown task 'knowgen_minni'; did you mean 'knowgen_mini'?"),
        ("systems: [oracle]\ntasks: [small]\nscorers:\n- wrld_check\n", 2,
         "suite.yaml:4: unknown scorer 'wrld_check'; did you mean 'world_check'?"),
        ("systems: [oracle]\ntasks: [small/not/there]\n", 2, "suite.yaml:2: no task folder 'small/not/there'"),
        ("systems: [oracle]\ntasks:\n- {task: small, ids: [s1, s99]}\n", 2,
         "suite.yaml:3: task small has no sample 's99'"),
        ("systems: [oracle]\ntasks:\n- {task: small, ids: [s1, s1]}\n", 3,
         "suite.yaml:3: tasks.0: duplicate id 's1'"),
        ("systems: [oracle]\ntasks:\n- {task: small, ids: [s1], limit: 2}\n", 3, "limit and ids exclude each other"),
        ("systems: [oracle, noise, oracle]\ntasks: [small]\n", 3, "suite.yaml:1: duplicate system name 'oracle'"),
        ("systems: [{name: a b, generator: noise},\n {name: A-b, generator: oracle}]\ntasks: [small]\n", 3,
         "suite.yaml:2: two systems would use the directory 'a-b'"),
        ("systems: [{name: 'a,b', generator: noise}]\ntasks: [small]\n", 3, "systems.0: the name 'a,b' contains"),
        ("systems: [oracle]\ntasks: [small,\n  ./small]\n", 3, "suite.yaml:3: duplicate task name 'small'"),
        ("systems: [oracle]\ntasks:\n- small\n- {task: small, name: other}\n", 3,
         "suite.yaml:4: is the same task as 'small'"),
        ("systems: [oracle]\ntasks: [small]\nscorers: [world_check, world_check]\n", 3,
         "duplicate scorer 'world_check'"),
        ("systems: [oracle]\ntasks: [small]\nrepeats: 1\nrepeats: 2\n", 3,
         "suite.yaml:4: duplicate field 'repeats'"),
        ("systems:\n- generator: oracle\n  sed: 3\ntasks: [small]\n", 3,
         "suite.yaml:3: systems.0.sed: unknown field; did you mean 'seed'?"),
        ("systems: [oracle]\ntasks: [small]\nrepeats: '2'\n", 3, "suite.yaml:3: repeats: "),
        ("systems: [oracle]\ntasks: [small]\nbudget: .nan\n", 3, "suite.yaml:3: budget: "),
        ("systems: [oracle]\ntasks: [small]\nprotocol: lenient\n", 3, "suite.yaml:3: protocol: "),
        ("systems: [oracle\ntasks: [small]\n", 3, "suite.yaml:2: broken YAML"),
        ("- oracle\n", 3, "has no fields"),
        ("", 3, "suite.yaml: is empty"),
        ("tasks: [small]\n", 3, "systems: "),
        ("systems:\n- {generator: 'my_generator.py:Picky', args: {api_key: abc123}}\ntasks: [small]\n", 3,
         "suite.yaml:2: argument 'api_key' looks like a secret"),
        ("systems:\n- {generator: 'my_generator.py:Picky', args: {size: {token: abc123}}}\ntasks: [small]\n", 3,
         "'token' looks like a secret"),
        ("systems:\n- {generator: 'my_generator.py:Picky', args: {sise: 3}}\ntasks: [small]\n", 2,
         "suite.yaml:2: generator"),
        ("systems: [oracle]\ntasks: [small]\nscorers:\n- scorer: vlm:x\n  args: {base_ur: http://127.0.0.1}\n", 2,
         "suite.yaml:4: scorer 'vlm:x'"),
    ],
)  # fmt: skip
def test_an_error_in_the_file_is_reported_by_its_line_before_anything_is_done(
    workspace: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, words: str
) -> None:
    write(workspace, text)
    assert run(["suite", "suite.yaml", "--out", "out"]) == code
    line = error_line(capsys)
    assert words in line
    assert "abc123" not in line
    assert not (workspace / "out").exists() and not (workspace / "calls.txt").exists()


def test_an_error_in_the_last_system_is_reported_before_the_first_is_run(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(workspace, f"systems:\n- {DRAW}\n- my_generator.py:Nobody\ntasks: [small]\n")
    assert run(["suite", "suite.yaml", "--out", "out"]) == 2
    assert "suite.yaml:3: " in error_line(capsys)
    assert not (workspace / "out").exists()


def test_a_directory_of_another_run_is_refused_before_anything_is_run(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(workspace, f"systems:\n- {DRAW}\n- {{name: b, generator: {DRAW}, seed: 1}}\ntasks: [small]\n")
    assert run(["suite", "suite.yaml", "--out", "out"]) == 0
    shutil.rmtree(workspace / "out" / "small__my_generator.py-draw")
    capsys.readouterr()
    write(workspace, (workspace / "suite.yaml").read_text().replace("seed: 1", "seed: 2"))
    assert run(["suite", "suite.yaml", "--out", "out"]) == 3
    assert "contains another run than suite.yaml:3 describes: seed is 1 there and 2 here" in error_line(capsys)
    assert not (workspace / "out" / "small__my_generator.py-draw").exists()


def test_an_unknown_suite_names_the_shipped_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["suite", "exmple"]) == 2
    assert "did you mean 'example'?" in error_line(capsys)


def test_dry_run_prints_the_plan_and_does_nothing(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(workspace, SMALL + "budget: 2.5\nrepeats: 3\n")
    assert run(["suite", "suite.yaml", "--out", "out", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert text.count("images     18") == 2
    assert "out/small__first" in text and "out/small__second" in text and "$2.5" in text
    assert not (workspace / "out").exists()


def test_only_runs_the_named_systems_and_shows_stored_results_of_the_others(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [{"name": "a", "generator": DRAW}, {"name": "b", "generator": DRAW, "seed": 1}]
    write(workspace, yaml.safe_dump({"systems": [*named, {"name": "c", "generator": "nosuch"}], "tasks": ["small"]}))
    assert run(["suite", "suite.yaml", "--out", "out", "--only", "a"]) == 0
    written = {each["system"]: each for each in json.loads((workspace / "out" / "suite.json").read_text())["runs"]}
    assert [written[name]["status"] for name in "abc"] == ["done", "not_run", "not_run"]
    assert "--only" in written["b"]["reason"] and "unknown generator 'nosuch'" in written["c"]["reason"]
    assert run(["suite", "suite.yaml", "--out", "out", "--only", "b"]) == 0
    written = {each["system"]: each for each in json.loads((workspace / "out" / "suite.json").read_text())["runs"]}
    assert [written[name]["status"] for name in "abc"] == ["done", "done", "not_run"]
    capsys.readouterr()
    assert run(["suite", "suite.yaml", "--out", "out", "--only", "a,bb"]) == 2
    assert "no system 'bb' in this suite; did you mean 'b'?" in error_line(capsys)
    assert run(["suite", "suite.yaml", "--out", "out", "--only", ","]) == 2


def test_json_output_equals_suite_json(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(workspace, SMALL)
    assert run(["suite", "suite.yaml", "--out", "out", "--json"]) == 6
    assert json.loads(capsys.readouterr().out) == json.loads((workspace / "out" / "suite.json").read_text())


def test_the_budget_is_one_for_all_runs(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = 0.0028  # what 1000 and 100 tokens cost
    with JudgeServer([Step()], price=(2.0, 8.0)) as server:
        judge = {"base_url": server.url, "price_in": 2.0, "price_out": 8.0, "max_tokens": 200, "concurrency": 1}
        suite = {
            "systems": [{"name": f"s{seed}", "generator": DRAW, "seed": seed} for seed in SEEDS],
            "tasks": ["small"],
            "scorers": [{"scorer": "vlm:any", "args": judge}],
        }
        write(workspace, yaml.safe_dump(suite | {"budget": 0.0}))
        assert run(["suite", "suite.yaml", "--out", "out"]) == 5
        captured = capsys.readouterr()
        assert "raise --budget to continue" in captured.err and not server.calls
        worst = float(re.findall(r"may cost up to \$([0-9.]+)", captured.out)[0])

        # all of the first run, and three calls of the second before a worst case does not fit any more
        budget = 6 * call + 2.5 * call + worst
        write(workspace, yaml.safe_dump(suite | {"budget": budget}))
        assert run(["suite", "suite.yaml", "--out", "out"]) == 5
        written = json.loads((workspace / "out" / "suite.json").read_text())
        assert [each["status"] for each in written["runs"]] == ["done", "budget", "budget"]
        spent = []
        for seed in SEEDS:
            with RunStore.read(workspace / "out" / f"small__s{seed}") as store:
                spent.append(store.spent())
        assert spent == pytest.approx([6 * call, 3 * call, 0.0])
        assert written["spent"] == pytest.approx(server.spent) and server.spent <= budget

        assert run(["suite", "suite.yaml", "--out", "out", "--budget", "1"]) == 0
        assert len(server.calls) == 18  # nothing is paid twice
        assert run(["suite", "suite.yaml", "--out", "out", "--budget", "0"]) == 0  # nothing is left to pay


def test_a_budget_that_is_not_a_number_is_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(workspace, SMALL)
    assert run(["suite", "suite.yaml", "--out", "out", "--budget", "nan"]) == 2
    assert "budget must be a number >= 0, got nan" in error_line(capsys)


def test_two_tasks_give_two_tables_two_pages_and_a_mean(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_task(workspace / "hard", ["only three", "four", "five", "six"])
    (workspace / "hard" / "task.yaml").write_text("name: hard\ndefault_scorers: ['my_scorer:Half']\n")
    write(workspace, SMALL + "  - hard\n")
    assert run(["suite", "suite.yaml", "--out", "out"]) == 6
    text = capsys.readouterr().out
    assert len(re.findall(r"^first +0\.500", text, re.MULTILINE)) == 3
    assert "macro mean of K-Score over 2 tasks" in text
    for task in ("small", "hard"):
        assert "second" in (workspace / "out" / "report" / task / "index.html").read_text()
        assert (workspace / "out" / "tables" / f"{task}-official.md").is_file()
    with (workspace / "out" / "tables" / "all-tasks.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if (line["system"], line["protocol"]) == ("second", "strict")]
    figures = {line["figure"]: float(line["value"]) for line in lines}
    # three of the four images exist: one group has both of its two, the other one of two
    assert figures["hard"] == pytest.approx((0.5 + 0.25) / 2) and figures["hard"] != figures["small"]
    assert figures["mean over tasks"] == pytest.approx((figures["small"] + figures["hard"]) / 2)
    assert figures["small"] == load_run(workspace / "out" / "small__second").summary.headline.value

    write(workspace, SMALL)  # one task again: its page takes the place of the two
    assert run(["suite", "suite.yaml", "--out", "out"]) == 6
    assert (workspace / "out" / "report" / "index.html").is_file() and not (
        workspace / "out" / "report" / "small"
    ).exists()
    write(workspace, SMALL + "  - hard\n")
    assert run(["suite", "suite.yaml", "--out", "out"]) == 6
    assert {path.name for path in (workspace / "out" / "report").iterdir()} == {"small", "hard"}


@pytest.mark.slow
def test_two_worlds_share_a_suite(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_world(workspace / "tiny", seed=5, samples=4, name="tiny", workers=1)
    write(workspace, "systems: [oracle, noise]\ntasks: [tiny, {task: knowgen_mini, limit: 2}]\n")
    assert run(["suite", "suite.yaml", "--out", "out"]) == 0
    text = capsys.readouterr().out
    assert len(re.findall(r"^oracle +1\.000", text, re.MULTILINE)) == 3
    means = json.loads((workspace / "out" / "suite.json").read_text())["means"]
    assert {(each["system"], each["mean"]["n"]) for each in means} == {("oracle", 6), ("noise", 6)}


def test_a_system_without_results_on_a_task_has_no_mean(workspace: Path) -> None:
    make_task(workspace / "hard", ["only three", "four", "five"])
    (workspace / "hard" / "task.yaml").write_text("name: hard\ndefault_scorers: ['my_scorer:Half']\n")
    with (workspace / "my_generator.py").open("a") as file:
        file.write("class Late:\n    revision = '1'\n    def draw(self, prompt, references, seed):\n"
                   "        return draw(prompt, seed)\n")  # fmt: skip
    write(workspace, f"systems: [{DRAW}, 'my_generator.py:Late']\ntasks: [small, hard]\n")
    (workspace / "out" / "hard__my_generator.py-Late").mkdir(parents=True)
    (workspace / "out" / "hard__my_generator.py-Late" / "run.sqlite").write_bytes(b"not a database")
    result = run_suite(workspace / "suite.yaml", workspace / "out")
    assert [run.status for run in result.runs] == ["done", "done", "done", "failed"]
    assert result.exit_code == 6 and "run.json is missing" in result.runs[3].reason
    means = {mean.system: mean.figure for mean in result.means if mean.protocol == "strict"}
    assert means[DRAW].value == pytest.approx(0.5)
    assert means["my_generator.py:Late"].value is None
    assert means["my_generator.py:Late"].note == "no mean without hard (failed)"


def test_tasks_scored_by_different_scorers_share_no_mean(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_task(workspace / "hard", ["only", "four"])
    (workspace / "other.py").write_text((workspace / "my_scorer.py").read_text())
    (workspace / "hard" / "task.yaml").write_text("name: hard\ndefault_scorers: ['other:Half']\n")
    write(workspace, f"systems: [{DRAW}]\ntasks: [small, hard]\n")
    assert run(["suite", "suite.yaml", "--out", "out"]) == 0
    assert "no mean over tasks: no scorer has scored all of them" in capsys.readouterr().out


def test_the_interval_of_a_mean_is_that_of_simulated_normal_figures() -> None:
    import numpy as np

    spreads, values = (0.02, 0.05, 0.01), (0.4, 0.7, 0.1)
    figures = [
        Figure(value=value, low=value - 1.959964 * spread, high=value + 1.959964 * spread, n=10)
        for value, spread in zip(values, spreads, strict=True)
    ]
    mean = mean_figure(figures)
    simulated = np.random.default_rng(1).normal(values, spreads, (400_000, 3)).mean(axis=1)
    low, high = np.quantile(simulated, [0.025, 0.975])
    assert mean.value == pytest.approx(0.4) and mean.n == 30
    assert mean.low == pytest.approx(low, abs=2e-4) and mean.high == pytest.approx(high, abs=2e-4)
    alone = mean_figure(figures[:1])
    assert [alone.low, alone.high] == pytest.approx([figures[0].low, figures[0].high])
    assert mean_figure([*figures, Figure(value=0.5, n=2)]).low is None
    with pytest.raises(ValueError, match="every task"):
        mean_figure([Figure(note="nothing scored")])


def test_python_gives_a_table_and_pandas(workspace: Path) -> None:
    write(workspace, SMALL)
    lines: list[str] = []
    result = run_suite(workspace / "suite.yaml", workspace / "out", on_run=lines.append)
    assert lines == ["[1/2] first on small", "[2/2] second on small"]
    frame = result.to_pandas()
    assert len(frame) == 4  # two systems, two protocols
    strict = frame[frame.protocol == "strict"].set_index("system")
    assert strict.loc["first", "value"] == 0.5
    # one of six generations failed and counts 0: of two groups of three, its group has 2/3 of one half
    assert strict.loc["second", "value"] == pytest.approx((0.5 + 0.5 * 2 / 3) / 2)
    assert list(strict.status) == ["done", "failed_samples"]
    assert result.path == workspace / "out" and result.pages["small"].is_file()
    with pytest.raises(UsageError, match="no system 'third'"):
        run_suite(workspace / "suite.yaml", workspace / "out", only=["third"])


def test_the_file_in_the_guide_can_be_read(tmp_path: Path) -> None:
    manual = Path(__file__).resolve().parents[2] / "docs" / "guides" / "suite.md"
    block = re.findall(r"```yaml\n(.*?)```", manual.read_text(), re.DOTALL)[0]
    suite = read_suite(write(tmp_path, block)).suite
    assert [system.name for system in suite.systems] == ["closed_book", "my_model"]
    assert (suite.config.budget, suite.tasks[1].limit) == (20, 24)


def test_an_alias_in_the_file_is_read_once_and_a_loop_is_refused(workspace: Path) -> None:
    shared = write(workspace, "systems:\n- {generator: my_generator.py:Picky, args: &a {size: 64}}\n"
                         "- {name: b, generator: my_generator.py:Picky, args: *a}\ntasks: [small]\n")  # fmt: skip
    assert read_suite(shared).suite.systems[1].args == {"size": 64}
    looped = write(workspace, "systems:\n- generator: my_generator.py:Picky\n  args: &a {size: *a}\ntasks: [small]\n")
    with pytest.raises((UsageError, DataError)):
        plan_suite(looped, workspace / "out")


def test_the_suites_directory_is_locked_by_one_process(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from knowgen.store.lock import RunLock

    write(workspace, SMALL)
    (workspace / "out").mkdir()
    lock = RunLock(workspace / "out")
    try:
        assert run(["suite", "suite.yaml", "--out", "out"]) == 3
    finally:
        lock.release()
    assert "out" in error_line(capsys)
    assert not (workspace / "out" / "small__first").exists()


@pytest.mark.slow
def test_an_interrupted_suite_stops_and_resumes(workspace: Path) -> None:
    (workspace / "my_generator.py").write_text((workspace / "my_generator.py").read_text().replace(
        "def draw(prompt, seed):\n", "import time\ndef draw(prompt, seed):\n    time.sleep(1.0)\n"))  # fmt: skip
    write(workspace, f"systems: [{DRAW}, {{name: b, generator: {DRAW}, seed: 1}}]\ntasks: [small]\n")
    command = [sys.executable, "-m", "knowgen", "suite", "suite.yaml", "--out", "out"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    database = workspace / "out" / "small__my_generator.py-draw" / "run.sqlite"
    limit = time.monotonic() + 60
    while time.monotonic() < limit and not (database.is_file() and _generation_count(database)):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in err and re.search(r"^resume +.*knowgen suite suite.yaml --out out$", out, re.MULTILINE)
    assert not (workspace / "out" / "small__b").exists() and not (workspace / "out" / "suite.json").exists()
    generated = _generation_count(database)
    assert 0 < generated < 6
    assert subprocess.run(command, capture_output=True, check=False, timeout=120).returncode == 0
    assert _generation_count(database) == 6


def _generation_count(database: Path) -> int:
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return int(connection.execute("select count(*) from generations").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.parametrize("name", ["example", "agent_ablations", "open_models_1gpu", "open_models_8gpu"])
def test_every_shipped_suite_uses_registered_names(name: str) -> None:
    """Suites for GPUs cannot run here, but the names they use must exist."""
    from knowgen.core import registry
    from knowgen.generators.diffusers.presets import preset
    from knowgen.suites.schema import read_suite

    suite = read_suite(content_folder("tasks") / "suites" / f"{name}.yaml").suite
    assert suite.name == name
    for system in suite.systems:
        kind, _, model = system.generator.partition(":")
        assert registry.resolve("generators", system.generator).origin.startswith("knowgen ")
        assert kind != "diffusers" or preset(model) is not None
    for scorer in suite.scorers:
        assert registry.resolve("scorers", scorer.scorer).origin.startswith("knowgen ")
    assert {task.task for task in suite.tasks} <= set(registry.entries("tasks"))
