"""Killed writers, a second process, a full disk, a read-only directory."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowgen.core.errors import ConfigError
from knowgen.core.records import Generation
from knowgen.core.spec import GeneratorSpec, RunSpec, ScorerSpec, Selection
from knowgen.store.lock import RunLock
from knowgen.store.run import RunStore
from tests.helpers import store_records

SAMPLES = 120

WRITER = """
import hashlib, sys, time
from pathlib import Path
from knowgen.core.records import Generation, GroundTruth, ParsedScore, Sample, Score
from knowgen.core.spec import RunSpec
from knowgen.store.run import RunStore

folder, count = Path(sys.argv[1]), int(sys.argv[3])
spec = RunSpec.model_validate_json(sys.argv[2])
with RunStore.open(folder, spec) as store:
    print("open", flush=True)
    names = [f"s{number}" for number in range(count)]
    store.put_samples((Sample(id=name, prompt=name), GroundTruth(sample_id=name)) for name in names)
    for name in names:
        if store.generation("g" + name) is not None and store.score("j" + name) is not None:
            continue
        number = store.reserve(0.01, "judge")
        print("reserved", number, flush=True)
        ref = store.put_image(hashlib.sha512(name.encode()).digest() * 200, width=8, height=8, format="PNG")
        store.put_generation("g" + name, Generation(sample_id=name, status="ok", image=ref))
        parsed = ParsedScore(status="ok", values={"faithfulness": 1.0})
        score = Score(sample_id=name, scorer="judge", status="ok", strict=parsed, image=ref.sha256)
        store.put_score("j" + name, score, spec.scorers[0])
        store.settle(number, 0.005)
        time.sleep(0.002)
        if int(name[1:]) % 5 == 0:
            store.commit()
            print("committed", name, flush=True)
print("done", flush=True)
"""


@pytest.fixture
def spec() -> RunSpec:
    scorer = ScorerSpec(name="judge")
    return RunSpec(
        task="t",
        task_version="1",
        selection=Selection(n=SAMPLES),
        generator=GeneratorSpec(name="g"),
        scorers=(scorer,),
    )


def _facts(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Return statuses and image digest of each sample."""
    with RunStore.read(folder) as store:
        digests = {each.sample_id: each.image.sha256 for _, each in store.generations() if each.image}
        rows = store.rows("judge")
        return {row.sample_id: (row.generation, row.strict.status, digests[row.sample_id]) for row in rows}


def test_a_writer_killed_at_any_moment_leaves_a_consistent_store_and_can_be_continued(
    tmp_path: Path, spec: RunSpec
) -> None:
    randomness = random.Random(5)
    folder, committed, reserved, kills = tmp_path / "run", set(), 0, 0
    while True:
        process = store_records.start_code(WRITER, folder, spec.model_dump_json(), SAMPLES)
        lines_to_live = randomness.randint(0, 30)
        finished = False
        assert process.stdout is not None and process.stderr is not None
        for number, line in enumerate(process.stdout):
            words = line.split()
            committed |= {words[1]} if words[0] == "committed" else set()
            reserved += words[0] == "reserved"
            finished = words[0] == "done"
            if number >= lines_to_live:
                time.sleep(randomness.random() * 0.01)
                process.kill()
                break
        for line in process.stdout:  # lines printed before the signal arrived
            words = line.split()
            committed |= {words[1]} if words[0] == "committed" else set()
            reserved += words[0] == "reserved"
            finished = finished or words[0] == "done"
        assert process.wait() in {0, -signal.SIGKILL}, process.stderr.read()
        process.stdout.close()
        process.stderr.close()
        _check(folder, committed, reserved)
        if finished:
            break
        kills += 1
    assert kills >= 4
    undisturbed = tmp_path / "undisturbed"
    whole = store_records.start_code(WRITER, undisturbed, spec.model_dump_json(), SAMPLES)
    assert whole.communicate()[0].split()[-1] == "done"
    assert _facts(folder) == _facts(undisturbed)
    assert _images(folder) == _images(undisturbed)


def _images(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "images").rglob("*") if path.is_file()}


def _check(folder: Path, committed: set[str], reserved: int) -> None:
    for path in (folder / "images").glob("??/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
    if not (folder / "run.sqlite").exists():
        assert not committed and not reserved
        return
    connection = sqlite3.connect(folder / "run.sqlite")
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    if connection.execute("pragma user_version").fetchone() == (0,):
        assert not committed and not reserved
        connection.close()
        return
    connection.close()
    with RunStore.read(folder) as store:
        for name in committed:
            assert store.generation("g" + name) is not None
            assert store.score("j" + name) is not None
        for _, generation in store.generations():
            assert generation.image is not None and store.image_ok(generation.image)
        assert store.spent() >= reserved * 0.005 - 1e-9


def test_a_killed_run_can_be_read_in_a_read_only_folder(public_folder: Path, spec: RunSpec) -> None:
    folder = public_folder / "run"
    process = store_records.start_code(WRITER, folder, spec.model_dump_json(), SAMPLES)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("committed"):
            break
    process.kill()
    process.communicate()
    assert (folder / "run.sqlite-wal").stat().st_size > 0
    (folder / "run.sqlite-shm").unlink(missing_ok=True)
    code = """
    with RunStore.read(folder) as store:
        print(sum(1 for _ in store.generations()), len(list(store.rows("judge"))))
    """
    generations, rows = _as_another_user(folder, code).split()
    assert int(generations) >= 1 and int(rows) == SAMPLES


# -- read-only ---------------------------------------------------------------------------------------------------------

OTHER_USER = """
import os, sys
from pathlib import Path
from knowgen.core.errors import KnowgenError
from knowgen.core.records import Generation
from knowgen.core.spec import RunSpec
from knowgen.store.run import RunStore

folder = Path(sys.argv[1])
with RunStore.read(folder) as store:  # imports everything while the installation is readable
    list(store.rows("judge"))
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
%s
except KnowgenError as error:
    print(type(error).__name__, error)
"""


def _as_another_user(folder: Path, code: str, *more: str) -> str:
    """Run code as a user who may read the folder but not write it."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    process = store_records.start_code(OTHER_USER % code, folder, *more)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return str(out)


def test_a_read_only_directory_can_be_read_and_refuses_a_writer_in_one_line(public_folder: Path, spec: RunSpec) -> None:
    folder = public_folder / "run"
    with RunStore.open(folder, spec) as store:
        store.put_samples(store_records.items("a", "b"))
        ref = store.put_image(store_records.image_bytes(), width=24, height=16, format="PNG")
        store.put_generation("k", store_records.generation("a", ref))
    code = """
    with RunStore.read(folder) as store:
        print(store.generation("k").status, store.image_ok(store.generation("k").image), len(list(store.rows("judge"))))
    """
    assert _as_another_user(folder, code).split() == ["ok", "True", "2"]
    writing = "    RunStore.open(folder, RunSpec.model_validate_json(sys.argv[2]))"
    words = _as_another_user(folder, writing, spec.model_dump_json())
    assert words.startswith(f"ConfigError {folder}: cannot be written (Permission denied)")
    assert len(words.splitlines()) == 1


def test_a_run_closed_beside_a_reader_can_be_read_in_a_read_only_folder(public_folder: Path, spec: RunSpec) -> None:
    folder = public_folder / "run"
    writer = RunStore.open(folder, spec)
    writer.put_generation("k", store_records.generation("a"))
    with RunStore.read(folder) as reader:
        writer.close()
        assert reader.generation("k") is not None
    for rest in ("run.sqlite-wal", "run.sqlite-shm"):
        (folder / rest).unlink(missing_ok=True)
    assert (folder / "run.sqlite").read_bytes()[18] == 2  # still marked as having a log
    code = """
    with RunStore.read(folder) as store:
        print(store.generation("k").status)
    """
    assert _as_another_user(folder, code).split() == ["failed"]


# -- full disk ---------------------------------------------------------------------------------------------------------

FULL_DISK = """
import os, resource, sys
from pathlib import Path
from knowgen.core.errors import KnowgenError
from knowgen.core.records import Generation
from knowgen.core.spec import RunSpec
from knowgen.store.run import RunStore

folder, limit, what = Path(sys.argv[1]), int(sys.argv[3]), sys.argv[4]
store = RunStore.open(folder, RunSpec.model_validate_json(sys.argv[2]))
store.put_generation("first", Generation(sample_id="s0", status="failed", reason="early"))
store.commit()
print("committed", flush=True)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    for number in range(10**6):
        if what == "images":
            store.put_image(os.urandom(300_000), width=8, height=8, format="PNG")
        else:
            store.put_generation(f"k{number}", Generation(sample_id=f"s{number}", status="failed", reason="x" * 5000))
            if number % 20 == 0:
                store.commit()
except KnowgenError as error:
    print(type(error).__name__, error, flush=True)
for attempt in (lambda: store.put_generation("late", Generation(sample_id="s", status="failed")), store.commit):
    try:
        attempt()
        print("no error")
    except KnowgenError as error:
        print(type(error).__name__, error, flush=True)
print("read", store.generation("first").reason, flush=True)
try:
    store.close()
except KnowgenError as error:
    print("close", type(error).__name__, flush=True)
"""


@pytest.fixture(params=["small disk", "limited files"])
def small_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Yield a folder on a disk of 2 MB, or a limit of file sizes if none can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    mountable = request.param == "small disk" and mount and os.geteuid() == 0
    if mountable and subprocess.run(command, check=False, capture_output=True).returncode == 0:
        yield folder, 0
        subprocess.run(["umount", str(folder)], check=True)
    else:
        yield folder, 250_000


@pytest.mark.parametrize("what", ["images", "rows"])
def test_a_full_disk_is_reported_in_one_line_and_commits_are_preserved(
    small_place: tuple[Path, int], spec: RunSpec, what: str
) -> None:
    place, limit = small_place
    (place / "ballast").write_bytes(bytes(400_000))
    process = store_records.start_code(FULL_DISK, place / "run", spec.model_dump_json(), limit, what)
    out, err = process.communicate()
    lines = out.splitlines()
    assert process.returncode == 0, err
    assert lines[0] == "committed"
    assert lines[1].startswith(f"DataError {place / 'run'}") and "full" in lines[1] and "preserved" in lines[1]
    if what == "rows":  # every later write fails as well
        assert lines[2] == lines[3] == lines[1]
    assert "read early" in lines
    for path in (place / "run" / "images").rglob("*.png"):
        assert path.stat().st_size == 300_000
        path.unlink()
    (place / "ballast").unlink()  # make room
    with RunStore.open(place / "run", spec) as store:
        first = store.generation("first")
        assert isinstance(first, Generation) and first.reason == "early"


# -- one process at a time ---------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from knowgen.store.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(600)
"""


def test_a_second_process_is_refused_and_a_lock_of_a_dead_one_is_ignored(tmp_path: Path, spec: RunSpec) -> None:
    holder = store_records.start_code(HOLDER, tmp_path)
    assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
    with pytest.raises(ConfigError) as caught:
        RunStore.open(tmp_path, spec)
    assert f"is in use by process {holder.pid} on {socket.gethostname()}" in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "run.lock"]
    holder.kill()
    holder.communicate()
    assert (tmp_path / "run.lock").exists()
    with RunStore.open(tmp_path, spec):
        assert f"{os.getpid()}" in (tmp_path / "run.lock").read_text()
    assert not (tmp_path / "run.lock").exists()


def test_the_same_process_cannot_open_a_run_twice(tmp_path: Path, spec: RunSpec) -> None:
    with RunStore.open(tmp_path, spec), pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
        RunStore.open(tmp_path, spec)
    RunStore.open(tmp_path, spec).close()


def test_a_failed_opening_releases_the_lock(tmp_path: Path, spec: RunSpec) -> None:
    RunStore.open(tmp_path, spec).close()
    with pytest.raises(ConfigError, match="holds another run"):
        RunStore.open(tmp_path, spec.model_copy(update={"seed": 9}))
    RunStore.open(tmp_path, spec).close()


def test_of_several_processes_only_one_has_the_lock(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from knowgen.core.errors import ConfigError
from knowgen.store.lock import RunLock
folder, count = Path(sys.argv[1]), 0
while count < 40:
    try:
        lock = RunLock(folder)
    except ConfigError:
        continue
    inside = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)  # fails if another process has the lock
    os.close(inside)
    os.unlink(folder / "inside")
    lock.release()
    count += 1
"""
    racers = [store_records.start_code(code, tmp_path) for _ in range(3)]
    for racer in racers:
        assert racer.communicate()[1] == ""
        assert racer.returncode == 0


def test_without_file_locks_the_content_of_the_lock_file_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    file = tmp_path / "run.lock"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for content in ("", "nonsense", f"{socket.gethostname()} {gone.pid}"):
        file.write_text(content)
        RunLock(tmp_path).release()
        assert not file.exists()
    file.write_text("another-host 1")
    with pytest.raises(ConfigError, match="process 1 on another-host"):
        RunLock(tmp_path)
    file.write_text(f"{socket.gethostname()} {os.getppid()}")
    with pytest.raises(ConfigError, match=f"process {os.getppid()}"):
        RunLock(tmp_path)
