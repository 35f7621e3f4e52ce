"""The device seam: the memory of a bundle's arrays while it runs, and the namespace over them.

The CPU's device is the identity; a GPU's is CuPy, imported only in the executor of that GPU.
"""

from agentic_ray.runtime.devices.base import (
    Device,
    DeviceMemory,
    HostDevice,
    Upload,
    device_factory,
    map_leaves,
)
from agentic_ray.runtime.devices.cupy_device import CupyDevice

__all__ = [
    "CupyDevice",
    "Device",
    "DeviceMemory",
    "HostDevice",
    "Upload",
    "device_factory",
    "map_leaves",
]
