"""Where finished stages of unfinished jobs are kept, until their job ends.

What a stage is, and when it is looked up, is in ``runtime.stages``.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Collection

from agentic_ray.errors import JournalError, ResultCorruptError
from agentic_ray.master.results import ResultStore

_logger = logging.getLogger("agentic_ray")


class JobStages:
    """The stages of one job; `runtime.stages.StageStore`."""

    def __init__(self, results: ResultStore, job_id: str, known: dict[str, str]) -> None:
        self._results = results
        self._job_id = job_id
        self._known = known

    def get(self, name: str) -> bytes | None:
        reference = self._known.get(self._blob(name))
        if reference is None:
            return None
        try:
            return self._results.get(reference)
        except ResultCorruptError as error:
            _logger.warning("job %s: a stage is done again: %s", self._job_id, error)
            return None

    def put(self, name: str, content: bytes) -> None:
        blob = self._blob(name)
        try:
            self._known[blob] = self._results.put(blob, content)
        except JournalError as error:
            # The job itself is well: it would only have to do more again.
            _logger.warning("job %s: a finished stage is not kept: %s", self._job_id, error)

    def _blob(self, name: str) -> str:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._job_id}_{digest[:32]}"


class StageShelf:
    """The stages of all jobs.

    Parameters
    ----------
    results : ResultStore or None
        None: nothing is kept.
    unfinished : collection of str
        The jobs that may go on; what is left of others is deleted.
    ours : callable
        Those of given jobs that are in our journal. Another journal may have its stages in the
        same place: those are left alone.
    """

    def __init__(
        self,
        results: ResultStore | None,
        unfinished: Collection[str],
        ours: Callable[[Collection[str]], set[str]],
    ) -> None:
        self._results = results
        self._known: dict[str, dict[str, str]] = {}
        self._sweeper = Sweeper()
        ended: dict[str, list[str]] = {}
        for reference in [] if results is None else results.references():
            blob = reference.rpartition(".")[0]
            job_id = blob.partition("_")[0]
            if job_id in unfinished:
                self._known.setdefault(job_id, {})[blob] = reference
            else:
                ended.setdefault(job_id, []).append(reference)
        if results is not None:
            for job_id in ours(list(ended)):
                self._sweeper.delete(results, ended[job_id])

    def of(self, job_id: str) -> JobStages | None:
        """The stages of a job; None if none are kept."""
        if self._results is None:
            return None
        return JobStages(self._results, job_id, self._known.setdefault(job_id, {}))

    def drop(self, job_id: str) -> None:
        """The job has ended; its stages are deleted soon. Returns at once."""
        known = self._known.pop(job_id, {})
        if self._results is not None and known:
            self._sweeper.delete(self._results, list(known.values()))

    def close(self, seconds: float) -> None:
        """Wait for what is being deleted, but no longer than this."""
        self._sweeper.close(seconds)


class Sweeper:
    """Deletes blobs in a thread of its own: the place where they are may be slow, or gone."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[ResultStore, str] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def delete(self, results: ResultStore, references: Collection[str]) -> None:
        """Delete these, soon."""
        for reference in references:
            self._waiting.put((results, reference))
        if self._thread is None and references:
            self._thread = threading.Thread(target=self._run, name="stages", daemon=True)
            self._thread.start()

    def close(self, seconds: float) -> None:
        """Wait for what is being deleted, but no longer than this."""
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            results, reference = item
            try:
                results.delete(reference)
            except Exception as error:  # file systems behind fsspec raise what they like
                _logger.warning("finished stage %s is not deleted: %s", reference, error)
