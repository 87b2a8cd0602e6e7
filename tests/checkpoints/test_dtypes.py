"""Parts of checkpoints in other dtypes: what they take is known before, and agents serve them so."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers as t

from s2m3.cluster import Cluster
from s2m3.schemas import messages as m
from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.checkpoints.parts import model_of
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.specs import Definition
from s2m3.snapshot import Site
from tests import command
from tests.checkpoints.inprocess import loaded, run_all
from tests.checkpoints.models import definition
from tests.checkpoints.tiny import pictures, save
from tests.conftest import WAIT_S
from tests.zoo.samples import FOLDER

CAT = FOLDER / "chelsea.jpg"
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "float16", "int8")
#: Parts whose linear layers are of every sort: torch's own, GPT-2's, tied to the embedding, packed, none at all.
PARTS = [
    ("tiny-vit", "vision"), ("tiny-clip", "text"), ("tiny-vit-gpt2", "decoder"), ("tiny-llava", "decoder"),
    ("tiny-whisper", "decoder"), ("tiny-siglip", "vision"), ("tiny-clip-resnet", "vision"),
    ("tiny-clip-resnet", "text"), ("tiny-clap", "audio"), ("tiny-blip-vqa", "question"), ("tiny-resnet", "vision"),
    ("tiny-distilbert", "head"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_what_a_part_takes_in_each_dtype_is_known_by_its_headers(tiny: Path, name: str, part: str) -> None:
    size = next(size for size in model_of(read_checkpoint(tiny / name), name).parts if size.name == part)
    spec = next(spec for spec in definition(tiny, name).modules if spec.prefix == part)
    for dtype in DTYPES:
        real = loaded(tiny, spec.model_copy(update={"dtype": dtype})).nbytes
        # buffers; of int8 scales too, which weigh more the narrower a layer is: these are 32 wide
        assert real == pytest.approx(size.nbytes(dtype), rel=0.25 if dtype == "int8" else 0.1)


def test_a_decoder_in_int8_whose_last_layer_is_its_embedding_holds_no_second_copy_of_it(tiny: Path) -> None:
    spec = next(spec for spec in definition(tiny, "tiny-vit-gpt2").modules if spec.prefix == "decoder")
    assert loaded(tiny, spec.model_copy(update={"dtype": "int8"})).nbytes < 0.6 * loaded(tiny, spec).nbytes


def in_int8(folder: Path, name: str) -> Definition:
    return definition_of(read_checkpoint(folder / name), name, dtype="int8")


def test_a_dtype_makes_other_modules_of_the_networks_and_leaves_the_head(tiny: Path) -> None:
    plain, small = definition_of(read_checkpoint(tiny / "tiny-clip"), "tiny-clip"), in_int8(tiny, "tiny-clip")
    ids = [{spec.prefix: spec.id for spec in found.modules} for found in (plain, small)]
    assert {part for part in ids[0] if ids[0][part] == ids[1][part]} == {"head"}


# A real agent process.


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture classifier of 51 MB, nearly all of it in linear layers."""
    folder = tmp_path_factory.mktemp("shelf")
    labels = {"id2label": {0: "cat", 1: "dog", 2: "bird"}, "label2id": {"cat": 0, "dog": 1, "bird": 2}}
    config = t.ViTConfig(
        hidden_size=512, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=8, image_size=32,
        patch_size=8, **labels,
    )  # fmt: skip
    save(t.ViTForImageClassification(config), folder / "pets", writer=0.02)
    pictures(folder / "pets", "ViTImageProcessorPil")
    return folder


@pytest.fixture(scope="module")
def site(shelf: Path) -> Iterator[Cluster]:
    """A planner, and one agent that holds weights in int8 unless a module says otherwise."""
    with Cluster({}, threads=1) as cluster:
        flags = ["--node", "a", "--memory-mb", "1500", "--threads", "1", "--dtype", "int8", "--checkpoints", str(shelf)]
        cluster._spawn("a", "agent", *flags)  # noqa: SLF001  # a cluster's agents are float32
        with Site(cluster.settings) as seen:
            assert seen.wait(lambda s: s.nodes.ready == {"a"} and "a" in s.profiles, WAIT_S), cluster.log("a")
        yield cluster


def s2m3(site: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    return command.s2m3(*words, port=site.settings.port)


def report_of(site: Site, task: str, step: str) -> m.ModuleReport:
    return site.reported["a"].modules[site.routes[task].steps[step].module]


def test_an_agent_in_int8_holds_reports_and_answers_as_int8(site: Cluster, shelf: Path) -> None:
    added = s2m3(site, "task", "add", "pets", "--model", str(shelf / "pets"), "--source", "pets")
    assert added.returncode == 0, added.stderr + site.log("a")
    size = model_of(read_checkpoint(shelf / "pets"), "pets").parts[0]
    with Site(site.settings) as seen:
        held = report_of(seen, "pets", "image")
    assert held.bytes == pytest.approx(size.nbytes("int8"), rel=0.05)
    assert size.nbytes("int8") / 1e6 * 0.95 < held.memory_mb < size.nbytes("float32") / 1e6
    answer = json.loads(s2m3(site, "ask", "pets", "--image", str(CAT), "--json").stdout)
    here = {
        dtype: run_all(
            shelf, definition_of(read_checkpoint(shelf / "pets"), "pets", dtype=dtype), {"image": CAT.read_bytes()}
        )
        for dtype in ("int8", "float32")
    }
    assert answer["answer"] == here["int8"]["classes.label"]
    assert answer["outputs"]["score"] == pytest.approx(here["int8"]["classes.score"], abs=1e-5)
    assert here["int8"]["classes.score"] != here["float32"]["classes.score"]
    assert here["int8"]["classes.score"] == pytest.approx(here["float32"]["classes.score"], abs=0.05)


def test_a_task_may_say_the_dtype_of_its_checkpoint_whatever_the_agent_holds(site: Cluster, shelf: Path) -> None:
    added = s2m3(site, "task", "add", "halves", "--model", str(shelf / "pets"), "--source", "pets", "--dtype", "bf16")
    assert added.returncode == 0, added.stderr + site.log("a")
    size = model_of(read_checkpoint(shelf / "pets"), "pets").parts[0]
    with Site(site.settings) as seen:
        assert report_of(seen, "halves", "image").bytes == pytest.approx(size.nbytes("bfloat16"), rel=0.05)


def test_a_dtype_is_for_a_checkpoints_folder_and_one_that_there_is(site: Cluster, shelf: Path) -> None:
    wrong = s2m3(site, "task", "add", "pets4", "--model", str(shelf / "pets"), "--dtype", "int4")
    assert wrong.returncode == 2
    assert "the dtype is one of float32, bfloat16, float16, int8, not 'int4'" in wrong.stderr
    named = s2m3(site, "task", "add", "porch", "--model", "retrieval", "--dtype", "int8")
    assert named.returncode == 2
    assert "--dtype is for a checkpoint's folder" in named.stderr
