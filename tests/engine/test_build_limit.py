"""A plugin whose constructor or `setup` does not end: reported, and ended with one line."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import ConfigError
from knowgen.core.run_config import RunConfig
from knowgen.engine.executors import in_process, worker_process
from knowgen.engine.options import EngineOptions
from knowgen.engine.retry import BUILD_SECONDS
from tests.helpers import isolated
from tests.helpers.engine import Bench, Plain, quick
from tests.helpers.isolated import generator_in_worker, scorer_in_worker
from tests.helpers.processes import wait_until


def workers_of(marker: str) -> list[str]:
    """Return the processes with a marker in their environment, except this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                if b"worker_main" in command and marker.encode() in (entry / "environ").read_bytes():
                    found.append(entry.name)
            except OSError:
                continue  # it has ended
    return found


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (isolated.HangsWhenBuilt, {"until": "/nowhere/at/all"}),
        (isolated.HangsWhenBuilt, {"holds": True}),
        pytest.param(isolated.HangsInSetup, {"until": "/nowhere/at/all"}, marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_is_not_built_in_time_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Any], args: dict[str, Any]
) -> None:
    monkeypatch.setenv("KNOWGEN_TEST_MARKER", str(tmp_path))
    bench = Bench(tmp_path / "run")
    with pytest.raises(ConfigError) as raised:
        bench.run(2, generator_in_worker(kind, **args), options=quick(build_timeout=1.0))
    assert str(raised.value).startswith(f"generator '{kind.__name__}': was not built within 1 s; see logs/generators-")
    assert "--patience" in str(raised.value)
    wait_until(lambda: not workers_of(str(tmp_path)))


def test_a_plugin_in_this_process_is_left_behind(tmp_path: Path) -> None:
    until = tmp_path / "ended"
    handle = generator_in_worker(isolated.HangsWhenBuilt, until=str(until))
    try:
        with pytest.raises(ConfigError, match="was not built within 1 s"):
            Bench(tmp_path / "run").run(2, handle, options=quick(build_timeout=1.0, workers=0))
    finally:
        until.touch()


@pytest.mark.parametrize(("workers", "module"), [(None, worker_process), (0, in_process)])
def test_a_plugin_that_takes_long_is_reported_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None, module: Any
) -> None:
    until = tmp_path / "ended"
    monkeypatch.setattr(module, "NOTICE_SECONDS", 0.0)

    class Listener(logging.Handler):
        """Keeps a warning, and lets the constructor go on."""

        text = ""

        def emit(self, record: logging.LogRecord) -> None:
            """Keep the warning."""
            self.text = record.getMessage()
            until.touch()

    listener = Listener()
    logging.getLogger("knowgen.engine").addHandler(listener)
    try:
        handle = generator_in_worker(isolated.HangsWhenBuilt, until=str(until))
        assert Bench(tmp_path / "run").run(2, handle, options=quick(workers=workers)).generated == 2
    finally:
        logging.getLogger("knowgen.engine").removeHandler(listener)
    assert "generator 'HangsWhenBuilt' has not been built" in listener.text


def test_a_larger_patience_raises_the_limit() -> None:
    assert EngineOptions.of(RunConfig()).build_timeout == BUILD_SECONDS
    assert EngineOptions.of(RunConfig(patience=2 * BUILD_SECONDS)).build_timeout == 2 * BUILD_SECONDS


@pytest.mark.parametrize("kind", [isolated.CachingJudge, isolated.CachingMeasure])
def test_fresh_reaches_judges_wherever_they_run(tmp_path: Path, kind: type[Any]) -> None:
    for number, (workers, fresh) in enumerate([(None, True), (0, True), (0, False)]):
        bench = Bench(tmp_path / str(number))
        bench.run(2, Plain(), [scorer_in_worker(kind)], quick(workers=workers, fresh=fresh))
        assert {score.details["reuse"] for score in bench.scores().values()} == {not fresh}
