"""Errors, quotas and costs of search services: what each published error becomes, and what a run pays."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from knowgen.core.errors import (
    AccountError,
    BudgetReachedError,
    ConfigError,
    DataError,
    KnowgenError,
    ServiceUnavailableError,
)
from knowgen.core.metering import current_meter
from knowgen.search.prices import query_price
from knowgen.search.services.base import ServiceSearch
from knowgen.search.services.brave import Brave
from knowgen.search.services.jina import JinaReader
from knowgen.search.services.searxng import Searxng
from knowgen.search.services.serper import Serper
from knowgen.search.services.tavily import Tavily
from knowgen.search.services.wikimedia import Wikimedia
from tests.helpers import search_forms as forms
from tests.helpers.search_services import (
    CUT,
    KEY,
    BraveServer,
    JinaServer,
    SearchServer,
    SearxngServer,
    SerperServer,
    TavilyServer,
    WikimediaServer,
)

WEB_PAGE = (200, b"<!doctype html><html><title>Sign in</title></html>")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERPER_API_KEY", "TAVILY_API_KEY", "BRAVE_SEARCH_API_KEY"):
        monkeypatch.setenv(name, KEY)


def make(server: SearchServer, **arguments: Any) -> ServiceSearch:
    if isinstance(server, SerperServer):
        return Serper(base_url=server.address, key_env="SERPER_API_KEY", **arguments)
    if isinstance(server, TavilyServer):
        return Tavily(base_url=server.address, key_env="TAVILY_API_KEY", **arguments)
    if isinstance(server, BraveServer):
        return Brave(base_url=server.address, key_env="BRAVE_SEARCH_API_KEY", **arguments)
    if isinstance(server, WikimediaServer):
        return Wikimedia(base_url=server.api, images_url=server.api, contact="me@example.org", **arguments)
    return Searxng(server.address, **arguments)


def run(backend: Any, call: Callable[[], Awaitable[Any]]) -> Any:
    async def ask() -> Any:
        try:
            return await call()
        finally:
            await backend.close()

    return asyncio.run(ask())


def failure(server: SearchServer, **arguments: Any) -> KnowgenError:
    """Return the error of one query."""
    backend = make(server, **arguments)
    with pytest.raises(KnowgenError) as raised:
        run(backend, lambda: backend.find_pages("harrow union", 5))
    return raised.value


ACCOUNT: list[Any] = [
    (SerperServer, forms.SERPER_WRONG_KEY, "search:serper answered 403: Unauthorized."),
    (SerperServer, forms.SERPER_NO_CREDITS, "search:serper answered 400: Not enough credits"),
    (TavilyServer, forms.TAVILY_WRONG_KEY, "search:tavily answered 401: Unauthorized: missing or invalid API key."),
    (TavilyServer, forms.TAVILY_PLAN, "search:tavily answered 432: This request exceeds your plan's set usage limit."),
    (TavilyServer, forms.TAVILY_PAYGO, "search:tavily answered 433: This request exceeds the pay-as-you-go limit."),
    (
        BraveServer,
        forms.BRAVE_WRONG_KEY,
        "search:brave answered 422 SUBSCRIPTION_TOKEN_INVALID: The provided subscription token is invalid.",
    ),
    (BraveServer, forms.BRAVE_NO_PLAN, "search:brave answered 404 SUBSCRIPTION_NOT_FOUND: No subscription found."),
    (
        BraveServer,
        forms.BRAVE_QUOTA,
        "search:brave answered 429 QUOTA_LIMITED: Request quota limit exceeded for plan.",
    ),
    (SearxngServer, forms.SEARXNG_NO_JSON, "search:searxng answered 403: 403 Forbidden Forbidden"),
    (SearxngServer, WEB_PAGE, "search:searxng answered 200 without a JSON object, but with a web page"),
    (
        WikimediaServer,
        forms.WIKI_NO_AGENT,
        "search:wikimedia answered 403: Please set a user-agent and respect our robot policy",
    ),
]


@pytest.mark.parametrize(("server", "form", "words"), ACCOUNT)
def test_an_account_that_is_turned_away_is_an_error_of_the_account(
    server: type[SearchServer], form: tuple[int, Any], words: str
) -> None:
    with server() as service:
        service.next(form)
        error = failure(service)
        assert isinstance(error, AccountError) and str(error).startswith(words)
        assert len(service.calls) == 1


def test_the_error_of_a_wrong_key_names_the_variable_and_hides_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "another-key-0123456789")
    with SerperServer() as service:
        backend = Serper(base_url=service.address, key_env="OTHER_KEY")
        service.next({"message": "Unauthorized: another-key-0123456789", "statusCode": 403}, 403)
        with pytest.raises(AccountError) as raised:
            run(backend, lambda: backend.find_pages("x", 5))
    assert str(raised.value).endswith("Unauthorized: [key]; check the key in OTHER_KEY")
    assert "another-key" not in repr(backend) + repr(backend._client)


def test_a_searxng_server_without_json_says_how_to_get_it() -> None:
    with SearxngServer(formats=("html",)) as service:
        assert str(failure(service)).endswith("add `json` to search.formats in the server's settings.yml, or use a "
                                              "server of your own")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "cls"),
    [("SERPER_API_KEY", Serper), ("TAVILY_API_KEY", Tavily), ("BRAVE_SEARCH_API_KEY", Brave)],
)
def test_a_missing_key_is_one_line_before_anything_is_sent(
    name: str, cls: type[ServiceSearch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match=f"the key for .* is missing; type: export {name}=<your key>"):
        cls()


BUSY: list[Any] = [
    (TavilyServer, forms.TAVILY_RATE, {}, None),
    (BraveServer, forms.BRAVE_RATE, forms.BRAVE_RATE_HEADERS, 1.0),
    (SerperServer, (429, {"message": "Too many requests", "statusCode": 429}), {"Retry-After": "3"}, 3.0),
    (SearxngServer, (429, b"Too Many Requests"), {}, None),
    (WikimediaServer, forms.WIKI_RATE, {"Retry-After": "60"}, 60.0),
    (WikimediaServer, (200, forms.WIKI_LAGGED), forms.WIKI_LAGGED_HEADERS, 5.0),
    (WikimediaServer, (200, {"error": {"code": "ratelimited", "info": "You have exceeded your limit."}}), {}, None),
    (SerperServer, (503, b"<html><title>503 Service Unavailable</title></html>"), {}, None),
]


@pytest.mark.parametrize(("server", "form", "headers", "wait"), BUSY)
def test_a_service_that_is_busy_says_for_how_long(
    server: type[SearchServer], form: tuple[int, Any], headers: dict[str, str], wait: float | None
) -> None:
    with server() as service:
        service.next(form, headers=headers)
        error = failure(service)
        assert isinstance(error, ServiceUnavailableError) and error.busy and error.retry_after == wait
        assert error.service == make(service)._client.connection.name


@pytest.mark.parametrize("server", [SerperServer, TavilyServer, BraveServer, SearxngServer, WikimediaServer])
def test_a_fault_is_raised_for_the_engine_to_repeat(server: type[SearchServer]) -> None:
    for form in ((500, {"message": "internal"}), (200, b"[]"), (200, {"unexpected": True}), (200, b"{")):
        with server() as service:
            service.next(form)
            if isinstance(service, WikimediaServer) and form[1] == {"unexpected": True}:
                continue  # a wiki names what was found, and nothing otherwise
            error = failure(service)
            assert isinstance(error, ServiceUnavailableError) and not error.busy, form
            assert len(service.calls) == 1


@pytest.mark.parametrize("server", [SerperServer, TavilyServer, BraveServer, SearxngServer, WikimediaServer])
def test_a_lost_connection_is_tried_once_more(server: type[SearchServer]) -> None:
    with server() as service:
        service.next(CUT)
        backend = make(service)
        assert run(backend, lambda: backend.find_pages("harrow", 1))
        assert len(service.calls) == 2
    with server() as service:
        service.next(CUT)
        service.next(CUT)
        error = failure(service)
        assert isinstance(error, ServiceUnavailableError) and "was lost" in str(error)
        assert len(service.calls) == 2


def test_a_rejected_query_is_an_error_of_the_query() -> None:
    with TavilyServer() as service:
        service.next(forms.TAVILY_TOO_LONG)
        error = failure(service)
        assert isinstance(error, DataError) and "Max query length is 400" in str(error)
    with WikimediaServer() as service:
        service.next({"error": {"code": "badinteger", "info": 'Invalid value "x" for "srlimit".'}})
        error = failure(service)
        assert isinstance(error, DataError) and "badinteger" in str(error)


def test_engines_that_do_not_answer_are_not_taken_for_nothing_found() -> None:
    empty = {
        **forms.SEARXNG_PAGES,
        "results": [],
        "unresponsive_engines": [["brave", "CAPTCHA"], ["google", "timeout"]],
    }
    with SearxngServer() as service:
        service.next(empty)
        error = failure(service)
        assert isinstance(error, ServiceUnavailableError)
        assert "did not answer: brave: CAPTCHA, google: timeout" in str(error)


class Meter:
    """A budget meter that notes what is reserved and settled."""

    def __init__(self, limit: float = 1.0) -> None:
        self.limit, self.reserved, self.settled = limit, [], []  # type: tuple[float, list[Any], list[Any]]

    async def reserve(self, worst_case: float | None, caller: str) -> int:
        if worst_case is None:
            raise ConfigError("the price is not known")
        if worst_case > self.limit:
            raise BudgetReachedError("the budget is reached")
        self.reserved.append((caller, worst_case))
        return len(self.reserved) - 1

    async def settle(self, number: int, cost: float | None) -> None:
        self.settled.append(cost)


def metered(meter: Meter, backend: Any, call: Callable[[], Awaitable[Any]]) -> Any:
    async def ask() -> Any:
        current_meter.set(meter)
        try:
            return await call()
        finally:
            await backend.close()

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("server", "arguments", "n", "reserved", "settled"),
    [
        (SerperServer, {"price": 0.001}, 5, 0.001, 0.001),
        (TavilyServer, {"price": 0.008}, 5, 0.008, 0.008),
        (TavilyServer, {"price": 0.008, "depth": "advanced"}, 5, 0.016, 0.016),
        (BraveServer, {"price": 0.005}, 5, 0.005, None),
        (SearxngServer, {}, 4, 0.0, None),
        (WikimediaServer, {}, 5, 0.0, None),
    ],
)
def test_every_query_is_paid_for_under_the_name_of_its_service(
    server: type[SearchServer], arguments: dict[str, Any], n: int, reserved: float, settled: float | None
) -> None:
    meter = Meter()
    with server() as service:
        backend = make(service, **arguments)
        metered(meter, backend, lambda: backend.find_pages("harrow union", n))
        name = backend.provider
    assert meter.reserved == [(f"search:{name}", reserved)] and meter.settled == [settled]


def test_a_long_list_of_images_reserves_what_the_published_price_says(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter()
    with SerperServer() as service:
        backend = make(service)
        backend.prices = Serper.price_at(Serper.service_url, None)
        metered(meter, backend, lambda: backend.find_images("harrow union", 20))
    assert meter.reserved == [("search:serper", 0.002)] and meter.settled == [0.002]


@pytest.mark.parametrize(
    ("form", "settled"), [(forms.SERPER_WRONG_KEY, [0.0]), ((504, b"late"), [None]), (CUT, [None, 0.001])]
)
def test_a_failed_query_costs_nothing_and_a_lost_one_its_reservation(form: Any, settled: list[Any]) -> None:
    meter = Meter()
    with SerperServer() as service:
        service.next(form)
        backend = make(service, price=0.001)
        with contextlib.suppress(AccountError, ServiceUnavailableError):
            metered(meter, backend, lambda: backend.find_pages("x", 5))
    assert meter.settled == settled


def test_a_query_beyond_the_budget_is_not_sent() -> None:
    with BraveServer() as service:
        backend = make(service, price=0.005)
        with pytest.raises(BudgetReachedError):
            metered(Meter(limit=0.001), backend, lambda: backend.find_pages("x", 5))
        unknown = make(service)
        with pytest.raises(ConfigError):
            metered(Meter(), unknown, lambda: unknown.find_pages("x", 5))
        assert not service.calls


@pytest.mark.parametrize(
    ("name", "arguments", "price"),
    [
        ("serper:Serper", {}, 0.001),
        ("serper:Serper", {"price": 0.0003}, 0.0003),
        ("tavily:Tavily", {}, 0.008),
        ("tavily:Tavily", {"depth": "advanced"}, 0.016),
        ("brave:Brave", {"country": "de"}, 0.005),
        ("brave:Brave", {"base_url": "https://search.example.org"}, None),
        ("searxng:Searxng", {"model": "http://127.0.0.1:8888"}, 0.0),
        ("wikimedia:Wikimedia", {}, 0.0),
    ],
)
def test_the_price_of_a_query_is_known_without_a_key(
    name: str, arguments: dict[str, Any], price: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("SERPER_API_KEY", "TAVILY_API_KEY", "BRAVE_SEARCH_API_KEY"):
        monkeypatch.delenv(variable)
    assert query_price(f"knowgen.search.services.{name}", arguments) == price


def test_the_price_of_a_chain_is_that_of_asking_all_and_of_a_recording_that_of_its_backend() -> None:
    serper, brave = (f"knowgen.search.services.{name}" for name in ("serper:Serper", "brave:Brave"))
    chain, record, replay = (
        f"knowgen.search.{name}"
        for name in ("chain:ChainSearch", "recorded.backends:RecordSearch", "recorded.backends:ReplaySearch")
    )
    assert query_price(chain, {"model": f"{serper},{brave}"}) == 0.006
    unknown = {"model": f"{serper},{brave}", "knowgen.search.services.brave.base_url": "https://search.example.org"}
    assert query_price(chain, unknown) is None
    assert query_price(record, {"model": f"web.jsonl,{brave}", "price": 0.004}) == 0.004
    assert query_price(replay, {"model": "web.jsonl"}) == 0.0


def test_the_price_of_a_backend_that_is_built_is_that_of_its_arguments() -> None:
    assert query_price(Tavily(depth="advanced")) == 0.016
    assert query_price(Brave(price=0.003)) == 0.003
    assert query_price("world") == 0.0


@pytest.mark.parametrize(
    ("server", "form", "words"),
    [
        (SerperServer, forms.SERPER_WRONG_KEY, "Unauthorized"),
        (TavilyServer, forms.TAVILY_WRONG_KEY, "Unauthorized"),
        (BraveServer, forms.BRAVE_WRONG_KEY, "SUBSCRIPTION_TOKEN_INVALID"),
        (SearxngServer, forms.SEARXNG_NO_JSON, "settings.yml"),
        (WikimediaServer, forms.WIKI_NO_AGENT, "user-agent"),
    ],
)
def test_the_check_before_a_run_costs_nothing_and_finds_a_wrong_key(
    server: type[SearchServer], form: tuple[int, Any], words: str
) -> None:
    meter = Meter()
    with server() as service:
        backend: Any = make(service)
        assert metered(meter, backend, backend.check_service) == ""
        service.next(form)
        with pytest.raises(AccountError, match=words):
            metered(meter, backend, backend.check_service)
    assert {cost for _, cost in meter.reserved} == {0.0}


def test_the_check_before_a_run_warns_of_an_empty_account_and_of_engines_that_fail() -> None:
    with SerperServer() as service:
        backend: Any = make(service)
        service.next({"balance": 0, "rateLimit": 5})
        assert run(backend, backend.check_service) == "the account of serper has no credits left"
    with SearxngServer() as service:
        backend = make(service)
        service.next({**forms.SEARXNG_PAGES, "unresponsive_engines": [["brave", "timeout"]]})
        assert run(backend, backend.check_service) == "engines of the server do not answer: brave: timeout"


def test_no_more_calls_run_at_a_time_than_a_service_admits() -> None:
    async def ask(backend: Any) -> None:
        await asyncio.gather(*(backend.find_pages("harrow", number) for number in range(1, 10)))

    with WikimediaServer() as service:
        service.delay = 0.02
        backend = make(service, rpm=0)
        run(backend, lambda: ask(backend))
        assert service.max_concurrent <= 3 and len(service.calls) == 9


def read(reader: JinaReader, url: str = "https://example.org/harrow") -> Any:
    return run(reader, lambda: reader.open(url))


def test_jina_needs_no_key_and_takes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with JinaServer() as service:
        monkeypatch.delenv("JINA_API_KEY", raising=False)
        assert read(JinaReader(base_url=service.address)).title == "Harrow Union"
        monkeypatch.setenv("JINA_API_KEY", KEY)
        read(JinaReader(base_url=service.address), "https://example.org/other")
        first, second = service.calls
        assert "authorization" not in first.headers and second.headers["authorization"] == f"Bearer {KEY}"
        assert first.body == {"url": "https://example.org/harrow"} and first.headers["accept"] == "application/json"


@pytest.mark.parametrize(
    ("form", "kind", "wait"),
    [
        (forms.JINA_WRONG_KEY, AccountError, None),
        (forms.JINA_NO_BALANCE, AccountError, None),
        (forms.JINA_RATE, ServiceUnavailableError, 7.0),
        (forms.JINA_BLOCKED, DataError, None),
        (forms.JINA_FAILED, DataError, None),
        ((200, {"code": 200, "status": 20000, "data": {"title": "Empty", "content": " "}}), DataError, None),
        ((200, {"code": 200}), ServiceUnavailableError, None),
    ],
)
def test_errors_of_jina_tell_the_page_from_the_account(
    form: tuple[int, Any], kind: type[KnowgenError], wait: float | None
) -> None:
    with JinaServer() as service:
        service.next(form)
        with pytest.raises(kind) as raised:
            read(JinaReader(base_url=service.address))
        assert getattr(raised.value, "retry_after", None) == wait


def test_jina_is_paid_by_the_tokens_of_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JINA_API_KEY", KEY)
    meter = Meter()
    with JinaServer() as service:
        reader = JinaReader(base_url=service.address, price=0.05)
        metered(meter, reader, lambda: reader.open("https://example.org/harrow"))
        assert service.calls[0].headers["x-token-budget"] == "200000"
    assert meter.reserved == [("search:jina", 0.01)] and meter.settled == [pytest.approx(0.000075)]


def test_jina_is_not_asked_for_addresses_of_this_network() -> None:
    with JinaServer() as service:
        for url in ("http://127.0.0.1:8080/", "http://169.254.169.254/latest", "file:///etc/passwd"):
            with pytest.raises(KnowgenError):
                read(JinaReader(base_url=service.address), url)
        assert not service.calls
