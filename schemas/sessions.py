"""Client ids on the broker, so that every party's session is known by name.

Whoever connects with another's client id ends that one's connection and takes over its session, and no MQTT broker asks
whose it is. With a session key, that planner and agents of a secured site share, others cannot know these ids.
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

#: How long a task's session waits for its next gateway.
TASK_SESSION_S = 86_400
_TAG = 16
#: In no id.
_SEPARATOR = "."


def _client_id(settings: BrokerSettings, *names: str) -> str:
    """Two sites on one broker must not share client ids: the root is part of them, if it is not the usual one."""
    kind, *rest = names
    site = [] if settings.root == "s2m3/v1" else [settings.root.replace("/", "-")]
    name = "-".join(["s2m3", kind, *site, *rest])
    if settings.session_key is None:
        return name
    tag = hmac.new(settings.session_key.get_secret_value().encode(), name.encode(), "sha256").hexdigest()
    return f"{name}{_SEPARATOR}{tag[:_TAG]}"


def without_tag(client_id: str) -> str:
    """Returns what others may be told of a client id: errors reach callers, and metrics whoever scrapes them."""
    return client_id.partition(_SEPARATOR)[0]


def planner_client_id(settings: BrokerSettings) -> str:
    """The one planner's: a second one with it would end the first's connection."""
    return _client_id(settings, "planner")


def node_client_id(settings: BrokerSettings, node: str) -> str:
    """An agent's."""
    return _client_id(settings, "node", node)


def task_client_id(settings: BrokerSettings, task: str) -> str:
    """A task's own: whichever node is its gateway connects with it."""
    return _client_id(settings, "front", task)


def bridge_client_id(settings: BrokerSettings, process: str, connection: str = "") -> str:
    """One of the bridge's connections: its own, the one it asks on, and one for each binding.

    The process is in the name: when a second bridge takes over, the first hears of it and stands by, instead of being
    thrown out, coming back, and throwing the second out.
    """
    return _client_id(settings, "bridge", *filter(None, (process, connection)))


def site_id(root: str) -> str:
    """A site's own name, where others on the broker could have the same things: s2m3, or s2m3 and its root."""
    return "s2m3" if root == "s2m3/v1" else f"s2m3-{root.replace('/', '-')}"
