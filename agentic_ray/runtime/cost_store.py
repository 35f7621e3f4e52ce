"""Keeps the knowledge of a cost model across sessions, in SQLite under the user's cache directory.

Reading and writing only; `schedule.cost_model` tells what the figures mean. A store never makes
work fail: a file that cannot be used is set aside, and a write that fails is left out.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from agentic_ray.config import cache_directory
from agentic_ray.schedule.cost_model import MOST_CODELETS, CostModel, Knowledge
from agentic_ray.schedule.curves import size_class
from agentic_ray.schedule.device_memory import Peak

_logger = logging.getLogger("agentic_ray")
_VERSION = 1
_APPLICATION = 0x41524159  # "ARAY", in the header of the file
_BUSY_SECONDS = 5.0
MOST_ROWS = MOST_CODELETS
"""Most rows kept; of more, the rows written longest ago are dropped."""
_MOST_PEAKS = 4096
_FORGET_PEAKS = """
DELETE FROM device_peaks WHERE updated < (
    SELECT updated FROM device_peaks ORDER BY updated DESC LIMIT 1 OFFSET ? - 1
)
"""
_PEAKS = """
CREATE TABLE IF NOT EXISTS device_peaks (
    function TEXT NOT NULL,
    items INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    updated REAL NOT NULL,
    PRIMARY KEY (function, items)
) WITHOUT ROWID
"""
"""Memory that functions held on cards. (Added to stores of the version that had no such table.)"""
_FORGET = """
DELETE FROM knowledge WHERE updated < (
    SELECT updated FROM knowledge ORDER BY updated DESC LIMIT 1 OFFSET ? - 1
)
"""
_SCHEMA = """
CREATE TABLE knowledge (
    codelet TEXT NOT NULL,
    kind TEXT NOT NULL,
    size_class INTEGER NOT NULL,
    sizes TEXT NOT NULL,
    seconds TEXT NOT NULL,
    updated REAL NOT NULL,
    PRIMARY KEY (codelet, kind, size_class)
) WITHOUT ROWID
"""


class CostStore:
    """A file of observed costs, shared by all sessions of a user on a machine.

    Parameters
    ----------
    path : Path, optional
        Default: ``costs.sqlite`` under `config.cache_directory`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_directory() / "costs.sqlite"

    def load(self, model: CostModel) -> int:
        """Teach ``model`` the knowledge of earlier sessions; return the number of size classes.

        A file that is damaged, of another version or no store at all is renamed, with a warning.
        """
        try:
            if not self.path.exists():
                return 0
            with closing(self._open()) as connection:
                known = list(_read(connection))
                peaks = list(_read_peaks(connection))
        except (sqlite3.Error, ValueError, OSError) as error:
            self._failed("read", error)
            return 0
        model.learn(known)
        model.device_peaks.learn(peaks)
        return len(known)

    def save(self, model: CostModel) -> bool:
        """Write down the knowledge of ``model``. Size classes that it does not know are kept as
        they are, so that sessions side by side add up. Return False, with a warning, if writing
        fails."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(
                    "INSERT OR REPLACE INTO knowledge VALUES (?, ?, ?, ?, ?, ?)",
                    _rows(model.knowledge(), time.time()),
                )
                connection.execute(_FORGET, (MOST_ROWS,))
                connection.executemany(
                    "INSERT OR REPLACE INTO device_peaks VALUES (?, ?, ?, ?)",
                    _peak_rows(model.device_peaks.knowledge(), time.time()),
                )
                connection.execute(_FORGET_PEAKS, (_MOST_PEAKS,))
        except (sqlite3.Error, ValueError, OSError) as error:
            self._failed("written", error)
            return False
        return True

    def _open(self) -> sqlite3.Connection:
        """Open a connection to a store of this version.

        Raises
        ------
        ValueError
            The file is another program's, or of another version.
        sqlite3.Error
            The file is damaged, locked for long, or no database.
        """
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS)
        try:
            if _identity(connection) != (_APPLICATION, _VERSION):
                connection.execute("BEGIN IMMEDIATE")  # another session may be doing the same
                _begin_store(connection)
                connection.commit()
            connection.execute(_PEAKS)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    def _failed(self, doing: str, error: Exception) -> None:
        """Warn why there is no store; set the file aside if it will never be one."""
        busy = isinstance(error, sqlite3.OperationalError)  # locked, read-only, no space
        if busy or isinstance(error, OSError):
            _logger.warning("learnt costs cannot be %s (%s: %s)", doing, self.path, error)
            return
        aside = self.path.with_suffix(f".{int(time.time())}-{os.getpid()}.bad")
        try:
            self.path.replace(aside)
            # The journal belongs to the file that is gone.
            self.path.with_name(f"{self.path.name}-journal").unlink(missing_ok=True)
        except OSError as problem:
            _logger.warning("%s cannot be used (%s) nor moved (%s)", self.path, error, problem)
            return
        _logger.warning("%s is no store of costs (%s); it is now %s", self.path, error, aside.name)


def _identity(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the application and the version in the header of the file; zeros in a new file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version


def _begin_store(connection: sqlite3.Connection) -> None:
    """Make an empty file a store; inside a transaction.

    Raises
    ------
    ValueError
        The file is not empty and no store of this version.
    """
    identity = _identity(connection)
    if identity == (_APPLICATION, _VERSION):
        return  # the other session was quicker
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables or identity != (0, 0):
        raise ValueError(f"it is of version {identity[1]} of application {identity[0]:#x}")
    connection.execute(_SCHEMA)
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def _rows(
    known: Iterable[Knowledge], now: float
) -> Iterator[tuple[str, str, int, str, str, float]]:
    for one in known:
        if one.codelet.startswith("__main__."):
            continue  # in another program that is another function
        index = size_class(one.sizes[-1])
        sizes, seconds = json.dumps(one.sizes), json.dumps(one.seconds)
        yield one.codelet, one.kind, index, sizes, seconds, now


def _peak_rows(known: Iterable[Peak], now: float) -> Iterator[tuple[str, int, int, float]]:
    for one in known:
        if not one.function.startswith("__main__."):  # in another program another function
            yield one.function, one.items, one.size_bytes, now


def _read_peaks(connection: sqlite3.Connection) -> Iterator[Peak]:
    for function, items, size in connection.execute(
        "SELECT function, items, size_bytes FROM device_peaks ORDER BY function, items"
    ):
        usable = isinstance(function, str) and isinstance(items, int) and isinstance(size, int)
        if not (usable and items > 0 and size > 0):
            raise ValueError(f"what it says of the memory of {function!r} makes no sense")
        yield Peak(function, items, size)


def _read(connection: sqlite3.Connection) -> Iterator[Knowledge]:
    for codelet, kind, sizes_text, seconds_text in connection.execute(
        "SELECT codelet, kind, sizes, seconds FROM knowledge ORDER BY codelet, kind, size_class"
    ):
        sizes, seconds = json.loads(sizes_text), json.loads(seconds_text)
        usable = (
            kind in ("cpu", "gpu")
            and isinstance(codelet, str)
            and isinstance(sizes, list)
            and isinstance(seconds, list)
            and len(sizes) == len(seconds) > 0
            and all(isinstance(x, int | float) and 0 < x < math.inf for x in [*sizes, *seconds])
        )
        if not usable:
            raise ValueError(f"what it says of {codelet!r} makes no sense")
        yield Knowledge(codelet, kind, tuple(map(float, sizes)), tuple(map(float, seconds)))
