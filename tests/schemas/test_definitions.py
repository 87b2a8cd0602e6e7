"""Model definitions: what cannot run is refused with the file and the key; equal modules become one."""

from pathlib import Path

import pytest

from s2m3.schemas.definitions import Catalogue, load_catalogue, shipped_catalogue
from s2m3.schemas.errors import BadDefinitionError

MODULES = """
[modules.eye]
role = "vision-encoder"
class = "vit"
source = "clip"
prefix = "visual"
inputs = { picture = "images" }
outputs = { embedding = "tensor" }
memory_mb = 340

[modules.ear]
role = "text-encoder"
class = "bert"
source = "clip"
prefix = "text"
inputs = { text = "texts" }
outputs = { embedding = "tensor" }
memory_mb = 250

[modules.cosine]
role = "head"
class = "cosine"
source = "none"
inputs = { left = "tensor", right = "tensor" }
outputs = { label = "text", score = "number" }
memory_mb = 1
"""
MODEL = """
id = "retrieval"
description = "which text fits"
inputs = { image = "image", text = "texts" }
answer = ["label"]

[steps.image]
module = "eye"
inputs = { picture = "input.image" }

[steps.words]
module = "ear"
inputs = { text = "input.text" }

[steps.rank]
module = "cosine"
inputs = { left = "image.embedding", right = "words.embedding" }
"""


def load(folder: Path, **files: str) -> Catalogue:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return load_catalogue(folder.glob("*.toml"))


def refused(folder: Path, **files: str) -> str:
    with pytest.raises(BadDefinitionError) as raised:
        load(folder, **files)
    return raised.value.detail


def test_a_model_may_use_modules_of_another_file(tmp_path: Path) -> None:
    catalogue = load(tmp_path, a=MODEL, z=MODULES)
    model = catalogue.models["retrieval"]
    assert model.head == "rank"
    assert model.module_ids == ("eye", "ear", "cosine")
    assert [spec.id for spec in catalogue.modules_of("retrieval")] == ["eye", "ear", "cosine"]
    assert model.steps["rank"].after == ("image", "words")
    assert model.steps["image"].after == ()


def test_only_the_outputs_that_are_asked_for_are_wanted(tmp_path: Path) -> None:
    model = load(tmp_path, a=MODEL, z=MODULES).models["retrieval"]
    assert model.wanted_outputs("image") == ("embedding",)
    assert model.wanted_outputs("rank") == ("label",)


def test_one_picture_is_taken_where_many_are(tmp_path: Path) -> None:
    assert load(tmp_path, a=MODEL, z=MODULES).models["retrieval"].inputs["image"] == "image"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"image.embedding"', '"picture.embedding"', "m.toml: steps.rank.inputs.left: unknown step 'picture'"),
        ('"image.embedding"', '"image.logits"', "m.toml: steps.rank.inputs.left: module eye has no output 'logits'"),
        ('"input.image"', '"input.photo"', "m.toml: steps.image.inputs.picture: the model has no input 'photo'"),
        ('"input.image"', '"image"', "m.toml: steps.image.inputs.picture: 'image' is neither"),
        ('"input.image"', '"input.text"', "m.toml: steps.image.inputs.picture: takes images, but input.text is texts"),
        ('"image.embedding"', '"input.text"', "m.toml: steps.rank.inputs.left: takes tensor, but input.text is texts"),
        ('module = "eye"', 'module = "nose"', "m.toml: steps.image.module: unknown module 'nose'"),
        ('{ picture = "input.image" }', '{ photo = "input.image" }', "m.toml: steps.image.inputs: module eye takes"),
        ('answer = ["label"]', 'answer = ["colour"]', "m.toml: answer: the head rank has no output 'colour'"),
        ('text = "texts" }', 'text = "texts", more = "text" }', "m.toml: inputs.more: no step takes it"),
        ("[steps.words]", "[steps.input]", "m.toml: steps.input: 'input' stands for the request"),
        ("[steps.words]", "[steps.Words]", "m.toml: steps.Words"),
        ('id = "retrieval"', 'id = "Retrieval!"', "m.toml: id:"),
        ('answer = ["label"]', "answer = []", "m.toml: answer:"),
        ('image = "image"', 'image = "video"', "m.toml: inputs.image:"),
        ('description = "which text fits"', "", "m.toml: description: Field required"),
        ('id = "retrieval"', 'id = "retrieval"\ncolour = 3', "m.toml: colour:"),
    ],
)
def test_wiring_that_cannot_run_is_refused_with_the_file_and_the_key(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in MODEL
    assert refused(tmp_path, m=MODEL.replace(old, new), z=MODULES).startswith(said)


def test_a_cycle_is_named(tmp_path: Path) -> None:
    turn = '[modules.turn]\nrole="decoder"\nclass="t"\nsource="none"\nmemory_mb=1\n'
    ports = 'inputs={ a="tensor" }\noutputs={ b="tensor" }\n'
    steps = '[steps.one]\nmodule="turn"\ninputs={ a="two.b" }\n[steps.two]\nmodule="turn"\ninputs={ a="one.b" }\n'
    head = 'id="round"\ndescription=""\ninputs={ x="text" }\nanswer=["b"]\n'
    said = refused(tmp_path, m=head + steps, z=turn + ports)
    assert said.startswith("m.toml: steps: a cycle: ")
    assert "one" in said
    assert "two" in said


def test_two_heads_are_named(tmp_path: Path) -> None:
    extra = '\n[steps.alone]\nmodule = "ear"\ninputs = { text = "input.text" }\n'
    assert refused(tmp_path, m=MODEL + extra, z=MODULES).startswith("m.toml: steps: two heads: rank, alone")


def test_bad_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    assert "line 2" in refused(tmp_path, m='id = "x"\nthis is no toml\n')


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadDefinitionError, match=r"m\.toml: cannot be read"):
        load_catalogue([tmp_path / "m.toml"])
    with pytest.raises(BadDefinitionError, match=r"gone\.toml: cannot be read"):
        load_catalogue([tmp_path / "gone.toml"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modules = 3", "z.toml: modules: not a table"),
        ("[modules]\neye = 3", "z.toml: modules.eye: not a table"),
        (MODULES.replace("340", '"much"'), "z.toml: modules.eye.memory_mb:"),
        (MODULES.replace("340", "0"), "z.toml: modules.eye.memory_mb:"),
        (MODULES.replace('"vision-encoder"', '"eye"'), "z.toml: modules.eye.role:"),
        (MODULES.replace("[modules.eye]", "[modules.EYE]"), "z.toml: modules.EYE.id:"),
        (MODULES.replace('prefix = "visual"', 'prefx = "visual"'), "z.toml: modules.eye.prefx:"),
    ],
)
def test_a_wrong_module_is_refused_with_the_file_and_the_key(tmp_path: Path, text: str, said: str) -> None:
    assert refused(tmp_path, z=text).startswith(said)


def test_the_same_id_for_another_module_is_refused(tmp_path: Path) -> None:
    other = MODULES.replace('source = "clip"', 'source = "blip"')
    assert refused(tmp_path, a=MODULES, b=other) == "b.toml: modules.eye: is another module in a.toml"


def test_the_same_module_in_two_files_is_one(tmp_path: Path) -> None:
    assert set(load(tmp_path, a=MODULES, b=MODULES).modules) == {"eye", "ear", "cosine"}


def test_the_same_model_twice_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, a=MODEL, b=MODEL, z=MODULES) == "b.toml: id: model retrieval is also in a.toml"


def test_equal_modules_of_different_names_become_one(tmp_path: Path) -> None:
    twin = MODULES.replace("modules.eye", "modules.a-twin")
    model = MODEL.replace('"retrieval"', '"other"').replace('"eye"', '"a-twin"')
    catalogue = load(tmp_path, a=MODULES, b=twin, m=MODEL, n=model)
    assert set(catalogue.modules) == {"a-twin", "ear", "cosine"}
    assert {m.steps["image"].module for m in catalogue.models.values()} == {"a-twin"}


def test_equal_shape_is_not_equality(tmp_path: Path) -> None:
    tuned = MODULES.replace("modules.eye", "modules.tuned").replace('"visual"', '"visual-tuned"')
    assert {"eye", "tuned"} <= set(load(tmp_path, a=MODULES, b=tuned).modules)


def test_equal_modules_that_say_other_inputs_are_refused(tmp_path: Path) -> None:
    twin = MODULES.replace("modules.eye", "modules.a-twin").replace('picture = "images"', 'photo = "images"')
    assert "modules.eye: is the same module as a-twin" in refused(tmp_path, a=MODULES, b=twin)


def test_an_input_whose_name_has_a_dot_is_an_input_like_another(tmp_path: Path) -> None:
    model = MODEL.replace("{ image =", '{ "front.image" =').replace("input.image", "input.front.image")
    catalogue = load(tmp_path, m=model, z=MODULES)
    assert catalogue.models["retrieval"].wanted_outputs("image") == ("embedding",)


def test_the_shipped_definitions_load_and_share_modules() -> None:
    catalogue = shipped_catalogue()
    users = [m for model in catalogue.models.values() for m in model.module_ids]
    assert len(catalogue.models) >= 7
    assert set(users) <= catalogue.modules.keys()
    assert len(users) > len(set(users))
