"""Which encoders of a site can find pictures by words, and which part of a task's route leads to an embedding."""

import numpy as np
import pytest

from s2m3.history.encoders import encoders_of
from s2m3.history.finder import best, packed
from s2m3.history.store import HistoryStore
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.history import HistoryWanted
from s2m3.schemas.messages import Replica, RouteDoc, RouteStep
from tests.history.kept import entry


def _route(model: str, *, ready: bool = True) -> RouteDoc:
    spec = shipped_catalogue().models[model]
    steps = {
        name: RouteStep(
            module=step.module,
            inputs=step.inputs,
            outputs=list(spec.wanted_outputs(name)),
            replicas=[Replica(node="a", ms=1)] if ready else [],
        )
        for name, step in spec.steps.items()
    }
    return RouteDoc(epoch=1, revision=1, model=model, inputs=spec.inputs, answer=spec.answer, deadline_s=9, steps=steps)


@pytest.mark.parametrize("model", ["clip-vit-b16", "siglip-base"])
def test_a_model_of_two_encoders_and_a_comparing_head_is_a_pair(model: str) -> None:
    found = encoders_of({"which": _route(model)})
    assert found is not None
    assert (found.task, found.space, found.is_conse) == ("which", _route(model).steps["image"].module, False)
    assert found.picture.steps.keys() == {"image"}
    assert (found.picture.inputs, found.picture.answer) == ({"image": "image"}, ["embedding"])
    assert found.picture.steps["image"].outputs == ["embedding"]
    assert found.text.steps.keys() == {"words"}
    assert found.text.answer == ["embedding"]


def test_the_shipped_retrieval_ends_in_logits_and_comes_after_a_trained_pair() -> None:
    found = encoders_of({"retrieval": _route("retrieval")})
    assert found is not None
    assert found.is_conse
    assert list(found.picture.steps) == ["vision", "classes"]
    assert found.picture.steps["vision"].outputs == ["features"]
    assert found.picture.answer == ["logits"]
    both = encoders_of({"a-retrieval": _route("retrieval"), "clip": _route("clip-vit-b16")})
    assert both is not None
    assert both.task == "clip"


@pytest.mark.parametrize("model", ["vqa", "classification", "spoken-intent", "spoken-retrieval", "transcription"])
def test_a_model_that_does_not_compare_one_picture_with_texts_is_none(model: str) -> None:
    assert encoders_of({"task": _route(model)}) is None


def test_a_task_that_is_not_ready_is_none() -> None:
    assert encoders_of({"retrieval": _route("retrieval", ready=False)}) is None


def test_the_best_pictures_come_first_of_one_space_and_one_query() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(2_500, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with HistoryStore(None, 50_000_000, 1e9) as store:
        for number, vector in enumerate(vectors):
            store.add(entry(number, task="hall" if number % 2 else "porch"))
            store.embed(entry(number).id, "other" if number == 7 else "clip", packed(vector))
        found = best(store, HistoryWanted(limit=5, tasks=["hall"]), "clip", vectors[7])
    order = [n for n in np.argsort(-(vectors @ vectors[7])).tolist() if n % 2 and n != 7]
    assert [one.id for one in found] == [entry(number).id for number in order[:5]]
    assert [one.fits for one in found] == sorted((one.fits or 0 for one in found), reverse=True)
