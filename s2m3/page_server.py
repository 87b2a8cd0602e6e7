"""Serves the built page over HTTP: a fixed set of files from memory, and a document with the broker's address.

It holds no data of the site and accepts no input: the page itself connects to the broker.
"""

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, Self
from urllib.parse import urlsplit

from s2m3.broker.servers.websocket import PageDoor
from s2m3.schemas.errors import BadInputError, NotInstalledError

__all__ = ["HOW_TO_BUILD", "PageServer", "page_is_built"]

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
#: The example inputs of tasks (s2m3/samples).
_SAMPLES = {".jpg": "image/jpeg", ".png": "image/png", ".flac": "audio/flac"}
#: Content Security Policy. Scripts and styles are our own files only; images may also be files that the user chose
#: (blob:). Trusted types forbid to turn text into HTML or code, in our scripts and in the libraries.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self' {broker}; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


#: Hint for an installation without the page. A wheel is built with the page by default: see setup.py.
HOW_TO_BUILD = (
    "this installation was made without the page; in a checkout `make dashboard` builds it (Debian: apt install npm)"
)


def page_is_built() -> bool:
    """Whether the page's files are installed."""
    return files("s2m3").joinpath("page", "index.html").is_file()


class PageServer:
    """The HTTP server of the page.

    Args:
        url: URL of the broker's websocket listener, as the browser reaches it.
        root: First levels of every topic.
        port: Port to listen on; 0 for a free one.
        bind: Address to listen on.
        door: Login for the page at a broker that we started. It is served on loopback addresses only.

    Raises:
        BadInputError: The url is not one of a websocket, or the address cannot be listened on.
        NotInstalledError: The page is not built.
    """

    def __init__(
        self, url: str, *, root: str, port: int = 0, bind: str = "127.0.0.1", door: PageDoor | None = None
    ) -> None:
        policy = _POLICY.format(broker=_origin(url))
        config = {"url": url, "root": root}
        if door is not None:
            config |= {"username": door.username, "password": door.password}
        files = _built() | {"/config.json": ("application/json", json.dumps(config).encode())}
        only_for = _LOOPBACK if bind in _LOOPBACK else None
        handler = type("Handler", (_Handler,), {"files": files, "policy": policy, "only_for": only_for})
        try:
            self._server = ThreadingHTTPServer((bind, port), handler)
        except OSError as error:
            raise BadInputError(f"the page cannot be served on {bind}:{port}: {error.strerror}") from error
        self._server.daemon_threads = True
        self.url = f"http://{bind}:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="page", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _origin(url: str) -> str:
    """Returns scheme, host and port of a websocket URL, for the Content Security Policy."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("ws", "wss") and parts.hostname and parts.username is None
        origin = f"{parts.scheme}://{parts.netloc}" if known and parts.port != 0 else ""
    except ValueError:
        origin = ""
    if not origin or not url.isascii() or set(url) & set(" ;,'\"\\"):
        raise BadInputError(f"{url} is not the address of a websocket, like ws://hub:9001/")
    return origin


def _built() -> dict[str, tuple[str, bytes]]:
    """Returns path -> (content type, bytes) of all files."""
    if not page_is_built():
        raise NotInstalledError(HOW_TO_BUILD)
    folder = files("s2m3").joinpath("page")
    found = {
        f"/{entry.name}": (kind, entry.read_bytes())
        for entry in folder.iterdir()
        if (kind := _TYPES.get(entry.name[entry.name.rfind(".") :]))
    }
    samples = {
        f"/samples/{entry.name}": (kind, entry.read_bytes())
        for entry in files("s2m3").joinpath("samples").iterdir()
        if (kind := _SAMPLES.get(entry.name[entry.name.rfind(".") :]))
    }
    return found | samples | {"/": found["/index.html"]}


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD requests from a table; no path of a request is used as a file name."""

    files: dict[str, tuple[str, bytes]]
    policy: str
    #: accepted host names, against DNS rebinding: another name that resolves to this machine is refused; None: any
    only_for: tuple[str, ...] | None
    server_version = "s2m3"
    sys_version = ""
    timeout = 10

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host")
        if self.only_for is not None and host not in self.only_for:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "this page is for this machine only")
            return
        found = self.files.get(self.path.partition("?")[0])
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        kind, body = found
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", self.policy)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Logs nothing: the user of the page is the one who loads it."""
