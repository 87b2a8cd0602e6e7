"""What is asked of a broker's socket, and what a connection that came to nothing means."""

import itertools
import socket
import ssl
from pathlib import Path

import pytest

from s2m3.broker.mqtt.sockets import ConnectFailures, cork, current_broker, no_delay, tls_context
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.settings import BrokerSettings
from s2m3.secured.authority import Authority

#: Below those of `free_port`: of a broker that this process has connected to, more is known.
_ports = itertools.count(2_000)


def settings(**changes: object) -> BrokerSettings:
    """A broker that no other test has connected to: what is known of a login is kept for the process."""
    return BrokerSettings.load(port=next(_ports), **changes)


def failures(**changes: object) -> ConnectFailures:
    return ConnectFailures(settings(**changes), "client-7")


def tls_error(reason: str | None) -> ssl.SSLError:
    """An error as OpenSSL gives it: with its own word for the reason, or none."""
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason  # type: ignore[assignment]  # typeshed leaves None out
    return error


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A CA, and a client's certificate of it."""
    issued = Authority.new("s2m3 test")
    authority = Authority(issued.key, issued.certificate)
    client = authority.client("node-a", 1)
    other = authority.client("node-b", 1)
    contents = {
        "ca": issued.certificate,
        "cert": client.certificate,
        "key": client.key,
        "other_key": other.key,
        "nonsense": b"not PEM",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


def test_packets_are_sent_at_once_and_held_back_while_the_socket_is_corked() -> None:
    with socket.socket() as sock:
        no_delay(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        if hasattr(socket, "TCP_CORK"):
            cork(sock, 1)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 1
            cork(sock, 0)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 0


def test_without_a_ca_there_is_no_tls() -> None:
    assert tls_context(settings()) is None


def test_a_broker_has_to_show_a_certificate_of_the_ca_for_its_own_name(files: dict[str, Path]) -> None:
    context = tls_context(settings(tls_ca=files["ca"]))
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1


def test_a_certificate_with_its_key_is_taken(files: dict[str, Path]) -> None:
    assert tls_context(settings(tls_ca=files["ca"], tls_cert=files["cert"], tls_key=files["key"])) is not None


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("a CA that is not there", {"tls_ca": "gone"}, ("tls_ca", "No such file")),
        ("a CA that is no certificate", {"tls_ca": "nonsense"}, ("tls_ca", "not PEM")),
        ("a certificate that is not there", {"tls_cert": "gone", "tls_key": "key"}, ("tls_cert", "No such file")),
        ("another's key", {"tls_cert": "cert", "tls_key": "other_key"}, ("tls_key", "not what belongs together")),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    name: str, changes: dict[str, str], words: tuple[str, ...], files: dict[str, Path], tmp_path: Path
) -> None:
    paths = {"tls_ca": files["ca"]} | {key: tmp_path / file for key, file in changes.items()}
    with pytest.raises(BadInputError) as caught:
        tls_context(settings(**paths))
    assert all(word in caught.value.detail for word in words), name
    assert str(tmp_path) in caught.value.detail


@pytest.mark.parametrize(
    "reason",
    [
        "Bad user name or password",
        "Not authorized",
        "Client identifier not valid",
        "Banned",
        "Bad authentication method",
        "Unsupported protocol version",
    ],
)
def test_a_reason_that_trying_again_would_not_change_is_a_refusal(reason: str) -> None:
    refused = failures(username="ann").with_reason(reason)
    assert refused is not None
    assert refused.detail.startswith(f"the broker refuses client-7 as ann: {reason}; ")


@pytest.mark.parametrize("reason", ["Bad user name or password", "Not authorized"])
def test_where_no_name_is_set_any_is_tried_before_a_refusal_is_believed(reason: str) -> None:
    mine = settings()
    first = ConnectFailures(mine, "client-7")
    assert first.login is None
    assert first.with_reason(reason) is None
    assert first.login == ("s2m3", "s2m3")
    refused = first.with_reason(reason)
    assert refused is not None
    assert refused.detail.startswith(f"the broker refuses client-7: {reason}; ")
    assert ConnectFailures(mine, "another").login is None  # that name did not help
    first.let_in()
    assert ConnectFailures(mine, "another").login == ("s2m3", "s2m3")
    assert ConnectFailures(mine.model_copy(update={"username": "ann"}), "a third").login == ("ann", None)


def test_a_login_without_a_name_is_refused_without_one() -> None:
    refused = failures().with_reason("Banned")
    assert refused is not None
    assert refused.detail.startswith("the broker refuses client-7: Banned; ")


@pytest.mark.parametrize("reason", ["Server unavailable", "Server busy", "Quota exceeded", ""])
def test_any_other_reason_may_pass(reason: str) -> None:
    assert failures().with_reason(reason) is None


def test_the_third_connection_in_a_row_that_is_closed_without_an_answer_is_a_refusal() -> None:
    failed = failures()
    assert failed.before_an_answer(None) is None
    assert failed.before_an_answer(ConnectionResetError()) is None
    refused = failed.before_an_answer(None)
    assert refused is not None
    assert "closed client-7's connection 3 times before an answer" in refused.detail


def test_an_answer_in_between_begins_the_count_again() -> None:
    failed = failures()
    failed.before_an_answer(None)
    failed.before_an_answer(None)
    failed.forget()
    assert failed.before_an_answer(None) is None
    assert failed.before_an_answer(None) is None
    assert failed.before_an_answer(None) is not None


def test_a_login_that_was_let_in_once_is_never_taken_for_refused_and_another_login_is() -> None:
    known = settings(username="ann")
    ConnectFailures(known, "before").let_in()
    again = ConnectFailures(known, "after")
    assert [again.before_an_answer(None) for _ in range(10)] == [None] * 10
    other = ConnectFailures(known.model_copy(update={"username": "bob"}), "other")
    assert [other.before_an_answer(None) is None for _ in range(3)] == [True, True, False]


def test_a_new_connection_begins_at_the_broker_of_the_cluster_that_let_another_one_in() -> None:
    mine = settings(fallback="second:1,third:2")
    first = ConnectFailures(mine, "first")
    assert first.address == mine.addresses[0]
    first.could_not_open(ConnectionRefusedError())
    first.let_in()
    second = ConnectFailures(mine, "second")
    assert second.address == ("second", 1)
    second.could_not_open(ConnectionRefusedError())
    assert second.address == ("third", 2)
    assert ConnectFailures(settings(fallback="second:1,third:2"), "of another site").address[0] == "127.0.0.1"


def test_a_process_says_which_broker_of_a_cluster_let_it_in_last_and_nothing_where_there_is_one() -> None:
    mine = settings(fallback="second:7,third:8")
    assert current_broker(mine) == ""
    made = ConnectFailures(mine, "one")
    made.let_in()
    assert current_broker(mine) == f"{mine.host}:{mine.port}"
    made.could_not_open(ConnectionRefusedError())
    assert current_broker(mine) == f"{mine.host}:{mine.port}"
    made.let_in()
    assert current_broker(mine) == "second:7"
    ConnectFailures(settings(), "another").let_in()
    assert current_broker(settings()) == ""


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("TLSV1_ALERT_CERTIFICATE_REVOKED", "our certificate was revoked"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "our certificate has expired"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "it wants a certificate from us"),
        ("TLSV1_ALERT_UNKNOWN_CA", "our certificate is not of the broker's CA"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "it does not take our certificate"),
        ("SSLV3_ALERT_CERTIFICATE_UNKNOWN", "it does not take our certificate"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "no TLS version or cipher in common"),
        ("WRONG_VERSION_NUMBER", "no TLS is spoken there"),
        ("RECORD_LAYER_FAILURE", "no TLS is spoken there"),
    ],
)
def test_what_is_wrong_with_a_handshake_is_a_refusal_in_words(reason: str, meaning: str) -> None:
    refused = failures(host="broker.example").before_an_answer(tls_error(reason))
    assert refused is not None
    assert refused.detail.startswith("TLS with the broker at broker.example:")
    assert meaning in refused.detail


def test_a_handshake_that_broke_off_for_another_reason_may_pass() -> None:
    assert failures().before_an_answer(tls_error("UNEXPECTED_EOF_WHILE_READING")) is None
    assert failures().before_an_answer(tls_error(None)) is None
    assert failures().before_an_answer(OSError("CERTIFICATE_REVOKED")) is None


def test_a_broker_that_is_not_who_it_should_be_is_a_refusal_with_openssls_words() -> None:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]")
    error.verify_message = "Hostname mismatch"
    refused = failures(host="broker.example").before_an_answer(error)
    assert refused is not None
    assert "the broker at broker.example:" in refused.detail
    assert "is not who it should be: Hostname mismatch; " in refused.detail
