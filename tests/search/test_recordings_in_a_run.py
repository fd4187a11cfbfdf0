"""An agent's run that is recorded and replayed has the same trajectories, references and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from knowgen import evaluate
from knowgen.store.run import RunStore

TASK = Path(__file__).resolve().parents[2] / "tasks" / "knowgen_mini"
BACKENDS = """
from knowgen.search.recorded.backends import RecordSearch, ReplaySearch

def recorded():
    return RecordSearch("{file},world:{world}")

def replayed():
    return ReplaySearch("{file}")
"""


def without_times(value: Any) -> Any:
    """Return plain data without its durations."""
    if isinstance(value, dict):
        return {name: without_times(one) for name, one in value.items() if "seconds" not in name}
    return [without_times(one) for one in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_a_replayed_run_has_the_trajectories_of_the_recorded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("backends.py").write_text(BACKENDS.format(file=tmp_path / "web.jsonl", world=TASK / "search"))
    kept: list[tuple[list[Any], set[str]]] = []
    for name in ("recorded", "replayed"):
        arguments = {"policy": "scripted", "painter": "painter", "search": f"backends.py:{name}"}
        run = evaluate(
            "knowgen_mini", "gen_searcher", ["world_check"], generator_args=arguments, limit=3, out=tmp_path / name
        )
        assert run.summary.headline is not None
        with RunStore.read(tmp_path / name) as store:
            answers = [without_times(answer.model_dump(mode="json")) for _, answer in store.answers()]
        assert len(answers) == 3 and all(answer["trajectory"] and answer["status"] == "ok" for answer in answers)
        kept.append((sorted(answers, key=lambda answer: answer["sample_id"]), digests(tmp_path / name / "images")))
    assert kept[0] == kept[1]


def digests(folder: Path) -> set[str]:
    """Return the names of the image files of a run, which are the hashes of their content."""
    return {path.name for path in folder.rglob("*") if path.is_file()}
