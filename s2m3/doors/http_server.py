"""The HTTP server of the doors: uvicorn with limits on connections and on the time that a header may take."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import h11
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route  # noqa: TC002  # beside the others
from uvicorn.protocols.http.h11_impl import H11Protocol

from s2m3.client import Client
from s2m3.doors import ollama, openai
from s2m3.doors.admission import Admission, read_token
from s2m3.doors.errors import Refusal, error_response
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.settings import DoorSettings

__all__ = ["HttpDoor"]

_log = structlog.get_logger(__name__)
#: Longest header of a request, bytes.
_HEADER_BYTES = 16_384
#: Seconds that an idle connection is kept for its next request.
_KEEP_ALIVE_S = 30
#: Statuses for an unknown path and an unknown method.
_NOT_THERE = (404, 405)
#: Seconds for answers under way when the process ends.
_GRACE_S = 5


class _LimitedProtocol(H11Protocol):
    """HTTP/1.1 in which the number of connections, and the time until a header is complete, are limited.

    Args:
        limits: Most connections, and seconds for a header.
        given: uvicorn's own arguments.
    """

    def __init__(self, *given: Any, limits: DoorSettings, **named: Any) -> None:
        super().__init__(*given, **named)
        self._limits = limits
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuses a connection above the limit; else waits for its first header."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            transport.abort()
            return
        self._await_header()

    def data_received(self, data: bytes) -> None:
        """Reads data; a header that has begun has to be complete in time, even if its bytes arrive slowly."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._header_came()
        elif self._header_timer is None:
            self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the timer."""
        self._header_came()
        super().connection_lost(exc)

    def _await_header(self) -> None:
        self._header_timer = self.loop.call_later(self._limits.header_s, self.transport.abort)

    def _header_came(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


class HttpDoor:
    """Ollama's and OpenAI's API on one port.

    Args:
        settings: Address, token and limits.
        ollama: Whether to answer Ollama's paths.
        openai: Whether to answer OpenAI's paths.

    Raises:
        BadInputError: The address is not a loopback address and there is no token; or the address cannot be used.
    """

    def __init__(self, settings: DoorSettings, *, ollama: bool, openai: bool) -> None:
        self._settings = settings
        self._ollama, self._openai = ollama, openai
        self._token = read_token(settings)
        if self._token is None and not _is_loopback(settings.bind):
            raise BadInputError(
                f"--bind {settings.bind}: without a token the doors listen on loopback only; "
                "write one into a file and name it with --token-file"
            )
        self._socket = _bound(settings.bind, settings.http_port)

    @property
    def url(self) -> str:
        """The URL of the door."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def serve(self, client: Client, stop: asyncio.Event) -> None:
        """Answers requests until `stop` is set; then those under way have 5 s."""
        settings = self._settings
        config = uvicorn.Config(
            self._application(client),
            http=partial(_LimitedProtocol, limits=settings),  # type: ignore[arg-type]  # it is called like the class
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )
        server = _Server(config)
        self._socket.listen(config.backlog)  # who reads that the door is open may connect
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        apis = [name for name, opened in (("ollama", self._ollama), ("openai", self._openai)) if opened]
        _log.info("http_door_open", url=self.url, apis=apis, token="needed" if self._token else "none: loopback only")
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stopped.cancel()
        await serving

    def _application(self, client: Client) -> Admission:
        routes: list[Route] = []
        if self._ollama:
            routes += ollama.routes(client)
        if self._openai:
            routes += openai.routes(client)
        application = Starlette(routes=routes, exception_handlers={HTTPException: _refused, Exception: _failed})
        return Admission(application, self._settings, self._token)


async def _refused(request: Request, error: Exception) -> Response:
    """Answers an unknown path or method, and a body that Admission refuses."""
    path = request.url.path
    if isinstance(error, HTTPException) and error.status_code not in _NOT_THERE:
        return error_response(path, Refusal(error.status_code, error.detail), close=True)
    status = error.status_code if isinstance(error, HTTPException) else _NOT_THERE[0]
    return error_response(path, Refusal(status, f"no such path: {request.method} {path[:100]}"))


async def _failed(request: Request, error: Exception) -> Response:
    """Answers after an unexpected error; uvicorn logs the traceback."""
    _log.error("request_failed", path=request.url.path[:100], error=repr(error)[:300])
    return error_response(request.url.path, Refusal(500, "the door failed: its log says how"))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise BadInputError(
            f"--bind {host} --http-port {port}: {error.strerror}; --http-port 0 picks a free one"
        ) from error
    return bound
