"""NVIDIA GPUs as the driver reports them now: figures, MIG instances, topology, losses.

Reads the real NVML through ``pynvml`` and never fails: a figure that cannot be read is None, and a
driver that is absent or goes away is a reason. Health rules are in ``health``, the thread that
waits for XIDs in ``xid``, CUDA's numbering of devices in ``devices``.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from types import ModuleType
from typing import Any, Final

from agentic_ray.telemetry.health import assess, telling_xid
from agentic_ray.telemetry.state import GpuState
from agentic_ray.telemetry.xid import XidLog, XidWatcher

# Return codes of nvml.h; the numbers are its ABI.
_ERROR_UNINITIALIZED: Final = 1
_ERROR_NO_PERMISSION: Final = 4
_ERROR_DRIVER_NOT_LOADED: Final = 9
_ERROR_LIBRARY_NOT_FOUND: Final = 12
_ERROR_GPU_IS_LOST: Final = 15
_ERROR_RESET_REQUIRED: Final = 16
_ERROR_LIB_RM_VERSION_MISMATCH: Final = 18

_DRIVER_GONE: Final = {
    _ERROR_UNINITIALIZED,
    _ERROR_DRIVER_NOT_LOADED,
    _ERROR_LIBRARY_NOT_FOUND,
    _ERROR_LIB_RM_VERSION_MISMATCH,
}
_DEVICE_GONE: Final = {_ERROR_GPU_IS_LOST, _ERROR_RESET_REQUIRED}

_SENTENCES: Final = {
    _ERROR_UNINITIALIZED: "the NVIDIA driver library lost its connection to the driver",
    _ERROR_NO_PERMISSION: "this user may not query the NVIDIA driver",
    _ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
    _ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver: libnvidia-ml.so.1 was not found",
    _ERROR_GPU_IS_LOST: "the GPU is lost: it fell off the bus or cannot be reached",
    _ERROR_RESET_REQUIRED: "the GPU must be reset before it can be used",
    _ERROR_LIB_RM_VERSION_MISMATCH: (
        "the NVIDIA driver and its library have different versions (reload the driver or reboot)"
    ),
}

_ECC_UNCORRECTED: Final = 1  # NVML_MEMORY_ERROR_TYPE_UNCORRECTED
_ECC_VOLATILE: Final = 0  # NVML_VOLATILE_ECC
_TEMPERATURE_GPU: Final = 0  # NVML_TEMPERATURE_GPU
_MEMORY_V2: Final = 0x02000028  # nvmlMemory_v2
_P2P_NVLINK: Final = 2  # NVML_P2P_CAPS_INDEX_NVLINK
_NVLINK_MAX_LINKS: Final = 36  # NVML_NVLINK_MAX_LINKS

_THROTTLE_REASONS: Final = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
_PCIE_LEVELS: Final = {
    0: "same board",
    10: "one PCIe switch",
    20: "several PCIe switches",
    30: "PCIe host bridge",
    40: "NUMA node",
    50: "system",
}

_RETRY_DOUBLINGS: Final = 4
_IMPOSSIBLE_BYTES: Final = 1 << 56


@dataclass(frozen=True, slots=True)
class GpuLink:
    """Connection between two physical GPUs of a node.

    Parameters
    ----------
    first, second : str
        UUIDs.
    pcie : str or None
        Nearest place where their PCIe paths meet, from ``"same board"`` to ``"system"`` (across
        sockets).
    nvlinks : int or None
        NVLinks between the two, directly or through a switch.
    """

    first: str
    second: str
    pcie: str | None = None
    nvlinks: int | None = None


def closeness(link: GpuLink) -> float:
    """Return a figure that is larger for a quicker connection of two GPUs: NVLinks count first,
    then how near their PCIe paths meet.

    Examples
    --------
    >>> closeness(GpuLink("a", "b", "system", 2)) > closeness(GpuLink("a", "b", "same board", 0))
    True
    """
    levels = list(_PCIE_LEVELS.values())
    near = len(levels) - levels.index(link.pcie) if link.pcie in levels else 0
    return 10.0 * (link.nvlinks or 0) + near


@dataclass(frozen=True, slots=True)
class GpuReading:
    """All GPUs of this node; ``reason`` says why there are none or why some are missing."""

    gpus: tuple[GpuState, ...] = ()
    reason: str | None = None
    links: tuple[GpuLink, ...] = ()


class _UnavailableError(Exception):
    """This figure cannot be had here."""


class _DeviceGoneError(Exception):
    """A GPU cannot be used any more."""


class _DriverGoneError(Exception):
    """NVML as a whole cannot be used any more."""


@dataclass(frozen=True, slots=True)
class _SlowFigures:
    process_count: int | None
    temperature_celsius: float | None
    power_watts: float | None
    ecc_uncorrected: int | None
    throttle_reasons: tuple[str, ...] | None


@dataclass(slots=True)
class _Device:
    """A compute device: a physical GPU without MIG, or a MIG instance and its GPU's handle."""

    handle: Any
    state: GpuState
    card: Any
    slow: _SlowFigures | None = None
    slow_at: float = 0.0


class NvmlProbe:
    """Reads the GPUs of this machine through NVML; safe to call from several threads.

    Parameters
    ----------
    slow_seconds : float
        Age up to which temperature, power, ECC, throttling and process counts are reused.
    layout_seconds : float
        Age up to which the list of devices (MIG instances change at run time) is reused.
    retry_seconds : float
        Pause before a lost driver or GPU is tried again; doubles up to 16 times that.
    events : bool
        Watch for XID events in a daemon thread. `close` ends it.
    clock : callable
        Monotonic seconds.

    Notes
    -----
    Utilisation and power are not measured per MIG instance, and are None there. Temperature
    and throttle reasons of an instance are those of the GPU it is a part of.
    """

    def __init__(
        self,
        *,
        slow_seconds: float = 0.0,
        layout_seconds: float = 0.0,
        retry_seconds: float = 0.0,
        events: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slow_seconds = slow_seconds
        self._layout_seconds = layout_seconds
        self._retry_seconds = retry_seconds
        self._events = events
        self._clock = clock
        self._lock = threading.RLock()
        self._nvml: ModuleType | None = None
        self._initialised = False
        self._why: str | None = None
        self._retry_at = -1.0
        self._failures = 0
        self._laid_out_at: float | None = None
        self._devices: list[_Device] = []
        self._cards: dict[str, Any] = {}
        self._known: dict[str, GpuState] = {}
        self._lost: dict[str, str] = {}
        self._unlisted: list[str] = []
        self._links: tuple[GpuLink, ...] | None = None
        self._log = XidLog()
        self._watcher: XidWatcher | None = None

    def __enter__(self) -> NvmlProbe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> GpuReading:
        """Read the GPUs now. Never raises for an error of NVML.

        A GPU that was listed once stays listed: with ``healthy=False``, a reason and no figures
        while it or the driver is gone. MIG instances that were removed are dropped.
        """
        with self._lock:
            now = self._clock()
            if self._lost and self._initialised and now >= self._retry_at:
                self._shutdown()  # a lost handle never recovers; a new start may find the GPU
            if not self._initialised and not self._initialise(now):
                return self._absent()
            try:
                if self._laid_out_at is None or now - self._laid_out_at >= self._layout_seconds:
                    self._lay_out(now)
                self._sample(now)
            except _DriverGoneError as gone:
                self._why = str(gone)
                self._shutdown()
                self._postpone(now)
                return self._absent()
            if not self._lost:
                self._failures = 0
            elif now >= self._retry_at:
                self._postpone(now)
            reason = "; ".join(self._unlisted) or None
            if not self._known and reason is None:
                reason = "the NVIDIA driver lists no GPU"
            return GpuReading(self._ordered(), reason, self._links or ())

    def process_bytes(self, uuid: str) -> dict[int, int] | None:
        """Return the memory of a device by the id of the process that holds it, now; None when the
        driver does not tell. Never raises for an error of NVML.

        A driver in a container may name processes by their ids outside it, or not at all; a process
        whose memory it does not tell is left out.
        """
        with self._lock:
            device = next((one for one in self._devices if one.state.uuid == uuid), None)
            if device is None or not self._initialised:
                return None
            try:
                found = self._running(device)
            except (_DeviceGoneError, _DriverGoneError):
                return None  # the next `read` tells why
        if found is None:
            return None
        sizes: dict[int, int] = {}
        for process in found:
            size = None if process.usedGpuMemory is None else _bytes(process.usedGpuMemory)
            if size is not None:
                sizes[int(process.pid)] = size
        return sizes

    def close(self) -> None:
        """End the event thread and release NVML. A later `read` starts again."""
        with self._lock:
            self._shutdown()
            self._retry_at = -1.0

    # -- life of the library ------------------------------------------------------------------

    def _initialise(self, now: float) -> bool:
        if now < self._retry_at:
            return False
        if self._nvml is None:
            try:
                self._nvml = importlib.import_module("pynvml")
            except ImportError as error:
                self._why = f"the Python package nvidia-ml-py cannot be imported: {error}"
                self._postpone(now)
                return False
        try:
            self._call("nvmlInit")
        except (_UnavailableError, _DeviceGoneError, _DriverGoneError) as error:
            self._why = str(error)
            self._postpone(now)
            return False
        self._initialised = True
        self._laid_out_at = None
        self._why = None
        return True

    def _shutdown(self) -> None:
        stopped = self._watcher is None or self._watcher.stop()
        self._watcher = None
        if self._initialised and stopped:
            try:
                self._call("nvmlShutdown")
            except (_UnavailableError, _DeviceGoneError, _DriverGoneError):
                pass  # it is gone already, which is why it is being shut down
        self._initialised = False
        self._devices = []
        self._cards = {}
        self._links = None

    def _postpone(self, now: float) -> None:
        """Pause before the next start, longer after each failure: starting NVML is expensive."""
        self._retry_at = now + self._retry_seconds * 2 ** min(self._failures, _RETRY_DOUBLINGS)
        self._failures += 1

    def _absent(self) -> GpuReading:
        why = self._why or "the NVIDIA driver cannot be reached"
        for uuid in self._known:
            self._lost[uuid] = why
        self._mark_lost()
        return GpuReading(self._ordered(), why if not self._known else None)

    def _ordered(self) -> tuple[GpuState, ...]:
        return tuple(sorted(self._known.values(), key=lambda gpu: (gpu.index, gpu.mig_index or 0)))

    # -- the list of devices --------------------------------------------------------------------

    def _lay_out(self, now: float) -> None:
        """Find the compute devices, and the known ones that are gone."""
        slow = {device.state.uuid: (device.slow, device.slow_at) for device in self._devices}
        devices: list[_Device] = []
        cards: dict[str, Any] = {}
        closed: dict[int, str] = {}
        try:
            count = int(self._call("nvmlDeviceGetCount"))
        except (_UnavailableError, _DeviceGoneError) as error:
            raise _DriverGoneError(str(error)) from error
        for index in range(count):
            try:
                card = self._call("nvmlDeviceGetHandleByIndex", index)
                uuid = self._call("nvmlDeviceGetUUID", card)
                if uuid in cards:
                    closed[index] = f"another GPU of this machine has its UUID, {uuid}, too"
                    continue
                found = self._compute_devices(card, uuid, index)
            except (_UnavailableError, _DeviceGoneError) as error:
                closed[index] = str(error)
                continue
            cards[uuid] = card
            devices += found
        for device in devices:
            device.slow, device.slow_at = slow.get(device.state.uuid, (None, 0.0))
        listed = {device.state.uuid for device in devices}
        for uuid, gpu in list(self._known.items()):
            if uuid in listed:
                continue
            if uuid in cards or gpu.mig_parent in cards:
                del self._known[uuid]  # MIG was reconfigured: this device exists no more
                self._lost.pop(uuid, None)
            else:
                self._lost[uuid] = closed.get(gpu.index, "NVML no longer lists this GPU")
        known = {gpu.index for gpu in self._known.values()}
        self._unlisted = [f"GPU {i}: {why}" for i, why in closed.items() if i not in known]
        changed = cards.keys() != self._cards.keys()
        self._devices, self._cards, self._laid_out_at = devices, cards, now
        if changed or self._links is None:
            self._links = self._find_links(cards)
        self._watch(changed)

    def _compute_devices(self, card: Any, uuid: str, index: int) -> list[_Device]:
        """Return the GPU itself, or its MIG instances when it is in MIG mode."""
        known = self._known.get(uuid)
        name = self._ask("nvmlDeviceGetName", card) or (known.name if known else "NVIDIA GPU")
        mode = self._ask("nvmlDeviceGetMigMode", card)
        if mode is None and any(gpu.mig_parent == uuid for gpu in self._known.values()):
            # The card has MIG, but does not answer now.
            raise _UnavailableError("the MIG mode of the GPU cannot be read")
        if mode is None or not mode[0]:
            return [_Device(card, GpuState(uuid, index, name), card)]
        devices = []
        for mig_index in range(self._ask("nvmlDeviceGetMaxMigDeviceCount", card) or 0):
            handle = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", card, mig_index)
            mig_uuid = None if handle is None else self._ask("nvmlDeviceGetUUID", handle)
            if mig_uuid is None:  # places without an instance are normal
                continue
            state = GpuState(
                uuid=mig_uuid,
                index=index,
                name=self._ask("nvmlDeviceGetName", handle) or f"{name} MIG",
                mig_parent=uuid,
                mig_index=mig_index,
                gpu_instance_id=self._ask("nvmlDeviceGetGpuInstanceId", handle),
                compute_instance_id=self._ask("nvmlDeviceGetComputeInstanceId", handle),
            )
            devices.append(_Device(handle, state, card))
        return devices

    def _watch(self, changed: bool) -> None:
        if not self._events or self._nvml is None:
            return
        watcher = self._watcher
        if watcher is not None:
            ended = watcher.supported and not watcher.alive
            if not (changed or ended) or not watcher.stop():
                return
        self._watcher = XidWatcher(
            self._nvml, self._log, [(card, uuid) for uuid, card in self._cards.items()]
        )

    # -- figures ------------------------------------------------------------------------------

    def _sample(self, now: float) -> None:
        for device in self._devices:
            uuid = device.state.uuid
            try:
                state = self._figures(device, now)
            except _DeviceGoneError as gone:
                self._lost[uuid] = str(gone)
                self._known.setdefault(uuid, device.state)
                continue
            why = self._lost.pop(uuid, None)
            # NVML shut down by another user of this process says nothing about the GPU. Any other
            # loss ends with a reset or a new driver, and earlier XIDs are history.
            if why is not None and why != _SENTENCES[_ERROR_UNINITIALIZED]:
                self._log.forget(state.mig_parent or uuid)
                self._known.pop(uuid, None)
                state = replace(state, xid=None)
            self._known[uuid] = assess(state, self._known.get(uuid))
        self._mark_lost()

    def _mark_lost(self) -> None:
        for uuid, why in self._lost.items():
            gpu = self._known[uuid]
            # old figures would be mistaken for present ones
            self._known[uuid] = GpuState(
                uuid=uuid,
                index=gpu.index,
                name=gpu.name,
                memory_total_bytes=gpu.memory_total_bytes,
                xid=gpu.xid,
                mig_parent=gpu.mig_parent,
                healthy=False,
                reason=why,
                mig_index=gpu.mig_index,
                gpu_instance_id=gpu.gpu_instance_id,
                compute_instance_id=gpu.compute_instance_id,
                ecc_baseline=gpu.ecc_baseline,
                ecc_new=gpu.ecc_new,
            )

    def _figures(self, device: _Device, now: float) -> GpuState:
        handle, state = device.handle, device.state
        # Version 2 counts the driver's own memory apart from that of programs.
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle, _MEMORY_V2)
        if memory is None:
            memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        if memory is None and state.mig_parent is not None:
            self._laid_out_at = None  # the instance may have been removed: look next time
        rates = self._ask("nvmlDeviceGetUtilizationRates", handle)
        if device.slow is None or now - device.slow_at >= self._slow_seconds:
            device.slow, device.slow_at = self._slow_figures(device), now
        slow = device.slow
        card_uuid = state.mig_parent or state.uuid
        xids = self._log.xids(card_uuid, state.gpu_instance_id, state.compute_instance_id)
        return replace(
            state,
            memory_total_bytes=None if memory is None else _bytes(memory.total),
            memory_free_bytes=None if memory is None else _bytes(memory.free),
            memory_used_bytes=None if memory is None else _bytes(memory.used),
            utilization=None if rates is None else rates.gpu / 100.0,
            process_count=slow.process_count,
            temperature_celsius=slow.temperature_celsius,
            power_watts=slow.power_watts,
            ecc_uncorrected=slow.ecc_uncorrected,
            throttle_reasons=slow.throttle_reasons,
            xid=telling_xid(xids),
        )

    def _slow_figures(self, device: _Device) -> _SlowFigures:
        handle, card = device.handle, device.card
        processes = self._running(device)
        temperature = self._first(
            [
                ("nvmlDeviceGetTemperatureV", card, _TEMPERATURE_GPU),
                ("nvmlDeviceGetTemperature", card, _TEMPERATURE_GPU),
            ]
        )
        reasons = self._first(
            [
                ("nvmlDeviceGetCurrentClocksEventReasons", card),
                ("nvmlDeviceGetCurrentClocksThrottleReasons", card),
            ]
        )
        milliwatts = self._ask("nvmlDeviceGetPowerUsage", handle)
        ecc = self._ask("nvmlDeviceGetTotalEccErrors", handle, _ECC_UNCORRECTED, _ECC_VOLATILE)
        return _SlowFigures(
            process_count=None if processes is None else len(processes),
            temperature_celsius=None if temperature is None else float(temperature),
            power_watts=None if milliwatts is None else milliwatts / 1000.0,
            ecc_uncorrected=None if ecc is None else int(ecc),
            throttle_reasons=None if reasons is None else throttle_names(int(reasons)),
        )

    def _running(self, device: _Device) -> list[Any] | None:
        """Return NVML's records of the processes that compute on a device."""
        found: list[Any] | None = self._first(
            [
                ("nvmlDeviceGetComputeRunningProcesses_v3", device.handle),
                ("nvmlDeviceGetComputeRunningProcesses_v2", device.handle),
            ]
        )
        return found

    # -- topology -----------------------------------------------------------------------------

    def _find_links(self, cards: dict[str, Any]) -> tuple[GpuLink, ...]:
        try:
            remotes = {uuid: self._nvlink_remotes(card) for uuid, card in cards.items()}
            buses = {uuid: self._bus(card) for uuid, card in cards.items()}
            return tuple(
                self._link(cards, remotes, buses, first, second)
                for first, second in combinations(cards, 2)
            )
        except _DeviceGoneError:  # sampling names the GPU; links are found when it is back
            return ()

    def _link(
        self,
        cards: dict[str, Any],
        remotes: dict[str, list[str | None] | None],
        buses: dict[str, str | None],
        first: str,
        second: str,
    ) -> GpuLink:
        pair = (cards[first], cards[second])
        level = self._ask("nvmlDeviceGetTopologyCommonAncestor", *pair)
        pcie = None if level is None else _PCIE_LEVELS.get(level)
        ours, theirs = remotes[first], remotes[second]
        if ours is None or theirs is None:
            return GpuLink(first, second, pcie)
        nvlinks = sum(remote is not None and remote == buses[second] for remote in ours)
        if not nvlinks and self._ask("nvmlDeviceGetP2PStatus", *pair, _P2P_NVLINK) == 0:
            nvlinks = min(len(ours), len(theirs))  # they reach each other through a switch
        return GpuLink(first, second, pcie, nvlinks)

    def _nvlink_remotes(self, card: Any) -> list[str | None] | None:
        """Return the PCI address at the far end of each active NVLink; None if that is unknown."""
        remotes: list[str | None] = []
        for link in range(_NVLINK_MAX_LINKS):
            active = self._ask("nvmlDeviceGetNvLinkState", card, link)
            if active is None:
                return None if link == 0 else remotes
            if active:
                remote = self._ask("nvmlDeviceGetNvLinkRemotePciInfo", card, link)
                remotes.append(None if remote is None else str(remote.busId).lower())
        return remotes

    def _bus(self, card: Any) -> str | None:
        info = self._ask("nvmlDeviceGetPciInfo", card)
        return None if info is None else str(info.busId).lower()

    # -- calls --------------------------------------------------------------------------------

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call a function of pynvml and sort its errors into the three kinds used here."""
        nvml = self._nvml
        if nvml is None:
            raise _DriverGoneError(_SENTENCES[_ERROR_UNINITIALIZED])
        implementation = getattr(nvml, function, None)
        if implementation is None:
            raise _UnavailableError(f"this release of pynvml has no {function}")
        try:
            return implementation(*arguments)
        except nvml.NVMLError as error:
            code = int(error.value)
            sentence = _SENTENCES.get(code) or f"NVML error {code} from {function}: {error}"
            if code in _DRIVER_GONE:
                raise _DriverGoneError(sentence) from error
            if code in _DEVICE_GONE:
                raise _DeviceGoneError(sentence) from error
            raise _UnavailableError(sentence) from error
        except nvml.NVMLLibraryMismatchError as error:  # this driver does not have it
            raise _UnavailableError(str(error)) from error
        except UnicodeDecodeError as error:
            raise _UnavailableError(f"{function} answers what is not UTF-8 text") from error

    def _ask(self, function: str, *arguments: Any) -> Any | None:
        """Call as `_call` does, with None for a figure that this card or driver does not have."""
        try:
            return self._call(function, *arguments)
        except _UnavailableError:
            return None

    def _first(self, calls: Iterable[tuple[Any, ...]]) -> Any | None:
        for call in calls:
            answer = self._ask(*call)
            if answer is not None:
                return answer
        return None


def _bytes(size: Any) -> int | None:
    """Return a size; None for one that no GPU has: drivers answer -1, or a negative unsigned
    one."""
    size = int(size)
    return size if 0 <= size < _IMPOSSIBLE_BYTES else None


def throttle_names(bits: int) -> tuple[str, ...]:
    """Return the names of the set bits of NVML's clock event (throttle) reasons.

    >>> throttle_names(0x44)
    ('sw_power_cap', 'hw_thermal_slowdown')
    """
    names = [name for bit, name in _THROTTLE_REASONS.items() if bits & bit]
    unknown = bits & ~sum(_THROTTLE_REASONS)
    return (*names, f"unknown_{unknown:#x}") if unknown else tuple(names)
