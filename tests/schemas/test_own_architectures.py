"""Architectures of one's own: strict files, and the shipped ones stay what they are."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from s2m3.agents.registry.classes import OF_CHECKPOINTS
from s2m3.schemas.checkpoints.architectures import architecture_of, architectures
from s2m3.schemas.checkpoints.own_architectures import own_architectures
from s2m3.schemas.definitions import load_catalogue
from s2m3.schemas.errors import BadDefinitionError, BadInputError
from s2m3.schemas.settings import AgentSettings, CheckpointSettings, PlannerSettings
from tests.command import s2m3, s2m3_here

GOOD = """
names = ["AcmeClassifier"]
description = "What the picture shows"
inputs = { image = "image" }
answer = ["label"]
steps.look = { part = "eye", inputs = { image = "input.image" } }
steps.say = { part = "mouth", inputs = { features = "look.features" } }

[parts.eye]
role = "vision-encoder"
class = "acme-eye"
prefixes = { "eye." = "" }
inputs = { image = "images" }
outputs.features = { kind = "tensor" }

[parts.mouth]
role = "head"
class = "classifier-head"
prefixes = { "mouth." = "" }
inputs = { features = "tensor" }
outputs.label = { kind = "text" }
"""
CHECKPOINT = """
[checkpoints.acme]
source = "acme"
architecture = "AcmeClassifier"
config = { widths = [3, 2] }
"""


def folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        (path / f"{name}.toml").write_text(text)
    return path


def named(*names: str) -> str:
    return GOOD.replace('["AcmeClassifier"]', str(list(names)).replace("'", '"'))


def test_every_shipped_part_is_of_a_shipped_class() -> None:
    assert {part.class_ for family in architectures() for part in family.parts.values()} == OF_CHECKPOINTS


def test_an_own_architecture_is_found_beside_the_shipped_ones(tmp_path: Path) -> None:
    own = own_architectures(folder(tmp_path, acme=GOOD))
    assert architecture_of({"architectures": ["AcmeClassifier"]}, own) is own[0]
    assert "CLIPModel" in architecture_of({"architectures": ["CLIPModel"]}, own).names
    with pytest.raises(BadDefinitionError, match=r"'AcmeClassifier' is not known"):
        architecture_of({"architectures": ["AcmeClassifier"]})
    with pytest.raises(BadDefinitionError, match=r"'Other' is not known; known: .*AcmeClassifier.*CLIPModel"):
        architecture_of({"architectures": ["Other"]}, own)


@pytest.mark.parametrize("name", ["CLIPModel", "*ForImageClassification"])
def test_a_shipped_architecture_is_not_replaced(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadDefinitionError, match=r"mine\.toml: names: .* is a shipped architecture, which no other"):
        own_architectures(folder(tmp_path, mine=named("Mine", name)))


def test_one_that_only_a_shipped_pattern_stands_for_may_be_defined_and_is_told(tmp_path: Path) -> None:
    with capture_logs() as logs:
        own = own_architectures(folder(tmp_path, pvt=named("PvtForImageClassification")))
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("own_architecture_instead_of_shipped", "warning")
    assert (line["name"], line["shipped"]) == ("PvtForImageClassification", "*ForImageClassification")
    assert architecture_of({"architectures": ["PvtForImageClassification"]}, own) is own[0]
    assert architecture_of({"architectures": ["ViTForImageClassification"]}, own).names == ["*ForImageClassification"]


def test_a_pattern_of_ones_own_counts_where_nothing_shipped_fits(tmp_path: Path) -> None:
    own = own_architectures(folder(tmp_path, all=named("*")))
    assert "CLIPModel" in architecture_of({"architectures": ["CLIPModel"]}, own).names
    assert architecture_of({"architectures": ["SwinForImageClassification"]}, own).names == ["*ForImageClassification"]
    assert architecture_of({"architectures": ["Anything"]}, own) is own[0]


def test_two_files_may_not_define_the_same(tmp_path: Path) -> None:
    with pytest.raises(BadDefinitionError, match=r"one\.toml: names: 'AcmeClassifier' is also in two\.toml"):
        own_architectures(folder(tmp_path, one=GOOD, two=named("Second", "AcmeClassifier")))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("description", "descripton", r"acme\.toml: description: Field required"),
        ('prefixes = { "eye."', 'prefix = { "eye."', r"acme\.toml: parts\.eye\.prefix: Extra inputs"),
        ('class = "acme-eye"', 'class = "acme-eye"\nklass = 1', r"acme\.toml: parts\.eye\.klass: Extra inputs"),
        ('class = "acme-eye"', 'class = "Acme Eye"', r"acme\.toml: parts\.eye\.class: "),
        ('role = "head"', 'role = "tail"', r"acme\.toml: parts\.mouth\.role: "),
        ('part = "mouth"', 'part = "nose"', r"acme\.toml: steps\.say\.part: there is no part 'nose'"),
        ("look.features", "look.smell", r"acme\.toml: steps\.say.*smell"),
        ('{ image = "image" }', '{ image = "text" }', r"acme\.toml: steps\.look.*takes images"),
        ('answer = ["label"]', 'answer = ["score"]', r"acme\.toml: answer: the head say has no output 'score'"),
        ("[parts.eye]", "[parts.eye", r"acme\.toml: "),
        ("outputs.label", 'writes = "logits"\noutputs.label', r"acme\.toml: parts\.mouth: .*generates: 'logits'"),
        ("parts.eye]", 'parts."An Eye"]', r"acme\.toml: steps\.look\.part"),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_key(tmp_path: Path, old: str, new: str, text: str) -> None:
    assert old in GOOD
    with pytest.raises(BadDefinitionError, match=text) as refused:
        own_architectures(folder(tmp_path, acme=GOOD.replace(old, new, 1)))
    assert "\n" not in refused.value.detail


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"setting architectures: .*nowhere is not a folder"):
        own_architectures(tmp_path / "nowhere")
    assert own_architectures(None) == ()


def test_a_known_checkpoint_may_be_of_an_own_architecture(tmp_path: Path) -> None:
    own = own_architectures(folder(tmp_path, acme=GOOD))
    (tmp_path / "models").mkdir()
    (file,) = folder(tmp_path / "models", acme=CHECKPOINT).glob("*.toml")
    with pytest.raises(BadDefinitionError, match=r"acme\.toml: checkpoints\.acme: .*'AcmeClassifier' is not known"):
        load_catalogue([file])
    with pytest.raises(BadDefinitionError, match=r"checkpoints\.acme: .*the size of eye"):
        load_catalogue([file], own)


@pytest.mark.parametrize("kind", [AgentSettings, PlannerSettings, CheckpointSettings])
def test_the_folder_is_a_setting(
    kind: type[CheckpointSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "s2m3.toml").write_text('architectures = "mine"\n')
    monkeypatch.setenv("S2M3_CONFIG", str(tmp_path / "s2m3.toml"))
    assert kind.load().architectures == tmp_path / "mine"
    monkeypatch.setenv("S2M3_ARCHITECTURES", "theirs")
    assert kind.load().architectures == Path("theirs")
    assert kind.load(architectures="flag").architectures == Path("flag")


@pytest.mark.parametrize(
    "words",
    [["planner"], ["models"], ["split", "clip-vit-b32"], ["task", "add", "x", "--model", "./folder"]],
    ids=["planner", "models", "split", "task-add"],
)
def test_each_command_refuses_a_wrong_file_in_one_line(words: list[str], tmp_path: Path) -> None:
    done = s2m3_here(*words, "--architectures", str(folder(tmp_path, acme="names = 3")))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("s2m3: bad_input: acme.toml: names: ")


def test_an_agent_refuses_a_wrong_file_in_one_line_and_does_not_start(tmp_path: Path) -> None:
    done = s2m3("agent", "--architectures", str(folder(tmp_path, acme="names = 3")))
    assert done.returncode == 2
    assert done.stderr.startswith("s2m3: bad_input: acme.toml: names: ")
