"""A session that another process of this machine lends (`lending.Lender`), used as one's own.

Graphs go there as pickles and their values come back; this process has no Ray of its own. When the
lender ends, the session is borrowed anew as soon as there is one again: graphs that are under way
are sent again, and values kept in the object store are lost (`LostDataError`), as when an embedded
Ray has died.
"""

from __future__ import annotations

import io
import itertools
import logging
import pickle
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple
from typing import Any, Final

import cloudpickle

from agentic_ray.config import Settings
from agentic_ray.errors import LostDataError, SerializationError, SessionError
from agentic_ray.graph.passes import cull
from agentic_ray.graph.task import TaskGraph
from agentic_ray.ids import current_ids
from agentic_ray.runtime.carried import Carried, make
from agentic_ray.runtime.connection import Stay, await_ray, begin
from agentic_ray.runtime.current import lend_to_this_process
from agentic_ray.runtime.execute import is_plain
from agentic_ray.runtime.outcomes import Inline
from agentic_ray.runtime.run import Run, Tidings, ValueGone
from agentic_ray.runtime.scope import current_scope
from agentic_ray.runtime.session import taken
from agentic_ray.runtime.values import Stored, hold_elsewhere
from agentic_ray.telemetry.state import ClusterState
from agentic_ray.wire import Bytes, Frame, Wire, packed, unpacked

_logger = logging.getLogger("agentic_ray")
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_SLOTS_SECONDS: Final = 0.2


class LineLost(Exception):
    """Internal: the lender has gone before it answered."""


class LentRef:
    """Stand-in for an ObjectRef: a value that the lender keeps for this process."""

    __slots__ = ("__weakref__", "_session", "number")

    def __init__(self, session: LentSession, number: int) -> None:
        self._session = session
        self.number = number

    def hex(self) -> str:
        return f"{self.number:032x}"

    def get(self) -> Any:
        """Return the value itself."""
        return self._session.get(self.number)


class _Asked:
    """A request that waits for its answer."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.frame: Frame | None = None


class _Model:
    """The lender's cost model, as far as front ends use it."""

    def __init__(self, ask: Callable[..., Frame]) -> None:
        self._ask = ask

    def predict_size(self, codelet: str, kind: str, size: float) -> Any:
        """Predict as `CostModel.predict_size` does."""
        frame = self._ask("predict", codelet=codelet, kinds=[kind], size=size)
        return pickle.loads(frame.parts[0])[0]


class _Sent:
    """A graph under way: its run here, and the data to send it again."""

    def __init__(self, run: Run, head: dict[str, Any], data: bytes, *, holds: bool) -> None:
        self.run = run
        self.head = head
        self.data = data
        self.holds = holds
        self.accepted = False
        self.values: dict[str, Inline] = {}


class LentSession:
    """Session for front ends, with the methods of `Session` that they use. Made by `borrow`; safe
    to use from any thread.

    Parameters
    ----------
    path : callable
        Returns where the session is lent now.
    """

    closed = False

    def __init__(self, path: Callable[[], str]) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._sent: dict[int, _Sent] = {}
        self._dropped: list[int] = []
        self._slots: tuple[float, int] = (0.0, 1)
        self._connected = threading.Event()
        self.model = _Model(self._ask)
        self._wire = self._connect()
        self._begin()
        threading.Thread(target=self._receive, name="lent-session", daemon=True).start()
        self._connected.set()

    # --- methods of a session for front ends -------------------------------------------

    @property
    def stay(self) -> Stay:
        await_ray()
        return self._stay

    @property
    def slots(self) -> int:
        at, slots = self._slots
        if time.monotonic() - at > _SLOTS_SECONDS:
            slots = int(self._ask("slots").head["value"])
            self._slots = time.monotonic(), slots
        return slots

    def bundle_seconds(self, total_seconds: float) -> float:
        """Compute as `Session.bundle_seconds` does."""
        return float(self._ask("bundle_seconds", total=total_seconds).head["value"])

    def cluster(self) -> ClusterState:
        """Return the cluster as `Session.cluster` does."""
        state: ClusterState = pickle.loads(self._ask("cluster").parts[0])
        return state

    def drain(self, runs: Iterable[Run], timeout_seconds: float) -> bool:
        """Wait as `Session.drain` does."""
        numbers = [int(run.graph_id) for run in runs]
        if not numbers:
            return True
        return bool(self._ask("drain", runs=numbers, seconds=timeout_seconds).head["value"])

    def close(self) -> None:
        """Do nothing: the session is the lender's, and this process ends with its job."""

    def prospect(self, tasks: Any, moved_bytes: int, in_caller: Any) -> None:
        """Return None, where `Session` predicts: the executors compute everything of a job."""

    def submit(
        self,
        graph: TaskGraph,
        *,
        priority: int = 0,
        asked: int | None = None,
        target_seconds: float | None = None,
    ) -> Run:
        """Submit a graph as `Session.submit` does."""
        scope = current_scope()
        if scope is not None:
            scope.check()
            priority += scope.priority
        graph = taken(cull(graph))
        data, holds = _pickled(graph)
        number = next(self._numbers)
        head = {
            "run": number,
            "priority": priority,
            "asked": asked,
            "target_seconds": target_seconds,
            "ids": list(astuple(current_ids())),
        }
        items = sum(task.cost.items for task in graph)
        run = Run(
            self,
            str(number),
            graph.outputs,
            (),
            asked=items if asked is None else asked,
            slots={},
        )
        sent = _Sent(run, head, data, holds=holds)
        with self._lock:
            self._sent[number] = sent
        try:
            self._send(sent)
        except BaseException:
            with self._lock:
                self._sent.pop(number, None)
            raise
        if scope is not None:
            scope.add(run, graph)
        return run

    # --- the backend of its runs -------------------------------------------------------

    def peek(self, graph_id: str, key: str) -> Any:
        """Return a small value that has come with the news of its run's end."""
        sent = self._sent.get(int(graph_id))
        return None if sent is None else sent.values.get(key)

    def fetch(self, graph_id: str, key: str) -> Any:
        """Return the value of a finished output; raise ValueGone if it must be made again."""
        inline = self.peek(graph_id, key)
        try:
            if inline is not None:
                return inline.load()
            return _value(self._ask_once("value", run=int(graph_id), key=key))
        except LineLost:
            raise ValueGone from None
        except (ValueGone, SessionError):
            raise
        except Exception as error:  # unpickling a value of the user's may raise anything
            raise SerializationError(f"a result cannot be unpickled here: {error}") from error

    def held(self, graph_id: str, key: str) -> Any:
        """Return a finished output as an argument of other tasks."""
        inline = self.peek(graph_id, key)
        if inline is not None:
            return inline.load()
        try:
            frame = self._ask_once("held", run=int(graph_id), key=key)
        except LineLost:
            raise ValueGone from None
        if "stored" in frame.head:
            return self._kept(frame.head)
        return _value(frame)

    def request_cancel(self, graph_id: str) -> None:
        """Stop a run."""
        self._tell("cancel", run=int(graph_id))

    def release(self, graph_id: str) -> None:
        """Give the values of a run up: nobody will ask for them (again)."""
        with self._lock:
            known = self._sent.pop(int(graph_id), None)
        if known is not None:
            self._tell("release", run=int(graph_id))

    # --- its object store --------------------------------------------------------------

    def put(self, value: Any) -> Stored:
        """Keep a large value with the lender."""
        if is_plain(value):
            frame = self._ask("put", packed(value), opaque=False)
        else:
            frame = self._ask("put", [cloudpickle.dumps(value)], opaque=True)
        return self._kept(frame.head)

    def get(self, number: int) -> Any:
        """Return the value kept under this number."""
        try:
            return _value(self._ask_once("get", stored=number))
        except LineLost:
            raise LostDataError("the session that kept this has ended") from None

    def _kept(self, head: dict[str, Any]) -> Stored:
        ref = LentRef(self, head["stored"])
        held = Stored(ref, head["size"], head["node"], self._stay)
        weakref.finalize(ref, self._dropped.append, ref.number).atexit = False
        return held

    # --- the line ----------------------------------------------------------------------

    def _send(self, sent: _Sent) -> None:
        while True:
            try:
                frame = self._ask_once("submit", parts=[sent.data], **sent.head)
            except LineLost:
                if sent.run.done:  # it held values that were lost
                    return
                continue
            run, head = sent.run, frame.head
            run.items_total, run.bundles_total = head["items"], head["bundles"]
            run.slots = {(node, device): count for node, device, count in head["slots"]}
            sent.accepted = True
            return

    def _ask(self, op: str, parts: Sequence[Bytes] = (), **head: Any) -> Frame:
        """Ask for something that the lender need not remember; ask again if the lender ends."""
        while True:
            try:
                return self._ask_once(op, parts, **head)
            except LineLost:
                continue

    def _ask_once(self, op: str, parts: Sequence[Bytes] = (), **head: Any) -> Frame:
        self._connected.wait()
        number, asked = next(self._numbers), _Asked()
        with self._lock:
            wire = self._wire
            self._asked[number] = asked
            dropped, self._dropped[:] = self._dropped[:], []
        try:
            if dropped:
                wire.send({"op": "drop", "stored": dropped})
            wire.send({"op": op, "id": number, **head}, parts)
        except OSError:
            wire.close()  # the receiving thread notices
        asked.done.wait()
        with self._lock:
            self._asked.pop(number, None)
        if asked.frame is None:
            raise LineLost
        if asked.frame.head.get("gone"):
            raise ValueGone
        if asked.frame.head.get("failed"):
            raise _raised(pickle.loads(asked.frame.parts[0]))
        return asked.frame

    def _tell(self, op: str, **head: Any) -> None:
        try:
            self._wire.send({"op": op, **head})
        except OSError:
            return  # the run that it is about has ended with it

    def _receive(self) -> None:
        while True:
            try:
                while (frame := self._wire.receive()) is not None:
                    self._take_in(frame)
            except OSError as error:
                _logger.warning("the line to the session is cut: %s", error)
            self._line_lost()

    def _take_in(self, frame: Frame) -> None:
        if frame.head.get("op") == "told":
            for news in pickle.loads(frame.parts[0]):
                self._hear(*news)
            return
        with self._lock:
            asked = self._asked.get(frame.head["id"])
        if asked is not None:
            asked.frame = frame
            asked.done.set()

    def _hear(
        self,
        number: int,
        tidings: Tidings,
        done: bool,
        failure: Carried | None,
        values: dict[str, Inline],
    ) -> None:
        sent = self._sent.get(number)
        if sent is None:
            return
        sent.run.hear_of(tidings)
        if done:
            sent.values.update(values)
            sent.run.settle(None if failure is None else _raised(failure))
        elif sent.run.done:
            sent.run.reopen()  # a value was lost, and is made again

    def _line_lost(self) -> None:
        """Borrow the session that takes the place of a lender that has ended."""
        self._connected.clear()
        old = self._stay
        old.end(lost=True)
        self._wire.close()
        with self._lock:
            waiting, self._asked = list(self._asked.values()), {}
            sent = [known for known in self._sent.values() if known.accepted]
        again = []
        for known in sent:
            run = known.run
            if run.done and (run.error is not None or len(known.values) == len(run.outputs)):
                continue
            if known.holds:
                run.settle(LostDataError("what this works on was kept by a session that has ended"))
                continue
            run.reopen()
            run.records.clear()
            run.items_done = 0
            run.log("session lost", text="it is sent again to the session that takes its place")
            again.append(known)
        self._wire = self._connect()
        self._begin()
        old.settled.set()
        self._connected.set()
        for asked in waiting:
            asked.done.set()
        if again:  # in another thread: this one receives the answers
            threading.Thread(target=self._send_again, args=(again,), daemon=True).start()

    def _send_again(self, sent: Sequence[_Sent]) -> None:
        for known in sent:
            try:
                self._send(known)
            except Exception as error:  # the run ends with this error
                known.run.settle(error)

    def _connect(self) -> Wire:
        pause = _FIRST_PAUSE
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            wire = Wire(connection)
            try:
                connection.connect(self._path())
                wire.send({"op": "hello", "id": 0})
                frame = wire.receive()
                if frame is not None and not frame.head.get("failed"):
                    self.name = str(frame.head["name"])
                    self.settings: Settings = pickle.loads(frame.parts[0])
                    return wire
            except OSError:
                pass  # nobody lends a session there yet, or any more
            wire.close()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _begin(self) -> None:
        self._stay = begin(self.name, lambda: not self._connected.is_set())


def borrow(path: Callable[[], str]) -> None:
    """Make `get_session`, and all its users, work on the session that is lent at ``path()``.

    The session is borrowed when it is first used. This is for good: this process starts no Ray of
    its own.
    """
    made: list[LentSession] = []
    lock = threading.Lock()

    def lent() -> LentSession:
        with lock:
            if not made:
                made.append(LentSession(path))
                hold_elsewhere(made[0].put)
            return made[0]

    lend_to_this_process(lent)


def _pickled(graph: TaskGraph) -> tuple[bytes, bool]:
    """Pickle a graph; return the bytes, and whether it names values that the lender keeps."""
    content = io.BytesIO()
    pickler = _Pickler(content)
    try:
        pickler.dump(graph)
    except Exception as error:  # pickle raises anything that the objects' hooks raise
        raise SerializationError(f"the graph cannot be sent: {error}") from error
    return content.getvalue(), pickler.holds


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickler that leaves values which the lender keeps where they are."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.holds = False

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, Stored):
            return None
        value.check()
        self.holds = True
        return int(value.ref.number)


def _value(frame: Frame) -> Any:
    if frame.head.get("whole"):
        return unpacked(frame.parts)
    return Inline(bytes(frame.parts[0]), bool(frame.head["plain"])).load()


def _raised(carried: Carried) -> BaseException:
    return make(carried)
