"""Texts for failed connection attempts: what was found at the broker's address instead of a broker."""

import errno
import os
import socket
from dataclasses import dataclass

from s2m3.schemas.errors import BrokerUnreachableError

__all__ = ["NoBroker", "does_not_answer", "error_of", "no_broker"]


@dataclass(frozen=True, slots=True)
class NoBroker:
    """What the last connection attempt found instead of a broker.

    Args:
        why: The text for people.
        at_once: Whether a command fails at once. Services keep trying, as the broker may start after them.
    """

    why: str
    at_once: bool


def no_broker(error: OSError | ValueError, host: str, port: int) -> NoBroker:
    """Returns the explanation of a failed attempt to open a connection.

    Args:
        error: The error of the attempt.
        host: The broker's host, as in the settings.
        port: The broker's port.
    """
    match error:
        case socket.gaierror():
            return NoBroker(f"the name {host!r} cannot be resolved ({error.strerror})", at_once=True)
        case ConnectionRefusedError():
            return NoBroker(f"nothing listens on port {port} of {host} (connection refused)", at_once=True)
        case TimeoutError():
            return NoBroker(f"{host} does not answer (is it on? does a firewall drop port {port}?)", at_once=False)
        case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH as number):
            return NoBroker(f"no route leads to {host} ({os.strerror(number)})", at_once=True)
        case _:
            return NoBroker(str(error), at_once=False)


def does_not_answer(seconds: float) -> NoBroker:
    """Returns the explanation of an accepted connection on which no CONNACK arrived in time."""
    why = f"what listens there took the connection, but did not answer as MQTT v5 within {seconds:g} s"
    return NoBroker(why, at_once=True)


def error_of(where: str, waited_s: float, found: NoBroker | None) -> BrokerUnreachableError:
    """Returns the error for the caller.

    Args:
        where: Host and port.
        waited_s: Time waited for a broker, seconds.
        found: What the last attempt found; None if it has not ended yet.
    """
    why = f"nothing came back within {waited_s:g} s" if found is None else found.why
    return BrokerUnreachableError(f"no MQTT v5 broker answers at {where}: {why}")
