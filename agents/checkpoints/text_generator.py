"""Class `text-generator`: a decoder or language model, started from an encoder's output and a prompt, to text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import nn

from s2m3.agents.checkpoints.decoding import DecodedSequence, Decoding, Start, Stop
from s2m3.agents.checkpoints.kv_cache import kv_cache_size
from s2m3.agents.checkpoints.networks import build_network, build_projector
from s2m3.agents.checkpoints.part import CheckpointPart
from s2m3.agents.checkpoints.preprocessing import read_tokenizer
from s2m3.agents.serving.continuous_batching import write_all
from s2m3.agents.zoo.ports import Config, read_config, tensor_port, text_port
from s2m3.agents.zoo.state_dicts import nbytes_of
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value

__all__ = ["GeneratorConfig", "TextGenerator", "load_text_generator"]

_IMAGE = "<image>"


class GeneratorConfig(Config):
    """The longest text, in tokens; the prompt of a model that takes one; the language of a multilingual Whisper."""

    max_new_tokens: int = Field(default=128, ge=1, le=4096)
    prompt: str | None = None
    language: str = "en"


@dataclass(frozen=True)
class _Item:
    """A prompt's tokens, and what came from the encoder: (1, states, width)."""

    ids: list[int]
    given: torch.Tensor


class TextGenerator:
    """`hidden` (what the decoder cross-attends to), or `tokens` and `text` (a picture in a prompt), to `text`."""

    light = False
    max_batch = 8
    generates = "text"

    def __init__(
        self,
        network: Any,
        projector: nn.Module | None,
        *,
        tokenizer: Any,
        prompt: "_Prompt",
        stop: Stop,
        usual_tokens: int,
        cache_bytes: int,
    ) -> None:
        self._network = network
        #: Whisper's decoder takes its encoder's whole result, the others its hidden states.
        self._as_outputs = "encoder_outputs" in signature(network.forward).parameters
        self._projector = projector
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._decoding = Decoding(self._forward, stop)
        self._room = kv_cache_size(network.config, network.dtype.itemsize)
        self.usual_tokens = usual_tokens
        self.cache_bytes = cache_bytes
        self.nbytes = nbytes_of(network) + (nbytes_of(projector) if projector else 0)

    def prepare(self, inputs: Mapping[str, Value]) -> _Item:
        """Returns the item's prompt as tokens, and what came from the encoder."""
        name = "tokens" if self._prompt.image_id is not None else "hidden"
        given = tensor_port(inputs, name, (1, None, None))
        return _Item(self._prompt.ids(self._tokenizer, inputs), torch.from_numpy(np.array(given)))

    def run(self, batch: Sequence[_Item], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `text` of each item."""
        return write_all(self, batch) if "text" in wanted else [{} for _ in batch]

    def most_tokens(self, prepared: _Item) -> int:
        """Returns what the network's positions leave behind the prompt."""
        return self._room.positions - self._sizes(prepared)[0]

    def need_bytes(self, prepared: _Item, tokens: int) -> int:
        """Returns the keys and values of a text of so many tokens, in bytes."""
        return self._room.need_bytes(*self._sizes(prepared), tokens)

    def _sizes(self, item: _Item) -> tuple[int, int]:
        """Tokens of the prompt, with a picture's among them, and states that are cross-attended to."""
        if self._prompt.image_id is None:
            return len(item.ids), item.given.shape[1]
        return len(item.ids) - 1 + item.given.shape[1], 0

    @torch.inference_mode()
    def begin(self, prepared: _Item, options: Options) -> DecodedSequence:
        """Reads the prompt and says the first token."""
        return self._decoding.begin(self._start(prepared.ids, prepared.given), options)

    def advance(self, rows: Sequence[DecodedSequence]) -> None:
        """Says one more token of each."""
        self._decoding.advance(rows)

    def drop(self, rows: Sequence[DecodedSequence]) -> None:
        """Forgets texts."""
        self._decoding.drop(rows)

    def text(self, tokens: Sequence[int]) -> str:
        """Returns what tokens say, without the blank that some begin with."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()

    def _forward(self, states: torch.Tensor | None = None, **given: Any) -> torch.Tensor:
        if states is not None and self._as_outputs:
            given["encoder_outputs"] = (states,)
        elif states is not None:
            given["encoder_hidden_states"] = states
        logits: torch.Tensor = self._network(**given, use_cache=True).logits[:, -1]
        return logits

    def _start(self, ids: list[int], given: torch.Tensor) -> Start:
        projected = given if self._projector is None else self._projector(given)
        if self._prompt.image_id is None:
            return Start(ids=torch.tensor([ids]), states=projected)
        at = ids.index(self._prompt.image_id)
        embed = self._network.get_input_embeddings()
        before, after = embed(torch.tensor([ids[:at]]).long()), embed(torch.tensor([ids[at + 1 :]]).long())
        return Start(embeds=torch.cat([before, projected, after], dim=1))


class _Prompt:
    """What a text starts from: fixed tokens, or a template with a question and a picture in it."""

    def __init__(self, opened: CheckpointPart, config: GeneratorConfig) -> None:
        template = config.prompt or opened.part.options.get("prompt")
        self._fixed: list[int] = []
        self._template = ""
        self.image_id: int | None = None
        if template == "whisper":
            self._fixed = _whisper_prompt(opened, config.language)
        elif opened.part.start:
            self._fixed = [_token(opened, "the token it starts from", opened.part.start)]
        else:
            self._template = str(template)
            self.image_id = _token(opened, "the picture's token", ["image_token_index", "image_token_id"])

    def ids(self, tokenizer: Any, inputs: Mapping[str, Value]) -> list[int]:
        """Returns the tokens; in those of a template the picture's is there exactly once."""
        if not self._template:
            return self._fixed
        question = text_port(inputs, "text")
        ids: list[int] = tokenizer(self._template.replace("{text}", question))["input_ids"]
        if (count := ids.count(self.image_id or 0)) != 1:
            raise BadInputError(f"the prompt has {_IMAGE} {count} times; it has to be there once, and not in the text")
        return ids


def _token(opened: CheckpointPart, what: str, paths: Sequence[str]) -> int:
    found = opened.value(*paths)
    if not isinstance(found, int):
        raise ModuleFailedError(f"{opened.checkpoint.folder.name} does not say {what}: none of {', '.join(paths)}")
    return found


def _whisper_prompt(opened: CheckpointPart, language: str) -> list[int]:
    """Returns start, language, task and no-timestamps, as far as the checkpoint has them."""
    ids = [_token(opened, "the token it starts from", opened.part.start)]
    languages, tasks = opened.value("generation.lang_to_id"), opened.value("generation.task_to_id")
    if isinstance(languages, dict) and isinstance(tasks, dict):
        if f"<|{language}|>" not in languages:
            raise ModuleFailedError(f"module {opened.spec.id}: config.language: {language!r} is not one it knows")
        ids += [languages[f"<|{language}|>"], tasks["transcribe"]]
    silent = opened.value("generation.no_timestamps_token_id")
    return [*ids, silent] if isinstance(silent, int) else ids


def _tokens(found: object) -> list[int]:
    return [found] if isinstance(found, int) else list(found) if isinstance(found, list) else []


def load_text_generator(opened: CheckpointPart) -> TextGenerator:
    """Builds class `text-generator`.

    Raises:
        ModuleFailedError: Weights, tokenizer or the tokens it starts from and ends with do not fit; the text names it.
    """
    config = read_config(opened.spec, GeneratorConfig)
    ends = _tokens(opened.value(*opened.part.end))
    if not ends:
        raise ModuleFailedError(f"{opened.checkpoint.folder.name} does not say which token ends a text")
    stop = Stop(
        frozenset(ends),
        _tokens(opened.value("generation.suppress_tokens", "suppress_tokens")),
        _tokens(opened.value("generation.begin_suppress_tokens", "begin_suppress_tokens")),
    )
    return TextGenerator(
        build_network(opened),
        build_projector(opened),
        tokenizer=read_tokenizer(opened),
        prompt=_Prompt(opened, config),
        stop=stop,
        usual_tokens=config.max_new_tokens,
        cache_bytes=int(opened.spec.cache_mb * 1e6),
    )
