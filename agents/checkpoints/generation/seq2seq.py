"""Class `seq2seq-generator`: an encoder-decoder model's decoder, by transformers' `generate(encoder_outputs=…)`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput

from s2m3.agents.checkpoints.generation.prompted import Prompt, PromptConfig, PromptGenerator, build_prompted
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_tokenizer
from s2m3.agents.modules.ports import read_config, tensor_port
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["Seq2SeqGenerator", "load_seq2seq_generator"]

#: A text starts from the one token that the checkpoint names.
_START = 1


@dataclass
class SentStates(BaseModelOutput):  # type: ignore[misc]  # transformers is not typed
    """What another node's encoder gave of one item, all of it: some decoders ask for a mask."""

    attention_mask: torch.Tensor | None = None


class Seq2SeqGenerator(PromptGenerator):
    """`hidden` (1, states, width), what the encoder gave, to `text`; `finished` is why it ended."""

    def prepare(self, inputs: Mapping[str, Value]) -> Prompt:
        """Returns what the decoder cross-attends to."""
        hidden = torch.from_numpy(np.array(tensor_port(inputs, "hidden", (1, None, None))))
        return Prompt({"encoder_outputs": SentStates(last_hidden_state=hidden)}, _START)

    def need_bytes(self, prepared: Prompt, tokens: int) -> int:
        """Returns the keys and values of a text of so many tokens, and those of the encoder's states, in bytes."""
        states: int = prepared.given["encoder_outputs"].last_hidden_state.shape[1]
        return self._cache_size.need_bytes(_START, states, tokens)


def load_seq2seq_generator(opened: CheckpointPart) -> Seq2SeqGenerator:
    """Builds class `seq2seq-generator`.

    Raises:
        ModuleFailedError: Weights, tokenizer or the tokens that a text starts from and ends with do not fit; the text
            names it.
    """
    if opened.value("generation.decoder_start_token_id", "decoder_start_token_id") is None:
        raise ModuleFailedError(f"{opened.checkpoint.folder.name} does not say which token a text starts from")
    network, settings = build_prompted(opened, read_config(opened.spec, PromptConfig))
    return Seq2SeqGenerator(network, read_tokenizer(opened), settings)
