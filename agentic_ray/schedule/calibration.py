"""Measured rates of a node, used while a codelet is unknown. Data only: the runtime measures."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph.task import CostHint


@dataclass(frozen=True, slots=True)
class Calibration:
    """Rates of a typical node. The defaults are orders of magnitude.

    Parameters
    ----------
    cpu_flops_per_second, gpu_flops_per_second : float
        Rate of a large matrix product, on one CPU slot and on one GPU.
    cpu_bytes_per_second, gpu_bytes_per_second : float
        Rate of memory.
    store_bytes_per_second : float
        Rate of a value moved from one node to another, through the object stores.
    transfer_latency_seconds : float
        Seconds to move a value, however small it is.
    call_overhead_seconds : float
        Seconds of a call to an executor, there and back, beside its work.

    Raises
    ------
    InvalidArgumentError
        A rate is not positive and finite, or a time is negative.
    """

    cpu_flops_per_second: float = 5e9
    gpu_flops_per_second: float = 2e12
    cpu_bytes_per_second: float = 5e9
    gpu_bytes_per_second: float = 5e11
    store_bytes_per_second: float = 1e9
    transfer_latency_seconds: float = 0.0
    call_overhead_seconds: float = 3e-3

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            rate = entry.name.endswith("per_second")
            if not (math.isfinite(value) and (value > 0 or (value == 0 and not rate))):
                raise InvalidArgumentError(f"Calibration.{entry.name} cannot be {value!r}")

    def seconds(self, cost: CostHint, kind: str) -> float | None:
        """Return the seconds of ``cost`` on a device of ``kind`` at these rates (roofline: the
        slower of computing and memory); None if the hint says nothing."""
        moved = cost.read_bytes + cost.written_bytes
        if not (cost.flops or moved):
            return None
        if kind == "gpu":
            flops, memory = self.gpu_flops_per_second, self.gpu_bytes_per_second
        else:
            flops, memory = self.cpu_flops_per_second, self.cpu_bytes_per_second
        return max(cost.flops / flops, moved / memory)

    def transfer_seconds(self, size_bytes: float) -> float:
        """Return the seconds to move a value of this size to another node."""
        return self.transfer_latency_seconds + size_bytes / self.store_bytes_per_second
