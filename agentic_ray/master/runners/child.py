"""Runs functions of workloads in a runner, in its main thread, one job after the other.

A second thread listens to the master. What the master is told is JSON and bytes that it need not
look into: the result as JSON text, the error as texts.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import hashlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, NoReturn

import cloudpickle

from agentic_ray.errors import JobCancelledError, SerializationError, UnknownWorkloadError
from agentic_ray.ids import Ids, marked
from agentic_ray.master.jobs import JobFailure
from agentic_ray.master.jsonvalues import dumps_result, loads, to_json
from agentic_ray.master.named import register
from agentic_ray.master.userfiles import load_workloads
from agentic_ray.master.workloads import Workload, registry
from agentic_ray.runtime import JobScope, Stages, job_scope
from agentic_ray.runtime.carried import take
from agentic_ray.runtime.lent import borrow
from agentic_ray.runtime.printed import Printed, tell_instead
from agentic_ray.schedule.metrics import PlacementRecord
from agentic_ray.tracebacks import text_of
from agentic_ray.wire import Bytes, Frame, Wire, readable

MOST_RESULT_BYTES: Final = 256 << 20
"""Of JSON text. All jobs share the process that keeps it."""

_STOP: Final = signal.SIGUSR2
_ROW: Final = attrgetter(*(field.name for field in fields(PlacementRecord)))
_TELL_SECONDS: Final = 0.5
_MOST_EVENTS: Final = 2_000
_MOST_CARRIED_BYTES: Final = 1 << 20
"""A larger exception arrives as its texts only."""


def main(line: int) -> NoReturn:
    """Run jobs until the master closes the line; never returns."""
    try:
        _Runner(Wire(socket.socket(fileno=line))).work()
    except BaseException as error:
        logging.getLogger("agentic_ray").critical("a runner ends: %s", error, exc_info=True)
        os._exit(1)
    os._exit(0)


class _Runner:
    """This process."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._orders: queue.Queue[Frame] = queue.Queue()
        self._answers: queue.Queue[Frame] = queue.Queue()
        self._code: dict[str, Workload] = {}
        self._files: dict[str, tuple[str, dict[str, Workload]]] = {}
        self._session_path = ""
        self._scope: JobScope | None = None
        self._running = False
        self._told = (0, 0)
        self._seen: dict[int, int] = {}
        self._graphs = 0
        self._telling = threading.Lock()

    def work(self) -> None:
        """Take orders, in the main thread, which alone can be interrupted."""
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        sys.stdin = open(os.devnull)  # noqa: SIM115 -- for as long as the process lives
        logging.basicConfig(
            level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
        )
        faulthandler.enable()  # where it crashed is then in what the job has printed
        # (SIGTERM keeps its meaning, also for processes that a job forks off.)
        signal.signal(_STOP, self._interrupt)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        gc.freeze()  # what was there before the fork need not be looked through, nor copied
        borrow(lambda: self._session_path)
        streams = sys.stdout, sys.stderr

        def tell(printed: Printed) -> bool:
            """Tell the master of text with its bundle, unless the job has put other streams in
            place: then it is for these."""
            if (sys.stdout, sys.stderr) != streams:
                return False
            _flush()
            head = {
                "op": "printed",
                "bundle": printed.bundle,
                "node": printed.node_id,
                "streams": [piece.stream for piece in printed.pieces],
            }
            texts = [piece.text.encode("utf-8", "replace") for piece in printed.pieces]
            self._wire.send(head, texts)
            return True

        tell_instead(tell)
        threading.Thread(target=self._listen, name="agentic-ray-master", daemon=True).start()
        while True:
            self._run(self._orders.get())

    # --- one job -----------------------------------------------------------------------

    def _run(self, order: Frame) -> None:
        head = order.head
        before = _Surroundings()
        head_out: dict[str, Any] = {"op": "ended", "ok": False}
        parts: list[Bytes] = []
        began = time.monotonic()
        self._session_path = head["session"]
        scope: JobScope | None = None
        try:
            if "path" in head:
                sys.path[:] = head["path"]
            if head["trace"]:  # by which libraries of OpenTelemetry know where they are
                os.environ["TRACEPARENT"] = head["trace"]
            ids = Ids(head["request"], head["job"], "", head["trace"])
            with marked(ids), job_scope(head["job"], priority=head["priority"]) as scope:
                if head["stages"]:
                    scope.stages = Stages(_MastersStages(self), scope.log)
                self._told, self._seen, self._graphs = (0, 0), {}, 0
                self._scope = scope
                self._running = True
                workload = self._workload(head, order.parts)
                value = workload.function(workload.prepare(loads(bytes(order.parts[0]))))
                self._running = False
            text = dumps_result(to_json(value, non_finite="keep"))
            if len(text) > MOST_RESULT_BYTES:
                raise SerializationError(
                    f"the result is {len(text):,} bytes of JSON, where {MOST_RESULT_BYTES:,} are "
                    "taken: write it to a file or an object store and return where it is"
                )
            parts = [text.encode("ascii")]
            head_out["ok"] = True
        except BaseException as error:  # also SystemExit and the like: they end the job alone
            self._running = False
            failure = JobFailure.of(error)
            head_out |= {
                "type": failure.type,
                "message": failure.message,
                "traceback": failure.traceback,
            }
            parts = _carried(error)
        finally:
            self._running = False
        del order
        self._scope = None
        if scope is not None:
            metrics = scope.metrics(time.monotonic() - began)
            head_out |= {
                "metrics": None if metrics is None else asdict(metrics),
                "events": [
                    [e.time, e.kind, e.bundle, e.node_id, e.text]
                    for e in scope.events()[-_MOST_EVENTS:]
                ],
            }
        _flush()
        head_out["clean"] = before.restored()
        with self._telling:
            if scope is not None:
                head_out |= self._news(scope)
            self._wire.send(head_out, parts)

    def _workload(self, head: Mapping[str, Any], parts: list[bytearray]) -> Workload:
        """Find the workload that the master means: in the user's file, or in the code that it has
        sent."""
        if head["file"] is not None:
            path = head["file"]
            digest, known = self._files.get(path, ("", {}))
            if digest != head["digest"]:
                digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
                if digest != head["digest"]:
                    raise UnknownWorkloadError(
                        f"{path} has changed since the master loaded it; reload the master, or "
                        "restart it"
                    )
                # The master was reloaded: what this process has of the file is of before.
                rest = {n: made for n, made in registry.snapshot().items() if n not in known}
                registry.restore(rest)
                known = {workload.name: workload for workload in load_workloads(path)}
                self._files[path] = digest, known
            return known[head["workload"]]
        token = head["token"]
        if token == "":
            register()
            return registry.get(head["workload"])
        if token not in self._code:
            self._code[token] = cloudpickle.loads(parts[1])
        return self._code[token]

    def _interrupt(self, number: int, frame: object) -> None:
        if self._running:
            self._running = False
            raise JobCancelledError("the job was told to stop")

    # --- the master --------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            while True:
                if not readable([self._wire.fileno()], _TELL_SECONDS):
                    self._tell()
                    continue
                frame = self._wire.receive()
                if frame is None:
                    break
                if frame.head["op"] == "job":
                    self._orders.put(frame)
                elif frame.head["op"] == "stage":
                    self._answers.put(frame)
                else:
                    self._cancel()
        finally:
            # The master is gone, or does not want this process any more: with all it has started.
            os.killpg(0, signal.SIGKILL)

    def _cancel(self) -> None:
        scope = self._scope
        if scope is not None:
            threading.Thread(target=scope.cancel, daemon=True).start()
        main_thread = threading.main_thread().ident
        if main_thread is not None:
            signal.pthread_kill(main_thread, _STOP)

    def _tell(self) -> None:
        """Tell the master how far the job is, if that has changed."""
        with self._telling:
            scope = self._scope
            if scope is not None and (scope.items_done, scope.items_total) != self._told:
                self._told = (scope.items_done, scope.items_total)
                self._wire.send({"op": "told", **self._news(scope)})

    def _news(self, scope: JobScope) -> dict[str, Any]:
        """Return the part of a job's work on the cluster that the master was not told yet."""
        fresh = scope.fresh(self._seen)
        for news in fresh:
            self._seen[news.run] = news.first + len(news.records)
        shapes = scope.shapes(self._graphs)
        self._graphs += len(shapes)
        return {
            "items": scope.items_done,
            "total": scope.items_total,
            "fresh": [[news.run, news.first, list(map(_ROW, news.records))] for news in fresh],
            "graphs": [asdict(shape) for shape in shapes],
        }

    def ask(self, head: dict[str, Any], parts: list[Bytes]) -> Frame:
        """Ask the master for something that its job's thread answers in order."""
        self._wire.send(head, parts)
        return self._answers.get()


class _MastersStages:
    """The stages of the job, which the master keeps; a `StageStore`."""

    def __init__(self, runner: _Runner) -> None:
        self._runner = runner
        self._lock = threading.Lock()

    def get(self, name: str) -> bytes | None:
        with self._lock:
            frame = self._runner.ask({"op": "stage_get", "name": name}, [])
        return bytes(frame.parts[0]) if frame.parts else None

    def put(self, name: str, content: bytes) -> None:
        with self._lock:
            self._runner.ask({"op": "stage_put", "name": name}, [content])


class _Surroundings:
    """State of the process that a job finds, and may leave changed."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._folder = os.getcwd()
        self._threads = set(threading.enumerate())

    def restored(self) -> bool:
        """Put back what can be; False if the job has left threads or child processes behind."""
        if dict(os.environ) != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)
        try:
            if os.getcwd() != self._folder:
                os.chdir(self._folder)
        except OSError:
            return False
        left = [
            thread
            for thread in threading.enumerate()
            if thread not in self._threads and not thread.name.startswith(("lent-", "agentic-ray"))
        ]
        return not left and not _has_children()


def _has_children() -> bool:
    try:
        return bool(Path(f"/proc/self/task/{os.getpid()}/children").read_text().strip())
    except OSError:  # this system does not tell
        return False


def _flush() -> None:
    """All that was printed is with the master before it is told of the end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # the user may have put anything in its place
            continue
    ctypes.CDLL(None).fflush(None)


def _carried(error: BaseException) -> list[Bytes]:
    """The exception itself, for a caller in the master's process; nothing if it is too large."""
    if len(text_of(error)) > _MOST_CARRIED_BYTES:
        return []
    try:
        data = cloudpickle.dumps(take(error))
    except BaseException:  # whatever its hooks raise; its texts are sent in any case
        return []
    return [data] if len(data) <= _MOST_CARRIED_BYTES else []
