"""Content of a built world, and its independence of how it is built."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.records import GROUPS
from knowgen.tasks.folder import FolderTask
from knowgen.worlds import build, shard_files
from knowgen.worlds.build import build_world
from knowgen.worlds.rendering.appearance import FAMILIES, Appearance, visible_difference
from knowgen.worlds.shard import make_shard
from knowgen.worlds.shard_files import render_truth
from knowgen.worlds.task import MINI_SAMPLES, MINI_SEED, knowgen_mini
from tests.helpers.built_world import BuiltWorld, rows_of

CATEGORIES = [category for members in GROUPS.values() for category in members]
COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ADDED = re.compile(r"took place in (\d{4}); (\w+) years later")


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_one_of_each_category_comes_first_then_the_second_of_each(built_world: BuiltWorld) -> None:
    samples = list(built_world.task.samples())
    assert [sample.category for sample in samples] == CATEGORIES * 2
    assert all(sample.category in GROUPS[sample.group] for sample in samples)


def test_difficulties_come_in_thirds_and_some_samples_are_textless(built_world: BuiltWorld) -> None:
    samples = list(built_world.task.samples())
    assert Counter(sample.difficulty for sample in samples) == {"easy": 16, "medium": 16, "hard": 16}
    assert sum(sample.text_required is False for sample in samples) == 7
    for sample in samples:
        truth = built_world.task.truth(sample.id)
        assert bool(truth.required_text) == sample.text_required == truth.text_required
        assert truth.extra["scene"] and truth.extra["surface"]


def test_ids_and_prompts_are_distinct_and_ids_are_opaque(built_world: BuiltWorld) -> None:
    samples = list(built_world.task.samples())
    assert len({sample.id for sample in samples}) == len({sample.prompt for sample in samples}) == 48
    assert all(re.fullmatch(r"[0-9a-f]{16}", sample.id) for sample in samples)
    assert all(re.fullmatch(r"[0-9a-f]{16}\.webp", Path(row["file"]).name) for row in image_rows(built_world))


def image_rows(world: BuiltWorld) -> list[dict[str, str]]:
    return rows_of(world.folder / "search" / "pictures.jsonl")


def test_prompts_stay_distinct_over_many_shards() -> None:
    prompts = [plan.sample.prompt for shard in range(10) for plan in make_shard(31, shard).samples]
    assert len(set(prompts)) == len(prompts) == 240
    openings = Counter(prompt[:14] for prompt in prompts)
    assert len(openings) > 20


def test_appearances_come_from_all_families(built_world: BuiltWorld) -> None:
    family_of = {kind: family for family, kinds in FAMILIES.items() for kind in kinds}
    kinds = [
        subject["look"]["kind"] for row in rows_of(built_world.folder / "truth.jsonl") for subject in row["subjects"]
    ]
    assert len({family_of[kind] for kind in kinds}) >= 4


def test_every_subject_has_a_visibly_different_distractor(built_world: BuiltWorld) -> None:
    for row in rows_of(built_world.folder / "truth.jsonl"):
        assert row["subjects"]
        for subject in row["subjects"]:
            right, other = Appearance.from_dict(subject["look"]), Appearance.from_dict(subject["look_alike"])
            assert right.kind == other.kind
            assert visible_difference(right, other) >= 0.07


def test_every_required_fact_is_in_the_evidence(built_world: BuiltWorld) -> None:
    pages = {row["url"]: row for row in rows_of(built_world.folder / "search" / "pages.jsonl")}
    facts = 0
    for sample in built_world.task.samples():
        truth = built_world.task.truth(sample.id)
        text = "\n".join(f"{pages[url]['title']}\n{pages[url]['text']}" for url in truth.evidence)
        sums = {str(int(year) + COUNTS.index(count)) for year, count in ADDED.findall(text)}
        for value in truth.required_text:
            if f'"{value}"' in sample.prompt:
                continue
            facts += 1
            assert value in sums or re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text), (sample.prompt, value)
    assert facts > 60


def test_evidence_leads_from_a_name_in_the_prompt_over_links_to_the_subject(built_world: BuiltWorld) -> None:
    pages = {row["url"]: row for row in rows_of(built_world.folder / "search" / "pages.jsonl")}
    followed = 0
    for sample in built_world.task.samples():
        truth = built_world.task.truth(sample.id)
        if len(truth.subjects) > 1:
            continue
        chain = [pages[url] for url in truth.evidence[: truth.extra["hops"][0]]]
        assert chain[0]["title"] in sample.prompt
        assert chain[-1]["title"] == truth.subjects[0]["name"]
        assert (chain[-1]["title"] in sample.prompt) == (len(chain) == 1)
        for page, following in itertools.pairwise(chain):
            followed += 1
            assert following["url"] in {link["url"] for link in page["links"]}
    assert followed > 20


def test_titles_contain_no_figure_and_no_label(built_world: BuiltWorld) -> None:
    titles = [
        row["title"]
        for name in ("pages", "pictures")
        for row in rows_of(built_world.folder / "search" / f"{name}.jsonl")
    ]
    assert not any(character.isdigit() for title in titles for character in title)
    everything = "\n".join(titles)
    labels = [entity.label for number in range(2) for plan in make_shard(built_world.seed, number).samples
              for entity in plan.subjects]  # fmt: skip
    assert len(labels) >= 48
    assert not any(label in everything for label in labels)


def test_pages_have_unique_urls_on_reserved_hosts_and_no_dead_links(built_world: BuiltWorld) -> None:
    rows = rows_of(built_world.folder / "search" / "pages.jsonl")
    urls = {row["url"] for row in rows}
    assert len(urls) == len(rows)
    assert all(re.fullmatch(r"https://[a-z]+\.example/[a-z0-9-]+", url) for url in urls)
    for row in rows:
        for link in row["links"]:
            assert link["url"] in urls
            assert link["text"] in row["text"]
        assert not re.search(r"[\[\]{}<>]", row["text"]), "prose, without marks of its own"
    assert all(row["page_url"] in urls for row in image_rows(built_world))


def test_image_files_match_their_rows(built_world: BuiltWorld) -> None:
    truths = rows_of(built_world.folder / "truth.jsonl")
    images = rows_of(built_world.folder / "search" / "pictures.jsonl")
    listed = [(row["image_file"], row["image"]) for row in truths]
    listed += [(f"search/{row['file']}", row["image"]) for row in images]
    for file, image in listed:
        data = (built_world.folder / file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == image["sha256"]
        assert data[12:16] == b"VP8L", "lossless WebP"
    with Image.open(built_world.folder / truths[0]["image_file"]) as opened:
        assert (opened.size, opened.mode) == ((768, 512), "RGB")
    on_disk = {path.name for path in (built_world.folder / "search" / "pictures").iterdir()}
    assert on_disk == {Path(row["file"]).name for row in images}


def test_harder_subjects_have_more_images_with_misleading_titles() -> None:
    misleading, all_of = Counter[str](), Counter[str]()
    for number in range(8):
        shard = make_shard(5, number)
        shown = {
            image.appearance: [p for p in shard.images if p.appearance == image.appearance] for image in shard.images
        }
        for plan in shard.samples:
            for subject in plan.subjects:
                assert subject.distractor is not None
                all_of[plan.sample.difficulty] += 1
                misleading[plan.sample.difficulty] += any(
                    subject.name in p.title for p in shown[subject.distractor.appearance]
                )
    rates = [misleading[word] / all_of[word] for word in ("easy", "medium", "hard")]
    assert rates == sorted(rates) and rates[0] < 0.5 < rates[2]


FINGERPRINT = """
import hashlib, sys
from knowgen.worlds.content.search_images import render_search_image
from knowgen.worlds.shard import make_shard
from knowgen.worlds.shard_files import render_truth
shard = make_shard(13, int(sys.argv[1]))
digest = hashlib.sha256(repr((shard.samples, shard.pages, shard.images)).encode())
for image in shard.images[:6]:
    digest.update(render_search_image(image).tobytes())
digest.update(render_truth(shard.samples[0]).tobytes())
print(digest.hexdigest())
"""


def test_a_shard_is_the_same_under_every_hash_seed() -> None:
    prints = []
    for hash_seed, shard in (("0", "1"), ("4242", "1"), ("0", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", FINGERPRINT, shard]
        prints.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.slow
def test_a_world_does_not_depend_on_process_hash_seed_and_worker_count(tmp_path: Path) -> None:
    """Rows and images of two shards, built by one and by two processes with different hash seeds."""
    script = "import sys; from pathlib import Path; from knowgen.worlds.build import build_world; "
    script += "build_world(Path(sys.argv[1]), 13, 26, name='same', workers=int(sys.argv[2]))"
    for hash_seed, workers in (("0", 1), ("4242", 2)):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", script, str(tmp_path / f"by{workers}"), str(workers)]
        subprocess.run(command, env=environment, check=True, cwd=tmp_path)
    one, two = files_of(tmp_path / "by1"), files_of(tmp_path / "by2")
    assert one == two
    assert len(rows_of(tmp_path / "by1" / "samples.jsonl")) == 26
    assert not list((tmp_path / "by1").glob(".*")) and not list(tmp_path.glob(".*"))


def test_a_smaller_world_is_the_beginning_of_a_larger_one(built_world: BuiltWorld, tmp_path: Path) -> None:
    small = FolderTask(build_world(tmp_path / "small", built_world.seed, 5))
    assert list(small.samples()) == list(built_world.task.samples())[:5]
    for sample in small.samples():
        assert small.truth(sample.id).model_dump() == built_world.task.truth(sample.id).model_dump()


@pytest.mark.parametrize("content", ["notes.txt", "samples.jsonl"])
def test_a_folder_with_other_content_is_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / content).write_text("mine")
    with pytest.raises(ConfigError, match="not a world"):
        build_world(tmp_path, 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == [content]


def test_an_existing_file_at_the_path_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        build_world(tmp_path / "here", 1, 1)


def test_an_existing_world_is_replaced_only_after_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def write_three_files(folder: Path, seed: int, samples: int, workers: int) -> None:
        seeds.append(seed)
        if seed == 3:
            raise OSError(28, "No space left on device")
        for file in shard_files.ROW_FILES:
            shard_files.part_path(folder, file, 0).write_text(f"{seed}\n")

    monkeypatch.setattr(build, "_write_shards", write_three_files)
    out = tmp_path / "deep" / "world"
    build_world(out, 1, 1)
    build_world(out, 2, 1)
    assert (out / "samples.jsonl").read_text() == "2\n"
    with pytest.raises(ConfigError, match="No space left"):
        build_world(out, 3, 1)
    assert (out / "samples.jsonl").read_text() == "2\n"
    assert seeds == [1, 2, 3]
    assert [path.name for path in out.parent.iterdir()] == ["world"], "no drafts are left behind"


def test_a_failed_worker_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_files, "__name__", "knowgen.worlds.no_such_module")
    with pytest.raises(ConfigError, match="a worker failed: .*no_such_module"):
        build_world(tmp_path / "world", 1, 48, workers=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("seed", "samples", "workers"), [(-1, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_numbers_out_of_range_are_errors(tmp_path: Path, seed: int, samples: int, workers: int) -> None:
    with pytest.raises(UsageError):
        build_world(tmp_path / "world", seed, samples, workers=workers)


def test_the_bundled_task_is_complete_and_small() -> None:
    task = knowgen_mini()
    samples = list(task.samples())
    assert task.name == "knowgen_mini" and len(task) == MINI_SAMPLES == 48
    assert [sample.category for sample in samples] == CATEGORIES * 2
    assert sum(path.stat().st_size for path in task.path.rglob("*") if path.is_file()) <= 12e6
    assert task.default_scorers == ("world_check",)
    assert task.search == f"world:{task.path / 'search'}"
    for sample in samples:
        image = task.truth(sample.id).image
        assert image is not None and image.path is not None
        assert hashlib.sha256(image.path.read_bytes()).hexdigest() == image.sha256


def test_the_bundled_task_equals_a_new_build() -> None:
    task, shards = knowgen_mini(), [make_shard(MINI_SEED, number) for number in range(2)]
    assert list(task.samples()) == [plan.sample for shard in shards for plan in shard.samples]
    pages = rows_of(task.path / "search" / "pages.jsonl")
    assert pages == [page.model_dump(mode="json") for shard in shards for page in shard.pages]


def test_the_bundled_ground_truths_are_rendered_by_this_code() -> None:
    """Compared with a tolerance, since versions of Pillow render fonts slightly differently."""
    task = knowgen_mini()
    for number in range(2):
        for plan in make_shard(MINI_SEED, number).samples[::4]:
            image = task.truth(plan.sample.id).image
            assert image is not None
            shipped = np.asarray(image.open().convert("RGB")).astype(int)
            assert np.abs(shipped - np.asarray(render_truth(plan).convert("RGB"))).mean() < 2
