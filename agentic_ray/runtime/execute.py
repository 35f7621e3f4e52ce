"""A bundle as it is sent, and how it runs in host memory.

Used by executor threads and worker processes; bundles on a GPU run in ``device_run``. No Ray
calls except fetching a large codelet; no scheduling.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from ray import cloudpickle

from agentic_ray.errors import SerializationError
from agentic_ray.graph.reduce import accepts_xp
from agentic_ray.graph.task import Codelet, replace_refs
from agentic_ray.recent import Recent
from agentic_ray.runtime.devices import Device, HostDevice
from agentic_ray.runtime.failures import BundleCancelled, PackedError
from agentic_ray.runtime.outcomes import (
    Cancelled,
    Failed,
    Finished,
    Inline,
    Outcome,
    Output,
    Report,
)
from agentic_ray.runtime.printed import Taken, taking
from agentic_ray.schedule.events import INLINE_BYTES


@dataclass(frozen=True, slots=True)
class Step:
    """A task as it is sent: its codelet by token, its arguments with Refs."""

    key: str
    codelet: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Payload:
    """A bundle as it is sent. ``inputs`` names the extra arguments of the call, in order.

    ``steps`` and ``codelets`` are pickled in this package, so that it can name an error in
    pickling; a codelet too large to send along each time is an ObjectRef of its pickle.

    The inputs in ``held`` are not handed over, since the executor keeps them; it keeps those in
    ``keep`` from now on.

    The other fields are for a GPU: ``resident`` are inputs that its executor keeps, ``stay``
    outputs that may stay there, ``gpu_memory_bytes`` the predicted working set, ``gpu_share`` the
    fraction of the GPU that the bundle computes on, ``parts`` the number of parts in which it runs
    from the outset. ``function`` is the name of the function that runs in a process of its own on
    the card, empty where the executor computes itself, ``cpus`` the CPUs that it takes.
    """

    steps: bytes
    codelets: Mapping[str, Any]
    inputs: tuple[str, ...]
    inline: Mapping[str, Inline]
    outputs: tuple[str, ...]
    held: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    graph_id: str = ""
    resident: tuple[str, ...] = ()
    stay: tuple[str, ...] = ()
    gpu_memory_bytes: int = 0
    gpu_share: float = 1.0
    parts: int = 1
    function: str = ""
    cpus: float = 0.0


_MOST_NOTES = 1000

_codelets: Recent[str, tuple[Codelet, int]] = Recent(256, 1 << 30, lambda entry: entry[1])
"""Codelets by token, with the bytes of their pickles, which hold data that functions see."""
_current = threading.local()
HOST = HostDevice()


def check_cancelled() -> None:
    """Raise BundleCancelled if the bundle this thread runs is to stop (between elements)."""
    is_cancelled = getattr(_current, "is_cancelled", None)
    if is_cancelled is not None and is_cancelled():
        raise BundleCancelled


def element_watcher() -> Callable[[int | None, Any], None] | None:
    """Return the function that is told each element that this thread begins (None: ends)."""
    return getattr(_current, "on_element", None)


def describe(value: Any) -> str:
    """Describe a value: type, and dtype and shape or length if it has them; never the content."""
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        return f"{type(value).__name__} of {value.dtype} {tuple(shape)}"
    if isinstance(value, list | tuple | dict | set | str | bytes):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def note(kind: str, text: str) -> None:
    """Add a note on the bundle that this thread runs to the events of the run."""
    notes: list[tuple[str, str]] | None = getattr(_current, "notes", None)
    if notes is not None and len(notes) < _MOST_NOTES:
        notes.append((kind, text))


class cancellable:
    """Context in which `check_cancelled` asks ``is_cancelled`` in this thread, `element_watcher`
    returns ``on_element``, and `note` adds to ``notes``.

    (No generator: contextlib writes to exceptions that pass, which frozen ones refuse.)
    """

    def __init__(
        self,
        is_cancelled: Callable[[], bool] | None,
        on_element: Callable[[int | None, Any], None] | None = None,
        notes: list[tuple[str, str]] | None = None,
    ) -> None:
        self._is_cancelled = is_cancelled
        self._on_element = on_element
        self._notes = notes

    def __enter__(self) -> None:
        _current.is_cancelled = self._is_cancelled
        _current.on_element = self._on_element
        _current.notes = self._notes

    def __exit__(self, *exception: object) -> None:
        _current.is_cancelled = _current.on_element = _current.notes = None


def load_codelet(token: str, source: Any) -> Codelet:
    """Return the codelet of this token, unpickled once a process."""
    found: tuple[Codelet, int] | None = _codelets.get(token)
    if found is None:
        data = ray.get(source) if isinstance(source, ray.ObjectRef) else source
        found = _codelets.get_or_make(token, lambda: (cloudpickle.loads(data), len(data)))
    return found[0]


def call_codelet(codelet: Codelet, device: Device, args: Sequence[Any], kwargs: Any) -> Any:
    """Compute one task's value on ``device``."""
    function = codelet.implementation(device.kind)
    if function is None:
        raise TypeError(f"codelet {codelet.name!r} has no {device.kind} implementation")
    if accepts_xp(function):
        kwargs = {**kwargs, "xp": device.xp}
    return function(*args, **kwargs)


def run_payload(
    payload: Payload,
    inputs: Sequence[Any],
    *,
    node_id: str,
    pid: int,
    ray_attempt: int = 0,
    waited_seconds: float = 0.0,
    is_cancelled: Callable[[], bool] | None = None,
    on_step: Callable[[str, Sequence[Any]], None] | None = None,
    on_element: Callable[[int | None, Any], None] | None = None,
) -> tuple[Any, ...]:
    """Run a bundle here; return its Report followed by its large outputs in order.

    ``on_step`` is called with the codelet and arguments of each task before it runs, ``on_element``
    as `element_watcher` says. Errors of user code are never raised: the report carries them.
    """
    with taking() as taken:
        report, *large = _run_steps(
            payload,
            inputs,
            node_id=node_id,
            pid=pid,
            ray_attempt=ray_attempt,
            waited_seconds=waited_seconds,
            is_cancelled=is_cancelled,
            on_step=on_step,
            on_element=on_element,
        )
    return (with_printed(report, taken), *large)


def _run_steps(
    payload: Payload,
    inputs: Sequence[Any],
    *,
    node_id: str,
    pid: int,
    ray_attempt: int,
    waited_seconds: float,
    is_cancelled: Callable[[], bool] | None,
    on_step: Callable[[str, Sequence[Any]], None] | None,
    on_element: Callable[[int | None, Any], None] | None,
) -> tuple[Any, ...]:
    """Run a bundle as `run_payload` does, without taking its printed text."""
    started = time.perf_counter()
    task_seconds: list[float] = []
    codelet_name = "?"
    notes: list[tuple[str, str]] = []

    nothing = (None,) * len(payload.outputs)

    def report(outcome: Outcome, *, waited_seconds: float = 0.0) -> Report:
        seconds = time.perf_counter() - started
        return Report(
            *(node_id, pid, seconds, tuple(task_seconds), outcome),
            ray_attempt=ray_attempt,
            notes=tuple(notes),
            waited_seconds=waited_seconds,
        )

    try:
        values: dict[str, Any] = dict(zip(payload.inputs, inputs, strict=True))
        values.update((key, inline.load()) for key, inline in payload.inline.items())
        steps: tuple[Step, ...] = cloudpickle.loads(payload.steps)
        with cancellable(is_cancelled, on_element, notes):
            for step in steps:
                check_cancelled()
                codelet = load_codelet(step.codelet, payload.codelets[step.codelet])
                codelet_name = codelet.name
                args = replace_refs(step.args, values.__getitem__)
                kwargs = replace_refs(dict(step.kwargs), values.__getitem__)
                if on_step is not None:
                    on_step(codelet.name, args)
                before = time.perf_counter()
                values[step.key] = call_codelet(codelet, HOST, args, kwargs)
                task_seconds.append(time.perf_counter() - before)
        outputs, large = pack_outputs(payload.outputs, values)
    except BundleCancelled:
        return (report(Cancelled()), *nothing)
    except BaseException as error:  # also SystemExit and the like: this process goes on
        return (report(Failed(PackedError.pack(error, codelet_name))), *nothing)
    return (report(Finished(tuple(outputs)), waited_seconds=waited_seconds), *large)


def with_printed(report: Report, taken: Taken) -> Report:
    """Add to the report the text printed past Python's streams, after the text through them."""
    printed = taken.pieces()
    return replace(report, printed=(*report.printed, *printed)) if printed else report


def pack_outputs(keys: Sequence[str], values: Mapping[str, Any]) -> tuple[list[Output], list[Any]]:
    """Split the outputs of a bundle: small values inside `Output`, large ones (else None) apart."""
    outputs: list[Output] = []
    large: list[Any] = []
    for key in keys:
        value = values[key]
        inline, size = pack_value(value)
        outputs.append(Output(key, size, inline))
        large.append(None if inline is not None else value)
    return outputs, large


def pack_value(value: Any) -> tuple[Inline | None, int]:
    """Return ``value`` inline if it is small, and its size in bytes.

    Raises
    ------
    SerializationError
        The value cannot be pickled.
    """
    plain = is_plain(value)
    if plain and isinstance(value, np.ndarray) and value.nbytes > INLINE_BYTES:
        return None, value.nbytes
    try:
        if plain:
            data = pickle.dumps(value, 5)
        else:
            # (Large arrays are left out: only their size counts, and a copy takes long.)
            large: list[Any] = []
            data = cloudpickle.dumps(value, protocol=5, buffer_callback=large.append)
            if large:
                size = len(data) + sum(memoryview(buffer).nbytes for buffer in large)
                if size > INLINE_BYTES:
                    return None, size
                data = cloudpickle.dumps(value)
    except Exception as error:  # pickle raises anything that the object's hooks raise
        raise SerializationError(
            f"a value of type {type(value).__name__} cannot be sent to another process: {error}"
        ) from error
    return (Inline(data, plain) if len(data) <= INLINE_BYTES else None), len(data)


def is_plain(value: Any, depth: int = 2) -> bool:
    """Whether a value is a number, an array of numbers, or a tuple or list of these (of at most
    ``depth`` levels)."""
    kind = type(value)
    if kind is tuple or kind is list:
        return depth > 0 and all(is_plain(element, depth - 1) for element in value)
    if kind is np.ndarray or isinstance(value, np.generic):
        return not value.dtype.hasobject
    return value is None or kind in (bool, int, float, complex)
