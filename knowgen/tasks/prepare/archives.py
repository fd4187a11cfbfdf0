"""Unpack zip and tar archives from untrusted sources.

The whole archive is refused if a member has an absolute path, contains `..`, is a link or a device, or has a duplicate
name; if it unpacks to more bytes or files than allowed; or if its compression ratio is implausible for images. Limits
apply to the bytes that are actually unpacked, not to the sizes that the archive declares.
"""

from __future__ import annotations

import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from knowgen.core.errors import DataError
from knowgen.core.steps import counted
from knowgen.core.text import error_message

ZIP_ENDINGS = (".zip",)
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ENDINGS = (*ZIP_ENDINGS, *TAR_ENDINGS)

_BLOCK = 1 << 20
_TRUSTED = "fetch the archive from a trusted source"
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_UTF8_FLAG, _ENCRYPTED_FLAG = 0x800, 0x1
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class ArchiveLimits:
    """Limits for the archives of one data set.

    Attributes:
        total_bytes: Maximum unpacked size of all archives together.
        files: Maximum number of files in all archives together.
        ratio: Maximum ratio of unpacked to packed bytes of one archive. Images hardly compress.
        free_bytes: Unpacked size up to which the ratio of an archive is not checked.
        header_bytes: Maximum size of the extended headers of one member of a tar archive.
    """

    total_bytes: int = 512 << 30
    files: int = 2_000_000
    ratio: float = 100.0
    free_bytes: int = 16 << 20
    header_bytes: int = 1 << 20


@dataclass
class UnpackedTotals:
    """Number of files and bytes unpacked so far, over several archives."""

    files: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class _Member:
    name: str
    stream: IO[bytes]


def is_archive(name: str) -> bool:
    """Return whether a file name has the extension of a supported archive."""
    return name.lower().endswith(ENDINGS)


def stem(name: str) -> str:
    """Return an archive's file name without its extension: `images` for `images.tar.gz`."""
    base = Path(name).name
    ending = max((each for each in ENDINGS if base.lower().endswith(each)), key=len, default="")
    return base[: len(base) - len(ending)] if ending else base


def unpack(archive: Path, into: Path, so_far: UnpackedTotals, limits: ArchiveLimits, name: str = "") -> None:
    """Unpack an archive into a folder.

    Args:
        archive: A zip or tar file.
        into: Target folder; created if missing.
        so_far: Totals of earlier archives of the same data set; updated in place.
        limits: Limits for all archives of the data set.
        name: Name of the archive in error messages; the file name if empty.

    Raises:
        DataError: The archive is damaged, has a member that is refused, or exceeds a limit. The message names archive
            and member.
    """
    name = name or archive.name
    packed, before = archive.stat().st_size, so_far.bytes
    members = _zip_members if name.lower().endswith(ZIP_ENDINGS) else _tar_members
    into.mkdir(parents=True, exist_ok=True)
    try:
        for member in counted(members(archive, name, so_far, limits), f"unpacking {name}"):
            path = into / _safe(member.name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                for block in _blocks(member, name):
                    so_far.bytes += len(block)
                    _check_limits(limits, so_far.bytes, so_far.bytes - before, packed, name, member.name)
                    file.write(block)
    except _BROKEN as error:
        raise DataError(
            f"cannot be read as an archive: {error_message(error)}", where=name, fix="fetch it again"
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot be unpacked: {error.strerror or error}", where=name, fix="check the disk's free space"
        ) from error


def _blocks(member: _Member, archive: str) -> Iterator[bytes]:
    """Yield a member's bytes in blocks."""
    with closing(member.stream) as stream:
        while True:
            try:
                block = stream.read(_BLOCK)
            except _BROKEN as error:
                raise DataError(
                    f"its member {member.name!r} is damaged: {error_message(error)}",
                    where=archive,
                    fix="fetch it again",
                ) from error
            if not block:
                return
            yield block


def _check_limits(limits: ArchiveLimits, total: int, of_archive: int, packed: int, archive: str, member: str) -> None:
    if total > limits.total_bytes:
        raise _refused(archive, member, f"exceeds the limit of {limits.total_bytes} unpacked bytes")
    if of_archive > limits.free_bytes and of_archive > limits.ratio * packed:
        what = f"unpacks to more than {limits.ratio:g} times the {packed} bytes of its archive, which images never do"
        raise _refused(archive, member, what)


def _count_file(so_far: UnpackedTotals, limits: ArchiveLimits, member: str, archive: str) -> None:
    """Count a member, folders included."""
    so_far.files += 1
    if so_far.files > limits.files:
        raise _refused(archive, member, f"is one file more than the {limits.files} allowed")


def _zip_members(archive: Path, name: str, so_far: UnpackedTotals, limits: ArchiveLimits) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        infos = [(info, _zip_name(info)) for info in opened.infolist()]
        seen = set[str]()
        for info, member in infos:  # check all members before the first one is written
            _safe(member, name)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(name, member, "is a link or a device")
            if info.flag_bits & _ENCRYPTED_FLAG:
                raise _refused(name, member, "is encrypted")
            _check_unique(member, seen, name)
        for info, member in infos:
            _count_file(so_far, limits, member, name)
            if not info.is_dir():
                yield _Member(member, opened.open(info))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name. UTF-8 names without the UTF-8 flag are decoded as UTF-8."""
    if info.flag_bits & _UTF8_FLAG:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


class _HeaderLimitError(Exception):
    """The extended headers of a member are too large, or describe a sparse file."""


def _bounded_info(limit: int) -> type[tarfile.TarInfo]:
    """Return a class of members that refuses large extended headers before they are read.

    Read by `tarfile`, a header of 13 MB becomes gigabytes of small objects. The headers before one member share the
    limit, and so do global headers of the whole archive, which stay in memory.
    """

    class BoundedInfo(tarfile.TarInfo):
        before_member = in_archive = 0

        def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:  # the hook that `tarfile` names for it
            if self.size < 0:
                raise _HeaderLimitError("has a negative size")
            if self.type in _EXTENDED:
                size = self.size + tarfile.BLOCKSIZE
                BoundedInfo.before_member += size
                BoundedInfo.in_archive += size if self.type == tarfile.XGLTYPE else 0
                if max(BoundedInfo.before_member, BoundedInfo.in_archive) > limit:
                    raise _HeaderLimitError(f"has extended headers of more than {limit} bytes")
            elif self.type == tarfile.GNUTYPE_SPARSE:
                raise _HeaderLimitError("is a sparse file, which images never are")
            else:
                BoundedInfo.before_member = 0
            return super()._proc_member(archive)  # type: ignore[misc,no-any-return]

    return BoundedInfo


def _tar_members(archive: Path, name: str, so_far: UnpackedTotals, limits: ArchiveLimits) -> Iterator[_Member]:
    seen = set[str]()
    last, packed = "", archive.stat().st_size
    try:
        with tarfile.open(archive, tarinfo=_bounded_info(limits.header_bytes)) as opened:
            while (info := opened.next()) is not None:
                opened.members = []  # type: ignore[attr-defined]  # `tarfile` would keep every member
                last = info.name
                _count_file(so_far, limits, info.name, name)
                _check_limits(limits, 0, opened.offset, packed, name, info.name)
                _safe(info.name, name)
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    raise _refused(name, info.name, "is a link or a device")
                _check_unique(info.name, seen, name)
                stream = opened.extractfile(info)
                assert stream is not None, "a regular file has content"
                yield _Member(info.name, stream)
    except _HeaderLimitError as error:
        which = f"the member after {last[:200]!r}" if last else "its first member"
        raise DataError(f"refused: {which} {error}", where=name, fix=_TRUSTED) from error


def _check_unique(member: str, seen: set[str], archive: str) -> None:
    """Refuse a duplicate file name: it is unknown which of the two files is meant."""
    if member.endswith("/"):
        return
    plain = str(_safe(member, archive))
    if plain in seen:
        raise _refused(archive, member, "has a duplicate name")
    seen.add(plain)


def _safe(member: str, archive: str) -> Path:
    """Return a member's name as a relative path inside the target folder.

    Raises:
        DataError: The name is absolute, contains `..`, or is not a valid file name.
    """
    name = member.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or (parts and parts[0].endswith(":")):
        raise _refused(archive, member, "has an absolute path")
    if ".." in parts:
        raise _refused(archive, member, "leaves its folder with `..`")
    if any(ord(letter) < 32 for letter in name) or any(len(part.encode()) > 255 for part in parts):
        raise _refused(archive, member, "has a name that is not a valid file name")
    return Path(*(unicodedata.normalize("NFC", part) for part in parts))


def _refused(archive: str, member: str, why: str) -> DataError:
    return DataError(f"refused: its member {member[:200]!r} {why}", where=archive, fix=_TRUSTED)
