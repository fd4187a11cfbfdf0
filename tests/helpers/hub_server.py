"""A local Hugging Face hub over HTTP, with the endpoints that `huggingface_hub` uses for data sets and to read models.

    with HubServer() as hub:
        sha = hub.commit("owner/name", {"rows.json": b"[]", "images.zip": data})
        subprocess.run([...], env={**os.environ, "HF_ENDPOINT": hub.url})

A commit becomes the head of `main`. Every request is recorded. Uploads follow what huggingface_hub 2.4 sends without
hf_xet (`_commit_api.py`, `lfs.py`): create, validate-yaml, preupload, LFS batch, one PUT per object, commit as NDJSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.helpers.local_server import LocalServer, QuietHandler

_INFO = re.compile(r"/api/(?:datasets|models)/([^/]+/[^/]+)(?:/revision/([^/]+))?\Z")
_FILE = re.compile(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)\Z")
_TREE = re.compile(r"/api/(?:datasets|models)/([^/]+/[^/]+)/tree/([^/]+)\Z")
_PREUPLOAD = re.compile(r"/api/datasets/([^/]+/[^/]+)/preupload/([^/]+)\Z")
_COMMIT = re.compile(r"/api/datasets/([^/]+/[^/]+)/commit/([^/]+)\Z")
_BRANCH = re.compile(r"/api/datasets/([^/]+/[^/]+)/branch/([^/]+)\Z")
_BATCH = re.compile(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch\Z")
_OBJECT = re.compile(r"/objects/([0-9a-f]{64})\Z")

BINARY = (".png", ".jpg", ".webp", ".parquet", ".sqlite", ".zip", ".gz")
"""Endings of files that are kept in large-file storage."""

WRITE_TOKEN = "hf_madeupwritetoken"
READ_TOKEN = "hf_madeupreadtoken"
REVOKED_TOKEN = "hf_madeuprevokedtoken"


class HubServer(LocalServer):
    """A context manager that serves data sets and models, which share one list of names.

    Attributes:
        requests: Method and path of every request, in order of arrival.
        tokens: `Authorization` header of every request.
        stalled: File names whose response stops in the middle until `release` is set.
        stalling: Set once a response has stopped.
        private: Repositories that only a token may see.
        objects: Large files by their hash.
        uploaded: Hashes of the large files that were sent, in order.
        refused: Status with which the next uploads of objects are refused, one for each.
    """

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], dict[str, bytes]] = {}
        self.heads: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: list[str] = []
        self.stalled: set[str] = set()
        self.stalling = threading.Event()
        self.release = threading.Event()
        self.branches: dict[tuple[str, str], str] = {}
        self.private: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.uploaded: list[str] = []
        self.refused: list[int] = []
        server = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                server._serve(self, body=True)

            def do_HEAD(self) -> None:
                server._serve(self, body=False)

            def do_POST(self) -> None:
                server._take(self)

            def do_PUT(self) -> None:
                server._take(self)

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
            if _token(handler) == REVOKED_TOKEN:
                message = "Invalid credentials in Authorization header"
                self._json(handler, {"error": message}, 401, {"X-Error-Message": message})
            elif (match := _FILE.match(path) or _INFO.match(path) or _TREE.match(path)) and self._hidden(
                handler, match[1]
            ):
                self._fault(handler, "RepoNotFound", 401)
            elif match := _FILE.match(path):
                self._file(handler, match[1], match[2], match[3], body)
            elif match := _TREE.match(path):
                self._tree(handler, match[1], match[2])
            elif match := _INFO.match(path):
                self._info(handler, match.group(1), match.group(2) or "main")
            else:
                self._fault(handler, "EntryNotFound")
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True

    def _commit_of(self, repo: str, revision: str) -> str:
        return self.heads[repo] if revision == "main" else self.branches.get((repo, revision), revision)

    def _hidden(self, handler: BaseHTTPRequestHandler, repo: str) -> bool:
        return repo in self.private and _token(handler) not in (WRITE_TOKEN, READ_TOKEN)

    def _info(self, handler: BaseHTTPRequestHandler, repo: str, revision: str) -> None:
        if repo not in self.heads:
            self._fault(handler, "RepoNotFound", 401)
            return
        sha = self._commit_of(repo, revision)
        if (repo, sha) not in self.commits:
            self._fault(handler, "RevisionNotFound")
            return
        siblings = [{"rfilename": name} for name in self.commits[repo, sha]]
        private = repo in self.private
        self._json(handler, {"_id": "0", "id": repo, "sha": sha, "private": private, "tags": [], "siblings": siblings})

    def _tree(self, handler: BaseHTTPRequestHandler, repo: str, revision: str) -> None:
        if repo not in self.heads:
            self._fault(handler, "RepoNotFound", 401)
            return
        files = self.commits.get((repo, self._commit_of(repo, revision)))
        if files is None:
            self._fault(handler, "RevisionNotFound")
            return
        self._json(handler, [_entry(path, data) for path, data in files.items()])

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer an upload."""
        path = unquote(urlsplit(handler.path).path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.requests.append((handler.command, path))
        self.tokens.append(handler.headers.get("Authorization", ""))
        if match := _OBJECT.match(path):  # the address is the permission, as with signed addresses
            self._put_object(handler, match[1], body)
        elif path == "/api/validate-yaml":
            self._json(handler, {"errors": [], "warnings": []})
        elif _token(handler) not in (WRITE_TOKEN, READ_TOKEN):
            self._json(handler, {"error": "Invalid username or password."}, 401)
        elif _token(handler) == READ_TOKEN:
            self._json(handler, {"error": "Forbidden: this token has no write access."}, 403)
        elif path == "/api/repos/create":
            self._create(handler, json.loads(body))
        else:
            routes: tuple[tuple[re.Pattern[str], Callable[..., None]], ...] = (
                (_PREUPLOAD, self._preupload), (_COMMIT, self._add_commit), (_BRANCH, self._branch),
                (_BATCH, self._batch),
            )  # fmt: skip
            for pattern, answer in routes:
                if match := pattern.match(path):
                    answer(handler, body, *match.groups())
                    return
            self._fault(handler, "EntryNotFound")

    def _create(self, handler: BaseHTTPRequestHandler, wanted: dict[str, Any]) -> None:
        assert wanted["type"] == "dataset"
        repo = f"{wanted['organization']}/{wanted['name']}"
        if repo in self.heads:
            address = f"{self.url}/datasets/{repo}"
            self._json(handler, {"error": "You already created this dataset repo", "url": address}, 409)
            return
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.private.add(repo)
        self.commit(repo, {".gitattributes": b"*.png filter=lfs\n"})
        self._json(handler, {"url": f"{self.url}/datasets/{repo}", "name": repo})

    def _branch(self, handler: BaseHTTPRequestHandler, body: bytes, repo: str, branch: str) -> None:
        if (repo, branch) in self.branches:
            self._json(handler, {"error": "Reference already exists"}, 409)
            return
        self.branches[repo, branch] = self.heads[repo]
        self._json(handler, {})

    def _preupload(self, handler: BaseHTTPRequestHandler, body: bytes, repo: str, revision: str) -> None:
        there = self.commits[repo, self._commit_of(repo, revision)]
        answers = []
        for file in json.loads(body)["files"]:
            entry = _entry(file["path"], there[file["path"]]) if file["path"] in there else {}
            mode = "lfs" if file["path"].endswith(BINARY) else "regular"
            oid = entry.get("lfs", {}).get("oid") or entry.get("oid")
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json(handler, {"files": answers})

    def _batch(self, handler: BaseHTTPRequestHandler, body: bytes, repo: str) -> None:
        wanted = json.loads(body)
        assert wanted["operation"] == "upload" and wanted["hash_algo"] == "sha256"
        objects = [
            {
                **each,
                **({} if each["oid"] in self.objects else {
                    "actions": {"upload": {"href": f"{self.url}/objects/{each['oid']}", "header": {}}}
                }),
            }
            for each in wanted["objects"]
        ]  # fmt: skip
        self._json(handler, {"transfer": "basic", "objects": objects})

    def _put_object(self, handler: BaseHTTPRequestHandler, oid: str, body: bytes) -> None:
        if self.refused:
            self._json(handler, {"error": "refused"}, self.refused.pop(0))
            return
        assert hashlib.sha256(body).hexdigest() == oid
        self.objects[oid] = body
        self.uploaded.append(oid)
        self._json(handler, {})

    def _add_commit(self, handler: BaseHTTPRequestHandler, body: bytes, repo: str, revision: str) -> None:
        files = dict(self.commits[repo, self._commit_of(repo, revision)])
        for line in body.splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "file":
                assert not value["path"].endswith(BINARY)
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                assert key == "header" and value["summary"]
        head = self.heads[repo]
        sha = self.commit(repo, files)
        if revision != "main":
            self.heads[repo], self.branches[repo, revision] = head, sha
        self._json(handler, {"commitUrl": f"{self.url}/datasets/{repo}/commit/{sha}", "commitOid": sha})

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


def _token(handler: BaseHTTPRequestHandler) -> str:
    return handler.headers.get("Authorization", "").removeprefix("Bearer ")


def _entry(path: str, data: bytes) -> dict[str, Any]:
    """Return a file as the hub lists it in a tree."""
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob}
    if path.endswith(BINARY):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry
