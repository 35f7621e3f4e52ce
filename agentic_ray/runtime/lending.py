"""Lends this process's session to other processes of the machine, over a Unix socket.

A borrower (`lent.LentSession`) submits graphs as if the session were its own: one Dispatcher, one
set of executors and one order of priorities serve all of them. When a borrower goes away, for
whatever reason, its runs are cancelled and the values kept for it are dropped.
"""

from __future__ import annotations

import io
import logging
import pickle
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import cloudpickle
import ray

from agentic_ray.errors import SessionError
from agentic_ray.ids import Ids, marked
from agentic_ray.runtime.carried import take
from agentic_ray.runtime.execute import pack_value
from agentic_ray.runtime.outcomes import Inline
from agentic_ray.runtime.run import Run, ValueGone
from agentic_ray.runtime.session import Session
from agentic_ray.runtime.values import Stored, fetch
from agentic_ray.wire import Bytes, Frame, Wire, WireError, packed, unpacked

_logger = logging.getLogger("agentic_ray")
_SLOW: Final = frozenset({"cluster", "drain", "get", "put", "submit", "value"})
"""Requests that may take long: others of the same borrower are answered meanwhile."""


class Lender:
    """Server that lends ``session()`` at `path` to whoever may open that file: this user's
    processes.

    Parameters
    ----------
    session : callable
        Returns the session; called for each request, so that one that was shut down is replaced.
    path : str, optional
        The socket to listen at; default: one in a new folder that only this user can enter.
    """

    def __init__(self, session: Callable[[], Session], path: str | None = None) -> None:
        self._session = session
        self._folder: str | None = None
        if path is None:
            self._folder = tempfile.mkdtemp(prefix="agentic-ray-")
            path = str(Path(self._folder, "session"))
        self.path = path
        self._borrowers: set[_Borrower] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            Path(path).unlink(missing_ok=True)
            self._listener.bind(path)
            self._listener.listen(128)
        except OSError as error:
            self._listener.close()
            raise SessionError(f"no session can be lent at {path}: {error}") from error
        threading.Thread(target=self._accept, name="lender", daemon=True).start()

    def close(self) -> None:
        """Lend no more, and take the session back from borrowers."""
        with self._lock:
            self._closed = True
            borrowers = list(self._borrowers)
        self._listener.close()
        for borrower in borrowers:
            borrower.wire.close()
        Path(self.path).unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            borrower = _Borrower(Wire(connection), self._session)
            with self._lock:
                if self._closed:
                    borrower.wire.close()
                    return
                self._borrowers.add(borrower)
            threading.Thread(
                target=self._serve, args=(borrower,), name="borrower", daemon=True
            ).start()

    def _serve(self, borrower: _Borrower) -> None:
        try:
            borrower.serve()
        except WireError as error:
            _logger.warning("a borrower of the session is cut off: %s", error)
        finally:
            with self._lock:
                self._borrowers.discard(borrower)
            borrower.end()


class _Borrower:
    """A process that has borrowed the session: its runs, and the values it keeps in the cluster."""

    def __init__(self, wire: Wire, session: Callable[[], Session]) -> None:
        self.wire = wire
        self._session = session
        self._runs: dict[int, Run] = {}
        self._told: dict[int, tuple[int, int]] = {}
        self._stored: dict[int, Stored] = {}
        self._number = 0
        self._dirty: dict[int, None] = {}
        self._changed = threading.Condition()
        self._over = False

    def serve(self) -> None:
        """Answer until the borrower goes."""
        threading.Thread(target=self._tell, name="borrower-told", daemon=True).start()
        while (frame := self.wire.receive()) is not None:
            if frame.head.get("op") in _SLOW:
                threading.Thread(target=self._answer, args=(frame,), daemon=True).start()
            else:
                self._answer(frame)

    def end(self) -> None:
        """Cancel the borrower's runs and drop its values."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
            runs = list(self._runs.values())
            self._runs.clear()
            self._stored.clear()
        for run in runs:
            if not run.done:
                run.cancel()
            run.release()
        self.wire.close()

    # --- requests ----------------------------------------------------------------------

    def _answer(self, frame: Frame) -> None:
        head, parts = frame
        asked = head.get("id")
        answer: dict[str, Any] = {}
        told: Sequence[Bytes] = ()
        try:
            answer, told = self._requests[head["op"]](self, head, parts)
        except ValueGone:
            answer = {"gone": True}
        except BaseException as error:  # the borrower must deal with it
            answer, told = {"failed": True}, [cloudpickle.dumps(take(error))]
        if asked is None:
            return
        try:
            self.wire.send({"id": asked, **answer}, told)
        except OSError:
            return  # it has gone

    def _hello(self, head: Any, parts: Any) -> Any:
        session = self._session()
        return {"name": session.name}, [pickle.dumps(session.settings)]

    def _slots(self, head: Any, parts: Any) -> Any:
        return {"value": self._session().slots}, ()

    def _bundle_seconds(self, head: Any, parts: Any) -> Any:
        return {"value": self._session().bundle_seconds(float(head["total"]))}, ()

    def _predict(self, head: Any, parts: Any) -> Any:
        model = self._session().model
        found = [model.predict_size(head["codelet"], kind, head["size"]) for kind in head["kinds"]]
        return {}, [pickle.dumps(found)]

    def _cluster(self, head: Any, parts: Any) -> Any:
        return {}, [pickle.dumps(self._session().cluster())]

    def _submit(self, head: Any, parts: Any) -> Any:
        number = int(head["run"])
        graph = _Unpickler(io.BytesIO(parts[0]), self._stored).load()
        with marked(Ids(*head["ids"])):
            run = self._session().submit(
                graph,
                priority=head["priority"],
                asked=head["asked"],
                target_seconds=head["target_seconds"],
            )
        with self._changed:
            over = self._over
            if not over:
                self._runs[number] = run
                self._told[number] = (0, 0)
        if over:
            run.cancel()
            run.release()
            raise SessionError("the borrower has gone")
        slots = [[*place, count] for place, count in run.slots.items()]
        answer = {"items": run.items_total, "bundles": run.bundles_total, "slots": slots}
        run.listen(lambda: self._mark(number))
        return answer, ()

    def _drain(self, head: Any, parts: Any) -> Any:
        runs = [self._runs[number] for number in head["runs"] if number in self._runs]
        return {"value": self._session().drain(runs, float(head["seconds"]))}, ()

    def _value(self, head: Any, parts: Any) -> Any:
        run = self._run(head)
        inline = run.peek(head["key"])
        if isinstance(inline, Inline):
            return {"plain": inline.plain}, [inline.data]
        return {"whole": True}, _packed(run.fetch(head["key"]))

    def _held(self, head: Any, parts: Any) -> Any:
        run = self._run(head)
        inline = run.peek(head["key"])
        if isinstance(inline, Inline):
            return {"plain": inline.plain}, [inline.data]
        held = run.held(head["key"])
        return self._keep(held), ()

    def _put(self, head: Any, parts: Any) -> Any:
        # A value that is no array stays bytes: to make it here would run its own code.
        value = Inline(bytes(parts[0]), False) if head["opaque"] else unpacked(parts)
        return self._keep(_put(value)), ()

    def _get(self, head: Any, parts: Any) -> Any:
        value = fetch(self._stored[head["stored"]])
        if isinstance(value, Inline):
            return {"plain": value.plain}, [value.data]
        return {"whole": True}, _packed(value)

    def _drop(self, head: Any, parts: Any) -> Any:
        for number in head["stored"]:
            self._stored.pop(number, None)
        return {}, ()

    def _cancel(self, head: Any, parts: Any) -> Any:
        run = self._runs.get(head["run"])
        if run is not None:
            run.cancel()
        return {}, ()

    def _release(self, head: Any, parts: Any) -> Any:
        with self._changed:
            run = self._runs.pop(head["run"], None)
            self._told.pop(head["run"], None)
        if run is not None:
            run.release()
        return {}, ()

    _requests: Final[dict[str, Callable[[_Borrower, Any, Any], Any]]] = {
        "hello": _hello,
        "slots": _slots,
        "bundle_seconds": _bundle_seconds,
        "predict": _predict,
        "cluster": _cluster,
        "submit": _submit,
        "drain": _drain,
        "value": _value,
        "held": _held,
        "put": _put,
        "get": _get,
        "drop": _drop,
        "cancel": _cancel,
        "release": _release,
    }

    def _run(self, head: Any) -> Run:
        run = self._runs.get(head["run"])
        if run is None:
            raise ValueGone
        return run

    def _keep(self, held: Any) -> dict[str, Any]:
        with self._changed:
            self._number += 1
            self._stored[self._number] = held
        return {"stored": self._number, "size": held.size_bytes, "node": held.node_id}

    # --- news --------------------------------------------------------------------------

    def _mark(self, number: int) -> None:
        with self._changed:
            self._dirty[number] = None
            self._changed.notify_all()

    def _tell(self) -> None:
        """Send the borrower all news of its runs in one frame."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._dirty or self._over)
                if self._over:
                    return
                numbers, self._dirty = list(self._dirty), {}
                runs = [(number, self._runs[number]) for number in numbers if number in self._runs]
            news = []
            for number, run in runs:
                # (before the rest is taken: later news is sent the next time)
                done, error = run.done, run.error
                tidings = run.tidings(*self._told.get(number, (0, 0)))
                self._told[number] = (tidings.records_seen, tidings.events_seen)
                values = run.small_values() if done and error is None else {}
                failure = None if error is None else take(error)
                news.append((number, tidings, done, failure, values))
            if not news:
                continue
            try:
                self.wire.send({"op": "told"}, [cloudpickle.dumps(news)])
            except OSError:
                return


class _Unpickler(pickle.Unpickler):
    """Unpickler that puts values which the borrower keeps in the cluster in place in a graph."""

    def __init__(self, file: io.BytesIO, stored: dict[int, Stored]) -> None:
        super().__init__(file)
        self._stored = stored

    def persistent_load(self, number: Any) -> Any:
        return self._stored[number]


def _packed(value: Any) -> list[Bytes]:
    try:
        return packed(value)
    except Exception as error:  # pickle raises anything that the object's hooks raise
        pack_value(value)  # raises the same in our words
        raise SessionError(f"a value cannot be sent: {error}") from error


def _put(value: Any) -> Stored:
    ref = ray.put(value)
    size = len(value.data) if isinstance(value, Inline) else int(getattr(value, "nbytes", 0))
    return Stored(ref, size, ray.get_runtime_context().get_node_id())
