"""The KnowGen benchmark, as prepared on this machine."""

from __future__ import annotations

from knowgen.tasks.data_home import need_prepared
from knowgen.tasks.folder import FolderTask

NAME = "knowgen"


def knowgen() -> FolderTask:
    """Return the prepared benchmark.

    Raises:
        DataError: It is not prepared on this machine. The message contains the command that prepares it.
    """
    return FolderTask(need_prepared(NAME).folder, name=NAME)
