"""Load a task by name, `module:Class` or folder."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from knowgen.core import registry
from knowgen.core.errors import UsageError
from knowgen.core.secrets import refuse_secrets
from knowgen.tasks.contract import Task
from knowgen.tasks.folder import TASK_FILE, FolderTask


def load_task(name: str) -> Task:
    """Return a task.

    Args:
        name: Registered name, `module:Class`, a task folder or its `task.yaml`.

    Raises:
        UsageError: The name is unknown.
        DataError: The folder is not a task folder, or its `task.yaml` is invalid.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "task.yaml").write_text("name: birds")
        ...     _ = (Path(folder) / "samples.jsonl").write_text('{"id": "1", "prompt": "a robin"}')
        ...     [sample.prompt for sample in load_task(folder).samples()]
        ['a robin']
    """
    resolved = find_task(name)
    if resolved is None:
        return FolderTask(Path(name).parent if Path(name).name == TASK_FILE else Path(name))
    task = registry.create(resolved, {})
    missing = [part for part in ("samples", "truth", "__len__") if not callable(getattr(task, part, None))]
    if missing:
        raise UsageError(f"task {name!r} lacks {', '.join(missing)}", fix="see knowgen.tasks.contract.Task")
    return cast(Task, task)


def find_task(name: str) -> registry.ResolvedName | None:
    """Return the code of a task that is named, without importing it; None for a task folder, which holds no code.

    Raises:
        UsageError: The name is unknown.
    """
    refuse_secrets({"task": name})
    if not name.strip():
        raise UsageError("the name of the task is empty", fix="name a task or a task folder")
    if name not in registry.entries("tasks") and (Path(name).is_dir() or Path(name).name == TASK_FILE):
        return None
    if ("/" in name or name.startswith(".")) and not name.partition(":")[0].endswith(".py"):
        raise UsageError(f"no task folder {name!r}", fix="make one with `knowgen world build`, or name a task")
    return registry.resolve("tasks", name)


def content_folder(kind: str) -> Path:
    """Return the folder of bundled content: inside an installed wheel, or beside the package in a checkout.

    Args:
        kind: Name of the folder, such as `tasks`.
    """
    package = Path(__file__).resolve().parent.parent
    installed = package / "_content" / kind
    return installed if installed.is_dir() else package.parent / kind
