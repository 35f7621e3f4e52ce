"""Kernel of `fold`: goes through the elements of one leaf in order, from a fresh initial state."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np

from agentic_ray.errors import SerializationError
from agentic_ray.graph import content_key
from agentic_ray.tracebacks import set_member

_POSITION = "_agentic_ray_position"

Watcher = Callable[[int | None, Any], None]


@dataclass(frozen=True)
class FoldLeaf:
    """Folds the elements of a leaf: ``step(state, element)`` for each, in order.

    Parameters
    ----------
    step : callable
    initial : bytes
        Pickle of the state that each leaf begins with; a step may change its state in place.
    size : int
        Elements of a leaf but the last, 0 if that is not known.
    whole : bool
        Whether a leaf is one element itself, as a part of a table is.
    """

    step: Callable[[Any, Any], Any]
    initial: bytes
    size: int
    whole: bool

    def __call__(self, leaf: Any) -> Any:
        return self._through(leaf, 0, None)

    @property
    def __name__(self) -> str:
        return getattr(self.step, "__name__", type(self.step).__name__)

    def __content_key__(self) -> str:
        return content_key("fold leaf", self.step, self.initial, self.size, self.whole)

    def opened(self, first: int, watcher: Watcher | None) -> Callable[[Any], Any]:
        """Return the function of a leaf, for leaves from ``first`` on in order; ``watcher`` is told
        each element before it is taken."""
        if watcher is None or not self.size:
            return self
        leaves = iter(range(first, 1 << 62))
        return lambda leaf: self._through(leaf, next(leaves) * self.size, watcher)

    def _through(self, leaf: Any, first: int, watcher: Watcher | None) -> Any:
        state = pickle.loads(self.initial)
        if self.whole:
            return self.step(state, leaf)
        at = 0
        try:
            for at, element in enumerate(own(leaf)):
                if watcher is not None:
                    watcher(first + at, element)
                state = self.step(state, element)
        except BaseException as error:
            set_member(error, _POSITION, at)
            raise
        if watcher is not None:
            watcher(None, None)
        return state


def pickled_state(initial: Any) -> bytes:
    """Return the pickle of a fold's initial state.

    Raises
    ------
    SerializationError
        It cannot be pickled.
    """
    try:
        return bytes(cloudpickle.dumps(initial))
    except Exception as error:  # pickle raises anything that the object's hooks raise
        raise SerializationError(
            f"initial, a {type(initial).__name__}, cannot be sent to another process: {error}"
        ) from error


def position_of(error: BaseException, leaf: int, size: int) -> int | None:
    """Return the number of the element at which a leaf failed; the leaf's own number if each leaf
    is one element, None if elements of earlier leaves were not counted."""
    at = getattr(error, _POSITION, None)
    if at is None:
        return leaf
    return leaf * size + at if size else None


def own(elements: Any) -> Any:
    """Return elements that a function may write to, whether they came with the call or are mapped
    from the object store, where they are read-only.

    An array's elements are in C order: otherwise the way the chunks were cut would decide the
    order, and NumPy adds the same numbers up differently in another order.
    """
    if isinstance(elements, np.ndarray):
        ready = elements.flags.writeable and elements.flags.c_contiguous
        return elements if ready else elements.copy(order="C")
    if isinstance(elements, list | tuple):
        return [
            e.copy(order="K") if type(e) is np.ndarray and not e.flags.writeable else e
            for e in elements
        ]
    return elements
