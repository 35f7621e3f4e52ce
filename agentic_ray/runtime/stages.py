"""Stages of a job: finished ones are kept, so that a job that is run again goes on after them.

The master decides where records are kept (`StageStore`); outside a job that outlives its process
nothing is kept, and a stage is a plain call.
"""

from __future__ import annotations

import contextvars
import pickle
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ray import cloudpickle

from agentic_ray.errors import InvalidArgumentError, SerializationError
from agentic_ray.graph.keys import content_key
from agentic_ray.runtime.scope import current_scope

_T = TypeVar("_T")

WORTH_SECONDS = 0.5
"""A graph quicker than this is computed again rather than kept: writing costs about as much."""
WORTH_BYTES = 64 << 20
"""Values of graphs larger than this are not kept unless their stage was named."""


class StageStore(Protocol):
    """Records of one job, by the names of its stages."""

    def get(self, name: str) -> bytes | None:
        """Return the kept record; None if there is none, or it is damaged."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Keep a record; durable on return, unless there is no room for it."""
        ...


class Stages:
    """A run of a job through its stages."""

    def __init__(self, store: StageStore, log: Callable[[str, str], None]) -> None:
        self._store = store
        self._log = log
        self._graphs: Counter[str] = Counter()
        self._named: set[str] = set()

    def named(self, name: str, compute: Callable[[], _T]) -> _T:
        """Compute as `stage` does."""
        path = f"{_path.get()}/{name}"
        if path in self._named:
            raise InvalidArgumentError(
                f"stage {name!r} was there already in this job; give each a name of its own, for "
                f"example {name + ' 2'!r}"
            )
        self._named.add(path)
        kept = self._store.get(path)
        if kept is not None:
            self._log("stage", f"{name}: done before, taken from its record")
            value: _T = pickle.loads(kept)
            return value
        token = _path.set(path)
        try:
            value = compute()
        finally:
            _path.reset(token)
        self._store.put(path, _pickled(name, value))
        return value

    def graph(self, what: str, content: Callable[[], Any], compute: Callable[[], _T]) -> _T:
        """Compute as `recorded` does."""
        path = f"{_path.get()}#{self._graphs[_path.get()]}"
        self._graphs[_path.get()] += 1
        kept = self._store.get(path)
        if kept is not None:
            digest, value = pickle.loads(kept)
            if digest == _digest(content):
                self._log("stage", f"{what}: done before, taken from its record")
                done: _T = value
                return done
        began = time.monotonic()
        made = compute()
        if time.monotonic() - began >= WORTH_SECONDS:
            digest = _digest(content)
            if digest is not None:
                record = _pickled(what, (digest, made))
                if len(record) <= WORTH_BYTES:
                    self._store.put(path, record)
        return made


_path: contextvars.ContextVar[str] = contextvars.ContextVar("stage", default="")


def stage(name: str, function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> _T:
    """Call ``function(*args, **kwargs)`` as a stage of the job that this thread works for.

    When the stage has finished, its value is kept beside the master's journal until the job
    ends. If the master dies, the job is run again, and a stage that had finished is not: its
    value is read from there. Outside a job of a master with a journal this is a plain call.

    Parameters
    ----------
    name : str
        Name of the stage within the job, or within the stage that it is part of.
    function : callable
        Function whose value must be picklable.

    Raises
    ------
    InvalidArgumentError
        The name is no text, or was given to an earlier stage of the job.
    SerializationError
        The value cannot be pickled.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> @ar.workload("train")
    ... def train(params: dict[str, str]) -> float:
    ...     table = ar.stage("load", load, params["path"])
    ...     for i in range(10):
    ...         table = ar.stage(f"pass {i}", improve, table)
    ...     return score(table)
    """
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError(f"a stage needs a name, not {name!r}")
    scope = current_scope()
    if scope is None or scope.stages is None:
        return function(*args, **kwargs)
    scope.check()
    return scope.stages.named(name, lambda: function(*args, **kwargs))


def recorded(what: str, content: Callable[[], Any], compute: Callable[[], _T]) -> _T:
    """Return ``compute()``, or its value from before the master died, if this is part of a job.

    Graphs of a job are told apart by the order in which it asks for them; a kept value is used only
    for the same content.

    Parameters
    ----------
    what : str
        Name of the work, for people.
    content : callable
        Returns everything the value depends on, for `content_key`; only called when needed. Raises
        SerializationError where that cannot be told: then nothing is kept.
    """
    scope = current_scope()
    if scope is None or scope.stages is None:
        return compute()
    return scope.stages.graph(what, content, compute)


def _digest(content: Callable[[], Any]) -> str | None:
    try:
        return content_key("graph", content())
    except SerializationError:
        return None


def _pickled(name: str, value: Any) -> bytes:
    try:
        content: bytes = cloudpickle.dumps(value)
    except Exception as error:  # pickle raises anything that the object's hooks raise
        raise SerializationError(f"the value of stage {name!r} cannot be kept: {error}") from error
    return content
