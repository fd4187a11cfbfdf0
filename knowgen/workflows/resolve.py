"""Resolve the name of a generator or scorer to what the engine runs, in three passes.

`locate` finds the target of a name in the registry, `describe` reads the target's declarations once, and
`identify_generator` and `identify_scorer` make the spec that is recorded and hashed. Nothing is built: the engine does
that when there is work.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from knowgen.core import registry
from knowgen.core.arguments import annotations_of, argument_text, plain_arguments, read_arguments
from knowgen.core.errors import UsageError
from knowgen.core.secrets import refuse_secrets
from knowgen.core.spec import GeneratorSpec, ScorerSpec, canonical
from knowgen.engine.components import ComponentRef, GeneratorHandle, ScorerHandle
from knowgen.generators.contract import FunctionGenerator, capabilities_of, is_plain_function
from knowgen.scorers.contract import ScorerCapabilities, scorer_capabilities
from knowgen.scorers.short_form import function_scorer, is_scoring_function
from knowgen.search.load import load_search, with_search
from knowgen.tasks.contract import Task
from knowgen.workflows.local_source import source_digest

NOT_IN_KEYS = frozenset({"search", "device", "concurrency", "timeout", "workers", "key_env"})
"""Arguments that never change a result, only speed or place. A class may add its own as `identity_excludes`."""


VERSION_ATTRIBUTE: Mapping[registry.Kind, str] = {"generators": "revision", "scorers": "version"}
"""Attribute by which each kind of plugin declares its version."""


class ScorerRequest(NamedTuple):
    """A scorer to use.

    Attributes:
        scorer: NAME, NAME:MODEL, module:Class or file.py:Class, or a class, function or object.
        args: Its arguments.
    """

    scorer: str | Callable[..., Any] | object
    args: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name as the user wrote it; `module:Class` of a class, function or object."""
        return self.scorer if isinstance(self.scorer, str) else _object_name(self.scorer)


@dataclass(frozen=True)
class Located:
    """Where a plugin is.

    Attributes:
        kind: generators or scorers.
        name: As the user wrote it; `module:Class` of an object.
        target: The class, function or object.
        model: The part after the colon of `NAME:MODEL`.
        origin: The distribution it comes from, or `local`.
        named: Whether it was given by name, so that a worker process can build it again.
    """

    kind: registry.Kind
    name: str
    target: Any
    model: str | None
    origin: str
    named: bool

    @property
    def where(self) -> str:
        """How error messages refer to it."""
        return f"{registry.SINGULAR[self.kind]} {self.name!r}"


def locate(kind: registry.Kind, plugin: str | Callable[..., Any] | object) -> Located:
    """Find the target of a name; an object is its own target.

    Raises:
        UsageError: The name is unknown, or two plugins claim it.
        KnowgenError: The plugin cannot be imported.
    """
    if not isinstance(plugin, str):
        return Located(kind, _object_name(plugin), plugin, None, "local", named=False)
    resolved = registry.resolve(kind, plugin)
    return Located(kind, plugin, registry.load(resolved), resolved.model, resolved.origin, named=True)


@dataclass(frozen=True)
class Description:
    """The declarations of a plugin, apart from its capabilities.

    Attributes:
        plugin: Its location.
        form: A plain function, an object that exists already, or a class or factory that is called to build one.
        version: The revision or version it declares; empty when it declares none.
        privileged: Whether it receives the ground truth.
        identity_excludes: Arguments that do not decide a result.
        weights_identity: Returns the identity of the files that it would load, such as its weights.
        display_name: Returns the recorded name of `NAME:MODEL`.
        estimate: Returns the estimated cost of scoring some samples.
    """

    plugin: Located
    form: Literal["function", "object", "factory"]
    version: str
    privileged: bool
    identity_excludes: frozenset[str]
    weights_identity: Callable[..., str] | None = None
    display_name: Callable[..., str] | None = None
    estimate: Callable[..., Any] | None = None

    def keyed(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that decide a result: all but those that only affect speed or place.

        Raises:
            UsageError: One of them is not plain data.
        """
        keyed = {name: value for name, value in arguments.items() if name not in self.identity_excludes}
        try:
            canonical(keyed)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"an argument is not plain data: {error}", where=self.plugin.where, fix="pass numbers, text or lists"
            ) from error
        return keyed

    def full_version(self, arguments: Mapping[str, Any]) -> str:
        """Return the version, followed by the identity of weights where the plugin reports one."""
        version = self.version or _code_version(self.plugin)
        if self.weights_identity is None:
            return version
        model = {} if self.plugin.model is None else {"model": self.plugin.model}
        return f"{version} {self.weights_identity(**{**arguments, **model})}".rstrip()

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Check arguments against the signature, before anything is built or paid.

        Raises:
            UsageError: An argument is unknown or missing.
        """
        given = dict(arguments) | ({} if self.plugin.model is None else {"model": self.plugin.model})
        signature = inspect.signature(self.plugin.target)
        try:
            signature.bind(**given)
        except TypeError as error:
            names = [name for name in signature.parameters if name not in {"self", "args", "kwargs"}]
            fix = f"it takes {', '.join(names) or 'nothing'}"
            if self._lacks_model(given, signature):
                fix = f"name it as {self.plugin.name}:MODEL, with its model, path or URL after the colon"
            raise UsageError(str(error), where=self.plugin.where, fix=fix) from error

    def _lacks_model(self, given: Mapping[str, Any], signature: inspect.Signature) -> bool:
        """Return whether the name of an installed plugin lacks the part after the colon."""
        model = signature.parameters.get("model")
        installed = self.plugin.named and self.plugin.origin != registry.LOCAL
        return installed and model is not None and model.default is model.empty and "model" not in given

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments as values: those given as text are read by the annotations of the plugin.

        Raises:
            UsageError: A text is not a value of its parameter's type.
        """
        if self.form != "factory":
            return plain_arguments(arguments, self.plugin.where)
        return read_arguments(self.plugin.target, arguments, self.plugin.where)

    def build(self, arguments: Mapping[str, Any]) -> Callable[[], Any]:
        """Return a function that builds the plugin."""
        plugin = self.plugin

        def built() -> Any:
            given = with_search(plugin.target, arguments) if plugin.kind == "generators" else arguments
            return registry.build(plugin.target, given, model=plugin.model, where=plugin.where)

        return built

    def component_ref(self, arguments: Mapping[str, Any]) -> ComponentRef | None:
        """Return the reference from which a worker process builds the plugin; None for an object of this process."""
        plugin = self.plugin
        if not plugin.named:
            return None
        return ComponentRef(plugin.kind, plugin.name, arguments, bundled=registry.is_bundled(plugin.origin))


def describe(plugin: Located) -> Description:
    """Read the declarations of a plugin."""
    target = plugin.target
    form: Literal["function", "object", "factory"] = "factory"
    if is_plain_function(target) if plugin.kind == "generators" else is_scoring_function(target):
        form = "function"
    elif not inspect.isclass(target) and not inspect.isfunction(target):
        form = "object"
    return Description(
        plugin=plugin,
        form=form,
        version=str(getattr(target, VERSION_ATTRIBUTE[plugin.kind], None) or ""),
        privileged=bool(getattr(target, "privileged", False)),
        identity_excludes=NOT_IN_KEYS | frozenset(getattr(target, "identity_excludes", ())),
        weights_identity=_hook(type(target) if form == "object" else target, "weights_identity"),
        display_name=_hook(target, "display_name"),
        estimate=_hook(target, "estimate_cost"),
    )


def _hook(target: Any, name: str) -> Callable[..., Any] | None:
    hook = getattr(target, name, None)
    return hook if callable(hook) else None


@dataclass(frozen=True)
class SearchChoice:
    """The search backend of a generator: what it is built with, and its identity in the key."""

    backend: Any = None
    identity: str = ""


def resolve_generator(
    generator: str | Callable[..., Any] | object, args: Mapping[str, Any], task: Task | None
) -> GeneratorHandle:
    """Resolve a generator without building it.

    Args:
        generator: A name, a class, a plain function, or an object with one of the three methods.
        args: Its arguments.
        task: Provides the search backend for a generator that needs one and was given none.

    Raises:
        UsageError: The name is unknown, an argument looks like a secret or does not fit, or it is not a generator.
    """
    arguments = dict(args)
    refuse_secrets(arguments, where="generator")
    if isinstance(generator, str):
        refuse_secrets({"generator": generator})
    description = describe(locate("generators", generator))
    target, arguments = description.plugin.target, description.read(arguments)
    if description.form == "function":
        return _function_handle(description, arguments)
    capabilities = capabilities_of(target)
    if description.form == "object":
        spec = identify_generator(description, _constructor_arguments(description.plugin), SearchChoice())
        return GeneratorHandle(spec=spec, capabilities=capabilities, build=lambda: target, component_ref=None)
    search = (
        _search_for(arguments.get("search"), task, description.plugin) if capabilities.wants_search else SearchChoice()
    )
    if capabilities.wants_search:
        arguments["search"] = search.backend
    description.check(arguments)
    return GeneratorHandle(
        spec=identify_generator(description, arguments, search),
        capabilities=capabilities,
        build=description.build(arguments),
        component_ref=description.component_ref(arguments),
    )


def identify_generator(description: Description, arguments: Mapping[str, Any], search: SearchChoice) -> GeneratorSpec:
    """Return the recorded identity of a generator."""
    refuse_secrets(arguments, where="generator")  # an object brings arguments of its own
    plugin, name = description.plugin, description.plugin.name
    if plugin.model is not None and description.display_name is not None:
        name = description.display_name(model=plugin.model, **arguments)  # an address is not an identity
    return GeneratorSpec(
        name=name,
        args=description.keyed(arguments),
        revision=description.full_version({key: value for key, value in arguments.items() if key != "search"}),
        search=search.identity,
        privileged=description.privileged,
    )


def _function_handle(description: Description, arguments: Mapping[str, Any]) -> GeneratorHandle:
    if arguments:
        raise UsageError(f"{description.plugin.where} is a function and takes no arguments", fix="make it a class")
    wrapped = FunctionGenerator(description.plugin.target)
    capabilities = capabilities_of(wrapped)
    spec = identify_generator(description, _closure_values(description.plugin), SearchChoice())
    return GeneratorHandle(
        spec=spec, capabilities=capabilities, build=lambda: wrapped, component_ref=description.component_ref({})
    )


def _constructor_arguments(plugin: Located) -> dict[str, Any]:
    """Return the arguments an object was built with: each constructor parameter stored under the same name.

    Raises:
        UsageError: One of them is unknown, and the class declares no version to stand for it.
    """
    target, declared = plugin.target, VERSION_ATTRIBUTE[plugin.kind]
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(target)).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = getattr(target, name, getattr(target, f"_{name}", None))
        if _is_plain(value) and (value is not None or hasattr(target, name) or hasattr(target, f"_{name}")):
            arguments[name] = value
        elif not getattr(target, declared, ""):
            raise UsageError(
                f"the value of its argument {name!r} is unknown, so results could be mixed up",
                where=f"{registry.SINGULAR[plugin.kind]} {_object_name(target)}",
                fix=f"store it as self.{name} in plain data, or give the class a `{declared}`",
            )
    return arguments


def _closure_values(plugin: Located) -> dict[str, Any]:
    """Return the values a function closes over.

    Raises:
        UsageError: One of them is not plain data, and the function declares no version to stand for it.
    """
    target, declared = plugin.target, VERSION_ATTRIBUTE[plugin.kind]
    values: dict[str, Any] = {}
    for name, value in inspect.getclosurevars(target).nonlocals.items():
        if _is_plain(value):
            values[name] = value
        elif not getattr(target, declared, ""):
            raise UsageError(
                f"it closes over {name!r}, which is not plain data, so results could be mixed up",
                where=f"{registry.SINGULAR[plugin.kind]} {_object_name(target)}",
                fix=f"give the function an attribute `{declared}`",
            )
    return values


def _is_plain(value: Any) -> bool:
    try:
        canonical(value)
    except (TypeError, ValueError):
        return False
    return True


def _search_for(requested: Any, task: Task | None, plugin: Located) -> SearchChoice:
    """Return the search backend of a generator: the requested one, else the task's."""
    if requested is None or (task is not None and requested == task.search.partition(":")[0]):
        if task is None or not task.search:
            raise UsageError(
                f"{plugin.where} needs a search backend, and this task has none", fix="give -g search=NAME"
            )
        return SearchChoice(task.search, f"{task.search.partition(':')[0]}@{task.search_version}")
    if isinstance(requested, str):
        located = locate("search", requested)
        # the whole name of a user's own backend: one file may define several
        label = requested if located.origin == registry.LOCAL else requested.partition(":")[0]
        return SearchChoice(requested, f"{label}@{_search_version(load_search(requested), located)}")
    located = locate("search", requested)
    return SearchChoice(load_search(requested), f"{located.name}@{_search_version(requested, located)}")


def _search_version(backend: Any, located: Located) -> str:
    return getattr(backend, "version", "") or _code_version(located)


def resolve_scorer(scorer: str | Callable[..., Any] | object, args: Mapping[str, Any]) -> ScorerHandle:
    """Resolve a scorer without building it.

    Args:
        scorer: A name, a class, a scoring function, or an object with one of the methods.
        args: Its arguments.

    Raises:
        UsageError: The name is unknown, an argument looks like a secret or does not fit, or it is not a scorer.
    """
    if isinstance(scorer, str):
        refuse_secrets({"scorer": scorer})
    refuse_secrets(args, where="scorer")
    description = describe(locate("scorers", scorer))
    target, arguments = description.plugin.target, description.read(args)
    capabilities = scorer_capabilities(target)
    given = dict(arguments)
    if description.form != "factory" and (args or description.plugin.model is not None):
        raise UsageError(
            f"it is {'a function' if description.form == 'function' else 'an object'} and takes no arguments",
            where=description.plugin.where,
            fix="make it a class" if description.form == "function" else "give them to its class",
        )
    build: Callable[[], Any]
    if description.form == "function":
        arguments, build = _closure_values(description.plugin), partial(function_scorer, target)
    elif description.form == "object":
        arguments, build = _constructor_arguments(description.plugin), lambda: target
    else:
        description.check(arguments)
        build = description.build(arguments)
    return ScorerHandle(
        spec=identify_scorer(description, arguments, capabilities),
        capabilities=capabilities,
        build=build,
        component_ref=None if description.form == "object" else description.component_ref(given),
        estimate=description.estimate and partial(description.estimate, model=description.plugin.model, **arguments),
    )


def identify_scorer(
    description: Description, arguments: Mapping[str, Any], capabilities: ScorerCapabilities
) -> ScorerSpec:
    """Return the recorded identity of a scorer."""
    return ScorerSpec(
        name=description.plugin.name,
        args=description.keyed(arguments),
        version=description.full_version(arguments),
        note=capabilities.note,
        dimensions=capabilities.dimensions,
    )


def argument_texts(scorer: str, args: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments of a scorer as texts that the command line reads as the same values."""
    target = locate("scorers", scorer).target
    hints = annotations_of(target)
    return {name: argument_text(value, hints.get(name, Any)) for name, value in args.items()}


def resolve_scorers(requests: Sequence[ScorerRequest]) -> list[ScorerHandle]:
    """Resolve several scorers.

    Raises:
        UsageError: A name is given twice, or one of them cannot be resolved.
    """
    names = [request.name for request in requests]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"scorer {doubles[0]!r} is named twice", fix="name it once; for more scores per image use --judge-repeats"
        )
    return [resolve_scorer(request.scorer, request.args) for request in requests]


def scorer_requests(
    scorers: Sequence[str | Callable[..., Any] | object], args: Mapping[str, Any], judge_attempts: int = 0
) -> list[ScorerRequest]:
    """Give each scorer its arguments.

    Args:
        scorers: Names, classes, functions and objects, which take their arguments from `args`, and requests, which
            have their own.
        judge_attempts: Number of calls to a judge while no reply is readable, from the protocol; for judges that take
            `unreadable_attempts` and were given no number of attempts.
        args: `base_url` belongs to the only scorer, `vlm.base_url` to the scorer `vlm:…` of several.

    Raises:
        UsageError: It is unclear which scorer an argument belongs to.
    """
    own: list[dict[str, Any]] = [{} for _ in scorers]
    requests = [each if isinstance(each, ScorerRequest) else ScorerRequest(each, {}) for each in scorers]
    names = [request.name for request in requests]
    bases = [name.partition(":")[0] for name in names]
    for key, value in args.items():
        base, dot, rest = key.partition(".")
        if dot and base in bases:
            for arguments, each in zip(own, bases, strict=True):
                if each == base:
                    arguments[rest] = value
        elif len(names) == 1:
            own[0][key] = value
        else:
            raise UsageError(f"-s {key} could belong to any of {', '.join(names)}", fix=f"write {bases[0]}.{key}=…")
    given = [
        request if isinstance(each, ScorerRequest) else request._replace(args=arguments)
        for each, request, arguments in zip(scorers, requests, own, strict=True)
    ]
    return [_with_attempts(request, judge_attempts) for request in given] if judge_attempts else given


def _with_attempts(request: ScorerRequest, judge_attempts: int) -> ScorerRequest:
    """Return a request with the number of calls of the protocol, if its judge takes one and none was given."""
    if not isinstance(request.scorer, str) or {"attempts", "unreadable_attempts"} & request.args.keys():
        return request
    target = locate("scorers", request.scorer).target
    if not callable(target) or "unreadable_attempts" not in inspect.signature(target).parameters:
        return request
    return request._replace(args={**request.args, "unreadable_attempts": judge_attempts})


def _object_name(target: Any) -> str:
    """Return the name of a class, function or object for its key: `spec_name` of its class, else module and name."""
    kind = target if inspect.isclass(target) or inspect.isfunction(target) else type(target)
    return str(getattr(kind, "spec_name", "") or f"{kind.__module__}:{kind.__qualname__}")


def _code_version(plugin: Located) -> str:
    """Return the version of a plugin's distribution, or the hash of a user's own source files.

    The source files are those of `local_source`. A package that is installed from a folder where it is edited has a
    version and a hash.
    """
    target = plugin.target
    kind = target if inspect.isclass(target) or inspect.isfunction(target) else type(target)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if plugin.origin != registry.LOCAL:
        if not file or not registry.is_edited_in_place(plugin.origin, file):
            return plugin.origin
        return f"{plugin.origin} source {source_digest(Path(file), kind.__module__)}"
    try:
        digest = source_digest(Path(file), kind.__module__) if file else _digest(inspect.getsource(kind))
    except (OSError, TypeError) as error:
        raise UsageError(
            "its source code was not found, so results of different versions could be mixed up",
            where=_object_name(target),
            fix="give it a class attribute `revision`",
        ) from error
    return f"source {digest}"


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:12]
