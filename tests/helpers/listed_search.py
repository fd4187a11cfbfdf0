"""Search backends with given answers, for tests of backends that contain others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from knowgen.core.errors import DataError
from knowgen.core.records import image_ref
from knowgen.search.contract import BlockReason, Hit, ImageHit, Page, PageBlockedError

PICTURE = next((Path(__file__).resolve().parents[2] / "tasks" / "knowgen_mini" / "search" / "pictures").iterdir())


class ListedSearch:
    """A backend with answers by call, or errors to raise.

    Args:
        label: Part of its version, and of its answers.
        options: An argument.

    Attributes:
        answers: Answers, or errors, by call: `search QUERY`, `image_search QUERY`, `open URL`. Others are made up.
        calls: Every call.
        closed: Whether it was closed.
        made: All backends that were made.
    """

    made: ClassVar[list[ListedSearch]] = []

    def __init__(self, label: str = "one", options: str = "") -> None:
        self.label, self.options = label, options
        self.answers: dict[str, Any] = {}
        self.calls: list[str] = []
        self.closed = False
        self.made.append(self)

    @property
    def version(self) -> str:
        return f"{self.label}-1"

    def _answer(self, call: str, made_up: Any) -> Any:
        self.calls.append(call)
        answer = self.answers.get(call, self.answers.get(call.partition(" ")[0], made_up))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        hits = [Hit(title=f"{query} {n}", url=f"http://{self.label}.example/{query}/{n}") for n in range(2)]
        found: list[Hit] = self._answer(f"search {query}", hits)
        return found[:k]

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        hits = [
            ImageHit(title=f"a picture of {query}", url=f"http://{self.label}.example/p.png", image=image_ref(PICTURE)),
            ImageHit(title="gone", url=f"http://{self.label}.example/gone.png", failure="answered 404"),
        ]
        found: list[ImageHit] = self._answer(f"image_search {query}", hits)
        return found

    async def open(self, url: str) -> Page:
        if url.endswith("/gone"):
            raise DataError("answered 404", where=url, fix="open another page")
        if url.endswith("/robots"):
            raise PageBlockedError("the site excludes it", BlockReason.ROBOTS, where=url)
        page: Page = self._answer(f"open {url}", Page(url=url, title=f"of {self.label}", text="Words: äöü \u2028."))
        return page

    async def close(self) -> None:
        self.closed = True


class SecondSearch(ListedSearch):
    """Another backend."""

    def __init__(self, label: str = "two", options: str = "") -> None:
        super().__init__(label, options)
