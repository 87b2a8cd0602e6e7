"""Client ids on the broker, so that every party's session is known by name (and can be named in an ACL)."""

__all__ = ["FRONT_SESSION_S", "PLANNER_CLIENT_ID", "front_client_id", "node_client_id", "planner_client_id"]

#: How long a task's session waits for its next front.
FRONT_SESSION_S = 86_400
PLANNER_CLIENT_ID = "s2m3-planner"


def _site(root: str) -> str:
    """Two sites on one broker must not share client ids."""
    return "" if root == "s2m3/v1" else f"-{root.replace('/', '-')}"


def planner_client_id(root: str) -> str:
    """The one planner's: a second one with it would end the first's connection."""
    return f"{PLANNER_CLIENT_ID}{_site(root)}"


def node_client_id(root: str, node: str) -> str:
    """An agent's."""
    return f"s2m3-node{_site(root)}-{node}"


def front_client_id(root: str, task: str) -> str:
    """A task's own: whichever node is its front connects with it."""
    return f"s2m3-front{_site(root)}-{task}"
