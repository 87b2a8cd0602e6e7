"""One of two clustered brokers is killed or cut off under load: who was there goes on, and each side serves itself."""

import json
import threading
import time
from collections import Counter
from typing import Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from s2m3.client import Client
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site
from tests.clustered.conftest import SpreadOut, SpreadSite
from tests.conftest import WAIT_S

_MANY, _FIRST = 1_000, 300
_PER_S = 100.0
#: Plain requests of each side of a cut: how many there are, are asked before it, and until it ends; and the pace.
_OF_SIDE, _BEFORE, _UNTIL, _SIDE_PER_S = 500, 100, 400, 25.0


class PlainLoad:
    """Asks as 3.1.1 devices do, at a set pace, and counts answers and wrong ones.

    When its own connection was lost, it asks again what is not answered: the broker has forgotten who listened.
    """

    def __init__(self, settings: BrokerSettings, *, first: int = 0, per_s: float = _PER_S) -> None:
        self.answered: Counter[int] = Counter()
        self.wrong: list[object] = []
        self.longest_s = 0.0
        self.losses = self.asked_again = 0
        self._root, self._sent, self._pause = settings.root, dict[int, float](), threading.Event()
        self._first, self._per_s = first, per_s
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.username_pw_set(settings.username, "s2m3")
        self._client.reconnect_delay_set(1, 1)
        self._client.on_message = self._on_answer
        self._client.on_subscribe = self._on_subscribed
        self._subscribed = threading.Event()
        self._client.on_connect = lambda c, *_: c.subscribe(f"{self._root}/response/noop", qos=1)
        self._client.connect(settings.host, settings.port)
        self._client.loop_start()
        assert self._subscribed.wait(WAIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def asked(self) -> int:
        """Number of requests that were asked."""
        return len(self._sent)

    def ask(self, number: int) -> None:
        """Asks, and waits until the next one is due."""
        number += self._first
        self._sent[number] = time.monotonic()
        self._publish(number)
        self._pause.wait(1 / self._per_s)

    def _publish(self, number: int) -> None:
        request = {"transaction": number, "inputs": {"left": number, "right": number}}
        self._client.publish(f"{self._root}/request/noop", json.dumps(request), qos=1)

    def _on_subscribed(self, *_: object) -> None:
        if self._subscribed.is_set():
            self.losses += 1
            for number in [number for number in list(self._sent) if not self.answered[number]]:
                self.asked_again += 1
                self._publish(number)
        self._subscribed.set()

    def wait(self) -> list[int]:
        """Waits until all are answered; returns those that are not in time."""
        deadline = time.monotonic() + WAIT_S
        while len(self.answered) < len(self._sent) and time.monotonic() < deadline:
            self._pause.wait(0.1)
        return [number for number in self._sent if not self.answered[number]]

    def _on_answer(self, _c: paho.Client, _u: object, message: paho.MQTTMessage) -> None:
        answer = json.loads(message.payload)
        number = answer["transaction"]
        if number not in self._sent:  # another caller's
            return
        self.answered[number] += 1
        self.longest_s = max(self.longest_s, time.monotonic() - self._sent[number])
        if answer.get("answer") != [number, number]:
            self.wrong.append(answer)


def _serve(spread: SpreadOut) -> SpreadSite:
    """Starts a site with the planner and the gateway at the first broker, and an agent at each."""
    site = spread({"a": 0, "b": 1}, 0)
    first, second = site.broker.ports  # type: ignore[attr-defined]
    site.environment["S2M3_FALLBACK"] = f"127.0.0.1:{second},127.0.0.1:{first}"
    site.start_agent("a")
    site.start_planner()
    with Site(site.at(1), roll_call="test") as seen:
        assert seen.wait(lambda s: s.planner is not None and s.planner.state == "online", WAIT_S), site.log("planner")
        add_task(seen, "noop", m.TaskSpec(model="noop", max_replicas=2))
        assert seen.wait(lambda s: s.answers("noop"), WAIT_S), site.log("planner")
        site.start_agent("b")
        assert seen.wait(lambda s: s.nodes.ready == {"a", "b"}, WAIT_S), site.log("planner")
        assert seen.plans["a"].gateways == ["noop"]
        assert seen.wait(lambda s: "b" in s.plans and s.plans["b"].deputies == {"noop": "a"}, WAIT_S), seen.plans
    return site


@pytest.mark.long
@pytest.mark.timeout(900)
def test_clients_requests_outlive_a_broker_of_the_cluster(
    spread: SpreadOut, capsys: pytest.CaptureFixture[str]
) -> None:
    site = _serve(spread)
    first = site.broker.ports[0]  # type: ignore[attr-defined]
    there = site.at(1).model_copy(update={"fallback": f"127.0.0.1:{first}"})
    failed: list[str] = []
    with Client(settings=there) as client:
        client.ask("noop", left=0, right=0, deadline_s=WAIT_S)
        began = time.monotonic()
        for number in range(_MANY):
            if number == _FIRST:
                site.broker.kill(0)  # type: ignore[call-arg]
            try:
                answer = client.ask("noop", left=number, right=number, deadline_s=60)
                assert answer.value == [number, number]
            except S2M3Error as error:
                failed.append(str(error))
        took = time.monotonic() - began
    with capsys.disabled():
        print(f"\n    1,000 requests in {took:.1f} s, {len(failed)} failed: {failed[:3]}")  # noqa: T201  # the figure
    assert not failed


@pytest.mark.long
@pytest.mark.timeout(900)
def test_plain_requests_outlive_the_broker_of_their_gateway(
    spread: SpreadOut, capsys: pytest.CaptureFixture[str]
) -> None:
    site = _serve(spread)
    with PlainLoad(site.at(1)) as load:
        for number in range(_MANY):
            if number == _FIRST:
                site.broker.kill(0)  # type: ignore[call-arg]
            load.ask(number)
        lost = load.wait()
    twice = sum(count > 1 for count in load.answered.values())
    with capsys.disabled():
        print(f"\n    {_MANY} plain: {len(lost)} lost, {twice} twice, longest {load.longest_s:.1f} s")  # noqa: T201
    assert not lost
    assert not load.wrong


@pytest.mark.long
@pytest.mark.timeout(900)
def test_clients_requests_go_on_while_the_cluster_is_cut_in_two(
    spread: SpreadOut, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client is cut off from planner and gateway; what follows a mended cut: docs/scale.md."""
    site = _serve(spread)
    failed: list[str] = []
    with Client(settings=site.at(1)) as client:
        client.ask("noop", left=0, right=0, deadline_s=WAIT_S)
        began = time.monotonic()
        for number in range(_MANY):
            if number == _FIRST:
                site.broker.cut()  # type: ignore[attr-defined]
            try:
                answer = client.ask("noop", left=number, right=number, deadline_s=60)
                assert answer.value == [number, number]
            except S2M3Error as error:
                failed.append(str(error))
        took = time.monotonic() - began
    with capsys.disabled():
        print(f"\n    1,000 requests in {took:.1f} s, cut in two: {len(failed)} failed: {failed[:3]}")  # noqa: T201
    assert not failed


@pytest.mark.long
@pytest.mark.timeout(900)
def test_plain_requests_of_both_sides_are_answered_while_the_cluster_is_cut_in_two_and_after(
    spread: SpreadOut, capsys: pytest.CaptureFixture[str]
) -> None:
    site = _serve(spread)
    with (
        PlainLoad(site.at(0), per_s=_SIDE_PER_S) as here,
        PlainLoad(site.at(1), first=_MANY, per_s=_SIDE_PER_S) as there,
    ):
        asking = [threading.Thread(target=lambda s=side: [s.ask(n) for n in range(_OF_SIDE)]) for side in (here, there)]
        for thread in asking:
            thread.start()
        _wait_until_asked(here, there, _BEFORE)
        site.broker.cut()  # type: ignore[attr-defined]
        _wait_until_asked(here, there, _UNTIL)
        site.broker.mend()  # type: ignore[attr-defined]
        for thread in asking:
            thread.join()
        lost = [side.wait() for side in (here, there)]
    for name, side, numbers in zip(("here", "there"), (here, there), lost, strict=True):
        twice = sum(count > 1 for count in side.answered.values())
        asked_again = f"{side.asked_again} asked again after {side.losses} losses of the caller's connection"
        with capsys.disabled():
            print(  # noqa: T201  # the figures
                f"\n    plain, {name}: {len(numbers)} of {side.asked} lost, {twice} twice, {asked_again},"
                f" longest {side.longest_s:.1f} s"
            )
    assert not any(lost)
    assert not here.wrong
    assert not there.wrong


def _wait_until_asked(here: PlainLoad, there: PlainLoad, number: int) -> None:
    while min(here.asked, there.asked) < number:
        time.sleep(0.05)
