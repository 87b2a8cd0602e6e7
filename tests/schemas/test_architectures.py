"""The table of architectures: every family has whole wiring, and names on disk find their part."""

import pytest

from s2m3.schemas.checkpoints.architectures import Architecture, architecture_of, architectures, value_at
from s2m3.schemas.errors import BadDefinitionError


@pytest.mark.parametrize("family", architectures(), ids=lambda family: family.names[0])
def test_every_family_is_wired_from_its_inputs_to_one_head(family: Architecture) -> None:
    followed = {ref.partition(".")[0] for step in family.steps.values() for ref in step.inputs.values()}
    heads = [name for name in family.steps if name not in followed]
    assert len(heads) == bool(family.steps)
    for step in family.steps.values():
        assert step.inputs.keys() == family.parts[step.part].inputs.keys()
        for ref in step.inputs.values():
            source, _, output = ref.partition(".")
            outputs = family.inputs if source == "input" else family.parts[family.steps[source].part].outputs
            assert output in outputs
    assert all(set(family.answer) <= family.parts[family.steps[head].part].outputs.keys() for head in heads)


def test_a_family_is_found_by_name_and_by_pattern() -> None:
    assert "CLIPModel" in architecture_of({"architectures": ["CLIPModel"]}).names
    assert architecture_of({"architectures": ["SwinForImageClassification"]}).names == ["*ForImageClassification"]
    resnet = {"model_cfg": {"vision_cfg": {"layers": [3, 4, 6, 3]}}}
    assert architecture_of(resnet).names[0] == "open_clip:resnet"


@pytest.mark.parametrize("config", [{}, {"architectures": []}, {"architectures": ["MambaModel"]}])
def test_an_unknown_family_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(BadDefinitionError, match="architectures"):
        architecture_of(config)


def test_names_on_disk_find_their_part_before_and_after_transformers_5() -> None:
    family = architecture_of({"architectures": ["LlavaForConditionalGeneration"]})
    for tower in ("vision_tower.", "vision_tower.vision_model.", "model.vision_tower."):
        assert family.parts["vision"].name_of(f"{tower}encoder.x") == "vision_model.encoder.x"
    words = family.parts["decoder"]
    assert words.names(
        ["language_model.model.norm.weight", "multi_modal_projector.linear_1.bias", "vision_tower.x"]
    ) == {
        "language_model.model.norm.weight": "model.norm.weight",
        "multi_modal_projector.linear_1.bias": "projector.linear_1.bias",
    }


def test_a_dropped_tensor_is_of_no_part() -> None:
    family = architecture_of({"architectures": ["ViTForImageClassification"]})
    assert family.parts["vision"].name_of("vit.layernorm.bias") == "vit.layernorm.bias"
    assert family.parts["vision"].name_of("classifier.weight") is None
    assert family.parts["head"].name_of("classifier.weight") == "weight"


def test_a_value_is_found_by_its_path() -> None:
    assert value_at("a.b", {"a": {"b": 7}}) == 7
    assert value_at("a.c", {"a": {"b": 7}}) is None
    assert value_at("a.b.c", {"a": {"b": 7}}) is None
