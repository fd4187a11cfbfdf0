"""The command line: output, files and exit codes of its verbs."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from knowgen.cli.list import DESCRIPTIONS
from knowgen.cli.main import VERBS, run
from knowgen.core import registry
from knowgen.store.run import RunStore
from knowgen.tasks.load import load_task
from knowgen.workflows.selection import select_samples
from tests.helpers.text import one_line

pytestmark = pytest.mark.usefixtures("in_process")

RUN = ["run", "--task", "small", "--generator", "my_generator.py:draw"]


@pytest.mark.parametrize("words", [[verb] for verb in VERBS] + [["world", "build"]], ids=" ".join)
def test_every_help_fits_a_screen_and_shows_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 44
    assert max(len(line) for line in text.splitlines()) <= 96
    assert re.search(rf"Examples?:\n +knowgen {words[0]}", text)


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["suite", "--help"]], ids=" ".join)
def test_help_imports_no_heavy_library(words: list[str]) -> None:
    code = (
        "import sys, contextlib, io\nfrom knowgen.cli.main import run\n"
        f"with contextlib.redirect_stdout(io.StringIO()): run({words})\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "PIL", "numpy", "pandas", "openai", "pydantic", "cv2", "onnxruntime", "rapidocr", "jinja2"}
    assert not heavy & set(loaded)


def test_a_run_prints_its_table_and_the_next_commands(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*RUN, "--out", "out"]) == 0
    text = capsys.readouterr().out
    assert "0.500" in text and "a scorer of the tests" in text
    assert re.search(r"^resume +knowgen run ", text, re.MULTILINE)
    assert re.search(r"^rescore +knowgen score out ", text, re.MULTILINE)
    page = Path(re.findall(r"^report +(.*)$", text, re.MULTILINE)[0])
    assert page.is_file() and page.name == "index.html"
    summary = json.loads((workspace / "out" / "summary.json").read_text())
    assert {each["protocol"] for each in summary["summaries"]} == {"strict", "official"}
    assert sorted(path.suffix for path in (workspace / "out" / "tables").iterdir()) == [".csv", ".csv", ".md", ".md"]


def test_the_printed_resume_command_resumes(workspace: Path) -> None:
    command = [sys.executable, "-m", "knowgen", *RUN, "--out", "out dir"]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    line = re.findall(r"^resume +(.*)$", first.stdout, re.MULTILINE)[0]
    calls = (workspace / "calls.txt").read_text()
    assert subprocess.run(line, shell=True, capture_output=True, text=True, check=True).returncode == 0
    assert (workspace / "calls.txt").read_text() == calls


def test_a_finished_run_repeated_does_no_work(workspace: Path) -> None:
    assert run([*RUN, "--out", "out"]) == 0
    before = {path: path.stat().st_mtime_ns for path in (workspace / "out" / "images").rglob("*.png")}
    page = (workspace / "out" / "report" / "index.html").stat().st_mtime_ns
    calls = (workspace / "calls.txt").read_text()
    (workspace / "my_generator.py").write_text((workspace / "my_generator.py").read_text())
    assert run([*RUN, "--out", "out"]) == 0
    assert (workspace / "calls.txt").read_text() == calls
    assert {path: path.stat().st_mtime_ns for path in (workspace / "out" / "images").rglob("*.png")} == before
    assert (workspace / "out" / "report" / "index.html").stat().st_mtime_ns == page


def test_an_edited_model_is_not_answered_with_its_old_images(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "knowgen", *RUN, "--out", "out"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    (workspace / "my_generator.py").write_text((workspace / "my_generator.py").read_text().replace(", 9)", ", 10)"))
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 3
    assert "generator.revision" in one_line(again.stderr)
    assert subprocess.run([*command, "--fresh"], capture_output=True, check=False).returncode == 0


def test_failed_samples_end_with_six_and_are_reported(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--task", "small", "--generator", "my_generator:Picky", "--out", "out"]) == 6
    with RunStore.read(workspace / "out") as store:
        failed = [each for _, each in store.generations() if each.status == "failed"]
    assert [each.sample_id for each in failed] == ["s2"]
    assert "cannot draw three" in failed[0].reason
    assert re.search(r"\b1\b", capsys.readouterr().out.split("failed")[1])


def test_runs_with_limit_ids_and_all_samples_share_a_directory(workspace: Path) -> None:
    assert run([*RUN, "--out", "out", "--limit", "2"]) == 0
    chosen = [sample.id for sample in select_samples(load_task("small"), limit=2, ids=None)[0]]
    assert sorted((workspace / "calls.txt").read_text().split()) == chosen
    assert run([*RUN, "--out", "out", "--ids", "s1,s5"]) == 0
    assert run([*RUN, "--out", "out"]) == 0
    assert sorted((workspace / "calls.txt").read_text().split()) == ["s0", "s1", "s2", "s3", "s4", "s5"]
    assert json.loads((workspace / "out" / "summary.json").read_text())["summaries"][0]["selection"] == "all 6"


def test_repeats_and_judge_repeats_multiply_the_calls(workspace: Path) -> None:
    assert run([*RUN, "--out", "out", "--repeats", "2", "--judge-repeats", "3"]) == 0
    assert len((workspace / "calls.txt").read_text().split()) == 36
    with RunStore.read(workspace / "out") as store:
        assert len(list(store.rows("my_scorer:Half"))) == 36
        seeds = {(each.repeat, each.seed) for _, each in store.generations()}
    assert seeds == {(0, 0), (1, 1)}


def test_dry_run_generates_nothing(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*RUN, "--out", "out", "--dry-run"]) == 0
    assert "images     6" in capsys.readouterr().out
    assert not (workspace / "out").exists() and not (workspace / "calls.txt").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["rnu"], 2, "unknown command 'rnu'; did you mean 'run'?"),
        (["run", "--task", "knowgen_mnii", "--generator", "noise"], 2, "did you mean 'knowgen_mini'?"),
        (["run", "--task", "small", "--generator", "oracel"], 2, "unknown generator 'oracel'; did you mean 'oracle'?"),
        ([*RUN, "--scorer", "world_chek"], 2, "did you mean 'world_check'?"),
        ([*RUN, "--protocol", "stict"], 2, "did you mean 'strict'?"),
        ([*RUN, "--limit", "0"], 2, "limit must be a whole number >= 1, got 0"),
        ([*RUN, "--limit", "1", "--ids", "s1"], 2, "exclude each other"),
        ([*RUN, "--ids", "s1,zz"], 2, "no sample 'zz'"),
        ([*RUN, "-g", "steps"], 2, "is not key=value"),
        (["run", "--task", "small", "--generator", "openai", "--dry-run"], 2, "name it as openai:MODEL"),
        ([*RUN, "-s", "valeu=1"], 2, "it takes value"),
        ([*RUN, "-s", "api_key=sk-1"], 3, "looks like a secret"),
        (["run", "--task", "small", "--generator", "my_generator:Picky", "-g", "sise=3"], 2, "it takes size"),
        (["run", "--task", "small", "--generator", "my_generator:nothing"], 2, "has no 'nothing'"),
        (["run", "--task", "./nowhere", "--generator", "noise"], 2, "no task folder"),
        (["score", "nowhere", "--scorer", "my_scorer:Half"], 3, "nowhere: is missing"),
        (["score", "small/truth", "--scorer", "my_scorer:Half"], 2, "--task"),
        (["compare", "out"], 2, "a comparison needs at least two runs"),
        (["compare", "out", "out2"], 3, "not a run directory"),
        (["report", "nowhere", "-o", "x"], 3, "not a run directory"),
        (["export", "nowhere", "--format", "csv", "-o", "x"], 3, "not a run directory"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_its_exit_code(
    workspace: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert run(words) == code
    printed = capsys.readouterr()
    line = one_line(printed.err)
    assert line.startswith("knowgen: ") and message in line
    assert "sk-1" not in line


def test_a_broken_task_file_is_one_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "small" / "task.yaml").write_text("name: [x\n")
    assert run(RUN) == 3
    assert "task.yaml:2: broken YAML" in one_line(capsys.readouterr().err)


def test_duplicate_ids_are_one_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = workspace / "small" / "samples.jsonl"
    samples.write_text(samples.read_text().replace('"s3"', '"s1"'))
    assert run(RUN) == 3
    assert "samples.jsonl:4: duplicate id 's1', already on line 2" in one_line(capsys.readouterr().err)


def test_a_truth_image_that_does_not_open_is_reported_before_anything_is_generated(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "small" / "truth" / "s4.png").unlink()
    assert run(RUN) == 3
    assert "truth/s4.png is missing" in one_line(capsys.readouterr().err)
    assert not (workspace / "calls.txt").exists()


def test_another_runs_directory_is_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*RUN, "--out", "out"]) == 0
    capsys.readouterr()
    assert run([*RUN, "--out", "out", "--seed", "5"]) == 3
    assert "seed" in one_line(capsys.readouterr().err)
    (workspace / "precious").mkdir()
    (workspace / "precious" / "thesis.txt").write_text("x")
    assert run([*RUN, "--out", "precious", "--fresh"]) == 3
    assert (workspace / "precious" / "thesis.txt").read_text() == "x"


def test_debug_shows_the_traceback(workspace: Path) -> None:
    command = [sys.executable, "-m", "knowgen", "--debug", "run", "--task", "nope", "--generator", "noise"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" in shown.stderr and "unknown task" in shown.stderr


def test_a_folder_of_images_is_scored(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "mine").mkdir()
    for number in range(4):
        Image.new("RGB", (64, 48), (number, 9, 9)).save(workspace / "mine" / f"s{number}.png")
    (workspace / "mine" / "s4.png").write_bytes(b"not an image")
    Image.new("RGB", (8, 8)).save(workspace / "mine" / "stranger.png")
    assert run(["score", "mine", "--task", "small", "--out", "out"]) == 6
    assert "stranger.png" in capsys.readouterr().err
    with RunStore.read(workspace / "out") as store:
        states = {each.sample_id: (each.status.value, each.reason) for _, each in store.generations()}
    assert [states[f"s{number}"][0] for number in range(5)] == ["ok"] * 4 + ["failed"]
    assert "s4.png" in states["s4"][1] and "s5" not in states  # without an image it is not run
    assert sorted((workspace / "calls.txt").read_text().split()) == ["s0", "s1", "s2", "s3"]


def test_a_run_is_scored_again_in_place_and_elsewhere(workspace: Path) -> None:
    assert run([*RUN, "--out", "out"]) == 0
    shutil.rmtree(workspace / "small" / "truth", ignore_errors=False)
    (workspace / "my_generator.py").unlink()  # no generator is loaded
    shutil.copytree(workspace / "out", workspace / "copy")
    (workspace / "small" / "truth").mkdir()
    for number in range(6):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(workspace / "small" / "truth" / f"s{number}.png")
    assert run(["score", "out", "--scorer", "my_scorer:Half", "-s", "value=1.0"]) == 0
    assert run(["score", "copy", "--scorer", "my_scorer:Half", "-s", "value=0.0", "--out", "else"]) == 0
    values = [
        json.loads((workspace / name / "summary.json").read_text())["summaries"][0]["slices"][0]["figures"]["overall"][
            "value"
        ]
        for name in ("out", "copy", "else")
    ]
    assert values == [1.0, 0.5, 0.0]


def test_scoring_in_place_keeps_other_scores_and_never_deletes_images(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*RUN, "--out", "out"]) == 0
    (workspace / "other.py").write_text((workspace / "my_scorer.py").read_text())
    assert run(["score", "out", "--scorer", "other:Half", "-s", "value=1.0"]) == 0
    scorers = {each["scorer"] for each in json.loads((workspace / "out" / "summary.json").read_text())["summaries"]}
    assert scorers == {"my_scorer:Half", "other:Half"}
    capsys.readouterr()
    assert run(["score", "out", "--scorer", "other:Half", "--fresh"]) == 2
    assert "would delete the images" in one_line(capsys.readouterr().err)
    with RunStore.read(workspace / "out") as store:
        assert sum(each.status == "ok" for _, each in store.generations()) == 6


def test_missing_generations_of_an_interrupted_run_stay_not_run_after_scoring(workspace: Path) -> None:
    assert run([*RUN, "--out", "out"]) == 0
    with contextlib.closing(sqlite3.connect(workspace / "out" / "run.sqlite")) as database, database:
        database.execute("delete from generations where sample_id = 's1'")
    (workspace / "out" / "summary.json").unlink()
    for target in ("out", "else"):
        assert run(["score", "out", "--scorer", "my_scorer:Half", "--out", target]) == 6
        slices = json.loads((workspace / target / "summary.json").read_text())["summaries"][0]["slices"]
        assert slices[0]["coverage"]["generation_not_run"] == 1
        assert slices[0]["coverage"]["generation_failed"] == 0
        overall = slices[0]["figures"]["overall"]
        assert (overall["value"], overall["partial"]) == (None, 0.5)
        assert overall["note"] == "No result: 1 of 6 scores not run yet"


def test_outputs_are_written_again_when_a_run_was_killed_before_them(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise SystemExit("killed")

    assert run([*RUN, "--out", "out"]) == 0
    with contextlib.closing(sqlite3.connect(workspace / "out" / "run.sqlite")) as database, database:
        database.execute("delete from scores where sample_id = 's1'")
    with monkeypatch.context() as patch:
        patch.setattr("knowgen.workflows.artifacts.write", killed)
        with contextlib.suppress(SystemExit):
            run([*RUN, "--out", "out"])
    before = (workspace / "out" / "summary.json").stat().st_mtime_ns
    assert run([*RUN, "--out", "out"]) == 0
    after = (workspace / "out" / "summary.json").stat().st_mtime_ns
    assert after > before
    assert run([*RUN, "--out", "out"]) == 0
    assert (workspace / "out" / "summary.json").stat().st_mtime_ns == after, "nothing was left to do"


def test_fresh_never_deletes_source_images_in_the_run_directory(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "own" / "images").mkdir(parents=True)
    image_file = workspace / "own" / "images" / "0.png"
    Image.new("RGB", (64, 48)).save(image_file)
    row = {
        "id": 0, "success": True, "prompt": "p", "meta": {"category": "art"}, "output_path": "images/0.png",
        "gt_image": "images/0.png",
    }  # fmt: skip
    (workspace / "own" / "results.json").write_text(json.dumps([row]))
    command = ["score", "own/results.json", "--scorer", "my_scorer:Half", "--out", "own"]
    assert run(command) == 3
    assert "contains 'images' and is not a run directory" in one_line(capsys.readouterr().err)
    (workspace / "own" / "run.json").write_text("{}")  # as if the folder had been a run before
    assert run([*command, "--fresh"]) == 2
    assert "would delete the images" in one_line(capsys.readouterr().err)
    assert image_file.is_file()


def test_official_results_are_scored_and_exported(workspace: Path) -> None:
    (workspace / "mine").mkdir()
    rows = []
    for number in range(3):
        Image.new("RGB", (64, 48), (number, 9, 9)).save(workspace / "mine" / f"{number}.png")
        rows.append({
            "id": number, "success": number != 2, "prompt": f"prompt {number}",
            "meta": {"category": "art", "difficulty": "easy"},
            "output_path": f"mine/{number}.png", "gt_image": f"small/truth/s{number}.png",
        })  # fmt: skip
    (workspace / "results.json").write_text(json.dumps(rows))
    assert run(["score", "results.json", "--scorer", "my_scorer:Half", "--out", "out"]) == 6
    assert run(["export", "out", "--format", "official", "-o", "results_eval.json"]) == 0
    back = json.loads((workspace / "results_eval.json").read_text())
    assert [row.get("id") for row in back[:3]] == [0, 1, 2]
    assert [row["eval_success"] for row in back[:3]] == [True, True, False]
    assert back[0]["scores"]["overall"] == 0.5 and back[2]["error"] == "not_evaluated"
    assert [row["summary_type"] for row in back[3:]] == ["science_and_knowledge", "pop_culture_and_news", "overall_avg"]
    assert back[5]["avg_scores"]["overall"] == 0.25  # the empty group counts as zero, officially
    assert back[3]["count"] == 2


def test_exports_for_other_tools_agree(workspace: Path) -> None:
    import pyarrow.parquet as pq

    assert run([*RUN, "--out", "out", "--repeats", "2"]) == 0
    for form in ("jsonl", "csv", "parquet"):
        assert run(["export", "out", "--format", form, "-o", f"x.{form}"]) == 0
    lines = [json.loads(line) for line in (workspace / "x.jsonl").read_text().splitlines()]
    with (workspace / "x.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    parquet = pq.read_table(workspace / "x.parquet").to_pylist()
    assert len(lines) == len(table) == len(parquet) == 12
    assert (
        [row["sample_id"] for row in lines]
        == [row["sample_id"] for row in table]
        == [row["sample_id"] for row in parquet]
    )


def test_compare_and_report_over_several_runs(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*RUN, "--out", "a"]) == 0
    assert run([*RUN, "--out", "b", "--seed", "3"]) == 0
    assert run(["score", "b", "--scorer", "my_scorer:Half"]) == 0
    capsys.readouterr()
    assert run(["compare", "a", "b", "--json"]) == 0
    comparisons = json.loads(capsys.readouterr().out)
    assert len(comparisons) == 1
    assert run(["compare", "a", "b"]) == 0
    assert "(a)" in capsys.readouterr().out
    assert run(["report", "a", "b", "-o", "both"]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()


def test_compare_refuses_runs_of_different_task_versions(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*RUN, "--out", "a"]) == 0
    samples = workspace / "small" / "samples.jsonl"
    samples.write_text(samples.read_text().replace("sixers", "seven"))
    assert run([*RUN, "--out", "b"]) == 0
    capsys.readouterr()
    assert run(["compare", "a", "b"]) != 0
    assert "task" in one_line(capsys.readouterr().err)


def test_list_shows_runs_and_survives_a_broken_one(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*RUN, "--out", "reports/one"]) == 0
    (workspace / "reports" / "two").mkdir()
    (workspace / "reports" / "two" / "run.json").write_text("{")
    capsys.readouterr()
    assert run(["list", "runs"]) == 0
    text = capsys.readouterr().out
    assert "reports/one" in text and "strict 0.500" in text and "cannot be read" in text


def test_list_names_plugins_without_importing_them(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, name in (("tasks", "knowgen_mini"), ("generators", "open_book"), ("scorers", "vlm"), ("search", "world")):
        assert run(["list", kind]) == 0
        assert name in capsys.readouterr().out


def test_list_describes_every_bundled_plugin() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    for kind in registry.KINDS:
        assert set(project["entry-points"][f"knowgen.{kind}"]) == set(DESCRIPTIONS[kind])


def test_run_eval_is_knowgen_run(workspace: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "run_eval.py"
    words = [sys.executable, str(script), "--task", "small", "--generator", "my_generator:draw", "--out", "out"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert re.search(r"^resume   (knowgen|\S+/knowgen|\S+ -m knowgen) run --task small", done.stdout, re.MULTILINE)
