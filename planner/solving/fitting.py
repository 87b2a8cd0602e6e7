"""Which modules fit together, by memory alone: one packing, changed by what each question adds and removes. Pure."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from s2m3.planner.solving.exact import find_room
from s2m3.planner.solving.integer_program import is_available
from s2m3.planner.solving.layout import Layout
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.repair import Effort, is_too_much, make_room, no_room, pack
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance

__all__ = ["Fitting"]

#: For all questions together: most modules that are packed anew, branches of these searches, and seconds of exact ones.
_MOST_REPACKED, _MOST_BRANCHES, _EXACT_S = 2_000, 2_000, 1.0
#: Largest modules x devices for an exact search.
_SMALL = 2_000
#: Memory of a module, 10^6 bytes, and the devices that can run it.
_Kind = tuple[float, bytes]


class Fitting:
    """Answers whether one copy of each of some modules fits on the devices.

    Questions that differ in a few modules cost what these modules cost: the packing of the modules that were last found
    to fit is changed. Where that fails, sums and counts may prove that they do not fit (`is_too_much`); else they are
    packed anew, on small instances by the exact search, as long as all questions together have not taken too much.

    Args:
        instance: Devices, and the modules of all questions; tasks are ignored.
        current: Module -> devices now: a copy stays where it is if there is room.
        clock: Seconds, for the time limit of exact searches.
    """

    def __init__(
        self,
        instance: Instance,
        current: Mapping[str, Sequence[str]],
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._problem = Problem(instance.model_copy(update={"tasks": ()}))
        self._current = current
        self._layout = Layout(self._problem)
        self._placed = frozenset[int]()
        #: (size, devices) of a module that was found to have no place -> beside which others
        self._refused: dict[_Kind, frozenset[int]] = {}
        self._kinds: dict[int, _Kind] = {}
        self._to_repack, self._effort = _MOST_REPACKED, Effort(_MOST_BRANCHES)
        self._clock, self._exact_s = clock, _EXACT_S

    def why_not(self, modules: Collection[str]) -> NoCapacityError | None:
        """Returns why modules do not fit together; None if they do: `placement` is then one of them."""
        needed = frozenset(map(self._problem.module_at.__getitem__, modules))
        coming = needed - self._placed
        layout, lacking = self._layout, self._known_to_lack(needed, coming)
        if leaving := self._placed - needed:
            layout = layout.copy()
            for module in leaving:
                layout.unsettle(module)
        if lacking is None and coming:
            layout = layout.copy()
            is_hopeless = is_too_much(self._problem, needed)
            lacking = self._add(layout, coming, deep=0 if is_hopeless else None)
            if lacking is not None and not is_hopeless and (repacked := self._packed_anew(needed)) is not None:
                layout, lacking = repacked, None
        if lacking is None:
            self._layout, self._placed = layout, needed
            return None
        kind, beside = self._kind(lacking), needed - {lacking}
        if len(beside) < len(self._refused.get(kind, needed)):
            self._refused[kind] = beside
        return no_room(layout, [lacking], needed)

    @property
    def placement(self) -> dict[str, list[str]]:
        """The packing of the modules that were last found to fit, module -> devices."""
        problem = self._problem
        copies = zip(problem.module_ids, self._layout.copies, strict=True)
        return {module: [problem.device_ids[device] for device in devices] for module, devices in copies if devices}

    def _known_to_lack(self, needed: frozenset[int], coming: frozenset[int]) -> int | None:
        """Returns a module that had no place beside some of the others, or whose like had none; None if none is known.

        Modules are alike if they are of one size and the same devices can run them. Those that have a copy now are
        passed over: they are placed before others.
        """
        for module in sorted(coming) if self._refused else ():
            if self._current.get(self._problem.module_ids[module]):
                continue
            beside = self._refused.get(self._kind(module))
            if beside is not None and beside <= needed - {module}:
                return module
        return None

    def _kind(self, module: int) -> _Kind:
        if module not in self._kinds:
            self._kinds[module] = self._problem.size_mb[module], self._problem.able(module).tobytes()
        return self._kinds[module]

    def _add(self, layout: Layout, modules: Collection[int], *, deep: int | None = None) -> int | None:
        """Places modules, those that have a copy now where it is; returns one that has no place, None if all have."""
        missing = []
        for module in sorted(modules):
            device = next((one for one in self._devices_now(module) if layout.fits(module, one)), None)
            if device is None:
                missing.append(module)
            else:
                layout.settle(module, device)
        limits = {} if deep is None else {"deep": deep}
        for module in sorted(missing, key=lambda m: (-self._problem.size_mb[m], m)):
            if not make_room(layout, module, **limits):
                return module
        return None

    def _devices_now(self, module: int) -> list[int]:
        problem = self._problem
        able = problem.modules[module].seconds
        found = (one for one in self._current.get(problem.module_ids[module], ()) if one in able)
        return [problem.device_at[one] for one in found if one in problem.device_at]

    def _packed_anew(self, needed: frozenset[int]) -> Layout | None:
        """Returns a packing that is made without the one so far; None if none was found, or too much was packed."""
        if self._to_repack < len(needed):
            return None
        self._to_repack -= len(needed)
        layout = Layout(self._problem)
        if self._add(layout, needed) is None:
            return layout
        places = pack(self._problem, sorted(needed), self._effort)
        if places is not None:
            return Layout(self._problem, {module: [device] for module, device in places.items()})
        return self._exactly(needed)

    def _exactly(self, needed: frozenset[int]) -> Layout | None:
        """Returns a packing by the exact search, on a small instance."""
        instance, modules = self._problem.instance, sorted(needed)
        if len(modules) * len(instance.devices) > _SMALL or self._exact_s <= 0 or not is_available():
            return None
        part = Problem(instance.model_copy(update={"modules": tuple(instance.modules[m] for m in modules)}))
        began = self._clock()
        copies = find_room(part, self._exact_s)
        self._exact_s -= self._clock() - began
        return None if copies is None else Layout(self._problem, {modules[at]: copies[at] for at in copies})
