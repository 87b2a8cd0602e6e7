"""Socket options of a broker connection (TCP_NODELAY, TCP_CORK), TLS contexts, and messages for failed handshakes."""

import socket
import ssl
from collections import deque
from typing import Any

from s2m3.broker.mqtt.no_broker import NoBroker, does_not_answer, error_of, no_broker
from s2m3.schemas.errors import BadInputError, BrokerUnreachableError, UnauthorisedError
from s2m3.schemas.settings import BrokerSettings

__all__ = ["ConnectFailures", "cork", "current_broker", "no_delay", "tls_context"]

#: Some brokers refuse a login by closing the socket without a CONNACK. This many closes in a row count as a refusal.
_SILENT_REFUSALS = 3
#: Broker and login of every connection that was ever accepted. For these, a close before CONNACK is no refusal but a
#: network fault, a starting broker, or a proxy or container port that accepts connections while the broker is away.
_let_in: set[tuple[object, ...]] = set()
#: The brokers of a cluster -> the one that accepted a login of this process last: new connections begin there.
_last_there: dict[tuple[tuple[str, int], ...], tuple[str, int]] = {}
#: CONNACK reasons that are permanent: another attempt would fail too.
_FOR_GOOD = frozenset(
    {
        "Bad user name or password",
        "Not authorized",
        "Client identifier not valid",
        "Banned",
        "Bad authentication method",
        "Unsupported protocol version",
    }
)
#: Reasons that a broker which accepts any user name (ejabberd with anonymous logins) gives to a client without one; and
#: the user name and password that are tried then.
_MAY_WANT_A_NAME = frozenset({"Bad user name or password", "Not authorized"})
_ANY_NAME = ("s2m3", "s2m3")
#: Addresses of brokers that accepted that user name, and refused a login without one.
_want_a_name: set[tuple[str, int]] = set()
#: Linux only; on other systems packets are sent one by one
_TCP_CORK: int | None = getattr(socket, "TCP_CORK", None)
#: Part of OpenSSL's reason -> explanation for the operator. Other reasons count as temporary and are retried.
_MEANINGS = {
    "CERTIFICATE_REVOKED": "our certificate was revoked; if that was a mistake: s2m3 secure add",
    "CERTIFICATE_EXPIRED": "our certificate has expired; renew it: s2m3 secure add",
    "CERTIFICATE_REQUIRED": "it wants a certificate from us: set tls_cert and tls_key, or use the port for passwords",
    "UNKNOWN_CA": "our certificate is not of the broker's CA: use the files that s2m3 secure add made for this broker",
    "BAD_CERTIFICATE": "it does not take our certificate",
    "CERTIFICATE_UNKNOWN": "it does not take our certificate",
    "HANDSHAKE_FAILURE": "it and we have no TLS version or cipher in common, or it wants a certificate from us",
    "WRONG_VERSION_NUMBER": "no TLS is spoken there: is it the right port?",
    "RECORD_LAYER_FAILURE": "no TLS is spoken there: is it the right port?",
}


def no_delay(sock: Any) -> None:
    """Sets TCP_NODELAY, so that packets are sent at once; docs/operating.md has the cost of the default."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def cork(sock: socket.socket, on: int) -> None:
    """Sets TCP_CORK where it exists: 1 buffers outgoing packets, 0 sends them together."""
    if _TCP_CORK is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_CORK, on)


def tls_context(settings: BrokerSettings) -> ssl.SSLContext | None:
    """Returns the TLS context for the settings; None without TLS.

    Raises:
        BadInputError: A certificate or key file is missing, unreadable or not valid PEM.
    """
    if settings.tls_ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(settings.tls_ca))
    except OSError as error:  # ssl.SSLError is one
        raise BadInputError(f"tls_ca {settings.tls_ca}: {_why(error)}") from error
    if settings.tls_cert is not None:
        try:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
        except OSError as error:
            files = f"tls_cert {settings.tls_cert}, tls_key {settings.tls_key}"
            raise BadInputError(f"{files}: {_why(error)}") from error
    return context


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not PEM, or not what belongs together ({error.reason or 'unreadable'})"
    return error.strerror or str(error)


class ConnectFailures:
    """Classifies failed connection attempts as permanent refusals or temporary faults.

    Args:
        settings: Where the broker is, and the login.
        name: The client's name, for errors.
    """

    def __init__(self, settings: BrokerSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._addresses = deque(settings.addresses)
        known = _last_there.get(tuple(settings.addresses), self._addresses[0])
        self._addresses.rotate(-self._addresses.index(known))
        self._in_a_row = 0
        #: what the last attempt found instead of a broker; None before the first, and when it found one
        self.no_broker: NoBroker | None = None
        #: attempts since the last one that found a broker
        self._closed_doors = 0
        #: whether a broker refused us without a user name
        self._tries_a_name = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the broker to try next: each failure leads to the next one of the cluster.

        The first is the broker that accepted another connection of this process last.
        """
        return self._addresses[0]

    @property
    def login(self) -> tuple[str, str | None] | None:
        """User name and password of the next attempt; None to give none."""
        settings = self._settings
        if settings.username is not None:
            return settings.username, settings.password.get_secret_value() if settings.password else None
        return _ANY_NAME if self._tries_a_name or self.address in _want_a_name else None

    @property
    def may_pass(self) -> bool:
        """Whether the next attempt may find a broker, so that a command should keep waiting."""
        left = self._closed_doors < len(self._settings.addresses)
        return left or self.no_broker is None or not self.no_broker.at_once

    def could_not_open(self, error: OSError | ValueError) -> UnauthorisedError | None:
        """Notes that a connection could not be opened; returns an error if that is a permanent refusal, else None."""
        self.no_broker = no_broker(error, *self.address)
        self._closed_doors += 1
        if isinstance(error, ssl.SSLError | ConnectionResetError):
            return self.before_an_answer(error)
        self._addresses.rotate(-1)
        self.forget()
        return None

    def not_there(self, waited_s: float) -> BrokerUnreachableError:
        """Returns the error for a caller that has waited so long for the broker."""
        return error_of(f"{self._settings.host}:{self._settings.port}", waited_s, self.no_broker)

    def no_answer(self, seconds: float) -> None:
        """Notes that no CONNACK arrived in time on an open connection."""
        self.no_broker = does_not_answer(seconds)

    def forget(self) -> None:
        """Resets the count of closes before CONNACK: a CONNACK arrived, or nothing accepted the connection."""
        self._in_a_row = 0

    def let_in(self) -> None:
        """Notes that the broker accepted this login."""
        self.no_broker, self._closed_doors = None, 0
        _let_in.add(_login(self._settings))
        _last_there[tuple(self._settings.addresses)] = self.address
        if self._tries_a_name:
            _want_a_name.add(self.address)

    def with_reason(self, reason: str) -> UnauthorisedError | None:
        """Returns the error for a CONNACK reason, in the words of MQTT 5; None if another attempt may succeed.

        Another attempt may succeed after a temporary reason, and with a user name where none is set.
        """
        if reason not in _FOR_GOOD:
            return None
        if reason in _MAY_WANT_A_NAME and self.login is None and self._settings.tls_cert is None:
            self._tries_a_name = True
            return None
        who = f" as {self._settings.username}" if self._settings.username else ""
        hint = "check username and password, and whether this login was revoked"
        return UnauthorisedError(f"the broker refuses {self._name}{who}: {reason}; {hint}")

    def before_an_answer(self, error: OSError | None) -> UnauthorisedError | None:
        """Notes that a connection failed before CONNACK; returns an error if that is a permanent refusal, else None."""
        self._addresses.rotate(-1)
        self._in_a_row += 1
        refused = _tls_refusal(error, self._settings)
        if refused is None and self._in_a_row >= _SILENT_REFUSALS and _login(self._settings) not in _let_in:
            return UnauthorisedError(
                f"the broker closed {self._name}'s connection {self._in_a_row} times before an answer: "
                "a refused login or certificate, no MQTT v5, or TLS on one side only (tls_ca)"
            )
        return refused


def current_broker(settings: BrokerSettings) -> str:
    """Returns host:port of the broker that let in a connection of this process last; "" if there is only one."""
    found = _last_there.get(tuple(settings.addresses)) if settings.fallback else None
    return "" if found is None else f"{found[0]}:{found[1]}"


def _login(settings: BrokerSettings) -> tuple[object, ...]:
    return settings.host, settings.port, settings.tls_ca, settings.username, settings.password, settings.tls_cert


def _tls_refusal(error: OSError | None, settings: BrokerSettings) -> UnauthorisedError | None:
    if not isinstance(error, ssl.SSLError):
        return None
    where = f"the broker at {settings.host}:{settings.port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "check tls_ca, and that the host is a name in the certificate (s2m3 secure init --host)"
        return UnauthorisedError(f"{where} is not who it should be: {error.verify_message.rstrip('.')}; {hint}")
    for reason, meaning in _MEANINGS.items():
        if reason in (error.reason or ""):
            return UnauthorisedError(f"TLS with {where} failed: {meaning}")
    return None
