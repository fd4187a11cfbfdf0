"""Code of others is imported and described in a process of its own, and says there what it says in this one."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knowgen import api
from knowgen.core import registry
from knowgen.core.arguments import ArgumentText
from knowgen.core.errors import ConfigError, KnowgenError, UsageError
from knowgen.core.records import Attempt, GroundTruth, Sample
from knowgen.core.run_config import RunConfig
from knowgen.tasks.load import load_task
from knowgen.workflows import plugin_process
from knowgen.workflows.agents import resolve_system
from knowgen.workflows.described import TaskSearch, open_task
from knowgen.workflows.resolve import argument_texts, resolve_generator, resolve_scorer

NOTES = "import os\nwith open('pids', 'a') as file:\n    file.write(f'{os.getpid()} ')\n"
"""Beginning of a module that writes down in which process it is imported."""

GENERATORS = """
from PIL import Image


class Plain:
    revision = "7"
    batch_size = 3
    identity_excludes = ("cache",)

    def __init__(self, size: int = 32, version: str = "1.0", cache: str = ""):
        self.size = size

    def setup(self, device):
        self.device = device

    def generate_batch(self, requests):
        raise NotImplementedError

    @staticmethod
    def weights_identity(size=32, **_):
        return f"weights of {size}"

    @staticmethod
    def price_known(size=32, **_):
        return size > 100


class Named:
    def __init__(self, model: str):
        self.model = model

    @staticmethod
    def display_name(model, **_):
        return f"named:{model.upper()}"

    async def generate(self, request):
        raise NotImplementedError


class Searches:
    wants_search = True

    def __init__(self, search):
        self.search = search

    def draw(self, prompt, references, seed):
        return Image.new("RGB", (16, 16), (seed, 1, 2))


class Held:
    def __init__(self, size=8):
        self.size = size

    def draw(self, prompt, references, seed):
        return Image.new("RGB", (self.size, 16), (seed, 1, 2))


held = Held(size=24)


def painter(prompt, seed):
    return Image.new("RGB", (16, 16), (seed, 1, 2))
"""

SCORERS = """
from knowgen.core.records import ParsedScore
from knowgen.scorers.vlm.cost_estimate import Estimate
from knowgen.scorers.vlm.judge import VlmJudge


def plain(prompt, image):
    return 0.5


class Measure:
    needs = frozenset({"image", "truth_image"})
    dimensions = ("a", "b")
    workers = 2

    def __init__(self, scale: float = 1.0, unreadable_attempts: int = 0):
        self.scale = scale

    def score(self, sample, truth, generation):
        return {"a": 0.5, "b": None}


class Judge:
    dimensions = ("quality",)
    version = "3"
    parser = "own-1"

    def __init__(self, model: str = "m"):
        self.model = model

    async def score(self, sample, truth, generation):
        return 0.5

    @classmethod
    def reparse(cls, attempts, sample):
        value = len(attempts) / 10
        return ParsedScore(status="ok", values={"quality": value}), ParsedScore(status="ok"), sample.id

    @staticmethod
    def estimate_cost(items, model=None, **_):
        return Estimate(len(list(items)), 1.0, 0.25, 2.0)


class Inherits(VlmJudge):
    version = "mine"
"""

SEARCH = """
class Backend:
    version = "4"

    async def search(self, query, k=5):
        return []

    async def image_search(self, query, k=5):
        return []

    async def open(self, url):
        raise NotImplementedError
"""

TASK = """
from PIL import Image

from knowgen.plugin import GroundTruth, InMemoryTask, Sample, image_ref


def plain():
    Image.new("RGB", (16, 16), "red").save("red.png")
    samples = [Sample(id=f"s{n}", prompt=f"Plain {n}.", category="art", text_required=False) for n in range(3)]
    truths = [GroundTruth(sample_id=one.id, image=image_ref("red.png"), extra={"n": 1}) for one in samples]
    return InMemoryTask("plain", samples, truths, default_scorers=["pixels"], limit="first")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for name, code in (("painters", GENERATORS), ("judges", SCORERS), ("found", SEARCH), ("tasked", TASK)):
        (tmp_path / f"{name}.py").write_text(NOTES + code)
    yield tmp_path
    for name in [name for name, each in sys.modules.items() if str(tmp_path) in str(getattr(each, "__file__", ""))]:
        del sys.modules[name]


def importers(folder: Path) -> set[int]:
    """Return the processes that have imported one of the modules."""
    return {int(pid) for pid in (folder / "pids").read_text().split()}


def text(**values: str) -> dict[str, Any]:
    return {name: ArgumentText(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("painters.py:Plain", text(size="64", version="1.10", cache="x")),
        ("painters:Named", {"model": "small"}),
        ("painters.py:Searches", {"search": "found.py:Backend"}),
        ("painters.py:held", {}),
        ("painters.py:painter", {}),
    ],
)
def test_a_generator_says_the_same_in_its_own_process(folder: Path, name: str, args: dict[str, Any]) -> None:
    task = TaskSearch("found.py:Backend", "w-1")
    apart = resolve_generator(name, args, task, in_worker=True)
    assert os.getpid() not in importers(folder)
    here = resolve_generator(name, args, task)
    assert os.getpid() in importers(folder)
    assert (apart.spec, apart.capabilities, apart.price_known) == (here.spec, here.capabilities, here.price_known)
    assert apart.component_ref == here.component_ref
    assert apart.component_ref is not None and not apart.component_ref.bundled
    assert type(apart.build()).__name__ == type(here.build()).__name__


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("judges.py:plain", {}),
        ("judges.py:Measure", text(scale="2")),
        ("judges.py:Judge", {"model": "large"}),
        ("judges.py:Inherits", {"model": "any", "base_url": "http://127.0.0.1:9/v1"}),
    ],
)
def test_a_scorer_says_the_same_in_its_own_process(folder: Path, name: str, args: dict[str, Any]) -> None:
    apart = resolve_scorer(name, args, 20, in_worker=True)
    assert os.getpid() not in importers(folder)
    here = resolve_scorer(name, args, 20)
    assert (apart.spec, apart.component_ref, apart.price_known) == (here.spec, here.component_ref, here.price_known)
    for field in ("shape", "needs", "dimensions", "version", "workers", "parser", "deadline"):
        assert getattr(apart.capabilities, field) == getattr(here.capabilities, field)
    sample, attempts = Sample(id="s1", prompt="x"), [Attempt(reply="one"), Attempt(reply="two")]
    assert (apart.capabilities.reparse is None) is (here.capabilities.reparse is None)
    if apart.capabilities.reparse is not None and here.capabilities.reparse is not None:
        for _ in range(2):
            assert apart.capabilities.reparse(attempts, sample) == here.capabilities.reparse(attempts, sample)
    assert (apart.estimate is None) is (here.estimate is None)
    if apart.estimate is not None and here.estimate is not None:
        items = [(sample, GroundTruth(sample_id="s1"))]
        assert apart.estimate(items) == here.estimate(items)


def test_the_parser_of_a_bundled_judge_is_called_in_this_process(folder: Path) -> None:
    from knowgen.scorers.vlm.judge import VlmJudge

    handle = resolve_scorer("judges.py:Inherits", {"model": "any", "base_url": "http://127.0.0.1:9/v1"}, in_worker=True)
    assert handle.capabilities.reparse is VlmJudge.reparse
    assert os.getpid() not in importers(folder)


def test_each_question_is_asked_once_where_answers_are_remembered(folder: Path) -> None:
    with plugin_process.remembered_answers():
        first, second, other = (
            resolve_generator("painters.py:Plain", {"size": size}, None, in_worker=True) for size in (64, 64, 65)
        )
    assert first.spec == second.spec != other.spec
    assert len(importers(folder)) == 2


def test_arguments_are_written_as_the_plugin_reads_them(folder: Path) -> None:
    assert argument_texts("judges.py:Measure", {"scale": 2.0}, in_worker=True) == {"scale": "2.0"}
    assert os.getpid() not in importers(folder)


def test_a_task_of_others_has_the_same_samples_and_truths(folder: Path) -> None:
    apart, here = open_task("tasked.py:plain", in_worker=True), load_task("tasked.py:plain")
    for field in ("name", "version", "default_scorers", "search", "search_version", "limit"):
        assert getattr(apart, field) == getattr(here, field)
    assert len(apart) == len(here) == 3
    assert list(apart.samples()) == list(apart.samples()) == list(here.samples())
    one, other = apart.truth("s1"), here.truth("s1")
    assert one.model_dump() == other.model_dump()
    assert one.image is not None and one.image.open().getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(KnowgenError) as known:
        here.truth("nothing")
    with pytest.raises(type(known.value), match="nothing") as raised:
        apart.truth("nothing")
    assert str(raised.value) == str(known.value)


def test_a_task_of_others_may_be_in_another_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    for name in ("../tasked.py:plain", str(folder / "tasked.py:plain")):
        assert len(open_task(name, in_worker=True)) == 3
    assert len(load_task("../tasked.py:plain")) == 3
    with pytest.raises(UsageError, match="no task folder"):
        open_task("../nothing", in_worker=True)


def test_a_run_imports_code_of_others_in_other_processes_only(folder: Path) -> None:
    fields: dict[str, Any] = {"generator_args": {"search": "found.py:Backend"}, "progress": False}
    for workers in (None, 0):
        run = api.evaluate(
            "tasked.py:plain", "painters.py:Searches", "judges.py:plain",
            out=folder / f"run{workers}", workers=workers, **fields,
        )  # fmt: skip
        assert [row.strict.values for row in run.rows()] == [{"plain": 0.5}] * 3
        assert (os.getpid() in importers(folder)) is (workers == 0)
    assert api.load_run(folder / "runNone").spec == api.load_run(folder / "run0").spec


def test_a_bundled_generator_runs_in_a_worker_with_a_backend_of_others(folder: Path) -> None:
    system = resolve_system("open_book", {"search": "found.py:Backend"}, None, in_worker=True)
    handle = system.agent or system.generator
    assert handle.component_ref is not None and not handle.component_ref.bundled
    assert handle.spec.search == "found.py:Backend@4"
    assert os.getpid() not in importers(folder)


def test_a_plugin_that_is_given_an_object_stays_in_this_process(folder: Path) -> None:
    backend = registry.create(registry.resolve("search", "found.py:Backend"), {})
    handle = resolve_generator("painters.py:Searches", {"search": backend}, None, in_worker=True)
    assert handle.component_ref is None and handle.build().search is backend


def test_finding_a_module_in_a_package_imports_nothing(folder: Path) -> None:
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text(NOTES)
    (folder / "pack" / "inner.py").write_text(GENERATORS)
    assert registry.resolve("generators", "pack.inner:Plain").origin == registry.LOCAL
    with pytest.raises(UsageError, match="unknown generator"):
        registry.resolve("generators", "pack.other:Plain")
    assert resolve_generator("pack.inner:Plain", {}, None, in_worker=True).spec.revision == "7 weights of 32"
    assert os.getpid() not in importers(folder) and "pack" not in sys.modules


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "import ctypes\nprint('one', flush=True)\nprint('two')\nctypes.string_at(0)\n",
            r"its process was killed by SIGSEGV \(hostile\.py:4\), after it printed 'one | two'",
        ),
        (
            "import os, threading, time\nthreading.Thread(target=os._exit, args=(7,)).start()\ntime.sleep(600)\n",
            "its process ended with code 7",
        ),
        ("import os\nos._exit(3)\n", r"it called os\._exit\(3\) \(hostile\.py:2\)"),
        ("raise RuntimeError('no\\nluck')\n", r"RuntimeError: no luck \(hostile\.py:1\)"),
        ("class Gen:\n    batch_size = 'many'\n    def generate_batch(self): ...\n", "ValueError: invalid literal"),
    ],
)
def test_an_import_that_fails_is_one_line(folder: Path, code: str, words: str) -> None:
    (folder / "hostile.py").write_text(code)
    with pytest.raises(ConfigError) as raised:
        resolve_generator("hostile.py:Gen", {}, None, in_worker=True)
    line = str(raised.value)
    assert line.startswith("generator 'hostile.py:Gen': ") and line.endswith("; fix that file") and "\n" not in line
    assert re.search(words, line), line


@pytest.mark.parametrize("wait", ["import time\ntime.sleep(600)", "import ctypes\nctypes.PyDLL(None).sleep(600)"])
def test_an_import_that_does_not_end_is_reported_and_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    (folder / "hostile.py").write_text(wait)
    monkeypatch.setattr(plugin_process, "NOTICE_SECONDS", 0.0)
    monkeypatch.setattr(plugin_process, "_NOTICE_DELAY", 0.0)
    monkeypatch.setattr(plugin_process, "ANSWER_SECONDS", 1.0)
    reported = threading.Event()

    class Listener(logging.Handler):
        """Notes that a warning was logged."""

        def emit(self, record: logging.LogRecord) -> None:
            """Note the warning."""
            assert "generator 'hostile.py:Gen' has not been imported" in record.getMessage()
            reported.set()

    listener = Listener()
    logging.getLogger("knowgen.plugins").addHandler(listener)
    try:
        with pytest.raises(ConfigError, match="gave no answer within 1 s while it was imported"):
            resolve_generator("hostile.py:Gen", {}, None, in_worker=True)
        assert reported.wait(60)
    finally:
        logging.getLogger("knowgen.plugins").removeHandler(listener)


def test_the_place_of_an_import_that_waits_is_read_from_its_stack(folder: Path) -> None:
    child = plugin_process._Child.__new__(plugin_process._Child)
    frames = f'  File "{json.__file__}", line 9 in load\n  File "/home/me/duck.py", line 12 in <module>\n'
    child._tail = bytearray(b"loading\nTimeout (0:00:30)!\nThread 0x01 (most recent call first):\n" + frames.encode())
    assert (child.place, child.printed) == ("duck.py:12", "loading")


def test_what_an_import_replaces_stays_in_its_process(folder: Path) -> None:
    before = json.dumps, os.environ.copy(), Path.cwd()
    (folder / "hostile.py").write_text(
        "import json, os, sys, types, builtins\njson.dumps = None\nsys.modules['json'] = types.ModuleType('json')\n"
        "import knowgen.store.run\nknowgen.store.run.RunStore = None\nbuiltins.open = None\n"
        "os.environ.clear()\nos.chdir('/')\n\nclass Gen:\n    def draw(self, prompt, references, seed): ...\n"
    )
    assert resolve_generator("hostile.py:Gen", {}, None, in_worker=True).capabilities.shape == "draw"
    assert (json.dumps, os.environ.copy(), Path.cwd()) == before


def test_a_plugin_that_breaks_its_description_is_one_line(folder: Path) -> None:
    (folder / "hostile.py").write_text(
        "import dataclasses\ndataclasses.asdict = lambda value: {'shape': 'circle'}\n\n"
        "class Gen:\n    def draw(self, prompt, references, seed): ...\n"
    )
    with pytest.raises(ConfigError, match="its declarations cannot be used"):
        resolve_generator("hostile.py:Gen", {}, None, in_worker=True)


def test_in_process_on_request(folder: Path) -> None:
    plan = api.plan("knowgen_mini", "painters.py:painter", ["judges.py:plain"], RunConfig(workers=0, limit=1))
    assert plan.spec.generator.name == "painters.py:painter" and importers(folder) == {os.getpid()}
