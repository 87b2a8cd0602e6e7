"""The size of a JSON schema that a text is to follow: bounded, as every agent reads it. Pure."""

import json

__all__ = ["check_json_format"]

_LONGEST, _DEEPEST = 32_768, 32


def check_json_format(form: object) -> None:
    """Checks the size and the depth of a schema; whether it is one says the agent that follows it.

    Raises:
        ValueError: It is longer than 32 KiB as JSON, deeper than 32, or no JSON.
    """
    if not isinstance(form, dict):
        return
    level: list[object] = [form]
    for _ in range(_DEEPEST):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [item for items in inner for item in items]
    if level:
        raise ValueError(f"a schema of at most {_DEEPEST} levels")
    try:
        size = len(json.dumps(form, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"a schema in JSON: {error}"[:200]) from error
    if size > _LONGEST:
        raise ValueError(f"a schema of at most {_LONGEST} characters")
