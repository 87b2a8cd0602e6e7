"""A server that speaks the hub's HTTP API on loopback: revisions, trees of files, large files behind a redirect."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

__all__ = ["Hub", "Seen", "serving"]


@dataclass(frozen=True)
class Seen:
    """One request: of which server (`hub`, `store`), and what it asked."""

    server: str
    method: str
    path: str
    range: str
    authorization: str


@dataclass
class Hub:
    """A repository and what was asked of it.

    Args:
        repository: `owner/name`.
        commits: Commit -> file -> content.
        branches: Branch -> commit.
    """

    repository: str
    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    #: files whose next download ends after so many bytes
    cuts: dict[str, int] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    endpoint: str = ""
    store: str = ""
    #: the HTTP status of everything, if something is wrong with the hub
    status: int = 200

    def fetched(self) -> list[str]:
        """The files whose content was sent, once for each time."""
        sent = [one.path for one in self.seen if one.method == "GET" and "/api/" not in one.path]
        return [path.split("/resolve/")[-1].lstrip("/").partition("/")[2] for path in sent]


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    name: str

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = Seen(
            self.name, self.command, path, self.headers.get("Range", ""), self.headers.get("Authorization", "")
        )
        self.hub.seen.append(asked)
        if self.hub.status != 200:
            self._send(b"{}", self.hub.status, {})
        elif self.name == "store":
            _, commit, name = path.split("/", 2)
            self._content(self.hub.commits[commit][name], name, {})
        elif path.startswith("/api/"):
            self._api(path)
        else:
            self._resolve(path)

    def _api(self, path: str) -> None:
        start = f"/api/models/{self.hub.repository}/"
        kind, _, revision = path.removeprefix(start).partition("/")
        commit = self._commit(revision)
        if not path.startswith(start) or commit is None:
            self._send(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
        elif kind == "revision":
            self._send(json.dumps({"id": self.hub.repository, "sha": commit, "siblings": []}).encode(), 200, {})
        else:
            self._send(json.dumps([_entry(*item) for item in self.hub.commits[commit].items()]).encode(), 200, {})

    def _resolve(self, path: str) -> None:
        revision, _, name = path.removeprefix(f"/{self.hub.repository}/resolve/").partition("/")
        commit = self._commit(revision)
        content = self.hub.commits[commit].get(name) if commit else None
        if commit is None or content is None:
            self._send(b"", 404, {"X-Error-Code": "EntryNotFound"})
            return
        known = {"X-Repo-Commit": commit, "ETag": f'"{_blob(content)}"'}
        if _is_large(name):
            large = {"X-Linked-Etag": f'"{_sha256(content)}"', "X-Linked-Size": str(len(content))}
            self._send(b"", 302, known | large | {"Location": f"{self.hub.store}/{commit}/{name}"})
        else:
            self._content(content, name, known)

    def _commit(self, revision: str) -> str | None:
        commit = self.hub.branches.get(revision, revision)
        return commit if commit in self.hub.commits else None

    def _content(self, content: bytes, name: str, headers: Mapping[str, str]) -> None:
        asked = self.headers.get("Range")
        begin = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        ranged = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if asked else {}
        cut = self.hub.cuts.pop(name, None) if self.command == "GET" else None
        self._send(content[begin:], 206 if asked else 200, {**headers, **ranged, "Accept-Ranges": "bytes"}, cut)

    def _send(self, body: bytes, status: int, headers: Mapping[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True


def _entry(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": _blob(content)}
    if _is_large(name):
        entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
    return entry


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serves a repository: the hub on one port, its store of large files on another."""
    servers = []
    for name in ("hub", "store"):
        handler = type(f"_{name}", (_Handler,), {"hub": hub, "name": name})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
    hub.endpoint, hub.store = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
