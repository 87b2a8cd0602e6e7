"""Two agents with one node name: finds a running one before the start, and ends one of two that take each other over.

Both would use the same MQTT client id, and each connection would end the other's (session takeover), for ever. Neither
Mosquitto 2.0 nor rumqttd tells the loser why its connection was closed.
"""

import secrets
import threading
import uuid

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.schemas import topics
from s2m3.schemas.errors import NameTakenError
from s2m3.schemas.messages import NodeState
from s2m3.schemas.settings import AgentSettings

__all__ = ["NameConflict", "check_name_is_free"]

_CONFIRM_S = 5.0
#: A retained state arrives right after the SUBACK.
_RETAINED_S = 0.2
#: A running agent answers the probe within milliseconds; one that is frozen or has no cable does not.
_ANSWER_S = 1.5
#: Foreign states after which the younger of two agents ends (the one with the smaller boot id), and after which this
#: agent ends in any case: an agent of an earlier release never does.
_SIGHTINGS, _SIGHTINGS_ANY = 3, 8


def check_name_is_free(settings: AgentSettings) -> None:
    """Checks that no other agent runs under this node's name. Blocks; at most 1.5 s if one seems to.

    The probe is a `lost` with a boot id that no agent has: every reader ignores it, and an agent of any release that
    runs under the name publishes its own state again. If none does, an old connection may linger on the broker, and the
    agent takes it over.

    Args:
        settings: The agent's settings.

    Raises:
        NameTakenError: Another agent answered.
        UnauthorisedError: The broker refused the login, or denies it this node's state.
        S2M3Error: No broker answers.
    """
    loop = Loop("name-check")
    link = Link(settings, f"s2m3-name-{secrets.token_hex(6)}", loop)
    states = _States()
    confirmed = threading.Event()
    listen(link, topics.NODE_STATE, states.on_state, on_subscribed=confirmed.set, node=settings.node)
    loop.start()
    try:
        link.start()
        link.wait_for(confirmed, _CONFIRM_S)
        link.wait_for(states.changed, _RETAINED_S)
        before = states.newest
        if before is None or before.state == "lost":
            return
        states.changed.clear()
        lost = NodeState(state="lost", boot=states.probe)
        link.publish(Outgoing(topics.NODE_STATE.at(settings.root, node=settings.node), lost.encode()))
        if link.wait_for(states.changed, _ANSWER_S) and states.newest is not None and states.newest.state != "lost":
            raise NameTakenError(_taken(settings.node))
    finally:
        link.stop(timeout_s=1.0)
        loop.stop()


class _States:
    """The newest state of the node that is not our own probe. Written in the loop's thread."""

    def __init__(self) -> None:
        self.probe = uuid.uuid4().hex
        self.newest: NodeState | None = None
        self.changed = threading.Event()

    def on_state(self, _: str, state: NodeState | None) -> None:
        if state is None or state.boot != self.probe:
            self.newest = state
            self.changed.set()


def _taken(node: str) -> str:
    return (
        f"another agent runs as node {node!r} on this broker: give each device a name of its own "
        "(--node NAME, S2M3_NODE, or node in s2m3.toml; the default is the host name)"
    )


class NameConflict:
    """Decides from the states published under this node's name whether this agent has to end. Pure.

    After a takeover both agents see the other's state, or its last will, each time they reconnect to Mosquitto (rumqttd
    publishes the newcomer's own last will instead; it listens on one machine only). A late last will of an earlier
    process of this node arrives once.

    Args:
        node: The node's name.
        boot: This process's boot id.
    """

    def __init__(self, node: str, boot: str) -> None:
        self._node = node
        self._boot = boot
        self._is_established = False
        self._foreign: dict[str, int] = {}
        #: set once this agent has to end
        self.error: NameTakenError | None = None

    def on_state(self, state: NodeState | None) -> None:
        """Takes a state that was published under this node's name, our own included."""
        if state is None:
            return
        if state.boot == self._boot:
            self._is_established = True
        elif self._is_established:
            count = self._foreign[state.boot] = self._foreign.get(state.boot, 0) + 1
            if count >= (_SIGHTINGS if self._boot < state.boot else _SIGHTINGS_ANY):
                self.error = NameTakenError(_taken(self._node), node=self._node)
