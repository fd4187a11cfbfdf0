"""`knowgen verify` finds what was changed by hand in a run directory."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from knowgen.cli.main import run as knowgen
from knowgen.core.records import DIMENSIONS, Attempt, Generation, GenerationStatus, Sample, Score, Usage
from knowgen.core.spec import (
    GeneratorSpec,
    RunSpec,
    ScorerSpec,
    fingerprint,
    generation_key,
    score_key,
    select,
    text_hash,
)
from knowgen.scorers.vlm.judge import VlmJudge
from knowgen.scorers.vlm.parsing import PARSER_VERSION, read_attempts
from knowgen.store.run import RunStore
from knowgen.workflows.run import load_run
from knowgen.workflows.verify import verify
from tests.helpers.report_runs import RunMaker, as_png, make_samples, plain_image

JUDGE = ScorerSpec(name="vlm:tiny-judge", version=VlmJudge.version, dimensions=DIMENSIONS)


def reply_for(number: int, *, text: bool) -> str:
    grade = (0, 0.5, 1)[number % 3]
    values: dict[str, Any] = dict.fromkeys(DIMENSIONS, grade)
    if not text:
        values["text_accuracy"] = None
    return json.dumps({"rationale": "seen", **values, "text_accuracy_na": not text})


def stored_score(sample: Sample, generation: Generation, number: int) -> Score:
    attempts = (Attempt(reply=reply_for(number, text=bool(sample.text_required)), model="tiny", usage=Usage(cost=0.0)),)
    strict, lenient, returned = read_attempts(attempts, sample.text_required)
    assert generation.image is not None
    return Score(
        sample_id=sample.id, scorer=JUDGE.name, status=strict.status, strict=strict, lenient=lenient,
        image=generation.image.sha256, attempts=attempts, judge_asked="tiny", judge_returned=returned,
        parser=PARSER_VERSION,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of twelve samples, judged by replies that are stored with their values."""
    folder = tmp_path_factory.mktemp("verify")
    maker, samples = RunMaker(folder), make_samples(12)
    spec = RunSpec(
        task="lighthouses", task_version="1-abcdef012345", selection=select([one.id for one in samples], "all"),
        generator=GeneratorSpec(name="painter", revision="2"), scorers=(JUDGE,), seed=7,
    )  # fmt: skip
    place = folder / "run"
    with RunStore.open(place, spec) as store:
        truths = [maker.truth(sample) for sample in samples]
        store.put_samples(zip(samples, truths, strict=True))
        for number, (sample, truth) in enumerate(zip(samples, truths, strict=True)):
            picture = plain_image(sample, "painter")
            image = store.put_image(as_png(picture), width=picture.width, height=picture.height, format="PNG")
            generation = Generation(sample_id=sample.id, status=GenerationStatus.OK, image=image, seed=7)
            key = generation_key(
                spec, sample_id=sample.id, prompt_hash=text_hash(sample.prompt), references=(), repeat=0
            )
            store.put_generation(key, generation)
            truth_hash = fingerprint([sample.model_dump(mode="json"), truth.model_dump(mode="json")])
            key = score_key(
                JUDGE, task_version=spec.task_version, sample_id=sample.id, truth_hash=truth_hash,
                image=image.sha256, repeat=0, judge_repeat=0,
            )  # fmt: skip
            store.put_score(key, stored_score(sample, generation, number), JUDGE)
    load_run(place).write_outputs()
    return place


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def change(run: Path, sql: str, *values: object) -> None:
    with sqlite3.connect(run / "run.sqlite") as connection:
        assert connection.execute(sql, values).rowcount >= 1
    connection.close()


def record_of(run: Path) -> dict[str, Any]:
    """Return the record of the first score, whose values are 0."""
    connection = sqlite3.connect(run / "run.sqlite")
    record = connection.execute("select record from scores order by number limit 1").fetchone()[0]
    connection.close()
    loaded: dict[str, Any] = json.loads(record)
    return loaded


def found(run: Path) -> str:
    return "\n".join(map(str, verify(run).findings))


def test_an_untouched_run_has_no_findings(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verification = verify(run)
    assert verification.findings == () and verification.notes == ()
    assert verification.checked == {
        "samples": 12, "images": 12, "keys": 24, "scores": 12, "replies": 12, "summaries": 2,
    }  # fmt: skip
    assert knowgen(["verify", str(run)]) == 0
    assert "nothing found (12 samples, 12 images" in capsys.readouterr().out


def test_a_value_raised_in_the_column_is_found(run: Path) -> None:
    change(run, "update scores set strict_values = replace(strict_values, ': 0.0', ': 1.0')")
    assert "the column strict_values is" in found(run)


def test_a_value_raised_in_the_record_is_found(run: Path) -> None:
    change(run, "update scores set record = replace(record, '\"faithfulness\":0.0', '\"faithfulness\":1.0')")
    text = found(run)
    assert (
        "replies: sample 's000', repeat 0, scorer 'vlm:tiny-judge': the strict score differs from its replies" in text
    )
    assert "faithfulness 1.0 is stored, the replies give 0.0" in text
    assert "summary: summary.json, vlm:tiny-judge, strict" in text


def test_a_value_raised_everywhere_is_found_by_its_reply(run: Path) -> None:
    """In column and record of every score, with summary and tables written again."""
    record = record_of(run)
    for name in ("strict", "lenient"):
        record[name]["values"] = dict.fromkeys(record[name]["values"], 1.0)
    values = json.dumps(record["strict"]["values"])
    sql = "update scores set record = ?, strict_values = ? where number = (select min(number) from scores)"
    change(run, sql, json.dumps(record), values)
    load_run(run).write_outputs()
    text = found(run)
    assert "0.0" in text and "the strict score differs from its replies" in text and "lenient" in text
    assert "summary:" not in text and "column" not in text


def test_other_content_of_an_image_is_found(run: Path) -> None:
    image = next((run / "images").glob("*/*.png"))
    image.write_bytes(image.read_bytes() + b"x")
    assert f"the file of image {image.stem[:12]} is missing, or has other content" in found(run)


def test_another_prompt_is_found_by_the_keys(run: Path) -> None:
    change(run, "update samples set sample = replace(sample, 'lighthouse number 3', 'lighthouse number 30')")
    assert found(run).count("the key of the") == 2


def test_a_removed_sample_is_found(run: Path) -> None:
    change(run, "delete from samples where place = 11")
    text = found(run)
    assert "selection: run.json: the specification has all 12, the samples are all 11" in text and "summary" in text


def test_changed_figures_are_found_in_summary_and_tables(run: Path) -> None:
    summary = run / "summary.json"
    data = json.loads(summary.read_text())
    data["summaries"][0]["slices"][0]["figures"]["overall"]["value"] = 0.99
    summary.write_text(json.dumps(data))
    table = run / "tables" / "vlm-tiny-judge-official.csv"
    table.write_text(table.read_text().replace("0.5", "0.9", 1))
    text = found(run)
    assert "slices[all].figures.overall.value is 0.99 instead of" in text
    assert "tables: tables/vlm-tiny-judge-official.csv: differs from what the rows give" in text


def test_the_time_of_a_later_call_that_had_nothing_to_do_does_not_count(run: Path) -> None:
    change(run, "insert into sessions (started, seen, outcome) values (100.0, 7300.0, 'completed')")
    assert load_run(run).summary.seconds == pytest.approx(7200, abs=60)
    assert found(run) == ""


def test_a_status_that_contradicts_its_values_is_found(run: Path) -> None:
    change(
        run, 'update scores set record = replace(record, \'"status":"ok","strict"\', \'"status":"failed","strict"\')'
    )
    assert "the status is failed, that of its values ok" in found(run)


def test_a_damaged_record_is_a_finding_and_not_an_error(run: Path) -> None:
    change(run, "update scores set record = 'nonsense' where number = 1")
    verification = verify(run)
    assert len(verification.findings) == 1 and "its record cannot be read" in str(verification.findings[0])
    assert "were not checked" in verification.notes[0]


def test_the_command_counts_findings_and_exits_3(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(run, "update scores set reason = 'x', seconds = 5")
    assert knowgen(["verify", str(run)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 22 and lines[20] == "and 4 more (see --json)"
    assert "24 findings (12 samples" in lines[21]
    assert knowgen(["verify", str(run), "--json"]) == 3
    data = json.loads(capsys.readouterr().out)
    assert not data["ok"] and len(data["findings"]) == 24 and data["findings"][0]["check"] == "rows"


def test_another_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert knowgen(["verify", str(tmp_path)]) == 3
    assert "not a run directory" in capsys.readouterr().err
