"""Files of other machines through the commands: each is read, or refused in one line, and none becomes a wrong 0."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from knowgen import api
from knowgen.core.errors import DataError
from knowgen.interchange.agent_answers import open_answers
from knowgen.suites.schema import read_suite
from tests.helpers.foreign_files import (
    Called,
    call,
    figures,
    put_image,
    result_rows,
    source_notes,
    write_results,
)
from tests.helpers.small_task import make_task

Capture = pytest.CaptureFixture[str]
N = 6


def truth(number: int) -> str:
    return f"truths/s{number}.png"


def own_lines(called: Called) -> list[str]:
    """Return the notes and errors that were printed, without progress."""
    return [line for line in called.err.splitlines() if line.startswith("knowgen: ")]


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Return a folder with images `out/é<n>.png`, under decomposed names, and the ground truths beside it."""
    for number in range(N):
        put_image(tmp_path / "out" / unicodedata.normalize("NFD", f"\u00e9{number}.png"), number)
        put_image(tmp_path / truth(number), number)
    return tmp_path


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_task_in_another_encoding_gives_the_same_run(workspace: Path, capsys: Capture, encoding: str) -> None:
    for name in ("task.yaml", "samples.jsonl", "truth.jsonl"):
        file = workspace / "small" / name
        file.write_bytes(file.read_text().replace("\n", "\r\n").encode(encoding))
    (workspace / "ids.txt").write_bytes("s1\r\ns4\r\n".encode(encoding))
    words = ["run", "--task", "small", "--generator", "my_generator.py:draw", "--ids", "@ids.txt", "--out", "out"]
    assert call(capsys, *words).code == 0
    assert [row.sample_id for row in api.load_run(Path("out")).rows()] == ["s1", "s4"]


def test_whole_numbers_are_ids_and_null_is_an_error_with_its_line(workspace: Path, capsys: Capture) -> None:
    def rename(value: str) -> None:
        for name in ("samples.jsonl", "truth.jsonl"):
            file = workspace / "small" / name
            file.write_text(file.read_text().replace('"s1"', value))

    rename("17")
    words = ["run", "--task", "small", "--generator", "my_generator.py:draw", "--ids", "17,s2", "--out", "out"]
    assert call(capsys, *words).code == 0
    assert [row.sample_id for row in api.load_run(Path("out")).rows()] == ["17", "s2"]
    file = workspace / "small" / "samples.jsonl"
    file.write_text(file.read_text().replace('"id": 17', '"id": null'))
    called = call(capsys, *words)
    assert called.code == 3
    assert called.error == "small/samples.jsonl:2: the id must be text or a whole number, got null; give it an id"


FORMS = (
    "out/\u00e9{}.png",
    "out\\\u00e9{}.png",
    "/home/you/run/out/\u00e9{}.png",
    "D:\\run\\out\\\u00e9{}.png",
    "file:///home/you/out/%C3%A9{}.png",
    "out/\u00e9{}.PNG",
)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_images_of_a_results_file_are_found_in_every_form(there: Path, capsys: Capture, encoding: str) -> None:
    rows = result_rows(N, lambda number: FORMS[number].format(number), truth)
    source = write_results(there / "results.json", rows, encoding)
    called = call(capsys, "score", source, "--scorer", "pixels", "--out", there / "run")
    assert (called.code, called.err.count("knowgen:")) == (0, 0)
    assert figures(there / "run") == (1.0, N)


def test_images_in_another_folder_are_found_with_the_option(there: Path, capsys: Capture) -> None:
    rows = result_rows(N, "/cluster/run/pictures/\u00e9{}.png".format, "/cluster/bench/truths/s{}.png".format)
    source = write_results(there / "elsewhere" / "results.json", rows)
    words: list[str | Path] = ["score", source, "--scorer", "pixels", "--out", there / "run"]
    called = call(capsys, *words)
    assert called.code == 3 and not (there / "run").exists()
    assert called.error.startswith(
        f"{source}: none of its 6 images was found; looked for '/cluster/run/pictures/\u00e90.png', "
    )
    assert "there: no image" in called.error and "--images DIR" in called.error
    (there / "out").rename(there / "pictures")
    assert call(capsys, *words, "--images", there).code == 0
    assert figures(there / "run") == (1.0, N)
    assert "--images is for a results file" in call(capsys, "score", there / "run", "--images", there).error
    assert "not a folder" in call(capsys, *words, "--images", there / "none").error


def test_where_nothing_matches_the_error_shows_what_is_there(there: Path, capsys: Capture) -> None:
    rows = result_rows(N, "/home/you/other{}.png".format, truth)
    called = call(capsys, "score", write_results(there / "r.json", rows), "--scorer", "pixels", "--out", there / "run")
    assert called.code == 3 and not (there / "run").exists()
    shown = unicodedata.normalize("NFD", "'out/\u00e90.png'")
    assert "'/home/you/other0.png'" in called.error and shown in called.error and "'truths/s0.png'" in called.error


def test_a_ground_truth_is_never_taken_for_the_image_nor_the_image_for_the_ground_truth(
    there: Path, capsys: Capture
) -> None:
    (there / "flat").mkdir()
    for number in range(N):
        put_image(there / "flat" / f"{number}.png", number)
    rows = result_rows(N, "/x/out/{}.png".format, "/x/gt/{}.png".format)
    source = write_results(there / "flat" / "results.json", rows)
    called = call(capsys, "score", source, "--scorer", "pixels", "--out", there / "run")
    assert called.code == 3 and "(6 not used: several rows lead to one file)" in called.error


def test_missing_images_are_not_run_and_the_overall_score_is_withheld(there: Path, capsys: Capture) -> None:
    rows = result_rows(N, lambda number: f"out/\u00e9{number}.png" if number < 2 else f"out/no{number}.png", truth)
    source = write_results(there / "results.json", rows)
    called = call(capsys, "score", source, "--scorer", "pixels", "--out", there / "run")
    assert "4 of 6 images missing; looked for 'out/no2.png', 'out/no3.png', 'out/no4.png' and 1 more" in called.error
    assert "No result: 4 of 6 scores not run yet" in called.out and "0.333" not in called.out
    assert figures(there / "run")[0] is None
    states = [row.generation.value for row in api.load_run(there / "run").rows()]
    assert states == ["ok", "ok", "not_run", "not_run", "not_run", "not_run"]
    (note,) = source_notes(there / "run")
    assert note["without_image"] == ["2", "3", "4", "5"] and "4 of 6 images missing" in note["notes"][0]


def test_reasons_that_differ_only_in_names_are_printed_once(there: Path, capsys: Capture) -> None:
    for number in range(N):
        (there / "out" / f"bad{number}.png").write_bytes(b"no image")
    source = write_results(there / "results.json", result_rows(N, "out/bad{}.png".format, truth))
    called = call(capsys, "score", source, "--scorer", "pixels", "--out", there / "run")
    lines = [line for line in called.out.splitlines() if "does not open" in line]
    assert len(lines) == 1 and lines[0].split()[0] == "6" and lines[0].endswith("(and 5 alike)")


def test_a_path_that_is_not_a_file_name_fails_its_row_alone(there: Path, capsys: Capture) -> None:
    rows = result_rows(N, "out/\u00e9{}.png".format, truth)
    for number, name in enumerate(("a\0b.png", "a\ud800b.png")):
        rows[number]["output_path"] = name
        rows[number + 2]["gt_image"] = name
    source = write_results(there / "results.json", rows)
    assert call(capsys, "score", source, "--scorer", "pixels", "--out", there / "run").code == 6
    stored = api.load_run(there / "run").rows()
    assert [row.generation.value for row in stored] == ["failed"] * 2 + ["ok"] * 4
    assert all("is not a valid file name" in row.generation_reason for row in stored[:2])
    assert [row.strict.status.value for row in stored[2:]] == ["not_applicable"] * 2 + ["ok"] * 2


@pytest.mark.parametrize(("value", "shown"), [(None, "null"), (True, "true"), (1.5, "1.5")])
def test_an_unusable_id_is_an_error_with_its_row(there: Path, capsys: Capture, value: Any, shown: str) -> None:
    rows = result_rows(N, "out/\u00e9{}.png".format, truth)
    rows[3]["id"] = value
    called = call(capsys, "score", write_results(there / "r.json", rows), "--scorer", "pixels", "--out", there / "run")
    assert called.code == 3
    assert f"row 3: the id must be text or a whole number, got {shown}" in called.error


def test_ids_that_differ_only_in_their_unicode_form_are_duplicates(there: Path, capsys: Capture) -> None:
    rows = result_rows(2, "out/\u00e9{}.png".format, truth)
    rows[0]["id"], rows[1]["id"] = "\u00e9", "e\u0301"
    called = call(capsys, "score", write_results(there / "r.json", rows), "--scorer", "pixels", "--out", there / "run")
    assert called.code == 3 and "duplicate id" in called.error and "rows 0 and 1" in called.error


def test_a_ground_truth_named_gen_image_counts_under_strict_and_is_marked_under_official(
    there: Path, capsys: Capture
) -> None:
    (there / "scorer.py").write_text(OFFICIAL_SCORER)
    rows = result_rows(N, "out/\u00e9{}.png".format, truth)
    for row in rows[:2]:
        row["gen_image"] = row.pop("gt_image")
    source = write_results(there / "results.json", rows)
    called = call(capsys, "score", source, "--scorer", f"{there}/scorer.py:Half", "--out", there / "run")
    assert "2 rows counted under strict and left out under official: the official evaluator skips" in called.error
    run = api.load_run(there / "run")
    assert run.summarise("strict").slice().coverage.scored == N
    official = run.summarise("official").slice().coverage
    assert (official.scored, official.not_applicable) == (N - 2, 2)
    assert [row.lenient.status.value if row.lenient else "" for row in run.rows()][:3] == ["not_applicable"] * 2 + [""]
    assert call(capsys, "export", there / "run", "--format", "official", "--out", there / "eval.json").code == 0
    written = json.loads((there / "eval.json").read_text())
    assert [row["error"] for row in written[:N]] == ["not_evaluated"] * 2 + [None] * (N - 2)
    assert written[-1]["count"] == N - 2


OFFICIAL_SCORER = '''
from knowgen.core.records import DIMENSIONS, ParsedScore, Score, ScoreStatus

class Half:
    """Gives every image the same value."""
    needs = frozenset({"image"})
    version = "1"
    note = "a scorer of the tests"
    async def score(self, sample, truth, generation):
        values = ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, 0.5), rationale="half")
        return Score(sample_id=sample.id, repeat=generation.repeat, scorer="half", status=ScoreStatus.OK, strict=values)
'''


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return make_task(tmp_path / "task", [f"prompt {number}" for number in range(N)])


def test_other_file_names_need_a_pattern_which_the_error_suggests(task: Path, capsys: Capture) -> None:
    folder = task.parent / "pictures"
    for number in range(N):
        put_image(folder / "run" / f"s{number}_seed42.png", number)
    words: list[str | Path] = ["score", folder, "--task", task, "--scorer", "pixels", "--out", task.parent / "run"]
    called = call(capsys, *words)
    assert called.code == 3 and not (task.parent / "run").exists()
    assert "ids are 's0', 's1', 's2' and 3 more; there: 6 images of no sample ('run/s0_seed42.png'" in called.error
    assert called.error.endswith("try --pattern 'run/{id}_seed*'")
    assert call(capsys, *words, "--pattern", "run/{id}_seed*").code == 0
    assert figures(task.parent / "run") == (1.0, N)


def test_images_of_every_format_are_scored(tmp_path: Path, capsys: Capture) -> None:
    endings = ["PNG", "jpeg", "JPG", "webp", "avif", "tif", "bmp", "gif"]
    task = make_task(tmp_path / "task", [f"prompt {number}" for number in range(len(endings))])
    for number, ending in enumerate(endings):
        put_image(tmp_path / "pictures" / f"s{number}.{ending}", number)
    words: list[str | Path] = [
        "score",
        tmp_path / "pictures",
        "--task",
        task,
        "--scorer",
        "pixels",
        "--out",
        tmp_path / "run",
    ]
    assert call(capsys, *words).code == 0
    assert figures(tmp_path / "run")[1] == len(endings)
    assert all(row.strict.status.value == "ok" for row in api.load_run(tmp_path / "run").rows())


def test_a_folder_with_some_of_the_images_has_no_overall_score_and_says_what_it_passed_over(
    task: Path, capsys: Capture
) -> None:
    folder = task.parent / "pictures"
    for number in range(2):
        put_image(folder / f"s{number}.png", number)
    put_image(folder / "other.png", 0)
    (folder / "notes.txt").write_text("x")
    (folder / "._s2.png").write_text("x")
    (folder / "more").symlink_to(task / "truth")
    called = call(capsys, "score", folder, "--task", task, "--scorer", "pixels", "--out", task.parent / "run")
    assert called.error == (
        f"{folder}: images for 2 of 6 samples of small; none for 's2', 's3', 's4' and 1 more; passed over: "
        "1 image of no sample ('other.png'), 1 other file ('notes.txt'), 1 linked folder, not followed ('more')"
    )
    assert "No result: 4 of 6 scores not run yet" in called.out
    assert figures(task.parent / "run")[0] is None
    page = (task.parent / "run" / "report" / "index.html").read_text()
    assert "No result" in page and "reaches a" not in page


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (("--ids", "s0"), ""),
        (("--ids", "s1,s3,s4"), "images for 1 of 3 selected samples of small; none for 's3', 's4'"),
        (("--limit", "1"), ""),
        (("--shard", "1/2"), "images for 1 of 3 selected samples of small; none for 's2', 's4'"),
        ((), "images for 2 of 6 samples of small; none for 's2', 's3', 's4' and 1 more"),
    ],
)
def test_the_note_on_a_folder_counts_the_selected_samples(
    chosen: tuple[str, ...], said: str, task: Path, capsys: Capture
) -> None:
    folder = task.parent / "pictures"
    for number in range(2):
        put_image(folder / f"s{number}.png", number)
    words: list[str | Path] = ["score", folder, "--task", task, "--scorer", "pixels", "--out", task.parent / "run"]
    if chosen[:1] == ("--limit",):
        for number in range(N):
            put_image(folder / f"s{number}.png", number)
    called = call(capsys, *words, *chosen)
    assert own_lines(called) == ([f"knowgen: {folder}: {said}"] if said else [])
    notes = source_notes(task.parent / "run")
    assert [note["notes"] for note in notes] == ([[f"{folder}: {said}"]] if said else [])
    lacking = re.findall(r"'(s\d)'", said)
    assert [note["without_image"][: len(lacking)] for note in notes] == ([lacking] if said else [])


def test_the_note_on_a_results_file_counts_the_selected_rows(there: Path, capsys: Capture) -> None:
    rows = result_rows(N, lambda number: f"out/\u00e9{number}.png" if number < 2 else f"out/no{number}.png", truth)
    source = write_results(there / "results.json", rows)
    words: list[str | Path] = ["score", source, "--scorer", "pixels", "--out"]
    called = call(capsys, *words, there / "both", "--ids", "0,1")
    assert (called.code, own_lines(called), source_notes(there / "both")) == (0, [], [])
    called = call(capsys, *words, there / "some", "--ids", "1,2,3")
    assert "2 of 3 images missing; looked for 'out/no2.png', 'out/no3.png' in" in called.error
    (note,) = source_notes(there / "some")
    assert note["without_image"] == ["2", "3"]


def test_an_unknown_id_is_the_only_line(task: Path, capsys: Capture) -> None:
    put_image(task.parent / "pictures" / "s0.png", 0)
    words: list[str | Path] = ["score", task.parent / "pictures", "--task", task, "--scorer", "pixels", "--ids", "s99"]
    called = call(capsys, *words, "--out", task.parent / "run")
    assert called.code == 2 and "no sample 's99'" in called.error and "\n" not in called.error


def test_a_folder_of_links_alone_says_so(task: Path, capsys: Capture) -> None:
    (task.parent / "pictures").mkdir()
    (task.parent / "pictures" / "run1").symlink_to(task / "truth")
    called = call(capsys, "score", task.parent / "pictures", "--task", task, "--scorer", "pixels")
    assert "1 linked folder, not followed ('run1'); give the folder that a link leads to" in called.error
    assert call(capsys, "score", "x.json", "--pattern", "{id}").error.endswith("leave it out")


@pytest.mark.parametrize("as_array", [True, False])
def test_answers_of_an_agent_may_hold_line_separators(tmp_path: Path, as_array: bool) -> None:
    for number in range(3):
        put_image(tmp_path / "pictures" / f"r{number}.png", number)
    records = [
        {"id": number, "gen_prompt": f"better\u2028{number}\u0085\x0b", "reference_images": [{"local_path": path}]}
        for number, path in enumerate(["pictures\\r0.png", "/home/you/pictures/r1.PNG", "file:///home/pictures/r2.png"])
    ]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    text = f"[{','.join(lines)}]" if as_array else "\r\n".join(lines)
    (tmp_path / "answers.jsonl").write_bytes(text.encode("utf-8-sig"))
    answers = open_answers(tmp_path / "answers.jsonl")
    for number in range(3):
        answer = answers.answer(str(number), 0)
        assert answer.prompt == f"better\u2028{number}\u0085\x0b"
        assert [image.path for image in answer.references] == [tmp_path / "pictures" / f"r{number}.png"], answer.reason


@pytest.mark.parametrize("value", ["null", "true", '""', "1.5"])
def test_an_answer_without_a_usable_id_is_an_error_with_its_line(tmp_path: Path, value: str) -> None:
    (tmp_path / "answers.jsonl").write_text(f'{{"id": "a", "gen_prompt": "p"}}\n{{"id": {value}}}\n')
    with pytest.raises(DataError, match=r"answers\.jsonl:2: the id must be text or a whole number"):
        open_answers(tmp_path / "answers.jsonl")


def test_a_suite_in_another_encoding_is_read_and_one_that_explodes_is_refused(tmp_path: Path, capsys: Capture) -> None:
    text = "systems: [open_book]\ntasks: [knowgen_mini]\nscorers: [pixels]\n"
    suite = tmp_path / "suite.yaml"
    suite.write_bytes(text.replace("\n", "\r\n").encode("utf-16"))
    assert read_suite(suite).suite.systems[0].generator == "open_book"
    aliases = "".join(f"  a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 12))
    bomb = f"{text}systems:\n- generator: open_book\n  args:\n    a0: &a0 [1]\n" + aliases.replace("  a", "    a")
    suite.write_text(bomb.replace("systems: [open_book]\n", ""))
    called = call(capsys, "suite", suite, "--out", tmp_path / "out")
    assert called.code == 3 and "has more than 100000 values once its aliases are replaced" in called.error
