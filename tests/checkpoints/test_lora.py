"""LoRA adapters: a base with its adapter answers as the base whose matrices have the product added; it is held once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from safetensors.torch import save_file

from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.agents.registry import identify
from s2m3.agents.registry.classes import SHIPPED
from s2m3.commands.module_options import with_options
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import BadInputError, ModuleFailedError, UnsupportedCheckpointError
from tests.checkpoints.inprocess import loaded, run_module
from tests.families.causal_lm import CAUSAL_LM
from tests.families.family import LONGEST, definition

ROWS = {family.name: family for family in CAUSAL_LM}
LAYERS = {
    "llama": ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj", "model.layers.1.mlp.down_proj"],
    "gpt2": ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj"],
}
RANK, ALPHA = 4, 6


def shape(network: Any, layer: str) -> tuple[int, int]:
    """Outputs and inputs of a layer; GPT-2's matrices are turned."""
    weight = network.get_submodule(layer).weight
    return (weight.shape[1], weight.shape[0]) if "transformer.h" in layer else tuple(weight.shape)


def write_adapter(base: Path, folder: Path, name: str, **settings: Any) -> dict[str, torch.Tensor]:
    """Writes an adapter as PEFT saves one; returns what is added to each layer's matrix."""
    network = t.AutoModelForCausalLM.from_pretrained(base)
    generator = torch.Generator().manual_seed(len(name))
    scale = ALPHA / (RANK**0.5 if settings.get("use_rslora") else RANK)
    tensors: dict[str, torch.Tensor] = {}
    added: dict[str, torch.Tensor] = {}
    for layer in LAYERS[name]:
        outputs, inputs = shape(network, layer)
        down = torch.randn(RANK, inputs, generator=generator) * 0.3
        up = torch.randn(outputs, RANK, generator=generator) * 0.3
        tensors |= {f"base_model.model.{layer}.lora_A.weight": down, f"base_model.model.{layer}.lora_B.weight": up}
        own = (settings.get("alpha_pattern") or {}).get(layer.rpartition(".")[2])
        added[layer] = up @ down * (scale if own is None else own / RANK)
    folder.mkdir()
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "modules_to_save": None, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return added


def whole(base: Path, added: Mapping[str, torch.Tensor], text: str) -> str:
    """The base with the products added to its matrices: `generate` of transformers, as the row's card says."""
    network, tokenizer = t.AutoModelForCausalLM.from_pretrained(base).eval(), t.AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        for layer, matrix in added.items():
            network.get_submodule(layer).weight += matrix.T if "transformer.h" in layer else matrix
    if tokenizer.chat_template is not None:
        chat = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    prepared = tokenizer(text, return_tensors="pt", add_special_tokens=tokenizer.chat_template is None)
    prepared.pop("token_type_ids", None)
    new = network.generate(**prepared, max_new_tokens=LONGEST, do_sample=False)[0][prepared["input_ids"].shape[1] :]
    said: str = tokenizer.decode(new, skip_special_tokens=True).strip()
    return said


def adapted(folder: Path, base: str, adapter: str) -> ModuleSpec:
    """The module that `task add --option adapter=…` makes of a checkpoint of one part."""
    found = with_options(definition(folder / base), [f"adapter={adapter}"])
    assert found is not None
    return found.modules[0]


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for name in LAYERS:
        (tmp_path / name).mkdir()
        ROWS[name].make(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"alpha_pattern": {"v_proj": 3, "c_attn": 2}}])
def test_an_adapter_answers_as_the_base_with_its_product_added(
    shelf: Path, name: str, settings: dict[str, Any]
) -> None:
    added = write_adapter(shelf / name, shelf / "adapter", name, **settings)
    plain, spec = definition(shelf / name).modules[0], adapted(shelf, name, "adapter")
    assert spec.id != plain.id
    said = run_module(loaded(shelf, spec), {"text": "what is this"}, "text")["text"]
    assert said == whole(shelf / name, added, "what is this")
    before = run_module(loaded(shelf, plain), {"text": "what is this"}, "text")["text"]
    assert before == whole(shelf / name, {}, "what is this") != said


def test_a_base_and_its_adapters_hold_the_bases_tensors_once(shelf: Path) -> None:
    write_adapter(shelf / "llama", shelf / "one", "llama")
    write_adapter(shelf / "llama", shelf / "other", "llama", use_rslora=True)
    sources, places = CheckpointSources((shelf,)), []
    kept = []
    for spec in (
        definition(shelf / "llama").modules[0],
        adapted(shelf, "llama", "one"),
        adapted(shelf, "llama", "other"),
    ):
        identify(spec, sources)
        kept.append(build_network(open_part(spec, sources)))
        weights = {name.replace(".base.", "."): weight for name, weight in kept[-1].named_parameters()}
        places.append({name: weight.data_ptr() for name, weight in weights.items() if weight.nbytes >= 4_096})
    of_base = places[0].keys()
    assert len(of_base) > 5
    assert all({name: found[name] for name in of_base} == places[0] for found in places)


def test_an_adapter_makes_another_fingerprint(shelf: Path) -> None:
    write_adapter(shelf / "llama", shelf / "one", "llama")
    write_adapter(shelf / "llama", shelf / "other", "llama", use_rslora=True)
    sources = CheckpointSources((shelf,))
    specs = [definition(shelf / "llama").modules[0], *(adapted(shelf, "llama", name) for name in ("one", "other"))]
    assert len({identify(spec, sources) for spec in specs}) == 3


def test_a_device_without_the_adapter_is_not_chosen(shelf: Path) -> None:
    spec = adapted(shelf, "llama", "nowhere")
    assert SHIPPED["causal-lm"].missing_source(spec, CheckpointSources((shelf,))) == "the checkpoint nowhere"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"peft_type": "IA3"}, "an adapter of the kind IA3; LORA is read"),
        ({"use_dora": True}, "of a kind that is not read: use_dora=True"),
        ({"bias": "all"}, "of a kind that is not read: bias=all"),
        ({"modules_to_save": ["lm_head"]}, "of a kind that is not read: modules_to_save="),
        ({"init_lora_weights": "pissa_niter_4"}, "of a kind that is not read: init_lora_weights=pissa_niter_4"),
    ],
)
def test_an_adapter_of_another_kind_is_refused_where_the_task_is_added(
    shelf: Path, settings: dict[str, Any], why: str
) -> None:
    write_adapter(shelf / "llama", shelf / "adapter", "llama", **settings)
    with pytest.raises(UnsupportedCheckpointError, match=why):
        adapted(shelf, "llama", str(shelf / "adapter"))


def test_a_pickled_adapter_and_a_folder_of_none_are_refused(shelf: Path) -> None:
    write_adapter(shelf / "llama", shelf / "adapter", "llama")
    (shelf / "adapter" / "adapter_model.safetensors").rename(shelf / "adapter" / "adapter_model.bin")
    with pytest.raises(
        UnsupportedCheckpointError, match=r"holds no adapter_model\.safetensors; pickles are never read"
    ):
        adapted(shelf, "llama", str(shelf / "adapter"))
    with pytest.raises(BadInputError, match=r"gpt2 is no adapter: it holds no adapter_config\.json"):
        adapted(shelf, "llama", str(shelf / "gpt2"))


@pytest.mark.parametrize("base", ["gpt2", "llama"])
def test_an_adapter_that_does_not_fit_its_base_says_where(shelf: Path, base: str) -> None:
    write_adapter(shelf / "llama", shelf / "adapter", "llama")
    if base == "llama":
        save_file(
            {
                "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2, 5),
                "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": torch.zeros(32, 2),
            },
            shelf / "adapter" / "adapter_model.safetensors",
        )
    with pytest.raises(ModuleFailedError, match=r"the adapter adapter does not fit its base at model\.layers\.0"):
        loaded(shelf, adapted(shelf, base, "adapter"))
