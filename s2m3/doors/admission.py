"""Admission to the HTTP doors, in front of the application: checks host, origin, token, size, time and number.

DNS rebinding: a web page whose name is made to point to this machine sends that name as `Host`, and is refused.
"""

import asyncio
import base64
import hmac
import ipaddress
import re
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s2m3.doors.errors import Refusal, error_response
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.settings import DoorSettings

__all__ = ["Admission", "read_token"]

_log = structlog.get_logger(__name__)
#: Top-level names that public DNS does not resolve.
_LOCAL = ("localhost", ".localhost", ".local", ".internal", ".home.arpa", ".lan")
_LEAST_TOKEN = 16
#: Bodies in memory at once, as a multiple of the largest.
_BODIES = 4


def read_token(settings: DoorSettings) -> str | None:
    """Returns the token that callers must send; None if there is none.

    Raises:
        BadInputError: The file cannot be read, or its token is too short.
    """
    if settings.token is not None:
        return settings.token.get_secret_value()
    if settings.token_file is None:
        return None
    try:
        token = settings.token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"--token-file {settings.token_file}: {error}") from error
    if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable():
        raise BadInputError(f"--token-file {settings.token_file}: a token has at least {_LEAST_TOKEN} ASCII characters")
    return token


class _RefusedError(HTTPException):
    """A request that is refused: status and one line. Inside the application it becomes the application's answer."""

    @property
    def refusal(self) -> Refusal:
        """The refusal as an HTTP answer."""
        return Refusal(self.status_code, self.detail)


class Admission:
    """An ASGI application in front of another: passes allowed requests on, and counts bodies as they arrive.

    Args:
        app: The application.
        settings: The limits.
        token: The token that callers must send; None admits all.
    """

    def __init__(self, app: ASGIApp, settings: DoorSettings, token: str | None) -> None:
        self._app, self._settings = app, settings
        self._token = token.encode() if token is not None else None
        own = socket.gethostname().lower()
        self._hosts = {own, settings.bind.lower(), *(host.lower() for host in settings.allow_hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in settings.allow_origins}
        self._most_body = int(settings.max_body_mb * 1_000_000)
        self._requests = 0
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        body = _Body(self, receive)
        try:
            headers = _headers(scope)
            self._check(headers)
            body.announced(headers.get("content-length"))
            self._count_request()
            try:
                async with asyncio.timeout(self._settings.request_s):
                    await self._app(scope, body.receive, sending)
            finally:
                self._requests -= 1
        except _RefusedError as refused:
            if begun:
                raise
            await error_response(scope["path"], refused.refusal, close=True)(scope, receive, send)
        except TimeoutError:
            _log.warning("request_took_too_long", path=scope["path"][:100], limit_s=self._settings.request_s)
            if not begun:
                late = Refusal(504, f"not answered in {self._settings.request_s:g} s")
                await error_response(scope["path"], late, close=True)(scope, receive, send)
        finally:
            self._held -= body.size

    def _count_request(self) -> None:
        if self._requests >= self._settings.max_requests:
            raise _RefusedError(503, f"{self._requests} requests are under way: ask again")
        self._requests += 1

    def _check(self, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise _RefusedError(403, f"the host {host[:80]!r} is not a name of this door: --allow-hosts names more")
        origin = headers.get("origin")
        if origin is not None and not self._is_welcome(origin, host):
            raise _RefusedError(403, f"the origin {origin[:80]!r} may not ask here: --allow-origins names more")
        if self._token is not None and not hmac.compare_digest(_token_of(headers), self._token):
            raise _RefusedError(401, "this door needs its token: Authorization: Bearer …")

    def _is_ours(self, host: str) -> bool:
        """Returns whether a Host is an address, or a name that a public DNS server cannot make point here."""
        found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", host.lower())
        if found is None:
            return False
        name = found[1].strip("[]").rstrip(".")
        if name in self._hosts or "." not in name or name.endswith(_LOCAL):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_welcome(self, origin: str, host: str) -> bool:
        given = origin.lower()
        return given in self._origins or (given != "null" and urlsplit(given).netloc == host.lower())

    def hold(self, size: int, of_body: int) -> None:
        """Counts bytes of a body that are in memory.

        Raises:
            _RefusedError: The body is too large, or all bodies together are.
        """
        if of_body + size > self._most_body:
            raise _RefusedError(413, f"the body is larger than {self._settings.max_body_mb:g} MB")
        if self._held + size > _BODIES * self._most_body:
            raise _RefusedError(503, "too many large requests are under way: ask again")
        self._held += size

    @property
    def body_s(self) -> float:
        """Longest time in which a body may arrive, seconds."""
        return self._settings.body_s


class _Body:
    """The body of one request while it arrives."""

    def __init__(self, admission: Admission, receive: Receive) -> None:
        self._admission, self._receive = admission, receive
        self._deadline = asyncio.get_running_loop().time() + admission.body_s
        self._arrived = 0
        self._complete = False
        #: bytes that are counted: those that the header announces, or those that have arrived
        self.size = 0

    def announced(self, length: str | None) -> None:
        """Counts the bytes that the header announces, before any is read."""
        if length is not None and length.isdecimal():
            self._count(int(length[:15]))

    def _count(self, size: int) -> None:
        self._admission.hold(size, self.size)
        self.size += size

    async def receive(self) -> Message:
        """Returns the next part of the body.

        Raises:
            _RefusedError: The body is too large, or takes too long.
        """
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            raise _RefusedError(408, f"the body took longer than {self._admission.body_s:g} s") from error
        self._arrived += len(message.get("body", b""))
        if self._arrived > self.size:
            self._count(self._arrived - self.size)
        self._complete = not message.get("more_body", False)
        return message


def _headers(scope: Scope) -> dict[str, str]:
    """Returns the headers.

    Raises:
        _RefusedError: There are several Host headers, or another header names a host, too.
    """
    given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    if sum(name == "host" for name, _ in given) != 1:
        raise _RefusedError(400, "a request has one Host")
    return dict(given)


def _token_of(headers: Mapping[str, str]) -> bytes:
    """Returns the token of a request, from `Bearer` or as the password of `Basic`; empty if there is none."""
    kind, _, rest = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return rest.strip().encode()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return b""
