"""all-MiniLM-L6-v2's network in torch, and modules of class `sentence-encoder` on it."""

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertModel

from s2m3.agents.modules.ports import Config, read_config
from s2m3.agents.modules.state_dicts import fill, read_safetensors
from s2m3.agents.runtimes.export_plan import Export, ExportedNetwork
from s2m3.agents.runtimes.torch import TorchNetwork
from s2m3.agents.zoo.minilm import SentenceEncoder, read_tokenizer
from s2m3.agents.zoo.wheels import wheel_file
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["export_encoder", "load_encoder"]


class _Pooled(nn.Module):
    """Token ids (texts, tokens) int32 to unit vectors (texts, 384): the mean over the tokens, at length 1."""

    def __init__(self, network: BertModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Returns the vectors."""
        hidden = self.network(input_ids=input_ids.long()).last_hidden_state
        return nn.functional.normalize(hidden.mean(1), dim=-1)


def load_encoder(spec: ModuleSpec) -> SentenceEncoder:
    """Builds class `sentence-encoder`: the checkpoint without its pooler, which sentence embeddings do not use.

    Raises:
        ModuleFailedError: A file is missing or damaged, or weights are missing; the detail names them.
    """
    read_config(spec, Config)
    folder = wheel_file(spec.source, "model/model.safetensors").parent
    try:
        config = BertConfig.from_json_file(folder / "config.json")
    except (OSError, ValueError) as error:
        raise ModuleFailedError(f"config.json of {spec.source} cannot be read: {error}") from error
    network = BertModel(config, add_pooling_layer=False)
    weights = read_safetensors(
        folder / "model.safetensors",
        lambda key: not key.startswith("pooler.") and key != "embeddings.position_ids",
    )
    fill(network, weights, spec.id, spec.dtype)
    on_ids = TorchNetwork(_Pooled(network), ["input_ids"], ["embedding"])
    return SentenceEncoder(on_ids, read_tokenizer(folder / "tokenizer.json"))


def export_encoder(module: SentenceEncoder) -> Export:
    """Returns what goes into the module's exported part."""
    random = np.random.default_rng(0)
    shapes = ((1, 9), (4, 17), (2, 256))
    samples = [{"input_ids": random.integers(1_000, 30_000, shape, np.int32)} for shape in shapes]
    network: TorchNetwork = module.network  # type: ignore[assignment]  # built above
    files = {"tokenizer.json": module.tokenizer.to_str().encode()}
    return Export(
        {"model": ExportedNetwork(network, samples, {"input_ids": [0, 1]})},
        files,
        items=[{"text": ["a cat", "Où est la gare?", "word " * 400]}],
        wanted=frozenset({"embedding"}),
    )
