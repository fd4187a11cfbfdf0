"""Find the image files that a file from another machine names.

A recorded path is looked up in this order:

1. As written, from the folder of the file that records it; also as a `file://` address. An absolute path counts as
   written. With `--images DIR`, generated images are looked up in DIR first (3.) and ground truths afterwards.
2. Below, a path is also read with `\\` as `/`, without percent encoding and without a drive; letters may be composed or
   decomposed, and the case of the extension does not matter.
3. In DIR: the whole path, then without its first folder, without its first two, and so on to the file name alone.
4. In the same way in the folder of the file.

In 3. and 4. nothing outside DIR or that folder is used, not even through a link, and a file that two different recorded
paths lead to is used for neither: it may be the image of another sample, or the ground truth.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from knowgen.core.text import one_line

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"})
SHOWN = 3
"""Number of names that a message lists."""

_LOOKED_IN = 100
"""Number of folders that are looked in for a message, whatever the size of the tree."""

_FILE_ADDRESS = re.compile(r"file:(?://(?:localhost)?(?=/))?", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:\Z")
_Parts = tuple[str, ...]


def name_key(name: str) -> str:
    """Return the form in which file names are compared: composed, with the extension of an image in lower case.

    Example:
        >>> name_key("A.PNG"), name_key("e\\u0301.jpg") == name_key("\\u00e9.JPG")
        ('A.png', True)
    """
    plain = name if name.isascii() else unicodedata.normalize("NFC", name)
    stem, dot, ending = plain.rpartition(".")
    return f"{stem}.{ending.lower()}" if dot and f".{ending.lower()}" in IMAGE_EXTENSIONS else plain


def listed(names: Iterable[str]) -> str:
    """Return the first names, quoted, with the number of the others.

    Example:
        >>> listed(["a.png", "b.png", "c.png", "d.png"])
        "'a.png', 'b.png', 'c.png' and 1 more"
    """
    every = [f"'{one_line(name.encode('utf-8', 'backslashreplace').decode(), 120)}'" for name in names]
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


class RecordedImages:
    """The files that recorded paths lead to; see the module for the order.

    Args:
        folder: Folder of the file that records the paths.
        generated: Recorded paths of generated images.
        truths: Recorded paths of ground truths and references.
        images: Folder that the user named with `--images`.
    """

    def __init__(
        self, folder: Path, generated: Iterable[str] = (), truths: Iterable[str] = (), images: Path | None = None
    ) -> None:
        self.folder, self.images = folder, images
        self._names: dict[Path, dict[str, list[str]]] = {}
        self._found: dict[tuple[bool, str], Path] = {}
        claims: defaultdict[Path, set[_Parts]] = defaultdict(set)
        guesses: list[tuple[tuple[bool, str], Path]] = []
        for is_generated, names in ((True, generated), (False, truths)):
            for name in dict.fromkeys(names):
                path, exact = self._look_up(name, is_generated)
                if path is None:
                    continue
                claims[path.resolve()].add(tuple(name_key(part) for part in _parts(name)))
                if exact:
                    self._found[is_generated, name] = path
                else:
                    guesses.append(((is_generated, name), path))
        self._found |= {place: path for place, path in guesses if len(claims[path.resolve()]) == 1}
        self.ambiguous = {name: path for (_, name), path in guesses if len(claims[path.resolve()]) > 1}

    def find(self, name: str, *, generated: bool) -> Path | None:
        """Return the file of a recorded path; None if there is none."""
        return self._found.get((generated, name))

    def _look_up(self, name: str, generated: bool) -> tuple[Path | None, bool]:
        """Return the file of a recorded path, and whether it is there as written."""
        written = next((path for path in _as_written(self.folder, name) if _exists(path)), None)
        if written is not None and (self.images is None or not generated):
            return written, True
        if self.images is not None and (place := self._below(self.images, name)):
            return place
        if written is not None:
            return written, True
        return self._below(self.folder, name) or (None, False)

    def _below(self, base: Path, name: str) -> tuple[Path, bool] | None:
        """Return the file under a folder with the longest end of a recorded path, and whether it is all of it."""
        for parts in _readings(name):
            for dropped in range(len(parts)):
                path = self._walk(base, parts[dropped:])
                if path is not None:
                    return path, dropped == 0
        return None

    def _walk(self, base: Path, parts: _Parts) -> Path | None:
        path = base
        for part in parts:
            names = self._listing(path).get(name_key(part), [])
            if part not in names and len(names) != 1:
                return None
            path = path / (part if part in names else names[0])
        inside = path.is_file() and path.resolve().is_relative_to(base.resolve())
        return path if inside else None

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._names:
            names: defaultdict[str, list[str]] = defaultdict(list)
            for name in _names_in(folder):
                names[name_key(name)].append(name)
            self._names[folder] = dict(names)
        return self._names[folder]

    def where(self) -> str:
        """Return the folders that were looked in, for messages."""
        return " and ".join(str(folder) for folder in (self.images, self.folder) if folder is not None)

    def there(self) -> str:
        """Return a few names of images that are in these folders, for messages."""
        bases = [base for base in (self.images, self.folder) if base is not None]
        names = [path.relative_to(base).as_posix() for base in bases for path in _some_images(base)]
        return listed(names[:SHOWN]) if names else "no image"


def _some_images(base: Path) -> Iterator[Path]:
    """Yield the first image of a few folders, those near the top first; run directories are left out."""
    folders = [base]
    for _ in range(_LOOKED_IN):
        if not folders:
            return
        try:
            entries = sorted(folders.pop(0).iterdir())
        except OSError:  # not a folder that can be read, so it has nothing to show
            continue
        if any(entry.name == "run.json" for entry in entries):
            continue
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        yield from [entry for entry in visible if entry.suffix.lower() in IMAGE_EXTENSIONS][:1]
        folders += [entry for entry in visible if entry.is_dir() and not entry.is_symlink()]


def _as_written(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    if address := _FILE_ADDRESS.match(name):
        yield folder / unquote(name[address.end() :])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # not a valid file name
        return False


def is_file_name(name: str) -> bool:
    """Return whether a path can name a file: it has no NUL character and no lone surrogate.

    Example:
        >>> is_file_name("a/b.png"), is_file_name("a\\0b.png")
        (True, False)
    """
    return "\0" not in name and name == name.encode("utf-8", "replace").decode()


def _parts(name: str) -> _Parts:
    """Return the names in a recorded path of any system, without root, drive and what comes before `..`."""
    parts = [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".", "~")]
    if ".." in parts:
        parts = parts[len(parts) - parts[::-1].index("..") :]
    parts = parts[1:] if parts and _DRIVE.match(parts[0]) else parts
    return tuple(parts)


def _readings(name: str) -> list[_Parts]:
    """Return the readings of a recorded path: as it is, and without percent encoding."""
    address = _FILE_ADDRESS.match(name)
    plain = name[address.end() :] if address else name
    decoded = unquote(plain)
    return list(dict.fromkeys(_parts(each) for each in ((decoded,) if address else (plain, decoded))))


def _names_in(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; none for what is not a folder that can be read."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except (OSError, ValueError):  # ValueError: a NUL in its name
        return []
