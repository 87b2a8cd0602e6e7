"""Lines of the log, as s2m3/logs.py has them, from a process that imports no package for that."""

import sys
import time

__all__ = ["log_error"]


def log_error(event: str, **fields: object) -> None:
    """Writes one logfmt line to stderr, of level error."""
    at = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1e6):06d}Z"
    known = {"timestamp": stamp, "level": "error", "event": event, **fields}
    sys.stderr.write(" ".join(name if value is True else f"{name}={_shown(value)}" for name, value in known.items()))
    sys.stderr.write("\n")
    sys.stderr.flush()


def _shown(value: object) -> str:
    if value is None or value is False:
        return "" if value is None else "false"
    text, is_quoted = str(value), any(mark in str(value) for mark in ' ="')
    if is_quoted:
        text = text.replace("\\", "\\\\")
    text = text.replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"' if is_quoted else text
