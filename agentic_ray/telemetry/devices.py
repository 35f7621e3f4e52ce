"""Relates CUDA's numbering of devices to NVML's by UUID. Pure.

NVML sees every GPU of a machine; CUDA counts only those that ``CUDA_VISIBLE_DEVICES`` lets a
process see, from 0, in its own order. ``nvml`` reads NVML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentic_ray.telemetry.state import GpuState

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
DEVICE_ORDER = "CUDA_DEVICE_ORDER"


@dataclass(frozen=True, slots=True)
class VisibleDevices:
    """The devices a CUDA process sees; the position is the CUDA ordinal.

    Parameters
    ----------
    devices : tuple of GpuState
        Devices in CUDA's order.
    reason : str or None
        Why some or all devices are hidden, as far as it is a mistake: an entry that names no
        device, or a device named twice.
    certain : bool
        False when CUDA may number differently: indices refer to CUDA's own enumeration, which
        is fastest first and equals NVML's only under ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` or among
        GPUs of one model. UUIDs are always certain.
    """

    devices: tuple[GpuState, ...]
    reason: str | None = None
    certain: bool = True

    def ordinal(self, uuid: str) -> int | None:
        """Return the CUDA ordinal of the device with this UUID; None when it is not visible."""
        return next((i for i, gpu in enumerate(self.devices) if gpu.uuid == uuid), None)

    def device(self, ordinal: int) -> GpuState | None:
        """Return the device with this CUDA ordinal; None when there is none."""
        return self.devices[ordinal] if 0 <= ordinal < len(self.devices) else None


def visible_devices(gpus: Sequence[GpuState], environ: Mapping[str, str]) -> VisibleDevices:
    """Return the devices of ``gpus`` that a CUDA process with this environment sees, in its order.

    Parameters
    ----------
    gpus : sequence of GpuState
        All devices of the node as NVML lists them.
    environ : mapping
        Environment variables of the process.

    Notes
    -----
    The rules are those of the CUDA C++ Programming Guide ("CUDA Environment Variables"), the MIG
    User Guide ("CUDA Device Enumeration") and the behaviour that PyTorch reproduces in
    ``torch.cuda``:

    - unset: all devices; empty, ``-1`` or ``NoDevFiles``: none;
    - the first entry fixes the form (index, ``GPU-``, ``MIG-``); the first entry that is not of
      this form, or names no device or more than one, ends the list;
    - an index is read as ``strtoul`` reads the entry (``"1x"`` is 1); a UUID may be shortened
      to any prefix that only one device has;
    - a device named twice makes the whole list empty;
    - one MIG instance at most is visible, and with it no other device (a driver may relax this;
      a process per device, as `environment_for` gives, is right either way).
    """
    ordered = sorted(gpus, key=lambda gpu: (gpu.index, gpu.mig_index or 0))
    value = environ.get(VISIBLE_DEVICES)
    by_bus = environ.get(DEVICE_ORDER) == "PCI_BUS_ID"
    certain = by_bus or len({gpu.name for gpu in ordered if gpu.mig_parent is None}) <= 1
    if value is None:
        devices = _one_instance(ordered)
        return VisibleDevices(devices, certain=certain or len(devices) <= 1)
    value = value.strip()
    if value in ("", "-1", "NoDevFiles"):
        return VisibleDevices(())
    entries = value.split(",")
    by_uuid = value.startswith(("GPU-", "MIG-"))
    chosen: list[GpuState] = []
    reason = None
    for entry in entries:
        gpu = _by_uuid(ordered, entry, value[:4]) if by_uuid else _by_index(ordered, entry)
        if gpu is None:
            reason = f"{VISIBLE_DEVICES}={value}: {entry.strip()!r} names no device"
            break
        if gpu in chosen:
            return VisibleDevices((), f"{VISIBLE_DEVICES}={value}: {gpu.uuid} is named twice")
        chosen.append(gpu)
    return VisibleDevices(_one_instance(chosen), reason, certain or by_uuid or not chosen)


def environment_for(gpu: GpuState) -> dict[str, str]:
    """Return environment variables that show a new process only this device, as ordinal 0."""
    return {VISIBLE_DEVICES: gpu.uuid, DEVICE_ORDER: "PCI_BUS_ID"}


def _one_instance(gpus: Sequence[GpuState]) -> tuple[GpuState, ...]:
    instance = next((gpu for gpu in gpus if gpu.mig_parent is not None), None)
    return tuple(gpus) if instance is None else (instance,)


def _by_index(gpus: Sequence[GpuState], entry: str) -> GpuState | None:
    """Return the GPU with this index; of a GPU in MIG mode its first instance."""
    number = _leading_number(entry.strip())
    return next((gpu for gpu in gpus if gpu.index == number), None)


def _leading_number(text: str) -> int | None:
    digits = text[1:] if text.startswith("+") else text
    end = next((i for i, char in enumerate(digits) if char not in "0123456789"), len(digits))
    return int(digits[:end]) if end else None


def _by_uuid(gpus: Sequence[GpuState], entry: str, form: str) -> GpuState | None:
    if not entry.startswith(form):
        return None
    if entry.startswith("MIG-GPU-"):
        # the form of drivers before R470: the UUID of the GPU and the ids of the instance
        parent, _, ids = entry.removeprefix("MIG-").partition("/")
        matches = [
            gpu
            for gpu in gpus
            if gpu.mig_parent is not None
            and gpu.mig_parent.startswith(parent)
            and ids == f"{gpu.gpu_instance_id}/{gpu.compute_instance_id}"
        ]
    elif form == "GPU-":
        # a GPU in MIG mode is not a device; its UUID stands for its first instance
        matches = [gpu for gpu in gpus if (gpu.mig_parent or gpu.uuid).startswith(entry)]
        if len({gpu.mig_parent or gpu.uuid for gpu in matches}) == 1:
            matches = matches[:1]
    else:
        matches = [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
    return matches[0] if len(matches) == 1 else None
