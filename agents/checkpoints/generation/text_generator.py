"""Class `text-generator`: a decoder or language model, started from an encoder's output and a prompt, to text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from pydantic import Field
from torch import nn

from s2m3.agents.checkpoints.generation.text_settings import never_chosen, new_tokens, text_ends, token_rules
from s2m3.agents.checkpoints.networks.loading import build_network, build_projector
from s2m3.agents.checkpoints.sounds.whisper_prompt import WhisperPrompt, whisper_prompt
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_tokenizer
from s2m3.agents.modules.decoder import TextDecoder
from s2m3.agents.modules.decoding import Start, Stop
from s2m3.agents.modules.ports import Config, read_config, tensor_port, text_port
from s2m3.agents.modules.token_rules import TokenRules
from s2m3.schemas.checkpoints.processors import read_chat_template
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.sizes import TextLength
from s2m3.schemas.wire.values import Value

__all__ = ["GeneratorConfig", "Prepared", "TextGenerator", "load_text_generator"]

_IMAGE = "<image>"


class GeneratorConfig(Config):
    """The longest text, in tokens; the prompt of a model that takes one; the language of a multilingual Whisper.

    Without a number of tokens, that of generation_config.json counts, as far as the network's positions allow.
    Without a language, Whisper detects that of each sound, unless generation_config.json names one.
    """

    max_new_tokens: int | None = Field(default=None, ge=1, le=4096)
    prompt: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A prompt's tokens, and what came from the encoder: (1, states, width)."""

    ids: list[int]
    given: torch.Tensor


class TextGenerator(TextDecoder[Prepared]):
    """`hidden` (what the decoder cross-attends to), or `tokens` and `text` (a picture in a prompt), to `text`.

    The output `finished` is why the text ended: `stop` or `length`. Whisper's is a Transcriber (transcripts.py).
    """

    prepares_at_once = 1

    def __init__(
        self,
        network: Any,
        projector: nn.Module | None,
        *,
        tokenizer: Any,
        prompt: "_Prompt",
        stop: Stop,
        length: TextLength,
        cache_bytes: int,
        rules: TokenRules,
    ) -> None:
        super().__init__(
            network,
            tokenizer=tokenizer,
            stop=stop,
            usual_tokens=length.after(0),
            cache_bytes=cache_bytes,
            before=projector,
            rules=rules,
        )
        #: Whisper's decoder takes its encoder's whole result, the others its hidden states.
        self._as_outputs = "encoder_outputs" in signature(network.forward).parameters
        self._projector = projector
        self._prompt = prompt
        self._length = length

    def usual_tokens_after(self, prepared: Prepared) -> int:
        """Returns the most tokens behind an item's prompt if a request names no number."""
        return self._length.after(self._sizes(prepared)[0])

    def prepare(self, inputs: Mapping[str, Value]) -> Prepared:
        """Returns the item's prompt as tokens, and what came from the encoder."""
        name = "tokens" if self._prompt.image_id is not None else "hidden"
        given = tensor_port(inputs, name, (1, None, None))
        return Prepared(self._prompt.ids(self._tokenizer, inputs), torch.from_numpy(np.array(given)))

    def _sizes(self, prepared: Prepared) -> tuple[int, int]:
        """A picture's tokens take the place of the one token that stands for the picture in the prompt."""
        if self._prompt.image_id is None:
            return len(prepared.ids), prepared.given.shape[1]
        return len(prepared.ids) - 1 + prepared.given.shape[1], 0

    def _start(self, prepared: Prepared) -> Start:
        ids, given = prepared.ids, prepared.given
        projected = given if self._projector is None else self._projector(given)
        if self._prompt.image_id is None:
            return Start(ids=torch.tensor([ids]), states=projected)
        at = ids.index(self._prompt.image_id)
        embed = self._network.get_input_embeddings()
        before, after = embed(torch.tensor([ids[:at]]).long()), embed(torch.tensor([ids[at + 1 :]]).long())
        prompt = [*ids[:at], *[ids[at]] * projected.shape[1], *ids[at + 1 :]]
        return Start(embeds=torch.cat([before, projected, after], dim=1), prompt=prompt)

    def _forward(self, states: torch.Tensor | None = None, **given: Any) -> torch.Tensor:
        if states is not None and self._as_outputs:
            given["encoder_outputs"] = (states,)
        elif states is not None:
            given["encoder_hidden_states"] = states
        logits: torch.Tensor = self._network(**given, use_cache=True).logits[:, -1]
        return logits


class _Prompt:
    """What a text starts from: fixed tokens, or a template with a question and a picture in it."""

    def __init__(self, opened: CheckpointPart, config: GeneratorConfig, tokenizer: Any) -> None:
        template = config.prompt or opened.part.options.get("prompt")
        self._fixed: list[int] = []
        self._template = ""
        self.image_id: int | None = None
        self.whisper: WhisperPrompt | None = None
        if opened.part.options.get("prompt") == "whisper":
            start = _token(opened, "the token it starts from", opened.part.start)
            self.whisper = whisper_prompt(opened, start, config.language)
            self._fixed = self.whisper.ids
        elif opened.part.start and config.prompt:
            self._fixed = tokenizer(config.prompt, add_special_tokens=False)["input_ids"]
        elif opened.part.start:
            self._fixed = [_token(opened, "the token it starts from", opened.part.start)]
        else:
            self._template = str(template)
            self._chat = read_chat_template(opened.checkpoint.folder)
            if template == "chat" and self._chat is None:
                raise ModuleFailedError(f"{opened.checkpoint.folder.name} has no chat template")
            self.image_id = _token(opened, "the picture's token", ["image_token_index", "image_token_id"])

    def ids(self, tokenizer: Any, inputs: Mapping[str, Value]) -> list[int]:
        """Returns the tokens; in those of a template the picture's is there exactly once."""
        if not self._template:
            return self._fixed
        question = text_port(inputs, "text")
        text = self._chatted(tokenizer, question) if self._template == "chat" else None
        marked = text is not None and tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
        prompt = self._template.replace("{text}", question) if text is None else text
        ids: list[int] = tokenizer(prompt, add_special_tokens=not marked)["input_ids"]
        if (count := ids.count(self.image_id or 0)) != 1:
            raise BadInputError(f"the prompt has {_IMAGE} {count} times; it has to be there once, and not in the text")
        return ids

    def _chatted(self, tokenizer: Any, question: str) -> str:
        """Returns a question about one picture in the folder's chat template, as transformers' processors put it."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        chat = [{"role": "user", "content": content}]
        try:
            text: str = tokenizer.apply_chat_template(
                chat, chat_template=self._chat, add_generation_prompt=True, tokenize=False
            )
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise BadInputError(f"the question does not fit the model's chat template: {error}"[:300]) from error
        return text


def _token(opened: CheckpointPart, what: str, paths: Sequence[str]) -> int:
    found = opened.value(*paths)
    if not isinstance(found, int):
        raise ModuleFailedError(f"{opened.checkpoint.folder.name} does not say {what}: none of {', '.join(paths)}")
    return found


def load_text_generator(opened: CheckpointPart) -> TextGenerator:
    """Builds class `text-generator`.

    Raises:
        ModuleFailedError: Weights, tokenizer or the tokens it starts from and ends with do not fit; the text names it.
    """
    config = read_config(opened.spec, GeneratorConfig)
    ends = text_ends(opened)
    network = build_network(opened)
    vocabulary, tokenizer = network.config.vocab_size, read_tokenizer(opened)
    prompt = _Prompt(opened, config, tokenizer)
    given: dict[str, Any] = {
        "projector": build_projector(opened),
        "tokenizer": tokenizer,
        "prompt": prompt,
        "stop": Stop(frozenset(ends), never_chosen(opened, "suppress_tokens", vocabulary)),
        "length": new_tokens(opened, config.max_new_tokens),
        "cache_bytes": int(opened.spec.cache_mb * 1e6),
        "rules": token_rules(opened, ends, vocabulary),
    }
    if prompt.whisper is None:
        return TextGenerator(network, **given)
    from s2m3.agents.checkpoints.sounds.transcripts import Transcriber, times_of  # noqa: PLC0415  # its base is here

    return Transcriber(network, whisper=prompt.whisper, times=times_of(opened, ends, network.config), **given)
