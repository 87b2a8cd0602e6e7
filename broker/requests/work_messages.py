"""Publishes work, and orders to stop it, to the module topic of a step."""

from collections.abc import Callable
from functools import partial

from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.schemas import topics
from s2m3.schemas.errors import NotReadyError, S2M3Error
from s2m3.schemas.wire.codec import CONTENT_TYPE, encode_stop, encode_work
from s2m3.schemas.wire.work import Work

__all__ = ["send_stop", "send_work"]


def send_work(link: Link, work: Work, failed: Callable[[S2M3Error], None]) -> None:
    """Publishes a message to the module topic of its step.

    Args:
        link: The connection.
        work: The message; its hop names module and node.
        failed: Called if the broker reports that nobody subscribes to the module topic, or denies the publication.

    Raises:
        TooLargeError: The encoded message exceeds the broker's limit.
        BusyError: The link's outgoing queue is full.
    """
    payload, user = encode_work(work)
    message = Outgoing(
        topics.MODULE_IN.at(link.root, module=work.hop.module, node=work.hop.node),
        payload,
        reply_to=work.reply_to,
        correlation=work.request,
        content_type=CONTENT_TYPE,
        expiry_s=work.ms_left / 1000,
        user=user,
    )
    link.publish(message, on_no_subscribers=partial(_no_subscribers, work, failed), on_refused=failed)


def _no_subscribers(work: Work, failed: Callable[[S2M3Error], None]) -> None:
    hop = work.hop
    failed(NotReadyError(f"nobody serves {hop.module} on {hop.node}", step=work.step, node=hop.node))


def send_stop(link: Link, work: Work) -> None:
    """Tells a node that the result of a work is not needed any more. If this is lost, the node generates in vain.

    Raises:
        BusyError: The link's outgoing queue is full.
    """
    topic = topics.MODULE_IN.at(link.root, module=work.hop.module, node=work.hop.node)
    user = encode_stop(work)
    message = Outgoing(topic, b"", correlation=work.request, expiry_s=work.ms_left / 1000, user=user)
    link.publish(message, on_refused=lambda _: None)  # if this is denied, the work was denied too
