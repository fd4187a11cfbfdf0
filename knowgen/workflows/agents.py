"""Resolve a generator that is an agent: the agent itself, and the image model that generates from its answers.

Arguments come flat, as on the command line. `painter` names the image model and `painter.KEY` are its arguments;
`policy`, `search` and `summary` name parts of the agent and `policy.KEY`, `search.KEY` and `summary.KEY` are theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from knowgen.core import registry
from knowgen.core.arguments import plain_arguments, read_arguments
from knowgen.core.errors import UsageError
from knowgen.core.secrets import refuse_secrets
from knowgen.core.spec import AgentSpec, Fallback, PartSpec, is_plain
from knowgen.engine.components import AgentHandle, ComponentRef, GeneratorHandle, before_generator
from knowgen.generators.contract import capabilities_of, is_agent
from knowgen.search.prices import query_price
from knowgen.tasks.contract import Task
from knowgen.workflows.described import ChosenAgent, TaskSearch, described_system, describes_apart
from knowgen.workflows.located import constructor_arguments, locate
from knowgen.workflows.plugin_process import is_foreign
from knowgen.workflows.resolve import NOT_IN_KEYS, Description, SearchChoice, describe, resolve_generator, search_for

PAINTER = "painter"
FALLBACK = "fallback"
FALLBACKS: tuple[Fallback, ...] = ("draw", "fail")

PART_KINDS: Mapping[str, registry.Kind | None] = {"policy": "policies", "summary": None}
"""Parts of an agent that its specification names, with the kind of plugin that each is; None for a model's name."""

_ACCESS = NOT_IN_KEYS | {"base_url"}
"""Arguments of a model that say where it is and how fast, which decide nothing."""


@dataclass(frozen=True)
class ResolvedSystem:
    """What takes part in a benchmark: a generator, with or without an agent before it.

    Attributes:
        generator: The generator; an agent's image model.
        agent: The agent; None without one.
    """

    generator: GeneratorHandle
    agent: AgentHandle | None = None


def resolve_system(
    generator: str | Callable[..., Any] | object,
    args: Mapping[str, Any],
    task: Task | None,
    *,
    in_worker: bool = False,
) -> ResolvedSystem:
    """Resolve a generator or an agent with its image model, without building them.

    Args:
        generator: A name, a class, a plain function, or an object with one of the methods.
        args: Its arguments, flat.
        task: Provides the search backend where one is needed and none was given.
        in_worker: Whether code of others will run in worker processes, so that it is imported in none but these.

    Raises:
        UsageError: As for `resolve_generator`; an agent names no image model, or one that does not fit.
    """
    refuse_secrets(args, where="generator")
    if isinstance(generator, str):
        refuse_secrets({"generator": generator})
    if in_worker and isinstance(generator, str) and _describes_apart(generator, args):
        described = described_system(generator, args, TaskSearch.of(task))
        if isinstance(described, GeneratorHandle):
            return ResolvedSystem(described)
        chosen = described
    elif is_agent(locate("generators", generator).target):
        chosen = resolve_agent(generator, args, task, in_worker=in_worker)
    else:
        return ResolvedSystem(resolve_generator(generator, args, task, in_worker=in_worker))
    image_model = resolve_generator(chosen.painter, chosen.painter_args, task, in_worker=in_worker)
    if not image_model.capabilities.references and not chosen.agent.spec.references_optional:
        raise UsageError(
            f"image model {image_model.spec.name!r} takes no reference images, which the answers of "
            f"{chosen.agent.spec.name!r} need",
            fix="name a generator that declares `references = True`",
        )
    return ResolvedSystem(image_model, before_generator(chosen.agent, image_model))


def _describes_apart(generator: str, args: Mapping[str, Any]) -> bool:
    """Return whether the code of others takes part that is to be imported in a process of its own only."""
    if describes_apart("generators", generator, args):
        return True
    parts = ((kind, args.get(role)) for role, kind in (*PART_KINDS.items(), ("search", "search")))
    return is_plain(dict(args)) and any(
        kind is not None and bool(name) and is_foreign(kind, name) for kind, name in parts
    )


def resolve_agent(
    agent: str | Callable[..., Any] | object,
    args: Mapping[str, Any],
    task: Task | TaskSearch | None,
    *,
    in_worker: bool = False,
) -> ChosenAgent:
    """Resolve an agent without building it, apart from its image model; arguments and errors as in `resolve_system`."""
    located = locate("generators", agent)
    description = describe(located)
    own, painter_args = _split(args, PAINTER)
    painter = own.pop(PAINTER, None) or getattr(located.target, PAINTER, None)
    fallback = _fallback(own.pop(FALLBACK, None) or getattr(located.target, FALLBACK, None) or "draw", located.where)
    if painter is None or isinstance(painter, property):
        raise UsageError(
            f"{located.where} is an agent and names no image model", fix="give -g painter=GENERATOR, such as painter"
        )
    if description.form == "object":
        handle = _object_agent(description, own, fallback)
    else:
        handle = _named_agent(description, own, fallback, task, in_worker=in_worker)
    painter_args = {**dict(getattr(located.target, "painter_args", None) or {}), **painter_args}
    return ChosenAgent(handle, painter, painter_args)


def _split(args: Mapping[str, Any], prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments without those of a part, and those of the part without its prefix."""
    start = f"{prefix}."
    rest = {name: value for name, value in args.items() if not name.startswith(start)}
    return rest, {name.removeprefix(start): value for name, value in args.items() if name.startswith(start)}


def _fallback(value: Any, where: str) -> Fallback:
    if str(value) not in FALLBACKS:
        raise UsageError(f"argument 'fallback' takes one of {', '.join(FALLBACKS)}, got {str(value)!r}", where=where)
    return cast(Fallback, str(value))


def _named_agent(
    description: Description,
    args: Mapping[str, Any],
    fallback: Fallback,
    task: Task | TaskSearch | None,
    *,
    in_worker: bool,
) -> AgentHandle:
    """Return the handle of an agent that is built from a class, and in a worker process from its name."""
    plugin = description.plugin
    flat = {name: value for name, value in args.items() if "." in name}
    arguments = {
        **description.read({name: value for name, value in args.items() if name not in flat}),
        **_read_parts(args, flat, plugin.where),
    }
    capabilities = capabilities_of(plugin.target)
    search = SearchChoice()
    if capabilities.wants_search:
        _, search_args = _split(arguments, "search")
        search = search_for(arguments.get("search"), task, plugin, search_args, in_worker=in_worker)
        arguments["search"] = search.backend
        capabilities = replace(capabilities, privileged=capabilities.privileged or search.privileged)
    if _policy_is_local(arguments):
        capabilities = replace(capabilities, wants_device=True)
    description.check({name: value for name, value in arguments.items() if not name.startswith("search.")})
    parts, keyed = _parts(arguments)
    spec = AgentSpec(
        name=plugin.name,
        args=description.keyed(keyed),
        revision=description.full_version({name: value for name, value in arguments.items() if name != "search"}),
        search=search.identity,
        parts=parts,
        privileged=capabilities.privileged,
        fallback=fallback,
        references_optional=_references_optional(plugin.target, arguments),
    )
    return AgentHandle(
        spec=spec,
        capabilities=capabilities,
        build=description.build(arguments),
        component_ref=_component_ref(description, arguments),
        query_price=query_price(search.backend, _split(arguments, "search")[1]) if search.backend is not None else None,
        price_known=_price_known(arguments),
    )


def _policy_is_local(arguments: Mapping[str, Any]) -> bool:
    """Return whether an agent's policy loads a model where the agent runs."""
    policy = arguments.get("policy")
    return isinstance(policy, str) and bool(policy) and getattr(locate("policies", policy).target, "local", False)


def _price_known(arguments: Mapping[str, Any]) -> bool | None:
    """Return whether the price of the calls of an agent's policy is known; None where the policy does not say."""
    policy = arguments.get("policy")
    if not isinstance(policy, str):
        return None
    return describe(locate("policies", policy)).price_known(_split(arguments, "policy")[1])


def _component_ref(description: Description, arguments: Mapping[str, Any]) -> ComponentRef | None:
    """Return the reference from which a worker process builds an agent; code of others in its parts runs there too."""
    ref = description.component_ref(arguments)
    if ref is None or not ref.bundled:
        return ref
    foreign = any(
        kind is not None and bool(arguments.get(role)) and is_foreign(kind, arguments[role])
        for role, kind in PART_KINDS.items()
    )
    return replace(ref, bundled=not foreign)


def _references_optional(target: Any, arguments: Mapping[str, Any]) -> bool:
    """Return whether an answer without reference images is used: an attribute, or a function of the arguments."""
    declared = getattr(target, "references_optional", False)
    if callable(declared):
        return bool(declared(**{name: value for name, value in arguments.items() if "." not in name}))
    return bool(declared)


def _object_agent(description: Description, args: Mapping[str, Any], fallback: Fallback) -> AgentHandle:
    """Return the handle of an agent that exists in this process only.

    Raises:
        UsageError: It was given arguments other than those of its image model.
    """
    plugin = description.plugin
    if args:
        raise UsageError(
            f"it is an object and takes no argument {next(iter(args))!r}",
            where=plugin.where,
            fix="give it to its class",
        )
    target = plugin.target
    arguments = constructor_arguments(plugin, without={PAINTER, "painter_args", FALLBACK, "search", *PART_KINDS})
    refuse_secrets(arguments, where="generator")
    backend = getattr(target, "search", None)
    parts = {
        role: PartSpec(name=type(part).__name__, args=dict(getattr(part, "identity", {}) or {}))
        for role in PART_KINDS
        if (part := getattr(target, role, None)) is not None
    }
    spec = AgentSpec(
        name=plugin.name,
        args=description.keyed(arguments),
        revision=description.full_version(arguments),
        search="" if backend is None else f"{type(backend).__name__}@{getattr(backend, 'version', '')}",
        parts=parts,
        privileged=description.privileged,
        fallback=fallback,
        references_optional=_references_optional(target, arguments),
    )
    return AgentHandle(spec, capabilities_of(target), lambda: target, description.component_ref({}))


def _read_parts(args: Mapping[str, Any], flat: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the arguments of an agent's parts as values, read by the annotations of each part's plugin."""
    values: dict[str, Any] = plain_arguments(flat, where)
    kinds: dict[str, registry.Kind | None] = {**PART_KINDS, "search": "search"}
    for role, kind in kinds.items():
        name = args.get(role)
        if kind is None or not isinstance(name, str):
            continue
        _, given = _split(flat, role)
        located = locate(kind, str(name))
        if callable(located.target):
            read = read_arguments(located.target, given, located.where)
            values |= {f"{role}.{key}": value for key, value in read.items()}
    return values


def _parts(arguments: Mapping[str, Any]) -> tuple[dict[str, PartSpec], dict[str, Any]]:
    """Return the identity of an agent's parts, and its own arguments."""
    own = {name: value for name, value in arguments.items() if not name.startswith("search.")}
    parts: dict[str, PartSpec] = {}
    for role, kind in PART_KINDS.items():
        own, given = _split(own, role)
        value = own.pop(role, None)
        if isinstance(value, str) and value:
            parts[role] = _plugin_part(kind, value, given) if kind is not None else _model_part(value, given)
        elif value is not None:  # an object of this process
            parts[role] = PartSpec(name=type(value).__name__, args=dict(getattr(value, "identity", {}) or {}))
    return parts, own


def _plugin_part(kind: Literal["policies"] | registry.Kind, name: str, given: Mapping[str, Any]) -> PartSpec:
    description = describe(locate(kind, name))
    plugin, shown = description.plugin, name
    if plugin.model is not None and description.display_name is not None:
        shown = description.display_name(model=plugin.model, **given)
    keyed = description.keyed({key: value for key, value in given.items() if key not in _ACCESS})
    return PartSpec(name=shown, args=keyed, version=description.full_version(given))


def _model_part(name: str, given: Mapping[str, Any]) -> PartSpec:
    return PartSpec(name=name, args={key: value for key, value in given.items() if key not in _ACCESS})
