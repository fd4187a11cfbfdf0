"""Worker processes on the nodes of a cluster, with a stand-in for Ray: files by hash, lost nodes, versions, room."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from benchmarks.setting import NumberedTask
from knowgen.core.errors import ConfigError
from knowgen.core.records import Generation, GenerationRequest, GroundTruth, Sample
from knowgen.engine import ComponentRef, GeneratorHandle, ScorerHandle
from knowgen.engine.cluster import plan_places, stages
from knowgen.engine.executors import node_worker, ray_link
from knowgen.engine.executors.node_files import NodeFiles
from knowgen.engine.executors.ray_cluster import RayCluster
from knowgen.engine.retry import DeviceDisabledError
from knowgen.generators.contract import GeneratedImage, GenerationSource
from knowgen.workflows.cluster import code_of
from knowgen.workflows.resolve import resolve_generator
from tests.helpers import isolated
from tests.helpers.engine import Bench, Plain, generator_handle, quick
from tests.helpers.fake_ray import FakeRay
from tests.helpers.isolated import COUNT, generator_in_worker, scorer_in_worker


class SeesImages:
    """Scores an image by whether it has the content that its record says."""

    needs = ("image",)
    dimensions = ("seen",)

    def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> float:
        import hashlib

        assert generation.image is not None and generation.image.path is not None
        return float(hashlib.sha256(generation.image.path.read_bytes()).hexdigest() == generation.image.sha256)


@contextmanager
def joined(ray: FakeRay, *handles: GeneratorHandle | ScorerHandle, workers: int | None = None) -> Iterator[Any]:
    """Yield the options of a run on a cluster."""
    cluster = RayCluster(ray)  # type: ignore[arg-type]
    generators = [each for each in handles if isinstance(each, GeneratorHandle)]
    scorers = [each for each in handles if isinstance(each, ScorerHandle)]
    source = cast(GenerationSource, None)  # images that exist already
    every = stages(None, generators[0] if generators else source, scorers, phased=False)
    cluster.places = plan_places(cluster.nodes(), every, workers)
    cluster.codes = {f"generator {each.spec.name!r}": code_of(each) for each in generators}
    try:
        yield quick(cluster=cluster)
    finally:
        cluster.close()


def test_the_code_of_a_module_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "birds_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    (package / "duck.py").write_text("from birds_of_mine.parts import beak\nclass Duck: ...\n")
    (package / "parts.py").write_text("import json\nbeak = 1\n")
    monkeypatch.chdir(tmp_path)
    handle = generator_handle(Plain(), component_ref=ComponentRef("generators", "birds_of_mine.duck:Duck"))
    places = {each.place: each.path for each in code_of(handle).files}
    assert places == {f"birds_of_mine/{name}.py": str(package / f"{name}.py") for name in ("__init__", "duck", "parts")}


@pytest.fixture
def no_common_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes see nothing but what they were sent."""
    digest = NodeFiles._digest

    def own(files: NodeFiles, path: str) -> str:
        return digest(files, path) if Path(path).is_relative_to(files.path) else ""

    monkeypatch.setattr(NodeFiles, "_digest", own)


def test_images_reach_nodes_without_a_common_file_system_once(tmp_path: Path, no_common_files: None) -> None:
    ray, scorer = FakeRay((2, 0)), scorer_in_worker(SeesImages)
    bench = Bench(tmp_path / "run")
    assert bench.run(3, Plain(), options=quick()).generated == 3
    with joined(ray, scorer) as options:
        outcome = bench.run(3, Plain(), [scorer], options)
    assert outcome.scored == 3 and {one.strict.values["seen"] for one in bench.scores().values()} == {1.0}
    assert len(ray.actors) == 2 and len(ray.sent) == len(set(ray.sent)) == 3
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob(f"knowgen.node.*{options.cluster.run}*"))


def test_an_image_that_is_gone_fails_its_own_score(tmp_path: Path, no_common_files: None) -> None:
    ray, scorer, bench = FakeRay((2, 0)), scorer_in_worker(SeesImages), Bench(tmp_path / "run")
    bench.run(3, Plain(), options=quick())
    content = RayCluster.content

    def lost(cluster: RayCluster, path: str, sha256: str) -> Any:
        if sha256 == bad:
            Path(path).unlink()
        return content(cluster, path, sha256)

    image = bench.generations()["s1", 0].image
    assert image is not None
    bad = image.sha256
    with joined(ray, scorer) as options, pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayCluster, "content", lost)
        bench.run(3, Plain(), [scorer], options)
    reasons = {key[0]: score.strict.reason for key, score in bench.scores().items()}
    assert reasons["s0"] == reasons["s2"] == "" and "No such file" in reasons["s1"]


@contextmanager
def losing(ray: FakeRay, *, keep_node: bool = False) -> Iterator[None]:
    """Lose the first worker, and its node, when it has made its first image, before that is seen."""
    receive = node_worker.NodeWorker.receive

    def lose(worker: node_worker.NodeWorker) -> Any:
        messages, payloads = receive(worker)
        if worker is ray.actors[0].target and any(message["event"] == "result" for message in messages):
            if not keep_node:
                ray.resources.pop()
            ray.actors[0].lose()
        return messages, payloads

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_worker.NodeWorker, "receive", lose)
        yield


def test_a_lost_worker_costs_no_attempt_and_others_take_its_calls(tmp_path: Path) -> None:
    ray, generator = FakeRay((1, 0), (1, 0)), generator_in_worker(isolated.Synchronous)
    bench = Bench(tmp_path / "run")
    with joined(ray, generator) as options, losing(ray):
        assert bench.run(COUNT, generator, options=options).generated == COUNT
    generations = bench.generations().values()
    assert {one.attempts for one in generations} == {1} and len({one.settings["pid"] for one in generations}) == 1
    assert len(ray.actors) == 2


def test_the_last_worker_moves_to_a_node_that_is_left(tmp_path: Path) -> None:
    ray, generator, scorer = (
        FakeRay((1, 0), (1, 0)),
        generator_in_worker(isolated.Synchronous),
        scorer_in_worker(SeesImages),
    )
    with joined(ray, generator, scorer) as options:
        hosts = options.cluster.hosts(launch_of(tmp_path, generator))
        options.cluster.add(Taken())
        ray.resources.pop()
        device = asyncio.run(hosts.device(0))
        link = hosts.start(0, device)
        assert device.name == "cpu" and 0 < link.cpus < 0.01
        link.kill()
        link.join(5.0)


async def joins_later(ray: FakeRay, hosts: Any, launch: Any) -> None:
    """Lose one of two nodes, and let another one join when its worker has been given up."""
    first = [hosts.start(number, await hosts.device(number)) for number in range(2)]
    ray.resources.pop()
    first[1].kill()
    first[1].join(5.0)
    with pytest.raises(DeviceDisabledError, match="no node has room for worker 1; the others take its work"):
        await hosts.device(1)
    waiting = asyncio.ensure_future(hosts.room_again(1))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    ray.resources.append((1, 0))
    await asyncio.wait_for(waiting, 30)
    first.append(hosts.start(1, await hosts.device(1)))
    assert first[2].cpus == first[0].cpus
    for link in first:
        link.kill()
        link.join(5.0)


def test_a_node_that_joins_takes_the_worker_that_had_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_link, "_JOIN_SECONDS", 0.01)
    ray, generator = FakeRay((1, 0), (1, 0)), generator_in_worker(isolated.Synchronous)
    with joined(ray, generator) as options:
        launch = launch_of(tmp_path, generator, 2)
        asyncio.run(joins_later(ray, options.cluster.hosts(launch), launch))


def test_all_calls_of_a_lost_worker_are_made_again_together(tmp_path: Path) -> None:
    ray, generator, bench = FakeRay((1, 0)), generator_in_worker(Waits), Bench(tmp_path / "run")
    with joined(ray, generator) as options, losing(ray, keep_node=True):
        assert bench.run(COUNT, generator, options=options).generated == COUNT
    assert {one.attempts for one in bench.generations().values()} == {1}
    assert len(ray.actors) == 2  # none was suspected, which would have had a worker of its own


def test_a_judge_on_a_node_keeps_the_budget(tmp_path: Path) -> None:
    ray, judge, bench = FakeRay((1, 0)), scorer_in_worker(isolated.PaidJudge), Bench(tmp_path / "run")
    with joined(ray, judge) as options:
        outcome = bench.run(COUNT, Plain(), [judge], replace(options, budget=0.8))
    assert outcome.stopped == "budget" and 0 < outcome.cost <= 0.8
    assert len(bench.scores()) == outcome.scored < COUNT


class Waits:
    """Makes several images at once."""

    concurrency = COUNT

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        await asyncio.sleep(0.02)
        return isolated.tell(request)


class Taken:
    """A worker of another plugin, which takes a processor."""

    cpus, gpus, where, waits_for = 0.99, 0.0, "scorer 'judge'", ""

    def kill(self) -> None:
        """Do nothing."""

    def join(self, seconds: float) -> None:
        """Do nothing."""


def launch_of(folder: Path, generator: GeneratorHandle, workers: int = 1) -> Any:
    from knowgen.engine.executors.links import WorkerLaunch

    assert generator.component_ref is not None
    folder.mkdir(exist_ok=True)
    return WorkerLaunch(generator.component_ref, "draw", f"generator {generator.spec.name!r}", folder, workers)


def test_a_node_with_another_version_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray, generator = FakeRay((1, 0)), generator_in_worker(isolated.Synchronous)
    other = {"knowgen": "0.1.0 (code 000000000000)"}
    installed = node_worker.installation
    monkeypatch.setattr(node_worker, "installation", lambda code: {**installed(code), **other})
    with (
        joined(ray, generator) as options,
        pytest.raises(ConfigError, match="has knowgen 0.1.0.*and this one 0") as error,
    ):
        Bench(tmp_path / "run").run(1, generator, options=options)
    assert error.value.fix == "install the same versions on every node"


def test_the_files_of_a_plugin_are_sent_to_nodes_that_lack_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_common_files: None
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "tint.py").write_text("def tint(seed):\n    return (seed, 2, 3)\n")
    plugin = "from PIL import Image\nfrom tint import tint\n\ndef paint(prompt, seed):\n"
    (folder / "paint.py").write_text(f"{plugin}    return Image.new('RGB', (32, 32), tint(seed + len(__file__)))\n")
    monkeypatch.chdir(folder)
    generator = resolve_generator("paint.py:paint", {}, NumberedTask(1), in_worker=True)
    ray, bench = FakeRay((1, 0)), Bench(tmp_path / "run")
    with joined(ray, generator) as options:
        assert bench.run(1, generator, options=options).generated == 1
    (generation,) = bench.generations().values()
    assert generation.image is not None and generation.image.path is not None
    with Image.open(generation.image.path) as image:
        assert image.getpixel((0, 0)) != (len(str(folder / "paint.py")), 2, 3)  # it was imported from another folder
    assert len(ray.sent) == 2
