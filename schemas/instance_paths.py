"""Changes of an instance document: a value by its path (`devices.pi5.mbps=50`), or a device less. Pure, on copies."""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from s2m3.schemas.errors import BadInputError, NoCapacityError

__all__ = ["Sweep", "read_sweep", "with_value", "without_device"]

#: A path of the document, and its values.
Sweep = tuple[str, tuple[Any, ...]]


def read_sweep(text: str) -> Sweep:
    """Reads `PATH=VALUE,VALUE,…`: numbers as numbers, other words as strings, `null` as no value.

    Raises:
        BadInputError: The text has another form.
    """
    path, equals, values = text.partition("=")
    words = [word.strip() for word in values.split(",")]
    if not equals or not path.strip() or not all(words):
        raise BadInputError(f"--sweep {text}: not PATH=VALUE,VALUE (for instance devices.pi5.mbps=10,50,100)")
    found = tuple(_value(word) for word in words)
    if any(isinstance(value, list | dict) for value in found):
        raise BadInputError(f"--sweep {text}: a value is a number or a word, not a list or an object")
    return path.strip(), found


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word


def with_value(document: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Returns a copy of an instance document with a value in place of another.

    Args:
        document: The instance as JSON values.
        path: Keys with dots between; in a list, an object's `id` (or `*` for all): `modules.vit.seconds.pi5`.
        value: The new value. The last key need not be there yet.

    Raises:
        BadInputError: The path leads nowhere; the text says where it ends and what is there.
    """
    changed = deepcopy(dict(document))
    for holder, key in _places(changed, path.split("."), path):
        holder[key] = value
    return changed


def _places(at: Any, parts: list[str], path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields the objects and keys that a path names. Ids may have dots: the longest that is there is taken."""
    if isinstance(at, list):
        for item, rest in _items(at, parts, path):
            if not rest:
                raise BadInputError(f"{path}: an object, not a value; its keys are {', '.join(item)}")
            yield from _places(item, rest, path)
    elif isinstance(at, dict):
        for length in range(len(parts), 0, -1):
            key = ".".join(parts[:length])
            if length == len(parts) and (key in at or length == 1):
                if isinstance(at.get(key), list | dict):
                    raise BadInputError(f"{path}: not a value; what is in it: {_names(at[key])}")
                yield at, key
                return
            if key in at:
                yield from _places(at[key], parts[length:], path)
                return
        if not all(isinstance(value, int | float) for value in at.values()):
            raise BadInputError(f"{path}: no {parts[0]!r}; there are: {', '.join(at)}")
        yield at, ".".join(parts)  # seconds by device: one more
    else:
        raise BadInputError(f"{path}: there is nothing below a value: {'.'.join(parts)}")


def _items(at: list[Any], parts: list[str], path: str) -> list[tuple[dict[str, Any], list[str]]]:
    """Returns the objects of a list that the first parts name, each with the parts that are left."""
    objects = [item for item in at if isinstance(item, dict)]
    if at and not objects:
        raise BadInputError(f"{path}: there is nothing below a list of values: {_names(at)}")
    if parts[0] == "*":
        return [(item, parts[1:]) for item in objects]
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        found = [item for item in objects if item.get("id") == name]
        if found:
            return [(found[0], parts[length:])]
    raise BadInputError(f"{path}: no {parts[0]!r}; there are: {_names(objects)}")


def _names(inside: list[Any] | dict[str, Any]) -> str:
    """Returns the keys of an object, or what a list has: of objects their ids, of values these."""
    return ", ".join(str(item.get("id") if isinstance(item, dict) else item) for item in inside) or "nothing"


def without_device(document: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Returns a copy of an instance document in which a device is gone, as after its loss.

    Tasks that it asked are asked from elsewhere behind the broker.

    Raises:
        BadInputError: There is no such device.
        NoCapacityError: The device is the only one, or alone can run a module that a task without stand-ins needs.
    """
    changed = deepcopy(dict(document))
    names = [found["id"] for found in changed["devices"]]
    if device not in names:
        raise BadInputError(f"--without {device}: no such device; there are: {', '.join(names)}")
    changed["devices"] = [found for found in changed["devices"] if found["id"] != device]
    if not changed["devices"]:
        raise NoCapacityError(f"without {device} there is no device")
    needed = {step["module"] for task in changed["tasks"] if not task.get("stand_ins") for step in task["steps"]}
    others_may_stand_in = any(task.get("stand_ins") for task in changed["tasks"])
    for module in changed["modules"]:
        runs_elsewhere = module["seconds"].pop(device, None) is None or module["seconds"]
        if not runs_elsewhere and (module["id"] in needed or not others_may_stand_in):
            raise NoCapacityError(f"without {device} no device can run {module['id']}")
    for task in changed["tasks"]:
        if task.get("source") == device:
            task["source"] = None
        if device in task.get("prefer", ()):
            task["prefer"] = [other for other in task["prefer"] if other != device]
    return changed
