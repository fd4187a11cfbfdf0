"""Unpacking untrusted archives: which content is unpacked, and what is refused with which message."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen.core.errors import DataError
from knowgen.tasks.prepare.archives import ArchiveLimits, UnpackedTotals, is_archive, stem, unpack
from tests.helpers.archive_data import tarred, zipped

ROOMY = ArchiveLimits()


def unpacked(tmp_path: Path, data: bytes, name: str = "a.zip", limits: ArchiveLimits = ROOMY) -> dict[str, bytes]:
    archive = tmp_path / name
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(data)
    into = tmp_path / "into"
    unpack(archive, into, UnpackedTotals(), limits)
    return {path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*") if path.is_file()}


def refusal(tmp_path: Path, data: bytes, name: str = "a.zip", limits: ArchiveLimits = ROOMY) -> str:
    with pytest.raises(DataError) as caught:
        unpacked(tmp_path, data, name, limits)
    outside = {path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(tmp_path / "into")}
    assert outside == {tmp_path / name}, "nothing may be written beside the folder"
    assert "\n" not in str(caught.value)
    return str(caught.value)


MEMBERS = {"a/b/c.png": b"1" * 3000, "d.png": b"", "a/ü 日.png": b"2"}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.zip", zipped(MEMBERS)),
        ("x.tar", tarred(MEMBERS, "w:")),
        ("x.tar.gz", tarred(MEMBERS)),
        ("x.tgz", tarred(MEMBERS)),
        ("x.tar.xz", tarred(MEMBERS, "w:xz")),
        ("X.TAR.BZ2", tarred(MEMBERS, "w:bz2")),
    ],
)
def test_the_content_of_each_archive_format_is_unpacked(tmp_path: Path, name: str, data: bytes) -> None:
    assert is_archive(name) and stem(name).lower() == "x"
    assert unpacked(tmp_path, data, name) == MEMBERS


def zip_with(info: zipfile.ZipInfo, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, content)
    return buffer.getvalue()


def tar_with(**fields: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(str(fields.pop("name", "member")))
        for name, value in fields.items():
            setattr(info, name, value)
        archive.addfile(info, io.BytesIO(b"x" * info.size))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("member", "why"),
    [
        ("../x.png", "leaves its folder"),
        ("a/../../x.png", "leaves its folder"),
        ("..\\x.png", "leaves its folder"),
        ("/tmp/x.png", "absolute path"),
        ("\\tmp\\x.png", "absolute path"),
        ("C:/x.png", "absolute path"),
        ("a\nb.png", "name that is not a valid file name"),
        ("n" * 300, "name that is not a valid file name"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_outside_the_folder_are_refused(tmp_path: Path, member: str, why: str, kind: str) -> None:
    data = zip_with(zipfile.ZipInfo(member), b"x") if kind == "zip" else tar_with(name=member, size=1)
    message = refusal(tmp_path, data, f"bad.{kind}")
    assert message.startswith(f"bad.{kind}: refused: its member {member[:200]!r}") and why in message


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR):
        info = zipfile.ZipInfo("it")
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        assert "'it' is a link or a device" in refusal(tmp_path, zip_with(info, b"/etc/passwd"))
    for tar_kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        (tmp_path / "a.zip").unlink(missing_ok=True)
        data = tar_with(name="it", type=tar_kind, linkname="/etc/passwd")
        assert "'it' is a link or a device" in refusal(tmp_path, data, "a.tar")


def test_a_bad_member_refuses_a_zip_before_anything_is_written(tmp_path: Path) -> None:
    refusal(tmp_path, zipped({"good.png": b"1", "../bad.png": b"2"}))
    assert not [path for path in (tmp_path / "into").rglob("*") if path.is_file()]


def test_a_duplicate_name_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", b"1")
        archive.writestr("a.png", b"2")
    assert "'a.png' has a duplicate name" in refusal(tmp_path, buffer.getvalue())


def test_an_archive_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    bomb = zipped({"zeros.png": bytes(40 << 20)})
    assert len(bomb) < 100_000
    assert "'zeros.png' unpacks to more than 100 times" in refusal(tmp_path, bomb)
    assert sum(path.stat().st_size for path in (tmp_path / "into").rglob("*")) <= ROOMY.free_bytes + (1 << 20)
    for name, mode in (("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")):
        (tmp_path / "a.zip").unlink(missing_ok=True)
        (tmp_path / "a.tar.gz").unlink(missing_ok=True)
        assert "unpacks to more than" in refusal(tmp_path, tarred({f"{mode[2:]}.png": bytes(40 << 20)}, mode), name)


def test_limits_apply_to_the_unpacked_size_and_not_to_the_declared_size(tmp_path: Path) -> None:
    data = bytearray(zipped({"zeros.png": bytes(1 << 20)}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(signature) + offset
        data[start : start + 4] = struct.pack("<I", 10)
    limits = ArchiveLimits(total_bytes=1000, free_bytes=0, ratio=1e9)
    message = refusal(tmp_path, bytes(data), limits=limits)
    assert "limit of 1000 unpacked bytes" in message or "damaged" in message
    assert sum(path.stat().st_size for path in (tmp_path / "into").rglob("*")) <= 1000


def test_bytes_and_files_are_counted_over_all_archives(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        (tmp_path / name).write_bytes(zipped({f"{name}-{number}": bytes([number]) * 100 for number in range(4)}))
    so_far = UnpackedTotals()
    unpack(tmp_path / "a.zip", tmp_path / "one", so_far, ArchiveLimits(files=6))
    assert (so_far.files, so_far.bytes) == (4, 400)
    with pytest.raises(DataError, match=r"b\.zip: refused: its member 'b\.zip-2' is one file more than the 6 allowed"):
        unpack(tmp_path / "b.zip", tmp_path / "two", so_far, ArchiveLimits(files=6))
    with pytest.raises(DataError, match=r"member 'b\.zip-1' exceeds the limit of 550 unpacked bytes"):
        unpack(tmp_path / "b.zip", tmp_path / "three", UnpackedTotals(4, 400), ArchiveLimits(total_bytes=550))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_a_file_that_is_not_an_archive_is_reported_in_one_line(tmp_path: Path, name: str) -> None:
    assert "cannot be read as an archive" in refusal(tmp_path, b"<html>sign in first</html>", name)


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.png": b"1", "hurt.png": bytes(range(256)) * 8}))
    data[data.index(b"hurt.png") + 40] ^= 0xFF
    assert "hurt.png' is damaged" in refusal(tmp_path, bytes(data))


def test_a_truncated_tar_is_named(tmp_path: Path) -> None:
    data = tarred({"a.png": bytes(range(256)) * 400})
    assert refusal(tmp_path, data[: len(data) // 2], "cut.tar.gz").startswith("cut.tar.gz: ")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.png": b"1"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    assert "is encrypted" in refusal(tmp_path, bytes(data))


def test_utf8_names_without_the_utf8_flag_are_decoded(tmp_path: Path) -> None:
    data = zipped({"日.png": b"1"})
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.index(signature) + offset
        flags = struct.unpack("<H", data[start : start + 2])[0] & ~0x800
        data = data[:start] + struct.pack("<H", flags) + data[start + 2 :]
    assert unpacked(tmp_path, data) == {"日.png": b"1"}


def tar_header(kind: bytes, content: bytes) -> bytes:
    """Return an extended header with its content."""
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def pax_records(count: int) -> bytes:
    return b"".join(b"12 %06x=1\n" % number for number in range(count))


PLAIN = tar_with(name="a.png", size=3)[:1024]
"""A member without the end of an archive."""


@pytest.mark.parametrize(
    ("headers", "which"),
    [
        (tar_header(tarfile.XHDTYPE, pax_records(100_000)), "its first member"),
        (tar_header(tarfile.GNUTYPE_LONGNAME, b"n" * (2 << 20)), "its first member"),
        (tar_header(tarfile.GNUTYPE_LONGLINK, b"n" * (2 << 20)), "its first member"),
        (PLAIN + tar_header(tarfile.SOLARIS_XHDTYPE, pax_records(100_000)), "the member after 'a.png'"),
        (tar_header(tarfile.XHDTYPE, pax_records(10_000)) * 10, "its first member"),
    ],
)
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_large_headers_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, headers: bytes, which: str, name: str
) -> None:
    sizes: list[int] = []
    for method in ("_proc_pax", "_proc_gnulong"):
        original = getattr(tarfile.TarInfo, method)

        def counted(self: tarfile.TarInfo, archive: tarfile.TarFile, read: Any = original) -> Any:
            sizes.append(self.size)
            return read(self, archive)

        monkeypatch.setattr(tarfile.TarInfo, method, counted)
    data = headers + PLAIN + bytes(1024)
    message = refusal(tmp_path, gzip.compress(data) if name.endswith("gz") else data, name)
    assert f"refused: {which} has extended headers of more than {ROOMY.header_bytes} bytes" in message
    assert sum(sizes) <= ROOMY.header_bytes


def test_global_headers_share_one_limit_because_they_stay_in_memory(tmp_path: Path) -> None:
    members = [tar_with(name=f"{number}.png", size=3)[:1024] for number in range(20)]
    data = b"".join(tar_header(tarfile.XGLTYPE, pax_records(10_000)) + member for member in members) + bytes(1024)
    assert "extended headers of more than" in refusal(tmp_path, data, "a.tar")


def test_usual_headers_are_read(tmp_path: Path) -> None:
    long_name = "/".join(["n" * 200] * 3) + "/\u00e9.png"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as archive:
            for number in range(50):
                info = tarfile.TarInfo(f"{number}/{long_name}")
                info.size = 1
                archive.addfile(info, io.BytesIO(b"x"))
        assert len(unpacked(tmp_path / str(form), buffer.getvalue(), "a.tar.gz")) == 50


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    assert "is a sparse file" in refusal(tmp_path, tar_with(name="s.png", type=tarfile.GNUTYPE_SPARSE), "a.tar")
    (tmp_path / "a.tar").unlink()
    pairs = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s.png", "GNU.sparse.realsize": "99"}
    records = b"".join(pax_record(name, value) for name, value in pairs.items())
    data = tar_header(tarfile.XHDTYPE, records) + tar_with(name="s.png", size=512)
    refusal(tmp_path, data, "a.tar")


def pax_record(name: str, value: str) -> bytes:
    text, length = f" {name}={value}\n", 0
    while length != len(f"{length}{text}"):
        length = len(f"{length}{text}")
    return f"{length}{text}".encode()


def test_folders_count_as_members(tmp_path: Path) -> None:
    folders = [tar_with(name=f"d{number}", type=tarfile.DIRTYPE)[:512] for number in range(30)]
    data = b"".join(folders) + bytes(1024)
    message = refusal(tmp_path, data, "a.tar", ArchiveLimits(files=20))
    assert "'d20' is one file more than the 20 allowed" in message


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "", "C:", "ü"]), min_size=1, max_size=5), st.booleans())
def test_no_member_name_leads_outside_the_folder(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], backslash: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    member = ("\\" if backslash else "/").join([*parts, "x.png"])
    (folder / "a.tar").write_bytes(tar_with(name=member, size=1))
    first = next(part for part in [*parts, "x.png"] if part not in ("", "."))
    refused = ".." in parts or member[0] in "/\\" or first == "C:"
    if refused:
        with pytest.raises(DataError, match="refused: its member"):
            unpack(folder / "a.tar", folder / "deep" / "into", UnpackedTotals(), ROOMY)
    else:
        unpack(folder / "a.tar", folder / "deep" / "into", UnpackedTotals(), ROOMY)
    files = {path for path in folder.rglob("*") if path.is_file()} - {folder / "a.tar"}
    assert len(files) == (0 if refused else 1)
    assert all(path.is_relative_to(folder / "deep" / "into") for path in files)
