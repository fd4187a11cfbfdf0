"""What is sent to the hub: a run or a board as files in a repository, prepared and checked on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.errors import ConfigError, DataError
from knowgen.core.steps import counted
from knowgen.core.text import count, one_line
from knowgen.core.version import __version__
from knowgen.store.files import write_text
from knowgen.workflows.sharing.listing import (
    CARD_FILE,
    LISTING_FILE,
    Kind,
    ListedFile,
    Listing,
    allowed_path,
    listed,
)
from knowgen.workflows.sharing.private_text import PrivateFinding, PrivateText, findings_in_file

SHOWN_FINDINGS = 3
"""Number of findings in an error; the number of all is in it too."""


@dataclass(frozen=True)
class Package:
    """Files for a repository, ready to be sent.

    Attributes:
        listing: The listing, without itself.
        files: Local file by path in the repository, with the listing and the card.
    """

    listing: Listing
    files: Mapping[str, Path]

    @property
    def size(self) -> int:
        """Size of all files in bytes."""
        return sum(file.size for file in self.listing.files.values())

    @property
    def images(self) -> int:
        """Number of image files."""
        return sum("/images/" in path for path in self.files)


def packed(
    stage: Path,
    kind: Kind,
    *,
    name: str,
    identity: str,
    files: Mapping[str, Path],
    card: str,
    images: bool,
    left_out: Sequence[str],
) -> Package:
    """Write card and listing, and return the package.

    Args:
        stage: Folder to write into.
        kind: What it is.
        name: Name for readers.
        identity: What the directory is bound to.
        files: Local file by path in the repository.
        card: Text of the data card.
        images: Whether the images are in it.
        left_out: What the copy lacks, in words.

    Raises:
        DataError: A file has a name that a repository may not have.
    """
    for path in files:
        if not allowed_path(path):
            raise DataError(f"the name {path!r} cannot be sent", fix="use letters, digits, `.`, `_` and `-`")
    write_text(stage / CARD_FILE, card)
    every = {**files, CARD_FILE: stage / CARD_FILE}
    entries: dict[str, ListedFile] = {path: listed(every[path]) for path in counted(sorted(every), "listing files")}
    listing = Listing(
        format=1,
        kind=kind,
        name=one_line(name, 200),
        identity=identity,
        knowgen=__version__,
        images=images,
        left_out=tuple(left_out),
        files=entries,
    )
    write_text(stage / LISTING_FILE, listing.model_dump_json(indent=1) + "\n")
    return Package(listing, {**every, LISTING_FILE: stage / LISTING_FILE})


def refuse_private(files: Mapping[str, Path], private: PrivateText, where: Path, *, keep_paths: bool) -> None:
    """Check that no text file has a key, a folder of this machine or its name.

    Args:
        files: Local file by path in the repository.
        private: Text of this machine.
        where: The run or board, for errors.
        keep_paths: Whether folders and the machine's name may be sent.

    Raises:
        ConfigError: A file has. The message does not contain the text.
    """
    found = list(_findings(files, private))
    keys = [each for each in found if each.is_key]
    if keys:
        fix = "remove it, and replace the key if it was real: it has been written to a file"
        raise ConfigError(_words(keys), where=str(where), fix=fix)
    if found and not keep_paths:
        fix = "use relative paths and make the run again, or send it with --keep-paths if these may be seen"
        raise ConfigError(_words(found), where=str(where), fix=fix)


def _findings(files: Mapping[str, Path], private: PrivateText) -> Iterator[PrivateFinding]:
    for path, file in counted(files.items(), "looking for private text"):
        yield from findings_in_file(file, path, private)


def _words(findings: Sequence[PrivateFinding]) -> str:
    shown = "; ".join(f"{each.where} {each.what}" for each in findings[:SHOWN_FINDINGS])
    more = len(findings) - SHOWN_FINDINGS
    return f"cannot be sent: {shown}" + (f" (and {count(more, 'other place', 'other places')})" if more > 0 else "")
