"""Loads modules one at a time in a thread of its own, within the memory budget, and measures each module's memory."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from queue import SimpleQueue

import structlog

from s2m3.agents import registry
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.devices import Device, is_out_of_memory, put_on
from s2m3.agents.memory import available_mb, count_as_mapped, forget_mapped, give_back, recounted_rss_mb, rss_mb
from s2m3.agents.parts.cache import OpenPart
from s2m3.agents.registry.mapped import is_to_be_mapped, mapped_files, why_not_mapped
from s2m3.agents.runtimes.network import ONNX, TORCH
from s2m3.agents.serving.module import Module
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.broker import metrics
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import ModuleFailedError, NoCapacityError, S2M3Error
from s2m3.schemas.messages import ModuleReport

__all__ = ["Loaded", "Loader"]

_log = structlog.get_logger(__name__)
#: Memory of importing torch and a transformers model (measured: 250 to 350 MB); reserved until the import is measured.
_TORCH_MB = 350.0
#: Memory of importing ONNX Runtime, which is reserved where torch does not run (measured: 21 MB).
_ONNX_MB = 25.0
#: Speed of a disk that other work fills, from which the pages of mapped weights come, 10^6 bytes a second.
_SLOW_DISK_MB_S = 10.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded module.

    Args:
        spec: The module's definition.
        module: The module.
        memory_mb: Memory that it adds to the process, 10^6 bytes: measured when loading, plus its KV cache's limit.
        fingerprint: Identifies the content of its weights.
        runtime: What runs it.
        mapped: Whether its weights are mapped from the disk.
    """

    spec: ModuleSpec
    module: Module
    memory_mb: float
    fingerprint: str
    runtime: str
    mapped: bool = False

    def report(self) -> ModuleReport:
        """Returns what the node reports of the module once it is served."""
        memory_mb = round(self.memory_mb, 2)
        return ModuleReport(
            state="ready",
            progress=1.0,
            bytes=self.module.nbytes,
            memory_mb=memory_mb,
            fingerprint=self.fingerprint,
            runtime=self.runtime,
            mapped=self.mapped,
        )


Outcome = Callable[[ModuleSpec, Loaded | S2M3Error], None]


class Loader:
    """Loads modules in the order of the calls to `load`.

    Args:
        node: This node's name, for log and errors.
        memory_mb: Memory budget of the whole process, 10^6 bytes.
        threads: Compute threads for torch.
        sources: The checkpoints on this device.
        outcome: Called in the loader's thread with each loaded module, or the error.
        watchdog: Supervises each load.
        dtype: Dtype of weights whose definition names none.
        device: Where modules compute; None for the CPU. `memory_mb` is of its memory.
    """

    def __init__(
        self,
        node: str,
        memory_mb: float,
        threads: int,
        sources: CheckpointSources,
        outcome: Outcome,
        *,
        watchdog: Watchdog,
        dtype: Dtype = "float32",
        device: Device | None = None,
    ) -> None:
        self._node = node
        self._memory_mb = memory_mb
        self._threads = threads
        #: without torch where the budget has no room for it
        self.sources = sources
        self._outcome = outcome
        self._watchdog = watchdog
        self._dtype = dtype
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._device = device or Device()
        self._base_mb = rss_mb() if self._device.is_cpu else 0.0
        self._code_mb = 0.0
        #: whether torch is installed and fits the budget; a node without it still serves light modules
        in_budget = self._device.is_cpu  # beside a device's memory, torch takes the host's
        self.has_room_for_torch = TORCH in sources.runtimes and (not in_budget or memory_mb > self._base_mb + _TORCH_MB)
        if not self._device.is_cpu:  # ONNX Runtime computes on the CPU here
            self.sources = sources = replace(sources, runtimes=tuple(r for r in sources.runtimes if r == TORCH))
        if not self.has_room_for_torch:
            light = tuple(runtime for runtime in sources.runtimes if runtime != TORCH)
            self.sources = sources = replace(sources, runtimes=light)
        expected_mb = _TORCH_MB if self.has_room_for_torch else _ONNX_MB if ONNX in sources.runtimes else 0.0
        self._expected_mb = expected_mb if in_budget else 0.0
        self._held_mb: dict[str, float] = {}
        #: module -> its part, whose weights are mapped
        self._mapped: dict[str, OpenPart] = {}
        metrics.DEVICE.labels(self._device.name, dtype).set(1)
        metrics.MEMORY_BUDGET.set(memory_mb * 1e6)
        metrics.MEMORY_FREE.set_function(lambda: self.free_mb * 1e6)
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the queued loads; does not wait."""
        self._queue.put(None)

    def load(self, spec: ModuleSpec) -> None:
        """Queues a load."""
        self._queue.put(lambda: self._outcome(spec, self._watched_load(spec)))

    def forget(self, module_id: str) -> None:
        """Releases an unloaded module's memory; the caller must have dropped its reference to the module."""
        if self._held_mb.pop(module_id, None) is not None:
            metrics.MODULE_MEMORY.remove(module_id)
        self._queue.put(self._give_back)
        if (part := self._mapped.pop(module_id, None)) is not None:
            self._queue.put(partial(_forget, part))

    def trim(self) -> None:
        """Queues a trim of the heap: unused memory is returned to the system."""
        self._queue.put(self._give_back)

    def _give_back(self) -> None:
        give_back()
        self._device.give_back()

    @property
    def runtime_mb(self) -> float:
        """Memory of the process without modules, 10^6 bytes, with an estimate for torch until torch is imported."""
        return self._base_mb + max(self._code_mb, self._expected_mb)

    @property
    def free_mb(self) -> float:
        """The unused part of the budget, 10^6 bytes."""
        return max(0.0, self._memory_mb - self.runtime_mb - sum(self._held_mb.values()))

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            job()

    def _watched_load(self, spec: ModuleSpec) -> Loaded | S2M3Error:
        with self._watchdog.loading(spec.id):
            outcome = self._load(spec)
            if not isinstance(outcome, Loaded):
                self._give_back()  # not before: what was built of it is gone only now
            return outcome

    def _load(self, spec: ModuleSpec) -> Loaded | S2M3Error:
        began = time.monotonic()
        part: OpenPart | None = None
        try:
            dtype = spec.dtype or self._dtype
            spec = spec.model_copy(update={"dtype": dtype})
            self._import_code(spec)
            runtime = registry.runtime_of(spec, self.sources)
            is_mapped = self._is_to_be_mapped(spec, runtime, dtype)
            self._check_host(spec, dtype)
            fingerprint = registry.identify(spec, self.sources)
            wanted = spec.model_copy(update={"map_weights": None})
            if is_mapped:
                found = mapped_files(spec, self.sources, runtime, fingerprint)
                wanted, part = found.spec, found.part
                count_as_mapped(part.folder)
            before = self._device.taken_mb()
            module = registry.load(wanted, self.sources)
            if runtime == TORCH:
                put_on(module, self._device)
            if module.nbytes:
                self._give_back()
            took_mb = self._device.taken_mb() - before
            if is_mapped:
                self._check_mapped(spec, took_mb)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the loader's one broad except: a bad checkpoint, or a bad package, is a failed module
            known = _as_failure(spec, error).with_traceback(None)  # whose frames hold what was built
            known.node = self._node
            if part is not None:
                _forget(part)
            metrics.MODULE_FAILURES.labels(spec.id, known.code).inc()
            _log.warning("module_failed", node=self._node, module=spec.id, error=str(known))
            return known
        if part is not None:
            self._mapped[spec.id] = part
        # not hung for a slow disk; read into memory later, it is as quick as any
        self._watchdog.allow(spec.id, module.nbytes / 1e6 / _SLOW_DISK_MB_S if is_mapped else 0.0)
        memory_mb = max(took_mb, spec.mapped_mb(dtype) if is_mapped else module.nbytes / 1e6) + spec.cache_mb
        self._held_mb[spec.id] = memory_mb
        seconds = round(time.monotonic() - began, 2)
        metrics.LOAD_SECONDS.labels(spec.id).observe(seconds)
        metrics.MODULE_MEMORY.labels(spec.id).set(memory_mb * 1e6)
        how = {"memory_mb": round(memory_mb, 1), "seconds": seconds, **({"mapped": True} if is_mapped else {})}
        _log.info("module_loaded", node=self._node, module=spec.id, **how)
        return Loaded(spec, module, memory_mb, fingerprint, runtime, is_mapped)

    def _is_to_be_mapped(self, spec: ModuleSpec, runtime: str, dtype: Dtype) -> bool:
        """Returns whether a module's weights are to be mapped; errors as of is_to_be_mapped."""
        why_not = None
        if spec.map_weights in ("if-needed", "always"):
            why_not = why_not_mapped(spec, self.sources, runtime, self._device, dtype)
        return is_to_be_mapped(spec, dtype, self.free_mb, self._memory_mb, why_not)

    def _check_mapped(self, spec: ModuleSpec, took_mb: float) -> None:
        """Checks that a module with mapped weights takes no more than is free.

        Raises:
            NoCapacityError: It does: its network makes others of the weights when it is built.
        """
        if took_mb + spec.cache_mb > self.free_mb:
            raise NoCapacityError(
                f"{spec.id} takes {took_mb + spec.cache_mb:.0f} MB beside its mapped weights, of which its network "
                f"makes others; {self.free_mb:.0f} of {self._memory_mb:.0f} are free"
            )

    def _check_host(self, spec: ModuleSpec, dtype: Dtype) -> None:
        """Checks that the host has room for weights on their way to an accelerator; else the system ends the agent.

        Raises:
            NoCapacityError: It has not.
        """
        needed = spec.weights_mb(dtype)
        if not self._device.is_cpu and needed > (free := available_mb()):
            raise NoCapacityError(f"{spec.id} goes through {needed:.0f} MB of the host's memory; {free:.0f} are free")

    def _import_code(self, spec: ModuleSpec) -> None:
        """Imports the packages of a module class before the load, so that their memory counts as runtime memory."""
        before = recounted_rss_mb()
        registry.import_code(spec, self.sources)
        match registry.runtime_of(spec, self.sources):
            case "torch":
                import_module("torch").set_num_threads(self._threads)
            case "onnx" if find_spec("onnxruntime") is not None:
                import_module("s2m3.agents.runtimes.onnx").set_threads(self._threads)
        if self._device.is_cpu:
            self._code_mb += max(0.0, recounted_rss_mb() - before)


def _forget(part: OpenPart) -> None:
    """Takes it that nothing maps a part any more: it may be evicted, and its pages are nobody's weights."""
    forget_mapped(part.folder)
    part.close()


def _as_failure(spec: ModuleSpec, error: BaseException) -> S2M3Error:
    """Returns the error of a module that was not loaded; the text names the package of a class that is not shipped."""
    origin = registry.origin_of(spec.class_)
    if is_out_of_memory(error):
        return NoCapacityError(f"{spec.id}: {error}"[:300])
    if isinstance(error, S2M3Error) and not (origin and isinstance(error, ModuleFailedError)):
        return error
    why = error.detail if isinstance(error, S2M3Error) else f"{type(error).__name__}: {error}"[:300]
    return ModuleFailedError(f"class {spec.class_} of {origin}: {why}" if origin else why)
