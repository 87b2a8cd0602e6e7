"""What a loaded module is to the runner: prepare one item, run a batch; or write texts token by token."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value

__all__ = ["GENERATOR_NAMES", "MODULE_NAMES", "Generator", "Module", "TokenSequence"]


class Module(Protocol):
    """A module with its weights in memory. Only the agent's one worker thread calls it."""

    #: Bytes of its tensors.
    nbytes: int
    #: Whether an item takes well under a millisecond, whatever it is: then it need not change threads to be run.
    light: bool
    #: Most items run together: what was measured to pay, not what fits.
    max_batch: int

    def prepare(self, inputs: Mapping[str, Value]) -> Any:
        """Checks and decodes one item by itself, so that a bad one never fails the batch it would have been in.

        Raises:
            BadInputError: The item cannot be read.
        """

    def run(self, batch: Sequence[Any], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Computes the wanted outputs of prepared items.

        Args:
            batch: 1 to max_batch of what `prepare` returned.
            wanted: The outputs that any of the items' next steps asked for; nothing else need be computed.

        Returns:
            One dict of outputs per item, in order.
        """


class TokenSequence(Protocol):
    """One text that a generator is writing."""

    #: what it has said so far, without an end mark
    tokens: list[int]
    #: whether it has said its end mark
    ended: bool


class Generator(Module, Protocol):
    """A module that writes a text token by token: many at once, each beginning and ending when it does.

    Rows differ by identity; what one writes does not depend on the rows beside it.
    """

    #: The output that it writes.
    generates: str
    #: Tokens where a request names no number.
    usual_tokens: int
    #: Bytes that keys and values of all rows together may take.
    cache_bytes: int

    def most_tokens(self, prepared: Any) -> int:
        """Returns how many tokens can follow a prepared item at all."""

    def need_bytes(self, prepared: Any, tokens: int) -> int:
        """Returns the bytes of keys and values that a prepared item takes once so many tokens have followed it."""

    def begin(self, prepared: Any, options: Options) -> TokenSequence:
        """Reads a prepared item and says its first token."""

    def advance(self, rows: Sequence[Any]) -> None:
        """Says one more token of each row: all that were begun, have not ended and were not dropped."""

    def drop(self, rows: Sequence[Any]) -> None:
        """Forgets rows; those that were forgotten already are let through."""

    def text(self, tokens: Sequence[int]) -> str:
        """Returns what tokens say."""


def _names(protocol: type) -> tuple[str, ...]:
    return tuple(name for name in (*protocol.__annotations__, *vars(protocol)) if not name.startswith("_"))


#: The attributes and methods of a Module, and those that a Generator has besides.
MODULE_NAMES, GENERATOR_NAMES = _names(Module), _names(Generator)
