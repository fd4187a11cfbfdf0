"""`knowgen check scorer`: its findings for good and bad scorers, and what it spends."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from PIL import Image

from knowgen.cli.main import run
from knowgen.core.records import GroundTruth, Sample, image_ref
from knowgen.tasks.in_memory import InMemoryTask
from knowgen.validation.findings import Finding, worst
from knowgen.validation.scorer import check_scorer
from knowgen.workflows import resolve

SCORERS = '''
import random
from pathlib import Path

from PIL import ImageStat

from knowgen.plugin import Attempt, TransientError, UnscorableError, Usage, ok_score, paid_call


def brightness(prompt, image):
    return ImageStat.Stat(image.convert("L")).mean[0] / 255


class Base:
    dimensions = ("luck",)
    version = "1"


class Nan(Base):
    def score(self, sample, truth, generation):
        return float("nan")


class TooHigh(Base):
    async def score(self, sample, truth, generation):
        return 1.5


class Undeclared(Base):
    def score(self, sample, truth, generation):
        return {"luck": 0.5, "skill": 0.5}


class UndeclaredRecord(Base):
    async def score(self, sample, truth, generation):
        return ok_score(sample, generation, {"luck": random.random(), "skill": 0.5})


class ReadsTruth(Base):
    def score(self, sample, truth, generation):
        image = generation.image.open().resize(truth.image.open().size)
        return ImageStat.Stat(image.convert("L")).mean[0] / 255


class Unsteady(Base):
    def score(self, sample, truth, generation):
        return random.random()


class UnsteadyJudge(Base):
    async def score(self, sample, truth, generation):
        return random.random()


class Constant(Base):
    def score(self, sample, truth, generation):
        return 0.5


class Distance(Base):
    needs = {"truth_image"}

    def score(self, sample, truth, generation):
        ours, theirs = (ImageStat.Stat(each.open().convert("L")).mean[0] for each in (generation.image, truth.image))
        return abs(ours - theirs) / 255


class Exits(Base):
    def score(self, sample, truth, generation):
        raise SystemExit(4)


class Hangs(Base):
    async def score(self, sample, truth, generation):
        import asyncio

        await asyncio.sleep(3600)


class Unbuildable(Base):
    def __init__(self):
        raise RuntimeError("no weights")

    def score(self, sample, truth, generation):
        return 0.5


class DeclinesBlank(Base):
    def score(self, sample, truth, generation):
        deviation = ImageStat.Stat(generation.image.open().convert("L")).stddev[0]
        if not deviation:
            raise UnscorableError("a blank image has no contrast")
        return min(1.0, deviation / 128)


class Reads(Base):
    needs = {"required_text"}

    def score(self, sample, truth, generation):
        return len(truth.required_text[0]) / (10 + ImageStat.Stat(generation.image.open().convert("L")).mean[0])


class NotesMissing(Base):
    dimensions = ("luck", "skill")

    async def score(self, sample, truth, generation):
        value = ImageStat.Stat(generation.image.open().convert("L")).mean[0] / 255
        return ok_score(sample, generation, {"luck": value})


class Paid(Base):
    """Writes a line for every call that is sent."""

    def __init__(self, log, price=0.01):
        self.log, self.price = Path(log), price

    async def score(self, sample, truth, generation):
        async with paid_call(self.price, "paid") as call:
            with self.log.open("a") as file:
                file.write("sent\\n")
            call.settle(0.004)
        value = ImageStat.Stat(generation.image.open().convert("L")).mean[0] / 255
        usage = Usage(cost=0.004)
        return ok_score(sample, generation, {"luck": value}, attempts=[Attempt(reply="yes", usage=usage)])


class Closes(Base):
    def __init__(self, log):
        self.log = Path(log)

    def setup(self, device):
        self.log.write_text(f"set up on {device};")

    def score(self, sample, truth, generation):
        return ImageStat.Stat(generation.image.open().convert("L")).mean[0] / 255

    def close(self):
        self.log.write_text(self.log.read_text() + " closed")
'''


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InMemoryTask:
    """Four samples with images, of which the first requires text."""
    monkeypatch.chdir(tmp_path)
    Path("scorers.py").write_text(SCORERS)
    samples, truths = [], []
    for number in range(4):
        name = f"s{number}"
        gradient = Image.linear_gradient("L").resize((48, 32 + number))
        gradient.save(f"{name}.png")
        samples.append(Sample(id=name, prompt=f"A gradient, {number}.", category="art", text_required=number == 0))
        words = ("OPEN",) if number == 0 else ()
        truths.append(GroundTruth(sample_id=name, image=image_ref(f"{name}.png"), required_text=words))
    return InMemoryTask("gradients", samples, truths)


def check(name: str, task: InMemoryTask, budget: float | None = None, timeout: float = 60.0, **args: object) -> str:
    """Check a scorer and return one line for each finding."""
    handle = resolve.resolve_scorer(f"scorers.py:{name}", args)
    findings: list[Finding] = check_scorer(handle, task, budget=budget, timeout=timeout, device="cpu")
    return "\n".join(map(str, findings)) + f"\nworst {worst(findings)}"


def test_a_scorer_that_meets_the_contract_has_no_finding(task: InMemoryTask) -> None:
    output = check("brightness", task)
    assert output.endswith("worst ok")
    for line in (
        "contract: computes, in worker processes; needs image; gives brightness",
        "needs: 4 of 4 samples of gradients have them",
        "scores: 9 of 9 images scored within [0, 1]",
        "repeats: the same image gets the same values again",
        "needs: it scores a sample that has only what it declares",
    ):
        assert f"ok   {line}" in output, output
    means = re.search(r"brightness: true image (\S+), blank image (\S+), noise image (\S+)", output)
    assert means is not None and means[2] == "0.502", "128 of 255"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nan", "fail scores: sample 's0', true image and 8 more: score() returned nan for luck"),
        ("TooHigh", "fail scores: sample 's0', true image and 8 more: score() returned 1.5 for luck"),
        ("Undeclared", "score() returned 'skill', and declares luck"),
        ("UndeclaredRecord", "fail dimensions: sample 's0', true image and 8 more: it gives skill, which no"),
        ("ReadsTruth", "fail needs: a sample without truth_image, required_text breaks it: AttributeError"),
        ("Exits", "it calls sys.exit"),
        ("Unbuildable", "fail build: the scorer: broke while it was built: RuntimeError: no weights"),
    ],
)
def test_breaches_of_the_contract_fail(task: InMemoryTask, name: str, message: str) -> None:
    report = check(name, task)
    assert message in report and report.endswith("worst fail"), report


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Unsteady", "warn repeats: the same image gets values that differ"),
        ("UnsteadyJudge", "warn repeats: the same image gets values that differ"),
        ("Constant", "warn values: luck is 0.5 for every image"),
        ("Distance", "the true image is not ahead"),
        ("DeclinesBlank", "warn scores: sample 's0', blank image and 2 more: a blank image has no contrast"),
        ("NotesMissing", "warn dimensions: sample 's0', true image and 8 more: it gives no skill"),
    ],
)
def test_surprising_behaviour_is_a_warning(task: InMemoryTask, name: str, message: str) -> None:
    random.seed(5)
    report = check(name, task)
    assert message in report and report.endswith("worst warn"), report


def test_samples_that_lack_a_need_are_counted_and_left_out(task: InMemoryTask) -> None:
    report = check("Reads", task)
    assert "ok   needs: 3 of 4 samples lack required_text; they become not_applicable" in report
    assert "scores: 3 of 3 images" in report


def test_a_task_that_meets_no_need_fails(task: InMemoryTask) -> None:
    bare = InMemoryTask("bare", [Sample(id="a", prompt="A wall.")])
    report = check("Distance", bare)
    assert "fail needs: none of 1 samples of bare has truth_image" in report and report.endswith("worst fail")


def test_a_scorer_that_hangs_fails_after_the_time_limit(task: InMemoryTask) -> None:
    report = check("Hangs", task, timeout=0.1)
    assert "fail time: no result within" in report and "warn the rest: was not checked" in report


def test_without_a_budget_no_paid_call_is_sent(task: InMemoryTask, tmp_path: Path) -> None:
    log = tmp_path / "log"
    report = check("Paid", task, log=str(log))
    assert not log.exists()
    assert "warn cost: a call has up to $0.0100, and none was made; give --budget USD" in report


def test_a_budget_is_spent_and_not_exceeded(task: InMemoryTask, tmp_path: Path) -> None:
    log = tmp_path / "log"
    report = check("Paid", task, budget=0.03, log=str(log))
    # each call settles at 0.004: the sixth still fits its worst case of 0.01 (0.02 + 0.01), the seventh does not
    assert log.read_text().count("sent") == 6
    assert "warn cost: $0.0240 of $0.03 is spent" in report
    plenty = check("Paid", task, budget=1.0, log=str(log))
    assert "scores: 9 of 9 images" in plenty and "ok   cost: $0.0520 for 13 calls, $0.0040 each" in plenty, plenty


def test_a_call_of_unknown_price_is_not_sent(task: InMemoryTask, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert "a call has an unknown price, and none was made" in check("Paid", task, log=str(log), price=None)
    assert "so the budget cannot be enforced" in check("Paid", task, budget=1.0, log=str(log), price=None)
    assert not log.exists()


def test_a_scorer_is_set_up_and_closed(task: InMemoryTask, tmp_path: Path) -> None:
    check("Closes", task, log=str(tmp_path / "log"))
    assert (tmp_path / "log").read_text() == "set up on cpu; closed"


def test_the_command_exits_with_3_if_a_check_fails(task: InMemoryTask, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "scorer", "scorers.py:Nan"]) == 3
    assert "4 ok, 1 warning, 1 failed" in capsys.readouterr().out
    assert run(["check", "scorer", "scorers.py:brightness", "-s", "size=3"]) == 2
    assert "is a function and takes no arguments" in capsys.readouterr().err
