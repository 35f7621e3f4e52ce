"""The executor actor of one GPU or MIG instance, and how it is started.

It owns the device: turns, prefetching, resident values, the look at NVML before each bundle.
``device_run`` runs a bundle; ``oom`` decides what to do when memory is short.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agentic_ray.errors import NoSuitableDeviceError, OutOfDeviceMemoryError
from agentic_ray.runtime.device_run import Job, root_of, run_job
from agentic_ray.runtime.devices import Device, DeviceMemory, device_factory
from agentic_ray.runtime.execute import Payload, cancellable, load_codelet, pack_value, with_printed
from agentic_ray.runtime.executors import CONTROL_GROUP, CancelledTokens, answer, control
from agentic_ray.runtime.failures import BundleCancelled, PackedError
from agentic_ray.runtime.functions.carry import run_function
from agentic_ray.runtime.functions.pool import FunctionPool
from agentic_ray.runtime.leases import leased_bytes, leases_in_use
from agentic_ray.runtime.oom import Note
from agentic_ray.runtime.outcomes import (
    Cancelled,
    DeviceLost,
    Failed,
    Finished,
    InputsMissing,
    Outcome,
    OutOfDeviceMemory,
    Output,
    Report,
)
from agentic_ray.runtime.printed import install, taking
from agentic_ray.runtime.resident import Key, ValueAbsentError, ValueTable
from agentic_ray.schedule.admission import budget_bytes
from agentic_ray.schedule.events import INLINE_BYTES
from agentic_ray.schedule.load import MOST_PROCESSES
from agentic_ray.schedule.view import GPU_AHEAD_PER_SLOT
from agentic_ray.telemetry.devices import environment_for, visible_devices
from agentic_ray.telemetry.nvml import NvmlProbe
from agentic_ray.telemetry.state import GpuState, format_bytes

_SLOW_SECONDS: Final = 5.0
_LAYOUT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """A GPU as its executor sees it: the memory that bundles may use together, and its health.
    Without ``arrays`` it runs functions in processes of their own only, for the ``reason``."""

    device: str
    budget_bytes: int
    memory: DeviceMemory
    resident_bytes: int
    healthy: bool = True
    reason: str = ""
    arrays: bool = True


class DeviceLostError(Exception):
    """Internal: NVML says that the device is not to be used."""


class _Turns:
    """Queue that lets bundles compute while their shares of the device add up to at most one."""

    def __init__(self) -> None:
        self._taken = 0.0
        self._freed = threading.Condition()

    @contextmanager
    def take(self, share: float) -> Iterator[None]:
        with self._freed:
            while self._taken and self._taken + share > 1.0 + 1e-9:
                self._freed.wait()
            self._taken += share
        try:
            yield
        finally:
            with self._freed:
                self._taken -= share
                if self._taken < 1e-9:
                    self._taken = 0.0  # no drift from rounding
                self._freed.notify_all()


class GpuExecutor:
    """Executor of a GPU, for the whole session: one CUDA context, one memory pool.

    Bundles compute one after the other (or together, if each declares a fraction of the GPU);
    meanwhile the inputs of the next are copied to the device and results of the last to the host.
    Ray does not restart it: values kept on the device would be gone, and Ray might give the new
    process another GPU. `gpu_nodes` starts a new executor instead.
    """

    def __init__(self) -> None:
        install()
        self._node_id = ray.get_runtime_context().get_node_id()
        self._cancelled = CancelledTokens()
        self._nvml = NvmlProbe(
            slow_seconds=_SLOW_SECONDS, layout_seconds=_LAYOUT_SECONDS, events=False
        )
        self._turns = _Turns()
        self._staged: dict[int, Job] = {}  # waiting for their turn, by identity
        self._staging = threading.Lock()
        self._uuid = ""
        self._no_arrays = ""
        self._functions: FunctionPool | None = None
        self._opened: Device | None = None
        self._kept: ValueTable | None = None

    # --- life --------------------------------------------------------------------------

    @control
    def assigned(self) -> tuple[str, ...]:
        """Return the UUIDs of the devices that Ray's choice for this process stands for.

        There is one UUID, except for a GPU in MIG mode that Ray named by its index: then all its
        instances.
        """
        gpus = self._nvml.read().gpus
        seen = visible_devices(gpus, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **os.environ})
        named = os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-")
        found = list(seen.devices)
        if not named:
            parents = {gpu.mig_parent for gpu in found if gpu.mig_parent is not None}
            found += [gpu for gpu in gpus if gpu.mig_parent in parents and gpu not in found]
        return tuple(gpu.uuid for gpu in found)

    @control
    def open(self, uuid: str, factory: str) -> GpuStatus:
        """Take the device with this UUID as this process's own.

        Raises
        ------
        NoSuitableDeviceError
            The device cannot be used; the message says why.

        Notes
        -----
        If the library of ``factory`` is not installed on this node, the device runs functions only.
        """
        gpu = self._gpu(uuid)
        if gpu is None:
            raise NoSuitableDeviceError(f"NVML lists no device {uuid} any more")
        environment = environment_for(gpu)
        os.environ.update(environment)
        self._functions = FunctionPool(
            environment,
            lambda: _free_bytes(self._gpu(uuid)),
            lambda: self._nvml.process_bytes(uuid),
        )
        self._uuid = uuid
        try:
            device = device_factory(factory)(uuid)
        except NoSuitableDeviceError as error:
            if not isinstance(error.__cause__, ImportError):
                raise
            self._no_arrays = str(error)
            return self.status()
        self._kept = ValueTable(device)
        self._opened = device
        return self.status()

    @control
    def status(self) -> GpuStatus:
        """Return memory and health now."""
        memory, gpu = self._memory()
        held = memory.held_bytes + self._pool.held_bytes() + self._leased_bytes()
        budget = budget_bytes(memory.total_bytes, memory.free_bytes, held)
        healthy = gpu is None or gpu.healthy
        reason = "" if gpu is None else gpu.reason or ""
        if self._opened is None:
            reason = reason or self._no_arrays
            return GpuStatus(self._uuid, budget, memory, 0, healthy, reason, arrays=False)
        return GpuStatus(self._uuid, budget, memory, self._table.device_bytes, healthy, reason)

    @control
    def cancel(self, token: str) -> None:
        """Make the call with this token stop at its next check."""
        self._cancelled.add(token)

    @control
    def leases_in_use(self) -> frozenset[str]:
        """Return the ids of the leases that living processes of this machine use."""
        return leases_in_use()

    @control
    def pid(self) -> int:
        return os.getpid()

    @property
    def _device(self) -> Device:
        if self._opened is None:
            raise NoSuitableDeviceError("this executor has no device yet")
        return self._opened

    @property
    def _table(self) -> ValueTable:
        if self._kept is None:
            raise NoSuitableDeviceError("this executor has no device yet")
        return self._kept

    @property
    def _pool(self) -> FunctionPool:
        if self._functions is None:
            raise NoSuitableDeviceError("this executor has no device yet")
        return self._functions

    # --- values that stay ----------------------------------------------------------------

    @control
    def host_copy(self, graph_id: str, key: str) -> tuple[bool, Any]:
        """Return True and a kept value on the host; raise if it cannot be copied."""
        return True, self._table.host_copy((graph_id, key))

    @control
    def drop(self, keys: tuple[Key, ...]) -> None:
        """Forget kept values."""
        self._table.drop(keys)

    # --- bundles ---------------------------------------------------------------------------

    def run(self, token: str, payload: Payload, *inputs: Any) -> Any:
        """Run a bundle; return its Report followed by its large outputs in order."""
        if payload.function:
            return answer(self._run_function(token, payload, *inputs))
        with taking() as taken:
            report, *large = self._run(token, payload, *inputs)
        return answer((with_printed(report, taken), *large))

    def _run_function(self, token: str, payload: Payload, *inputs: Any) -> tuple[Any, ...]:
        """Run a bundle of a function in a process of its own on this device."""
        gpu = self._gpu(self._uuid)
        if gpu is not None and not gpu.healthy:
            why = gpu.reason or "the GPU is not healthy"
            report = Report(self._node_id, os.getpid(), 0.0, (), DeviceLost(why))
            return (report, *(None,) * len(payload.outputs))
        return run_function(
            payload,
            inputs,
            self._pool,
            node_id=self._node_id,
            is_cancelled=lambda: token in self._cancelled,
            make_room=self._make_room,
        )

    def _run(self, token: str, payload: Payload, *inputs: Any) -> tuple[Any, ...]:
        """Run a bundle as `run` does, without taking its printed text."""
        notes: list[Note] = []
        started = time.perf_counter()
        graph_id = payload.graph_id
        job: Job | None = None

        def report(outcome: Outcome) -> Report:
            job_seconds = () if job is None else tuple(job.seconds.get(s.key, 0.0) for s in steps)
            seconds = time.perf_counter() - started
            return Report(
                self._node_id,
                os.getpid(),
                seconds,
                job_seconds,
                outcome,
                notes=tuple((note.kind, note.text) for note in notes),
            )

        nothing = (None,) * len(payload.outputs)
        steps: tuple[Any, ...] = ()
        try:
            with (
                cancellable(lambda: token in self._cancelled),
                self._device.computing(),
                self._table.using([(graph_id, key) for key in payload.resident]) as kept,
            ):
                steps = cloudpickle.loads(payload.steps)
                job = self._job(payload, steps, inputs, kept)
                self._prefetch(job)
                try:
                    with self._turns.take(payload.gpu_share):
                        self._unstage(job)
                        started = time.perf_counter()
                        self._make_ready(payload.gpu_memory_bytes, notes)
                        run_job(
                            job, make_room=self._make_room, note=notes.append, parts=payload.parts
                        )
                finally:
                    self._unstage(job)
                outputs, large = self._outputs(payload, job)
                return (report(Finished(tuple(outputs))), *large)
        except BundleCancelled:
            return (report(Cancelled()), *nothing)
        except ValueAbsentError as absent:
            keys = tuple(key for _, key in absent.args[0])
            return (report(InputsMissing(keys)), *nothing)
        except DeviceLostError as error:
            return (report(DeviceLost(str(error))), *nothing)
        except BaseException as error:  # also SystemExit and the like: this process goes on
            root = root_of(error)
            if self._device.is_lost(root):
                return (report(DeviceLost(str(root))), *nothing)
            packed = PackedError.pack(error, "?" if job is None else job.running)
            short = isinstance(error, OutOfDeviceMemoryError)
            if short or self._device.is_out_of_memory(root):
                return (report(OutOfDeviceMemory(packed)), *nothing)
            return (report(Failed(packed)), *nothing)

    def _job(
        self,
        payload: Payload,
        steps: tuple[Any, ...],
        inputs: tuple[Any, ...],
        kept: Mapping[Key, Any],
    ) -> Job:
        values: dict[str, Any] = dict(zip(payload.inputs, inputs, strict=True))
        values.update((key, inline.load()) for key, inline in payload.inline.items())
        values.update((key, value) for (_, key), value in kept.items())
        codelets = {
            token: load_codelet(token, source) for token, source in payload.codelets.items()
        }
        return Job(self._device, steps, codelets, values, frozenset(payload.outputs))

    def _prefetch(self, job: Job) -> None:
        """Begin to copy the inputs to the device while another bundle computes there.

        If there is no room for them, nothing is lost: they are copied when it is this bundle's
        turn.
        """
        try:
            ready = {
                key: self._device.arrived(self._device.upload(value))
                for key, value in job.to_upload().items()
            }
        except Exception as error:
            if not self._device.is_out_of_memory(error):
                raise
            ready = {}
        with self._staging:
            job.ready.update(ready)
            self._staged[id(job)] = job

    def _unstage(self, job: Job) -> None:
        with self._staging:
            self._staged.pop(id(job), None)

    def _make_ready(self, wanted_bytes: int, notes: list[Note]) -> None:
        """Prepare for a bundle: ask NVML, set the pool's limit, move kept values out of its way.

        Raises
        ------
        DeviceLostError
            The device is not to be used.
        """
        memory, gpu = self._memory()
        if gpu is not None and not gpu.healthy:
            raise DeviceLostError(gpu.reason or "the GPU is not healthy")
        budget = budget_bytes(memory.total_bytes, memory.free_bytes, memory.held_bytes)
        budget = max(0, budget - self._pool.promised_bytes())  # to functions under way
        self._device.set_memory_limit(budget)
        short = wanted_bytes - (budget - memory.used_bytes)
        if short > 0 and (ended := self._pool.end_idle()):
            notes.append(
                Note("memory: freed", f"warm function processes ended: {format_bytes(ended)}")
            )
            short -= ended
        if short > 0 and (freed := self._table.spill(short)):
            notes.append(
                Note("memory: spilled", f"{format_bytes(freed)} of kept values moved to the host")
            )

    def _make_room(self) -> str:
        """Free all memory that can be freed without harm; return in words what was freed."""
        if self._opened is None:
            ended = self._pool.end_idle()
            return f"warm function processes ended ({format_bytes(ended)})"
        with self._staging:
            for job in self._staged.values():
                job.ready.clear()  # copied again when it is their turn
        spilled = self._table.spill()
        ended = self._pool.end_idle()
        gc.collect()  # arrays in reference cycles hold memory too
        self._device.free_pool()
        memory, _ = self._memory()
        budget = budget_bytes(memory.total_bytes, memory.free_bytes, memory.held_bytes)
        self._device.set_memory_limit(max(0, budget - self._pool.promised_bytes()))
        text = "pool freed"
        if ended:
            text += f", warm function processes ended ({format_bytes(ended)})"
        return f"{text}, {format_bytes(spilled)} of kept values to the host" if spilled else text

    def _outputs(self, payload: Payload, job: Job) -> tuple[list[Output], list[Any]]:
        """Split the outputs of the bundle: small values inline, large ones to the host or kept."""
        outputs: list[Output] = []
        large: list[Any] = []
        for key in payload.outputs:
            value = job.values[key]
            if key in payload.stay and self._device.device_bytes(value) > INLINE_BYTES:
                size = self._table.keep((payload.graph_id, key), value)
                outputs.append(Output(key, size, None, on_device=True))
                large.append(None)
                continue
            value = self._device.to_host(value)
            inline, size = pack_value(value)
            outputs.append(Output(key, size, inline))
            large.append(None if inline is not None else value)
        return outputs, large

    # --- what the hardware says ------------------------------------------------------------

    def _memory(self) -> tuple[DeviceMemory, GpuState | None]:
        """Return the device's figures, with NVML's where NVML has less memory to give."""
        gpu = self._gpu(self._uuid)
        if self._opened is None:
            total = 0 if gpu is None else gpu.memory_total_bytes or 0
            free = 0 if gpu is None else gpu.memory_free_bytes or 0
            return DeviceMemory(total, free, 0, 0), gpu
        memory = self._opened.memory()
        if gpu is None or gpu.memory_free_bytes is None or gpu.memory_total_bytes is None:
            return memory, gpu
        free = min(memory.free_bytes, gpu.memory_free_bytes)
        total = min(memory.total_bytes, gpu.memory_total_bytes)
        return replace(memory, total_bytes=total, free_bytes=free), gpu

    def _leased_bytes(self) -> int:
        """Return the memory that users of leases hold here: it is in the Dispatcher's books."""
        held = self._nvml.process_bytes(self._uuid)
        if not held:
            return 0
        return leased_bytes(held, frozenset({os.getpid(), *self._pool.pids()}))

    def _gpu(self, uuid: str) -> GpuState | None:
        return next((gpu for gpu in self._nvml.read().gpus if gpu.uuid == uuid), None)


def _free_bytes(gpu: GpuState | None) -> int | None:
    return None if gpu is None else gpu.memory_free_bytes


def start_gpu_executor(node_id: str, share: float) -> Any:
    """Start an executor that holds this share of a Ray GPU of ``node_id``; return its handle."""
    actor = ray.remote(
        num_cpus=0,
        num_gpus=share,
        max_restarts=0,
        max_task_retries=0,
        # one more than may be in flight: two attempts of a bundle may meet here
        max_concurrency=GPU_AHEAD_PER_SLOT + 2 + MOST_PROCESSES,
        concurrency_groups=CONTROL_GROUP,
    )(GpuExecutor)
    return actor.options(
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
    ).remote()
