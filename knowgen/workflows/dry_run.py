"""What `--dry-run` checks beside the plan: everything that a run would refuse and that costs nothing to find out.

Bundled plugins are built: their constructors check names, addresses and arguments, and load and call nothing. Code of
others is not imported into this process; `knowgen check` tries it. A missing key is reported and refuses nothing, so
that cost and duration can be looked at without one.
"""

from __future__ import annotations

from pathlib import Path

from knowgen.clients.endpoint_url import collected_missing_keys
from knowgen.engine.components import AgentHandle, GeneratorHandle, ScorerHandle
from knowgen.store.folder import check_folder
from knowgen.tracking.session import open_tracking
from knowgen.workflows.plan import Plan


def check_dry(plan: Plan, out: Path) -> list[str]:
    """Check a plan and its run directory as far as that costs nothing, and return a line for each missing key.

    Args:
        plan: The plan.
        out: The run directory. Nothing is written.

    Raises:
        UsageError: A plugin cannot be built as named, or an option is wrong.
        ConfigError: The run directory cannot be used, or a plugin or tracker is not set up.
        MissingDependencyError: A library is not installed.
    """
    check_folder(out)
    open_tracking(plan.config.log).close("failed")  # no run of it begins
    with collected_missing_keys() as missing:
        for handle in (plan.agent, plan.generator, *plan.scorers):
            if isinstance(handle, AgentHandle | GeneratorHandle | ScorerHandle):
                _build(handle)
    return [f"missing    {line}" for line in dict.fromkeys(map(str, missing))]


def _build(handle: AgentHandle | GeneratorHandle | ScorerHandle) -> None:
    """Build a bundled plugin, which a run would build too, and drop it."""
    if handle.component_ref is not None and handle.component_ref.bundled:
        handle.build()
