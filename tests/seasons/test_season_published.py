"""What a private season publishes: enough to take part, and nothing from which seed or ground truth could be had."""

from __future__ import annotations

import random
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from knowgen.core.errors import ConfigError, DataError, KnowgenError, UsageError
from knowgen.leaderboards.folder import read_board
from knowgen.leaderboards.season import SECRET_FILE, commitment_of, read_secret
from knowgen.search.leaks import MAX_DISTANCE, image_hashes
from knowgen.seasons import publish as publishing
from knowgen.seasons.publish import SeasonPlaces, publish
from knowgen.tasks.load import load_task
from knowgen.validation.task import check_task
from knowgen.worlds.build import build_world
from knowgen.worlds.content.samples import sample_id
from knowgen.worlds.content.seeds import draw_secret, layout_key
from knowgen.worlds.perturbations.originals import read_original
from knowgen.worlds.search import WorldSearch
from knowgen.worlds.season import publish_world
from knowgen.worlds.shard import make_shard
from tests.helpers.seasons import NAME, SAMPLES, SECRET, Season, fixed, places_in, private_folder


def files_of(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_public_folder_has_prompts_and_corpus_and_no_other_file(season: Season) -> None:
    names = files_of(season.places.public)
    pictures = {name for name in names if name.startswith("search/pictures/")}
    assert set(names) - pictures == {
        "season.yaml", "task.yaml", "samples.jsonl", "search/pages.jsonl", "search/pictures.jsonl",
    }  # fmt: skip
    assert len(pictures) > 100 and all(name.endswith(".webp") for name in pictures)
    assert list(season.public.samples()) == list(season.truths.samples())
    assert WorldSearch(str(season.places.public / "search")).version == season.truths.search_version


def test_no_public_file_has_seed_nonce_or_anything_of_a_truth(season: Season) -> None:
    secrets = [SECRET.seed, SECRET.nonce, str(int(SECRET.seed, 16))]
    for sample in season.truths.samples():
        truth = season.truths.truth(sample.id)
        assert truth.image is not None
        secrets += [truth.image.sha256, str(truth.extra["layout"]), layout_key(SECRET.seed, sample.id)]
    sought = [bytes.fromhex(SECRET.seed), *(each.encode() for each in secrets)]
    for folder in (season.places.public, season.places.board):
        for name, path in files_of(folder).items():
            data = path.read_bytes()
            assert not [each for each in sought if each in data], name
            assert b'"look' not in data and b"hops" not in data, name


def test_no_image_of_the_corpus_is_or_looks_like_a_truth(season: Season) -> None:
    truths = [season.truths.truth(sample.id).image for sample in season.truths.samples()]
    hashes = [bits(one) for image in truths if image is not None for one in image_hashes(image.path or Path())]
    known = {image.sha256 for image in truths if image is not None}
    for path in sorted((season.places.public / "search" / "pictures").iterdir())[::5]:
        assert all((bits(one) != truth).sum() > MAX_DISTANCE for one in image_hashes(path) for truth in hashes)
    rows = (season.places.public / "search" / "pictures.jsonl").read_text()
    assert not [digest for digest in known if digest in rows]


def bits(data: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(data, np.uint8))


def test_files_have_one_time_and_images_no_metadata(season: Season) -> None:
    """The time at which an image was drawn would tell whether it shows a subject or one that looks alike."""
    paths = [season.places.public, *season.places.public.rglob("*")]
    assert len({path.stat().st_mtime_ns for path in paths}) == 1
    for path in (season.places.public / "search" / "pictures").iterdir():
        with Image.open(path) as image:
            assert set(image.info) <= {"loop", "background", "timestamp", "duration"} and not image.getexif()


def test_publishing_the_same_world_again_gives_the_same_bytes(season: Season, tmp_path: Path) -> None:
    text = (season.places.public / "season.yaml").read_text()
    publish_world(season.places.private / "world", tmp_path / "again", {"season.yaml": text})
    before, after = files_of(season.places.public), files_of(tmp_path / "again")
    assert {name: path.read_bytes() for name, path in after.items()} == {
        name: path.read_bytes() for name, path in before.items()
    }
    assert {path.stat().st_mtime_ns for path in after.values()} == {path.stat().st_mtime_ns for path in before.values()}


def test_trying_numbers_finds_the_seed_of_a_common_world_and_not_that_of_a_season(season: Season) -> None:
    def found(ids: list[str], tried: range) -> list[int]:
        return [seed for seed in tried if sample_id(seed, 0, "astronomy") in ids]

    common = [plan.sample.id for plan in make_shard(1207, 0).samples]
    assert found(common, range(2000)) == [1207]
    ids = [sample.id for sample in season.public.samples()]
    assert ids[0] == sample_id(SECRET.seed, 0, "astronomy") and found(ids, range(2000)) == []
    assert len(bytes.fromhex(draw_secret())) * 8 == 256 and draw_secret() != draw_secret()


def test_no_random_stream_is_keyed_by_the_secret_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of a stream, and with it its key, can be worked out from enough of what is drawn from it."""
    keys: list[str] = []

    class Watched(random.Random):
        def __init__(self, key: Any = None) -> None:
            keys.append(str(key))
            super().__init__(key)

    monkeypatch.setattr(random, "Random", Watched)
    first, second = make_shard(SECRET.seed, 0), make_shard(SECRET.seed, 1)
    assert first.samples != second.samples and first == make_shard(SECRET.seed, 0)
    assert len(set(keys)) > 90
    assert not [key for key in keys if SECRET.seed in key or str(int(SECRET.seed, 16)) in key]


def test_the_layout_of_a_truth_does_not_follow_from_what_is_public(season: Season) -> None:
    sample = next(season.truths.samples())
    truth = season.truths.truth(sample.id)
    original = read_original(sample, truth)
    original.rerender()  # raises unless it is the stored image
    guessed = original.compose(layout_seed=layout_key(0, sample.id)).image
    assert not np.array_equal(np.asarray(guessed), np.asarray(original.open_stored_image()))


@pytest.mark.parametrize("seed", ["7", "0" * 64, "ab" * 32, "A" * 64, "", fixed("seed")[:32]])
def test_a_secret_seed_that_could_be_guessed_is_refused_and_not_repeated(tmp_path: Path, seed: str) -> None:
    with pytest.raises(UsageError, match="secret seed") as caught:
        build_world(tmp_path / "world", seed, 1)
    assert len(seed) < 2 or seed not in str(caught.value)


def test_the_seed_is_on_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[str] = []
    start = subprocess.Popen

    def started(command: list[str], **settings: Any) -> Any:
        commands.append(" ".join(command))
        return start([sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit('stopped')"], **settings)

    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(ConfigError, match="a worker failed: stopped"):
        build_world(tmp_path / "world", SECRET.seed, 48, workers=2)
    assert len(commands) == 2 and not [each for each in commands if SECRET.seed in each]


def test_the_version_is_the_same_with_and_without_truths_and_follows_the_commitment(
    season: Season, tmp_path: Path
) -> None:
    assert season.public.version == season.truths.version and season.public.private_truths
    copy = season.copied_to(tmp_path)
    file = copy.places.public / "task.yaml"
    file.write_text(file.read_text().replace(commitment_of(SECRET), fixed("another")))
    assert load_task(str(copy.places.public)).version != season.public.version


def test_the_commitment_depends_on_every_part_of_the_secret() -> None:
    other: dict[str, Any] = {"name": "autumn", "samples": 4, "world": 9, "seed": fixed("a"), "nonce": fixed("b")}
    commitments = {commitment_of(SECRET.model_copy(update={name: value})) for name, value in other.items()}
    assert len(commitments | {commitment_of(SECRET)}) == 6


def test_the_secret_is_shown_to_its_owner_alone(season: Season, tmp_path: Path) -> None:
    path = season.places.private / SECRET_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read_secret(path) == SECRET and SECRET.seed not in repr(SECRET)
    copy = season.copied_to(tmp_path)
    for place in (copy.places.private / SECRET_FILE, copy.places.private):
        mode = place.stat().st_mode
        place.chmod(0o755)
        with pytest.raises(UsageError, match="others on this machine may read it"):
            read_secret(copy.places.private / SECRET_FILE)
        place.chmod(mode)


def test_the_board_has_the_prompts_and_no_hash_of_a_truth(season: Season) -> None:
    board = read_board(season.places.board)
    assert [each.prompt for each in board.samples] == [sample.prompt for sample in season.public.samples()]
    assert all(each.truth is None for each in board.samples)
    assert board.file.season == "season.yaml" and board.file.task.version == season.public.version


def test_an_interrupted_publication_is_completed_with_the_same_secret(
    tmp_path: Path, season: Season, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = places_in(tmp_path)
    private_folder(places)
    copy_of_world(season, monkeypatch)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(publishing, "publish_world", stopped)
        with pytest.raises(KeyboardInterrupt):
            publish(places, NAME, SAMPLES)
    assert not places.board.exists() and not places.public.exists()
    assert publish(places, NAME, SAMPLES).commitment == commitment_of(SECRET)
    assert publish(places, NAME, SAMPLES).commitment == commitment_of(SECRET)
    with pytest.raises(UsageError, match="was published with closes '', not '2027-05-01'"):
        publish(places, NAME, SAMPLES, closes="2027-05-01")


def copy_of_world(season: Season, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the world of a season in place of building it, which takes seconds."""
    import shutil

    def built(out: Path, *_: object, **__: object) -> Path:
        return Path(shutil.copytree(season.places.private / "world", out))

    monkeypatch.setattr(publishing, "build_world", built)


def test_folders_that_belong_to_something_else_are_refused(season: Season, tmp_path: Path) -> None:
    places = season.places
    with pytest.raises(UsageError, match="the private folder is inside the public folder"):
        SeasonPlaces(places.public, places.board, places.public / "private")
    with pytest.raises(UsageError, match="3 samples"):
        publish(places, NAME, SAMPLES + 1)
    with pytest.raises(UsageError, match="has content that is not this season's"):
        publish(SeasonPlaces(places.public, tmp_path / "board", tmp_path / "private"), NAME, SAMPLES)
    assert not (tmp_path / "private").exists(), "no secret is drawn for a season that cannot be published"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(KnowgenError, match="has content that is not a season"):
        publish(SeasonPlaces(tmp_path / "a", tmp_path / "b", tmp_path / "other"), NAME, SAMPLES)


def test_what_asks_the_published_task_for_a_ground_truth_gets_an_error_and_no_empty_one(season: Season) -> None:
    sample = next(season.public.samples())
    with pytest.raises(DataError, match="task spring: the ground truths are private until they are revealed"):
        season.public.truth(sample.id)


def test_the_published_task_passes_its_check(season: Season) -> None:
    findings = check_task(season.public)
    assert "fail" not in {each.level for each in findings}
    assert [each.what for each in findings if each.check == "truths"] == [
        "private until they are revealed: images are generated, and scored by those who hold them"
    ]
