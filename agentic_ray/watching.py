"""`Watch`: collects the work that a block of code puts on the cluster, for people to look at.

It changes nothing about the work: where it runs, its order and its results stay the same.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentic_ray.pictures import Span
    from agentic_ray.runtime.run import Run


@dataclass(slots=True)
class Watch:
    """Work of a block of code.

    Attributes
    ----------
    runs : list of Run
        Graphs that were submitted to the session.
    here : list of Span
        Plans of arrays that were computed in this process, without the session.
    """

    runs: list[Run] = field(default_factory=list)
    here: list[Span] = field(default_factory=list)


_watches: contextvars.ContextVar[tuple[Watch, ...]] = contextvars.ContextVar("watches", default=())


def watches() -> tuple[Watch, ...]:
    """Return those that look at the code that runs now."""
    return _watches.get()


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Collect what this thread, and the code it awaits, puts on the cluster inside the block."""
    watch = Watch()
    token = _watches.set((*_watches.get(), watch))
    try:
        yield watch
    finally:
        _watches.reset(token)
