"""The generator of a record, made ready to draw once more, and what is different here from where it drew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from knowgen import assemble
from knowgen.core.errors import KnowgenError, UsageError
from knowgen.core.spec import RunSpec
from knowgen.engine.components import GeneratorHandle
from knowgen.generators.contract import AnswerSource
from knowgen.store.manifest import library_versions, machine_facts
from knowgen.store.run import RunStore
from knowgen.tasks.load import load_task


class _OnDevice:
    """A generator that is set up on a device of the user's choice."""

    def __init__(self, plugin: Any, device: str) -> None:
        self._plugin, self._device = plugin, device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plugin, name)

    def setup(self, device: str) -> None:
        """Sets it up there, wherever the engine would have it."""
        self._plugin.setup(self._device)


def recorded_handle(spec: RunSpec, task: str | None, given: Mapping[str, Any], device: str | None) -> GeneratorHandle:
    """Makes ready the generator of a record.

    Raises:
        UsageError: It is not to be found here, its task is not, or an argument would change what it draws.
    """
    recorded = spec.generator
    whole = None
    if task is not None or recorded.search:
        try:
            whole = load_task(task or spec.task)
        except KnowgenError as error:
            raise UsageError(
                f"the generator looks things up in the task {spec.task}, which cannot be opened ({error.what})",
                fix="name the task or its folder with --task",
            ) from error
    handle = assemble.generator_handle(recorded.name, {**recorded.args, **given}, whole)
    if handle.spec.args != recorded.args:
        other = sorted(name for name in given if handle.spec.args.get(name) != recorded.args.get(name))
        raise UsageError(
            f"-g {other[0] if other else ''} would have something drawn that the run does not record",
            fix="give only what is a matter of speed or place",
        )
    if device is None:
        return handle

    def build() -> Any:
        plugin = handle.build()
        if not callable(getattr(plugin, "setup", None)):
            raise UsageError("the generator has no `setup`, so no device can be chosen", fix="leave --device out")
        return _OnDevice(plugin, device)

    return replace(handle, build=build, remake=None)


def recorded_requests(spec: RunSpec, path: Path | str | None) -> AnswerSource | None:
    """Opens the agent's answers a run was drawn from.

    Raises:
        UsageError: They are not named, are others, or the run was drawn from none.
    """
    if path is None:
        if spec.requests:
            raise UsageError(
                f"the run was drawn from the answers of an agent ({spec.requests})", fix="name them with --requests SRC"
            )
        return None
    from knowgen.interchange.agent_answers import open_requests

    source = open_requests(Path(path))
    if source.identity != spec.requests:
        there = spec.requests or "the prompts of the task"
        raise UsageError(f"the run was drawn from {there}, not from {source.identity}", where=str(path))
    return source


def changes_since(store: RunStore, handle: GeneratorHandle) -> dict[str, tuple[str, str]]:
    """Returns what was recorded and what is here now, where the two differ."""
    recorded = store.spec.generator
    pairs: dict[str, tuple[str, str]] = {}
    before, now = store.manifest.versions, library_versions()
    for name in dict.fromkeys((*before, *now)):
        pairs[name] = (before.get(name, "not installed"), now.get(name, "not installed"))
    for name in ("processor", "accelerators"):
        pairs[name] = (_told(store.manifest.machine.get(name)), _told(machine_facts().get(name)))
    pairs["revision"] = (recorded.revision, handle.spec.revision)
    pairs["search"] = (recorded.search, handle.spec.search)
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _told(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return ", ".join(str(each) for each in values if each is not None) or "none"
