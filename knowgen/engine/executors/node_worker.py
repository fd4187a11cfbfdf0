"""What runs on a node of a cluster: start one worker process there, and pass messages between it and the run.

`NodeWorker` is made an actor by `ray_link`. It imports nothing of the plugin, so that a plugin that hangs or crashes
leaves it able to say so. Images that the node lacks are asked for by the hash of their content.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from queue import Empty, Queue
from types import MappingProxyType
from typing import Any, NamedTuple

from knowgen.core import registry
from knowgen.core.errors import UsageError
from knowgen.core.version import __version__
from knowgen.engine.devices import Device
from knowgen.engine.executors.child_process import kill_group, start_child, wait_for_end
from knowgen.engine.executors.links import WORKER_MODULE, worker_environment
from knowgen.engine.executors.node_files import NodeFiles
from knowgen.engine.executors.output_log import MAX_BYTES
from knowgen.engine.executors.protocol import move_images, packed_images

WAITING_MESSAGES = 256
"""Messages that wait for the run; with more, the worker process waits."""

LONGEST_REPLY = 64 * 2**20
"""Bytes of payloads after which `receive` returns."""

_CHUNK = 1 << 16
_OUTPUT_SECONDS = 0.5
_END_SECONDS = 0.002
"""How long a result waits for the end of its call, which mostly follows at once, so that both cross together."""

Message = dict[str, Any]


class SourceFile(NamedTuple):
    """A source file of a plugin that is the user's own.

    Attributes:
        place: Where it belongs below a folder from which it can be imported, such as `models/duck.py`.
        path: Where the run has it.
        sha256: Hash of its content.
    """

    place: str
    path: str
    sha256: str


class PluginCode(NamedTuple):
    """The code of a plugin, which must be the same on every node.

    Attributes:
        files: Source files of the user, which are sent to nodes that lack them or have others.
        renamed: File and name in it of each plugin that is named by a file, by its name.
        installed: Kind, name, and name and version of the distribution of each installed plugin.
    """

    files: tuple[SourceFile, ...] = ()
    renamed: Mapping[str, str] = MappingProxyType({})
    installed: tuple[tuple[registry.Kind, str, str], ...] = ()


@cache
def code_digest() -> str:
    """Return 12 hex digits that differ between installations of this package with different code."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"\0{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def installation(code: PluginCode) -> dict[str, str]:
    """Return the versions that must be the same on every node, by what they are of."""
    versions = {"knowgen": f"{__version__} (code {code_digest()})"}
    versions["Python"] = ".".join(platform.python_version_tuple()[:2])
    for kind, name, _ in code.installed:
        try:
            versions[name] = registry.resolve(kind, name).origin
        except UsageError:
            versions[name] = "of no distribution"
    return versions


_GUARD = '(while kill -0 "$1"; do sleep 2; done; kill -9 "-$1") </dev/null >/dev/null 2>&1 &'


def _guard(pid: int) -> None:
    """Have the processes that a worker process started killed when it has ended, whatever happens to this one.

    A node that is lost kills the worker process alone, which then cannot end those that its plugin started.
    """
    subprocess.run(["sh", "-c", _GUARD, "sh", str(pid)], start_new_session=True, check=True)


class NodeWorker:
    """One worker process on this node. Its methods are called from several threads.

    Args:
        run: Name of the run.
        folder: Current folder of the run; that of the worker process where it exists on this node.
        device: Name of the plugin's device.
        threads: Threads for libraries that compute.
    """

    def __init__(self, run: str, folder: str, device: str, threads: int) -> None:
        self._run, self._folder, self._device, self._threads = run, folder, device, threads
        self._outgoing: Queue[tuple[Message, bytes]] = Queue(WAITING_MESSAGES)
        self._process: subprocess.Popen[bytes] | None = None
        self._files: NodeFiles | None = None
        self._renamed: dict[str, str] = {}

    def check(self, code: PluginCode) -> dict[str, Any]:
        """Return the name and the versions of this node, and the hashes of source files that must be sent to it.

        Where this node has all of them at the same places, it uses its own.
        """
        with contextlib.suppress(OSError):  # the node has no such folder
            os.chdir(self._folder)
        self._files = NodeFiles(self._run)
        missing = [each.sha256 for each in code.files if self._files.find(each.path, each.sha256) is None]
        return {"host": socket.gethostname(), "installation": installation(code), "missing": missing}

    def start(self, code: PluginCode) -> None:
        """Start the worker process.

        Raises:
            OSError: It cannot be started, or a source file cannot be written.
        """
        environment = worker_environment(Device(self._device, ""), self._threads)
        if code.files and (folder := self._code_folder(code.files)) is not None:
            environment["PYTHONPATH"] = os.pathsep.join([str(folder), environment["PYTHONPATH"]])
            self._renamed = {name: str(folder / place) for name, place in code.renamed.items()}
        reader, writer = os.pipe()
        self._process, self._channel = start_child(WORKER_MODULE, writer, environment)
        _guard(self._process.pid)
        output = threading.Thread(target=self._forward_output, args=(reader,), daemon=True)
        output.start()
        threading.Thread(target=self._forward_messages, args=(self._process, output), daemon=True).start()

    def _code_folder(self, files: Sequence[SourceFile]) -> Path | None:
        """Return a folder with source files that were sent; None if this node has all at their own places."""
        assert self._files is not None, "check comes first"
        found = {each: self._files.find(each.path, each.sha256) for each in files}
        if all(path == each.path for each, path in found.items()):
            return None
        folder = self._files.path / f"code-{os.getpid()}"
        for each, path in found.items():
            place = folder / each.place
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path or each.path, place)
        return folder

    # -- from the worker process to the run ------------------------------------------------------------------------

    def _forward_messages(self, process: subprocess.Popen[bytes], output: threading.Thread) -> None:
        fault = ""
        try:
            while (received := self._channel.receive()) is not None:
                self._outgoing.put(received)
        except Exception as error:  # noqa: BLE001 - a plugin may write anything to the connection
            fault = f"sent what is not a message ({type(error).__name__}: {error})"
            kill_group(process)
        wait_for_end(process)
        output.join(_OUTPUT_SECONDS)
        self._channel.close()
        self._outgoing.put(({"event": "exit", "code": process.returncode, "fault": fault}, b""))

    def _forward_output(self, reader: int) -> None:
        size = 0
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            while chunk := pipe.read(_CHUNK):
                if size <= MAX_BYTES:  # the log of the run has a limit too
                    self._outgoing.put(({"event": "output"}, chunk))
                    size += len(chunk)

    def receive(self) -> tuple[list[Message], bytes]:
        """Wait for a message of the worker process; return all that there are, and their payloads one after the other.

        The field `payload` of a message is the length of its payload.
        """
        messages, payloads, size = [], list[bytes](), 0
        received: tuple[Message, bytes] | None = self._outgoing.get()
        while received is not None:
            message, payload = received
            messages.append({**message, "payload": len(payload)})
            payloads.append(payload)
            size += len(payload)
            seconds = _END_SECONDS if message["event"] == "result" else 0.0
            try:
                received = self._outgoing.get(seconds > 0, seconds) if size < LONGEST_REPLY else None
            except Empty:
                received = None
        return messages, payloads[0] if len(payloads) == 1 else b"".join(payloads)

    def read(self, path: str) -> bytes:
        """Return a file that the plugin made, such as an image that an agent found.

        Raises:
            OSError: It cannot be read.
        """
        return Path(path).read_bytes()

    # -- from the run to the worker process ------------------------------------------------------------------------

    def send(self, message: Message, as_it_is: bool = False) -> list[str]:
        """Give the worker process a message; if images must be sent first, return their hashes instead.

        Args:
            message: The message.
            as_it_is: Whether it is given although images are missing, because the run cannot send them.
        """
        if message["do"] == "build":
            message["name"] = self._renamed.get(message["name"], message["name"])
            message["args"] = {
                name: self._renamed.get(value, value) if isinstance(value, str) else value
                for name, value in message["args"].items()
            }
        missing = self._locate(message)
        if missing and not as_it_is:
            return missing
        with contextlib.suppress(OSError):  # the process has ended, which its last message says
            self._channel.send(message)
        return []

    def give(self, path: str, sha256: str, data: bytes) -> None:
        """Keep an image that was sent.

        Raises:
            ValueError: It has another content.
            OSError: It cannot be written.
        """
        assert self._files is not None, "check comes first"
        self._files.put(path, sha256, data)

    def _locate(self, message: Message) -> list[str]:
        """Replace the paths of images by those of this node, and return the hashes of images that it does not have."""
        assert self._files is not None, "check comes first"
        missing = []
        for one in message.get("batch", ()):
            moved = {}
            for path, sha256 in packed_images(one):
                found = self._files.find(path, sha256)
                if found is None:
                    missing.append(sha256)
                else:
                    moved[path] = found
            move_images(one, moved)
        return list(dict.fromkeys(missing))

    def end(self) -> None:
        """Kill the worker process and those that it started, and remove the files of this node."""
        if self._process is not None and self._process.returncode is None:
            kill_group(self._process)
        if self._files is not None:
            self._files.close()
