"""`Audit`: who did what when, in a file that is only added to, each line chained to the one before.

Whoever changes, removes or reorders a line breaks the chain, and `verify` says where. Lines at the
end can be cut off unnoticed unless the last hash is kept elsewhere: `verify` tells it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentic_ray.errors import InvalidArgumentError, JournalError, ServiceError
from agentic_ray.master.jsonvalues import dumps, loads
from agentic_ray.master.private import check_file, open_private

_logger = logging.getLogger("agentic_ray")

_FIRST: Final = "0" * 64
_REFUSALS: Final = 10.0
_LONGEST_LINE: Final = 64 << 10
_TAIL_BYTES: Final = 2 * _LONGEST_LINE


@dataclass(frozen=True, slots=True)
class Verdict:
    """State of a log: its lines, the hash of the last, and the fault found; empty: none."""

    lines: int
    last: str
    problem: str = ""


class Audit:
    """Adds lines to a log; safe to use from any thread. One process at a time has the file.

    Raises
    ------
    ServiceError
        The file cannot be used, or its last line is not one of a log.
    """

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path).expanduser()
        self._clock = clock
        self._lock = threading.Lock()
        self._room, self._refused_at, self._left_out = _REFUSALS, clock(), 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            check_file(self.path)
            self._file = open_private(self.path, "ab")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._number, self._last = self._end()
        except BlockingIOError:
            raise ServiceError(f"another process writes the audit log {self.path}") from None
        except (OSError, JournalError) as error:
            raise ServiceError(f"audit log {self.path}: {error}") from error

    def refused(self, path: str, status: int) -> None:
        """Someone was refused for the token, or the lack of one. At most so many a second are
        written, with how many were left out: they cost whoever sends them nothing."""
        with self._lock:
            now = self._clock()
            self._room = min(_REFUSALS, self._room + max(0.0, now - self._refused_at) * _REFUSALS)
            self._refused_at = now
            if self._room < 1:
                self._left_out += 1
                return
            self._room -= 1
            left_out, self._left_out = self._left_out, 0
        details = {"status": status} | ({"left_out": left_out} if left_out else {})
        self.note("", "", "refused", path[:200], details)

    def note(
        self, user: str, token_id: str, action: str, what: str, details: Mapping[str, Any]
    ) -> None:
        """Add a line. It is handed to the system before this returns, and not waited for.

        What cannot be written is told in the service's own log: the action has happened.
        """
        with self._lock:
            number = self._number + 1
            entry = {
                "number": number,
                "time": self._clock(),
                "user": user,
                "token": token_id,
                "action": action,
                "what": what,
                "details": dict(details),
                "before": self._last,
            }
            text = dumps(entry)
            digest = _hash(text)
            try:
                self._file.write(f'{text[:-1]},"hash":"{digest}"}}\n'.encode("ascii"))
                self._file.flush()
            except OSError as error:
                _logger.error("audit log %s: %s; not written: %s", self.path, error, text)
                return
            self._number, self._last = number, digest

    def close(self) -> None:
        """Write what is to be written, and let go."""
        with self._lock:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def _end(self) -> tuple[int, str]:
        """Number and hash of the last line; a line that was cut off by a crash is taken away."""
        size = self.path.stat().st_size
        if size == 0:
            return 0, _FIRST
        with self.path.open("rb") as file:
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read()
        whole, newline, cut = tail.rpartition(b"\n")
        if cut:
            _logger.warning("audit log %s: a line that was cut off is taken away", self.path)
            os.truncate(self.path, size - len(cut))
            if not newline:
                return 0, _FIRST
        try:
            entry = loads(whole.rpartition(b"\n")[2])
            return int(entry["number"]), str(entry["hash"])
        except (InvalidArgumentError, KeyError, TypeError) as error:
            raise ServiceError(
                f"{self.path} is not an audit log, or is damaged: its last line cannot be read; "
                "`agentic-ray audit verify` says where"
            ) from error


def verify(path: str | Path) -> Verdict:
    """Read a log from its beginning and follow the chain.

    Raises
    ------
    ServiceError
        It cannot be read.
    """
    number, last = 0, _FIRST
    try:
        with Path(path).expanduser().open("rb") as file:
            for line in file:
                problem = _problem(line, number, last)
                if problem:
                    return Verdict(number, last, f"line {number + 1}: {problem}")
                number, last = number + 1, json.loads(line)["hash"]
    except OSError as error:
        raise ServiceError(f"audit log {path}: {error}") from error
    return Verdict(number, last)


def _problem(line: bytes, number: int, last: str) -> str:
    try:
        entry = loads(line)
        digest = entry.pop("hash")
        if not line.endswith(b"\n"):
            return "it is cut off"
        if entry["number"] != number + 1:
            return f"it has number {entry['number']}: lines are missing, added or moved"
        if entry["before"] != last:
            return "it does not follow the line before it"
        if _hash(dumps(entry)) != digest:
            return "it was changed"
    except (InvalidArgumentError, KeyError, TypeError, AttributeError):
        return "it cannot be read"
    return ""


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()
