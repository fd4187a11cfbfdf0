"""Images are complete as soon as they have their name, written once, and detected when damaged."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from knowgen.core.errors import DataError
from knowgen.core.records import ImageRef
from knowgen.store.images import ImageFolder
from tests.helpers import store_records


def test_an_image_is_named_by_its_digest(tmp_path: Path) -> None:
    images = ImageFolder(tmp_path / "images")
    for kind, ending in (("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")):
        data = store_records.image_bytes(7, kind=kind)
        ref = images.put(data, width=24, height=16, format=kind)
        digest = hashlib.sha256(data).hexdigest()
        assert ref.path == tmp_path / "images" / digest[:2] / f"{digest}.{ending}"
        assert ref.path.read_bytes() == data
        assert images.path(ImageRef(sha256=digest, width=1, height=1, format=kind)) == ref.path
        assert ref.open().size == (24, 16)


def test_a_good_file_is_not_written_again_and_a_damaged_one_is(tmp_path: Path) -> None:
    images = ImageFolder(tmp_path)
    data = store_records.image_bytes(1)
    ref = images.put(data, width=24, height=16, format="PNG")
    assert ref.path is not None
    before = ref.path.stat()
    images.put(data, width=24, height=16, format="PNG")
    assert (ref.path.stat().st_ino, ref.path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    for damage in (data[:-1], data + b"x", b"", data[:20] + b"?" + data[21:]):
        ref.path.write_bytes(damage)
        assert not images.ok(ref)
        images.put(data, width=24, height=16, format="PNG")
        assert images.ok(ref) and ref.path.read_bytes() == data
    ref.path.unlink()
    assert not images.ok(ref)


def test_a_file_is_renamed_only_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def watched(part: str, name: str) -> None:
        assert not Path(name).exists()
        seen.append(Path(part).read_bytes())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", watched)
    with pytest.raises(DataError, match="disk is full"):
        ImageFolder(tmp_path).put(store_records.image_bytes(), width=24, height=16, format="PNG")
    assert seen == [store_records.image_bytes()]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_threads_may_store_the_same_image(tmp_path: Path) -> None:
    images = ImageFolder(tmp_path)
    data = store_records.image_bytes(3, (200, 200))
    threads = [
        threading.Thread(target=images.put, args=(data,), kwargs={"width": 200, "height": 200, "format": "PNG"})
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in files] == [data]


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n", "/" + "a" * 63])
def test_a_record_cannot_lead_out_of_the_folder(tmp_path: Path, digest: str) -> None:
    with pytest.raises(DataError, match="not a SHA-256"):
        ImageFolder(tmp_path).path(ImageRef(sha256=digest, width=1, height=1, format="PNG"))


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"format '\.\./x' is not one of PNG, JPEG, WEBP"):
        ImageFolder(tmp_path).put(b"data", width=1, height=1, format="../x")


def test_partial_files_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    images = ImageFolder(tmp_path)
    ref = images.put(store_records.image_bytes(), width=24, height=16, format="PNG")
    (tmp_path / ".part" / "123-0").write_bytes(b"half")
    images.sweep()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [ref.path.name if ref.path else ""]
    images.put(store_records.image_bytes(9), width=24, height=16, format="PNG")
