"""`Assignment`: one job in one runner, as the master sees it.

The job's thread runs `work`: it sends the order, keeps what the function prints, answers what it
asks, and ends the process when it has to. Nothing that comes from the runner is unpickled here, and
each piece of it is checked for its kind.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.master.jobs import JobEvent, JobFailure
from agentic_ray.master.jsonvalues import loads_result
from agentic_ray.master.outcome import Died, Done
from agentic_ray.master.runners.process import RunnerProcess
from agentic_ray.schedule.metrics import Metrics, PlacementRecord
from agentic_ray.shown import cut_text
from agentic_ray.wire import Bytes, Frame, WireError, readable

GRACE_SECONDS: Final = 1.0
"""A job that is told to stop has so long to do so; then its process is killed."""
_END_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.05
_READ_BYTES: Final = 1 << 16
_KEY: Final = 500
"""Characters of a key or an id that are kept."""


class Stages(Protocol):
    """Where finished stages of the job are kept."""

    def get(self, name: str) -> bytes | None: ...
    def put(self, name: str, content: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Order:
    """The job that a runner is to do.

    Parameters
    ----------
    job_id, workload : str
    priority : int
        Added to that of what the function puts on the cluster.
    params : bytes
        JSON text.
    code : bytes or None
        The workload, pickled; None: it is found by its name, in ``file`` if that is given.
    token : str
        Names the code.
    file, digest : str or None
        The user's file, and the SHA-256 of what it held when the master loaded it.
    session : str
        Where the session is lent.
    memory_bytes : int or None
        By which the process may grow.
    request_id, traceparent : str
        The request that submitted the job, and the span that its work is part of; may be empty.
    """

    job_id: str
    workload: str
    priority: int
    params: bytes
    code: bytes | None
    token: str
    file: str | None
    digest: str | None
    session: str
    memory_bytes: int | None = None
    request_id: str = ""
    traceparent: str = ""


class Log(Protocol):
    """Receiver of the text that a job prints."""

    def write(self, stream: str, data: bytes) -> None:
        """Take in bytes that the job's function wrote to a stream."""

    def write_of(self, bundle: str, node: str, pieces: Sequence[tuple[str, bytes]]) -> None:
        """Tasks of a bundle printed this, on a node of the cluster."""


class Assignment:
    """A job in a runner. `stop`, and the methods that ask, may be called from any thread."""

    def __init__(self, runner: RunnerProcess, stages: Stages | None, log: Log) -> None:
        self._runner = runner
        self._stages = stages
        self._log = log
        self._stopping: float | None = None
        self._wake_read, self._wake_write = os.pipe()
        self._lock = threading.Lock()
        self._over = False
        self._items = 0
        self._total = 0
        self._events: list[JobEvent] = []
        self._placements: dict[int, list[PlacementRecord]] = {}
        self._graphs: list[dict[str, Any]] = []
        self.fit = False
        """Whether the runner can be given another job, once this one is over."""

    # --- for the handle ----------------------------------------------------------------

    @property
    def items_done(self) -> int:
        """Logical tasks that have finished."""
        return self._items

    @property
    def items_total(self) -> int:
        """Logical tasks that it has asked for so far."""
        return self._total

    def events(self) -> list[JobEvent]:
        """List the events of its work on the cluster; known at its end."""
        return list(self._events)

    def placements(self) -> list[PlacementRecord]:
        """Where its bundles ran, as it told a moment ago."""
        return [record for records in list(self._placements.values()) for record in records]

    def placements_by_graph(self) -> list[list[PlacementRecord]]:
        """The same, for each graph in the order of submission."""
        return [list(records) for _, records in sorted(self._placements.items())]

    def graphs(self) -> list[dict[str, Any]]:
        """The shapes of its graphs."""
        return list(self._graphs)

    def cancel(self) -> None:
        """Tell the job to stop; it is killed if it has not, a moment later."""
        with self._lock:
            if self._over or self._stopping is not None:
                return
            self._stopping = time.monotonic()
            os.write(self._wake_write, b"s")

    # --- for the job's thread ----------------------------------------------------------

    def work(self, order: Order) -> Done | Died:
        """Do it, to the end."""
        try:
            return self._work(order)
        finally:
            with self._lock:
                self._over = True
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _work(self, order: Order) -> Done | Died:
        runner = self._runner
        base = runner.memory_bytes()
        try:
            self._send(order)
        except OSError:
            return self._died()
        line = runner.wire.fileno()
        streams = {number: name for name, number in runner.streams.items()}
        told = False
        while True:
            timeout = None if order.memory_bytes is None else _LOOK_SECONDS
            if self._stopping is not None:
                left = self._stopping + GRACE_SECONDS - time.monotonic()
                if left <= 0:
                    runner.kill()
                    return self._died()
                timeout = left if timeout is None else min(left, timeout)
            watched = [line, runner.told, *streams, *([] if told else [self._wake_read])]
            ready = readable(watched, timeout)
            if self._wake_read in ready:
                told = True
                with contextlib.suppress(OSError):
                    runner.wire.send({"op": "cancel"})
            for number in [number for number in ready if number in streams]:
                if not self._read(streams[number], number):
                    del streams[number]
            if order.memory_bytes is not None:
                grown = runner.memory_bytes() - base
                if grown > order.memory_bytes:
                    runner.kill()
                    self._died()
                    return Died(
                        f"it grew by {grown:,} bytes, and may by {order.memory_bytes:,} "
                        "(memory_bytes)",
                        of_memory=True,
                    )
            if line in ready:
                done = self._receive()
                if done is not None:
                    return done
            elif runner.told in ready:  # it has ended; its line is held by a process that it forked
                return self._died()

    def _send(self, order: Order) -> None:
        runner = self._runner
        head: dict[str, Any] = {
            "op": "job",
            "job": order.job_id,
            "priority": order.priority,
            "workload": order.workload,
            "file": order.file,
            "digest": order.digest,
            "token": order.token,
            "session": order.session,
            "stages": self._stages is not None,
            "request": order.request_id,
            "trace": order.traceparent,
        }
        if not runner.knows_path:
            head["path"] = list(sys.path)
            runner.knows_path = True
        parts: list[Bytes] = [order.params]
        if order.code is not None and order.token not in runner.known:
            parts.append(order.code)
            runner.known.add(order.token)
        runner.wire.send(head, parts)

    def _receive(self) -> Done | Died | None:
        try:
            frame = self._runner.wire.receive()
        except WireError as error:
            self._runner.kill()
            self._died()
            return Died(f"it sent what is no answer ({error})")
        if frame is None:
            return self._died()
        try:
            return self._take_in(frame)
        except (InvalidArgumentError, KeyError, TypeError, ValueError, AttributeError) as error:
            self._runner.kill()
            self._died()
            return Died(f"it sent what is no answer ({type(error).__name__}: {error})")

    def _take_in(self, frame: Frame) -> Done | None:
        head, parts = frame
        op = head["op"]
        if op == "told":
            self._hear(head)
        elif op == "printed":
            self._read_all()  # what the function has printed before comes first
            streams = [_stream(name) for name in head["streams"]]
            texts = zip(streams, map(bytes, parts), strict=True)
            self._log.write_of(_text(head["bundle"])[:_KEY], _text(head["node"])[:_KEY], [*texts])
        elif op == "stage_get":
            kept = None if self._stages is None else self._stages.get(_text(head["name"]))
            self._answer([] if kept is None else [kept])
        elif op == "stage_put":
            if self._stages is not None:
                self._stages.put(_text(head["name"]), bytes(parts[0]))
            self._answer([])
        elif op == "ended":
            self._read_all()
            self._hear(head)
            self._events = [_event(entry) for entry in head.get("events", [])]
            self.fit = head["clean"] is True and self._stopping is None
            metrics = _metrics(head.get("metrics"))
            if head["ok"] is True:
                text = bytes(parts[0]).decode("ascii")
                return Done(text, loads_result(text), metrics=metrics)
            carried = bytes(parts[0]) if parts else None
            failure = JobFailure(
                cut_text(_text(head["type"])),
                cut_text(_text(head["message"])),
                cut_text(_text(head["traceback"])),
                carried=carried,
            )
            return Done(failure=failure, metrics=metrics)
        else:
            raise InvalidArgumentError(f"an unknown message {str(op)[:40]!r}")
        return None

    def _hear(self, head: Mapping[str, Any]) -> None:
        """Read a report of the runner: its graphs, and where its bundles ran, are told once."""
        self._items = _count(head.get("items", 0))
        self._total = _count(head.get("total", 0))
        for run, first, rows in head.get("fresh", []):
            known = self._placements.setdefault(_count(run), [])
            if _count(first) > len(known):
                raise InvalidArgumentError("placements with a gap")
            known[first:] = [_placement(row) for row in rows]
        self._graphs += [_graph(entry) for entry in head.get("graphs", [])]

    def _answer(self, parts: Sequence[Bytes]) -> None:
        with contextlib.suppress(OSError):  # its end is noticed at the next look
            self._runner.wire.send({"op": "stage"}, parts)

    def _read(self, stream: str, number: int) -> bool:
        """Keep what was printed; False at the stream's end."""
        try:
            data = os.read(number, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        self._log.write(stream, data)
        return True

    def _read_all(self) -> None:
        """Keep all that has been printed by now."""
        for name, number in self._runner.streams.items():
            for _ in range(1 << 10):  # another process of the job's may go on to print for ever
                if not readable([number], 0) or not self._read(name, number):
                    break

    def _died(self) -> Died:
        code = self._runner.exit_code(_END_SECONDS)
        if code is None:  # it has closed its line, and goes on
            self._runner.kill()
            code = self._runner.exit_code(_END_SECONDS)
        self._read_all()
        if code is None:
            return Died("its process was lost, and how is not known")
        if code >= 0:
            return Died(f"its process ended with exit code {code}")
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = ""
        if name == "SIGKILL" and self._stopping is None:
            hint = " (nobody here sent it: the kernel does when memory runs out)"
        return Died(f"its process was killed by {name}{hint}")


# --- what comes from a runner is what it should be --------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidArgumentError(f"text, not {type(value).__name__}")
    return value


def _stream(value: Any) -> str:
    if value not in ("stdout", "stderr"):
        raise InvalidArgumentError("the name of a stream")
    return str(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidArgumentError("a count")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidArgumentError("a number")
    return value


def _event(entry: Any) -> JobEvent:
    at, kind, bundle, node_id, text = entry
    return JobEvent(_number(at), _text(kind), _text(text), _text(bundle), _text(node_id))


def _placement(entry: Any) -> PlacementRecord:
    record = PlacementRecord(*entry)
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name in ("bundle", "node_id", "device", "reason"):
            _text(value)
        elif field.name != "retried" and value is not None:
            _number(value)
    return record


def _graph(entry: Any) -> dict[str, Any]:
    for name in ("tasks", "items"):
        _count(entry[name])
    stages, links = entry["stages"], entry["links"]
    for stage in stages:
        _text(stage["name"])
        for name in ("depth", "tasks", "items"):
            _count(stage[name])
    for link in links:
        if max(_count(link["source"]), _count(link["target"])) >= len(stages):
            raise InvalidArgumentError("a link to no stage")
        _count(link["count"])
    _text(entry["left_out"])
    return dict(entry)


def _metrics(entry: Any) -> Mapping[str, Any] | None:
    if entry is None:
        return None
    metrics = Metrics(**entry)
    return {field.name: _number(getattr(metrics, field.name)) for field in fields(metrics)}
