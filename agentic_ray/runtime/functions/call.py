"""Calls a user's function on a batch of items, and keeps the value of its setup in this process.

Runs in worker processes on CPUs and in function processes on GPUs. No Ray, no GPU library.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from agentic_ray.errors import BlockResultError
from agentic_ray.graph import loaded
from agentic_ray.runtime.execute import check_cancelled
from agentic_ray.runtime.failures import BundleCancelled, ElementFailure
from agentic_ray.runtime.outcomes import Inline

MOST_SETUPS: Final = 2
"""Values of setups that a worker process on a CPU keeps: of the functions called last."""
IDLE_SECONDS: Final = 60.0
"""A worker process on a CPU drops them after this long without a call."""


Results: TypeAlias = Sequence[Any] | np.ndarray[Any, Any]
"""Results of a batch, one for each item, in order."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """All arguments of one call, in the place of an item."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Setups:
    """Values of setups in this process, by their names; the least recently used go first."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None

    def value(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the value under ``name``; make it if there is none. Others wait meanwhile: two
        models at once may be one too many."""
        with self._lock:
            self._drop_later()
            if name not in self._values:
                while len(self._values) >= MOST_SETUPS:
                    self._values.popitem(last=False)
                self._values[name] = make()
            self._values.move_to_end(name)
            return self._values[name]

    def _drop_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(IDLE_SECONDS, self._drop)
        self._timer.daemon = True
        self._timer.start()

    def _drop(self) -> None:
        with self._lock:
            self._values.clear()


_setups = _Setups()


@dataclass(frozen=True)
class FunctionCall:
    """Implementation of a function's codelet for one kind of device.

    Parameters
    ----------
    function : callable
        The user's, as it was captured: ``function([setup's value,] item or items)``.
    setup : callable or None
        Called once in each process.
    setup_name : str
        Name of the setup's content; equal names are equal values.
    batched : bool
        Whether the function takes a list of items and returns as many results.
    device : str
        ``"cpu"`` or ``"cuda"``; given to functions with a parameter ``device``.
    setup_takes_device, takes_device : bool
        Whether setup and function have such a parameter.
    """

    function: Callable[..., Any]
    setup: Callable[..., Any] | None
    setup_name: str
    batched: bool
    device: str
    setup_takes_device: bool = False
    takes_device: bool = False

    def __call__(self, first: int, data: Any, start: int = 0, stop: int | None = None) -> Results:
        """Return the results of items ``start..stop`` of ``data``, one each, in order.

        Parameters
        ----------
        first : int
            Number of the first item of ``data`` among all items, for errors.
        data : sequence or Inline
            Items of the batch.

        Raises
        ------
        ElementFailure
            The function raised; the cause is its exception.
        """
        items = data.load() if isinstance(data, Inline) else data
        items = items[start:stop]
        ready = self._ready()
        options = {"device": self.device} if self.takes_device else {}
        function = loaded(self.function)
        if self.batched:
            try:
                made = function(*ready, items, **options)
            except BundleCancelled:
                raise
            except BaseException as error:
                raise ElementFailure(None, None) from error
            return checked(made, len(items), getattr(self.function, "__qualname__", "function"))
        results: list[Any] = []
        for index, item in enumerate(items, first + start):
            check_cancelled()
            given = item if isinstance(item, Arguments) else None
            try:
                if given is None:
                    results.append(function(*ready, item, **options))
                else:
                    results.append(function(*ready, *given.args, **options, **given.kwargs))
            except BundleCancelled:
                raise
            except BaseException as error:  # also SystemExit: it ends this batch only
                raise ElementFailure(None, index if given is None else None) from error
        return results

    def _ready(self) -> tuple[Any, ...]:
        """Return the leading arguments of the function: the setup's value, if it has one."""
        setup = self.setup
        if setup is None:
            return ()
        options = {"device": self.device} if self.setup_takes_device else {}
        name = f"{self.setup_name}/{self.device}"
        return (_setups.value(name, lambda: loaded(setup)(**options)),)


def checked(made: Any, count: int, name: str) -> Results:
    """Return the results of a batch as a list or an array, if there is one for each item.

    Raises
    ------
    BlockResultError
        There is another number of them, or they cannot be counted.
    """
    if isinstance(made, np.ndarray) and made.ndim and len(made) == count:
        return made
    try:
        results = list(made) if not isinstance(made, str | bytes | dict) else None
    except TypeError:
        results = None
    if results is None or len(results) != count:
        got = type(made).__name__ if results is None else f"{len(results)} results"
        raise BlockResultError(
            f"{name} takes batches, so it must return one result for each of the {count} items, in "
            f"a list or an array; it returned {got}"
        )
    return results


def joined(parts: Sequence[Results]) -> Results:
    """Return the results of the parts of a batch as those of the whole."""
    if len(parts) == 1:
        return parts[0]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    kinds = {(array.dtype, array.shape[1:]) for array in arrays}
    if len(arrays) == len(parts) and len(kinds) == 1:
        whole: np.ndarray[Any, Any] = np.concatenate(arrays)
        return whole
    return [result for part in parts for result in part]
