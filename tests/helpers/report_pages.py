"""A report in a real browser: the page with what it logs and requests, and texts that attempt an injection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><svg onload=alert(1)>",
    "\u202eright to left \u2067override\u2066 and \u2028 a line",
    "unbroken" * 60,
    "{{ 7 * 7 }} <!-- ]]> &lt;b&gt; %3Cb%3E '",
)


class Watched:
    """A page that records its console messages and requests."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._dismiss)
        page.on("request", lambda request: self.requests.append(request.url))

    def _dismiss(self, dialog: Any) -> None:
        self.complaints.append("dialog")
        dialog.dismiss()

    def ids(self) -> list[str]:
        """Return the ids of the samples shown, in order, after scrolling to the end."""
        self.to_the_end()
        links = self.page.locator(".card .tags a").all_text_contents()
        return [text.removeprefix("sample ") for text in links]

    def to_the_end(self) -> None:
        """Scroll until no more cards appear."""
        before = -1
        while (now := self.page.locator(".card").count()) != before:
            before = now
            self.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
            self.page.wait_for_timeout(60)

    def unfold(self) -> None:
        """Open every section that is closed at first."""
        self.page.evaluate("for (const one of document.querySelectorAll('main details[data-fold]')) one.open = true")
        self.page.wait_for_timeout(50)  # the sections of the same name follow in a later task

    def clean(self) -> None:
        """Assert that there was no error and no request of a remote file."""
        assert self.complaints == []
        assert all(url.startswith("file://") for url in self.requests)


Open = Callable[..., Watched]


def until(page: Any, truth: str) -> None:
    """Wait until an expression is true, without the `eval` that the page's content security policy forbids.

    The listeners of the address run in a later task than its change, so that they get a moment.
    """
    for _ in range(400):
        if page.evaluate(truth):
            page.wait_for_timeout(50)
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never came true: {truth}")
