"""`knowgen judge-check` on the command line, with judges known to be good and judges known to be useless."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowgen.cli.main import run
from knowgen.judge_check.records import ChangeResult, JudgeCheck
from knowgen.judge_check.run import run_judge_check
from knowgen.worlds.perturbations.kinds import INSTRUCTION

JUDGES = '''
import hashlib
import json
import random

from knowgen.core.metering import paid_call
from knowgen.core.records import DIMENSIONS, TEXT, ParsedScore, Score, ScoreStatus, Usage
from knowgen.tasks.load import load_task
from knowgen.worlds.perturbations import make_perturbed_task


class _Judge:
    needs = frozenset({"image", "truth_image"})
    version = "1"

    async def score(self, sample, truth, generation):
        with open("calls.txt", "a") as file:
            file.write(json.dumps([sample.id, sample.model_dump(mode="json"), truth.model_dump(mode="json")]) + "\\n")
        values = self.values(sample, truth, generation)
        place = {"sample_id": sample.id, "repeat": generation.repeat, "scorer": "judge"}
        if values is None:
            reading = ParsedScore(status=ScoreStatus.FAILED, reason="the judge\\x1b[2J stopped")
            return Score(**place, status=ScoreStatus.FAILED, strict=reading)
        if not sample.text_required:
            values.pop(TEXT, None)
        reading = ParsedScore(status=ScoreStatus.OK, values=values, rationale="I <b>looked</b> at it.")
        return Score(**place, status=ScoreStatus.OK, strict=reading)


class Always(_Judge):
    """Gives every image the same value."""

    def __init__(self, value=1.0):
        self.value = value

    def values(self, sample, truth, generation):
        return dict.fromkeys(DIMENSIONS, self.value)


class Chance(_Judge):
    """Gives random values."""

    def values(self, sample, truth, generation):
        dice = random.Random(sample.id)
        return {name: dice.choice((0, 0.5, 1)) for name in DIMENSIONS}


class Picky(_Judge):
    """Gives full marks to the truth alone, and none to anything else."""

    def values(self, sample, truth, generation):
        same = truth.image.open().convert("RGB").tobytes() == generation.image.open().convert("RGB").tobytes()
        return dict.fromkeys(DIMENSIONS, 1.0 if same else 0.0)


class Sleepy(_Judge):
    """Fails on every other image."""

    def values(self, sample, truth, generation):
        return None if int(hashlib.sha256(sample.id.encode()).hexdigest(), 16) % 2 else dict.fromkeys(DIMENSIONS, 1.0)


class Knowing(_Judge):
    """Knows what was changed, and gives the right values: a half lower where the change requires it."""

    def __init__(self, start=1.0, confuses=""):
        world = load_task("knowgen_mini")
        self.known = make_perturbed_task(world, list(world.samples()), 999, 0).images
        self.start, self.confuses = start, confuses

    def values(self, sample, truth, generation):
        perturbation = self.known[sample.id].perturbation
        falls = DIMENSIONS if perturbation.name == self.confuses else perturbation.must_fall
        return {name: self.start - (0.5 if name in falls else 0) for name in DIMENSIONS}


class Obedient(Knowing):
    """Gives the right values, unless the prompt or the image asks for full marks."""

    def __init__(self, reads="prompt"):
        super().__init__()
        self.reads = reads

    def values(self, sample, truth, generation):
        seen = sample.prompt if self.reads == "prompt" else self.known[sample.id].perturbation.name
        asked = "Give full marks" in seen or seen == "instruction in the image"
        return dict.fromkeys(DIMENSIONS, 1.0) if asked else super().values(sample, truth, generation)


class Paid(Always):
    """Costs a cent a call."""

    async def score(self, sample, truth, generation):
        async with paid_call(0.01, "paid") as ticket:
            ticket.settle(0.01)
        score = await super().score(sample, truth, generation)
        return score.model_copy(update={"usage": Usage(cost=0.01)})


class Elsewhere(_Judge):
    """Measures another dimension."""

    dimensions = ("sharpness",)

    def values(self, sample, truth, generation):
        return {"sharpness": 1.0}
'''


FEW = ["--samples", "14"]
"""Smallest number of samples with ten images for each change."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with judges and a run directory whose images, generated once, all judges share."""
    folder = tmp_path_factory.mktemp("judges")
    (folder / "judges.py").write_text(JUDGES)
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the folder the current one, in which judges count their calls."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("KNOWGEN_CACHE", "off")
    monkeypatch.syspath_prepend(str(place))
    Path("calls.txt").unlink(missing_ok=True)
    yield place
    sys.modules.pop("judges", None)


def calls() -> int:
    path = Path("calls.txt")
    return len(path.read_text().splitlines()) if path.exists() else 0


def check(
    judge: str, capsys: pytest.CaptureFixture[str], *more: str, out: str = "shared", code: int | None = None
) -> tuple[JudgeCheck, dict[str, ChangeResult]]:
    """Check a judge and return the record that `--json` prints, and its changes by name."""
    words = ["judge-check", "--scorer", f"judges:{judge}", "--out", out, "--json", *more]
    ended = run(words if "--samples" in more else [*words, *FEW])
    result = JudgeCheck.model_validate_json(capsys.readouterr().out)
    assert ended == ((6 if result.found_unfit else 0) if code is None else code)
    return result, {one.name: one for one in result.changes}


def test_a_judge_with_correct_values_is_fit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, changes = check("Knowing", capsys)
    assert result.fit and result.because == "it is fit for all 10 changes"
    assert {one.verdict for one in changes.values()} == {"fit"}
    assert result.samples == 14 and changes["nothing"].n == 14 and min(one.n for one in changes.values()) == 10
    assert calls() == sum(one.images for one in changes.values())


def test_a_second_call_does_no_work_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check("Knowing", capsys)
    before = {path: path.stat().st_mtime_ns for path in Path("shared").rglob("*") if "judge" in str(path)}
    calls_before = calls()
    check("Knowing", capsys)
    assert calls() == calls_before
    assert {path: path.stat().st_mtime_ns for path in Path("shared").rglob("*") if "judge" in str(path)} == before


def test_more_samples_score_only_the_new_ones(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, few = check("Always", capsys, "--samples", "2", out="growing")
    first = calls()
    assert first == sum(one.images for one in few.values())
    _, more = check("Always", capsys, "--samples", "3", out="growing")
    assert calls() == sum(one.images for one in more.values()) > first


def test_a_judge_that_confuses_one_change_is_unfit_for_that_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, changes = check("Knowing", capsys, "-s", "confuses=name")
    assert not result.fit and result.because == "it fails on name"
    assert changes["name"].sensitivity is not None and changes["name"].sensitivity.value == 1
    assert changes["name"].specificity is not None and changes["name"].specificity.value == 0


@pytest.mark.parametrize("reads", ["prompt", "image"])
def test_a_judge_that_obeys_an_instruction_is_unfit_and_a_run_says_so(
    reads: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", str(tmp_path / "cache"))
    result, changes = check("Obedient", capsys, "-s", f"reads={reads}", code=6)
    assert not result.fit and result.because == f"it fails on instruction in the {reads}"
    instructed = changes[f"instruction in the {reads}"]
    assert instructed.sensitivity is not None and instructed.sensitivity.value == 0
    words = ["run", "--task", "knowgen_mini", "--generator", "noise", "--scorer", "judges:Obedient", "--dry-run"]
    for given, warned in (([f"reads={reads}"], True), (["reads=other"], False)):
        assert run([*words, "-s", *given]) == 0
        warning = capsys.readouterr().err
        assert ("warning: judge judges:Obedient was found unfit on" in warning) == warned
        assert (f"it fails on instruction in the {reads}; see" in warning) == warned


def test_a_judge_that_gives_the_truth_one_half_is_measured_from_one_half(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, changes = check("Knowing", capsys, "-s", "start=0.5")
    assert not result.fit and result.because == "it fails on unchanged images"
    assert changes["digit"].verdict == "fit"


def test_a_judge_that_always_gives_full_marks_detects_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, changes = check("Always", capsys)
    assert not result.fit
    fit = {name for name, one in changes.items() if one.verdict == "fit"}
    assert fit == {"nothing", "layout"}
    assert all(one.sensitivity is None or one.sensitivity.value == 0 for one in changes.values())


def test_a_judge_that_always_gives_nothing_is_unfit_and_its_zeros_are_reported(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, changes = check("Always", capsys, "-s", "value=0.0")
    assert not result.fit and changes["nothing"].verdict == changes["digit"].verdict == "unfit"
    text = next(one for one in changes["digit"].movements if one.dimension == "text_accuracy")
    assert text.floored == text.n == changes["digit"].n


def test_a_judge_of_random_values_is_unfit_for_everything(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, changes = check("Chance", capsys)
    assert not result.fit and {one.verdict for one in changes.values()} == {"unfit"}


def test_a_judge_that_punishes_any_change_is_unfit_though_it_misses_none(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, changes = check("Picky", capsys)
    assert not result.fit and changes["nothing"].verdict == "fit"
    assert all(one.sensitivity.value == 1 for one in changes.values() if one.sensitivity is not None)
    assert {name for name, one in changes.items() if one.verdict == "unfit"} == changes.keys() - {
        "nothing",
        "instruction in the image",  # where every dimension may fall
    }


def test_a_judge_that_fails_half_the_time_is_unfit_and_ends_with_6(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, changes = check("Sleepy", capsys, code=6)
    assert not result.fit
    assert "scores failed" in changes["nothing"].reason and changes["nothing"].verdict == "unfit"
    assert changes["nothing"].n + changes["nothing"].failed == 14
    assert run(["judge-check", "--scorer", "judges:Sleepy", "--out", "shared", *FEW]) == 6
    text = capsys.readouterr().out
    assert "judges:Sleepy fit for use: no, because it fails on" in text
    assert "stopped" in text and "\x1b" not in text


def test_a_spent_budget_ends_with_5_and_says_what_is_missing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, changes = check("Paid", capsys, "--samples", "3", "--budget", "0.05", out="paid", code=5)
    assert not result.fit and result.cost == pytest.approx(0.05)
    assert (
        calls() == 5 and sum(one.not_run for one in changes.values()) == sum(one.images for one in changes.values()) - 5
    )
    more, _ = check("Paid", capsys, "--samples", "3", "--budget", "5", out="paid")
    assert calls() == sum(one.images for one in more.changes), "scores were paid for twice"


def test_judges_do_not_see_which_change_they_score(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, changes = check("Always", capsys, "--samples", "2", out="blind")
    rows = [json.loads(line) for line in Path("calls.txt").read_text().splitlines()]
    seen: Counter[str] = Counter()
    for sample_id, sample, truth in rows:
        assert re.fullmatch(r"[0-9a-f]{16}", sample_id)
        del sample["id"], truth["sample_id"]
        sample["prompt"] = sample["prompt"].removesuffix(f" {INSTRUCTION}")
        seen[json.dumps([sample, truth])] += 1
    # except for the image, the opaque id and the instruction, a judge's input is the same under every change
    assert len(seen) == 2 and sum(seen.values()) == sum(one.images for one in changes.values())


def test_it_prints_the_answer_first_and_writes_tables_and_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["judge-check", "--scorer", "judges:Knowing", "--out", "shared", *FEW]) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line]
    assert lines[0] == "judges:Knowing fit for use: yes, because it is fit for all 10 changes"
    assert re.search(r"^digit +text accuracy +fit +1\.000 \[0\.\d{3}, 1\.000\]", text, re.MULTILINE)
    assert re.search(r"^resume +knowgen judge-check --scorer judges:Knowing", text, re.MULTILINE)
    page = Path(re.findall(r"^page +(.*)$", text, re.MULTILINE)[0])
    assert page == (here / "shared" / "judge_check" / "index.html").resolve() and page.is_file()
    assert "judges:Knowing is fit for use" in re.sub("</?bdi>", "", page.read_text())
    rows = list(csv.DictReader((here / "shared/tables/judge-check-judges-Knowing-strict.csv").open()))
    assert len(rows) == 10 * 4 and {row["verdict"] for row in rows} == {"fit"}
    digit = next(row for row in rows if (row["change"], row["dimension"]) == ("digit", "text_accuracy"))
    assert (digit["expected"], digit["down"], digit["mean_change"]) == ("falls", "1.0", "-0.5")
    assert "| digit |" in (here / "shared/tables/judge-check-judges-Knowing-strict.md").read_text()
    record = JudgeCheck.model_validate_json((page.parent / "result.json").read_text())
    assert record.fit and record.task.startswith("knowgen_mini")


def test_the_images_are_stored_in_an_ordinary_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, _ = check("Knowing", capsys)
    connection = sqlite3.connect(f"file:{here / 'shared' / 'run.sqlite'}?mode=ro", uri=True)
    counts = "select count(distinct sample_id), count(distinct image) from generations"
    generated, different = connection.execute(counts).fetchone()
    connection.close()
    images = sum(one.images for one in result.changes)
    assert generated == images
    # a subject that is left out gives the same image with and without an instruction in the prompt
    assert images * 0.8 < different == len(list((here / "shared" / "images").rglob("*.png")))


def test_a_fresh_check_scores_again_and_writes_its_page_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, changes = check("Always", capsys, "--samples", "1", out="fresh")
    page = Path("fresh/judge_check/index.html")
    page.write_text("old")
    check("Always", capsys, "--samples", "1", "--fresh", out="fresh")
    assert calls() == 2 * sum(one.images for one in changes.values())
    assert "judges:Always" in page.read_text()


def test_a_dry_run_prints_the_number_of_calls(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["judge-check", "--scorer", "judges:Always", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "scores     228" in text and "images     228" in text and "judge-check__judges-Always" in text
    assert calls() == 0 and not Path("reports").exists()


def test_only_named_samples_are_checked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--ids", "540ba13ae861c03b,574c808ab7603d63"]
    result, changes = check("Always", capsys, *words, out="named")
    assert result.samples == 2 and changes["nothing"].n == 2
    assert changes["digit"].n == 0 and changes["digit"].verdict == "n too small"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--scorer", "judges:Elsewhere"], 2, "which no known change must lower"),
        (["--scorer", "judges:Always", "--task", "foreign"], 3, "knowgen world build"),
        (["--scorer", "judges:Nobody"], 2, "Nobody"),
        (["--scorer", "judges:Always", "--protocol", "lenient"], 2, "unknown protocol"),
        ([], 2, "--scorer"),
    ],
)
def test_runs_that_cannot_be_checked_are_refused_in_one_line(
    words: list[str], code: int, says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("foreign").exists():
        Path("foreign").mkdir()
        (here / "foreign" / "task.yaml").write_text("name: foreign\n")
        (here / "foreign" / "samples.jsonl").write_text('{"id": "a", "prompt": "a lighthouse"}\n')
        (here / "foreign" / "truth.jsonl").write_text('{"sample_id": "a"}\n')
    assert run(["judge-check", *words]) == code
    error = capsys.readouterr().err.strip()
    assert says in error and "\n" not in error
    assert calls() == 0


@pytest.mark.slow
def test_the_world_check_passes_the_same_limits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["judge-check", "--scorer", "world_check", "--out", "shared", "--json"]) == 0
    result = JudgeCheck.model_validate_json(capsys.readouterr().out)
    assert {one.name for one in result.changes if one.verdict != "fit"} == set()
    assert all(one.specificity is None or one.specificity.value == 1 for one in result.changes)


def test_the_python_function_returns_the_record_of_the_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, _ = check("Knowing", capsys)
    scored = calls()
    assert run_judge_check("judges:Knowing", "shared", samples=14).changes == record.changes
    assert calls() == scored, "stored scores are used"
