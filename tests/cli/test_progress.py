"""Verbs that can take long say what they do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.board import make_board
from knowgen.cli.main import run
from knowgen.core.steps import LongStep, StepDisplay
from tests.helpers.report_runs import RunMaker
from tests.helpers.small_task import make_task


@dataclass(frozen=True)
class Inputs:
    """Folders that the verbs of this module read.

    Attributes:
        folder: Their parent.
        a: A run of two scorers.
        b: A run of another system on the same samples.
        task: A task.
        pages: A folder with a page and an image.
        boards: A folder with a board of three systems.
    """

    folder: Path

    def words(self, line: str, out: Path) -> list[str]:
        """Return the words of a command line with the places in it."""
        names = {name: self.folder / name for name in ("a", "b", "task", "pages", "boards")}
        return [word.format(out=out, **names) for word in line.split()]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("progress")
    maker = RunMaker(folder)
    maker.failing = False
    samples = maker.samples(12)
    for name, system, skill in (("a", "closed_book", 0.3), ("b", "open_book", 0.8)):
        maker.run(system, samples, skill, scorers=(maker.CHECK, maker.JUDGE), folder=name)
    make_task(folder / "task", ["a red lighthouse", "a blue lighthouse"])
    (folder / "pages").mkdir()
    (folder / "pages" / "teld.html").write_text("<html><title>Teld</title><body>The lighthouse of Teld.</body></html>")
    (folder / "pages" / "rows.jsonl").write_text(json.dumps({"url": "https://a.test/", "text": "Teld", "title": "T"}))
    picture = next((folder / "a" / "images").rglob("*.png"))
    (folder / "pages" / "light.png").write_bytes(picture.read_bytes())
    make_board(folder / "boards" / "made-up", 3, 12)
    return Inputs(folder)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that the display was given, in order."""
    texts: list[str] = []
    begin = StepDisplay._begin

    def recorded(display: StepDisplay, step: LongStep) -> bool:
        is_shown = begin(display, step)
        texts.extend([step.text] if is_shown else [])
        return is_shown

    monkeypatch.setattr(StepDisplay, "_begin", recorded)
    return texts


READ_RUN = ("reading results of world_check", "computing figures", "reading generations")

STEPS = {
    "report {a} -o {out}": (*READ_RUN, "reading scores", "writing images", "writing the index of samples"),
    "compare {a} {b}": (*READ_RUN, "comparing closed_book(steps=4) and open_book(steps=4)"),
    "compare {a} {b} --json": (*READ_RUN, "comparing closed_book(steps=4) and open_book(steps=4)"),
    "table systems {a} {b}": (*READ_RUN, "comparing two systems"),
    "agree {a} {b}": ("measuring agreement", "comparing pairs of raters", "comparing orders of systems"),
    "export {a} --format csv -o {out}": ("writing rows of world_check",),
    "export {a} --format official -o {out}": ("writing rows", "computing figures"),
    "verify {a}": ("checking rows of scores", "checking generations", "checking scores of world_check"),
    "push {a} me/run --dry-run": ("copying run.sqlite without folders of this machine", "checking rows of samples"),
    "label {a} {b} --export {out}": ("reading generations", "reading samples"),
    "score {a} --scorer pixels --dry-run": ("reading samples", "reading generations"),
    "check task {task}": ("reading samples of small", "reading ground truths of small", "checking ground truths"),
    "run --task {task} --generator noise --scorer pixels --workers 0 --out {out}": (
        "reading samples of small",
        "writing the report",
    ),
    "corpus build {pages} -o {out} --workers 0": ("reading files", "copying images", "indexing pages"),
    "board check --root {boards}": ("checking submissions of made-up", "comparing submissions of made-up"),
    "board build --root {boards} -o {out} --processes 1": ("reading submissions of made-up", "comparing systems"),
}


@pytest.mark.parametrize("line", STEPS)
def test_a_long_verb_says_what_it_does(
    line: str, inputs: Inputs, shown: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(inputs.words(line, tmp_path / "out"))
    assert set(STEPS[line]) <= set(shown)
    printed = capsys.readouterr()
    assert not [text for text in STEPS[line] if text in printed.out + printed.err]  # all ended within a moment
