"""The bundled task `knowgen_mini`: a small world of 48 samples."""

from __future__ import annotations

from knowgen.tasks.folder import FolderTask
from knowgen.tasks.load import content_folder

MINI_NAME, MINI_SEED, MINI_SAMPLES = "knowgen_mini", 20, 48
"""Name, seed and number of samples of `tasks/knowgen_mini`."""


def knowgen_mini() -> FolderTask:
    """Return the bundled task: two samples of each of the 24 categories.

    Raises:
        DataError: If the installation has no such folder.
    """
    return FolderTask(content_folder("tasks") / MINI_NAME)
