"""The KnowGen benchmark as it was prepared on this machine."""

from __future__ import annotations

from knowgen.tasks.data_home import need_prepared
from knowgen.tasks.folder import FolderTask

NAME = "knowgen"


def knowgen() -> FolderTask:
    """Returns the prepared benchmark, at the commit it was prepared from.

    Raises:
        DataError: It is not prepared on this machine; the message holds the command that does it.
    """
    return FolderTask(need_prepared(NAME).folder, name=NAME)
