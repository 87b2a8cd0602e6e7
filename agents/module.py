"""What a loaded module is to the runner: prepare one item, run a batch."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from schemas.values import Value

__all__ = ["Module"]


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
