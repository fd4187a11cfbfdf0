"""Preparing the benchmark from a hub: which files are fetched, the pinned commit, and killed preparations."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from knowgen.core.errors import DataError
from knowgen.core.records import group_of
from knowgen.tasks.data_home import find_prepared
from knowgen.tasks.load import load_task
from knowgen.validation.findings import worst
from knowgen.validation.task import check_task
from tests.helpers.archive_data import BENCH, BENCH_FILE, Command, bench_files, bench_rows, image_bytes, zipped
from tests.helpers.hub_server import HubServer
from tests.helpers.processes import wait_until

SLOW = pytest.mark.slow

EXPECTED = {"0": 0, "1": 1, "3": 3, "4": 4, "5": 5}
"""Number of the generated image of each row with a PNG image, by id."""


def test_the_benchmark_is_prepared_and_loads_as_a_task(hub: HubServer, knowgen: Command, home: Path) -> None:
    sha = hub.commit(BENCH, bench_files())
    done = knowgen("task", "prepare", "knowgen")
    assert done.returncode == 0, done.stderr
    assert f"knowgen at {sha[:22]}, 6 rows, 6 images" in done.stdout
    task = load_task("knowgen")
    samples = {sample.id: sample for sample in task.samples()}
    assert list(samples) == [str(row["id"]) for row in bench_rows()] and len(task) == 6
    for row in bench_rows():
        sample = samples[str(row["id"])]
        category = row["meta"]["category"].lower()
        assert (sample.prompt, sample.category) == (row["prompt"], category)
        assert sample.group == group_of(category) != "unknown"
        assert (sample.difficulty, sample.meta) == (row["meta"]["difficulty"], {"lang": "en"})
    for name, number in EXPECTED.items():
        image = task.truth(name).image
        assert image is not None and image.path is not None
        assert image.path.read_bytes() == image_bytes(number), f"sample {name}"
        assert image.sha256 == hashlib.sha256(image_bytes(number)).hexdigest()
    jpeg = task.truth("2").image
    assert jpeg is not None and jpeg.format == "JPEG" and jpeg.path is not None
    assert jpeg.path.read_bytes() == image_bytes(2, "JPEG")
    assert task.default_scorers == ("vlm:gpt-4.1",)
    assert task.version.startswith(sha[:12] + "-")
    assert hub.fetched("README.md") == 0
    fetched = [path for _, path in hub.requests if "/resolve/" in path]
    assert len(fetched) == 8 and all(f"/resolve/{sha}/" in path for path in fetched), "exactly that commit's files"
    check_passes_with_a_warning()
    index_records_the_origin(sha)


def check_passes_with_a_warning() -> None:
    findings = check_task(load_task("knowgen"))
    by_name = {finding.check: finding for finding in findings}
    assert "6 open, and are as recorded" in by_name["images"].what
    assert by_name["text"].level == "warn" and "6 of 6" in by_name["text"].what
    assert [finding.check for finding in findings if finding.level == "fail"] == []
    assert worst(findings) == "warn"


def index_records_the_origin(sha: str) -> None:
    prepared = find_prepared("knowgen")
    assert prepared is not None
    index = json.loads((prepared.folder / "index.json").read_text())
    assert (index["repo"], index["revision"], index["commit"]) == (BENCH, "main", sha)
    assert index["file_sha256"] == hashlib.sha256(json.dumps(bench_rows()).encode()).hexdigest()
    archives = {name: len(data) for name, data in bench_files().items() if name.endswith((".zip", ".gz"))}
    assert index["archives"] == archives


def test_a_second_preparation_does_nothing(hub: HubServer, knowgen: Command, home: Path) -> None:
    hub.commit(BENCH, bench_files())
    assert knowgen("task", "prepare", "knowgen").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    requests = len(hub.requests)
    again = knowgen("task", "prepare", "knowgen")
    named = knowgen("task", "prepare", "knowgen", "--revision", "main")
    for done in (again, named):
        assert done.returncode == 0 and done.stdout.startswith("already prepared: knowgen at ")
        assert done.stderr == ""
    assert len(hub.requests) == requests
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_a_second_preparation_imports_no_heavy_library(hub: HubServer, knowgen: Command) -> None:
    hub.commit(BENCH, bench_files())
    assert knowgen("task", "prepare", "knowgen").returncode == 0
    script = (
        "import sys; from knowgen.cli.main import run; code = run(['task', 'prepare', 'knowgen'])\n"
        "heavy = {'huggingface_hub', 'PIL', 'numpy', 'pydantic', 'datasets', 'torch', 'zipfile'} & set(sys.modules)\n"
        "print(code, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.slow
def test_the_commit_stays_pinned_when_the_hub_has_a_new_one(hub: HubServer, knowgen: Command) -> None:
    first = hub.commit(BENCH, bench_files())
    assert knowgen("task", "prepare", "knowgen").returncode == 0
    version = load_task("knowgen").version
    rows = [{**row, "prompt": row["prompt"] + " (changed)"} for row in bench_rows()]
    second = hub.commit(BENCH, bench_files(rows))
    assert knowgen("task", "prepare", "knowgen").stdout.startswith("already prepared")
    assert knowgen("task", "prepare", "knowgen", "--force").returncode == 0
    prepared = find_prepared("knowgen")
    assert prepared is not None and (prepared.commit, prepared.revision) == (first, "main")
    assert load_task("knowgen").version == version
    moved = knowgen("task", "prepare", "knowgen", "--revision", "main", "--force")
    assert moved.returncode == 0 and second[:22] in moved.stdout
    assert next(iter(load_task("knowgen").samples())).prompt.endswith("(changed)")
    back = knowgen("task", "prepare", "knowgen", "--revision", first)
    assert back.returncode == 0 and "unpacking" not in back.stderr
    assert load_task("knowgen").version == version


def test_the_hub_token_is_sent_and_not_written_anywhere(hub: HubServer, knowgen: Command, home: Path) -> None:
    hub.commit(BENCH, bench_files())
    done = knowgen("task", "prepare", "knowgen", HF_TOKEN="hf_madeuptoken")
    assert done.returncode == 0 and "Bearer hf_madeuptoken" in hub.tokens
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"madeuptoken" not in written + done.stdout.encode() + done.stderr.encode()


def test_a_download_that_was_killed_is_continued(hub: HubServer, knowgen: Command, home: Path) -> None:
    sha = hub.commit(BENCH, bench_files())
    hub.stalled = {"packs/part2.zip"}
    command = [sys.executable, "-m", "knowgen", "task", "prepare", "knowgen"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        assert hub.stalling.wait(60)
        blobs = Path(os.environ["HF_HOME"]) / "hub"
        wait_until(lambda: len([path for path in blobs.rglob("snapshots/*/*") if path.is_file()]) == 3)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    hub.release.set()
    hub.stalled = set()
    assert find_prepared("knowgen") is None
    with pytest.raises(DataError, match="is not prepared on this machine; run: knowgen task prepare knowgen"):
        load_task("knowgen")
    assert knowgen("task", "prepare", "knowgen").returncode == 0
    assert [hub.fetched(name) for name in (BENCH_FILE, "images.zip", "more.tar.gz")] == [1, 1, 1]
    prepared = find_prepared("knowgen")
    assert prepared is not None and prepared.commit == sha


@pytest.mark.parametrize(
    "step", ["inspect_images", pytest.param("write_rows", marks=SLOW), pytest.param("write_json", marks=SLOW)]
)
def test_a_killed_build_leaves_nothing_that_looks_finished(
    hub: HubServer, knowgen: Command, home: Path, step: str
) -> None:
    hub.commit(BENCH, bench_files())
    script = (
        "import os, knowgen.tasks.prepare.build as build\n"
        f"build.{step} = lambda *rest: os.kill(os.getpid(), 9)\n"
        "from knowgen.cli.main import run; run(['task', 'prepare', 'knowgen'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    left = {path.name for path in (home / "knowgen").iterdir()}
    assert any(name.startswith(".draft-") for name in left)
    assert all(name.startswith(".") for name in left) and find_prepared("knowgen") is None
    bodies = [request for request in hub.requests if request[0] == "GET" and "/resolve/" in request[1]]
    assert knowgen("task", "prepare", "knowgen").returncode == 0
    assert [request for request in hub.requests if request[0] == "GET" and "/resolve/" in request[1]] == bodies
    assert not [path for path in (home / "knowgen").iterdir() if path.name.startswith(".draft-")]
    assert worst(check_task(load_task("knowgen"))) == "warn"


def test_an_interrupted_download_ends_at_once(hub: HubServer, home: Path) -> None:
    hub.commit(BENCH, bench_files())
    hub.stalled = {"images.zip"}
    command = [sys.executable, "-m", "knowgen", "task", "prepare", "knowgen"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert hub.stalling.wait(60)
    process.send_signal(signal.SIGINT)
    _, output = process.communicate(timeout=20)
    assert process.returncode == 130 and output.splitlines()[-1] == "knowgen: interrupted"
    assert find_prepared("knowgen") is None


def test_many_loose_images_are_fetched_too(hub: HubServer, knowgen: Command) -> None:
    rows = [{"id": n, "prompt": f"p{n}", "gt_image": f"x/images/{n}.png"} for n in range(20)]
    files = {BENCH_FILE: json.dumps(rows).encode(), **{f"images/{n}.png": image_bytes(n) for n in range(20)}}
    hub.commit(BENCH, files)
    assert knowgen("task", "prepare", "knowgen").returncode == 0
    images = [load_task("knowgen").truth(str(n)).image for n in range(20)]
    assert [image.path.read_bytes() for image in images if image and image.path] == [image_bytes(n) for n in range(20)]


@pytest.mark.slow
def test_two_concurrent_preparations_are_refused(hub: HubServer, knowgen: Command) -> None:
    hub.commit(BENCH, bench_files())
    hub.stalled = {"packs/part2.zip"}
    command = [sys.executable, "-m", "knowgen", "task", "prepare", "knowgen"]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert hub.stalling.wait(60)
    second = knowgen("task", "prepare", "knowgen")
    assert second.returncode == 3 and "another process is preparing it" in second.stderr
    hub.release.set()
    assert first.wait(60) == 0


@pytest.mark.slow
def test_a_forced_preparation_preserves_paid_answers(hub: HubServer, knowgen: Command) -> None:
    hub.commit(BENCH, bench_files())
    assert knowgen("task", "prepare", "knowgen").returncode == 0
    first = find_prepared("knowgen")
    assert first is not None
    (first.folder / "text_required.journal.jsonl").write_text('{"paid": 1}\n')
    assert knowgen("task", "prepare", "knowgen", "--force").returncode == 0
    prepared = find_prepared("knowgen")
    assert prepared is not None and not first.folder.exists() and prepared.folder != first.folder
    assert (prepared.folder / "text_required.journal.jsonl").read_text() == '{"paid": 1}\n'


@pytest.mark.slow
def test_hub_errors_are_reported_in_one_line(hub: HubServer, knowgen: Command, home: Path) -> None:
    unknown = knowgen("task", "prepare", "knowgen")
    assert unknown.returncode == 3 and "the dataset does not exist" in unknown.stderr
    hub.commit(BENCH, {"other.json": b"[]"})
    nothing = knowgen("task", "prepare", "knowgen")
    assert nothing.returncode == 3 and f"does not contain {BENCH_FILE}; it contains other.json" in nothing.stderr
    revision = knowgen("task", "prepare", "knowgen", "--revision", "nope")
    assert revision.returncode == 3 and "unknown revision 'nope'" in revision.stderr
    away = knowgen("task", "prepare", "knowgen", HF_ENDPOINT="http://127.0.0.1:9")
    assert away.returncode == 3 and "the hub cannot be reached" in away.stderr and "--data-dir" in away.stderr
    name = knowgen("task", "prepare", "knowgn")
    assert name.returncode == 2 and "did you mean 'knowgen'" in name.stderr
    for done in (unknown, nothing, revision, away, name):
        assert [line for line in done.stderr.splitlines() if line.startswith("knowgen: ")] == [
            done.stderr.splitlines()[-1]
        ]


def test_archives_from_the_hub_are_not_trusted(hub: HubServer, knowgen: Command, home: Path) -> None:
    hub.commit(BENCH, {**bench_files(), "evil.zip": zipped({"../../evil.txt": b"x"})})
    done = knowgen("task", "prepare", "knowgen")
    assert done.returncode == 3 and "evil.zip: refused: its member '../../evil.txt' leaves its folder" in done.stderr
    assert find_prepared("knowgen") is None and not list(home.parent.rglob("evil.txt"))


def test_help_fits_a_screen_and_shows_an_example(knowgen: Command) -> None:
    for words in (["task"], ["task", "prepare"], ["task", "annotate"]):
        output = knowgen(*words, "--help").stdout
        assert len(output.splitlines()) <= 24 and max(map(len, output.splitlines())) <= 80
        assert "  knowgen task " in output
