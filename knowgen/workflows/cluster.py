"""Join the cluster on which the plugins of a plan run."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from knowgen.core import registry
from knowgen.core.executors import cluster_address
from knowgen.engine.cluster import Cluster, Handle, name_of, plan_places, stages
from knowgen.engine.executors.node_worker import PluginCode, SourceFile
from knowgen.workflows.local_source import local_files, module_files
from knowgen.workflows.plan import Plan


@contextlib.contextmanager
def cluster_of(plan: Plan) -> Iterator[Cluster | None]:
    """Yield the cluster that the executor of a plan names; None for this machine.

    Raises:
        UsageError: A plugin is an object of this process.
        MissingDependencyError: Ray is not installed.
        ConfigError: The cluster cannot be reached or joined, or has no processor.
    """
    address = cluster_address(plan.config.executor)
    if address is None:
        yield None
        return
    every = stages(plan.agent, plan.generator, plan.scorers, phased=plan.config.schedule == "phased")
    from knowgen.engine.executors.ray_cluster import connected

    codes = {name_of(handle): code_of(handle) for stage in every for handle in stage}
    with connected(address) as cluster:
        cluster.places = plan_places(cluster.nodes(), every, plan.config.workers)
        cluster.codes = codes
        yield cluster


def code_of(handle: Handle) -> PluginCode:
    """Return the code of a plugin and of the parts that its arguments name."""
    ref = handle.component_ref
    assert ref is not None, "objects of this process are refused before"
    installed: list[tuple[registry.Kind, str, str]] = []
    files: dict[str, SourceFile] = {}
    renamed: dict[str, str] = {}
    for kind, name in [(ref.kind, ref.name), *_parts(ref.args)]:
        resolved = registry.resolve(kind, name)
        if resolved.origin != registry.LOCAL:
            if not registry.is_bundled(resolved.origin):
                installed.append((kind, name, resolved.origin))
            continue
        module, _, attribute = resolved.target.rpartition(":")
        for source in _sources(module):
            files.setdefault(source.place, source)
        if module.endswith(".py"):
            renamed[name] = f"{Path(module).name}:{attribute}"
    return PluginCode(tuple(files.values()), renamed, tuple(installed))


def _parts(args: Mapping[str, Any]) -> Iterator[tuple[registry.Kind, str]]:
    """Yield the plugins that the arguments of another one name."""
    kinds: tuple[tuple[str, registry.Kind], ...] = (("search", "search"), ("policy", "policies"))
    for role, kind in kinds:
        if isinstance(name := args.get(role), str) and name:
            yield kind, name


def _sources(module: str) -> Iterator[SourceFile]:
    """Yield a local module or file, and the local modules that it imports, with their places below one folder."""
    here = str(Path.cwd())
    if module.endswith(".py"):
        file = Path(module).resolve()
        own = f"knowgen_user_{file.stem}"
        files = local_files(file, own, (here, str(file.parent)))
        yield _source(file.name, files.pop(own))
    else:
        files = module_files(module, (here,))
    for name, path in files.items():
        place = name.replace(".", "/")
        yield _source(f"{place}/__init__.py" if path.name == "__init__.py" else f"{place}.py", path)


def _source(place: str, path: Path) -> SourceFile:
    return SourceFile(place, str(path.resolve()), hashlib.sha256(path.read_bytes()).hexdigest())
