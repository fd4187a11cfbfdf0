"""The task that comes with the package: a small world of 48 samples."""

from __future__ import annotations

from knowgen.tasks.folder import FolderTask
from knowgen.tasks.load import content_folder

MINI_NAME, MINI_SEED, MINI_SAMPLES = "knowgen_mini", 20, 48
"""What `tasks/knowgen_mini` was built from."""


def knowgen_mini() -> FolderTask:
    """Returns the shipped task: two samples of each of the 24 categories.

    Raises:
        DataError: The installation lacks its folder.
    """
    return FolderTask(content_folder("tasks") / MINI_NAME)
