"""A chain asks its backends in order, and says which of them answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from knowgen.core.errors import AccountError, BudgetReachedError, DataError, TransientError, UsageError
from knowgen.core.records import image_ref
from knowgen.search.chain import PAUSE, ChainSearch
from knowgen.search.contract import BlockReason, ImageHit, PageBlockedError
from knowgen.search.prices import query_price
from tests.helpers.listed_search import PICTURE, ListedSearch, SecondSearch

ONE, TWO = (f"tests.helpers.listed_search:{each.__name__}" for each in (ListedSearch, SecondSearch))


class Chain:
    """A chain of two backends, with a clock that stands still."""

    def __init__(self) -> None:
        self.now = 100.0
        self.chain = ChainSearch(f"{ONE},{TWO}", clock=lambda: self.now)
        self.one, self.two = ListedSearch.made

    def search(self, query: str = "boats") -> list[str]:
        return [hit.found_by for hit in asyncio.run(self.chain.search(query))]


@pytest.fixture
def chain() -> Iterator[Chain]:
    ListedSearch.made.clear()
    yield Chain()


def test_the_first_backend_answers_while_it_finds_something(chain: Chain) -> None:
    assert chain.search() == [ONE, ONE] and not chain.two.calls
    chain.one.answers["search nothing"] = []
    assert chain.search("nothing") == [TWO, TWO]
    chain.two.answers["search nothing"] = []
    assert chain.search("nothing") == []


def test_a_backend_that_cannot_answer_is_asked_last_for_a_while(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    chain.one.answers["search"] = TransientError("answered 503", retry_after=PAUSE + 5)
    with caplog.at_level(logging.WARNING, "knowgen.search"):
        assert chain.search() == [TWO, TWO] and chain.search() == [TWO, TWO]
    assert len(chain.one.calls) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"knowgen: search backend {ONE} cannot answer now: answered 503; the next one is asked"
    ]
    chain.now += PAUSE + 5
    del chain.one.answers["search"]
    assert chain.search() == [ONE, ONE]


def test_a_backend_that_rejects_the_account_is_not_asked_again(chain: Chain) -> None:
    chain.one.answers["search"] = AccountError("no credit left", where="one")
    assert chain.search() == [TWO, TWO]
    chain.now += 1e6
    assert chain.search() == [TWO, TWO] and len(chain.one.calls) == 1


def test_where_no_backend_answers_the_error_is_the_one_after_which_trying_again_may_help(chain: Chain) -> None:
    chain.one.answers["search"] = AccountError("no credit left", where="one")
    chain.two.answers["search"] = TransientError("answered 503")
    with pytest.raises(TransientError, match="503"):
        chain.search()
    chain.two.answers["search"] = AccountError("wrong key", where="two")
    with pytest.raises(AccountError, match="wrong key"):
        chain.search()


def test_a_budget_that_is_used_up_ends_the_chain(chain: Chain) -> None:
    chain.one.answers["search"] = BudgetReachedError("the budget is used up")
    with pytest.raises(BudgetReachedError):
        chain.search()
    assert not chain.two.calls


def test_images_come_from_the_first_backend_with_one_and_blocked_ones_are_kept(chain: Chain) -> None:
    failed = ImageHit(title="failed", url="http://one.example/f.png", failure="answered 404")
    leak = ImageHit(title="leak", url="http://one.example/l.png", failure="its data", blocked=BlockReason.LEAK)
    chain.one.answers["image_search boats"] = [failed, leak]
    hits = asyncio.run(chain.chain.image_search("boats"))
    assert [(hit.title, hit.found_by) for hit in hits] == [("a picture of boats", TWO), ("gone", TWO), ("leak", "")]
    chain.two.answers["image_search boats"] = []
    assert asyncio.run(chain.chain.image_search("boats")) == [leak]
    chain.one.answers["image_search boats"] = [ImageHit(title="x", url="http://x/", image=image_ref(PICTURE))]
    assert [hit.found_by for hit in asyncio.run(chain.chain.image_search("boats"))] == [ONE]


def test_a_page_is_opened_by_the_backend_that_found_it(chain: Chain) -> None:
    chain.one.answers["search nothing"] = []
    (url, _) = [hit.url for hit in asyncio.run(chain.chain.search("nothing"))]
    assert asyncio.run(chain.chain.open(url)).title == "of two"
    assert asyncio.run(chain.chain.open("http://new.example/")).title == "of one"
    assert chain.one.calls == ["search nothing", "open http://new.example/"]


def test_a_page_that_one_backend_does_not_have_is_asked_of_the_next(chain: Chain) -> None:
    url = "http://site.example/"
    for error in (DataError("not in the corpus"), TransientError("the site does not answer")):
        chain.one.answers[f"open {url}"] = error
        assert asyncio.run(chain.chain.open(url)).title == "of two"
    assert chain.search() == [ONE, ONE], "a site that does not answer says nothing about the backend"
    with pytest.raises(DataError, match="404"):
        asyncio.run(chain.chain.open("http://site.example/gone"))
    with pytest.raises(PageBlockedError):
        asyncio.run(chain.chain.open("http://site.example/robots"))


def test_identity_and_closing_are_those_of_all_backends(chain: Chain) -> None:
    assert chain.chain.version == f"{ONE}@one-1,{TWO}@two-1"
    asyncio.run(chain.chain.close())
    assert chain.one.closed and chain.two.closed


def test_the_price_of_a_query_is_that_of_all_backends() -> None:
    brave = "knowgen.search.services.brave:Brave"
    name = "knowgen.search.chain:ChainSearch"
    assert query_price(name, {"model": f"{brave},{brave}"}) == 0.01
    assert query_price(name, {"model": f"{brave},{ONE}"}) is None
    assert query_price(name, {"model": f"{brave},{brave}", "knowgen.search.services.brave.price": 0.5}) == 1.0
    recorded = "knowgen.search.recorded.backends:RecordSearch"
    assert query_price(recorded, {"model": f"web.jsonl,{brave}", "price": 0.5}) == 0.5
    assert query_price("knowgen.search.recorded.backends:ReplaySearch", {"model": "web.jsonl"}) == 0.0


def test_arguments_are_given_to_the_backend_that_they_name() -> None:
    ListedSearch.made.clear()
    arguments: dict[str, Any] = {"tests.helpers.listed_search.options": "x"}
    ChainSearch(f"{ONE},{TWO}", **arguments)
    assert [backend.options for backend in ListedSearch.made] == ["x", "x"]
    with pytest.raises(UsageError, match=r"unknown argument 'options'"):
        ChainSearch(f"{ONE},{TWO}", options="x")
    with pytest.raises(UsageError, match="two backends or more"):
        ChainSearch("serper")
