"""Runs the tasks of one bundle in the process it is called in, on one device.

Used by every lane: executor threads, worker processes, GPU executors and the caller itself.
No Ray calls except fetching a large codelet; no scheduling.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray import cloudpickle

from agentic_ray.errors import SerializationError
from agentic_ray.graph.reduce import accepts_xp
from agentic_ray.graph.task import Codelet, replace_refs
from agentic_ray.runtime.devices import Device
from agentic_ray.runtime.failures import BundleCancelled, PackedError

INLINE_BYTES = 64 * 1024
"""Values up to this size travel inside reports and calls instead of the object store."""


@dataclass(frozen=True, slots=True)
class Inline:
    """A small value as pickled bytes; held by the caller, so no node's death loses it."""

    data: bytes

    def load(self) -> Any:
        return cloudpickle.loads(self.data)


@dataclass(frozen=True, slots=True)
class Step:
    """One task as it is sent: its codelet by token, its arguments with Refs."""

    key: str
    codelet: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Payload:
    """A bundle as it is sent. ``inputs`` names the extra arguments of the call, in order.

    ``steps`` and ``codelets`` are pickled here, so that an error in pickling is ours to name;
    a codelet too large to send along each time is an ObjectRef of its pickle.
    """

    steps: bytes
    codelets: Mapping[str, Any]
    inputs: tuple[str, ...]
    inline: Mapping[str, Inline]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """A value that leaves the bundle; ``inline`` None: it is a return value of its own."""

    key: str
    size_bytes: int
    inline: Inline | None


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a bundle. ``seconds`` excludes waiting and transport."""

    node_id: str
    pid: int
    seconds: float
    task_seconds: tuple[float, ...]
    outputs: tuple[Output, ...]
    error: PackedError | None = None
    out_of_memory: bool = False
    cancelled: bool = False
    ray_attempt: int = 0


_CODELETS_KEPT = 256  # because a codelet holds what its functions capture
_codelets: dict[str, Codelet] = {}
_codelets_lock = threading.Lock()
_current = threading.local()


def check_cancelled() -> None:
    """Raise BundleCancelled if the bundle this thread runs is to stop (between elements)."""
    is_cancelled = getattr(_current, "is_cancelled", None)
    if is_cancelled is not None and is_cancelled():
        raise BundleCancelled


def load_codelet(token: str, source: Any) -> Codelet:
    """The codelet of this token, unpickled once a process."""
    found = _codelets.get(token)
    if found is None:
        data = ray.get(source) if isinstance(source, ray.ObjectRef) else source
        with _codelets_lock:
            found = _codelets.get(token) or _codelets.setdefault(token, cloudpickle.loads(data))
            if len(_codelets) > _CODELETS_KEPT:
                del _codelets[next(iter(_codelets))]
    return found


def call_codelet(codelet: Codelet, device: Device, args: Sequence[Any], kwargs: Any) -> Any:
    """One task's value, computed on ``device``."""
    function = codelet.implementation(device.kind)
    if function is None:
        raise TypeError(f"codelet {codelet.name!r} has no {device.kind} implementation")
    if accepts_xp(function):
        kwargs = {**kwargs, "xp": device.xp}
    return function(*args, **kwargs)


def run_payload(
    payload: Payload,
    inputs: Sequence[Any],
    device: Device,
    *,
    node_id: str,
    pid: int,
    ray_attempt: int = 0,
    is_cancelled: Callable[[], bool] | None = None,
) -> tuple[Any, ...]:
    """Run a bundle; the answer is its Report followed by its large outputs in order.

    Never raises for what user code does: the report carries it.
    """
    started = time.perf_counter()
    task_seconds: list[float] = []
    codelet_name = "?"

    def report(**rest: Any) -> tuple[Any, ...]:
        seconds = time.perf_counter() - started
        nothing = (None,) * len(payload.outputs)
        return (
            Report(node_id, pid, seconds, tuple(task_seconds), (), ray_attempt=ray_attempt, **rest),
            *nothing,
        )

    _current.is_cancelled = is_cancelled
    try:
        values: dict[str, Any] = dict(zip(payload.inputs, inputs, strict=True))
        values.update((key, inline.load()) for key, inline in payload.inline.items())
        if device.kind != "cpu":
            values = {key: device.to_device(value) for key, value in values.items()}
        steps: tuple[Step, ...] = cloudpickle.loads(payload.steps)
        for step in steps:
            check_cancelled()
            codelet = load_codelet(step.codelet, payload.codelets[step.codelet])
            codelet_name = codelet.name
            args = replace_refs(step.args, values.__getitem__)
            kwargs = replace_refs(dict(step.kwargs), values.__getitem__)
            if device.kind != "cpu":
                args, kwargs = device.to_device(args), device.to_device(kwargs)
            before = time.perf_counter()
            values[step.key] = call_codelet(codelet, device, args, kwargs)
            task_seconds.append(time.perf_counter() - before)
        outputs, large = _outputs(payload.outputs, values, device)
    except BundleCancelled:
        return report(cancelled=True)
    except BaseException as error:  # also SystemExit and the like: this process goes on
        return report(
            error=PackedError.pack(error, codelet_name),
            out_of_memory=device.is_out_of_memory(error),
        )
    finally:
        _current.is_cancelled = None
    seconds = time.perf_counter() - started
    done = Report(
        node_id, pid, seconds, tuple(task_seconds), tuple(outputs), ray_attempt=ray_attempt
    )
    return (done, *large)


def _outputs(
    keys: Sequence[str], values: Mapping[str, Any], device: Device
) -> tuple[list[Output], list[Any]]:
    outputs: list[Output] = []
    large: list[Any] = []
    for key in keys:
        value = device.to_host(values[key])
        inline, size = pack_value(value)
        outputs.append(Output(key, size, inline))
        large.append(None if inline is not None else value)
    return outputs, large


def pack_value(value: Any) -> tuple[Inline | None, int]:
    """``value`` inline if it is small, and its size in bytes.

    Raises
    ------
    SerializationError
        The value cannot be pickled.
    """
    if isinstance(value, np.ndarray) and not value.dtype.hasobject and value.nbytes > INLINE_BYTES:
        return None, value.nbytes
    try:
        data = cloudpickle.dumps(value)
    except Exception as error:  # pickle raises whatever the object's hooks raise
        raise SerializationError(
            f"a value of type {type(value).__name__} cannot be sent to another process: {error}"
        ) from error
    return (Inline(data) if len(data) <= INLINE_BYTES else None), len(data)
