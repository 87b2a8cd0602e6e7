"""The six tasks on real weights, with nodes killed at random: only in the long form (make chaos)."""

import random

import pytest

from s2m3.demo import TASKS
from s2m3.schemas import messages as m
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Build, Say
from tests.chaos.load import Direct, Load, Plain, Question
from tests.chaos.test_nodes_die import kill_one
from tests.zoo.samples import cases

#: Any two hold all modules with room to spare: there is capacity left. The demo's budgets are a tighter fit: under load
#: an agent's runtime takes more than 440 MB, and the largest module needs 208.
_NODES = {"pi": 900.0, "laptop": 900.0, "desktop": 900.0}
_READY_S = 180.0
_DEADLINE_S = 120.0


def _questions() -> list[Question]:
    """Those of the samples' cases whose expected fields hold the answer itself."""
    models = shipped_catalogue().models
    found = [(task, inputs, expect, models[task].answer[0]) for task, inputs, expect in cases()]
    return [
        Question(task, inputs, expect[answer], _DEADLINE_S)
        for task, inputs, expect, answer in found
        if answer in expect
    ]


@pytest.mark.timeout(1800)
@pytest.mark.long
def test_the_six_tasks_outlive_nodes_that_are_killed_at_random(build: Build, rng: random.Random, say: Say) -> None:
    rig = build(nodes=_NODES)
    kills = 0
    with Site(rig.settings) as site:
        for task in TASKS:
            rig.add(site, task, m.TaskSpec(model=task), _READY_S)
        questions = _questions()
        assert {question.task for question in questions} == set(TASKS)
        with (
            Direct(rig.settings, rig.history) as direct,
            Plain(rig.broker.port_v3, rig.settings.root, TASKS, rig.history) as plain,
            Load([direct, plain], questions, count=500, per_s=1.2, rng=rng) as load,
        ):
            while load.lasts(15.0):
                kill_one(rig, site, load, TASKS, rng, 15.0)
                kills += 1
            rig.history.wait_until_all_answered(_DEADLINE_S + WAIT_S)
    verdict = rig.history.verdict()
    say(f"{rig.broker.kind}: {kills} nodes killed; {verdict}")
    assert verdict.asked == 500
    assert verdict.holds, verdict
    assert not verdict.errors, verdict
