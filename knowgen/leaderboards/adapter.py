"""How a run names the code of its system, so that others can run it again."""

from __future__ import annotations

from typing import Any

from knowgen.core.errors import KnowgenError
from knowgen.core.registry import LOCAL, is_bundled, resolve
from knowgen.core.spec import RunSpec
from knowgen.leaderboards.records import Adapter
from knowgen.store.manifest import Manifest


def recorded_name(spec: RunSpec) -> str:
    """Return the name that `--generator` was given: the agent, or the generator without one."""
    return spec.agent.name if spec.agent is not None else spec.generator.name


def recorded_arguments(spec: RunSpec) -> dict[str, Any]:
    """Return the arguments that decide the images, flat, as `-g` takes them.

    Example:
        >>> from knowgen.core.spec import AgentSpec, GeneratorSpec, PartSpec, RunSpec, Selection
        >>> spec = RunSpec(
        ...     task="t",
        ...     task_version="1",
        ...     selection=Selection(n=1),
        ...     generator=GeneratorSpec(name="diffusers:qwen", args={"steps": 20}),
        ...     agent=AgentSpec(name="gen_searcher", parts={"policy": PartSpec(name="scripted")}),
        ... )
        >>> recorded_arguments(spec)
        {'policy': 'scripted', 'painter': 'diffusers:qwen', 'painter.steps': 20}
    """
    if spec.agent is None:
        return dict(spec.generator.args)
    arguments: dict[str, Any] = dict(spec.agent.args)
    for role, part in spec.agent.parts.items():
        arguments[role] = part.name
        arguments |= {f"{role}.{name}": value for name, value in part.args.items()}
    arguments["painter"] = spec.generator.name
    arguments |= {f"painter.{name}": value for name, value in spec.generator.args.items()}
    return arguments if spec.agent.fallback == "draw" else {**arguments, "fallback": spec.agent.fallback}


def recorded_adapter(manifest: Manifest) -> Adapter:
    """Return what a run knows of the code that ran it: package and version, or the commit of a local file."""
    spec = manifest.spec
    name, part = recorded_name(spec), spec.agent or spec.generator
    package, commit = "", ""
    try:
        origin = resolve("generators", name).origin
    except KnowgenError:  # it is not installed here
        origin = LOCAL
    if origin == LOCAL:
        commit = manifest.git
    elif not is_bundled(origin):
        distribution, _, version = origin.rpartition(" ")
        package = f"{distribution}=={version}"
    return Adapter(
        package=package,
        generator=name,
        revision=part.revision,
        commit=commit,
        arguments=recorded_arguments(spec),
        search=part.search,
    )
