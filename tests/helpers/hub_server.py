"""A local Hugging Face hub over HTTP, with the endpoints that `huggingface_hub` uses to fetch data sets.

    with HubServer() as hub:
        sha = hub.commit("owner/name", {"rows.json": b"[]", "images.zip": data})
        subprocess.run([...], env={**os.environ, "HF_ENDPOINT": hub.url})

A commit becomes the head of `main`. Every request is recorded.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.helpers.local_server import LocalServer, QuietHandler

_INFO = re.compile(r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?\Z")
_FILE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)\Z")


class HubServer(LocalServer):
    """A context manager that serves data sets.

    Attributes:
        requests: Method and path of every request, in order of arrival.
        tokens: `Authorization` header of every request.
        stalled: File names whose response stops in the middle until `release` is set.
        stalling: Set once a response has stopped.
    """

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], dict[str, bytes]] = {}
        self.heads: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: list[str] = []
        self.stalled: set[str] = set()
        self.stalling = threading.Event()
        self.release = threading.Event()
        server = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                server._serve(self, body=True)

            def do_HEAD(self) -> None:
                server._serve(self, body=False)

        super().__init__(Handler)

    @property
    def url(self) -> str:
        return self.address

    def __exit__(self, *exc: object) -> None:
        self.release.set()
        super().__exit__(*exc)

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Add a commit with exactly these files, make it the head of main, and return its hash."""
        digest = hashlib.sha1(repr((repo, len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[repo, digest] = dict(files)
        self.heads[repo] = digest
        return digest

    def fetched(self, name: str) -> int:
        """Count how often a file's content was requested."""
        return sum(method == "GET" and path.endswith(f"/{name}") for method, path in self.requests)

    def _serve(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(urlsplit(handler.path).path)
        self.requests.append((handler.command, path))
        self.tokens.append(handler.headers.get("Authorization", ""))
        try:
            if match := _FILE.match(path):
                self._file(handler, match[1], match[2], match[3], body)
            elif match := _INFO.match(path):
                self._info(handler, match.group(1), match.group(2) or "main")
            else:
                self._fault(handler, "EntryNotFound")
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True

    def _commit_of(self, repo: str, revision: str) -> str:
        return self.heads[repo] if revision == "main" else revision

    def _info(self, handler: BaseHTTPRequestHandler, repo: str, revision: str) -> None:
        if repo not in self.heads:
            self._fault(handler, "RepoNotFound", 401)
            return
        sha = self._commit_of(repo, revision)
        if (repo, sha) not in self.commits:
            self._fault(handler, "RevisionNotFound")
            return
        siblings = [{"rfilename": name} for name in self.commits[repo, sha]]
        self._json(handler, {"_id": "0", "id": repo, "sha": sha, "private": False, "tags": [], "siblings": siblings})

    def _file(self, handler: BaseHTTPRequestHandler, repo: str, revision: str, name: str, body: bool) -> None:
        sha = self._commit_of(repo, revision)
        data = self.commits.get((repo, sha), {}).get(name)
        if data is None:
            self._fault(handler, "EntryNotFound")
            return
        first = 0
        if given := re.match(r"bytes=(\d+)-", handler.headers.get("Range", "")):
            first = int(given.group(1))
        handler.send_response(206 if first else 200)
        handler.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        handler.send_header("X-Repo-Commit", sha)
        handler.send_header("Accept-Ranges", "bytes")
        if first:
            handler.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - first))
        handler.end_headers()
        if not body:
            return
        if name in self.stalled:
            handler.wfile.write(data[first : len(data) // 2])
            handler.wfile.flush()
            self.stalling.set()
            self.release.wait(60)
            first = max(first, len(data) // 2)
        handler.wfile.write(data[first:])

    def _fault(self, handler: BaseHTTPRequestHandler, code: str, status: int = 404) -> None:
        self._json(handler, {"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code})

    def _json(
        self, handler: BaseHTTPRequestHandler, data: Any, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        text = json.dumps(data).encode()
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(text)
