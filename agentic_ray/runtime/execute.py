"""What a bundle is when it is sent, what comes back, and how it runs in host memory.

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
from agentic_ray.runtime.printed import Piece, Taken, taking

INLINE_BYTES = 64 * 1024
"""Values up to this size travel inside reports and calls instead of the object store."""


@dataclass(frozen=True, slots=True)
class Inline:
    """A small value as pickled bytes; held by the caller, so no node's death loses it.

    ``plain`` says that it runs no code of the user's when it is unpickled or computed with.
    """

    data: bytes
    plain: bool = False

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

    Of ``inputs`` those in ``held`` are not handed over: the executor keeps them; it is to keep
    those in ``keep`` from now on.

    The rest is for a GPU: ``resident`` are inputs that its executor keeps, ``stay`` outputs that
    may stay there, ``gpu_memory_bytes`` the predicted working set, ``gpu_share`` the fraction
    of the GPU that it computes on, ``parts`` in how many parts it is to run from the outset.
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


@dataclass(frozen=True, slots=True)
class Output:
    """A value that leaves the bundle; ``inline`` None: it is a return value of its own, or,
    with ``on_device``, kept by the executor."""

    key: str
    size_bytes: int
    inline: Inline | None
    on_device: bool = False


@dataclass(frozen=True, slots=True)
class Death:
    """How a watched process died: at which task and element, with the exit code that
    `subprocess` gives, and what is known of the inputs (see `describe`). ``out_of_memory``: the
    kernel counts a process that it killed for want of memory."""

    codelet: str
    chunk: int | None
    element: int | None
    exit_code: int
    inputs: tuple[str, ...]
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a bundle. ``seconds`` excludes waiting and transport; ``waited_seconds`` is how
    long it waited for a slot when its inputs were there.

    ``notes`` are steps for the events of the run, (kind, text). ``missing`` are resident inputs
    that the executor does not hold, ``kept`` inputs that it keeps from now on. ``device_lost``
    says why it can no longer use its device. ``printed`` is what the tasks wrote to the streams.
    """

    node_id: str
    pid: int
    seconds: float
    task_seconds: tuple[float, ...]
    outputs: tuple[Output, ...]
    error: PackedError | None = None
    out_of_memory: bool = False
    cancelled: bool = False
    ray_attempt: int = 0
    notes: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    device_lost: str | None = None
    death: Death | None = None
    waited_seconds: float = 0.0
    printed: tuple[Piece, ...] = ()

    @property
    def is_small(self) -> bool:
        """Whether all values that leave the bundle are in the report itself."""
        return all(output.inline is not None for output in self.outputs)


_MOST_NOTES = 1000

_codelets: Recent[str, tuple[Codelet, int]] = Recent(256, 1 << 30, lambda entry: entry[1])
"""By token, with the bytes of their pickles: they hold what their functions see."""
_current = threading.local()
HOST = HostDevice()


def check_cancelled() -> None:
    """Raise BundleCancelled if the bundle this thread runs is to stop (between elements)."""
    is_cancelled = getattr(_current, "is_cancelled", None)
    if is_cancelled is not None and is_cancelled():
        raise BundleCancelled


def element_watcher() -> Callable[[int | None, Any], None] | None:
    """Who wants to be told of each element that this thread begins (and, with None, ends)."""
    return getattr(_current, "on_element", None)


def describe(value: Any) -> str:
    """Type, and dtype and shape or length where it has them; never the content."""
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        return f"{type(value).__name__} of {value.dtype} {tuple(shape)}"
    if isinstance(value, list | tuple | dict | set | str | bytes):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def note(kind: str, text: str) -> None:
    """Tell in the events of the run what happens in the bundle that this thread runs."""
    notes: list[tuple[str, str]] | None = getattr(_current, "notes", None)
    if notes is not None and len(notes) < _MOST_NOTES:
        notes.append((kind, text))


class cancellable:
    """Inside, `check_cancelled` in this thread asks ``is_cancelled``, `element_watcher` gives
    ``on_element``, and `note` adds to ``notes``.

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
    """The codelet of this token, unpickled once a process."""
    found: tuple[Codelet, int] | None = _codelets.get(token)
    if found is None:
        data = ray.get(source) if isinstance(source, ray.ObjectRef) else source
        found = _codelets.get_or_make(token, lambda: (cloudpickle.loads(data), len(data)))
    return found[0]


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
    *,
    node_id: str,
    pid: int,
    ray_attempt: int = 0,
    waited_seconds: float = 0.0,
    is_cancelled: Callable[[], bool] | None = None,
    on_step: Callable[[str, Sequence[Any]], None] | None = None,
    on_element: Callable[[int | None, Any], None] | None = None,
) -> tuple[Any, ...]:
    """Run a bundle here; the answer is its Report followed by its large outputs in order.

    ``on_step`` is told the codelet and arguments of each task before it runs, ``on_element``
    what `element_watcher` says. Never raises for what user code does: the report carries it.
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
    """`run_payload`, but for what is printed."""
    started = time.perf_counter()
    task_seconds: list[float] = []
    codelet_name = "?"
    notes: list[tuple[str, str]] = []

    def report(**rest: Any) -> tuple[Any, ...]:
        seconds = time.perf_counter() - started
        nothing = (None,) * len(payload.outputs)
        return (
            Report(
                *(node_id, pid, seconds, tuple(task_seconds), ()),
                ray_attempt=ray_attempt,
                notes=tuple(notes),
                **rest,
            ),
            *nothing,
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
        return report(cancelled=True)
    except BaseException as error:  # also SystemExit and the like: this process goes on
        return report(error=PackedError.pack(error, codelet_name))
    seconds = time.perf_counter() - started
    done = Report(
        node_id,
        pid,
        seconds,
        tuple(task_seconds),
        tuple(outputs),
        ray_attempt=ray_attempt,
        waited_seconds=waited_seconds,
        notes=tuple(notes),
    )
    return (done, *large)


def with_printed(report: Report, taken: Taken) -> Report:
    """The report with what was printed past Python's streams, after what went through them."""
    printed = taken.pieces()
    return replace(report, printed=(*report.printed, *printed)) if printed else report


def pack_outputs(keys: Sequence[str], values: Mapping[str, Any]) -> tuple[list[Output], list[Any]]:
    """What leaves a bundle: small values inside the outputs, and large ones (else None) apart."""
    outputs: list[Output] = []
    large: list[Any] = []
    for key in keys:
        value = values[key]
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
    plain = is_plain(value)
    if plain and isinstance(value, np.ndarray) and value.nbytes > INLINE_BYTES:
        return None, value.nbytes
    try:
        data = pickle.dumps(value, 5) if plain else cloudpickle.dumps(value)
    except Exception as error:  # pickle raises whatever the object's hooks raise
        raise SerializationError(
            f"a value of type {type(value).__name__} cannot be sent to another process: {error}"
        ) from error
    return (Inline(data, plain) if len(data) <= INLINE_BYTES else None), len(data)


def is_plain(value: Any, depth: int = 2) -> bool:
    """Whether a value is a number, an array of numbers, or a tuple or list of such (of at most
    ``depth`` levels)."""
    kind = type(value)
    if kind is tuple or kind is list:
        return depth > 0 and all(is_plain(element, depth - 1) for element in value)
    if kind is np.ndarray or isinstance(value, np.generic):
        return not value.dtype.hasobject
    return value is None or kind in (bool, int, float, complex)
