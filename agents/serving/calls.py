"""Calls into modules: each is watched, checks its deadline between slices, and its errors become S2M3Errors."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import structlog

from s2m3.agents.devices import is_out_of_memory
from s2m3.agents.modules.slices import sliced
from s2m3.agents.serving.items import Item
from s2m3.agents.serving.module import Module
from s2m3.agents.supervision.watchdog import Call, Watchdog
from s2m3.schemas.errors import ModuleFailedError, RequestTimeoutError, S2M3Error
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Work

__all__ = ["TELL_S", "ModuleCalls", "OutOfMemoryError", "outputs_of"]

_log = structlog.get_logger(__name__)
#: Time after which requesters are told that their work is under way.
TELL_S = 1.0
#: The name of what a panic in Rust (tokenizers, safetensors) raises: a BaseException of no module that can be imported.
_RUST_PANIC = "PanicException"
T = TypeVar("T")


class OutOfMemoryError(ModuleFailedError):
    """The device's memory is full: fewer items may fit, and another node may have more."""


class ModuleCalls:
    """The calls into modules that are under way, one at most in each thread.

    Args:
        node: The node's name, for the log.
        watchdog: Watches the calls.
    """

    def __init__(self, node: str, watchdog: Watchdog) -> None:
        self._node = node
        self.watchdog = watchdog
        #: thread's slot -> the call in progress and its items
        self._under_way: dict[int, tuple[Call, Sequence[Item]]] = {}

    @contextmanager
    def watched(self, slot: int, items: Sequence[Item]) -> Iterator[None]:
        """Context of a call for some items, in the thread of a slot (blackbox.py)."""
        if not items:  # all sequences have been dropped since
            yield
            return
        patience_s = max(item.deadline for item in items) - time.monotonic()
        requests = [item.work.request for item in items]
        with self.watchdog.running(slot, items[0].work.hop.module, requests, patience_s) as call:
            self._under_way[slot] = call, items
            try:
                with sliced(partial(self._between_slices, call, items)):
                    yield
            finally:
                del self._under_way[slot]

    def _between_slices(self, call: Call, items: Sequence[Item]) -> None:
        self.watchdog.note_progress(call)
        if max(item.deadline for item in items) <= time.monotonic():
            raise RequestTimeoutError("the deadline passed while it was being computed")

    def long_running(self) -> dict[tuple[bytes, str], Item]:
        """Returns the items, by key, of the calls that have lasted for a second and are not hung."""
        calls = list(self._under_way.values())
        return {i.key: i for call, items in calls if self.watchdog.gets_on(call, TELL_S) for i in items}

    def call(self, work: Work, call: Callable[[], T]) -> T | S2M3Error:
        """Returns the call's result; an error that it raises is returned as an S2M3Error."""
        try:
            return call()
        except S2M3Error as error:
            return error
        except BaseException as error:  # the only broad except: a module's bug must not end its thread
            if not isinstance(error, Exception) and type(error).__name__ != _RUST_PANIC:
                raise
            if is_out_of_memory(error):
                return OutOfMemoryError(f"{type(error).__name__}: {error}"[:300])
            _log.exception("module_raised", node=self._node, module=work.hop.module, request=work.request.hex())
            return ModuleFailedError(f"{type(error).__name__}: {error}"[:300])


def outputs_of(module: Module, ready: Sequence[Item]) -> list[dict[str, Value]]:
    """Returns the outputs of prepared items, in their order: all outputs that the next step of any item takes.

    Raises:
        ModuleFailedError: The module gave another number of outputs, or something that is none.
    """
    wanted = frozenset(output for item in ready for output in item.work.hop.outputs)
    outputs = module.run([item.prepared for item in ready], wanted)
    if len(outputs) != len(ready):
        raise ModuleFailedError(f"{len(outputs)} results for {len(ready)} items")
    if not all(isinstance(found, Mapping) for found in outputs):
        raise ModuleFailedError(f"{type(module).__name__} gave something else than a mapping of an item's outputs")
    return outputs
