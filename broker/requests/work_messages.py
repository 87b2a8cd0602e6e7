"""Publishes work, pieces of its inputs ahead of it, and orders to stop it, to the module topic of a step."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.schemas import topics
from s2m3.schemas.errors import NotReadyError, S2M3Error
from s2m3.schemas.messages import NodeState
from s2m3.schemas.wire.codec import CONTENT_TYPE, encode_work
from s2m3.schemas.wire.input_pieces import LONGEST_PIECE, SINCE, Growing, GrowingInput, InputPiece, encode_input_piece
from s2m3.schemas.wire.notices import encode_stop
from s2m3.schemas.wire.work import Work

__all__ = ["WorkSender", "send_stop", "send_work"]

#: Most pairs of stream and node whose sent bytes are remembered; to another node all bytes are sent again.
_MOST_STREAMS = 256


class WorkSender:
    """Publishes a requester's work. A node gets the bytes of growing inputs that it lacks, in pieces ahead of the work.

    A node that has lost pieces answers `not_ready`. The next attempt then carries all bytes, as any other input.

    Args:
        link: The connection.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        #: node -> its process, of nodes that keep pieces
        self._keeping: dict[str, str] = {}
        #: (stream, module topic, the node's process) -> bytes sent
        self._sent: dict[tuple[bytes, str, str], int] = {}

    def on_node_state(self, node: str, state: NodeState | None) -> None:
        """Notes whether a node keeps pieces of inputs, and its process."""
        if state is not None and state.protocol >= SINCE:
            self._keeping[node] = state.boot
        else:
            self._keeping.pop(node, None)

    def send(self, work: Work, failed: Callable[[S2M3Error], None]) -> None:
        """Publishes a message to the module topic of its step, and first the pieces that it refers to.

        Args:
            work: The message; its hop names module and node.
            failed: As of `send_work`.

        Raises:
            TooLargeError: The encoded message exceeds the broker's limit.
            BusyError: The link's outgoing queue is full.
        """
        growing = {name: value for name, value in work.inputs.items() if isinstance(value, Growing)}
        boot = self._keeping.get(work.hop.node)
        if growing and boot is not None:
            topic = topics.MODULE_IN.at(self._link.root, module=work.hop.module, node=work.hop.node)
            for value in growing.values():
                if work.attempt > 1:
                    self._forget(value.stream)
                else:
                    self._send_new(value, topic, boot, work.ms_left / 1000)
            if work.attempt == 1:
                inputs = {name: value for name, value in work.inputs.items() if name not in growing}
                named = {name: GrowingInput(value.stream, len(value)) for name, value in growing.items()}
                work = replace(work, inputs=inputs, growing=named)
        send_work(self._link, work, failed)

    def _send_new(self, value: Growing, topic: str, boot: str, expiry_s: float) -> None:
        key = (value.stream, topic, boot)
        begun = self._sent.pop(key, 0)
        for at in range(begun, len(value), LONGEST_PIECE):
            piece = InputPiece(value.stream, at, value[at : at + LONGEST_PIECE])
            user = encode_input_piece(piece)
            message = Outgoing(topic, piece.data, correlation=piece.stream, expiry_s=expiry_s, user=user)
            self._link.publish(message, on_refused=lambda _: None)  # the work behind it is refused, too
        if len(self._sent) >= _MOST_STREAMS:
            del self._sent[next(iter(self._sent))]
        self._sent[key] = len(value)

    def _forget(self, stream: bytes) -> None:
        self._sent = {key: sent for key, sent in self._sent.items() if key[0] != stream}


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
