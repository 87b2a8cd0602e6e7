"""Tasks that bring their own definition: shared with what is known, refused alone, forgotten when they go."""

from typing import Any

from s2m3.planner.site.placement import place
from s2m3.schemas.definitions import Definition, shipped_catalogue
from s2m3.schemas.instance import Instance
from s2m3.schemas.messages import TaskSpec
from tests.planner_service.site import make_facts

NOOP = shipped_catalogue().models["noop"]


def brought(*, source: str = "none", **changed: Any) -> TaskSpec:
    """A task whose definition is noop's under other ids; another source makes its modules others."""
    ids = {module: f"own-{module}" for module in NOOP.module_ids}
    known = shipped_catalogue().modules
    modules = [known[old].model_copy(update={"id": new, "source": source}) for old, new in ids.items()]
    steps = {s: step.model_copy(update={"module": ids[step.module]}) for s, step in NOOP.steps.items()}
    model = NOOP.model_copy(update={"id": "mine", "steps": steps, **changed})
    return TaskSpec(model="mine", definition=Definition(model=model, modules=modules))


def placed_first(instance: Instance, _: object) -> dict[str, list[str]]:
    return {module.id: [instance.devices[0].id] for module in instance.modules}


def test_what_a_task_brings_is_shared_with_what_is_known_under_the_known_name() -> None:
    cluster = make_facts("noop")
    assert cluster.want("mine", brought())
    model = cluster.model_of("mine")
    assert model is not None
    assert set(model.module_ids) == set(NOOP.module_ids)


def test_what_is_new_is_placed_as_it_is_and_shared_by_two_tasks_that_bring_it() -> None:
    cluster = make_facts()
    for node in cluster.profiles:
        update = {"sources": [*cluster.profiles[node].sources, "elsewhere"]}
        cluster.profiles[node] = cluster.profiles[node].model_copy(update=update)
    for task in ("one", "two"):
        cluster.want(task, brought(source="elsewhere"))
    found = place(cluster, placed_first, 0.0)
    assert not found.errors
    assert set(found.modules) == {f"own-{module}" for module in NOOP.module_ids}


def test_a_definition_that_cannot_run_refuses_its_own_task_alone() -> None:
    cluster = make_facts("noop")
    cluster.want("bad", brought(answer=["nothing"]))
    found = place(cluster, placed_first, 0.0)
    assert found.errors.keys() == {"bad"}
    assert "has no output 'nothing'" in str(found.errors["bad"])
    assert set(found.modules) == set(NOOP.module_ids)


def test_an_id_that_is_another_module_already_is_refused() -> None:
    cluster = make_facts()
    cluster.want("one", brought(source="here"))
    cluster.want("two", brought(source="elsewhere"))
    assert "is another module already" in str(cluster.ranks_of("two")[0])
    assert cluster.model_of("one") is not None


def test_what_a_task_brought_is_forgotten_with_it() -> None:
    cluster = make_facts("noop")
    cluster.want("mine", brought(source="elsewhere"))
    assert "own-noop-head" in cluster.catalogue.modules
    assert cluster.want("mine", None)
    assert cluster.catalogue == shipped_catalogue()
    assert not cluster.want("mine", None)


def test_the_same_wish_is_no_news() -> None:
    cluster = make_facts()
    assert cluster.want("mine", brought())
    assert not cluster.want("mine", brought())
