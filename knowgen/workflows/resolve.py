"""Resolve the name of a generator or scorer to what the engine runs, in three passes.

`locate` finds the target of a name in the registry, `describe` reads the target's declarations once, and
`identify_generator` and `identify_scorer` make the spec that is recorded and hashed. Nothing is built: the engine does
that when there is work. All three happen in a process of its own for code of others that runs in worker processes; see
`plugin_process`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from knowgen.core import registry
from knowgen.core.arguments import annotations_of, argument_text, plain_arguments, read_arguments
from knowgen.core.errors import UsageError
from knowgen.core.secrets import refuse_secrets
from knowgen.core.spec import GeneratorSpec, ScorerSpec, canonical, is_plain
from knowgen.engine.components import ComponentRef, GeneratorHandle, ScorerHandle
from knowgen.generators.contract import (
    FunctionGenerator,
    GeneratorCapabilities,
    capabilities_of,
    is_agent,
    is_plain_function,
)
from knowgen.scorers.contract import ScorerCapabilities, scorer_capabilities
from knowgen.scorers.short_form import function_scorer, is_scoring_function
from knowgen.search.load import load_search, with_search
from knowgen.tasks.contract import Task
from knowgen.workflows.described import TaskSearch, described_generator, described_scorer, describes_apart
from knowgen.workflows.located import (
    VERSION_ATTRIBUTE,
    Located,
    closure_values,
    code_version,
    constructor_arguments,
    locate,
    object_name,
)
from knowgen.workflows.plugin_process import ask, is_foreign

NOT_IN_KEYS = frozenset({"search", "device", "concurrency", "timeout", "workers", "key_env"})
"""Arguments that never change a result, only speed or place. A class may add its own as `identity_excludes`."""


class ScorerRequest(NamedTuple):
    """A scorer to use.

    Attributes:
        scorer: NAME, NAME:MODEL, module:Class or file.py:Class, or a class, function or object.
        args: Its arguments.
        judge_attempts: Number of calls to a judge while no reply is readable, from the protocol; for one that takes
            `unreadable_attempts` and was given no number of attempts. 0 for the judge's own number.
    """

    scorer: str | Callable[..., Any] | object
    args: Mapping[str, Any]
    judge_attempts: int = 0

    @property
    def name(self) -> str:
        """The name as the user wrote it; `module:Class` of a class, function or object."""
        return self.scorer if isinstance(self.scorer, str) else object_name(self.scorer)


@dataclass(frozen=True)
class Description:
    """The declarations of a plugin, apart from its capabilities.

    Attributes:
        plugin: Its location.
        form: A plain function, an object that exists already, or a class or factory that is called to build one.
        version: The revision or version it declares; empty when it declares none.
        privileged: Whether it receives the ground truth.
        wants_search: Whether it takes a search backend.
        identity_excludes: Arguments that do not decide a result.
        excluded_from_identity: Returns further ones that do not decide it where the arguments have the given values.
        weights_identity: Returns the identity of the files that it would load, such as its weights.
        display_name: Returns the recorded name of `NAME:MODEL`.
        estimate: Returns the estimated cost of scoring some samples.
        knows_price: Returns whether the price of its calls is known.
    """

    plugin: Located
    form: Literal["function", "object", "factory"]
    version: str
    privileged: bool
    wants_search: bool
    identity_excludes: frozenset[str]
    weights_identity: Callable[..., str] | None = None
    display_name: Callable[..., str] | None = None
    estimate: Callable[..., Any] | None = None
    knows_price: Callable[..., bool] | None = None
    excluded_from_identity: Callable[..., frozenset[str]] | None = None

    def keyed(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that decide a result: all but those that only affect speed or place.

        Raises:
            UsageError: One of them is not plain data.
        """
        excluded = self.identity_excludes
        if self.excluded_from_identity is not None:
            excluded |= self.excluded_from_identity(**{**arguments, **self._model})
        keyed = {name: value for name, value in arguments.items() if name not in excluded}
        try:
            canonical(keyed)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"an argument is not plain data: {error}", where=self.plugin.where, fix="pass numbers, text or lists"
            ) from error
        return keyed

    def full_version(self, arguments: Mapping[str, Any]) -> str:
        """Return the version, followed by the identity of weights where the plugin reports one."""
        version = self.version or code_version(self.plugin)
        if self.weights_identity is None:
            return version
        return f"{version} {self.weights_identity(**{**arguments, **self._model})}".rstrip()

    def price_known(self, arguments: Mapping[str, Any]) -> bool | None:
        """Return whether the price of its calls is known; also for an invalid argument, which its constructor reports.

        None for a plugin that does not say.
        """
        if self.knows_price is None:
            return None
        try:
            return bool(self.knows_price(**{**arguments, **self._model}))
        except UsageError:
            return True

    def estimate_of(self, arguments: Mapping[str, Any]) -> Callable[..., Any] | None:
        """Return the function that estimates the cost of scoring some samples; None for a plugin without one."""
        return None if self.estimate is None else partial(self.estimate, **{**arguments, **self._model})

    @property
    def _model(self) -> dict[str, str]:
        return {} if self.plugin.model is None else {"model": self.plugin.model}

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Check arguments against the signature, before anything is built or paid.

        Raises:
            UsageError: An argument is unknown or missing.
        """
        given = {**arguments, **self._model}
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
        """Return the reference from which a worker process builds the plugin; None for what this process alone has."""
        plugin, search = self.plugin, arguments.get("search")
        if not plugin.named or not is_plain(dict(arguments)):
            return None
        bundled = registry.is_bundled(plugin.origin)
        if bundled and self.wants_search and is_foreign("search", search):
            bundled = False  # the backend's code runs where the generator runs
        return ComponentRef(plugin.kind, plugin.name, arguments, bundled=bundled)


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
        wants_search=bool(getattr(target, "wants_search", False)),
        identity_excludes=NOT_IN_KEYS | frozenset(getattr(target, "identity_excludes", ())),
        weights_identity=_hook(type(target) if form == "object" else target, "weights_identity"),
        display_name=_hook(target, "display_name"),
        estimate=_hook(target, "estimate_cost"),
        knows_price=_hook(target, "price_known"),
        excluded_from_identity=_hook(target, "excluded_from_identity"),
    )


def _hook(target: Any, name: str) -> Callable[..., Any] | None:
    hook = getattr(target, name, None)
    return hook if callable(hook) else None


_TO_CLASS = "give them to its class"


@dataclass(frozen=True)
class SearchChoice:
    """The search backend of a generator.

    Attributes:
        backend: What it is built with: a name or an object.
        identity: Its identity in the key.
        privileged: Whether it needs the ground truth, so that the generator is given it.
    """

    backend: Any = None
    identity: str = ""
    privileged: bool = False


def resolve_generator(
    generator: str | Callable[..., Any] | object,
    args: Mapping[str, Any],
    task: Task | TaskSearch | None,
    *,
    in_worker: bool = False,
) -> GeneratorHandle:
    """Resolve a generator without building it.

    Args:
        generator: A name, a class, a plain function, or an object with one of the three methods.
        args: Its arguments.
        task: Provides the search backend for a generator that needs one and was given none.
        in_worker: Whether code of others will run in worker processes, so that it is imported in none but these.

    Raises:
        UsageError: The name is unknown, an argument looks like a secret or does not fit, or it is not a generator.
    """
    arguments = dict(args)
    refuse_secrets(arguments, where="generator")
    if isinstance(generator, str):
        refuse_secrets({"generator": generator})
        if in_worker and describes_apart("generators", generator, arguments):
            return described_generator(generator, arguments, TaskSearch.of(task))
    description = describe(locate("generators", generator))
    target, arguments = description.plugin.target, description.read(arguments)
    if description.form == "function":
        return _function_handle(description, arguments)
    capabilities = _generator_capabilities(description, arguments)
    if description.form == "object":
        if arguments:
            raise UsageError("it is an object and takes no arguments", where=description.plugin.where, fix=_TO_CLASS)
        spec = identify_generator(description, constructor_arguments(description.plugin), SearchChoice())
        ref = description.component_ref({})
        return GeneratorHandle(spec=spec, capabilities=capabilities, build=lambda: target, component_ref=ref)
    search = SearchChoice()
    if capabilities.wants_search:
        search = search_for(arguments.get("search"), task, description.plugin, in_worker=in_worker)
        arguments["search"] = search.backend
        capabilities = replace(capabilities, privileged=capabilities.privileged or search.privileged)
    description.check(arguments)
    return GeneratorHandle(
        spec=identify_generator(description, arguments, search),
        capabilities=capabilities,
        build=description.build(arguments),
        component_ref=description.component_ref(arguments),
        price_known=description.price_known(arguments),
    )


def _generator_capabilities(description: Description, arguments: Mapping[str, Any]) -> GeneratorCapabilities:
    """Return what a generator declares, with its limits on references and on batches with some arguments.

    Raises:
        UsageError: It is not a generator; an agent generates nothing itself.
    """
    plugin = description.plugin
    if is_agent(plugin.target):
        raise UsageError(
            f"{plugin.where} is an agent, which generates no images itself", fix="evaluate it with `knowgen run`"
        )
    capabilities = capabilities_of(plugin.target)
    if description.form != "factory":
        return capabilities
    given = {**arguments, **({} if plugin.model is None else {"model": plugin.model})}
    limits = {
        "most_references": _hook(plugin.target, "reference_limit"),
        "batch_size": _hook(plugin.target, "batch_limit"),
        "gpus_per_worker": _hook(plugin.target, "gpu_limit"),
    }
    return replace(capabilities, **{name: limit(**given) for name, limit in limits.items() if limit is not None})


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
        privileged=description.privileged or search.privileged,
    )


def _function_handle(description: Description, arguments: Mapping[str, Any]) -> GeneratorHandle:
    if arguments:
        raise UsageError(f"{description.plugin.where} is a function and takes no arguments", fix="make it a class")
    wrapped = FunctionGenerator(description.plugin.target)
    capabilities = capabilities_of(wrapped)
    spec = identify_generator(description, closure_values(description.plugin), SearchChoice())
    return GeneratorHandle(
        spec=spec, capabilities=capabilities, build=lambda: wrapped, component_ref=description.component_ref({})
    )


def search_for(
    requested: Any,
    task: Task | TaskSearch | None,
    plugin: Located,
    args: Mapping[str, Any] = MappingProxyType({}),
    *,
    in_worker: bool = False,
) -> SearchChoice:
    """Return the search backend of a generator or agent: the requested one, else the task's.

    Args:
        requested: Name or object; None for the task's.
        task: The task.
        plugin: The generator or agent.
        args: Arguments of a backend that is named.
        in_worker: As in `resolve_generator`.

    Raises:
        UsageError: The task has no search backend, or the requested one is unknown.
    """
    if requested is None or (task is not None and requested == task.search.partition(":")[0]):
        if task is None or not task.search:
            raise UsageError(
                f"{plugin.where} needs a search backend, and this task has none", fix="give -g search=NAME"
            )
        return SearchChoice(task.search, f"{task.search.partition(':')[0]}@{task.search_version}")
    if isinstance(requested, str):
        requested = _of_task(requested, task)
        if in_worker and is_foreign("search", requested):
            return SearchChoice(requested, str(ask("search", requested, "search", args=dict(args))))
        return named_search(requested, args)
    located = locate("search", requested)
    identity = f"{located.name}@{_search_version(requested, located)}"
    return SearchChoice(load_search(requested), identity, bool(getattr(requested, "privileged", False)))


def _of_task(requested: str, task: Task | TaskSearch | None) -> str:
    """Return the name of a backend that is made from another one, with the task's own where it names none.

    Raises:
        UsageError: The task has none.
    """
    name, _, inner = requested.partition(":")
    own = "" if task is None else task.search
    if inner not in ("", own.partition(":")[0]) or is_foreign("search", requested):
        return requested
    if not getattr(locate("search", name).target, "wraps_search", False):
        return requested
    if not own:
        fix = f"name the backend that it is made from, as in {name}:NAME"
        raise UsageError("this task has no search backend", where=f"search backend {name!r}", fix=fix)
    return f"{name}:{own}"


def named_search(name: str, args: Mapping[str, Any] = MappingProxyType({})) -> SearchChoice:
    """Return a search backend that is given by name, which is built for its version.

    Raises:
        UsageError: The name or an argument is unknown, or the backend lacks a method.
    """
    located = locate("search", name)
    # the whole name of a user's own backend: one file may define several
    label = name if located.origin == registry.LOCAL else name.partition(":")[0]
    backend = load_search(name, args)
    identity = f"{label}@{_search_version(backend, located)}"
    return SearchChoice(name, identity, bool(getattr(backend, "privileged", False)))


def _search_version(backend: Any, located: Located) -> str:
    return getattr(backend, "version", "") or code_version(located)


def resolve_scorer(
    scorer: str | Callable[..., Any] | object,
    args: Mapping[str, Any],
    judge_attempts: int = 0,
    *,
    in_worker: bool = False,
) -> ScorerHandle:
    """Resolve a scorer without building it.

    Args:
        scorer: A name, a class, a scoring function, or an object with one of the methods.
        args: Its arguments.
        judge_attempts: As in `ScorerRequest`.
        in_worker: Whether code of others will run in worker processes, so that it is imported in none but these.

    Raises:
        UsageError: The name is unknown, an argument looks like a secret or does not fit, or it is not a scorer.
    """
    refuse_secrets(args, where="scorer")
    if isinstance(scorer, str):
        refuse_secrets({"scorer": scorer})
        if in_worker and describes_apart("scorers", scorer, args):
            return described_scorer(scorer, args, judge_attempts)
    description = describe(locate("scorers", scorer))
    target, arguments = description.plugin.target, description.read(args)
    arguments |= _protocol_attempts(description.plugin, args, judge_attempts)
    capabilities = scorer_capabilities(target)
    if description.form == "factory" and (limit := _hook(target, "gpu_limit")) is not None:
        capabilities = replace(capabilities, gpus_per_worker=limit(**arguments))
    given = dict(arguments)
    if description.form != "factory" and (args or description.plugin.model is not None):
        raise UsageError(
            f"it is {'a function' if description.form == 'function' else 'an object'} and takes no arguments",
            where=description.plugin.where,
            fix="make it a class" if description.form == "function" else _TO_CLASS,
        )
    build: Callable[[], Any]
    if description.form == "function":
        arguments, build = closure_values(description.plugin), partial(function_scorer, target)
    elif description.form == "object":
        arguments, build = constructor_arguments(description.plugin), lambda: target
    else:
        description.check(arguments)
        build = description.build(arguments)
    return ScorerHandle(
        spec=identify_scorer(description, arguments, capabilities),
        capabilities=capabilities,
        build=build,
        component_ref=description.component_ref(given),
        estimate=description.estimate_of(arguments),
        price_known=description.price_known(given),
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


def argument_texts(scorer: str, args: Mapping[str, Any], *, in_worker: bool = False) -> dict[str, str]:
    """Return the arguments of a scorer as texts that the command line reads as the same values.

    Args:
        scorer: Name of the scorer.
        args: Its arguments.
        in_worker: As in `resolve_scorer`.
    """
    if not args:
        return {}
    if in_worker and is_foreign("scorers", scorer):
        return dict(ask("scorers", scorer, "argument_texts", args=dict(args)))
    target = locate("scorers", scorer).target
    hints = annotations_of(target)
    return {name: argument_text(value, hints.get(name, Any)) for name, value in args.items()}


def resolve_scorers(requests: Sequence[ScorerRequest], *, in_worker: bool = False) -> list[ScorerHandle]:
    """Resolve several scorers.

    Args:
        requests: The scorers with their arguments.
        in_worker: As in `resolve_scorer`.

    Raises:
        UsageError: A name is given twice, or one of them cannot be resolved.
    """
    names = [request.name for request in requests]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"scorer {doubles[0]!r} is named twice", fix="name it once; for more scores per image use --judge-repeats"
        )
    return [
        resolve_scorer(request.scorer, request.args, request.judge_attempts, in_worker=in_worker)
        for request in requests
    ]


def scorer_requests(
    scorers: Sequence[str | Callable[..., Any] | object], args: Mapping[str, Any], judge_attempts: int = 0
) -> list[ScorerRequest]:
    """Give each scorer its arguments.

    Args:
        scorers: Names, classes, functions and objects, which take their arguments from `args`, and requests, which
            have their own.
        args: `base_url` belongs to the only scorer, `vlm.base_url` to the scorer `vlm:…` of several.
        judge_attempts: As in `ScorerRequest`.

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
    return [
        request._replace(
            args=request.args if isinstance(each, ScorerRequest) else arguments, judge_attempts=judge_attempts
        )
        for each, request, arguments in zip(scorers, requests, own, strict=True)
    ]


def _protocol_attempts(plugin: Located, args: Mapping[str, Any], judge_attempts: int) -> dict[str, int]:
    """Return the number of calls of the protocol as an argument, if a judge takes one and none was given."""
    if not judge_attempts or not plugin.named or not callable(plugin.target):
        return {}
    if {"attempts", "unreadable_attempts"} & args.keys():
        return {}
    takes = "unreadable_attempts" in inspect.signature(plugin.target).parameters
    return {"unreadable_attempts": judge_attempts} if takes else {}
