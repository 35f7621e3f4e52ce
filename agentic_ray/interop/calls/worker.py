"""Runs a batch of calls of one function in a worker process, after the process was initialised."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentic_ray.graph import loaded, name_of
from agentic_ray.interop.calls.parcels import Packed, pack_result, unpack_arguments
from agentic_ray.runtime import BundleCancelled, check_cancelled, element_watcher
from agentic_ray.runtime.failures import PackedError
from agentic_ray.tracebacks import text_of


@dataclass(frozen=True, slots=True)
class Initializer:
    """A function that each process calls once before its first call.

    ``owner`` names the executor it belongs to: a process serves several.
    """

    owner: str
    function: Callable[..., Any]
    arguments: Packed


@dataclass(frozen=True, slots=True)
class Done:
    """Outcomes of the first calls of a batch, in order; the others were not begun.

    ``outcomes`` are results as `pack_result` makes them, and a `PackedError` where the function
    raised. ``refused`` is the exception of the initializer, if it raised: then no call was begun.
    """

    outcomes: list[Any]
    seconds: float
    refused: PackedError | None = None


@dataclass(frozen=True)
class RunCalls:
    """Kernel that calls ``function`` once for each of the packed arguments it gets."""

    function: Callable[..., Any]
    initializer: Initializer | None = None

    def __call__(self, calls: Sequence[Packed], most_seconds: float) -> Done:
        """Run calls until ``most_seconds`` are over; at least one, none is cut short."""
        refused = None if self.initializer is None else _initialised(self.initializer)
        if refused is not None:
            return Done([], 0.0, refused)
        function = loaded(self.function)
        name = name_of(function)
        watcher = element_watcher()
        outcomes: list[Any] = []
        began = time.perf_counter()
        seconds = 0.0
        for number, packed in enumerate(calls):
            if number and seconds > most_seconds:
                break
            check_cancelled()
            if watcher is not None:
                watcher(number, packed)
            try:
                args, kwargs = unpack_arguments(packed)
                outcomes.append(pack_result(function(*args, **kwargs)))
            except BundleCancelled:
                raise
            except BaseException as error:  # also SystemExit: it ends the call, not the process
                outcomes.append(PackedError.pack(error, name))
            if watcher is not None:
                watcher(None, None)
            seconds = time.perf_counter() - began
        return Done(outcomes, seconds)


_done: dict[str, PackedError | None] = {}
_lock = threading.Lock()


def _initialised(initializer: Initializer) -> PackedError | None:
    """Call the initializer if this process has not yet done so; return its exception, packed."""
    with _lock:
        if initializer.owner not in _done:
            error: PackedError | None = None
            try:
                args, kwargs = unpack_arguments(initializer.arguments)
                loaded(initializer.function)(*args, **kwargs)
            except BaseException as raised:  # also SystemExit: this process serves others
                error = PackedError.pack(raised, f"initializer {text_of(raised)}")
            _done[initializer.owner] = error
        return _done[initializer.owner]
