"""Half an hour of mixed load and faults: nothing grows. Only in the long form (make chaos); --minutes for less."""

import random
import statistics
import time
from dataclasses import dataclass

import psutil
import pytest

from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Build, Say
from tests.chaos.load import Direct, Load, Plain, echo
from tests.chaos.proxy import Proxy
from tests.chaos.rig import Rig

_EVERY_S = 15.0
#: What is compared: the medians of so many samples at the start (after the first part of the run) and at the end.
_WARM_UP = 1 / 6
_SAMPLES = 5
_LOGS_MB = 2.0
_PER_S = 30.0
#: The embedded broker keeps the last 16 MB of each of about 30 topic filters: it grows for hours, to this at most.
_EMBEDDED_MB = 600.0


@dataclass(frozen=True, slots=True)
class _Sample:
    rss_mb: float
    fds: int
    threads: int


def _look(rig: Rig, steady: list[str]) -> dict[str, _Sample]:
    """Each steady process with its children, and the broker."""
    pids = {name: rig.processes[name].pid for name in steady} | {"broker": rig.broker.pid}
    found = {}
    for name, pid in pids.items():
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        found[name] = _Sample(
            sum(one.memory_info().rss for one in family) / 1e6,
            sum(one.num_fds() for one in family),
            sum(one.num_threads() for one in family),
        )
    return found


def _break_something(rig: Rig, site: Site, rng: random.Random) -> None:
    """Node c dies and returns; the others' cables are cut, dropped, or silent for a moment."""
    if rng.random() < 0.4 and site.nodes.state("c") == "ready":
        rig.kill("c")
        rig.start_agent("c")
        return
    name = rng.choice(["a", "b", "planner"])
    rng.choice([Proxy.drop, Proxy.cut, Proxy.half_open])(rig.proxies[name])
    rig.history.fault(f"cable of {name}")
    time.sleep(rng.uniform(0.1, 2.0))  # how long the fault lasts
    rig.proxies[name].mend()


@pytest.mark.timeout(2400)
@pytest.mark.long
def test_nothing_grows(build: Build, rng: random.Random, minutes: float, say: Say) -> None:
    rig = build(behind=("a", "b", "planner"))
    seconds = minutes * 60
    samples: list[dict[str, _Sample]] = []
    tasks = ["noop", "slow"]
    with Site(rig.settings) as site:
        for task in tasks:
            rig.add(site, task, m.TaskSpec(model=task))
        questions = [echo(i, tasks[i % 5 == 0]) for i in range(1000)]
        count = int(seconds * _PER_S)
        with (
            Direct(rig.settings, rig.history) as direct,
            Plain(rig.broker.port_v3, rig.settings.root, tasks, rig.history) as plain,
        ):
            ends = time.monotonic() + seconds
            with Load([direct, direct, plain], questions, count=count, per_s=_PER_S, rng=rng) as load:
                while load.lasts(_EVERY_S) and time.monotonic() < ends:
                    samples.append(_look(rig, ["a", "b", "planner"]))
                    _break_something(rig, site, rng)
            rig.history.wait_until_all_answered(WAIT_S)
        logs_mb = sum(path.stat().st_size for path in rig.folder.glob("*.log")) / 1e6
    verdict = rig.history.verdict()
    say(f"{rig.broker.kind}: {minutes:g} minutes, {logs_mb:.2f} MB of logs; {verdict}")
    grown = _growth(samples, say, rig.broker.kind)
    assert verdict.holds, verdict
    assert not verdict.errors, verdict
    assert not grown
    assert logs_mb < _LOGS_MB


def _growth(samples: list[dict[str, _Sample]], say: Say, kind: str) -> list[str]:
    """Says what each process had and has; returns those that grew by 5 % of memory, or by a descriptor."""
    first = int(len(samples) * _WARM_UP)
    grown = []
    for name in samples[0]:
        before = [sample[name] for sample in samples[first : first + _SAMPLES]]
        after = [sample[name] for sample in samples[-_SAMPLES:]]
        mb = [statistics.median(sample.rss_mb for sample in part) for part in (before, after)]
        fds = [statistics.median(sample.fds for sample in part) for part in (before, after)]
        threads = [statistics.median(sample.threads for sample in part) for part in (before, after)]
        say(f"{kind}: {name}: MB {mb[0]:.1f} -> {mb[1]:.1f}, descriptors {fds}, threads {threads}")
        most = _EMBEDDED_MB if (kind, name) == ("embedded", "broker") else mb[0] * 1.05
        if mb[1] > most or fds[1] > fds[0] + 2 or threads[1] > threads[0] + 1:
            grown.append(name)
    return grown
