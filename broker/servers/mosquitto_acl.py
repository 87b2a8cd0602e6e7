"""Mosquitto's access list (`acl_file`), generated from rights."""

from collections.abc import Mapping

from s2m3.schemas.roles import Rights

__all__ = ["access_list"]


def access_list(rights: Mapping[str, Rights]) -> str:
    """Returns the text of an `acl_file` for login -> rights; Mosquitto denies everything to other logins."""
    blocks = []
    for name, right in rights.items():
        lines = [f"user {name}"]
        lines += [f"topic read {topic_filter}" for topic_filter in dict.fromkeys(right.reads)]
        lines += [f"topic write {topic_filter}" for topic_filter in dict.fromkeys(right.writes)]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)
