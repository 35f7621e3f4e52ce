"""`ResultCache`: results by the content of what made them; bounded, oldest use first out.

The key covers the workload's name and version, its function with all that it sees, its schema,
the user, and the parameters in canonical form.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from agentic_ray.errors import (
    InvalidArgumentError,
    JournalError,
    ResultCorruptError,
    SerializationError,
)
from agentic_ray.graph.keys import content_key
from agentic_ray.master.jsonvalues import loads_result
from agentic_ray.master.results import DirectoryResults, MemoryResults, ResultStore, SignedResults
from agentic_ray.master.workloads import Workload


def cache_key(workload: Workload, user: str, params_digest: str) -> str | None:
    """The key of a job; None if it must not be answered from the cache.

    Parameters
    ----------
    user : str
        Whose job it is: nobody is answered with what was computed for another.
    params_digest : str
        `digest_of` its parameters.
    """
    if workload.effects or not workload.cache:
        return None
    try:
        what = (workload.name, workload.version, workload.function, workload.schema)
        return content_key("job", *what, user, params_digest)
    except SerializationError:
        return None  # it holds what cannot be looked into, so it may not be the same next time


def open_cache(max_bytes: int, beside: Path | None, key: bytes = b"") -> ResultCache | None:
    """A cache of so many bytes, kept on disk ``beside`` a journal's file if there is one.

    ``key`` is the journal's: what was not written with it answers no job.
    """
    if max_bytes <= 0:
        return None
    if beside is None:
        return ResultCache(max_bytes)
    kept = DirectoryResults(f"{beside}.cache", sync=False)
    return ResultCache(max_bytes, SignedResults(kept, key))


class ResultCache:
    """JSON texts of results by key; safe to use from any thread.

    Parameters
    ----------
    max_bytes : int
        Bytes of JSON text kept; 0 turns it off.
    results : ResultStore, optional
        Where they are kept; what is there already is used. Default: in memory.
    """

    def __init__(self, max_bytes: int, results: ResultStore | None = None) -> None:
        self._max_bytes = max_bytes
        self._results: ResultStore = MemoryResults() if results is None else results
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._bytes = 0
        if max_bytes > 0:
            for reference in self._results.references():
                key, _, size = reference.rpartition(".")[0].rpartition("_")
                if size.isdigit():
                    self._entries[key] = reference, int(size)
                    self._bytes += int(size)
            self._shrink()

    def get(self, key: str) -> tuple[Any, int] | None:
        """The result and the length of its text, or None; a damaged entry is dropped."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
        try:
            return loads_result(self._results.get(entry[0])), entry[1]
        except (ResultCorruptError, InvalidArgumentError):
            with self._lock:
                self._drop(key)
            return None

    def put(self, key: str, text: str) -> None:
        """Keep a result; too large a one, or one that cannot be stored, is not kept."""
        size = len(text)
        if size > self._max_bytes:
            return
        try:
            reference = self._results.put(f"{key}_{size}", text.encode("ascii"))
        except JournalError:
            return  # a cache may forget
        with self._lock:
            known = self._entries.pop(key, None)
            self._bytes += size - (known[1] if known else 0)
            self._entries[key] = reference, size
            if known and known[0] != reference:
                self._results.delete(known[0])
            self._shrink()

    def _shrink(self) -> None:
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1]
            self._results.delete(entry[0])
