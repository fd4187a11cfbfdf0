"""A label page that is served in a thread, and a browser page that is driven by keys."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from knowgen.labelling.items import LabelPlan
from knowgen.labelling.server import LabelServer, listen


class LabelSite:
    """A server of a label page during a `with` block.

    Args:
        plan: What is labelled.
        folder: Folder of the labels.
        rater: Name of the only rater; None to ask on the page.

    Attributes:
        server: The server.
        warnings: Lines for the terminal.
        port: Its port.
    """

    def __init__(self, plan: LabelPlan, folder: Path, rater: str | None = None) -> None:
        self.warnings: list[str] = []
        self.server = LabelServer(plan, folder, rater=rater, warn=self.warnings.append)
        self._socket = listen(0)
        self.port = int(self._socket.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def address(self) -> str:
        """Address of the page, with the token."""
        return f"http://127.0.0.1:{self.port}/?token={self.server.token}"

    @property
    def cookie(self) -> str:
        """Value of the header `Cookie` of a page that was opened with the token."""
        return f"{self.server.cookie}={self.server.token}"

    def __enter__(self) -> Self:
        """Start to listen."""
        self._thread.start()
        self._runner = web.AppRunner(self.server.application(), access_log=None, shutdown_timeout=0.1)
        self._do(self._runner.setup())
        self._do(web.SockSite(self._runner, self._socket).start())
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop the server and its loop."""
        self._do(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def request(
        self, method: str, path: str, body: str | None = None, **headers: str | None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request as a page with the token would, and return status, headers and body.

        Args:
            method: Such as GET.
            path: Path with query.
            body: Body, sent as JSON.
            headers: Further headers, with `_` for `-`; None leaves one out.
        """
        sent: dict[str, str | None] = {"Cookie": self.cookie, "Host": f"127.0.0.1:{self.port}"}
        if body is not None:
            sent["Content-Type"] = "application/json"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            data = (body or "").encode()
            connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(data)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def ask(self, path: str, **fields: Any) -> dict[str, Any]:
        """Send fields to `/api/<path>` and return the answer, which must be a success."""
        status, _, body = self.request("POST", f"/api/{path}", json.dumps(fields))
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)
        return answer
