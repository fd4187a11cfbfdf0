"""A run directory: records are read as written, current scores are used, damaged and foreign runs are refused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.core.records import (
    DIMENSIONS,
    Attempt,
    Generation,
    GenerationStatus,
    GroundTruth,
    ImageRef,
    ParsedScore,
    Sample,
    Score,
    ScoreStatus,
    Usage,
)
from knowgen.core.spec import GeneratorSpec, ScorerSpec
from knowgen.store.run import RunStore
from tests.helpers import store_records
from tests.helpers.processes import wait_until

TEXT = st.text(max_size=30)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e6, 1e6) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, PLAIN, max_size=3)
UNIT = st.floats(0, 1)
USAGE = st.builds(Usage, input_tokens=st.integers(0, 10**6), output_tokens=st.integers(0, 10**6), cost=st.none() | UNIT)
PARSED = st.builds(
    ParsedScore,
    status=st.sampled_from(ScoreStatus),
    values=st.dictionaries(st.sampled_from(DIMENSIONS), UNIT),
    na=st.lists(st.sampled_from(DIMENSIONS), max_size=2).map(tuple),
    rationale=TEXT,
    reason=TEXT,
)
DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
GENERATION = st.builds(
    Generation,
    sample_id=TEXT,
    repeat=st.integers(0, 5),
    status=st.sampled_from(GenerationStatus),
    reason=TEXT,
    image=st.none()
    | st.builds(
        ImageRef,
        sha256=DIGEST,
        width=st.integers(1, 9000),
        height=st.integers(1, 9000),
        format=st.sampled_from(["PNG", "JPEG", "WEBP"]),
        path=st.none(),
    ),
    used_prompt=TEXT,
    references=st.lists(OBJECTS, max_size=2).map(tuple),
    evidence=st.lists(OBJECTS, max_size=2).map(tuple),
    trajectory=st.lists(OBJECTS, max_size=2).map(tuple),
    seed=st.integers(0, 2**31 - 1),
    settings=OBJECTS,
    seconds=st.floats(0, 1e5),
    usage=USAGE,
    attempts=st.integers(1, 12),
)
SCORE = st.builds(
    Score,
    sample_id=TEXT,
    repeat=st.integers(0, 5),
    scorer=TEXT,
    judge_repeat=st.integers(0, 5),
    status=st.sampled_from(ScoreStatus),
    strict=PARSED,
    lenient=st.none() | PARSED,
    image=DIGEST,
    attempts=st.lists(st.builds(Attempt, reply=TEXT, error=TEXT, seconds=UNIT, usage=USAGE), max_size=2).map(tuple),
    judge_returned=TEXT,
    details=OBJECTS,
    usage=USAGE,
)
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with RunStore.open(tmp_path_factory.mktemp("shared") / "run", store_records.spec()) as store:
        yield store


@SETTINGS
@given(generation=GENERATION, key=DIGEST)
def test_a_generation_is_read_as_written(shared: RunStore, generation: Generation, key: str) -> None:
    shared.put_generation(key, generation)
    result = shared.generation(key)
    assert result is not None
    assert result.model_dump() == generation.model_dump()
    if result.image is not None:
        assert result.image.path == shared.image_path(result.image)


@SETTINGS
@given(score=SCORE, key=DIGEST)
def test_a_score_is_read_as_written(shared: RunStore, score: Score, key: str) -> None:
    shared.put_score(key, score, shared.spec.scorers[0])
    assert shared.score(key) == score


def test_a_lone_surrogate_or_an_unknown_object_does_not_lose_a_paid_reply(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        store.put_generation(
            "k", store_records.generation("a", settings={"word": "\ud800x", "folder": object(), "raw": b"\xff"})
        )
        score = store_records.score("a", "", attempts=(Attempt(reply="half \udfff pair"),))
        store.put_score("s", score, store.spec.scorers[0])
        generation, score_read = store.generation("k"), store.score("s")
    assert generation is not None and score_read is not None
    assert generation.settings["word"] == "\ufffdx"
    assert "object" in generation.settings["folder"]
    assert score_read.attempts[0].reply == "half \ufffd pair"


def test_a_value_that_is_not_a_number_is_refused_when_it_is_stored(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        with pytest.raises(ValueError, match="not JSON compliant"):
            store.put_score("s", store_records.score("a", "", value=float("nan")), store.spec.scorers[0])
        store.put_score("s", store_records.score("a", ""), store.spec.scorers[0])
        assert store.score("s") is not None


def test_samples_keep_their_order_over_many_pages(tmp_path: Path) -> None:
    names = [f"s{number * 7919 % 1000}" for number in range(1000)]
    truth_file = tmp_path / "truth.png"
    truth_file.write_bytes(store_records.image_bytes())
    ref = ImageRef(sha256="a" * 64, width=24, height=16, format="PNG", path=truth_file)
    with RunStore.open(tmp_path / "run", store_records.spec()) as store:
        store.put_samples((store_records.sample(name), GroundTruth(sample_id=name, image=ref)) for name in names)
        assert [each.id for each in store.samples()] == names
        truth = store.truth("s7")
        assert truth.image is not None and truth.image.path == truth_file
        with pytest.raises(DataError, match="'s1000' is not part"):
            store.truth("s1000")


def test_a_duplicate_id_is_named_and_the_earlier_selection_stays(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        store.put_samples(store_records.items("a", "b"))
        with pytest.raises(DataError, match=r"sample number 3 of the selection: duplicate sample id 'x'"):
            store.put_samples(store_records.items("x", "y", "x"))
        assert [each.id for each in store.samples()] == ["a", "b"]


def test_a_broken_task_leaves_the_earlier_selection(tmp_path: Path) -> None:
    def broken() -> Any:
        yield from store_records.items("x")
        raise RuntimeError("the task broke")

    with RunStore.open(tmp_path, store_records.spec()) as store:
        store.put_samples(store_records.items("a"))
        with pytest.raises(RuntimeError, match="the task broke"):
            store.put_samples(broken())
        with pytest.raises(DataError, match="cannot be stored"):
            store.put_samples([(Sample(id="\ud800", prompt="p"), GroundTruth(sample_id="\ud800"))])
        assert [each.id for each in store.samples()] == ["a"]


# -- rows --------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_list_each_current_score_once(data: st.DataObject) -> None:
    """Random sequences of repeated generations and scores, compared with a plain dictionary."""
    names = [f"s{number}" for number in range(data.draw(st.integers(1, 5)))]
    repeats, judges = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    current = ScorerSpec(name="judge", version="2")
    others = [ScorerSpec(name="judge", version="1"), ScorerSpec(name="judge", args={"k": 1}, version="2")]
    images: dict[tuple[str, int], str] = {}
    scores: dict[tuple[str, int, int, str], float] = {}
    folder = Path(tempfile.mkdtemp())
    try:
        with RunStore.open(folder, store_records.spec(current, repeats=repeats, judge_repeats=judges)) as store:
            store.put_samples(store_records.items(*names))
            for step in range(data.draw(st.integers(0, 30))):
                name = data.draw(st.sampled_from([*names, "not selected"]))
                repeat = data.draw(st.integers(0, repeats))  # one more than the run has
                if data.draw(st.booleans()):
                    digest = data.draw(st.sampled_from(["", "a" * 64, "b" * 64]))
                    ref = ImageRef(sha256=digest, width=1, height=1, format="PNG") if digest else None
                    store.put_generation(f"g{name}{repeat}", store_records.generation(name, ref, repeat))
                    images[name, repeat] = digest
                else:
                    digest = data.draw(st.sampled_from(["", "a" * 64, "b" * 64]))
                    judge = data.draw(st.integers(0, judges))
                    who = data.draw(st.sampled_from([current, *others]))
                    value = step / 100
                    key = f"s{name}{repeat}{judge}{digest}{who.version}{who.args}"
                    store.put_score(key, store_records.score(name, digest, value, repeat, judge), who)
                    if who is current:
                        scores[name, repeat, judge, digest] = value
            result = list(store.rows("judge"))
            listed = {(s.sample_id, s.repeat, s.judge_repeat) for _, s in store.scores()}
    finally:
        shutil.rmtree(folder)
    triples = [(name, repeat, judge) for name in names for repeat in range(repeats) for judge in range(judges)]
    assert [(row.sample_id, row.repeat, row.judge_repeat) for row in result] == triples
    expected_scores = set()
    for row in result:
        image = images.get((row.sample_id, row.repeat))
        expected = None if image is None else scores.get((row.sample_id, row.repeat, row.judge_repeat, image))
        assert row.generation == ("not_run" if image is None else "ok" if image else "failed")
        if expected is None:
            assert row.strict.status == "not_run" and not row.strict.values
        else:
            expected_scores.add((row.sample_id, row.repeat, row.judge_repeat))
            assert row.strict.values == dict.fromkeys(DIMENSIONS, expected)
    assert listed == expected_scores


def test_a_scorer_the_run_does_not_have_is_named(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        calls: list[Callable[[str], Any]] = [store.rows, store.scores, store.expected_generations]
        for call in calls:
            with pytest.raises(UsageError, match=r"no scorer 'vlm'; it has judge"):
                call("vlm")


# -- opening -----------------------------------------------------------------------------------------------------------


def test_a_later_run_may_add_samples_repeats_and_scorers(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        store.put_samples(store_records.items("a"))
        ref = store.put_image(store_records.image_bytes(1), width=24, height=16, format="PNG")
        store.put_generation("ka", store_records.generation("a", ref))
        store.put_score("sa", store_records.score("a", ref.sha256), store.spec.scorers[0])
        started = store.manifest.started
    more = store_records.spec(store_records.spec().scorers[0], ScorerSpec(name="second"), repeats=2)
    with RunStore.open(tmp_path, more) as store:
        store.put_samples(store_records.items("b", "a"))
        assert [(row.sample_id, row.repeat, row.strict.status) for row in store.rows("judge")] == [
            ("b", 0, "not_run"), ("b", 1, "not_run"), ("a", 0, "ok"), ("a", 1, "not_run"),
        ]  # fmt: skip
        assert [row.strict.status for row in store.rows("second")] == ["not_run"] * 4
        assert store.manifest.started == started


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 7}, "seed is 0 there and 7 here"),
        ({"task": "other"}, 'task is "tiny" there and "other" here'),
        ({"task_version": "2-def"}, "task_version is"),
        ({"generator": GeneratorSpec(name="painter", args={"steps": 5}, revision="r1")}, "generator.args.steps is 4"),
        ({"generator": GeneratorSpec(name="painter", args={"steps": 4}, revision="r2")}, "generator.revision is"),
    ],
)
def test_another_run_is_refused_and_the_field_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    RunStore.open(tmp_path, store_records.spec()).close()
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ConfigError) as caught:
        RunStore.open(tmp_path, store_records.spec(**change))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / "run.json").read_bytes() == before
    with RunStore.open(tmp_path, store_records.spec(**change), fresh=True) as store:
        assert list(store.generations()) == []


def test_fresh_removes_results_but_nothing_else(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        ref = store.put_image(store_records.image_bytes(), width=24, height=16, format="PNG")
        store.put_generation("k", store_records.generation("a", ref))
        store.reserve(1.0, "judge")
    (tmp_path / "tables").mkdir()
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    with RunStore.open(tmp_path, store_records.spec(), fresh=True) as store:
        assert store.generation("k") is None
        assert store.spent() == 0
        assert not store.image_ok(ref)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "run.json", "run.sqlite"]


def test_fresh_in_a_folder_that_is_not_a_run_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.png").write_text("mine")
    with pytest.raises(ConfigError, match="not a run directory"):
        RunStore.open(tmp_path, store_records.spec(), fresh=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["images", "holiday.png"]
    with RunStore.open(tmp_path / "new", store_records.spec(), fresh=True) as store:
        assert list(store.samples()) == []


def test_fresh_does_not_follow_a_linked_image_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "keep.png").write_text("mine")
    RunStore.open(tmp_path / "run", store_records.spec()).close()
    (tmp_path / "run" / "images").symlink_to(tmp_path / "elsewhere")
    RunStore.open(tmp_path / "run", store_records.spec(), fresh=True).close()
    assert (tmp_path / "elsewhere" / "keep.png").read_text() == "mine"


def _damage(folder: Path, how: str) -> None:
    database, manifest = folder / "run.sqlite", folder / "run.json"
    if how == "run.json cut off":
        manifest.write_bytes(manifest.read_bytes()[:40])
    elif how == "run.json is a list":
        manifest.write_text("[1]")
    elif how == "run.json from later":
        manifest.write_text(json.dumps({"format": 99}))
    elif how == "run.json gone":
        manifest.unlink()
    elif how == "run.sqlite is text":
        database.write_text("once upon a time " * 99)
    elif how == "run.sqlite scrambled":
        raw = bytearray(database.read_bytes())
        raw[100:4000] = os.urandom(3900)
        database.write_bytes(raw)
    else:
        with sqlite3.connect(database) as connection:
            connection.execute("pragma user_version=99" if how == "later schema" else "pragma application_id=5")
        connection.close()


@pytest.mark.parametrize(
    "how",
    [
        "run.json cut off", "run.json is a list", "run.json from later", "run.json gone", "run.sqlite is text",
        "run.sqlite scrambled", "later schema", "another program's",
    ],
)  # fmt: skip
@pytest.mark.parametrize("writing", [True, False])
def test_a_damaged_or_foreign_run_is_reported_in_one_line_and_left_alone(
    tmp_path: Path, how: str, writing: bool
) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        store.put_samples(store_records.items(*(f"s{number}" for number in range(50))))
    _damage(tmp_path, how)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError) as caught:
        RunStore.open(tmp_path, store_records.spec()) if writing else RunStore.read(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    RunStore.open(tmp_path, store_records.spec(), fresh=True).close()


def test_a_folder_without_a_run_cannot_be_read(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match="not a run directory"):
            RunStore.read(folder)


def test_an_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        RunStore.open(tmp_path / "out", store_records.spec())


def test_an_argument_named_like_a_secret_is_never_written(tmp_path: Path) -> None:
    hidden = ScorerSpec(name="vlm", args={"client": {"api_key": "sk-123"}})
    with pytest.raises(ConfigError, match=r"vlm: argument 'api_key' looks like a secret"):
        RunStore.open(tmp_path / "run", store_records.spec(hidden))
    assert not (tmp_path / "run").exists()


def test_a_reader_sees_a_running_run_and_changes_nothing(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as writer:
        writer.put_samples(store_records.items("a", "b"))
        writer.put_generation("k", store_records.generation("a"))
        writer.commit()
        with RunStore.read(tmp_path) as reader:
            assert [each.id for each in reader.samples()] == ["a", "b"]
            assert [key for key, _ in reader.generations()] == ["k"]
            with pytest.raises(ConfigError):
                reader.put_generation("x", store_records.generation("b"))
        writer.put_generation("k2", store_records.generation("b"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with RunStore.read(tmp_path) as reader:
        assert len(list(reader.rows("judge"))) == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_after_closing_all_commits_are_in_one_file_even_with_a_reader(tmp_path: Path) -> None:
    writer = RunStore.open(tmp_path, store_records.spec())
    writer.put_generation("k", store_records.generation("a"))
    writer.commit()
    with RunStore.read(tmp_path):
        writer.close()
        (tmp_path / "copy").mkdir()
        for name in ("run.sqlite", "run.json"):
            shutil.copy(tmp_path / name, tmp_path / "copy" / name)
    with RunStore.read(tmp_path / "copy") as copy:
        assert copy.generation("k") is not None


def test_a_damaged_record_is_reported_in_one_line(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        store.put_samples(store_records.items("a"))
        store.put_generation("k", store_records.generation("a"))
    connection = sqlite3.connect(tmp_path / "run.sqlite", isolation_level=None)
    for record in ("{", '{"sample_id": "a", "status": "marvellous"}', '{"sample_id": "a", "status": "ok", "new": 1}'):
        connection.execute("update generations set record = ?", (record,))
        with RunStore.read(tmp_path) as store:
            for look in (lambda: store.generation("k"), lambda: list(store.rows("judge"))):
                with pytest.raises(DataError, match="damaged Generation") as caught:
                    look()
                assert "\n" not in str(caught.value)
    connection.close()


def test_the_tables_can_be_queried_with_sqlite(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        store.put_samples(store_records.items("a"))
        ref = store.put_image(store_records.image_bytes(), width=24, height=16, format="PNG")
        store.put_generation("ka", store_records.generation("a", ref))
        store.put_score("sa", store_records.score("a", ref.sha256), store.spec.scorers[0])
    connection = sqlite3.connect(tmp_path / "run.sqlite")
    generation = connection.execute("select sample_id, repeat, status, reason, image from generations").fetchall()
    assert generation == [("a", 0, "ok", "", ref.sha256)]
    query = "select scorer, judge_repeat, status, json_extract(strict_values, '$.aesthetics') from scores"
    assert connection.execute(query).fetchall() == [("judge", 0, "ok", 0.5)]
    assert connection.execute("select json_extract(sample, '$.prompt') from samples").fetchone() == (
        "A placard about a",
    )
    assert connection.execute("pragma journal_mode").fetchone() == ("delete",)
    connection.close()
    manifest = json.loads((tmp_path / "run.json").read_text())
    assert manifest["spec"]["task"] == "tiny"
    assert {"knowgen", "python", "pydantic"} <= manifest["versions"].keys()
    assert {"host", "system", "cores"} <= manifest["machine"].keys()


# -- committing, money, time -------------------------------------------------------------------------------------------


def _seen_by_others(path: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(f"{(path / 'run.sqlite').as_uri()}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_writes_are_committed_automatically(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        for name in ("a", "b"):  # the second one starts a new transaction
            store.put_generation(name, store_records.generation(name))
            assert store.generation(name) is not None
            wait_until(partial(_is_committed, tmp_path, name))


def _is_committed(folder: Path, key: str) -> bool:
    return (key,) in _seen_by_others(folder, "select key from generations")


def test_commit_is_visible_to_other_connections_at_once(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        store.put_generation("k", store_records.generation("a"))
        store.commit()
        assert _seen_by_others(tmp_path, "select key from generations") == [("k",)]


def test_many_threads_may_write_concurrently(tmp_path: Path) -> None:
    def work(number: int) -> None:
        for step in range(40):
            ref = store.put_image(store_records.image_bytes(step % 7), width=24, height=16, format="PNG")
            store.put_generation(f"{number}-{step}", store_records.generation(f"s{number}", ref, repeat=step))

    with RunStore.open(tmp_path, store_records.spec()) as store:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(store.generation(f"{number}-{step}") for number in range(8) for step in range(40))
    assert len(list((tmp_path / "images").rglob("*.png"))) == 7


@pytest.mark.parametrize("attempt", range(5))
def test_a_thread_that_writes_while_the_store_is_closed_gets_an_error(tmp_path: Path, attempt: int) -> None:
    """Closing a connection during a statement would crash the process."""
    store = RunStore.open(tmp_path / "run", store_records.spec())
    store.put_samples(store_records.items("a"))
    errors: list[BaseException] = []
    writing = threading.Barrier(4)

    def write(number: int) -> None:
        put = 0
        try:
            while True:
                store.put_generation(f"{number}-{put}", store_records.generation("a"))
                put += 1
                if put == 20 + attempt:
                    writing.wait()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(3)]
    for thread in threads:
        thread.start()
    writing.wait()
    store.close()
    for thread in threads:
        thread.join(30)
    assert [type(error) for error in errors] == [sqlite3.ProgrammingError] * 3


def test_a_reservation_is_committed_before_the_call_and_counts_until_it_is_settled(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        numbers = [store.reserve(0.1, "vlm") for _ in range(10)]
        assert _seen_by_others(tmp_path, "select count(*), sum(settled) from reservations") == [(10, None)]
        assert store.spent() == 1.0
        store.settle(numbers[0], 0.03)
        store.settle(numbers[1], None)
        assert store.spent() == pytest.approx(0.93, abs=1e-12)
        for wrong in (numbers[0], 999, -1):
            with pytest.raises(ValueError, match="no open reservation"):
                store.settle(wrong, 0.0)
        for amount in (-0.1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="US dollars"):
                store.reserve(amount, "vlm")
    with RunStore.open(tmp_path, store_records.spec()) as store:
        assert store.spent() == pytest.approx(0.93, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.none() | st.integers(0, 10**6) | st.just("open")), max_size=20))
def test_costs_are_summed_exactly(calls: list[tuple[int, Any]]) -> None:
    folder = Path(tempfile.mkdtemp())
    expected = 0
    try:
        with RunStore.open(folder, store_records.spec()) as store:
            for reserved, settled in calls:
                number = store.reserve(reserved / 10**6, "who")
                if settled != "open":
                    store.settle(number, None if settled is None else settled / 10**6)
                expected += reserved if settled in (None, "open") else settled
            assert store.spent() == expected / 10**6
        with RunStore.read(folder) as store:
            assert store.spent() == expected / 10**6
    finally:
        shutil.rmtree(folder)


def test_wall_time_adds_up_over_invocations(tmp_path: Path) -> None:
    for _ in range(2):
        with RunStore.open(tmp_path, store_records.spec()) as store:
            store.note_session("start")
            store.put_generation("k", store_records.generation("a"))
            store.note_session("end", "done")
    rows = _seen_by_others(tmp_path, "select started, seen, outcome from sessions")
    assert [row[2] for row in rows] == ["done", "done"]
    with RunStore.read(tmp_path) as store:
        assert store.seconds() == pytest.approx(sum(row[1] - row[0] for row in rows))


def test_wall_time_is_right_when_the_clock_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [2_000_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    with RunStore.open(tmp_path, store_records.spec()) as store:
        store.note_session("start")
        now[0] -= 3600.0
        store.put_generation("k", store_records.generation("a"))
        store.commit()
        assert 0 <= store.seconds() < 1800
        store.note_session("end", "done")
    (row,) = _seen_by_others(tmp_path, "select started, seen from sessions")
    assert row[0] == 2_000_000_000.0 and row[0] <= row[1] < row[0] + 1800


def test_a_session_of_an_earlier_version_whose_clock_was_set_back_counts_as_nothing(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        store.note_session("start")
        store.note_session("end", "done")
        before = store.seconds()
    with contextlib.closing(sqlite3.connect(tmp_path / "run.sqlite")) as connection, connection:
        connection.execute("insert into sessions (started, seen, outcome) values (2000.0, 1000.0, 'done')")
    with RunStore.read(tmp_path) as store:
        assert store.seconds() == before


def test_a_url_with_a_password_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    judge = ScorerSpec(name="vlm:m", args={"base_url": "https://me:hunter2@judge.invalid/v1"})
    with pytest.raises(ConfigError, match="base_url contains what looks like a key"):
        RunStore.open(tmp_path / "run", store_records.spec(scorers=(judge,)))
    assert not (tmp_path / "run").exists()
