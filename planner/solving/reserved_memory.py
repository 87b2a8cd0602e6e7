"""Reserves the memory of existing second copies until each is placed again; others take it only if need be. Pure."""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from s2m3.planner.solving.layout import SLACK_MB, Layout
from s2m3.planner.solving.moves import devices_with_room
from s2m3.planner.solving.problem import Floats, Ints

__all__ = ["ReservedMemory"]

Bools = NDArray[np.bool_]
_NOWHERE = -1


class ReservedMemory:
    """The existing second copies that may stay, and the memory that is left beside them.

    A copy that exists may take all of its device's memory; a new one leaves the part `keep_free` free.

    Args:
        layout: The first copies. Its free memory is reduced by the part that stays free.
        current: Module -> devices now.
        keep_free: Part of each device's memory that stays free.
    """

    def __init__(self, layout: Layout, current: Mapping[str, Collection[str]], keep_free: float) -> None:
        self._layout = layout
        self._kept_free_mb: Floats = keep_free * layout.problem.memory_mb
        self._reserved_mb: Floats = np.zeros(len(layout.problem.device_ids))
        #: module -> the device of its existing second copy
        self._at: dict[int, int] = {}
        for module, copies in enumerate(layout.copies):
            if len(copies) == 1:
                self._reserve(module, current.get(layout.problem.module_ids[module], ()))
        layout.free_mb -= self._kept_free_mb

    def _reserve(self, module: int, names: Collection[str]) -> None:
        problem, layout = self._layout.problem, self._layout
        for name in sorted(names):
            device = problem.device_at.get(name)
            if device is None or device in layout.copies[module] or name not in problem.modules[module].seconds:
                continue
            if layout.free_mb[device] - self._reserved_mb[device] + SLACK_MB >= problem.size_mb[module]:
                self._at[module] = device
                self._reserved_mb[device] += problem.size_mb[module]
                return

    def exists(self, module: int, devices: Ints) -> Bools:
        """Returns on which of the devices a module's second copy exists and may stay, [devices]."""
        return np.equal(devices, self._at.get(module, _NOWHERE))

    def release(self, module: int) -> None:
        """Ends the reservation for a module: its second copy is placed, or cannot stay."""
        device = self._at.pop(module, None)
        if device is not None:
            self._reserved_mb[device] -= self._layout.problem.size_mb[module]

    def has_room(self, module: int, device: int, *, takes_reserved: bool) -> bool:
        """Returns whether a second copy of a module fits on a device beside the copies that are placed.

        Args:
            module: The module.
            device: The device.
            takes_reserved: Whether the copy may take memory that is reserved for other modules.
        """
        devices = np.array([device])
        room = self._room_mb(module, devices) if takes_reserved else self._unreserved_mb(module, devices)
        return bool(room[0] >= self._layout.problem.size_mb[module])

    def choices(self, module: int) -> Iterator[tuple[Ints, bool]]:
        """Yields the devices for a second copy of a module: those with unreserved memory; then the rest, and True.

        A reservation of the module's own is ended if its device has no room any more.
        """
        devices = devices_with_room(self._layout, module)
        if (stays := self._at.get(module)) is not None:
            if self.has_room(module, stays, takes_reserved=True):
                devices = np.union1d(devices, [stays])
            else:
                self.release(module)
        is_free = self._unreserved_mb(module, devices) >= self._layout.problem.size_mb[module]
        for choice, takes_reserved in ((devices[is_free], False), (devices[~is_free], True)):
            if len(choice):
                yield choice, takes_reserved

    def _room_mb(self, module: int, devices: Ints) -> Floats:
        """Returns the memory beside the copies that are placed, 10^6 bytes, [devices]."""
        kept_free = np.where(self.exists(module, devices), self._kept_free_mb[devices], 0.0)
        return self._layout.free_mb[devices] + kept_free + SLACK_MB

    def _unreserved_mb(self, module: int, devices: Ints) -> Floats:
        """Returns the memory beside the copies that are placed and those of others that exist, 10^6 bytes, [devices].

        Where the module's own copy exists, its memory is reserved for that copy, and the others have room beside it.
        """
        room = self._room_mb(module, devices)
        return np.where(self.exists(module, devices), room, room - self._reserved_mb[devices])
