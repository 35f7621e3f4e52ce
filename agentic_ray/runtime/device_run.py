"""Runs the tasks of one bundle on a device with memory of its own, in parts where it must.

The counterpart of `execute` for memory other than the host's. No Ray, no waiting for a turn, no
decision about placement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentic_ray.graph.task import Codelet, find_refs, replace_refs
from agentic_ray.runtime.devices import Device
from agentic_ray.runtime.execute import Step, call_codelet, check_cancelled
from agentic_ray.runtime.failures import ElementFailure
from agentic_ray.runtime.oom import CannotSplitError, Note, Work, climb


@dataclass(slots=True)
class Job:
    """A bundle on its way through a device.

    Parameters
    ----------
    values : dict
        Inputs by key, then results: on the host, or on the device if they are already there.
    ready : dict
        Inputs already copied to the device; used once, emptied to make room.
    needed : frozenset of str
        Keys of the results that are wanted.
    seconds : dict
        Time each task took on the device, by key.
    running : str
        Name of the codelet that runs, for error messages.
    """

    device: Device
    steps: Sequence[Step]
    codelets: Mapping[str, Codelet]
    values: dict[str, Any]
    needed: frozenset[str]
    ready: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    running: str = "?"

    def to_upload(self) -> dict[str, Any]:
        """Return the inputs that are needed on the device."""
        keys: set[str] = set()
        for step in self.steps:
            if not self.codelets[step.codelet].host_inputs:
                keys.update(find_refs((step.args, dict(step.kwargs))))
        return {key: value for key, value in self.values.items() if key in keys}

    def timed(self, codelet: Codelet, args: Any, kwargs: Any) -> tuple[Any, float]:
        """Run a task with its arguments on the device; return value and true seconds there."""
        self.running = codelet.name
        if not codelet.host_inputs:
            args, kwargs = self.device.to_device(args), self.device.to_device(kwargs)
        self.device.synchronize()  # the copying of arguments does not count as the task's time
        before = time.perf_counter()
        value = call_codelet(codelet, self.device, args, kwargs)
        self.device.synchronize()  # kernels run behind the call; also, nothing reads args now
        return value, time.perf_counter() - before


def run_job(
    job: Job,
    *,
    make_room: Callable[[], str],
    note: Callable[[Note], None],
    parts: int = 1,
) -> None:
    """Run the bundle; the wanted results are then in ``job.values``.

    They are on the device, unless the bundle had to be split: then on the host.

    Raises
    ------
    OutOfDeviceMemoryError
        The bundle does not fit, not even in parts.
    BundleCancelled, Exception
        The tasks raised it.
    """

    def empty() -> str:
        job.ready.clear()
        return make_room()

    whole = _Steps(job, job.steps, job.needed, whole=True)
    climb(
        whole,
        ran_out=lambda error: job.device.is_out_of_memory(root_of(error)),
        make_room=empty,
        note=note,
        parts=parts,
    )


def root_of(error: BaseException) -> BaseException:
    """Return the user's own error where the runtime has wrapped it."""
    if isinstance(error, ElementFailure) and error.__cause__ is not None:
        return error.__cause__
    return error


class _Steps:
    """A run of consecutive tasks of a bundle."""

    def __init__(
        self, job: Job, steps: Sequence[Step], needed: frozenset[str], *, whole: bool
    ) -> None:
        self._job = job
        self._steps = steps
        self._needed = needed
        self._whole = whole
        self._chunks: _Chunks | None = None
        names = [job.codelets[step.codelet].name for step in steps]
        self.label = ", ".join(dict.fromkeys(names))

    def run(self) -> None:
        job = self._job
        made: dict[str, Any] = {}
        seconds: dict[str, float] = {}
        uploaded: dict[str, Any] = {}
        if self._whole:  # values are taken out, so that each is dropped after its last use
            uploaded.update(job.ready)
            job.ready.clear()
        last_use = self._last_uses()

        def look_up(key: str) -> Any:
            if key in made:
                return made[key]
            if key not in uploaded:
                uploaded[key] = job.device.to_device(job.values[key])
            return uploaded[key]

        def as_it_is(key: str) -> Any:
            return made[key] if key in made else job.values[key]

        for number, step in enumerate(self._steps):
            check_cancelled()
            codelet = job.codelets[step.codelet]
            get = as_it_is if codelet.host_inputs else look_up
            args = replace_refs(step.args, get)
            kwargs = replace_refs(dict(step.kwargs), get)
            made[step.key], seconds[step.key] = job.timed(codelet, args, kwargs)
            del args, kwargs
            for key in last_use.get(number, ()):
                made.pop(key, None)
                uploaded.pop(key, None)
        results = {key: value for key, value in made.items() if key in self._needed}
        if not self._whole:
            results = {key: job.device.to_host(value) for key, value in results.items()}
        job.values.update(results)
        job.seconds.update(seconds)

    def _last_uses(self) -> dict[int, list[str]]:
        """Return the keys that no later task reads and nobody wants, by the last reader's
        number."""
        last = {step.key: number for number, step in enumerate(self._steps)}
        for number, step in enumerate(self._steps):
            last.update(dict.fromkeys(find_refs((step.args, dict(step.kwargs))), number))
        uses: dict[int, list[str]] = {}
        for key, number in last.items():
            if key not in self._needed:
                uses.setdefault(number, []).append(key)
        return uses

    def halves(self) -> tuple[Work, Work] | None:
        """Cut the tasks in two; for a single task, cut its first argument."""
        job, steps = self._job, self._steps
        if len(steps) == 1:
            self._chunks = _Chunks.of(job, steps[0])
            return None if self._chunks is None else self._chunks.halves()
        middle = len(steps) // 2
        later = steps[middle:]
        wanted = self._needed.union(*(find_refs((s.args, dict(s.kwargs))) for s in later))
        first = _Steps(job, steps[:middle], wanted, whole=False)
        return first, _Steps(job, later, self._needed, whole=False)

    def join(self) -> None:
        if self._chunks is not None:
            step = self._steps[0]
            self._chunks.join()
            self._job.values[step.key] = self._chunks.result
            self._job.seconds[step.key] = self._chunks.seconds


class _Chunks:
    """Rows ``start..stop`` of the first argument of one task, and the result for them."""

    def __init__(
        self, job: Job, step: Step, first: np.ndarray[Any, Any], start: int, stop: int
    ) -> None:
        self._job = job
        self._step = step
        self._first = first
        self._start = start
        self._stop = stop
        self._codelet = job.codelets[step.codelet]
        self._axis = self._codelet.chunk_axis or 0
        self._halves: tuple[_Chunks, _Chunks] | None = None
        self.result: Any = None
        self.seconds = 0.0
        self.label = f"{self._codelet.name} [{start}:{stop}]"

    @classmethod
    def of(cls, job: Job, step: Step) -> _Chunks | None:
        """Take the whole first argument, if the codelet and the argument can be split."""
        axis = job.codelets[step.codelet].chunk_axis
        if axis is None or not step.args:
            return None
        first = job.device.to_host(replace_refs(step.args[0], job.values.__getitem__))
        if not isinstance(first, np.ndarray) or not -first.ndim <= axis < first.ndim:
            return None
        return cls(job, step, first, 0, first.shape[axis])

    def run(self) -> None:
        check_cancelled()
        job, values = self._job, self._job.values
        rows = [slice(None)] * self._first.ndim
        rows[self._axis] = slice(self._start, self._stop)
        others = replace_refs(self._step.args[1:], values.__getitem__)
        kwargs = replace_refs(dict(self._step.kwargs), values.__getitem__)
        args = (self._first[tuple(rows)], *others)
        value, seconds = job.timed(self._codelet, args, kwargs)
        self.result, self.seconds = job.device.to_host(value), seconds

    def halves(self) -> tuple[Work, Work] | None:
        if self._stop - self._start < 2:
            return None
        middle = (self._start + self._stop) // 2
        self._halves = (
            _Chunks(self._job, self._step, self._first, self._start, middle),
            _Chunks(self._job, self._step, self._first, middle, self._stop),
        )
        return self._halves

    def join(self) -> None:
        if self._halves is None:
            raise AssertionError("join without halves")
        first, second = self._halves
        self.result = _joined(first.result, second.result, self._axis)
        self.seconds = first.seconds + second.seconds
        first.result = second.result = None


def _joined(first: Any, second: Any, axis: int) -> np.ndarray[Any, Any]:
    """Join two results along ``axis``; raise unless they certainly belong together."""
    both = (first, second)
    if not all(isinstance(part, np.ndarray) for part in both):
        raise CannotSplitError(f"its parts give {type(first).__name__}, which cannot be joined")
    if first.dtype != second.dtype or first.ndim != second.ndim or first.ndim <= axis:
        raise CannotSplitError("its parts give arrays that cannot be joined")
    shapes = [np.delete(part.shape, axis).tolist() for part in both]
    if shapes[0] != shapes[1]:
        raise CannotSplitError(f"its parts give arrays of shapes {first.shape}, {second.shape}")
    joined: np.ndarray[Any, Any] = np.concatenate(both, axis=axis)
    return joined
