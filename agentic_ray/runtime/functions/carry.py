"""A function's bundle on its way through the processes of a card: in parts if memory is short.

The counterpart of `device_run` for functions. The Dispatcher has admitted the bundle; this module
carries it out and reports what NVML saw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import cloudpickle

from agentic_ray.errors import OutOfDeviceMemoryError
from agentic_ray.graph.task import replace_refs
from agentic_ray.runtime.execute import Payload, Step, describe
from agentic_ray.runtime.failures import BundleCancelled, PackedError
from agentic_ray.runtime.functions.call import Results, joined
from agentic_ray.runtime.functions.pool import (
    Answer,
    CardFullError,
    FunctionPool,
    ProcessDiedError,
    RaisedError,
    threads_of,
)
from agentic_ray.runtime.oom import Note, Work, climb
from agentic_ray.runtime.outcomes import (
    Cancelled,
    CardFull,
    Died,
    Failed,
    Finished,
    Inline,
    Outcome,
    OutOfDeviceMemory,
    Output,
    Report,
)
from agentic_ray.runtime.printed import Piece
from agentic_ray.schedule.events import INLINE_BYTES

_Call = Callable[[tuple[Any, ...]], Answer]


class _ShortError(Exception):
    """Internal: a part of the batch ran out of the card's memory."""

    def __init__(self, raised: RaisedError) -> None:
        super().__init__(raised.packed.traceback.strip().splitlines()[-1])
        self.raised = raised


class Sealed:
    """A pickled value that is unpickled only where it is used.

    The executor of a card takes results from its function processes and hands them on: unpickled
    there, they would import the user's frameworks, which would take memory of the card.
    """

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = tuple(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, self._parts


def _opened(*parts: bytes) -> Results:
    return joined([cloudpickle.loads(part) for part in parts])


@dataclass(slots=True)
class _Batch:
    """The call under way, and the things learnt from its parts."""

    call: _Call
    step: Step
    args: tuple[Any, ...]
    label: str
    answers: dict[int, Answer] = field(default_factory=dict)
    peaks: list[tuple[int, int]] = field(default_factory=list)
    seconds: float = 0.0


class _Part:
    """Items ``start..stop`` of a batch."""

    def __init__(self, batch: _Batch, start: int, stop: int) -> None:
        self._batch = batch
        self._start = start
        self._stop = stop
        self.label = f"{batch.label} on items {start}:{stop} of its batch"

    def run(self) -> None:
        batch, start, stop = self._batch, self._start, self._stop
        try:
            answer = batch.call((*batch.args, start, stop))
        except RaisedError as error:
            if error.short:
                raise _ShortError(error) from None
            raise
        batch.answers[start] = answer
        batch.seconds += answer.seconds
        if answer.peak_bytes:
            batch.peaks.append((stop - start, answer.peak_bytes))

    def halves(self) -> tuple[Work, Work] | None:
        if self._stop - self._start < 2:
            return None
        middle = (self._start + self._stop) // 2
        batch = self._batch
        return _Part(batch, self._start, middle), _Part(batch, middle, self._stop)

    def join(self) -> None:
        return None  # `Sealed` joins the parts where the results are used


def run_function(
    payload: Payload,
    inputs: Sequence[Any],
    pool: FunctionPool,
    *,
    node_id: str,
    is_cancelled: Callable[[], bool],
    make_room: Callable[[], str],
) -> tuple[Any, ...]:
    """Run a bundle of a function on the card of ``pool``; return its Report followed by its large
    outputs in order. Errors of user code are never raised: the report carries them.

    Parameters
    ----------
    make_room : callable
        Frees all memory of the card that others of ours can do without; says in words what.
    """
    began = time.perf_counter()
    notes: list[Note] = []
    printed: list[Piece] = []
    (step,) = cloudpickle.loads(payload.steps)
    batch: _Batch | None = None
    pid = 0

    def elapsed() -> float:
        return time.perf_counter() - began

    def report(outcome: Outcome) -> Report:
        # The seconds of a batch do not include the start of its process and the setup.
        seconds = batch.seconds if batch is not None and batch.answers else elapsed()
        return Report(
            node_id,
            pid,
            seconds,
            () if batch is None else (batch.seconds,),
            outcome,
            notes=tuple((note.kind, note.text) for note in notes),
            device_peaks=() if batch is None else tuple(batch.peaks),
            printed=tuple(printed),
        )

    nothing = (None,) * len(payload.outputs)
    values: dict[str, Any] = dict(zip(payload.inputs, inputs, strict=True))
    values.update(payload.inline)
    args = tuple(replace_refs(step.args, values.__getitem__))
    source = payload.codelets[step.codelet]
    data = ray.get(source) if isinstance(source, ray.ObjectRef) else source
    label = payload.function
    function = (step.codelet, label, data)
    try:
        with pool.process(
            function,
            payload.gpu_memory_bytes,
            is_cancelled=is_cancelled,
            note=lambda kind, text: notes.append(Note(kind, text)),
            free_others=make_room,
            threads=threads_of(payload.cpus),
        ) as call:

            def heard(args: tuple[Any, ...]) -> Answer:
                try:
                    answer = call(args)
                except RaisedError as error:
                    printed.extend(error.printed)
                    raise
                printed.extend(answer.printed)
                return answer

            batch = _Batch(heard, step, args, label)
            whole = _Part(batch, 0, step.kwargs["stop"])
            climb(
                whole,
                ran_out=lambda error: isinstance(error, _ShortError),
                make_room=make_room,
                note=notes.append,
                parts=payload.parts,
            )
    except BundleCancelled:
        return (report(Cancelled()), *nothing)
    except CardFullError as error:
        return (report(CardFull(str(error))), *nothing)
    except ProcessDiedError as died:
        shapes = tuple(map(describe, args))
        pid = died.pid
        return (report(Died(label, None, None, died.exit_code, shapes)), *nothing)
    except RaisedError as error:
        outcome = OutOfDeviceMemory(error.packed) if error.short else Failed(error.packed)
        return (report(outcome), *nothing)
    except OutOfDeviceMemoryError as error:
        return (report(OutOfDeviceMemory(PackedError.pack(error, label))), *nothing)
    answers = [batch.answers[start] for start in sorted(batch.answers)]
    size = sum(len(answer.data) for answer in answers)
    (key,) = payload.outputs
    if len(answers) == 1 and size <= INLINE_BYTES:
        inline = Inline(answers[0].data, answers[0].plain)
        return report(Finished((Output(key, size, inline),))), None
    return report(Finished((Output(key, size, None),))), Sealed([a.data for a in answers])
