"""Keeps the lines that jobs print, bounded: in memory, and beside the journal if there is one."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from agentic_ray.ids import Ids
from agentic_ray.logged import PRINTED, tells_of_jobs
from agentic_ray.master.private import open_private, private_folder

_logger = logging.getLogger("agentic_ray")
_printed = logging.getLogger(PRINTED)

KEPT_BYTES: Final = 1 << 20
"""Of what one job prints so much is kept, the newest."""
_LINE_CHARACTERS: Final = 16 << 10
_ALL_BYTES: Final = 64 << 20
_JOBS: Final = 1_000
_PRUNE_EVERY: Final = 100
_OVERHEAD_BYTES: Final = 100


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a job printed.

    Parameters
    ----------
    number : int
        Counts the job's lines from 0.
    time : float
        Seconds since the epoch at which the master read it.
    job, node, stream : str
        Whose it is, the host it was printed on, and ``"stdout"`` or ``"stderr"``.
    text : str
        Without its end.
    request, bundle : str
        The request that submitted the job, and the bundle that printed the line; empty if there is
        none. ``node`` is then the id of the bundle's node.
    """

    number: int
    time: float
    job: str
    node: str
    stream: str
    text: str
    request: str = ""
    bundle: str = ""


class JobLog:
    """The lines of one job. Written to by its thread."""

    def __init__(self, shelf: LogShelf, ids: Ids) -> None:
        self._shelf = shelf
        self._ids = ids
        self._open: dict[str, bytes] = {}
        self._told = 0
        self.lines: deque[LogLine] = deque()
        self.bytes = 0
        self.number = 0

    def write(self, stream: str, data: bytes) -> None:
        """Keep what was printed; a line is complete with its end, or when it is very long."""
        *whole, rest = (self._open.get(stream, b"") + data).split(b"\n")
        while len(rest) > _LINE_CHARACTERS:
            whole.append(rest[:_LINE_CHARACTERS])
            rest = rest[_LINE_CHARACTERS:]
        self._open[stream] = rest
        self._add(stream, whole)

    def write_of(self, bundle: str, node: str, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Keep what a bundle has printed, as lines of their own."""
        for stream, data in pieces:
            if data:
                self._add(stream, data.removesuffix(b"\n").split(b"\n"), bundle, node)

    def end(self) -> None:
        """The job is over: what has no end is a line too."""
        for stream, rest in self._open.items():
            if rest:
                self._add(stream, [rest])
                self._open[stream] = b""

    def _add(self, stream: str, texts: Iterable[bytes], bundle: str = "", node: str = "") -> None:
        now, node = time.time(), node or self._shelf.node
        job, request = self._ids.job, self._ids.request
        made = []
        for text in texts:
            shown = text.decode("utf-8", "replace").removesuffix("\r")
            if len(shown) > _LINE_CHARACTERS:
                shown = f"{shown[:_LINE_CHARACTERS]} [... {len(shown) - _LINE_CHARACTERS:,} more]"
            made.append(LogLine(self.number, now, job, node, stream, shown, request, bundle))
            self.number += 1
        if made:
            self._shelf.keep(self, job, made)
            if tells_of_jobs():
                self._tell(made)

    def _tell(self, lines: Iterable[LogLine]) -> None:
        """Write lines to the log of this process too: what one job prints must not fill it."""
        for line in lines:
            before, self._told = self._told, self._told + _size(line)
            if before > KEPT_BYTES:
                return
            ids = replace(self._ids, bundle=line.bundle)
            about = {"ids": ids, "node": line.node, "stream": line.stream}
            _printed.info("%s", line.text, extra=about)
            if self._told > KEPT_BYTES:
                about = {"ids": self._ids}
                _logger.warning("what job %s prints more is not in this log", ids.job, extra=about)


class LogShelf:
    """The lines of all jobs; safe to use from any thread.

    Parameters
    ----------
    folder : path, optional
        Where each job that printed has a file of its own, for the masters to come. The files of
        the newest 1000 such jobs are kept.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.node = socket.gethostname()
        self._folder = folder
        self._logs: OrderedDict[str, JobLog] = OrderedDict()
        self._bytes = 0
        self._ended = 0
        self._warned = False
        self._lock = threading.Lock()

    def of(self, ids: Ids) -> JobLog:
        """Where a job that begins to run prints to; after what its earlier runs have printed."""
        job_id, log = ids.job, JobLog(self, ids)
        with self._lock:
            earlier = self._logs.get(job_id)
            log.number = earlier.number if earlier is not None else self._last(job_id) + 1
            if earlier is not None:
                log.lines, log.bytes = earlier.lines, earlier.bytes
                self._logs[job_id] = log
        return log

    def keep(self, log: JobLog, job_id: str, lines: list[LogLine]) -> None:
        """For `JobLog`: these are new."""
        with self._lock:
            self._logs[job_id] = log
            self._logs.move_to_end(job_id)
            for line in lines:
                log.lines.append(line)
                log.bytes += _size(line)
                self._bytes += _size(line)
            while log.bytes > KEPT_BYTES:
                self._forget_line(log)
            while self._bytes > _ALL_BYTES and len(self._logs) > 1:
                _, oldest = self._logs.popitem(last=False)
                self._bytes -= oldest.bytes
            self._write(job_id, log, lines)

    def ended(self) -> None:
        """A job is over; now and then the files of the oldest are deleted."""
        with self._lock:
            self._ended += 1
            if self._folder is None or self._ended % _PRUNE_EVERY or not self._folder.is_dir():
                return
            files = sorted(self._folder.glob("*.jsonl"), key=_age, reverse=True)
            for file in files[_JOBS:]:
                file.unlink(missing_ok=True)

    def lines(self, job_id: str, first: int = 0) -> list[LogLine]:
        """The lines that are kept of a job, from number ``first`` on."""
        with self._lock:
            log = self._logs.get(job_id)
            found = list(log.lines) if log is not None else self._read(job_id)
        return [line for line in found if line.number >= first]

    def _forget_line(self, log: JobLog) -> None:
        size = _size(log.lines.popleft())
        log.bytes -= size
        self._bytes -= size

    def _file(self, job_id: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{job_id}.jsonl"

    def _write(self, job_id: str, log: JobLog, lines: list[LogLine]) -> None:
        file = self._file(job_id)
        if file is None:
            return
        try:
            private_folder(file.parent)
            large = file.exists() and file.stat().st_size > 3 * KEPT_BYTES
            content = log.lines if large else lines
            text = "".join(json.dumps(asdict(line)) + "\n" for line in content)
            with open_private(file, "wb" if large else "ab") as out:
                out.write(text.encode("ascii"))
        except OSError as error:
            if not self._warned:
                self._warned = True
                _logger.warning("what jobs print is kept in memory only: %s", error)

    def _read(self, job_id: str) -> list[LogLine]:
        file = self._file(job_id)
        try:
            content = "" if file is None else file.read_text("ascii")
        except (OSError, ValueError):
            return []
        found: deque[LogLine] = deque()
        size = 0
        for text in content.splitlines():
            try:
                line = LogLine(**json.loads(text))
            except (ValueError, TypeError):  # cut off when the master died
                continue
            found.append(line)
            size += _size(line)
            while size > KEPT_BYTES:
                size -= _size(found.popleft())
        return list(found)

    def _last(self, job_id: str) -> int:
        lines = self._read(job_id)
        return lines[-1].number if lines else -1


def _size(line: LogLine) -> int:
    return len(line.text) + _OVERHEAD_BYTES


def _age(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
