"""The world of a private season: built in full for those who score, and published without ground truths.

Nothing in the published folder depends on a ground truth except through the secret seed: names are keyed hashes, files
have one fixed time and were created in the order of their names, and the version of the task covers the commitment in
place of the truths.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from knowgen.core.atomic import folder_draft
from knowgen.core.errors import ConfigError
from knowgen.core.version import __version__
from knowgen.tasks.folder import SAMPLES_FILE, SEARCH_FILES, SEARCH_FOLDER, TASK_FILE
from knowgen.worlds.content.difficulty import RECIPE_VERSION

PUBLISHED = (TASK_FILE, SAMPLES_FILE, *(f"{SEARCH_FOLDER}/{name}" for name in SEARCH_FILES))
"""Published files; the images of the corpus come with them, and their digests are in the last one."""

_PICTURES = f"{SEARCH_FOLDER}/pictures"
_TIME = 315532800
"""Time of all published files: 1980-01-01, the first that a ZIP archive can hold. Times of their own would tell in
which order images were drawn, and so which of them show a subject.
"""


def publish_world(world: Path, out: Path, more: Mapping[str, str]) -> None:
    """Write the public folder of a season in one step: the task without ground truths, and its search corpus.

    Args:
        world: Folder of the whole world.
        out: Folder to create. An earlier one is replaced.
        more: Further files by name, such as the announcement.

    Raises:
        ConfigError: It cannot be written.
    """
    pictures = sorted(path.relative_to(world).as_posix() for path in (world / _PICTURES).iterdir())
    try:
        with folder_draft(out) as draft:
            (draft / _PICTURES).mkdir(parents=True)
            for name in (*PUBLISHED, *pictures):
                shutil.copyfile(world / name, draft / name)
            for name, text in more.items():
                (draft / name).write_text(text, encoding="utf-8")
            for path in (*draft.rglob("*"), draft):
                os.utime(path, (_TIME, _TIME))
    except OSError as error:
        where = str(error.filename or out)
        raise ConfigError(f"cannot be written: {error.strerror}", where=where, fix="check the disk") from error


def published_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 hex digest of each published file of a world or a public folder that is there."""
    found = [name for name in PUBLISHED if (folder / name).is_file()]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in found}


def versions() -> dict[str, str]:
    """Return the versions of what draws a world: another version may place letters or compress images differently."""
    import PIL
    from PIL import features

    libraries = {name: str(features.version(name) or "") for name in ("freetype2", "webp")}
    return {"knowgen": __version__, "world": str(RECIPE_VERSION), "pillow": PIL.__version__, **libraries}
