"""The search backends that take something from an agent: `none` and `shuffled`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import knowgen
from knowgen.core.errors import DataError, UsageError
from knowgen.search.contract import Hit, ImageHit, Page
from knowgen.search.load import load_search
from knowgen.search.nothing import NothingSearch
from knowgen.search.shuffled import ShuffledSearch, other_query
from knowgen.workflows.agents import resolve_system

ROOT = Path(__file__).parents[2]
SEARCH = ROOT / "tasks" / "knowgen_mini" / "search"
WORLD = f"world:{SEARCH}"
ARGUMENTS = {"policy": "scripted", "painter": "painter"}


class Library:
    """A backend without titles, whose results repeat the query."""

    version = "7"
    closed = 0

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        return [Hit(title=f"{query} {number}", url=f"https://l.example/{number}") for number in range(k)]

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        return [ImageHit(title=query, url="https://l.example/i", failure="gone")]

    async def open(self, url: str) -> Page:
        return Page(url=url, title="A page", text="Text.")

    async def close(self) -> None:
        type(self).closed += 1


LIBRARY = f"{__name__}:Library"


def words(text: str) -> set[str]:
    return set(text.casefold().split())


def test_none_finds_nothing() -> None:
    backend = load_search("knowgen.search.nothing:NothingSearch")
    assert asyncio.run(backend.search("boat")) == [] and asyncio.run(backend.image_search("boat")) == []
    with pytest.raises(DataError, match="page not found"):
        asyncio.run(backend.open("https://atlas.example/boat"))
    assert NothingSearch.query_price() == 0.0


def test_shuffled_results_are_found_have_no_word_of_the_query_and_are_the_same_each_time() -> None:
    backend = ShuffledSearch(WORLD)
    titles = asyncio.run(load_search(WORLD).titles())  # type: ignore[attr-defined]
    found = 0
    again = ShuffledSearch(WORLD)
    for title in titles[:20]:
        hits = asyncio.run(backend.search(title, 5))
        images = asyncio.run(backend.image_search(title, 5))
        assert all(not words(one) & words(title) for one in (*(h.title for h in hits), *(i.title for i in images)))
        assert hits == asyncio.run(again.search(title, 5))
        found += bool(hits)
    assert found >= 18  # an agent must be misled, not left without results


def test_the_seed_chooses_other_results_and_is_part_of_the_identity() -> None:
    first, second = ShuffledSearch(WORLD), ShuffledSearch(WORLD, seed=1)
    assert asyncio.run(first.search("Tedok")) != asyncio.run(second.search("Tedok"))
    assert first.version != second.version
    assert first.version.startswith(f"world@{load_search(WORLD).version} ")


def test_other_queries_come_from_a_file_where_a_backend_lists_no_titles(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot list titles") as caught:
        ShuffledSearch(LIBRARY)
    assert caught.value.fix == "give a file with other queries, one a line: search.queries=FILE"
    file = tmp_path / "queries.txt"
    file.write_text("blue boat\n\nold tower\n")
    backend = ShuffledSearch(LIBRARY, queries=str(file))
    assert [hit.title for hit in asyncio.run(backend.search("red boat", 2))] == ["old tower 0", "old tower 1"]
    assert [hit.title for hit in asyncio.run(backend.image_search("the tower"))] == ["blue boat"]
    assert asyncio.run(backend.search("tower or boat")) == []  # each other query has a word of it
    assert asyncio.run(backend.open("https://l.example/1")).title == "A page"
    asyncio.run(backend.close())
    assert Library.closed == 1
    before = backend.version
    file.write_text("blue boat\n")
    assert ShuffledSearch(LIBRARY, queries=str(file)).version != before
    for text, what in (("\n \n", "is empty"), (None, "cannot be read")):
        file.unlink() if text is None else file.write_text(text)
        with pytest.raises(DataError, match=what):
            ShuffledSearch(LIBRARY, queries=str(file))


def test_no_other_query_is_chosen_where_there_is_none() -> None:
    assert other_query("boat", [], 0) == ""
    assert {other_query("boat", ["a", "b", "c"], seed) for seed in range(30)} == {"a", "b", "c"}


@pytest.mark.parametrize("name", ["shuffled", "shuffled:world", f"shuffled:{WORLD}"])
def test_shuffled_alone_means_the_search_of_the_task(name: str) -> None:
    agent = resolve_system("gen_searcher", {**ARGUMENTS, "search": name}, knowgen.load_task("knowgen_mini")).agent
    assert agent is not None and not agent.spec.privileged
    assert agent.spec.search.startswith("shuffled@world@") and str(ROOT) not in agent.spec.search


def test_shuffled_alone_is_refused_for_a_task_without_search() -> None:
    with pytest.raises(UsageError, match="this task has no search backend") as caught:
        resolve_system("gen_searcher", {**ARGUMENTS, "search": "shuffled"}, None)
    assert caught.value.fix == "name the backend that it is made from, as in shuffled:NAME"


@pytest.mark.parametrize(
    ("arguments", "search"),
    [({"search": "none"}, "none@1"), ({"tools": ""}, "world@"), ({"tool_calls": 2}, "world@")],
)
def test_each_ablation_has_an_identity_of_its_own(arguments: dict[str, Any], search: str) -> None:
    task = knowgen.load_task("knowgen_mini")
    full, less = (resolve_system("gen_searcher", {**ARGUMENTS, **given}, task).agent for given in ({}, arguments))
    assert full is not None and less is not None
    assert full.spec != less.spec and less.spec.search.startswith(search)
