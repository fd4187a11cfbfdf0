"""From what a user names to what the engine runs: tasks, generators and scorers with their arguments, as a RunSpec."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from knowgen.core import registry
from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import Sample
from knowgen.core.secrets import refuse_secrets
from knowgen.core.spec import GeneratorSpec, RunShard, ScorerSpec, Selection, SelectionKind, canonical, select
from knowgen.engine.components import ComponentRef, GeneratorHandle, ScorerHandle
from knowgen.generators.contract import FunctionGenerator, capabilities_of, is_plain_function
from knowgen.scorers.contract import scorer_capabilities
from knowgen.tasks.contract import Task

UNKEYED = frozenset({"search", "device", "concurrency", "timeout", "workers", "key_env"})
"""Arguments that change how fast or from where, never what comes out; a class may add its own as `identity_excludes`."""


def choose(task: Task, *, limit: int | None, ids: Sequence[str] | None) -> tuple[list[Sample], Selection]:
    """Picks the samples of a run, in the task's order.

    Args:
        task: The task.
        limit: Only the first so many.
        ids: Only these.

    Raises:
        UsageError: Both were given, the limit is below 1, or an id is unknown.
        DataError: The task holds no samples, or one id twice.
    """
    if limit is not None and ids is not None:
        raise UsageError("--limit and --ids exclude each other", fix="give one of them")
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit} leaves nothing to do", fix="give 1 or more")
    if ids is not None and not ids:
        raise UsageError("the list of ids is empty", fix="name a sample, or leave it out for all")
    kind: SelectionKind = "ids" if ids else "all" if limit is None else "limit"
    wanted = set(ids or ())
    chosen: list[Sample] = []
    seen: set[str] = set()
    for sample in task.samples():
        if sample.id in seen:
            raise DataError(f"the id {sample.id!r} comes twice", where=f"task {task.name}", fix="make ids unique")
        seen.add(sample.id)
        if kind == "limit" and len(chosen) == limit:
            break
        if kind != "ids" or sample.id in wanted:
            chosen.append(sample)
    if unknown := sorted(wanted - seen):
        near = difflib.get_close_matches(unknown[0], seen, n=1)
        fix = f"did you mean {near[0]!r}?" if near else "ids stand in the task's samples.jsonl"
        raise UsageError(f"task {task.name} has no sample {unknown[0]!r}", fix=fix)
    if not chosen:
        raise DataError("holds no samples", where=f"task {task.name}")
    if kind == "limit" and limit is not None and len(chosen) < limit:
        kind = "all"
    return chosen, select([sample.id for sample in chosen], kind)


def share(samples: list[Sample], selection: Selection, wanted: str) -> tuple[list[Sample], Selection, RunShard]:
    """Picks one part of a selection, for a run that several machines share.

    Args:
        samples: The selected samples, in order.
        selection: Their name.
        wanted: `I/N`, I from 1 to N.

    Returns:
        Every Nth sample from the Ith on, the name of that selection, and which part it is.

    Raises:
        UsageError: It is not `I/N`, or there are fewer samples than parts.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", wanted)
    if not found:
        raise UsageError(f"shard {wanted!r} is not I/N", fix="write 2/4 for the second of four")
    number, count = int(found[1]), int(found[2])
    if not 1 <= number <= count:
        raise UsageError(f"there is no shard {wanted}", fix="shards are counted from 1, such as 1/4 to 4/4")
    if count > len(samples):
        raise UsageError(f"{len(samples)} samples cannot be shared out in {count} shards", fix="take fewer shards")
    part = samples[number - 1 :: count]
    return part, select([sample.id for sample in part], "shard"), RunShard(number=number, count=count, of=selection)


def generator_handle(
    generator: str | Callable[..., Any] | object, args: Mapping[str, Any], task: Task | None
) -> GeneratorHandle:
    """Makes ready what draws, without building it.

    Args:
        generator: A name, a class, a drawing function, or an object with one of the three methods.
        args: Its arguments.
        task: Brings the search backend for a generator that wants one and was not given another.

    Raises:
        UsageError: The name is unknown, an argument looks like a secret or does not fit, or it is no generator.
    """
    arguments = dict(args)
    refuse_secrets(arguments, where="generator")
    if isinstance(generator, str):
        refuse_secrets({"generator": generator})
        resolved = registry.resolve("generators", generator)
        target = registry.load(resolved)
        name, model, origin = generator, resolved.model, resolved.origin
        remake: ComponentRef | None = ComponentRef("generators", generator, arguments)
    else:
        target, model, remake = generator, None, None
        name, origin = _own_name(generator), "local"
    if is_plain_function(target):
        return _function_handle(target, name, origin, arguments, remake)
    if not inspect.isclass(target) and not inspect.isfunction(target):  # an object that is there already
        told = _told_arguments(target)
        spec = _generator_spec(name, target, told, "", origin)
        return GeneratorHandle(
            spec=spec.model_copy(update={"revision": _told_apart(type(target), spec.revision, None, told)}),
            traits=capabilities_of(target),
            build=lambda: target,
            remake=None,
        )
    traits = capabilities_of(target)
    search = ""
    if traits.wants_search:
        arguments["search"], search = _search_for(arguments.get("search"), task, name)
    build = partial(registry.build, target, arguments, model=model, where=f"generator {name!r}")
    _check_arguments(target, arguments, model, f"generator {name!r}")
    if remake is not None:
        remake = ComponentRef("generators", name, arguments)
    spec = _generator_spec(name, target, arguments, search, origin)
    if model is not None and callable(display_name := getattr(target, "display_name", None)):
        spec = spec.model_copy(update={"name": display_name(model=model, **arguments)})  # an address is no identity
    revision = _told_apart(target, spec.revision, model, {k: v for k, v in arguments.items() if k != "search"})
    spec = spec.model_copy(update={"revision": revision})
    return GeneratorHandle(spec=spec, traits=traits, build=build, remake=remake)


def _function_handle(
    target: Callable[..., Any], name: str, origin: str, arguments: Mapping[str, Any], remake: ComponentRef | None
) -> GeneratorHandle:
    if arguments:
        raise UsageError(f"generator {name!r} is a function and takes no arguments", fix="make it a class")
    wrapped = FunctionGenerator(target)
    spec = _generator_spec(name, target, _told_closure(target), "", origin)
    return GeneratorHandle(spec=spec, traits=capabilities_of(wrapped), build=lambda: wrapped, remake=remake)


def _told_arguments(target: object) -> dict[str, Any]:
    """Returns what an object was made with: each constructor parameter that it keeps under the same name.

    Raises:
        UsageError: One of them cannot be told, and the class declares no revision that would stand for it.
    """
    told: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(target)).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = getattr(target, name, getattr(target, f"_{name}", None))
        if _is_plain(value) and (value is not None or hasattr(target, name) or hasattr(target, f"_{name}")):
            told[name] = value
        elif not getattr(target, "revision", ""):
            raise UsageError(
                f"its argument {name!r} cannot be told from the object, so results could be mixed up",
                where=f"generator {_own_name(target)}",
                fix=f"keep it as self.{name} in plain data, or give the class a `revision`",
            )
    return told


def _told_closure(target: Callable[..., Any]) -> dict[str, Any]:
    """Returns the values a function closes over.

    Raises:
        UsageError: One of them is no plain data, and the function has no attribute `revision` that would stand for it.
    """
    told: dict[str, Any] = {}
    for name, value in inspect.getclosurevars(target).nonlocals.items():
        if _is_plain(value):
            told[name] = value
        elif not getattr(target, "revision", ""):
            raise UsageError(
                f"it closes over {name!r}, which is no plain data, so results could be mixed up",
                where=f"generator {_own_name(target)}",
                fix="give the function an attribute `revision`",
            )
    return told


def _is_plain(value: Any) -> bool:
    try:
        canonical(value)
    except (TypeError, ValueError):
        return False
    return True


def _search_for(wanted: Any, task: Task | None, name: str) -> tuple[Any, str]:
    """Returns the search backend's name or object, and its identity for the key."""
    if wanted is None or (task is not None and wanted == task.search.partition(":")[0]):
        if task is None or not task.search:
            raise UsageError(
                f"generator {name!r} looks things up, and this task brings no search backend", fix="give -g search=NAME"
            )
        return task.search, f"{task.search.partition(':')[0]}@{task.search_version}"
    if isinstance(wanted, str):
        backend = registry.create(registry.resolve("search", wanted), {})
        return wanted, f"{wanted.partition(':')[0]}@{backend.version}"
    return wanted, f"{_own_name(wanted)}@{wanted.version}"


def _generator_spec(name: str, target: Any, arguments: Mapping[str, Any], search: str, origin: str) -> GeneratorSpec:
    refuse_secrets(arguments, where="generator")  # an object brings arguments of its own
    return GeneratorSpec(
        name=name,
        args=_keyed(arguments, target, f"generator {name!r}"),
        revision=str(getattr(target, "revision", "") or _revision(target, origin)),
        search=search,
        privileged=bool(getattr(target, "privileged", False)),
    )


def _told_apart(target: Any, version: str, model: str | None, args: Mapping[str, Any]) -> str:
    """Adds to a version what a plugin would be built from, where it says so: weights that lie under the same name."""
    identity = getattr(target, "identity", None)
    if not callable(identity):
        return version
    given = {**args, **({"model": model} if model is not None else {})}
    return f"{version} {identity(**given)}".rstrip()


def scorer_handle(scorer: str, args: Mapping[str, Any]) -> ScorerHandle:
    """Makes ready what judges, without building it.

    Raises:
        UsageError: The name is unknown, an argument looks like a secret or does not fit, or it is no scorer.
    """
    refuse_secrets({"scorer": scorer})
    refuse_secrets(args, where="scorer")
    resolved = registry.resolve("scorers", scorer)
    target = registry.load(resolved)
    traits = scorer_capabilities(target)
    where = f"scorer {scorer!r}"
    _check_arguments(target, args, resolved.model, where)
    version = _told_apart(target, traits.version or _revision(target, resolved.origin), resolved.model, args)
    spec = ScorerSpec(
        name=scorer,
        args=_keyed(args, target, where),
        version=version,
        note=traits.note,
        dimensions=traits.dimensions,
    )
    build = partial(registry.build, target, dict(args), model=resolved.model, where=where)
    return ScorerHandle(spec=spec, traits=traits, build=build, remake=ComponentRef("scorers", scorer, dict(args)))


def scorer_handles(names: Iterable[str], args: Mapping[str, Any]) -> list[ScorerHandle]:
    """Makes ready several scorers.

    Args:
        names: Scorer names, each once.
        args: `base_url` belongs to the one scorer, `vlm.base_url` to the scorer `vlm:…` among several.

    Raises:
        UsageError: A name comes twice, or an argument belongs to nobody.
    """
    wanted = list(names)
    refuse_secrets({"scorers": wanted, **args})
    if doubles := sorted({name for name in wanted if wanted.count(name) > 1}):
        raise UsageError(
            f"scorer {doubles[0]!r} is named twice", fix="name it once; for more judgements use --judge-repeats"
        )
    return [scorer_handle(name, own) for name, own in zip(wanted, _share_out(wanted, args), strict=True)]


def _share_out(names: list[str], args: Mapping[str, Any]) -> list[dict[str, Any]]:
    shares: list[dict[str, Any]] = [{} for _ in names]
    bases = [name.partition(":")[0] for name in names]
    for key, value in args.items():
        base, dot, rest = key.partition(".")
        if dot and base in bases:
            for share, own in zip(shares, bases, strict=True):
                if own == base:
                    share[rest] = value
        elif len(names) == 1:
            shares[0][key] = value
        else:
            raise UsageError(f"-s {key} could belong to any of {', '.join(names)}", fix=f"write {bases[0]}.{key}=…")
    return shares


def _keyed(arguments: Mapping[str, Any], target: Any, where: str) -> dict[str, Any]:
    """Returns the arguments that decide a result: what was given, less what is only a matter of speed or place."""
    identity_excludes = UNKEYED | frozenset(getattr(target, "identity_excludes", ()))
    kept = {name: value for name, value in arguments.items() if name not in identity_excludes}
    try:
        canonical(kept)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"an argument is not plain data: {error}", where=where, fix="pass numbers, words, lists"
        ) from error
    return kept


def _check_arguments(target: Any, arguments: Mapping[str, Any], model: str | None, where: str) -> None:
    """Finds a wrong argument before anything is built or paid."""
    given = dict(arguments) | ({"model": model} if model is not None else {})
    signature = inspect.signature(target)
    try:
        signature.bind(**given)
    except TypeError as error:
        takes = ", ".join(name for name in signature.parameters if name not in {"self", "args", "kwargs"}) or "nothing"
        raise UsageError(str(error), where=where, fix=f"it takes {takes}") from error


def _own_name(target: Any) -> str:
    kind = target if inspect.isclass(target) or inspect.isfunction(target) else type(target)
    return f"{kind.__module__}:{kind.__qualname__}"


def _revision(target: Any, origin: str) -> str:
    """Returns the version of a plugin, or the hash of the file a user's own class stands in.

    Whoever edits a model and runs again must not be answered with the old pictures.
    """
    if origin != "local":
        return origin
    kind = target if inspect.isclass(target) or inspect.isfunction(target) else type(target)
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    try:
        source = Path(file).read_bytes() if file else inspect.getsource(kind).encode()
    except (OSError, TypeError) as error:
        raise UsageError(
            "its code cannot be found, so that results could not be told apart from those of another version",
            where=_own_name(target),
            fix="give it a class attribute `revision`",
        ) from error
    return f"source {hashlib.sha256(source).hexdigest()[:12]}"
