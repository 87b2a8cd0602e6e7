"""Published checkpoints as definitions: sizes follow from the configuration, one module where weights are the same."""

from pathlib import Path

import pytest

from s2m3.schemas.checkpoints.published import known_parts
from s2m3.schemas.definitions import Catalogue, load_catalogue, shipped_catalogue, shipped_folder
from s2m3.schemas.errors import BadDefinitionError

SMALL = """
[checkpoints.mine]
source = "me/clip"
revision = "abc"
architecture = "CLIPModel"
config.projection_dim = 512
config.vision_config = { patch_size = 16 }
config.text_config = {}
"""


def load(folder: Path, **files: str) -> Catalogue:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return load_catalogue(folder.glob("*.toml"))


def test_a_checkpoint_is_a_model_and_its_modules_with_sizes_from_its_configuration(tmp_path: Path) -> None:
    catalogue = load(tmp_path, mine=SMALL)
    assert [spec.id for spec in catalogue.modules_of("mine")] == ["mine-vision", "mine-text", "mine-head"]
    vision = catalogue.modules["mine-vision"]
    assert (vision.source, vision.revision, vision.prefix, vision.class_) == (
        "me/clip",
        "abc",
        "vision",
        "image-encoder",
    )
    assert vision.memory_mb == pytest.approx(86_192_640 * 4 / 1e6, abs=0.01)
    assert vision.gflops == pytest.approx(35.13, abs=0.01)
    assert vision.kb_of(["embedding"]) == pytest.approx(2.048)
    assert vision.kb_of(["tokens"]) == pytest.approx(196 * 768 * 4 / 1000)
    assert catalogue.models["mine"].sent_kb(vision) == pytest.approx(2.048)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '"CLIPModel"',
            '"ClipModel"',
            "m.toml: checkpoints.mine: config.json: architectures: 'ClipModel' is not known",
        ),
        ("{ patch_size = 16 }", "{ patch_size = 0 }", "m.toml: checkpoints.mine: config.json: sizes do not follow"),
        ('source = "me/clip"', "", "m.toml: checkpoints.mine.source: Field required"),
        ('source = "me/clip"', 'source = "me/clip"\nprefix = "x"', "m.toml: checkpoints.mine.prefix: Extra inputs"),
        ('source = "me/clip"', 'source = "me/clip"\nsame.eye = "x"', "m.toml: checkpoints.mine: same.eye: there is no"),
        (
            'source = "me/clip"',
            'source = "me/clip"\nsame.vision = "x"',
            "modules.mine-vision.same_as: 'x' is no module",
        ),
        ("[checkpoints.mine]", "[checkpoints.Mine]", "m.toml: checkpoints.Mine"),
    ],
)
def test_a_wrong_table_is_refused_with_the_file_and_the_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SMALL
    with pytest.raises(BadDefinitionError) as raised:
        load(tmp_path, m=SMALL.replace(old, new))
    assert raised.value.detail.startswith(said)


def test_checkpoints_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDefinitionError, match=r"m\.toml: checkpoints: not a table"):
        load(tmp_path, m="checkpoints = 3")


def test_the_papers_models_and_more_are_known() -> None:
    wanted = {f"clip-{name}" for name in ("rn50", "rn101", "rn50x4", "rn50x16", "rn50x64")}
    wanted |= {f"clip-vit-{name}" for name in ("b32", "b16", "l14", "l14-336")}
    wanted |= {"llava-7b", "llava-13b", "llava-phi-3-mini", "llava-tinyllama", "vit-gpt2", "clip-vqa"}
    wanted |= {"clip-classification", "imagebind", "imagebind-picture"}
    wanted |= {"whisper-base", "whisper-small", "blip-captioning", "blip-vqa", "siglip-base", "clap"}
    assert wanted <= shipped_catalogue().models.keys()


def test_llavas_towers_are_clips_own_and_only_those_that_are_the_same() -> None:
    catalogue = shipped_catalogue()
    tower = catalogue.models["clip-vit-l14-336"].steps["image"].module
    for name, same in {
        "llava-7b": True,
        "llava-13b": True,
        "llava-phi-3-mini": False,
        "llava-tinyllama": False,
    }.items():
        assert (catalogue.models[name].steps["image"].module == tower) is same, name
    assert {origin.source for origin in catalogue.modules[tower].also} == {
        "llava-hf/llava-1.5-7b-hf",
        "llava-hf/llava-1.5-13b-hf",
    }


def test_equal_shape_is_not_equality() -> None:
    catalogue = shipped_catalogue()
    texts = {catalogue.models[f"clip-{name}"].steps["words"].module for name in ("rn101", "vit-b32", "vit-b16")}
    assert len(texts) == 3
    assert len({catalogue.modules[text].memory_mb for text in texts}) == 1


def test_one_tower_sends_an_embedding_to_one_model_and_tokens_to_another() -> None:
    catalogue = shipped_catalogue()
    tower = catalogue.modules[catalogue.models["llava-7b"].steps["image"].module]
    assert catalogue.models["clip-vit-l14-336"].sent_kb(tower) == pytest.approx(3.072)
    assert catalogue.models["llava-7b"].sent_kb(tower) == pytest.approx(576 * 1024 * 4 / 1000)


def test_imagebinds_encoders_have_the_sizes_that_are_known_of_them() -> None:
    parts = known_parts(shipped_catalogue().checkpoints)
    millions = {name: parts[f"imagebind-{name}"].parameters / 1e6 for name in ("vision", "text", "audio")}
    assert millions == pytest.approx({"vision": 632.83, "text": 354.03, "audio": 86.24}, abs=0.005)
    assert parts["imagebind-text"].lookup / 1e6 == pytest.approx(50.59, abs=0.005)


def test_what_is_declared_the_same_is_one_part() -> None:
    parts = known_parts(shipped_catalogue().checkpoints)
    assert parts["llava-7b-vision"].identity == parts["clip-vit-l14-336-vision"].identity


def test_the_definitions_in_the_document_load_beside_the_shipped_ones(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    door, clip = (block.partition("```")[0] for block in text.split("```toml\n")[1:3])
    assert len(door.splitlines()) <= 10
    (tmp_path / "door.toml").write_text(door, encoding="utf-8")
    (tmp_path / "clip.toml").write_text(clip, encoding="utf-8")
    catalogue = load_catalogue([*shipped_folder().glob("*.toml"), *tmp_path.glob("*.toml")])
    assert {"pet-door", "my-clip"} <= catalogue.models.keys()
    # The same source, revision, part and class: it is the shipped one.
    assert catalogue.models["my-clip"].module_ids == catalogue.models["clip-vit-b16"].module_ids
