"""Agents whose threads decode pictures: one is killed while they are full; and memory over 10,000 pictures."""

import io

import numpy as np
import psutil
import pytest
from PIL import Image

from s2m3.client import Client, Reply
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Build, Say
from tests.chaos.load import Direct, Question
from tests.zoo.samples import sample

_NODES = {"a": 900.0, "b": 900.0}
_READY_S, _DEADLINE_S = 180.0, 240.0
_PICTURES = 96
#: More items at a node than are prepared ahead of its worker: a batch of 4, and one for each thread.
_FULL = 16


def large(number: int, side: int = 2_400) -> bytes:
    """Returns a picture of a cat that no other number has, which takes a while to decode."""
    pixels = np.array(Image.open(io.BytesIO(sample("chelsea.jpg"))).convert("RGB").resize((side, side * 3 // 4)))
    pixels[0, 0] = (number % 256, number // 256 % 256, number // 65_536)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def resident_mb(supervisor: int) -> float:
    """Returns what an agent's processes take, 10^6 bytes: supervisor, agent, and any that these started."""
    first = psutil.Process(supervisor)
    return sum(process.memory_info().rss for process in (first, *first.children(recursive=True))) / 1e6


def waiting(site: Site) -> dict[str, int]:
    """Returns node -> number of items that wait or run there."""
    return {node: sum(load.queues.values()) for node, load in site.loads.items()}


@pytest.mark.timeout(900)
@pytest.mark.long
def test_killing_an_agent_whose_pool_is_full_loses_nothing_and_answers_nothing_twice(build: Build, say: Say) -> None:
    rig = build(nodes=_NODES)
    picture = large(0)
    pictures = [picture + number.to_bytes(4, "big") for number in range(1, _PICTURES + 1)]  # no two are the same file
    with Site(rig.settings) as site, Client(settings=rig.settings) as client:
        rig.add(site, "classification", m.TaskSpec(model="classification", max_replicas=2), _READY_S)
        expected = client.ask("classification", image=large(0), deadline_s=_DEADLINE_S).value
        with Direct(rig.settings, rig.history) as direct:
            for number, picture in enumerate(pictures):
                direct.ask(f"picture {number}", Question("classification", {"image": picture}, expected, _DEADLINE_S))
            assert site.wait(lambda s: max(waiting(s).values(), default=0) >= _FULL, _DEADLINE_S)
            found = waiting(site)
            victim = max(found, key=lambda node: found[node])
            rig.kill(victim)
            rig.history.wait_until_all_answered(_DEADLINE_S + WAIT_S)
    verdict = rig.history.verdict()
    say(f"{rig.broker.kind}: {victim} killed while {found[victim]} waited there; {verdict}")
    assert verdict.asked == _PICTURES
    assert verdict.holds, verdict
    assert not verdict.errors, verdict


@pytest.mark.timeout(3600)
@pytest.mark.long
@pytest.mark.short_on("mosquitto")
def test_memory_is_flat_over_ten_thousand_pictures(build: Build, say: Say) -> None:
    rig = build(nodes={"a": 900.0})
    pictures = [large(number, side=320) for number in range(10)]
    with Site(rig.settings) as site, Client(settings=rig.settings) as client:
        rig.add(site, "classification", m.TaskSpec(model="classification"), _READY_S)
        after = []
        for thousand in range(10):
            waiting: list[Reply] = []
            for number in range(1_000):
                if len(waiting) == 32:
                    waiting.pop(0).result(_DEADLINE_S)
                # no two are the same file: a comment's worth of bytes behind the picture's end
                data = pictures[number % 10] + (1_000 * thousand + number).to_bytes(4, "big")
                waiting.append(client.submit("classification", image=data, deadline_s=_DEADLINE_S))
            for reply in waiting:
                reply.result(_DEADLINE_S)
            after.append(resident_mb(rig.processes["a"].pid))
            say(f"{thousand + 1},000 pictures: {after[-1]:.0f} MB")
    say(f"resident after each 1,000 pictures, agent and supervisor, MB: {', '.join(f'{mb:.0f}' for mb in after)}")
    assert after[-1] < after[2] * 1.05
