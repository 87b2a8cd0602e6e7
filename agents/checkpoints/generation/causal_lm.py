"""Class `causal-lm`: a chat, or a text that is continued, to text, by a language model that stays whole."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from s2m3.agents.checkpoints.generation.prompted import (
    Prompt,
    PromptConfig,
    PromptGenerator,
    PromptSettings,
    build_prompted,
)
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_tokenizer
from s2m3.agents.modules.ports import chat_port, read_config, tools_port
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value

__all__ = ["CausalLM", "load_causal_lm"]


class CausalLM(PromptGenerator):
    """`text` (a text or a chat) to `text`; `finished` is why it ended: `stop` or `length`.

    With the folder's chat template, a text is one message of the user. A model without one continues the text.
    """

    def __init__(self, network: Any, tokenizer: Any, settings: PromptSettings, prompt: str | None) -> None:
        super().__init__(network, tokenizer, settings)
        self._template = prompt
        self._chats = prompt is None and tokenizer.chat_template is not None

    def prepare(self, inputs: Mapping[str, Value]) -> Prompt:
        """Returns the item's prompt."""
        chat = [
            {**message, "content": "".join(block["text"] for block in message["content"])}
            for message in chat_port(inputs, "text")
        ]
        template = str(self._tokenizer.chat_template) if self._chats else None
        return self._prompt(self._tokenized(chat, tools_port(inputs, "text", template)))

    def _tokenized(self, chat: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        found: Mapping[str, Any]
        if self._chats:
            try:
                found = self._tokenizer.apply_chat_template(
                    list(chat),
                    tools=list(tools) or None,
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=True,
                    return_tensors="pt",
                )
            except (TemplateError, ValueError, TypeError, KeyError) as error:
                raise BadInputError(f"the chat does not fit the model's template: {error}"[:300]) from error
            return {name: found[name] for name in ("input_ids", "attention_mask")}
        if len(chat) > 1:
            raise BadInputError("the model has no chat template: it takes one text, without roles")
        text = chat[0]["content"] if self._template is None else self._template.replace("{text}", chat[0]["content"])
        found = self._tokenizer(text, return_tensors="pt")
        if found["input_ids"].shape[1] == 0:
            raise BadInputError("a text without a single token")
        return {name: found[name] for name in ("input_ids", "attention_mask")}


def load_causal_lm(opened: CheckpointPart) -> CausalLM:
    """Builds class `causal-lm`.

    Raises:
        ModuleFailedError: Weights, tokenizer, or the tokens that end a text do not fit; the text names it.
    """
    config = read_config(opened.spec, PromptConfig)
    tokenizer = read_tokenizer(opened)
    network, settings = build_prompted(opened, config)
    return CausalLM(network, tokenizer, settings, config.prompt)
