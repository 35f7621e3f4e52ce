"""Progress of fits: the loss of each iteration, for whoever wants to know."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Iteration:
    """An iteration of a fit.

    Attributes
    ----------
    estimator : str
        Name of the class.
    number : int
        From 1.
    loss : float
        Of the training data after (or, where an iteration begins with it, before) the iteration.
    seconds : float
        Since the fit began.
    """

    estimator: str
    number: int
    loss: float
    seconds: float


_listeners: contextvars.ContextVar[tuple[Callable[[Iteration], object], ...]] = (
    contextvars.ContextVar("listeners", default=())
)


@contextmanager
def watching(listener: Callable[[Iteration], object]) -> Iterator[None]:
    """Call ``listener`` with an `Iteration` after each iteration of the fits inside.

    What it raises ends the fit.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.arange(20.0).reshape(10, 2)
    >>> losses = []
    >>> with ml.watching(lambda step: losses.append(step.loss)):
    ...     _ = ml.KMeans(2, random_state=0).fit(X)
    >>> losses == sorted(losses, reverse=True)
    True
    """
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


class Progress:
    """Tells of the iterations of one fit."""

    def __init__(self, estimator: str, verbose: Any = 0) -> None:
        self._estimator = estimator
        self._verbose = bool(verbose)
        self._began = time.monotonic()
        self._number = 0

    def iteration(self, loss: float) -> None:
        """Note that one more iteration is done."""
        self._number += 1
        step = Iteration(
            self._estimator, self._number, float(loss), time.monotonic() - self._began
        )  # fmt: skip
        if self._verbose:
            print(f"[{step.estimator}] iteration {step.number}: loss {step.loss:.8g}", flush=True)
        for listener in _listeners.get():
            listener(step)
