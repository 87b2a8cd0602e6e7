"""What language models that answer a prompt have in common: each step is prepared by transformers.

See agents/modules/stepwise.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from transformers import GenerationConfig

from s2m3.agents.checkpoints.generation.text_settings import never_chosen, new_tokens, text_ends, token_rules
from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.modules.decoding import DecodedSequence, Stop
from s2m3.agents.modules.json_constraint import JsonFormats
from s2m3.agents.modules.kv_cache import kv_cache_size
from s2m3.agents.modules.ports import Config
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.agents.modules.stepwise import StepwiseDecoding
from s2m3.agents.modules.text_writer import TextWriter
from s2m3.agents.modules.token_rules import TokenRules
from s2m3.agents.serving.module import default_tokens
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.sizes import TextLength
from s2m3.schemas.wire.generation import Options

__all__ = ["Prompt", "PromptConfig", "PromptGenerator", "PromptSettings", "build_prompted"]


class PromptConfig(Config):
    """The longest text, in tokens; and a prompt of one's own, with `{text}` in it, instead of the chat template."""

    max_new_tokens: int | None = Field(default=None, ge=1, le=4096)
    prompt: str | None = None


@dataclass(frozen=True)
class Prompt:
    """An item: what the network's `generate` takes, and the tokens of its prompt."""

    given: Mapping[str, Any]
    tokens: int


@dataclass(frozen=True)
class PromptSettings:
    """When texts end, how they are chosen, how long they are, and the bytes of all their keys and values."""

    stop: Stop
    rules: TokenRules
    length: TextLength
    cache_bytes: int


class PromptGenerator(TextWriter[Prompt]):
    """A TextWriter over a network that has `generate`. A subclass makes the prompt of an item.

    Its texts follow a JSON schema where the request has one (agents/modules/json_constraint.py).

    Args:
        network: Of transformers.
        tokenizer: Makes texts of tokens.
        settings: What the checkpoint says of its texts.
        writer: The network inside that writes, where `generate` hands over to one.
    """

    prepares_at_once = 1
    follows_formats = True

    def __init__(self, network: Any, tokenizer: Any, settings: PromptSettings, writer: Any = None) -> None:
        config = network.config.get_text_config(decoder=True)
        self._decoding = StepwiseDecoding(network, settings.stop, settings.rules, writer)
        super().__init__(
            self._decoding,
            tokenizer=tokenizer,
            cache_size=kv_cache_size(config, network.dtype.itemsize),
            usual_tokens=settings.length.after(0),
            cache_bytes=settings.cache_bytes,
            nbytes=nbytes_of(network),
        )
        self._vocabulary = config.vocab_size
        self._crosses = bool((writer or network).config.is_encoder_decoder)
        self._length = settings.length
        self._formats = JsonFormats(tokenizer, self._vocabulary, settings.stop.ends)

    def _prompt(self, given: Mapping[str, Any]) -> Prompt:
        """Returns a prompt of the tokenizer's or processor's output; `input_ids` are (1, tokens).

        Raises:
            BadInputError: A token is none of the network's.
        """
        ids = given["input_ids"]
        if int(ids.max()) >= self._vocabulary:
            raise BadInputError(f"the prompt has the token {int(ids.max())}; the model knows {self._vocabulary}")
        return Prompt(given, ids.shape[1])

    def usual_tokens_after(self, prepared: Prompt) -> int:
        """Returns the most tokens behind an item's prompt if a request names no number."""
        return self._length.after(prepared.tokens)

    def _sizes(self, prepared: Prompt) -> tuple[int, int]:
        """Returns the tokens that the text is written behind, and the states that it cross-attends to."""
        return (1, prepared.tokens) if self._crosses else (prepared.tokens, 0)

    def begin(self, prepared: Prompt, options: Options) -> DecodedSequence:
        """Reads the prompt and says the first token.

        Raises:
            BadInputError: The form that the text is to have cannot be followed.
        """
        limit = options.max_tokens or default_tokens(self, prepared)
        form = options.format
        rules = [] if form is None else [self._formats.constraint(form, limit)]
        return self._decoding.begin(prepared.given, options, limit, rules)


def build_prompted(opened: CheckpointPart, config: PromptConfig) -> tuple[Any, PromptSettings]:
    """Returns a part's network with its generation_config, and what the checkpoint says of its texts.

    Raises:
        ModuleFailedError: Weights, generation_config or the tokens that end a text do not fit; the text names it.
    """
    ends = text_ends(opened)
    network = build_network(opened)
    if opened.checkpoint.generation:
        try:
            network.generation_config = GenerationConfig(**opened.checkpoint.generation)
        except (ValueError, TypeError) as error:
            raise ModuleFailedError(f"generation_config.json: {error}"[:300]) from error
    vocabulary = network.config.get_text_config(decoder=True).vocab_size
    settings = PromptSettings(
        stop=Stop(frozenset(ends), never_chosen(opened, "suppress_tokens", vocabulary)),
        rules=token_rules(opened, ends, vocabulary),
        length=new_tokens(opened, config.max_new_tokens),
        cache_bytes=int(opened.spec.cache_mb * 1e6),
    )
    return network, settings
