"""The function processes of one card: started when a call needs one, kept warm, ended when idle.

Used by the executor of the card, from several threads. A process is made for one function; it is
ended when another function needs its memory, or after a while without calls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Any, Final

from ray import cloudpickle

from agentic_ray.runtime.failures import BundleCancelled, PackedError
from agentic_ray.runtime.functions.nursery import ForkedProcess, Nursery
from agentic_ray.runtime.printed import Piece

IDLE_SECONDS: Final = 30.0
"""A process without calls for this long is ended."""
_LOOK_SECONDS: Final = 0.05
_IDLE_LOOK_SECONDS: Final = 1.0
_RELEASE_SECONDS: Final = 10.0
"""Longest wait for the driver to take in that a process has ended."""


class ProcessDiedError(Exception):
    """Internal: the process ended during a call; ``exit_code`` as `subprocess` gives it."""

    def __init__(self, pid: int, exit_code: int) -> None:
        super().__init__(pid, exit_code)
        self.pid = pid
        self.exit_code = exit_code


class CardFullError(Exception):
    """Internal: others hold the memory that a call was admitted for. The call has not begun."""


class RaisedError(Exception):
    """Internal: the function raised. ``short``: the card's memory did not suffice. ``printed``:
    text that it printed before."""

    def __init__(self, packed: PackedError, short: bool, printed: tuple[Piece, ...]) -> None:
        super().__init__()
        self.packed = packed
        self.short = short
        self.printed = printed


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer of a call: the pickled result and whether it is plain, the seconds in the function,
    the most memory of the card that the process held meanwhile (None: not known), and the text
    that the function printed."""

    data: bytes
    plain: bool
    seconds: float
    peak_bytes: int | None
    printed: tuple[Piece, ...]


@dataclass(slots=True, eq=False)
class _Process:
    child: ForkedProcess
    calls: Connection
    life: Connection
    function: str
    busy: bool = True
    promised_bytes: int = 0
    idle_since: float = 0.0
    held_bytes: int = 0
    peak_bytes: int | None = None

    def end(self) -> None:
        """End the process; return when it has ended."""
        self.child.kill()
        self.child.wait()
        self.calls.close()
        self.life.close()


class FunctionPool:
    """The function processes of one card.

    Parameters
    ----------
    environment : mapping
        Environment variables that show a process this card only.
    free_bytes : callable
        Returns the card's free memory as the driver reports it now; None when it is not known.
    held_bytes : callable
        Returns the memory of the card by process id, as the driver reports it now; None when it is
        not known.
    idle_seconds : float
        See `IDLE_SECONDS`.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        free_bytes: Callable[[], int | None],
        held_bytes: Callable[[], Mapping[int, int] | None],
        *,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._nursery = Nursery(environment)
        self._free_bytes = free_bytes
        self._held_of = held_bytes
        self._idle_seconds = idle_seconds
        self._processes: list[_Process] = []
        self._lock = threading.RLock()
        self._admission = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._watcher: threading.Thread | None = None

    # --- questions -----------------------------------------------------------------------

    def held_bytes(self) -> int:
        """Return the memory of the card that the processes hold together now."""
        if not self._processes:
            return 0
        self._look()
        with self._lock:
            return sum(process.held_bytes for process in self._processes)

    def promised_bytes(self) -> int:
        """Return the memory that calls under way may still come to take beyond what their
        processes hold."""
        self._look()
        with self._lock:
            return sum(
                max(0, process.promised_bytes - process.held_bytes)
                for process in self._processes
                if process.busy
            )

    def pids(self) -> list[int]:
        """Return the ids of the processes that are there."""
        with self._lock:
            return [process.child.pid for process in self._processes]

    # --- calls ---------------------------------------------------------------------------

    @contextmanager
    def process(
        self,
        function: tuple[str, str, bytes],
        need_bytes: int,
        *,
        is_cancelled: Callable[[], bool],
        note: Callable[[str, str], None],
        free_others: Callable[[], str] = lambda: "nothing",
        threads: int | None = None,
    ) -> Iterator[Callable[[tuple[Any, ...]], Answer]]:
        """Hold a process of a function inside the block: a warm one, or a new one.

        Parameters
        ----------
        function : (str, str, bytes)
            Token, name and pickle of its codelet.
        need_bytes : int
            Memory of the card that the process may come to hold in all; 0: not known.
        is_cancelled : callable
            Asked all the time; the process of a cancelled call is ended.
        note : callable
            Takes kind and text of things worth telling.
        free_others : callable
            Frees memory of the card that the executor itself can do without; says what it freed.
        threads : int, optional
            Threads for the process's libraries.

        Yields
        ------
        callable
            ``call(args)`` makes the call and returns its `Answer`; raises RaisedError,
            ProcessDiedError or BundleCancelled.

        Raises
        ------
        CardFullError
            Other programs hold the memory.
        """
        token, name, data = function
        found = self._warm(token)
        try:
            held = 0 if found is None else found.held_bytes
            is_new = found is None
            with self._admission:  # the next one sees what this one is promised
                self.make_room(need_bytes - held, note, free_others)
                if found is None:
                    found = self._start(token)
                found.promised_bytes = need_bytes
            if is_new:
                with self._telling(found, is_cancelled) as tell:
                    tell("function", name, data, threads)
            process = found

            def call(args: tuple[Any, ...]) -> Answer:
                with self._telling(process, is_cancelled) as tell:
                    pickled, plain, seconds, printed = tell("call", name, args)
                self._look()
                return Answer(pickled, plain, seconds, process.peak_bytes, tuple(printed))

            yield call
        finally:
            if found is not None:
                self._give_back(found)

    def make_room(
        self,
        wanted_bytes: int,
        note: Callable[[str, str], None],
        free_others: Callable[[], str] = lambda: "nothing",
    ) -> None:
        """End processes without calls until so many bytes of the card are free.

        Raises
        ------
        CardFullError
            There are not so many even then.
        """
        if wanted_bytes <= 0:
            return
        deadline = time.monotonic() + _RELEASE_SECONDS
        ended = asked = False
        while True:
            free = self._free_bytes()
            if free is None or free - self.promised_bytes() >= wanted_bytes:
                return
            if self._end_idle_one():
                ended = True
                note("memory: freed", "a warm function process without work was ended")
            elif not asked:
                asked = True
                note("memory: freed", free_others())
            elif not ended or time.monotonic() >= deadline:
                raise CardFullError(
                    f"{wanted_bytes:,} bytes more are needed and {free:,} are free on the card, "
                    f"{self.promised_bytes():,} of them promised to other calls: other programs "
                    "hold the rest"
                )
            else:
                time.sleep(_LOOK_SECONDS)  # until the driver has taken in that it ended

    def end_idle(self) -> int:
        """End all processes without calls; return the bytes that they held."""
        freed = 0
        while (held := self._end_idle_one()) is not None:
            freed += held
        return freed

    def close(self) -> None:
        with self._lock:
            self._closed = True
            processes, self._processes = self._processes, []
            self._changed.notify_all()
        for process in processes:
            process.end()
        self._nursery.close()

    # --- processes -----------------------------------------------------------------------

    def _warm(self, token: str) -> _Process | None:
        """Take a process of this function that has no call; the one used last is the warmest."""
        with self._lock:
            idle = [p for p in self._processes if not p.busy and p.function == token]
            idle = [p for p in idle if p.child.poll() is None]
            if not idle:
                return None
            found = max(idle, key=lambda process: process.idle_since)
            found.busy = True
            found.peak_bytes = found.held_bytes or None
            return found

    def _start(self, token: str) -> _Process:
        here, there = Pipe()
        life_here, life_there = Pipe()
        try:
            child = self._nursery.fork(there.fileno(), life_there.fileno())
        except ChildProcessError:
            here.close()
            life_here.close()
            raise
        finally:
            there.close()
            life_there.close()
        process = _Process(child, here, life_here, token)
        with self._lock:
            self._processes.append(process)
            closed = self._closed
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = threading.Thread(
                    target=self._watch, name="function-processes", daemon=True
                )
                self._watcher.start()
            self._changed.notify_all()
        if closed:
            self._end(process)
            raise ProcessDiedError(child.pid, -9)
        return process

    @contextmanager
    def _telling(
        self, process: _Process, is_cancelled: Callable[[], bool]
    ) -> Iterator[Callable[..., Any]]:
        """Talk to a process inside the block; a process that cannot be talked to is ended."""

        def tell(*what: Any) -> Any:
            process.calls.send_bytes(cloudpickle.dumps(what))
            # (EOF is no sure sign: a process that the child started may hold the pipe open.)
            while not process.calls.poll(_LOOK_SECONDS * 2):
                if is_cancelled():
                    raise BundleCancelled
                if process.child.poll() is not None and not process.calls.poll(0):
                    raise EOFError
            kind, *said = cloudpickle.loads(process.calls.recv_bytes())
            if kind == "raised":
                raise RaisedError(*said)
            return said

        try:
            yield tell
        except (EOFError, OSError):
            self._end(process)
            raise ProcessDiedError(process.child.pid, process.child.wait()) from None
        except RaisedError:
            raise
        except BaseException:
            self._end(process)
            raise

    def _give_back(self, process: _Process) -> None:
        with self._lock:
            process.busy = False
            process.promised_bytes = 0
            process.idle_since = time.monotonic()
            self._changed.notify_all()

    def _end(self, process: _Process) -> None:
        with self._lock, suppress(ValueError):  # it was ended by another thread
            self._processes.remove(process)
        process.end()

    def _end_idle_one(self) -> int | None:
        """End the process that has had no call for longest; return the bytes that it held, None if
        all have calls."""
        with self._lock:
            idle = [process for process in self._processes if not process.busy]
            if not idle:
                return None
            oldest = min(idle, key=lambda process: process.idle_since)
            self._processes.remove(oldest)
        held = oldest.held_bytes
        oldest.end()
        return held

    # --- what the driver says ------------------------------------------------------------

    def _look(self) -> None:
        """Ask the driver how much memory each process holds."""
        held = self._held_of()
        if held is None:
            return
        with self._lock:
            for process in self._processes:
                now = held.get(process.child.pid, 0)
                process.held_bytes = now
                if now:
                    process.peak_bytes = max(process.peak_bytes or 0, now)

    def _watch(self) -> None:
        """Follow the memory of processes with calls, and end those without for long."""
        while True:
            with self._changed:
                if not self._processes:
                    self._watcher = None
                    return
                busy = any(process.busy for process in self._processes)
                if not busy:
                    self._changed.wait(_IDLE_LOOK_SECONDS)
            if busy:
                time.sleep(_LOOK_SECONDS)
                self._look()
            before = time.monotonic() - self._idle_seconds
            with self._lock:
                late = [p for p in self._processes if not p.busy and p.idle_since < before]
                for process in late:
                    self._processes.remove(process)
            for process in late:
                process.end()


def threads_of(cpus: float) -> int | None:
    """Return the threads for a function that takes so many CPUs; None if it names no number."""
    return max(1, int(cpus)) if cpus else None
