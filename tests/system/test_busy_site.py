"""A site whose telemetry never ceases, as that of many nodes: it is read nonetheless; no reader waits for a pause."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.document import Document
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site
from s2m3.uninstall import Retained
from tests.conftest import WAIT_S

#: A message so often, seconds: two hundred idle nodes publish a load each 2 s.
_EVERY_S = 0.01


@contextmanager
def repeated(settings: BrokerSettings, loop: Loop, path: topics.TopicPath, *documents: Document) -> Iterator[None]:
    """A node that publishes these documents in turn, again and again."""
    link, published, number = Link(settings, "busy", loop), threading.Event(), 0

    def publish() -> None:
        nonlocal number
        payload = documents[number % len(documents)].encode()
        link.publish(Outgoing(path.at(settings.root, node="busy"), payload, qos=path.qos, retain=path.retain))
        number += 1
        published.set()

    link.start()
    timer = loop.every(_EVERY_S, publish)
    try:
        assert published.wait(WAIT_S)
        yield
    finally:
        timer.cancel()
        link.stop()


def keep(settings: BrokerSettings, loop: Loop) -> None:
    """Has the broker retain the state of a node."""
    link, kept = Link(settings, "steady", loop), threading.Event()
    link.start()
    state = m.NodeState(state="ready", boot="1").encode()
    link.publish(Outgoing(topics.NODE_STATE.at(settings.root, node="a"), state, retain=True), on_delivered=kept.set)
    assert kept.wait(WAIT_S)
    link.stop()


@pytest.mark.timeout(WAIT_S)
def test_a_view_does_not_wait_for_telemetry_to_cease(settings: BrokerSettings, loop: Loop) -> None:
    keep(settings, loop)
    with repeated(settings, loop, topics.NODE_LOAD, m.NodeLoad(queues={})), Site(settings) as site:
        assert site.nodes.present == {"a"}


@pytest.mark.timeout(WAIT_S)
def test_a_view_does_not_wait_for_ever_for_documents_to_cease(
    settings: BrokerSettings, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2m3.snapshot._SETTLED_S", 0.5)
    keep(settings, loop)
    reports = [m.Reported(boot="1", free_mb=free) for free in (1.0, 2.0)]
    with repeated(settings, loop, topics.NODE_REPORTED, *reports), Site(settings) as site:
        assert (set(site.nodes.present), set(site.reported)) == ({"a"}, {"busy"})


@pytest.mark.timeout(WAIT_S)
def test_what_is_retained_is_read_although_telemetry_does_not_cease(settings: BrokerSettings, loop: Loop) -> None:
    keep(settings, loop)
    with repeated(settings, loop, topics.NODE_LOAD, m.NodeLoad(queues={})), Retained(settings, "house") as retained:
        assert retained.own == [topics.NODE_STATE.at(settings.root, node="a")]
        assert retained.running == ["node a"]


@pytest.mark.timeout(WAIT_S)
def test_no_document_changes_while_a_view_is_still(settings: BrokerSettings, loop: Loop) -> None:
    state = topics.NODE_STATE.at(settings.root, node="a")
    keep(settings, loop)
    other, subscribed, heard = Link(settings, "other", loop), threading.Event(), threading.Event()
    other.start()
    other.subscribe(state, lambda m: None if m.payload else heard.set(), on_subscribed=subscribed.set)
    assert subscribed.wait(WAIT_S)
    with Site(settings) as site:
        with site.still():
            other.publish(Outgoing(state, b"", retain=True))
            assert heard.wait(WAIT_S)
            assert site.nodes.present == {"a"}
        assert site.wait(lambda s: not s.nodes.present, WAIT_S)
    other.stop()
