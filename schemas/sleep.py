"""Documents on nodes that sleep: an operator's settings of a node, wake orders, and requests that want it awake."""

from ipaddress import IPv4Address
from typing import Annotated

from pydantic import AfterValidator, Field

from s2m3.schemas.document import Document
from s2m3.schemas.ids import Id

__all__ = ["DISCARD_PORT", "MAC_PATTERN", "Demand", "NodeSettings", "WakeOrder"]

#: UDP port of magic packets: the discard service (RFC 863).
DISCARD_PORT = 9
#: A MAC address (EUI-48) as it is on the bus: lower case, with colons.
MAC_PATTERN = r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"


def _check_address(value: str) -> str:
    IPv4Address(value)  # raises ValueError
    return value


Mac = Annotated[str, Field(pattern=MAC_PATTERN, examples=["52:54:00:12:34:56"])]
Address = Annotated[str, AfterValidator(_check_address), Field(examples=["192.168.1.255"])]


class NodeSettings(Document):
    """What the operator says of a node (`s2m3 node set`); kept after the node has left."""

    #: weight among the nodes; what a point is worth: docs/placement.md
    prefer: float = Field(default=1.0, ge=0, le=100)
    #: MAC address for Wake-on-LAN; None: the node is never woken
    wake: Mac | None = None
    #: where magic packets are sent; None: the broadcast addresses of the sender's networks
    wake_address: Address | None = None
    wake_port: int = Field(default=DISCARD_PORT, gt=0, lt=65_536)
    #: minutes without work after which the node puts its machine to sleep; None: never
    idle_minutes: float | None = Field(default=None, gt=0, le=100_000, examples=[15.0])


class WakeOrder(Document):
    """The planner's order to an agent to send one magic packet."""

    #: the sleeping node
    node: Id
    wake: Mac
    wake_address: Address | None = None
    wake_port: int = Field(default=DISCARD_PORT, gt=0, lt=65_536)


class Demand(Document):
    """There are requests for a task that a sleeping node would serve better; at most one in some seconds."""

    asker: str | None = Field(default=None, description="who asks, for people")
