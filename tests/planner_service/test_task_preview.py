"""What a task would cost before it is added: its memory, its nodes, what it displaces; and nothing is changed."""

from copy import deepcopy

import pytest

from s2m3.planner.site.placer import placer
from s2m3.planner.site.task_preview import known_models, preview_task
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import NoCapacityError, NotReadyError, UnknownTaskError
from s2m3.schemas.messages import StandIn, TaskSpec
from tests.planner_service.site import hold, make_facts

solve = placer(0.0)(False)  # noqa: FBT003  # Placer's one argument
CLASSIFIES = ("efficientnet-lite0", "imagenet-linear")
CATALOGUE = shipped_catalogue()


def _mb(*modules: str) -> float:
    return sum(CATALOGUE.modules[module].memory_mb for module in modules)


def test_a_second_question_to_a_model_that_is_there_costs_nothing_and_names_where_it_runs() -> None:
    cluster = make_facts("classification", nodes={"a": 500.0, "b": 500.0})
    hold(cluster, "b", *CLASSIFIES)
    found = preview_task(cluster.snapshot(), "second", TaskSpec(model="classification"), solve, 0.0)
    assert (found.added_mb, found.displaced) == (0, {})
    assert [(one.id, one.nodes, one.is_new) for one in found.modules] == [(id_, ["b"], False) for id_ in CLASSIFIES]


def test_a_new_model_costs_the_modules_that_no_node_holds() -> None:
    cluster = make_facts("classification", nodes={"a": 2000.0})
    hold(cluster, "a", *CLASSIFIES)
    found = preview_task(cluster.snapshot(), "which", TaskSpec(model="retrieval"), solve, 0.0)
    new = {one.id for one in found.modules if one.is_new}
    assert new == set(CATALOGUE.models["retrieval"].module_ids) - set(CLASSIFIES)
    assert found.added_mb == pytest.approx(_mb(*new), abs=0.2)
    assert {node for one in found.modules for node in one.nodes} == {"a"}
    assert [one.role for one in found.modules] == [CATALOGUE.modules[one.id].role for one in found.modules]
    assert found.rank == 0


def test_a_preview_changes_nothing() -> None:
    cluster = make_facts("classification", nodes={"a": 2000.0})
    before = deepcopy((cluster.tasks, cluster.plans))
    preview_task(cluster.snapshot(), "which", TaskSpec(model="retrieval"), solve, 0.0)
    preview_task(cluster.snapshot(), "classification", TaskSpec(model="retrieval"), solve, 0.0)
    assert (cluster.tasks, cluster.plans) == before
    assert cluster.ranks_of("classification")[0] == CATALOGUE.models["classification"]


def test_what_does_not_fit_is_said_with_by_how_much() -> None:
    cluster = make_facts("classification", nodes={"a": _mb(*CLASSIFIES) + 5})
    hold(cluster, "a", *CLASSIFIES)
    with pytest.raises(NoCapacityError, match="MB"):
        preview_task(cluster.snapshot(), "which", TaskSpec(model="retrieval"), solve, 0.0)
    with pytest.raises(UnknownTaskError, match="'nonsense'"):
        preview_task(cluster.snapshot(), "which", TaskSpec(model="nonsense"), solve, 0.0)


def test_a_task_that_would_get_its_stand_in_is_named() -> None:
    speech, best = TaskSpec(model="whisper-base"), CATALOGUE.models["siglip-base"].module_ids
    for extra_mb, displaced in ((10.0, {"which"}), (1000.0, set())):
        cluster = make_facts(nodes={"a": _mb(*best) + extra_mb})
        cluster.tasks["which"] = TaskSpec(model="siglip-base", stand_ins=[StandIn(model="retrieval")])
        hold(cluster, "a", *best)
        found = preview_task(cluster.snapshot(), "speech", speech, solve, 0.0)
        assert found.displaced.keys() == displaced
        assert all("no_capacity" in why and "MB" in why for why in found.displaced.values())


def test_a_task_of_which_only_the_stand_in_fits_is_previewed_on_that() -> None:
    cluster = make_facts(nodes={"a": _mb(*CATALOGUE.models["retrieval"].module_ids) + 10})
    spec = TaskSpec(model="siglip-base", stand_ins=[StandIn(model="retrieval")])
    found = preview_task(cluster.snapshot(), "which", spec, solve, 0.0)
    assert (found.model, found.rank) == ("retrieval", 1)


def test_in_the_moments_after_a_loss_nobody_knows() -> None:
    cluster = make_facts(nodes={"a": 1.0})
    cluster.note_loss("b", 100.0)
    with pytest.raises(NotReadyError, match="lost a moment ago"):
        preview_task(cluster.snapshot(), "what", TaskSpec(model="classification"), solve, 101.0)


def test_the_known_models_say_what_they_need_beside_what_is_there_and_which_cannot_be_loaded() -> None:
    cluster = make_facts("classification", nodes={"a": 2000.0})
    hold(cluster, "a", *CLASSIFIES)
    classes = [name for name in cluster.profiles["a"].classes if name != CATALOGUE.modules["minilm"].class_]
    cluster.profiles["a"] = cluster.profiles["a"].model_copy(update={"classes": classes})
    known = {model.id: model for model in known_models(cluster.snapshot(), 0.0).models}
    assert known.keys() == CATALOGUE.models.keys()
    assert known["classification"].added_mb == 0
    assert known["classification"].memory_mb == pytest.approx(_mb(*CLASSIFIES), abs=0.2)
    assert known["classification"].error is None
    assert known["retrieval"].inputs == {"image": "image", "text": "texts"}
    assert (error := known["retrieval"].error) is not None
    assert error.code == "no_capacity"
    assert "minilm" in error.detail
