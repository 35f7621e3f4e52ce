"""`Told`: which ends of jobs the webhooks have dealt with, in a file, for the service to come."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import Final

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.master.private import open_private

_logger = logging.getLogger("agentic_ray")

MARGIN_SECONDS: Final = 10.0
"""Ends may become known in another order than that of their times, by less than this."""
_WRITE_SECONDS: Final = 1.0


class Told:
    """Until when all ends have been dealt with; safe to use from any thread.

    The time does not go on while ends that were missed are looked for (`missed` to `caught_up`), so
    that a kill in between loses nothing.

    Parameters
    ----------
    file : path
        A new one begins now: what has ended before is nobody's to tell.

    Raises
    ------
    InvalidArgumentError
        The file cannot be read, or is another one.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._disk = threading.Lock()
        self._open: dict[str, list[float]] = {}
        self._recent: dict[str, float] = {}
        self._newest = 0.0
        self._written_at = -1e9
        self._held = False
        try:
            content = file.read_text("ascii")
        except FileNotFoundError:
            self._begun = self._newest = time.time()
            self.write()
            return
        except (OSError, ValueError) as error:
            raise InvalidArgumentError(f"the state of webhooks {file}: {error}") from error
        try:
            told = json.loads(content)
            self._begun, self._newest = float(told["begun"]), float(told["told_until"])
            self._recent = {str(job_id): float(at) for job_id, at in told["recent"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InvalidArgumentError(f"{file} is not the state of webhooks") from None

    def missed(self) -> float:
        """Some ends may never be heard of; return the time from which on they are to be looked for,
        in seconds since the epoch."""
        with self._lock:
            self._held = True
            return max(self._begun, self._until() - MARGIN_SECONDS)

    def caught_up(self) -> None:
        """The ends that were missed are on their way."""
        with self._lock:
            self._held = False
        self.write()

    def begin(self, job_id: str, ended_at: float, urls: int) -> bool:
        """So many are to be told of an end; False if they are told already."""
        with self._lock:
            if job_id in self._open or job_id in self._recent:
                return False
            self._open[job_id] = [ended_at, urls]
            self._newest = max(self._newest, ended_at)
            return True

    def done(self, job_id: str) -> None:
        """Note that one receiver was told of the end of a job, or was given up."""
        with self._lock:
            known = self._open[job_id]
            known[1] -= 1
            if not known[1]:
                self._recent[job_id] = self._open.pop(job_id)[0]
            due = time.monotonic() - self._written_at >= _WRITE_SECONDS
        if due:
            self.write()

    def write(self) -> None:
        """Write it down, all or nothing."""
        with self._disk:
            with self._lock:
                if self._held:
                    return
                until = self._until()
                oldest = until - MARGIN_SECONDS
                self._recent = {key: at for key, at in self._recent.items() if at >= oldest}
                told = {"begun": self._begun, "told_until": until, "recent": self._recent}
                content = json.dumps(told)
                self._written_at = time.monotonic()
            draft = self._file.with_name(f"{self._file.name}.tmp")
            try:
                with open_private(draft, "wb") as out:
                    out.write(content.encode("ascii"))
                draft.replace(self._file)
            except OSError as error:
                _logger.warning("the state of webhooks cannot be written: %s", error)

    def _until(self) -> float:
        return min((ended_at for ended_at, _ in self._open.values()), default=self._newest)
