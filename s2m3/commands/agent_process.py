"""Runs the agent's process, from its settings to its end: `s2m3 agent`."""

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.devices import open_device
from s2m3.agents.exports import exported_parts
from s2m3.agents.node_name import check_name_is_free
from s2m3.agents.runtimes.network import installed_runtimes
from s2m3.agents.service import Agent
from s2m3.agents.supervision.context import ProcessContext
from s2m3.agents.supervision.machine_sleep import MachineSleep
from s2m3.commands.signals import Signals
from s2m3.schemas.checkpoints.own_architectures import own_architectures
from s2m3.schemas.settings import AgentSettings

__all__ = ["run_agent"]

#: Time that an agent that ends gently waits for other nodes to take its modules over, seconds.
_DRAIN_S = 20.0


def run_agent(settings: AgentSettings, context: ProcessContext | None) -> None:
    """Runs an agent until a signal ends it, or, without a supervisor, again after each sleep of its machine.

    Args:
        settings: The agent's settings.
        context: The supervisor's interface to this process; None without a supervisor.
    """
    own = own_architectures(settings.architectures)
    runtimes = (settings.runtime,) if settings.runtime else installed_runtimes()
    exports = exported_parts(settings.exports)
    sources = CheckpointSources(settings.checkpoints, settings.download, own, runtimes, exports)
    sources.check()
    while _is_to_sleep(settings, context, sources) and settings.sleep_command is not None:
        if context is not None:
            context.end_for_sleep(settings.sleep_command, settings.sleep_grace_s)
        MachineSleep(settings.sleep_command, settings.sleep_grace_s).run(lambda: False)


def _is_to_sleep(settings: AgentSettings, context: ProcessContext | None, sources: CheckpointSources) -> bool:
    """Runs the agent until it ends; returns whether the machine is to be put to sleep."""
    signals = Signals(context)
    open_device(settings.device)  # it is missing: an error before anything else
    check_name_is_free(settings)
    running = Agent(settings, context, sources)
    running.start()
    while not signals.stop.wait(0.2) and not running.wants_sleep:
        if running.refused is not None:
            raise running.refused
    sleeps = not signals.stop.is_set()
    if signals.gently or sleeps:
        signals.stop.clear()
        running.drain(_DRAIN_S, unless=signals.stop)
    is_told_to_end = signals.stop.is_set()
    running.stop(left=not is_told_to_end)
    return sleeps and not is_told_to_end
