"""The file that a session's events and decisions are recorded in."""

from __future__ import annotations

import logging
import os
import platform
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TextIO

import ray

from agentic_ray.config import cache_directory
from agentic_ray.errors import InvalidArgumentError, SessionError
from agentic_ray.schedule.recording import ENDED
from agentic_ray.schedule.ring import LastEvents

_logger = logging.getLogger("agentic_ray")
MOST_BYTES = 2**30
"""A recording ends when its file would become larger than this."""
MOST_FAULTS = 10
"""Files of last events that are kept after internal errors of a user's sessions: the newest."""
_BEGIN_SECONDS = 60.0


class Recording:
    """A recording under way; use it in a ``with`` block, or close it.

    Attributes
    ----------
    path : Path
        File of the recording, which only its owner may read: it names tasks and quotes errors.
    why_ended : str
        Reason why it ended; "" while it goes on.
    """

    def __init__(self, path: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> None:
        self.path = Path(path)
        self.why_ended = ""
        self._most_bytes = most_bytes
        self._size = 0
        self._stop: Callable[[], None] | None = None
        try:
            descriptor = _opened_for_its_owner(self.path)
            self._file: TextIO = os.fdopen(descriptor, "w", buffering=1, encoding="utf-8")
        except OSError as error:
            raise InvalidArgumentError(f"{path} cannot be recorded in: {error}") from error

    @classmethod
    def of(cls, folder: str | os.PathLike[str], session: str) -> Recording:
        """Open a new file for a session's recording, in a folder that exists."""
        return cls(Path(folder) / f"{time.strftime('%Y%m%d-%H%M%S')}-{session}.jsonl")

    def stops_by(self, stop: Callable[[], None]) -> None:
        """Register ``stop``, which must end the writing, to be called when the recording ends."""
        self._stop = stop

    def write(self, text: str) -> None:
        """Write a line, unless the recording has ended. Never raises, so that work goes on."""
        if self.why_ended:
            return
        self._size += len(text)
        if self._size > self._most_bytes:
            self.end(f"its file has reached {self._most_bytes} bytes")
            return
        try:
            self._file.write(text)
        except (OSError, ValueError) as error:
            self.end(f"it cannot be written: {error}")

    def end(self, why: str) -> None:
        """End the recording because of ``why``; write nothing more."""
        if self.why_ended:
            return
        self.why_ended = why
        if self._stop is not None:
            self._stop()
        if why != "closed":
            _logger.warning("the recording %s has ended: %s", self.path, why)
        try:
            self._file.write(ENDED)
            self._file.close()
        except (OSError, ValueError) as error:
            _logger.warning("the end of %s cannot be written: %s", self.path, error)

    def close(self) -> None:
        """End the recording."""
        self.end("closed")

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<recording {self.path}, {self.why_ended or 'under way'}>"


class Recordings:
    """The recordings of a session, one at a time.

    Parameters
    ----------
    record : callable
        Makes the loop write to a recording; returns a future that is set when it has begun.
    stop : callable
        Makes the loop write nothing more.
    last_events : callable
        Asks the loop for the last events and decisions; returns a future.
    session : str
        Name of the session.
    """

    def __init__(
        self,
        record: Callable[[Recording, dict[str, str]], Future[None]],
        stop: Callable[[], None],
        last_events: Callable[[], Future[LastEvents | None]],
        session: str,
    ) -> None:
        self._record = record
        self._stop = stop
        self._last_events = last_events
        self._session = session
        self._present: Recording | None = None

    def begin(self, recording: Recording, *, wait: bool) -> Recording:
        """Begin to write; without ``wait`` writing begins before the session does anything else.

        Raises
        ------
        SessionError
            The session records already, values of earlier work are still held, or a lease is open.
        """
        if self._present is not None and not self._present.why_ended:
            recording.end("closed")
            raise SessionError(f"the session records already: {self._present!r}")
        recording.stops_by(self._stop)
        began = self._record(recording, _about(self._session, "began"))
        if wait:
            try:
                began.result(_BEGIN_SECONDS)
            except BaseException:
                recording.end("closed")
                raise
        self._present = recording
        return recording

    def close(self) -> None:
        """End the recording that is under way, if there is one."""
        if self._present is not None:
            self._present.close()

    def write_last(self, path: str | os.PathLike[str]) -> int:
        """Write the last events to a file; return their number.

        Raises
        ------
        SessionError
            The session keeps none.
        InvalidArgumentError
            The file cannot be written.
        """
        last = self._last_events().result(_BEGIN_SECONDS)
        if last is None:
            raise SessionError("the session keeps no events: its setting kept_events is 0")
        write_last(path, self._session, last)
        return len(last.notes)


def write_last(path: str | os.PathLike[str], session: str, last: LastEvents) -> None:
    """Write the last events of a session to a file that only its owner may read.

    Raises
    ------
    InvalidArgumentError
        The file cannot be written.
    """
    try:
        with os.fdopen(_opened_for_its_owner(Path(path)), "w", encoding="utf-8") as file:
            file.writelines(last.lines(_about(session, "written")))
    except OSError as error:
        raise InvalidArgumentError(f"{path} cannot be recorded in: {error}") from error


def after_a_fault(session: str, last: LastEvents) -> str:
    """Write the last events before an internal error, in the user's cache directory; return a
    sentence that tells where. Never raises, since other work goes on."""
    folder = cache_directory() / "faults"
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{session}.jsonl"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_last(path, session, last)
        for old in sorted(folder.glob("*.jsonl"))[:-MOST_FAULTS]:
            old.unlink(missing_ok=True)
    except Exception as error:
        _logger.warning("the last events cannot be written to %s: %s", path, error)
        return ""
    return f"The last {len(last.notes)} events are in {path}, for agentic-ray replay"


def _about(session: str, moment: str) -> dict[str, str]:
    return {
        "session": session,
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "ray": ray.__version__,
        moment: time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _opened_for_its_owner(path: Path) -> int:
    """Open a file that nobody else may read, refusing a link that somebody has laid there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor
