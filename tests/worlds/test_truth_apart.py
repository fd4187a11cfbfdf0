"""A generator that searches is handed a backend, and nothing that names a folder with ground truths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from knowgen.cli.main import run
from knowgen.core.errors import UsageError
from knowgen.tasks.load import load_task
from knowgen.worlds.search import WorldSearch
from tests.helpers.built_world import BuiltWorld

CURIOUS = """
import json
from pathlib import Path
from PIL import Image

class Curious:
    revision = "1"
    wants_search = True

    def __init__(self, search):
        self.search = search

    def draw(self, prompt, references, seed):
        public = {name: str(getattr(self.search, name)) for name in dir(self.search) if not name.startswith("_")}
        Path("seen.json").write_text(json.dumps({"search": str(self.search), **public}))
        return Image.new("RGB", (32, 32))

class Follows:
    revision = "1"
    wants_search = True

    def __init__(self, search):
        self.search = search

    async def generate(self, request):
        from knowgen.plugin import GeneratedImage

        titles = [page.title for page in await self.search.search(request.prompt, 8)]
        paths = [hit.image.path.resolve() for title in titles for hit in await self.search.image_search(title, 8)]
        above = {folder for path in paths for folder in path.parents[:3]}
        found = [str(file) for folder in above for file in folder.glob("*") if "truth" in file.name]
        Path("seen.json").write_text(json.dumps({"paths": [str(path) for path in paths], "found": found}))
        return GeneratedImage(image=Image.new("RGB", (32, 32)), request_id=request.id)
"""


def test_the_material_of_a_search_has_a_folder_of_its_own(built_world: BuiltWorld) -> None:
    assert {path.name for path in (built_world.folder / "search").iterdir()} == {
        "pages.jsonl", "pictures", "pictures.jsonl"
    }  # fmt: skip
    for task in (built_world.task, load_task("knowgen_mini")):
        folder = Path(task.search.partition(":")[2])
        assert folder.name == "search"
        assert not [path for path in folder.rglob("*") if "truth" in path.name or "samples" in path.name]


def test_the_version_of_the_bundled_task_and_of_its_search_stay_what_they_were() -> None:
    task = load_task("knowgen_mini")
    assert (task.version, task.search_version) == ("1-7bd94bbda47e", "84f595635e5b")


def test_a_folder_with_ground_truths_is_not_searched(built_world: BuiltWorld, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="search"):
        WorldSearch(str(built_world.folder))
    for name in ("pages.jsonl", "pictures.jsonl", "truth.jsonl"):
        (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match=r"contains truth\.jsonl, which a search must not reach"):
        WorldSearch(str(tmp_path))


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_generator_is_handed_a_backend_without_a_path(
    workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("curious.py").write_text(CURIOUS)
    words = ["run", "--task", "knowgen_mini", "--generator", "curious.py:Curious", "--scorer", "pixels"]
    assert run([*words, "--limit", "1", "--workers", workers, "--out", "out"]) == 0
    seen = Path("seen.json").read_text()
    assert "WorldSearch object" in json.loads(seen)["search"]
    assert "knowgen_mini" not in seen and "world:" not in seen


@pytest.mark.parametrize("workers", ["0", "1"])
def test_no_path_that_a_generator_is_handed_leads_to_the_ground_truths(
    workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    Path("curious.py").write_text(CURIOUS)
    words = ["run", "--task", "knowgen_mini", "--generator", "curious.py:Follows", "--scorer", "pixels"]
    assert run([*words, "--limit", "1", "--workers", workers, "--out", "out"]) == 0
    seen = json.loads(Path("seen.json").read_text())
    assert seen["paths"] and not seen["found"]
    assert not any("knowgen_mini" in path for path in seen["paths"])
    if workers == "1":
        assert not list((tmp_path / "temporary").glob("knowgen.search.*")), "its worker removed the copies"
