"""One caller that takes all it can get. Others are answered meanwhile."""

import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from s2m3.client import Client
from s2m3.schemas import messages as m
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Bar, Build, Form, Say
from tests.chaos.load import Direct, echo
from tests.frozen import agent_of

#: Requests that each of the greedy callers has open at once.
_EACH = 20
#: Requests of the other task, one after another.
_ASKED = 20
#: Longest time that a step of another task's request waits in the agent's queue, seconds: two modules run in turn,
#: in batches of at most 0.16 s. In order of arrival it would be 64 items of each module, 2.6 s.
_QUEUED_S = 1.5
#: Seconds within which others are answered, with the messages that wait before the agent's queue (docs/limits.md).
_OTHERS_S = 2.0
#: The same where 1,280 MB pass through the broker meanwhile.
_OTHERS_BESIDE_PAYLOADS_S = 20.0


def _neighbour(settings: BrokerSettings) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.chaos.neighbour", settings.model_dump_json(), str(_ASKED)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.short_on("mosquitto")
def test_41_many_callers_of_one_task_do_not_hold_up_another_that_shares_its_modules(
    build: Build, form: Form, bar: Bar, say: Say
) -> None:
    rig = build(nodes={"a": 150.0})
    greedy = 150 if form == "long" and rig.broker.kind == "mosquitto" else 5  # rumqttd itself delays them for minutes
    with Site(rig.settings) as site, ExitStack() as stack:
        for task in ("theirs", "ours"):
            rig.add(site, task, m.TaskSpec(model="slow", deadline_s=120.0))
        callers = [stack.enter_context(Direct(rig.settings, rig.history, f"greedy-{n}")) for n in range(greedy)]
        neighbour = stack.enter_context(_neighbour(rig.settings))
        assert neighbour.stdout is not None
        assert neighbour.stdout.readline() == "ready\n"
        for i in range(_EACH):
            for n, caller in enumerate(callers):
                caller.ask(f"{n}-{i}", echo(n * _EACH + i, "theirs", deadline_s=120.0))
        said, _ = neighbour.communicate("go\n", 2 * WAIT_S)
        assert neighbour.returncode == 0
        took, queued = zip(*([float(word) for word in line.split()] for line in said.splitlines()), strict=True)
        assert rig.history.wait_until_all_answered(2 * WAIT_S)
    verdict = rig.history.verdict()
    say(
        f"{rig.broker.kind}: {greedy} callers, {verdict.asked} requests; another task's at most {max(took):.2f} s, "
        f"{max(queued):.0f} ms of a step in the queue"
    )
    assert verdict.holds, verdict
    assert set(verdict.errors) <= {"busy", "timeout"}
    assert max(queued) / 1000 < bar(_QUEUED_S)
    assert max(took) < bar(_OTHERS_S)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["mosquitto"], indirect=True)
def test_37_sixty_four_payloads_of_20_mb_leave_an_agent_within_its_budget(build: Build, bar: Bar, say: Say) -> None:
    """Mosquitto alone: the embedded broker keeps the last 16 MB of each topic filter."""
    rig = build(nodes={"a": 900.0})
    payload = bytes(20_000_000)
    errors: list[str] = []
    with Site(rig.settings) as site, Client(settings=rig.settings) as client, Client(settings=rig.settings) as other:
        for task in ("big", "small"):
            rig.add(site, task, m.TaskSpec(model="slow", deadline_s=60.0))
        process = agent_of(rig.processes["a"])
        replies = [client.submit("big", left=payload, right=i) for i in range(64)]
        most, took, over = 0.0, [], threading.Event()

        def watch() -> None:
            nonlocal most
            while not over.wait(0.01):
                most = max(most, process.memory_info().rss / 1e6)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            while not all(reply.done() for reply in replies):
                began = time.monotonic()
                assert other.ask("small", left=1, right=2, deadline_s=WAIT_S).value == [1, 2]
                took.append(time.monotonic() - began)
            for reply in replies:
                error = reply.exception(WAIT_S)
                errors += [getattr(error, "code", repr(error))] if error is not None else []
        finally:
            over.set()
            watcher.join()
        assert site.nodes.state("a") == "ready"
    say(f"{rig.broker.kind}: at most {most:.0f} MB of 900; {errors.count('busy')} of 64 busy; others {max(took):.2f} s")
    assert set(errors) <= {"busy", "timeout"}
    assert most < 900
    assert max(took) < bar(_OTHERS_BESIDE_PAYLOADS_S)
