"""MQTT client ids of planner, nodes, tasks and bridge.

A client that connects with another's client id ends that connection and takes over its session (session takeover);
brokers do not check who owns an id. On a secured site, planner and agents share a session key that makes their ids
unknown to others.
"""

import hmac

from s2m3.schemas.settings import BrokerSettings

__all__ = [
    "TASK_SESSION_S",
    "bridge_client_id",
    "node_client_id",
    "planner_client_id",
    "site_id",
    "task_client_id",
    "without_tag",
]

#: Session expiry of a task's session, seconds: how long it exists without a gateway.
TASK_SESSION_S = 86_400
_TAG = 16
#: Separates name and tag; ids do not contain it.
_SEPARATOR = "."
#: Separate the root from names, and its levels: neither ids nor levels of a root contain them. `/` would deny a client
#: everything on a Mosquitto whose access list has patterns.
_ROOT, _LEVEL = ":", "_"


def _client_id(settings: BrokerSettings, *names: str) -> str:
    """Returns a client id that no other site has: with the root, unless that is the default, or with a keyed tag.

    Ids without a key and with the default root, and all ids with a key, are those of earlier releases: there the tag
    tells sites apart. Others were ambiguous: `garage-pi` of the default root was `pi` of the root `garage`.
    """
    kind, *rest = names
    is_default = settings.root == "s2m3/v1"
    if settings.session_key is None:
        site = [] if is_default else [settings.root.replace("/", _LEVEL)]
        return ("-" if is_default else _ROOT).join([f"s2m3-{kind}", *site, *rest])
    name = "-".join(["s2m3", kind, *([] if is_default else [settings.root.replace("/", "-")]), *rest])
    tag = hmac.new(settings.session_key.get_secret_value().encode(), name.encode(), "sha256").hexdigest()
    return f"{name}{_SEPARATOR}{tag[:_TAG]}"


def without_tag(client_id: str) -> str:
    """Returns a client id without its secret tag, for errors and metrics."""
    return client_id.partition(_SEPARATOR)[0]


def planner_client_id(settings: BrokerSettings) -> str:
    """Returns the planner's client id, one per site: a second planner's connection ends the first's."""
    return _client_id(settings, "planner")


def node_client_id(settings: BrokerSettings, node: str) -> str:
    """Returns the client id of a node's agent."""
    return _client_id(settings, "node", node)


def task_client_id(settings: BrokerSettings, task: str) -> str:
    """Returns the client id of a task's persistent session, which the task's gateway connects with."""
    return _client_id(settings, "front", task)


def bridge_client_id(settings: BrokerSettings, process: str, connection: str = "") -> str:
    """Returns the client id of one of the bridge's connections: the main one, the requester's, or a binding's.

    It contains the process's id, so that two bridges do not disconnect each other in turn: when a second bridge takes
    over, the first reads of it and stands by.
    """
    return _client_id(settings, "bridge", *filter(None, (process, connection)))


def site_id(root: str) -> str:
    """Returns a name of the site that is unique on its broker: `s2m3`, or `s2m3-` and the root."""
    return "s2m3" if root == "s2m3/v1" else f"s2m3-{root.replace('/', '-')}"
