"""Maps error codes to HTTP: a status, and the body that each API's clients read (docs/doors.md)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

from s2m3.schemas.errors import S2M3Error

__all__ = ["Refusal", "error_body", "error_response", "refusal_of"]

#: Code of an error -> HTTP status, and OpenAI's type.
_MEANINGS: Mapping[str, tuple[int, str]] = {
    "bad_input": (400, "invalid_request_error"),
    "unknown_task": (404, "invalid_request_error"),
    "too_large": (413, "invalid_request_error"),
    "busy": (503, "server_error"),
    "no_capacity": (503, "server_error"),
    "not_ready": (503, "server_error"),
    "timeout": (504, "server_error"),
    "module_failed": (500, "server_error"),
    "unauthorised": (500, "server_error"),
}
_TYPES = {401: "authentication_error", 403: "permission_error"}
_CLIENT, _SERVER = range(400, 500), 500
_UNAUTHORISED, _UNAVAILABLE = 401, 503


@dataclass(frozen=True)
class Refusal:
    """An error as an HTTP answer.

    Args:
        status: The HTTP status.
        message: One line for people.
        code: The error's code; None for a refusal of the door itself.
    """

    status: int
    message: str
    code: str | None = None


def refusal_of(error: S2M3Error) -> Refusal:
    """Returns an error as an HTTP answer."""
    status, _ = _MEANINGS.get(error.code, (_SERVER, ""))
    return Refusal(status, str(error), error.code)


def error_body(refusal: Refusal, *, openai: bool) -> dict[str, Any]:
    """Returns the JSON of an error: OpenAI's is an object, Ollama's a text."""
    if not openai:
        return {"error": refusal.message}
    kind = _MEANINGS.get(refusal.code or "", (0, ""))[1] or _TYPES.get(refusal.status)
    kind = kind or ("invalid_request_error" if refusal.status in _CLIENT else "server_error")
    code = "model_not_found" if refusal.code == "unknown_task" else refusal.code
    return {"error": {"message": refusal.message, "type": kind, "param": None, "code": code}}


def error_response(path: str, refusal: Refusal, *, close: bool = False) -> JSONResponse:
    """Returns the answer to a refused request.

    Args:
        path: The request's path, which says which API's clients read the answer.
        refusal: The refusal.
        close: Whether the connection is closed after the answer.
    """
    headers = {"connection": "close"} if close else {}
    if refusal.status == _UNAUTHORISED:
        headers["www-authenticate"] = "Bearer"
    if refusal.status == _UNAVAILABLE:
        headers["retry-after"] = "1"
    return JSONResponse(error_body(refusal, openai=bool(re.match(r"/v1(/|$)", path))), refusal.status, headers)
