"""XID events of NVIDIA GPUs: a thread that waits for them, and the log it writes.

``health`` decides the meaning of an XID for a device; ``nvml`` owns both objects.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable
from types import ModuleType
from typing import Any, Final

_XID_CRITICAL_ERROR: Final = 0x8  # nvmlEventTypeXidCriticalError
_ERROR_TIMEOUT: Final = 10
_WHOLE_GPU: Final = 0xFFFFFFFF  # instance id of an event that blames no MIG instance
_WAIT_MILLISECONDS: Final = 200


class XidLog:
    """The XIDs that each physical GPU has had, each code once, in order of the last time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, dict[tuple[int | None, int | None, int], None]] = {}

    def record(
        self,
        uuid: str,
        xid: int,
        gpu_instance_id: int | None = None,
        compute_instance_id: int | None = None,
    ) -> None:
        """Note an XID of the GPU ``uuid``; the instance ids are None for the whole GPU."""
        with self._lock:
            seen = self._seen.setdefault(uuid, {})
            event = (gpu_instance_id, compute_instance_id, xid)
            seen.pop(event, None)
            seen[event] = None

    def xids(
        self,
        uuid: str,
        gpu_instance_id: int | None = None,
        compute_instance_id: int | None = None,
    ) -> list[int]:
        """Return the XIDs of a GPU, or those of it that concern one of its MIG instances."""
        with self._lock:
            events = list(self._seen.get(uuid, ()))
        return [
            xid
            for gpu_instance, compute_instance, xid in events
            if gpu_instance_id is None
            or (
                gpu_instance in (None, gpu_instance_id)
                and compute_instance in (None, compute_instance_id)
            )
        ]

    def forget(self, uuid: str) -> None:
        """Drop the history of a GPU that came back after a reset or a reload of its driver."""
        with self._lock:
            self._seen.pop(uuid, None)


class XidWatcher:
    """Waits for XID events in a daemon thread and writes them into a log.

    Parameters
    ----------
    nvml : module
        An initialised ``pynvml``.
    log : XidLog
    gpus : iterable of (handle, uuid)
        The physical GPUs to watch. GPUs that cannot be watched are left out; with none left no
        thread is started and ``alive`` stays False.
    """

    def __init__(self, nvml: ModuleType, log: XidLog, gpus: Iterable[tuple[Any, str]]) -> None:
        self._nvml = nvml
        self._log = log
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._uuids: dict[int | None, str] = {}
        self._set: Any = None
        try:
            self._set = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:  # no events with this driver; reading goes on without them
            return
        for handle, uuid in gpus:
            try:
                nvml.nvmlDeviceRegisterEvents(handle, _XID_CRITICAL_ERROR, self._set)
            except nvml.NVMLError:  # not supported by this card
                continue
            self._uuids[_address(handle)] = uuid
        if self._uuids:
            self._thread = threading.Thread(target=self._run, name="agentic-ray-xid", daemon=True)
            self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def supported(self) -> bool:
        """Whether at least one GPU could be watched."""
        return self._thread is not None

    def stop(self) -> bool:
        """End the thread and free the event set.

        Returns
        -------
        bool
            False when the thread hangs in the driver; NVML must then not be shut down under it.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10 * _WAIT_MILLISECONDS / 1000)
            if self._thread.is_alive():
                return False
        if self._set is not None:
            try:
                self._nvml.nvmlEventSetFree(self._set)
            except self._nvml.NVMLError:  # the driver is gone and the set with it
                pass
            self._set = None
        return True

    def _run(self) -> None:
        nvml = self._nvml
        while not self._stop.is_set():
            try:
                event = nvml.nvmlEventSetWait_v2(self._set, _WAIT_MILLISECONDS)
            except nvml.NVMLError as error:
                if error.value == _ERROR_TIMEOUT:
                    continue
                # a GPU or the driver is gone: the next reading finds out which and starts again
                return
            uuid = self._uuids.get(_address(event.device))
            if uuid is not None and event.eventType & _XID_CRITICAL_ERROR:
                self._log.record(
                    uuid,
                    int(event.eventData),
                    _instance(event.gpuInstanceId),
                    _instance(event.computeInstanceId),
                )


def _address(handle: Any) -> int | None:
    """Return the opaque handle as a number, by which an event's device is recognised."""
    return ctypes.cast(handle, ctypes.c_void_p).value


def _instance(number: int) -> int | None:
    return None if number == _WHOLE_GPU else int(number)
