"""What a Python caller is told: no broker, no such task, a file that is none."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import s2m3 as public
from s2m3 import client as client_module
from s2m3.broker.mqtt.link import Link
from s2m3.broker.servers.launch import Broker, default_kind, free_port
from s2m3.client import Client
from s2m3.python_inputs import in_words_of_python
from s2m3.schemas.errors import BadInputError, BrokerUnreachableError, UnknownTaskError
from s2m3.schemas.wire.plain import read_inputs
from tests.conftest import WAIT_S


class Hourly(Link):
    """A link that waits for a broker for an hour, where it waits at all."""

    attempted = threading.Event()

    def start(self, timeout_s: float = 3_600.0, *, patient: bool = True) -> None:
        super().start(timeout_s, patient=patient)

    def begin(self) -> None:
        super().begin()
        self.attempted.set()


@pytest.fixture
def hourly(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    monkeypatch.setattr(client_module, "Link", Hourly)
    Hourly.attempted.clear()
    return Hourly.attempted


@pytest.mark.usefixtures("hourly")
@pytest.mark.parametrize(
    ("host", "why"),
    [("127.0.0.1", "nothing listens on port"), ("no-such-host.invalid", "cannot be resolved")],
)
def test_a_broker_that_cannot_be_there_is_an_error_of_its_own_and_is_not_waited_for(host: str, why: str) -> None:
    with pytest.raises(public.BrokerUnreachableError, match=why) as raised:
        Client(host, free_port())
    assert type(raised.value) is BrokerUnreachableError
    assert isinstance(raised.value, public.S2M3Error)
    assert raised.value.code == "broker_unreachable"


def test_who_asks_for_patience_gets_a_broker_that_starts_later(hourly: threading.Event) -> None:
    port = free_port()
    with ThreadPoolExecutor(1) as waiting:
        made = waiting.submit(Client, port=port, patient=True)
        assert hourly.wait(WAIT_S)
        with Broker(default_kind(), port=port), made.result(WAIT_S) as client:
            assert client.under_way == 0


@pytest.mark.short_on("mosquitto")
def test_an_unknown_task_is_said_with_those_that_there_are(noop_client: Client) -> None:
    with pytest.raises(UnknownTaskError, match=r"^unknown_task: no task 'nop'; there are: noop$"):
        noop_client.ask("nop", left=1, right=2)
    assert noop_client.knows("noop")
    assert not noop_client.knows("nop")
    assert not noop_client.knows("No Task")
    assert noop_client.ask("noop", left=1, right=2).value == [1, 2]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("cat.jpg", "the text 'cat.jpg'"),
        ("./" + "a/" * 1_000 + ".jpg", "the text './" + "a/" * 39 + "'"),
        (7, "int"),
        ([b"x", "cat.jpg"], "the text 'cat.jpg'"),
    ],
)
def test_a_file_by_its_name_alone_is_refused_in_the_words_of_python(given: object, shown: str) -> None:
    with pytest.raises(BadInputError) as raised:
        read_inputs({"image": "images"}, {"image": given}, {})
    error = in_words_of_python(raised.value)
    assert str(error) == f"bad_input: input 'image' takes a file, as bytes or as a pathlib.Path, not {shown}"
    assert error.args == (error.detail,)


def test_other_errors_stay_as_they_are() -> None:
    error = BadInputError("input 'text' is missing", step="words")
    assert in_words_of_python(error) is error
    assert str(error) == "bad_input: input 'text' is missing (step words)"
