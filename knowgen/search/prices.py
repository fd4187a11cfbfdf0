"""The price of a query of a search backend, known before it is built and without its key."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from knowgen.core import registry
from knowgen.search.contract import SearchBackend


def query_price(search: str | SearchBackend, arguments: Mapping[str, Any] = MappingProxyType({})) -> float | None:
    """Return the maximum cost of a query in US dollars, None when it is not known.

    A backend says it by a class method `query_price`, which takes the arguments of its constructor.

    Args:
        search: Name of a backend as for `load_search`, or a backend.
        arguments: Arguments of a backend that is named.

    Raises:
        UsageError: The name is unknown, or its price is not a number >= 0.

    Example:
        >>> query_price("knowgen.search.services.brave:Brave")
        0.005
        >>> query_price("knowgen.search.services.searxng:Searxng", {"model": "http://127.0.0.1:8888"})
        0.0
    """
    given = dict(arguments)
    if isinstance(search, str):
        resolved = registry.resolve("search", search)
        target = registry.load(resolved)
        if resolved.model is not None:
            given["model"] = resolved.model
    else:
        target = search
        if dataclasses.is_dataclass(search) and not isinstance(search, type):
            given = {field.name: getattr(search, field.name) for field in dataclasses.fields(search)}
    price = getattr(target, "query_price", None)
    if not callable(price):
        return None
    try:
        inspect.signature(price).bind(**given)
    except TypeError:  # an argument is missing or unknown, which is an error where the backend is built
        return None
    return cast(float | None, price(**given))
