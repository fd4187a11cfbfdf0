"""Resolve the recorded generator of a run, and list changes of the environment since the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from knowgen.core.errors import KnowgenError, UsageError
from knowgen.core.spec import RunSpec
from knowgen.engine.components import GeneratorHandle
from knowgen.generators.contract import AnswerSource
from knowgen.store.manifest import library_versions, machine_facts
from knowgen.store.run import RunStore
from knowgen.workflows.described import open_task
from knowgen.workflows.resolve import resolve_generator


class _OnDevice:
    """A generator on a device chosen by the user."""

    def __init__(self, plugin: Any, device: str) -> None:
        self._plugin, self._device = plugin, device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plugin, name)

    def setup(self, device: str) -> None:
        """Set it up on the chosen device instead of the one that the engine assigns."""
        self._plugin.setup(self._device)


def recorded_handle(spec: RunSpec, task: str | None, given: Mapping[str, Any], device: str | None) -> GeneratorHandle:
    """Resolve the recorded generator.

    Raises:
        UsageError: The generator or its task is unknown here, an argument would change the result, or the generator
            searched with a backend that is not the task's and was not given.
    """
    recorded = spec.generator
    whole = None
    if task is not None or recorded.search:
        try:
            whole = open_task(task or spec.task, in_worker=True)
        except KnowgenError as error:
            raise UsageError(
                f"the generator uses the search of task {spec.task}, which cannot be opened ({error.what})",
                fix="name the task or its folder with --task",
            ) from error
    handle = resolve_generator(recorded.name, {**recorded.args, **given}, whole, in_worker=device is None)
    if handle.spec.args != recorded.args:
        other = sorted(name for name in given if handle.spec.args.get(name) != recorded.args.get(name))
        raise UsageError(
            f"-g {other[0] if other else ''} differs from the record and would change the result",
            fix="give only arguments that affect speed or place",
        )
    backend = handle.spec.search.partition("@")[0]
    if "search" not in given and not recorded.search.startswith(f"{backend}@" if backend else ""):
        raise UsageError(
            f"the generator searched with {recorded.search}, and the task has the search backend {backend}",
            fix="name the recorded one with -g search=NAME",
        )
    if device is None:
        return handle

    def build() -> Any:
        plugin = handle.build()
        if not callable(getattr(plugin, "setup", None)):
            raise UsageError("the generator has no `setup`, so no device can be chosen", fix="remove --device")
        return _OnDevice(plugin, device)

    return replace(handle, build=build, component_ref=None)


def recorded_requests(run: Path, spec: RunSpec, path: Path | str | None) -> AnswerSource | None:
    """Open the agent's answers that a run was generated from: its own, where its agent is a part of it.

    Raises:
        UsageError: They are missing, differ from the recorded ones, or the run has none.
    """
    if spec.agent is not None:
        if path is not None:
            raise UsageError("the run has the answers of its agent", where=str(run), fix="remove --requests")
        from knowgen.interchange.agent_answers import RunAnswers

        return RunAnswers(run)
    if path is None:
        if spec.requests:
            raise UsageError(
                f"the run was generated from the answers of an agent ({spec.requests})",
                fix="name them with --requests SRC",
            )
        return None
    from knowgen.interchange.agent_answers import open_answers

    source = open_answers(Path(path))
    if source.identity != spec.requests:
        recorded = spec.requests or "the prompts of the task"
        raise UsageError(
            f"the run was generated from {recorded}, not from {source.identity}",
            where=str(path),
            fix="name the recorded answers" if spec.requests else "remove --requests",
        )
    return source


def changes_since(store: RunStore, handle: GeneratorHandle) -> dict[str, tuple[str, str]]:
    """Return the recorded and the current value of libraries, machine, revision and search, where they differ."""
    recorded = store.spec.generator
    pairs: dict[str, tuple[str, str]] = {}
    before, now = store.manifest.versions, library_versions()
    for name in dict.fromkeys((*before, *now)):
        pairs[name] = (before.get(name, "not installed"), now.get(name, "not installed"))
    for name in ("processor", "accelerators"):
        pairs[name] = (_as_text(store.manifest.machine.get(name)), _as_text(machine_facts().get(name)))
    pairs["revision"] = (recorded.revision, handle.spec.revision)
    pairs["search"] = (recorded.search, handle.spec.search)
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _as_text(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return ", ".join(str(each) for each in values if each is not None) or "none"
