"""Whatever JSON a search service sends, a backend returns hits with addresses or raises an error of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowgen.core.errors import KnowgenError
from knowgen.search.contract import Hit
from knowgen.search.services.base import ServiceSearch
from knowgen.search.services.brave import Brave
from knowgen.search.services.searxng import Searxng
from knowgen.search.services.serper import Serper
from knowgen.search.services.tavily import Tavily
from knowgen.search.services.wikimedia import Wikimedia
from knowgen.search.web.images import RawImageHit
from tests.helpers import search_forms as forms

HERE = "http://127.0.0.1:9"
BACKENDS: list[tuple[ServiceSearch, list[Mapping[str, Any]]]] = [
    (Serper(base_url=HERE), [forms.SERPER_PAGES, forms.SERPER_IMAGES]),
    (Tavily(base_url=HERE), [forms.TAVILY]),
    (Brave(base_url=HERE), [forms.BRAVE_PAGES, forms.BRAVE_IMAGES]),
    (Searxng(HERE), [forms.SEARXNG_PAGES, forms.SEARXNG_IMAGES]),
    (Wikimedia(base_url=HERE), [forms.WIKI_SEARCH, forms.WIKI_IMAGES, forms.WIKI_LAGGED]),
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, form: Any) -> Any:
    """Draw a published form with some of its values replaced by other JSON."""
    if draw(st.integers(0, 7)) == 0:
        return draw(JSON)
    if isinstance(form, dict):
        return {name: draw(damaged(inner)) for name, inner in form.items() if draw(st.integers(0, 9))}
    if isinstance(form, list):
        return [draw(damaged(inner)) for inner in form for _ in range(draw(st.integers(0, 2)))]
    return form


async def answers(backend: ServiceSearch, data: Any) -> list[list[Hit] | list[RawImageHit]]:
    async def send(_request: Any, _worst: Any, cost: Any = None, error_inside: Any = None) -> Mapping[str, Any]:
        if error_inside is not None and (error := error_inside(data, {})) is not None:
            raise backend._client.exception_of(error)
        if cost is not None:
            price = cost(data)
            assert price is None or price >= 0
        return data  # type: ignore[no-any-return]

    found: list[list[Hit] | list[RawImageHit]] = []
    client = backend._client
    object.__setattr__(client, "send", send)
    try:
        for ask in (backend.find_pages, backend.find_images):
            try:
                found.append(await ask("harrow union", 5))
            except KnowgenError as error:
                assert str(error)
    finally:
        object.__delattr__(client, "send")
    return found


@pytest.mark.parametrize(("backend", "published"), BACKENDS, ids=lambda value: getattr(value, "provider", ""))
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_any_response_gives_hits_or_an_error(
    backend: ServiceSearch, published: list[Mapping[str, Any]], data: st.DataObject
) -> None:
    response = data.draw(damaged(data.draw(st.sampled_from(published))))
    if not isinstance(response, dict):
        response = {"results": response, "query": response, "type": "search", "searchParameters": {}}
    for hits in asyncio.run(answers(backend, response)):
        assert len(hits) <= 5
        for hit in hits:
            addresses = [hit.url, *((hit.page_url, hit.thumbnail_url) if isinstance(hit, RawImageHit) else ())]
            assert all(not url or url.lower().startswith(("http://", "https://")) for url in addresses)
            assert any(addresses) and "\n" not in hit.title
