"""Every kind of page that is written with a report, of the same made-up runs, with hostile words or with plain ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from knowgen.core.records import Sample
from knowgen.core.spec import RunSpec
from knowgen.judge_check.page import write_page
from knowgen.report.html import write_report, write_single_report
from knowgen.report.runs_index import IndexedRun, IndexedTraining, OtherDirectory, write_index
from knowgen.report.training.page import write_single_training_page, write_training_page
from knowgen.report.training.view import trainings_of
from knowgen.report.trajectory_page import write_trajectory_page
from knowgen.report.view import ReportRun
from knowgen.store.training_run import TrainingRun
from tests.helpers.check_pages import check_with_examples
from tests.helpers.report_pages import HOSTILE
from tests.helpers.report_runs import RunMaker
from tests.helpers.training_runs import TrainingMaker
from tests.helpers.trajectories import answer_in

ADDRESS = "javascript:alert(document.domain)"
"""Address of pages and images, as a hostile site or agent may give it."""

SINGLE = ("single report", "single training", "trajectory")
"""Pages of one file; the others have files beside them."""

PAGES = ("report", "comparison", "training", "index", "judge check", *SINGLE)


class Site:
    """Pages in a folder, written when they are asked for.

    Args:
        folder: An empty folder.
        words: Texts that stand wherever a model, a service or a user could have written.
    """

    def __init__(self, folder: Path, words: Sequence[str] = HOSTILE) -> None:
        self.folder, self.words = folder, words
        self._maker = RunMaker(folder)
        self._maker.reason = self._maker.rationale = self._maker.subject = " ".join(words)
        self._maker.task, self._maker.address = words[0], ADDRESS
        self._maker.fail_rate = 0.3
        self._runs: list[ReportRun] = []
        self._pages: dict[str, Path] = {}

    def page(self, name: str) -> Path:
        """Return one of `PAGES`."""
        if name not in self._pages:
            self._pages[name] = getattr(self, "_" + name.replace(" ", "_"))()
        return self._pages[name]

    def runs(self) -> list[ReportRun]:
        """Return runs of an agent and of two systems without search."""
        if not self._runs:
            samples = self._samples()
            everything = " ".join(self.words)
            self._runs = [
                self._maker.run(self.words[1 + place], samples, 0.3 + 0.2 * place, folder=f"run-{place}",
                                scorers=(self._maker.CHECK, self._maker.JUDGE))
                for place in range(2)
            ]  # fmt: skip
            agent = self._maker.run(
                self.words[0], samples, 0.9, folder="run-agent", agent=answer_in(everything, ADDRESS)
            )
            self._runs.insert(0, agent)
        return self._runs

    def _samples(self) -> list[Sample]:
        samples = self._maker.samples(9, self.words)
        names = {"category": self.words[1], "group": self.words[2], "difficulty": self.words[0]}
        return [each.model_copy(update=names) if place % 3 == 0 else each for place, each in enumerate(samples)]

    def _report(self) -> Path:
        return write_report(self.runs()[:1], self.folder / "report")

    def _comparison(self) -> Path:
        return write_report(self.runs(), self.folder / "comparison")

    def _single_report(self) -> Path:
        return write_single_report(self.runs(), self.folder / "single.html")

    def _training_run(self, name: str) -> TrainingRun:
        return TrainingMaker(self.folder, " ".join(self.words)).run(name, 8, evaluated=(0, 8), prompts=2)

    def _training(self) -> Path:
        run = self._training_run("training-a")
        differences = [[("model.path", " ".join(self.words), self.words[0])]]
        return write_training_page(trainings_of([run], differences), self.folder / "training")

    def _single_training(self) -> Path:
        run = self._training_run("training-b")
        return write_single_training_page(trainings_of([run]), self.folder / "training.html")

    def _index(self) -> Path:
        page = self.page("report")
        runs = [
            IndexedRun(f"{self.words[0]}/{place}", page, "2026-11-01", run.summaries[:1], place == 0)
            for place, run in enumerate(self.runs())
        ]
        trained = IndexedTraining(
            self.words[1], page, "2026-11-02", "GRPO", self.words[2], 20, runs[0].summaries[0].headline
        )
        other = OtherDirectory(self.words[0], " ".join(self.words))
        return write_index(self.words[0], runs, [trained], [other], self.folder / "index")

    def _judge_check(self) -> Path:
        folder = self.folder / "check"
        folder.mkdir()
        check, examples = check_with_examples(folder)
        return write_page(check, examples, folder / "judge_check", "result.json", check.model_dump_json())

    def _trajectory(self) -> Path:
        store = self.runs()[0].store
        answer = next(each for _, each in store.answers() if each.references)
        generation = next(each for _, each in store.generations() if each.sample_id == answer.sample_id)
        spec: RunSpec = store.spec
        return write_trajectory_page(self.folder / "agent.html", self.words[0], spec, answer, generation)
