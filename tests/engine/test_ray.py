"""Plugins on the nodes of a Ray cluster: the same rows as in one process, whatever happens to a node."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

import knowgen
from knowgen.store.run import RunStore
from tests.helpers.ray_cluster import can_hide, local_cluster, remote_node

pytest.importorskip("ray")


def results(path: Path) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return what is stored of a run, without times and its own place: generations and scores by key."""
    with RunStore.read(path) as store:
        generations = {key: one.model_dump(mode="json", exclude={"seconds"}) for key, one in store.generations()}
        for generation in generations.values():
            for reference in generation["references"]:
                reference.pop("path", None)
        scores = {key: one.model_dump(mode="json", exclude={"seconds"}) for key, one in store.scores()}
    return generations, scores


@pytest.mark.slow
def test_a_run_that_loses_a_node_has_the_rows_of_one_process(tmp_path: Path) -> None:
    here = knowgen.evaluate("knowgen_mini", "painter", out=tmp_path / "here", workers=0)
    with local_cluster([{"num_cpus": 2}] * 3) as cluster:
        lost = threading.Event()

        def lose_a_node() -> None:
            images = tmp_path / "ray" / "images"
            while len(list(images.rglob("*.png"))) < 8:
                time.sleep(0.02)
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            lost.set()

        threading.Thread(target=lose_a_node, daemon=True).start()
        there = knowgen.evaluate("knowgen_mini", "painter", out=tmp_path / "ray", executor=f"ray:{cluster.address}")
        assert lost.is_set()
    assert there.outcome is not None and there.outcome.generated == there.outcome.scored == 48
    assert results(there.path) == results(here.path)


PLUGIN = """
import os, shapes

class Dots:
    references = 4

    def draw(self, prompt, references, seed):
        return shapes.dots(prompt, references)
"""

SHAPES = """
import hashlib
from PIL import Image

def dots(prompt, references):
    seen = b"".join(image.tobytes() for image in references)
    digest = hashlib.sha256(prompt.encode() + seen).digest()
    return Image.frombytes("RGB", (32, 32), digest * 96)
"""


@pytest.mark.slow
@pytest.mark.skipif(not can_hide(), reason="may not create mount namespaces")
def test_nodes_need_no_common_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dots.py").write_text(PLUGIN)
    (tmp_path / "shapes.py").write_text(SHAPES)
    monkeypatch.chdir(tmp_path)
    system: dict[str, Any] = {"generator_args": {"painter": "dots.py:Dots"}, "limit": 12}
    here = knowgen.evaluate("knowgen_mini", "open_book", out=tmp_path / "here", **system)
    with local_cluster([{"num_cpus": 0}]) as cluster, remote_node(cluster, tmp_path, cpus=3):
        executor = f"ray:{cluster.address}"
        there = knowgen.evaluate("knowgen_mini", "open_book", out=tmp_path / "ray", executor=executor, **system)
    assert results(there.path) == results(here.path)
    generations, _ = results(there.path)
    assert any(one["references"] for one in generations.values())
