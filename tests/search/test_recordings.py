"""What a backend answered is recorded, and repeated byte for byte without it."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import shutil
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from knowgen.core.errors import ConfigError, DataError, NotRecordedError, TransientError, UsageError
from knowgen.core.leaks import current_leak_guard
from knowgen.search.contract import BlockReason, PageBlockedError, SearchBackend
from knowgen.search.recorded.backends import RecordSearch, ReplaySearch
from tests.helpers.listed_search import PICTURE, ListedSearch, SecondSearch

T = TypeVar("T")
ONE, TWO = (f"tests.helpers.listed_search:{each.__name__}" for each in (ListedSearch, SecondSearch))


@pytest.fixture(autouse=True)
def made() -> Iterator[list[ListedSearch]]:
    ListedSearch.made.clear()
    yield ListedSearch.made


async def everything(backend: SearchBackend) -> list[Any]:
    """Return what a backend answers to some calls, errors included, as plain data."""
    seen: list[Any] = []
    for query in ("boats", "ships \u2028 at sea", "boats"):
        seen.append([hit.model_dump(mode="json") for hit in await backend.search(query, 2)])
        images = await backend.image_search(query, 3)
        seen.append([hit.model_dump(mode="json") for hit in images])
        seen.append([hit.image.path.read_bytes() for hit in images if hit.image is not None and hit.image.path])
    for name in ("a", "gone", "robots"):
        url = f"http://site.example/{name}"
        try:
            seen.append((await backend.open(url)).model_dump(mode="json"))
        except (DataError, PageBlockedError) as error:
            seen.append((type(error).__name__, str(error), getattr(error, "reason", None)))
    return seen


def run(backend: RecordSearch | ReplaySearch, main: Callable[[SearchBackend], Awaitable[T]]) -> T:
    async def closing() -> T:
        try:
            return await main(backend)
        finally:
            await backend.close()

    return asyncio.run(closing())


def recorded(path: Path) -> list[Any]:
    return run(RecordSearch(f"{path},{ONE}"), everything)


def test_a_replay_answers_what_was_recorded_byte_for_byte(tmp_path: Path, made: list[ListedSearch]) -> None:
    file = tmp_path / "runs" / "web.jsonl"
    first = recorded(file)
    assert made[0].closed and len(made) == 1
    moved = tmp_path / "elsewhere"
    shutil.move(file.parent, moved)
    assert run(ReplaySearch(str(moved / "web.jsonl")), everything) == first and len(made) == 1
    assert PICTURE.read_bytes() in first[2]


def test_a_recording_may_be_one_zip_file_with_the_same_version(tmp_path: Path) -> None:
    file = tmp_path / "web.jsonl"
    first = recorded(file)
    with zipfile.ZipFile(tmp_path / "web.zip", "w") as archive:
        for path in (file, *(tmp_path / "web.jsonl.images").iterdir()):
            archive.write(path, f"some/folder/{path.relative_to(tmp_path)}")
    unpacked, packed = ReplaySearch(str(file)), ReplaySearch(str(tmp_path / "web.zip"))
    assert packed.version == unpacked.version and len(packed.version) == 12
    assert run(packed, everything) == first
    asyncio.run(unpacked.close())
    assert not (tmp_path / "some").exists()


def test_a_call_is_asked_once_and_a_stopped_recording_goes_on(tmp_path: Path, made: list[ListedSearch]) -> None:
    file = tmp_path / "web.jsonl"

    async def at_once(backend: SearchBackend) -> None:
        await asyncio.gather(*(backend.search("boats", 2) for _ in range(5)), backend.search("boats", 3))

    run(RecordSearch(f"{file},{ONE}"), at_once)
    assert made[0].calls == ["search boats", "search boats"], "one for each number of results"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])  # killed while the last line was written
    run(RecordSearch(f"{file},{ONE}"), at_once)
    assert made[1].calls == ["search boats"] and file.read_bytes() == whole
    file.write_bytes(whole + b'{"call": ["open"')
    assert run(ReplaySearch(str(file)), lambda backend: backend.search("boats", 3))


def test_what_fails_for_a_while_is_not_recorded(tmp_path: Path, made: list[ListedSearch]) -> None:
    backend = RecordSearch(f"{tmp_path}/web.jsonl,{ONE}")
    made[0].answers["search"] = TransientError("answered 503")
    with pytest.raises(TransientError):
        run(backend, lambda each: each.search("boats"))
    replay = ReplaySearch(f"{tmp_path}/web.jsonl")
    with pytest.raises(NotRecordedError, match=r"search\('boats', 5\) was not recorded; run the same system") as caught:
        run(replay, lambda each: each.search("boats"))
    assert caught.value.where == f"{tmp_path}/web.jsonl"


def record_in_process(path: str, number: int) -> None:
    async def main() -> None:
        backend = RecordSearch(f"{path},{ONE}")
        for query in [f"shared {n}" for n in range(15)] + [f"own {number} {n}" for n in range(15)]:
            await backend.search(query)
            await backend.image_search(query)
        await backend.close()

    asyncio.run(main())


def test_several_processes_record_into_one_file(tmp_path: Path) -> None:
    path = str(tmp_path / "web.jsonl")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=record_in_process, args=(path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    calls = [json.loads(line).get("call") for line in Path(path).read_text("utf-8").splitlines()]
    assert calls[0] is None and len(calls) == 1 + 2 * (15 + 3 * 15)
    assert len({json.dumps(call) for call in calls}) == len(calls)


def test_the_version_of_a_replay_is_that_of_its_content(tmp_path: Path) -> None:
    recorded(tmp_path / "a.jsonl")
    recorded(tmp_path / "b.jsonl")
    assert ReplaySearch(f"{tmp_path}/a.jsonl").version == ReplaySearch(f"{tmp_path}/b.jsonl").version
    run(RecordSearch(f"{tmp_path}/b.jsonl,{ONE}"), lambda each: each.search("more"))
    assert ReplaySearch(f"{tmp_path}/a.jsonl").version != ReplaySearch(f"{tmp_path}/b.jsonl").version
    assert RecordSearch(f"{tmp_path}/b.jsonl,{ONE}").version == f"{ONE}@one-1"


class Guard:
    """A leak guard that blocks one site and all images."""

    def blocked_url(self, url: str) -> str:
        return "it is the benchmark's own data" if "one.example/boats/0" in url or url.endswith("/a") else ""

    def blocked_image(self, image: object) -> str:
        return "it is a ground-truth image"


def test_the_leak_guard_is_asked_about_what_was_recorded_without_it(tmp_path: Path) -> None:
    recorded(tmp_path / "web.jsonl")
    token = current_leak_guard.set(Guard())
    try:
        for backend in (ReplaySearch(f"{tmp_path}/web.jsonl"), RecordSearch(f"{tmp_path}/web.jsonl,{ONE}")):

            async def main(each: SearchBackend) -> None:
                hits = await each.search("boats", 2)
                assert [hit.blocked for hit in hits] == [BlockReason.LEAK, None]
                (image, failed) = await each.image_search("boats", 3)
                assert image.image is None and image.blocked is BlockReason.LEAK and failed.blocked is None
                with pytest.raises(PageBlockedError):
                    await each.open("http://site.example/a")

            run(backend, main)
    finally:
        current_leak_guard.reset(token)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "is not a recording"),
        ("not json\n", "is not JSON"),
        ("[1]\n", "is not a recording"),
        ('{"format": "knowgen search recording", "version": 9}\n', "version 9, and 1 is known"),
        ('{"format": "knowgen search recording", "version": 1}\n{"hits": []}\n', "has no call"),
        ('{"format": "knowgen search recording", "version": 1}\n{broken\n', "web.jsonl:2: is not JSON"),
    ],
)
def test_another_file_is_named_with_the_line(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "web.jsonl").write_text(content)
    with pytest.raises(DataError, match=match):
        ReplaySearch(f"{tmp_path}/web.jsonl")


def test_images_are_taken_from_the_recordings_folder_alone_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "web.jsonl"
    recorded(file)
    (stored,) = (tmp_path / "web.jsonl.images").iterdir()

    def images() -> list[Any]:
        return list(run(ReplaySearch(str(file)), lambda each: each.image_search("boats", 3)))

    stored.write_bytes(PICTURE.read_bytes() + b"x")
    with pytest.raises(DataError, match="was changed"):
        images()
    stored.unlink()
    with pytest.raises(DataError, match="is missing"):
        images()
    secret = tmp_path / "secret.png"
    secret.write_bytes(PICTURE.read_bytes())
    digest = stored.name.partition(".")[0]
    file.write_text(file.read_text().replace(digest, "../secret"))
    with pytest.raises(DataError, match="is not the name of an image"):
        images()


def test_a_zip_file_unpacks_nothing_outside(tmp_path: Path) -> None:
    recorded(tmp_path / "web.jsonl")
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "web.zip", "w") as archive:
        archive.write(tmp_path / "web.jsonl", "../../evil.jsonl")
        for path in (tmp_path / "web.jsonl.images").iterdir():
            archive.write(path, f"/tmp/../{tmp_path}/out/{path.name}")
    assert run(ReplaySearch(f"{inside}/web.zip"), everything)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "web.jsonl", "web.jsonl.images"]
    with zipfile.ZipFile(inside / "two.zip", "w") as archive:
        archive.writestr("a.jsonl", "")
        archive.writestr("b.jsonl", "")
    with pytest.raises(DataError, match="has 2 files beside the images"):
        ReplaySearch(f"{inside}/two.zip")
    (inside / "no.zip").write_text("not a zip file")
    with pytest.raises(ConfigError, match="cannot be read"):
        ReplaySearch(f"{inside}/no.zip")


def test_looking_at_a_recording_leaves_nothing_behind(tmp_path: Path) -> None:
    backend = RecordSearch(f"{tmp_path}/new.jsonl,{ONE}")
    assert backend.version and not list(tmp_path.iterdir())
    run(backend, lambda each: each.search("boats"))
    assert [path.name for path in tmp_path.iterdir()] == ["new.jsonl"]


def test_a_recording_says_what_is_wrong_with_its_name(tmp_path: Path) -> None:
    for model in ("web.jsonl", ",serper", "web.jsonl,"):
        with pytest.raises(UsageError, match="write record:FILE,NAME"):
            RecordSearch(model)
    with pytest.raises(DataError, match="the file does not exist"):
        ReplaySearch(f"{tmp_path}/missing.jsonl")
    recorded(tmp_path / "web.jsonl")
    with pytest.raises(ConfigError, match="has the answers of the backend"):
        RecordSearch(f"{tmp_path}/web.jsonl,{TWO}")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="cannot be written: Is a directory"):
        RecordSearch(f"{tmp_path}/folder,{ONE}")
    with pytest.raises(UsageError, match="it takes label, options"):
        RecordSearch(f"{tmp_path}/new.jsonl,{ONE}", country="de")
    assert not (tmp_path / "new.jsonl").exists()
