"""A child process that runs code of others: a group of its own, with a connection to it, which ends as a whole."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping

from knowgen.core.import_path import module_command
from knowgen.engine.executors.channel import Channel


def start_child(module: str, output: int, environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], Channel]:
    """Start a module of this package as a process, and return it with this end of its connection.

    Args:
        module: Name of the module. It gets the descriptor of its end of the connection as its only argument.
        output: Descriptor that becomes both of its standard outputs; closed here, also if the start fails.
        environment: Its environment.

    Raises:
        OSError: The process cannot be started.
    """
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    try:
        process = subprocess.Popen(
            module_command(module, str(theirs.fileno())),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(theirs.fileno(),),
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the run only, which then ends its child processes
        )
    except BaseException:
        channel.close()
        raise
    finally:
        theirs.close()
        os.close(output)
    return process, channel


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those that its code started."""
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        os.killpg(process.pid, signal.SIGKILL)


def wait_for_end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the process itself, not for those that its code started, which are killed."""
    with contextlib.suppress(ChildProcessError):  # the program that uses this package ignores SIGCHLD
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    kill_group(process)  # before it is reaped, so that the number of the group is still its own
    process.wait()


def ending(code: int | None) -> str:
    """Return how a process ended, in words.

    Args:
        code: Its return code, negative for a signal; None where it is unknown.

    Example:
        >>> ending(3), ending(-11)
        ('ended with code 3', 'was killed by SIGSEGV')
    """
    if code is None or code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name
    hint = ", perhaps because the memory ran out" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
