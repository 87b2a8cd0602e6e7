"""The interface between the runner and a loaded module: prepare one item, run a batch, or generate token by token."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value

__all__ = [
    "GENERATOR_NAMES",
    "MANY",
    "MODULE_NAMES",
    "Drawing",
    "Generator",
    "Module",
    "TokenSequence",
    "default_tokens",
    "row_outputs",
]


#: `prepares_at_once` of a module whose `prepare` reads only state that no call changes.
MANY = 64


class Module(Protocol):
    """A module with its weights in memory. Only the agent's worker thread calls it, unless it says otherwise.

    A `light` module is also called in the loop's thread. Two attributes are optional:

    - `prepares_at_once` (default 0): items of which `prepare` may be called at once, in threads of their own and beside
      `run`. 0: `prepare` is called in the worker's thread only.
    - `repeatable` (default False): equal inputs have equal outputs at any time, so that they are computed once.
    """

    #: Bytes of its tensors.
    nbytes: int
    #: Whether any item takes well under a millisecond, so that it may run in the loop's thread. One that is found to
    #: take longer runs in the worker's.
    light: bool
    #: Largest batch: the size up to which batching was measured to pay, not what fits into memory.
    max_batch: int

    def prepare(self, inputs: Mapping[str, Value]) -> Any:
        """Validates and decodes one item by itself, so that an invalid item never fails the batch it would be in.

        Raises:
            BadInputError: The item is invalid.
        """

    def run(self, batch: Sequence[Any], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Computes the wanted outputs of prepared items.

        Args:
            batch: 1 to `max_batch` results of `prepare`.
            wanted: The outputs that the items' next steps need; others need not be computed.

        Returns:
            One dict of output name -> value per item, in order.
        """


class Drawing(Module, Protocol):
    """A module whose outputs depend on random numbers, and so on the seed of a request's options."""

    def prepare_with(self, inputs: Mapping[str, Value], options: Options) -> Any:
        """Validates and decodes one item as `prepare` does, with options that always have a seed."""


class TokenSequence(Protocol):
    """One text that a generator is writing."""

    #: tokens so far, without the end-of-text token
    tokens: list[int]
    #: whether the end-of-text token was generated
    ended: bool


class Generator(Module, Protocol):
    """A module that generates text token by token, for many sequences that begin and end at any step.

    Sequences are told apart by identity. A sequence's text does not depend on the others in the batch.
    """

    #: The name of the output that holds the text.
    generates: str
    #: Most tokens if a request sets no `max_tokens`; fewer where positions or the KV cache do not allow as many.
    usual_tokens: int
    #: Limit of the KV cache of all sequences together, bytes.
    cache_bytes: int

    def most_tokens(self, prepared: Any) -> int:
        """Returns the most tokens that can follow a prepared item."""

    def need_bytes(self, prepared: Any, tokens: int) -> int:
        """Returns the KV cache of a prepared item followed by so many tokens, bytes."""

    def begin(self, prepared: Any, options: Options) -> TokenSequence:
        """Starts a sequence from a prepared item (prefill) and generates its first token."""

    def advance(self, rows: Sequence[Any]) -> None:
        """Generates one more token of each sequence; `rows` are all that began, have not ended and were not dropped."""

    def drop(self, rows: Sequence[Any]) -> None:
        """Frees the KV cache of sequences; sequences that were dropped already are ignored."""

    def text(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens."""


def row_outputs(row: TokenSequence) -> Mapping[str, Value]:
    """Returns the outputs beside the text that a sequence has in its attribute `outputs`; most have none."""
    found: Mapping[str, Value] = getattr(row, "outputs", {})
    return found


def default_tokens(module: Generator, prepared: Any) -> int:
    """Returns the most tokens of a text for which the request names no number: as many as positions and cache allow.

    A module whose default depends on the item says so in a method `usual_tokens_after(prepared)`.
    """
    usual: int = getattr(module, "usual_tokens_after", lambda _: module.usual_tokens)(prepared)
    limit = min(usual, module.most_tokens(prepared))
    if limit < 1 or module.need_bytes(prepared, limit) <= module.cache_bytes:
        return limit
    fitting = bisect_right(range(1, limit), module.cache_bytes, key=lambda tokens: module.need_bytes(prepared, tokens))
    return fitting or limit


def _names(protocol: type) -> tuple[str, ...]:
    return tuple(name for name in (*protocol.__annotations__, *vars(protocol)) if not name.startswith("_"))


#: The names of all attributes and methods of a Module, and of those that only a Generator has.
MODULE_NAMES, GENERATOR_NAMES = _names(Module), _names(Generator)
