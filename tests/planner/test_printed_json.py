"""What `s2m3 plan --json` and `s2m3 churn --json` print: the keys are read by scripts."""

from s2m3.planner.solving.churn_record import ChurnResult, TaskChurn
from s2m3.planner.solving.compare import Case
from s2m3.planner.solving.energy import Energy
from s2m3.planner.solving.ranked_instance import RankedPlan
from s2m3.planner.solving.solve import Solution, TaskPlan
from s2m3.planner.solving.stand_ins import StandIns
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance

SOLUTION = Solution(
    method="auto",
    objective_s=1.5,
    proven_optimal=True,
    lower_bound_s=1.25,
    placement={"m": ["a", "b"]},
    tasks={"t": TaskPlan(0.5, {"see": "a"})},
    memory_mb={"a": 10.0},
    solve_s=0.1,
)
SOLUTION_JSON = {
    "method": "auto",
    "objective_s": 1.5,
    "proven_optimal": True,
    "lower_bound_s": 1.25,
    "placement": {"m": ["a", "b"]},
    "tasks": {"t": {"latency_s": 0.5, "route": {"see": "a"}}},
    "memory_mb": {"a": 10.0},
    "solve_s": 0.1,
}
RANKED = RankedPlan(
    instance=Instance.model_construct(),
    solution=SOLUTION,
    ranks={"t": 1},
    left_out={"u": NoCapacityError("too large")},
    warm=StandIns(copies={"n": ["b"]}, ranks={"t": [2]}),
    after_loss={"a": {"t": 2}, "b": {"t": None}},
)
RANKED_JSON = {
    "ranks": {"t": 1},
    "unanswered": {"u": NoCapacityError("too large").as_dict()},
    "stand_ins": {"ranks": {"t": [2]}, "placement": {"n": ["b"]}},
    "after_loss": {"a": {"t": 2}, "b": {"t": None}},
}


def test_a_task_s_plan_says_what_it_has_to_say() -> None:
    assert TaskPlan(0.5, {"see": "a"}).to_json() == {"latency_s": 0.5, "route": {"see": "a"}}
    full = TaskPlan(0.5, {"see": "a"}, Energy(joules=2.0, above_idle=1.0), preference_s=0.25)
    assert full.to_json() == {
        "latency_s": 0.5,
        "route": {"see": "a"},
        "preference_s": 0.25,
        "joules": 2.0,
        "joules_above_idle": 1.0,
    }


def test_a_solution_and_its_stand_ins() -> None:
    assert SOLUTION.to_json() == SOLUTION_JSON
    assert RANKED.to_json() == RANKED_JSON


def test_a_case_of_a_comparison_is_its_solution_or_why_there_is_none() -> None:
    head = {"values": {"memory_mb": 5}, "method": "greedy"}
    values, instance = {"memory_mb": 5}, RANKED.instance
    found = Case(values, "greedy", instance, SOLUTION, ranked=RANKED)
    assert found.to_json() == {**SOLUTION_JSON, **RANKED_JSON, **head}
    assert Case(values, "greedy", instance, SOLUTION).to_json() == {**SOLUTION_JSON, **head}
    none = Case(values, "greedy", instance, None, NoCapacityError("too large"))
    assert none.to_json() == {**head, "error": NoCapacityError("too large").as_dict()}


def test_the_effect_of_a_trace() -> None:
    tasks = {
        "t": TaskChurn(availability=0.5, without_s=5.0, longest_s=3.0, interruptions=2, latency_s=0.2),
        "u": TaskChurn(availability=1.0, without_s=0.0, longest_s=0.0, interruptions=0, latency_s=None),
    }
    result = ChurnResult(policy="copies", until_s=10.0, tasks=tasks, plans=4, loads=3, unloads=1, loaded_mb=30.0)
    assert result.to_json() == {
        "policy": "copies",
        "until_s": 10.0,
        "availability": 0.75,
        "plans": 4,
        "loads": 3,
        "unloads": 1,
        "loaded_mb": 30.0,
        "tasks": {
            "t": {"availability": 0.5, "without_s": 5.0, "longest_s": 3.0, "interruptions": 2, "latency_s": 0.2},
            "u": {"availability": 1.0, "without_s": 0.0, "longest_s": 0.0, "interruptions": 0, "latency_s": None},
        },
    }
