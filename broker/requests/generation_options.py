"""Inputs and generation options of a request's attempts, and stop orders for abandoned ones. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from s2m3.broker.requests.actions import Action, Stop
from s2m3.broker.requests.pending import Pending, inputs_of
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.messages import RouteDoc
from s2m3.schemas.wire.generation import Options, known_options, read_options
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Hop, Route, Work

__all__ = ["Given", "given_of", "options_of", "stops", "with_generation_options"]

#: Inputs and generation options of one attempt.
Given = tuple[Mapping[str, Value], Options]


def given_of(doc: RouteDoc, pending: Pending, model: RouteDoc) -> Given:
    """Returns the inputs and options that a request gives to one of the task's models.

    Raises:
        BadInputError: One of them is not what the task takes.
    """
    return inputs_of(doc, pending, model.rank), options_of(doc, pending, model)


def options_of(doc: RouteDoc, pending: Pending, model: RouteDoc) -> Options:
    """Returns a request's generation options: the caller's, then the task's, then the defaults.

    Unknown options of the caller are an error; unknown options of the task, which come off the bus, are ignored.

    Args:
        doc: The task's route document.
        pending: The request.
        model: The document as it is with the model alone that gets the options (`RouteDoc.by_rank`). One that generates
            nothing stands in for one that does, and gets none of the caller's.

    Raises:
        BadInputError: An option is unknown or invalid, or the task generates nothing.
    """
    asked = pending.options or {}
    if asked.keys() - {"wait_s"} and not doc.generates:
        raise BadInputError(f"the task {pending.task} writes no text: it takes no options")
    given = asked if model.generates else {name: value for name, value in asked.items() if name == "wait_s"}
    options = read_options(given, known_options(doc.options)).seeded(pending.seed)
    return options.model_copy(update={"wait_s": None})


def with_generation_options(
    doc: RouteDoc, route: Route, options: Options, protocol_of: Callable[[str], int], *, stream: bool
) -> dict[str, Hop]:
    """Returns the route with options at the steps that generate text; with `stream`, the answer's step streams.

    Every agent of a route reads the whole route, so options that one of them would refuse are left out.
    """
    if not doc.generates:
        return {**route}
    options = options.for_reader(min(protocol_of(hop.node) for hop in route.values()))
    return {
        step: replace(hop, options=options, stream=stream and doc.streams(step)) if doc.steps[step].generates else hop
        for step, hop in route.items()
    }


def stops(works: Mapping[int, Work], *, but: int | None = None) -> list[Action]:
    """Returns actions that stop a request's work, because its result is not needed.

    Args:
        works: Attempt -> its work, at any step.
        but: An attempt that was answered. Of the others what generates text is stopped, which takes long; None: the
            request was cancelled, and all that waits for it in queues is dropped, too.
    """
    unneeded = [work for attempt, work in works.items() if attempt != but]
    return [
        Stop(replace(work, step=step))
        for work in unneeded
        for step, hop in work.route.items()
        if but is None or hop.options is not None
    ]
