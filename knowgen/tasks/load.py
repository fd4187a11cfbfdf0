"""From the name a user gives to a task."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from knowgen.core import registry
from knowgen.core.errors import UsageError
from knowgen.core.secrets import refuse_secrets
from knowgen.tasks.contract import Task
from knowgen.tasks.folder import TASK_FILE, FolderTask


def load_task(name: str) -> Task:
    """Returns a task by registered name, `module:Class`, or the folder it lies in.

    Raises:
        UsageError: Nobody knows the name.
        DataError: The folder holds no task, or a broken one.
    """
    refuse_secrets({"task": name})
    if name.strip() and name not in registry.entries("tasks") and (Path(name).is_dir() or Path(name).name == TASK_FILE):
        folder = Path(name).parent if Path(name).name == TASK_FILE else Path(name)
        return FolderTask(folder)
    if not name.strip():
        raise UsageError("the name of the task is empty", fix="name a task, or a task's folder")
    if "/" in name or name.startswith("."):
        raise UsageError(f"no task folder {name!r}", fix="make one with `knowgen world build`, or name a task")
    task = registry.create(registry.resolve("tasks", name), {})
    missing = [part for part in ("samples", "truth", "__len__") if not callable(getattr(task, part, None))]
    if missing:
        raise UsageError(f"task {name!r} lacks {', '.join(missing)}", fix="see knowgen.tasks.contract.Task")
    return cast(Task, task)


def content_folder(kind: str) -> Path:
    """Returns where shipped content lies: inside an installed wheel, or beside the package in a checkout.

    Args:
        kind: Such as `tasks`.
    """
    package = Path(__file__).resolve().parent.parent
    installed = package / "_content" / kind
    return installed if installed.is_dir() else package.parent / kind
