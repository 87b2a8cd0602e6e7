"""Answers `control/preview`: the cost of a task, and the list of models. Computed in a thread beside the loop."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import structlog
from pydantic import ValidationError

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placer import Placer
from s2m3.planner.site.task_preview import known_models, preview_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.document import Document
from s2m3.schemas.errors import BadInputError, BusyError, S2M3Error
from s2m3.schemas.protocol import FROM_THE_BUS

__all__ = ["Previews"]

_log = structlog.get_logger(__name__)
#: Previews that wait for the thread; more are refused.
_MOST_WAITING = 8
#: An order to a planner that does not lead yet waits this long, seconds, and is then left to another planner.
_LEADS_S, _LOOK_S = 6.0, 0.2


class Previews:
    """Previews of tasks. Its methods are called in the loop's thread; computing runs in a thread of its own.

    Args:
        loop: The planner's loop.
        cluster: The cluster state; each preview is made of a snapshot.
        placer: Computes placements.
        leads: Whether this planner leads: another one answers otherwise.
        publish: Publishes a message, given topic and payload.
    """

    def __init__(
        self,
        loop: Loop,
        cluster: ClusterState,
        placer: Placer,
        *,
        leads: Callable[[], bool],
        publish: Callable[[str, bytes], object],
    ) -> None:
        self._loop, self._cluster, self._placer = loop, cluster, placer
        self._leads, self._publish = leads, publish
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="preview")
        self._waiting = 0
        self._response = ""

    def start(self, link: Link) -> None:
        """Begins to answer."""
        self._response = topics.CONTROL_RESPONSE.at(link.root, verb=topics.PREVIEW)
        # not required: an access list that an earlier release wrote does not grant it
        listen(link, topics.CONTROL, self._on_order, required=False, verb=topics.PREVIEW)

    def stop(self) -> None:
        """Ends; previews that wait are dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _on_order(self, _: str, order: m.ControlRequest | None) -> None:
        if order is not None:
            self._take(order, time.monotonic() + _LEADS_S)

    def _take(self, order: m.ControlRequest, deadline: float) -> None:
        if not self._leads():  # a planner that has just started reads what is retained first
            if time.monotonic() < deadline:
                self._loop.after(_LOOK_S, partial(self._take, order, deadline))
            return
        if self._waiting >= _MOST_WAITING:
            self._answer(order, BusyError(f"{_MOST_WAITING} previews wait"))
            return
        self._waiting += 1
        self._thread.submit(self._compute, order, self._cluster.snapshot())

    def _compute(self, order: m.ControlRequest, snapshot: ClusterState) -> None:
        found: Document | S2M3Error
        try:
            found = self._found(order, snapshot)
        except S2M3Error as error:
            found = error
        except Exception as error:  # noqa: BLE001  # the thread's one broad except: who asked is told
            _log.exception("preview_failed", task=order.task)
            found = S2M3Error(f"the preview failed: {error}")
        self._loop.call(partial(self._finish, order, found))

    def _found(self, order: m.ControlRequest, snapshot: ClusterState) -> Document:
        now = time.monotonic()
        if order.spec is None:
            return known_models(snapshot, now)
        if order.task is None:
            raise BadInputError("preview needs the name of a task beside its document")
        try:
            spec = m.TaskSpec.model_validate(order.spec, context=FROM_THE_BUS)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise BadInputError(f"spec.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        return preview_task(snapshot, order.task, spec, self._placer(False), now)  # noqa: FBT003  # Placer's one argument

    def _finish(self, order: m.ControlRequest, found: Document | S2M3Error) -> None:
        self._waiting -= 1
        self._answer(order, found)

    def _answer(self, order: m.ControlRequest, found: Document | S2M3Error) -> None:
        if isinstance(found, S2M3Error):
            error = m.ErrorBody(**found.as_dict())
            response = m.ControlResponse(status="error", error=error, transaction=order.transaction)
        else:
            data = found.model_dump(mode="json", exclude_none=True)
            response = m.ControlResponse(status="ok", data=data, transaction=order.transaction)
        self._publish(self._response, response.encode())
