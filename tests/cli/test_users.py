"""Common mistakes on the command line and in Python, and their messages."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import knowgen
from knowgen.cli.main import run
from knowgen.core.errors import ConfigError, UsageError
from knowgen.store.run import RunStore
from tests.helpers.judge_server import JudgeServer, Step, good

pytestmark = pytest.mark.usefixtures("in_process")

RUN = ["run", "--task", "small", "--generator", "my_generator.py:draw"]


def last_line(text: str) -> str:
    """Return the last line that is not blank."""
    return [line for line in text.splitlines() if line.strip()][-1]


def test_scoring_a_subset_again_does_not_make_it_the_whole_task(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*RUN, "--out", "out", "--limit", "2"]) == 0
    selection = json.loads((workspace / "out" / "run.json").read_text())["spec"]["selection"]
    for extra in ([], ["--out", "elsewhere"]):
        assert run(["score", "out", "--scorer", "my_scorer:Half", "-s", "value=1.0", *extra]) == 0
        assert "not fit for a leaderboard" in capsys.readouterr().out
    for name in ("out", "elsewhere"):
        assert json.loads((workspace / name / "run.json").read_text())["spec"]["selection"] == selection


def test_scoring_into_another_directory_does_not_copy_earlier_scores(workspace: Path) -> None:
    assert run([*RUN, "--out", "out"]) == 0
    (workspace / "other.py").write_text((workspace / "my_scorer.py").read_text())
    assert run(["score", "out", "--scorer", "other:Half", "--out", "elsewhere"]) == 0
    scorers = {
        each["scorer"] for each in json.loads((workspace / "elsewhere" / "summary.json").read_text())["summaries"]
    }
    assert scorers == {"other:Half"}


def test_reasons_of_failed_generations_are_printed(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (workspace / "my_generator.py").read_text().replace('"cannot draw three"', '"cannot\\n\\x1b[31m draw three"')
    (workspace / "my_generator.py").write_text(text)
    assert run(["run", "--task", "small", "--generator", "my_generator:Picky", "--out", "out"]) == 6
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert [
        line for line in output.splitlines() if line.startswith("1 ") and "failed: " in line and "draw three" in line
    ]


def test_reasons_of_failed_scores_and_of_a_reached_budget_are_printed(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert run([*RUN, "--out", "out", "--limit", "2"]) == 0
    with JudgeServer([Step(reply="no")]) as server:
        words = ["score", "out", "--scorer", "vlm:any", "-s", f"base_url={server.url}", "-s", "attempts=1"]
        assert run(words) == 6
        assert "2        vlm:any failed: the reply is not one JSON object" in capsys.readouterr().out
    with JudgeServer([Step(reply=good())]) as server:
        words = ["score", "out", "--scorer", "vlm:any", "-s", f"base_url={server.url}", "--out", "paid"]
        assert run([*words, "-s", "price_in=2", "-s", "price_out=8", "--budget", "0.0001"]) == 5
        assert not server.calls
        line = last_line(capsys.readouterr().err)
    assert line.startswith("budget   $0.0001 allows no further call: $0.0000 is spent, and a call of vlm:any may cost")
    assert line.endswith("raise --budget to continue")


def test_score_prints_the_command_that_resumes_it(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*RUN, "--out", "out"]) == 0
    capsys.readouterr()
    words = ["score", "out", "--scorer", "my_scorer:Half", "--out", "elsewhere"]
    assert run(words) == 0
    assert f"resume   knowgen {' '.join(words)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([*RUN, "--ids", ""], 2, "contains no sample id"),
        ([*RUN, "--ids", "@empty.txt"], 2, "contains no sample id"),
        ([*RUN, "--ids", "@binary.txt"], 2, "binary.txt:2: byte 4 of the file (0xff) is not UTF-8"),
        ([*RUN, "--ids", "s01"], 2, "did you mean 's1'"),
        ([*RUN, "--budget", "nan"], 2, "budget must be a number >= 0, got nan"),
        ([*RUN, "--timeout", "nan"], 2, "timeout must be a number > 0, got nan"),
        (["run", "--task", "small", "--generator", "my_generator.py"], 2, "write my_generator.py:NAME"),
        (["run", "--task", "small", "--generator", "nowhere.py:Model"], 2, "the file 'nowhere.py' does not exist"),
        (["run", "--task", "small", "--generator", "my_generator.py:a b"], 2, "'a b' is not a Python name"),
        (["run", "--task", "", "--generator", "noise"], 2, "the name of the task is empty"),
        (["list", "runs", "nowhere"], 3, "nowhere: is not a folder"),
    ],
)
def test_a_wrong_argument_is_one_line(
    workspace: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    (workspace / "empty.txt").write_text("\n \n")
    (workspace / "binary.txt").write_bytes(b"s1\n\xff")
    assert run(words) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1 and message in lines[0]
    assert not (workspace / "reports").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["export", "out", "--format", "official", "-o", "small"], 2, "knowgen: small is a folder; name a file"),
        (["export", "out", "--format", "jsonl", "-o", "."], 2, "knowgen: . is a folder; name a file"),
        (["score", "photo.png"], 3, "photo.png: not a source of images; give a run directory, a results file"),
        (["score", "my_scorer.py", "--task", "small"], 3, "my_scorer.py: not a source of images; give a run"),
        (["score", "object.json"], 3, "object.json: not a source of images"),
        (["score", "empty.json"], 3, "empty.json: not a source of images"),
        (["score", "broken.json"], 3, "broken.json: invalid JSON"),
        (["score", "array.json", "--task", "small"], 2, "a results file has its own prompts and truths"),
        (
            ["score", "out", "--scorer", "vlm:any", "-s", "base_url=ftp://x/"], 2,
            "knowgen: scorer vlm:any: base_url is not an http address; write base_url=http://HOST:PORT/v1",
        ),
        (["run", "--task", "small", "--generator", "slip.py:Model", "--out", "new"], 3, "SyntaxError: "),
        (["run", "--task", "small", "--generator", "slip:Model", "--out", "new"], 3, "fix that file"),
    ],
)  # fmt: skip
def test_a_wrong_file_or_address_is_one_line_with_a_fix(
    workspace: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert run([*RUN, "--out", "out", "--limit", "2"]) == 0
    Image.new("RGB", (8, 8), "red").save(workspace / "photo.png")
    for name, text in {"object": "{}", "empty": "", "broken": "[{]", "array": "\ufeff [ ]"}.items():
        (workspace / f"{name}.json").write_text(text, encoding="utf-8")
    (workspace / "slip.py").write_text("class Model(:\n    pass\n")
    capsys.readouterr()
    assert run(words) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1 and message in lines[0], lines


def test_a_task_folder_of_links_is_refused_with_a_fix(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for image_file in (workspace / "small" / "truth").iterdir():
        image_file.symlink_to(image_file.rename(workspace / image_file.name))
    assert run(["check", "task", "small"]) != 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "is outside the task's folder" in line]
    assert len(lines) == 1 and lines[0].endswith("; copy the image into the folder; links out of it are not followed")


@pytest.mark.parametrize(
    "wrong",
    [
        {"repeats": 0}, {"judge_repeats": 0}, {"seed": -1}, {"seed": 2**31}, {"workers": -1}, {"concurrency": 0},
        {"limit": "3"}, {"ids": []}, {"schedule": "later"}, {"budget": float("nan")}, {"timeout": 0},
    ],
)  # fmt: skip
def test_a_wrong_option_in_python_is_one_line(workspace: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        knowgen.evaluate("small", "my_generator:draw", out="out", **wrong)
    assert "\n" not in str(caught.value)
    assert not (workspace / "out").exists()


def test_a_generator_whose_package_is_missing_is_a_missing_dependency(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "class Model:\n    revision = '1'\n    def __init__(self):\n        import no_such_package.part\n"
    (workspace / "lazy.py").write_text(text + "    def draw(self, prompt, references, seed): ...\n")
    words = ["--generator", "lazy.py:Model", "--out", "out", "--workers", "1"]
    assert run(["run", "--task", "small", *words]) == 4
    line = last_line(capsys.readouterr().err)
    assert "needs the package 'no_such_package'" in line and "pip install no_such_package" in line
    with RunStore.read(workspace / "out") as store:
        assert not list(store.generations())


@pytest.mark.parametrize("value", ["plain", "3", "true", "a: b", "[x", "", "http://127.0.0.1:8000/v1"])
def test_the_rescore_line_names_the_same_scorer(
    workspace: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    text = (workspace / "my_scorer.py").read_text().replace("value=0.5)", "value=0.5, where='')")
    (workspace / "my_scorer.py").write_text(text)
    given = json.dumps(value)
    assert run([*RUN, "--out", "out", "--limit", "1", "-s", "value=0.25", "-s", f"where={given}"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("rescore  "))
    spec = json.loads((workspace / "out" / "run.json").read_text())["spec"]["scorers"]
    assert spec[0]["args"]["where"] == value
    calls = (workspace / "calls.txt").read_text()
    assert run(shlex.split(line.removeprefix("rescore  knowgen"))) == 0
    assert json.loads((workspace / "out" / "run.json").read_text())["spec"]["scorers"] == spec
    assert (workspace / "calls.txt").read_text() == calls


def test_scoring_a_run_without_naming_a_scorer_uses_its_own_with_their_arguments(workspace: Path) -> None:
    assert run([*RUN, "--out", "out", "--limit", "1", "-s", "value=0.25"]) == 0
    (workspace / "other.py").write_text((workspace / "my_scorer.py").read_text())
    for words in ([], ["--scorer", "other:Half", "-s", "value=1.0"], []):
        before = json.loads((workspace / "out" / "run.json").read_text())["spec"]["scorers"]
        assert run(["score", "out", *words]) == 0
        after = json.loads((workspace / "out" / "run.json").read_text())["spec"]["scorers"]
        assert words or after == before
    assert [each["args"] for each in after] == [{"value": 1.0}, {"value": 0.25}]
    assert len((workspace / "calls.txt").read_text().splitlines()) == 2


class PlainColour:
    """A generator object with a constructor argument."""

    def __init__(self, colour: str, pipe: object = None) -> None:
        self.colour, self.pipe = colour, pipe

    def draw(self, prompt: str, references: object, seed: int) -> Image.Image:
        return Image.new("RGB", (64, 48), self.colour)


def test_an_object_with_other_arguments_is_another_generator(workspace: Path) -> None:
    """Images of a red generator must never be reused for a blue one."""
    knowgen.evaluate("small", PlainColour("red"), out="out", limit=2)
    with pytest.raises(ConfigError, match="holds another run"):
        knowgen.evaluate("small", PlainColour("blue"), out="out", limit=2)
    again = knowgen.evaluate("small", PlainColour("red"), out="out", limit=2)
    assert again.outcome is not None and again.outcome.generated == 0


def test_a_function_that_closes_over_a_value_is_identified_by_it(workspace: Path) -> None:
    def plain_colour(colour: object) -> Callable[[str], Image.Image]:
        def draw(prompt: str) -> Image.Image:
            return Image.new("RGB", (64, 48), str(colour))

        return draw

    knowgen.evaluate("small", plain_colour("red"), out="out", limit=2)
    with pytest.raises(ConfigError, match="holds another run"):
        knowgen.evaluate("small", plain_colour("blue"), out="out", limit=2)
    with pytest.raises(UsageError, match="closes over 'colour'"):
        knowgen.evaluate("small", plain_colour(object()), out="else", limit=2)


def test_a_generator_that_cannot_be_identified_needs_a_revision(workspace: Path) -> None:
    with pytest.raises(UsageError, match="the value of its argument 'pipe' is unknown"):
        knowgen.evaluate("small", PlainColour("red", pipe=object()), out="out", limit=2)


def test_more_scores_by_one_scorer_do_not_make_others_incomplete(workspace: Path) -> None:
    (workspace / "other.py").write_text((workspace / "my_scorer.py").read_text())
    assert run(["run", "--task", "small", "--generator", "my_generator.py:draw", "--out", "out"]) == 0
    assert run(["score", "out", "--scorer", "other:Half", "--judge-repeats", "3"]) == 0
    assert run(["score", "out", "--scorer", "other:Half"]) == 0
    summaries = json.loads((workspace / "out" / "summary.json").read_text())["summaries"]
    repeats = {each["scorer"]: each["judge_repeats"] for each in summaries}
    expected = {each["scorer"]: each["slices"][0]["coverage"] for each in summaries}
    assert repeats == {"my_scorer:Half": 1, "other:Half": 3}
    assert all(each["expected"] == each["scored"] for each in expected.values())


def test_compare_takes_a_scorer_both_runs_share(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "other.py").write_text((workspace / "my_scorer.py").read_text())
    words = ["run", "--task", "small", "--generator", "my_generator.py:draw"]
    assert run([*words, "--out", "a", "--scorer", "other:Half", "--scorer", "my_scorer:Half"]) == 0
    assert run([*words, "--out", "b", "--scorer", "my_scorer:Half"]) == 0
    assert run([*words, "--out", "c", "--scorer", "other:Half"]) == 0
    capsys.readouterr()
    assert run(["compare", "a", "b"]) == 0
    assert "my_scorer:Half" in capsys.readouterr().out
    assert run(["compare", "b", "c"]) == 2
    assert "no scorer has scored both runs" in capsys.readouterr().err
