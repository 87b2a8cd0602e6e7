"""What a detector found, for Home Assistant: a count and a binary sensor for each of its labels. Pure: no I/O."""

import re
from collections.abc import Sequence
from typing import Any

from s2m3.schemas import messages as m
from s2m3.schemas.definitions import shipped_catalogue

__all__ = ["detection_entities", "labels_of"]

#: Labels of one task that have entities of their own.
_MOST_LABELS = 30
#: The message as JSON, {} for an empty payload; and the counts in it.
_FOUND = "((value_json | default({})).detected | default({}))"
_NOT_IN_IDS = re.compile(r"[^a-z0-9]+")


def labels_of(task: m.TaskSpec, doc: m.RouteDoc) -> list[str]:
    """Returns the labels that a task's detector answers with: those it is asked for, or those of a shipped module.

    Without boxes among its answers there are none, and none are known of a checkpoint's own classes.
    """
    if "boxes" not in doc.answer:
        return []
    asked = task.inputs.get("text")
    if isinstance(asked, list) and all(isinstance(label, str) for label in asked):
        return list(dict.fromkeys(asked))[:_MOST_LABELS]
    catalogue = shipped_catalogue()
    model = catalogue.models.get(doc.model)
    modules = [catalogue.modules[module] for module in model.module_ids] if model else []
    return [str(label) for module in modules for label in module.config.get("labels", ())][:_MOST_LABELS]


def detection_entities(answer: str, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns the entities of a detector.

    Args:
        answer: The topic of the task's last answer.
        labels: Those that are known.
    """
    shared = {"stat_t": answer, "ic": "mdi:vector-square"}
    count = {"p": "sensor", "stat_cla": "measurement", **shared}
    found: dict[str, dict[str, Any]] = {
        "detected": count
        | {"name": "Detected", "val_tpl": f"{{{{ {_FOUND}.values() | sum }}}}"}
        | {"json_attr_t": answer, "json_attr_tpl": f"{{{{ {_FOUND} | tojson }}}}"}
    }
    for label in labels:
        key, at = _NOT_IN_IDS.sub("-", label.lower()).strip("-"), f"{_FOUND}.get({_quoted(label)}, 0)"
        found[f"count-{key}"] = count | {"name": f"Detected {label}", "val_tpl": f"{{{{ {at} }}}}"}
        found[f"seen-{key}"] = {
            "p": "binary_sensor",
            "name": f"Sees {label}",
            "val_tpl": f"{{{{ 'ON' if {at} else 'OFF' }}}}",
            **shared,
        }
    return found


def _quoted(label: str) -> str:
    """Returns a label as a text in a template, whatever is in it."""
    return (
        "'" + "".join(c if c.isalnum() or c in " -_" else f"\\u{ord(c):04x}" for c in label if ord(c) < 1 << 16) + "'"
    )
