"""What the steps that write text are told with a request, and when to stop. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from s2m3.broker.requests.actions import Action, Stop
from s2m3.broker.requests.pending import Pending
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.messages import RouteDoc
from s2m3.schemas.wire.generation import Options, known_options, read_options
from s2m3.schemas.wire.work import Hop, Route, Work

__all__ = ["options_of", "stops", "with_generation_options"]


def options_of(doc: RouteDoc, pending: Pending) -> Options:
    """Returns how a request's text is to be written: as its caller has it, else as the task does.

    What the caller names has to be known; of the task's own options, which come off the bus, unknown ones are passed
    over.

    Raises:
        BadInputError: Something impossible, or the task writes no text.
    """
    if pending.options and not doc.generates:
        raise BadInputError(f"the task {pending.task} writes no text: it takes no options")
    return read_options(pending.options, known_options(doc.options)).seeded(pending.seed)


def with_generation_options(
    doc: RouteDoc, route: Route, options: Options, protocol_of: Callable[[str], int], *, stream: bool
) -> dict[str, Hop]:
    """Returns the route with options at the steps that write text, and the one whose text is the answer streaming.

    Each agent of a route reads the whole route: options that one of them would refuse are left out.
    """
    if not doc.generates:
        return {**route}
    options = options.for_reader(min(protocol_of(hop.node) for hop in route.values()))
    return {
        step: replace(hop, options=options, stream=stream and doc.streams(step)) if doc.steps[step].generates else hop
        for step, hop in route.items()
    }


def stops(writing: Mapping[int, list[Work]], *, but: int | None = None) -> list[Action]:
    """Returns the orders to stop what attempts other than this one write: nobody waits for it any more."""
    return [Stop(work) for attempt, works in writing.items() if attempt != but for work in works]
