"""Finds the encoders of a site that compare pictures with texts, and the routes to their embeddings alone. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from s2m3.schemas.messages import RouteDoc, RouteStep

__all__ = ["Encoders", "encoders_of"]

#: Class of the head that converts class logits into a vector in the text encoder's space (agents/zoo/conse.py).
_CONSE = "conse"


@dataclass(frozen=True, slots=True)
class Encoders:
    """A pair of encoders whose embeddings can be compared by their cosine.

    Args:
        task: The task that they are a part of.
        space: Name of their space: of the picture encoder's module.
        picture: Route of an input of kind image to the picture's embedding (or class logits).
        text: Route of an input of kind text or texts to the text's embedding.
        picture_input: Name of the picture's input.
        text_input: Name of the text's input.
        is_conse: Whether the first route ends in class logits.
    """

    task: str
    space: str
    picture: RouteDoc
    text: RouteDoc
    picture_input: str
    text_input: str
    is_conse: bool


def encoders_of(routes: Mapping[str, RouteDoc]) -> Encoders | None:
    """Returns the encoders of the first task, by name, that has a pair; pairs that were trained together come first."""
    found = [pair for task in sorted(routes) if (pair := _pair(task, routes[task])) is not None]
    return min(found, key=lambda pair: pair.is_conse, default=None)


def _pair(task: str, doc: RouteDoc) -> Encoders | None:
    if not all(step.replicas for step in doc.steps.values()):
        return None
    for step in doc.steps.values():
        is_conse = step.module == _CONSE
        names = ("logits", "embedding") if is_conse else ("query", "candidates")
        if not set(names) <= step.inputs.keys():
            continue
        picture, text = (_leading_to(doc, step.inputs[name]) for name in names)
        if picture is None or text is None:
            continue
        if list(picture.inputs.values()) == ["image"] and list(text.inputs.values()) in (["text"], ["texts"]):
            space = next(iter(picture.steps.values())).module + ("-conse" if is_conse else "")
            return Encoders(task, space, picture, text, next(iter(picture.inputs)), next(iter(text.inputs)), is_conse)
    return None


def _leading_to(doc: RouteDoc, reference: str) -> RouteDoc | None:
    """Returns the part of a route that ends in one output of one step; None if the reference is an input."""
    last, _, output = reference.partition(".")
    if last not in doc.steps:
        return None
    wanted: dict[str, set[str]] = {last: {output}}
    waiting = [last]
    inputs: set[str] = set()
    while waiting:
        for source in doc.steps[waiting.pop()].inputs.values():
            step, _, name = source.partition(".")
            if step not in doc.steps:
                inputs.add(name)
            else:
                waiting += [step] if step not in wanted else []
                wanted.setdefault(step, set()).add(name)
    steps: dict[str, RouteStep] = {
        name: step.model_copy(update={"outputs": sorted(wanted[name])})
        for name, step in doc.steps.items()
        if name in wanted
    }
    kinds = {name: kind for name, kind in doc.inputs.items() if name in inputs}
    part = {"inputs": kinds, "answer": [output], "steps": steps}
    return doc.model_copy(update=part | {"defaults": {}, "options": {}, "threshold": None, "ranks": [], "rank": 0})
