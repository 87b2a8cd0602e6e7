"""The planner service: reads tasks and nodes, decides where modules run, and is the one writer of plans and routes."""

import time
from functools import partial
from typing import Any

import structlog

from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.broker.roll_call import answer_roll_calls, ask_who_is_there
from s2m3.broker.roll_call_times import AskTimes
from s2m3.planner.control import listen_for_control
from s2m3.planner.desired_documents import DesiredDocuments
from s2m3.planner.earlier_planner import EarlierPlanner
from s2m3.planner.health import Health
from s2m3.planner.leadership import Leadership
from s2m3.planner.node_listener import NodeListener
from s2m3.planner.plan_scheduler import PlanScheduler
from s2m3.planner.previews import Previews
from s2m3.planner.retained_requests import RetainedRequests
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import Decision
from s2m3.planner.site.missing_documents import MissingDocuments
from s2m3.planner.site.placement import Placement
from s2m3.planner.site.placer import Placer
from s2m3.planner.site.published_documents import Documents
from s2m3.planner.site.steadiness import Steadiness
from s2m3.planner.site_metrics import count_changes, count_site
from s2m3.planner.task_sessions import TaskSessions
from s2m3.planner.unknown_tasks import UnknownTasks
from s2m3.planner.waker import Waker
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import Catalogue
from s2m3.schemas.errors import S2M3Error, UnauthorisedError
from s2m3.schemas.sessions import planner_client_id
from s2m3.schemas.settings import PlannerSettings
from s2m3.schemas.sleep import NodeSettings

__all__ = ["Planner"]

_log = structlog.get_logger(__name__)
#: Retained documents arrive right after the SUBACK. The first plan is made this long after it.
_REBUILD_S = 0.25
#: If documents are missing then, the first plan waits for answers to the roll call, at most this long.
_ROLL_CALL_S = 5.0
_MISSING_S = 0.5
#: After a broker lost its state, documents are published once the task sessions are open, or after this long.
_SESSIONS_OPEN_S = 2.0
_POLL_S = 0.02
_SILENCE_S = 0.25
#: Interval of plans that may move modules: measured times and links change which placement is best.
_IMPROVE_S = 60.0
#: The planner's name in roll calls.
_ASKER = "planner"


class Planner:
    """The planner of a site. All state belongs to its loop's thread. No request passes through the planner.

    Args:
        settings: The settings of this process.
        catalogue: The known model definitions.
        placer: Computes placements.
        epoch: The newest epoch seen of another planner; 0 if none.
    """

    def __init__(self, settings: PlannerSettings, catalogue: Catalogue, *, placer: Placer, epoch: int = 0) -> None:
        self._settings = settings
        self._root, self._events = settings.root, topics.EVENT.at(settings.root)
        self._rebuilt = self._stopping = False
        self._cluster = ClusterState(catalogue, steadiness=Steadiness(settings.steady_s))
        self._loop = Loop("planner")
        self._plans = PlanScheduler(
            self._loop, settings, self._cluster, placer, may_plan=self._may_plan, on_plan=self._adopt
        )
        self._leadership = Leadership(
            settings, self._loop, epoch, publish=self._publish_retained, may_publish=self._may_publish
        )
        self._epoch, self.superseded = self._leadership.epoch, self._leadership.superseded
        self._documents = Documents(self._root, self._epoch)
        self._missing, self._ask_times = MissingDocuments(), AskTimes()
        self._task_sessions = TaskSessions(settings, self._loop, self._cluster, self._plans.soon)
        self._retained_requests = RetainedRequests(settings, self._loop)
        #: false from each connect until we know whether a newer planner exists and have published our documents again
        self._synchronised = False
        self._retry: Timer | None = None
        self.link = Link(
            settings,
            planner_client_id(settings),
            self._loop,
            will=self._leadership.will,
            on_connected=self._on_connected,
        )
        self._health = Health(self.link, self._loop, self._cluster, self._documents, self._restore)
        told, probe = self._publish_retained, self._health.probe
        self._desired = DesiredDocuments(self.link, topics.TASK, told, self._on_task, probe=probe)
        settings_path, on_settings = topics.NODE_SETTINGS, self._on_settings
        self._settings_of = DesiredDocuments(self.link, settings_path, told, on_settings, probe=probe, required=False)
        self._waker = Waker(
            settings,
            self.link,
            self._loop,
            self._cluster,
            publish=self._publish,
            leads=self._leads,
            on_asleep=self._leadership.set_asleep,
        )
        self._unknown_tasks = UnknownTasks(
            settings, self._loop, self._cluster, self._leads, on_known=self._waker.requested
        )
        self._previews = Previews(self._loop, self._cluster, placer, leads=self._leads, publish=self._publish)
        rebuilt, soon = lambda: self._rebuilt, self._plans.soon
        self._earlier = EarlierPlanner(
            self.link, self._cluster, self._documents, self._missing, is_rebuilt=rebuilt, on_change=soon
        )
        self._nodes = NodeListener(
            self.link,
            self._cluster,
            self._missing,
            publish=lambda topic, payload, retain: self._publish(topic, payload, retain=retain),
            on_change=self._on_change,
            is_settled=rebuilt,
            is_complete=lambda: self._health.have_all_come,
            is_retaining=lambda: self._leadership.is_known,
            on_requests=self._waker.requested,
        )

    # ---- start and stop -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connects, reads the retained documents, and plans.

        Raises:
            UnauthorisedError: The broker refused the login.
            BrokerUnreachableError: No broker answered.
        """
        self._loop.start()
        self._plans.start()
        self._desired.start()
        self._settings_of.start()
        self._earlier.start()
        listen_for_control(
            self.link, self._cluster, plan_again=self._plan_afresh, wake=self._waker.wake, publish=self._publish
        )
        self._previews.start(self.link)
        self._waker.start()
        answer_roll_calls(self.link, self._loop, self._answer_roll_call, asker=_ASKER)
        self._nodes.start(on_subscribed=self._ask_and_rebuild)
        self._health.start()
        self._unknown_tasks.start()
        self.link.start()
        self._retained_requests.start()
        self._loop.every(_SILENCE_S, self._nodes.look_for_silent)
        self._loop.every(_IMPROVE_S, self._improve_if_changed)
        self._loop.every(_MISSING_S, self._ask_for_missing)
        _log.info("planner_up", epoch=self._epoch, models=len(self._cluster.catalogue.models))

    @property
    def refused(self) -> UnauthorisedError | None:
        """The error with which the broker refused one of the planner's connections; None if it did not."""
        return self.link.refused or self._task_sessions.refused or self._leadership.refused

    @property
    def newest(self) -> int:
        """The newest epoch seen of another planner; 0 if none."""
        return self._leadership.newest

    def stop(self) -> None:
        """Publishes that there is no planner, and disconnects. Requests continue without a planner."""
        self._stopping = True  # set first: our own offline state comes back to us, and must not be contradicted
        if self._leadership.is_outlived or not self.superseded.is_set():
            self._leadership.publish_state(online=False)
        self._loop.call(self._leadership.stop)
        self._unknown_tasks.stop()
        self._retained_requests.stop()
        self.link.stop()
        self._previews.stop()
        self._plans.stop()
        self._loop.stop()
        _log.info("planner_down", epoch=self._epoch)

    def _on_connected(self) -> None:
        self._synchronised = False
        if self.superseded.is_set():
            return
        if not self._rebuilt:
            self._leadership.publish_state()
        if self._retry is not None:
            self._retry.cancel()
        self._health.on_connected()
        self._nodes.on_connected()
        self._desired.on_connected()
        self._settings_of.on_connected()
        self._leadership.ask(self._restore)

    def _restore(self) -> None:
        """Called when the retained planner state is known and all else has come; without it, the broker lost all."""
        is_known = self._leadership.is_answered and self._health.have_all_come
        if self.superseded.is_set() or self._synchronised or not (self._rebuilt and is_known):
            return
        if self._leadership.is_known:
            if not (self._desired.is_certain() and self._settings_of.is_certain()):
                self._retry = self._loop.after(_POLL_S, self._restore)
                return
            self._desired.drop_removed()
            self._settings_of.drop_removed()
        else:
            _log.warning("broker_forgot_everything", epoch=self._epoch)
            self._cluster.sessions.clear()
            self._task_sessions.open_all()
        self._republish(time.monotonic() + _SESSIONS_OPEN_S)

    def _republish(self, deadline: float) -> None:
        """Publishes all documents again and plans, after the sessions are open: opening one disconnects a gateway."""
        if self._task_sessions.opening and time.monotonic() < deadline:
            self._retry = self._loop.after(_POLL_S, partial(self._republish, deadline))
            return
        if self.superseded.is_set():
            return
        self._synchronised = True
        self._publish_all()
        self._cluster.sessions &= self._cluster.tasks_with_gateway()
        self._plans.soon()

    def _publish_all(self) -> None:
        """Publishes all documents of the planner, and the desired tasks as their owners wrote them."""
        self._leadership.publish_state()
        self._desired.repeat()
        self._settings_of.repeat()
        self._documents.repeat(self._publish_retained)

    def _ask_and_rebuild(self) -> None:
        self._ask_times.asked(time.monotonic())
        ask_who_is_there(self.link, _ASKER)
        self._loop.after(_REBUILD_S, partial(self._rebuild, time.monotonic() + _ROLL_CALL_S))

    def _rebuild(self, deadline: float) -> None:
        """Makes the first plan, from the retained documents: an earlier planner's plans are kept where possible."""
        tasks, with_gateway = self._cluster.tasks.keys(), self._cluster.tasks_with_gateway()
        gone = (with_gateway | self._documents.tasks) - tasks
        is_known = self._health.have_all_come and self._desired.has_asked_for(gone)
        if not is_known or (self._missing.find(self._cluster) and time.monotonic() < deadline):
            self._loop.after(_POLL_S, partial(self._rebuild, deadline))
            return
        self._rebuilt = self._synchronised = True
        for task in gone:
            self._task_sessions.close(task)  # removed while there was no planner
        self._cluster.sessions |= with_gateway & tasks
        if not self._cluster.plans:  # a change of leader alone is no reason to move modules
            self._plans.improve()
        self._plans.now(thorough=True)

    # ---- incoming documents ---------------------------------------------------------------------------------------

    def _may_publish(self) -> bool:
        return not self._stopping and self.link.connected and (self._synchronised or not self._rebuilt)

    def _leads(self) -> bool:
        return self._may_publish() and self._rebuilt and not self.superseded.is_set()

    def _answer_roll_call(self) -> None:
        if self._leads():
            self._publish_all()

    def _ask_for_missing(self) -> None:
        """Asks for a roll call if other documents refer to documents that the broker never delivered."""
        missing = self._missing.find(self._cluster) if self._may_publish() and self._rebuilt else frozenset()
        if self._ask_times.is_due(missing, time.monotonic()):
            _log.info("documents_missing", documents=" ".join(sorted(missing)[:10]))
            ask_who_is_there(self.link, _ASKER)
            self._missing.on_asked(self._cluster)

    def _on_task(self, task: str, spec: m.TaskSpec | None) -> None:
        if spec is None:
            if self._cluster.want(task, None):
                _log.info("task_removed", task=task)
                self._task_sessions.close(task)
                self._plans.soon()
        elif self._cluster.want(task, spec):
            _log.info("task_wanted", task=task, model=spec.model)
            self._cluster.note_new(task, time.monotonic())
            self._plans.improve()
            self._plans.soon()

    def _on_settings(self, node: str, settings: NodeSettings | None) -> None:
        if self._cluster.set_settings(node, settings):
            self._on_change(improve=True)

    def _plan_afresh(self) -> dict[str, Any]:
        self._plans.improve()
        revision = self._documents.revision + (2 if self._plans.busy else 1)  # of the plan with these facts
        self._plans.now(thorough=True)
        return {"epoch": self._epoch, "revision": revision}

    def _on_change(self, *, improve: bool = False, lost: bool = False) -> None:
        if improve:
            self._plans.improve()
        (self._plans.lost if lost else self._plans.soon)()

    def _improve_if_changed(self) -> None:
        """Looks for better places: new measurements, or other request rates, may make other places better."""
        if self._plans.has_changed or self._cluster.rates.has_any(time.monotonic()):
            self._plans.improve_now()

    # ---- planning -------------------------------------------------------------------------------------------------

    def _may_plan(self) -> bool:
        """Called before each plan: whether this planner leads. `_republish` plans after a reconnect."""
        if not (self._synchronised and self.link.connected) or self.superseded.is_set():
            return False
        if self._leadership.resign_to_followed(self._cluster.epoch_followed()):
            return False
        self._task_sessions.open_all()
        return True

    def _adopt(self, placement: Placement, decision: Decision) -> None:
        """Publishes a plan. Changes that happened while it was made are planned next."""
        if not (self._synchronised and self.link.connected) or self.superseded.is_set():
            return  # `_republish` plans after the reconnect
        decision = decision.without_removed(self._cluster.tasks.keys())
        self._leadership.hold(placement.held)
        self._waker.adopt(placement.asleep)
        changed = self._documents.update(decision, self._publish_retained)
        self._missing.on_planned()
        count_site(self._cluster, decision)
        self._cluster.plans = dict(self._documents.plans)
        for event in count_changes(changed, self._documents):
            self._publish(self._events, event.encode())
        if self._retry is not None:
            self._retry.cancel()
        now = time.monotonic()
        when = self._cluster.next_retry(now)
        self._retry = None if when is None else self._loop.after(when - now + 0.01, self._plans.now)

    # ---- outgoing documents ---------------------------------------------------------------------------------------

    def _publish_retained(self, topic: str, payload: bytes) -> bool:
        return self._publish(topic, payload, retain=True)

    def _publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """Returns whether the message was queued."""
        try:
            self.link.publish(Outgoing(topic, payload, qos=qos, retain=retain))
        except S2M3Error as error:  # retained documents are published again after the next connect
            _log.warning("not_published", topic=topic, error=str(error))
            return False
        return True
