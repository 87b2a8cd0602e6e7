"""What an agent may use: its device, the budgets of its memory and the host's, its threads, the dtype of weights."""

import hashlib
import uuid
from dataclasses import dataclass

from s2m3.agents.devices import Device, open_device
from s2m3.agents.memory import default_budget_mb
from s2m3.agents.speed import compute_gflops
from s2m3.agents.threads import compute_threads, preparing_threads
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.settings import AgentSettings

__all__ = ["Resources", "host_id"]

#: How much faster bfloat16 has to be for weights whose definition names no dtype to be in it, unless a setting says.
_PAYS = 1.5


@dataclass(frozen=True, slots=True)
class Resources:
    """What an agent may use.

    Args:
        device: Where modules compute.
        memory_mb: Budget of the device's memory, 10^6 bytes; on the CPU, of the whole process.
        host_mb: Budget of the process in the host's memory, 10^6 bytes; on the CPU, the same.
        threads: Compute threads on the CPU.
        speeds: Speed of a matrix product on the device, dtype -> GFLOP/s: float32, and what is faster there.
        dtype: Dtype of weights whose definition names none.
    """

    device: Device
    memory_mb: float
    host_mb: float
    threads: int
    speeds: dict[Dtype, float]
    dtype: Dtype

    @classmethod
    def of(cls, settings: AgentSettings) -> "Resources":
        """Returns what the settings and this machine say.

        Raises:
            NotInstalledError: The device that is asked for is not there.
        """
        device, threads = open_device(settings.device), compute_threads(settings.threads)
        if device.is_cpu:
            memory_mb = settings.memory_mb or default_budget_mb()
            return cls(device, memory_mb, memory_mb, threads, {}, settings.dtype)
        speeds = device.gflops()
        chosen: Dtype = settings.dtype
        if "dtype" not in settings.model_fields_set and speeds.get("bfloat16", 0.0) >= _PAYS * speeds["float32"]:
            chosen = "bfloat16"
        host_mb = settings.host_memory_mb or default_budget_mb()
        return cls(device, settings.memory_mb or device.default_budget_mb(), host_mb, threads, speeds, chosen)

    @property
    def preparing(self) -> int:
        """Number of threads that prepare beside the worker."""
        return preparing_threads(self.threads, self.device.name)

    def measured_speeds(self) -> dict[Dtype, float]:
        """Returns the speed in each dtype that pays; that of the CPU is measured now, in about 0.1 s."""
        return self.speeds or {"float32": compute_gflops()}

    def gflops(self, speeds: dict[Dtype, float]) -> float:
        """Returns the speed at which modules without a dtype of their own compute, of those measured."""
        return speeds.get(self.dtype, speeds["float32"])


def host_id() -> str:
    """Returns what agents of one machine have in common, 16 hexadecimal digits that tell nothing else of it."""
    return hashlib.sha256(b"s2m3 host %012x" % uuid.getnode()).hexdigest()[:16]
