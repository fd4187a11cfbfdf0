"""Where plugins run, as the option `executor` names it."""

from __future__ import annotations

from knowgen.core.errors import UsageError
from knowgen.core.run_config import EngineConfig


def cluster_address(executor: str) -> str | None:
    """Return the address of the cluster that an executor names: empty for that of this machine, None for `local`.

    Raises:
        UsageError: It is not an executor.

    Example:
        >>> cluster_address("local"), cluster_address("ray"), cluster_address("ray:10.0.0.1:6379")
        (None, '', '10.0.0.1:6379')
    """
    name, colon, address = executor.partition(":")
    if name not in ("local", "ray") or (colon and (name == "local" or not address)):
        raise UsageError(f"unknown executor {executor!r}", fix="write local, ray or ray:HOST:PORT")
    if address.startswith("//"):
        raise UsageError(
            f"{executor!r} is an address of Ray's client, through which no run can be carried out",
            fix="run this command on a node of the cluster, with ray:HOST:PORT",
        )
    host, _, port = address.rpartition(":")
    if address and (not host or not port.isdecimal()):
        raise UsageError(f"the address {address!r} of the cluster is not HOST:PORT", fix="write ray:HOST:PORT")
    return address if name == "ray" else None


def check_executor(config: EngineConfig) -> None:
    """Check the options that say where plugins run.

    Raises:
        UsageError: One is wrong, or two exclude each other.
    """
    if cluster_address(config.executor) is not None and config.workers == 0:
        raise UsageError(
            "workers 0 runs plugins in this process, and not on a cluster", fix="remove workers or executor"
        )
