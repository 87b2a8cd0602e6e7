"""All bindings of a site: starts, changes and ends them; a binding that is refused has the reason in its report."""

from collections.abc import Iterable

import structlog

from s2m3.bindings.bound_topic import Bound, Hub
from s2m3.bindings.pattern import check_topics, loops, may_hold_answer
from s2m3.broker.event_loop import Loop
from s2m3.schemas.bridge import Binding, BindingReport
from s2m3.schemas.errors import BadInputError, S2M3Error
from s2m3.schemas.messages import ErrorBody
from s2m3.schemas.protocol import UNKNOWN
from s2m3.schemas.sessions import bridge_client_id
from s2m3.schemas.settings import BrokerSettings

__all__ = ["Bindings"]

_log = structlog.get_logger(__name__)
#: Most bindings: each has a connection of its own.
_MOST = 200


class Bindings:
    """The desired bindings, and the running ones. All methods but `stop` are called in the loop's thread.

    Args:
        settings: The settings of the bridge.
        loop: The bridge's loop.
        hub: The bridge.
        process: The name of this process, which is part of the client ids.
        answers_s: Time for which a retained answer stays, seconds (`Bound`).
    """

    def __init__(self, settings: BrokerSettings, loop: Loop, hub: Hub, process: str, *, answers_s: float) -> None:
        self._answers_s = answers_s
        self._process = process
        self._settings = settings
        self._loop = loop
        self._hub = hub
        self.wanted: dict[str, Binding] = {}
        self._running: dict[str, Bound] = {}
        self._refused: dict[str, S2M3Error] = {}
        #: binding that does not run -> topics of the retained answers that an earlier bridge left
        self._left: dict[str, list[str]] = {}

    def adopt(self, name: str, topics: Iterable[str]) -> None:
        """Takes over retained answers of an earlier bridge: they are cleared with their binding."""
        left = [topic for topic in topics if may_hold_answer(topic, self._settings.root)]
        if name in self._running:
            self._running[name].adopt(left)
        else:
            self._left[name] = left

    def left_by(self, name: str) -> list[str]:
        """Returns and forgets the topics of retained answers that a binding left which does not run."""
        return self._left.pop(name, [])

    def task_gone(self, task: str) -> None:
        """Clears the retained answers of a task that is removed."""
        for bound in self._running.values():
            if bound.binding.task == task:
                bound.clear()

    def update(self, name: str, binding: Binding | None) -> None:
        """Sets a desired binding; None removes it."""
        if binding is None:
            self.wanted.pop(name, None)
        elif self.wanted.get(name) == binding:
            return
        else:
            self.wanted[name] = binding
        self._refused = self._find_wrong()
        for running in list(self._running):
            if running in self._refused or self._running[running].binding != self.wanted.get(running):
                self._running.pop(running).stop()
                _log.info("binding_ended", binding=running)
        for other, theirs in self.wanted.items():
            if other not in self._refused and other not in self._running and not theirs.paused:
                self._start(other, theirs)

    def reports(self) -> dict[str, BindingReport]:
        """Returns the report of each binding that listens, is paused or is refused."""
        found = {name: report for name, bound in self._running.items() if (report := bound.report) is not None}
        for name, error in self._refused.items():
            found[name] = BindingReport(state="refused", error=ErrorBody(**error.as_dict()))
        for name, binding in self.wanted.items():
            if binding.paused and name not in self._refused:
                found[name] = BindingReport(state="paused")
        return found

    def stop(self, *, clear: bool) -> None:
        """Ends all bindings. Must not be called in the loop's thread.

        Args:
            clear: Whether to clear the retained answers that do not outlive the bridge.
        """
        for bound in self._running.values():
            if clear:
                self._loop.call(bound.clear_ending)
            bound.stop(clear=False)
        self._running.clear()

    def _start(self, name: str, binding: Binding) -> None:
        try:
            client_id = bridge_client_id(self._settings, self._process, f"bind-{name}")
            bound = Bound(name, binding, self._settings, self._loop, self._hub, client_id, answers_s=self._answers_s)
        except S2M3Error as error:
            self._refuse(name, error)
            return
        self._running[name] = bound
        bound.adopt(self.left_by(name))
        self._loop.call(bound.start)  # after the DISCONNECT of the earlier connection with the same client id
        _log.info("binding_active", binding=name, task=binding.task, source=binding.source)

    def _find_wrong(self) -> dict[str, S2M3Error]:
        wrong: dict[str, S2M3Error] = {}
        for i, (name, binding) in enumerate(self.wanted.items()):
            try:
                check_topics(binding, self._settings.root)
                if binding.form == UNKNOWN:
                    raise BadInputError("its form is of a newer release: json | value")
                if i >= _MOST:
                    raise BadInputError(f"{_MOST} bindings are there already")
            except S2M3Error as error:
                wrong[name] = error
        sound = {name: binding for name, binding in self.wanted.items() if name not in wrong}
        for name, way in loops(sound).items():
            wrong[name] = BadInputError(f"its answers come back to it: {' -> '.join(way)}")
        for name in wrong.keys() - self._refused.keys():
            _log.warning("binding_refused", binding=name, error=str(wrong[name]))
        return wrong

    def _refuse(self, name: str, error: S2M3Error) -> None:
        _log.warning("binding_refused", binding=name, error=str(error))
        self._refused[name] = error
