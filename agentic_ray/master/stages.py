"""Where finished stages of unfinished jobs are kept, until their job ends.

What a stage is, and when it is looked up, is in ``runtime.stages``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection

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
    """

    def __init__(self, results: ResultStore | None, unfinished: Collection[str]) -> None:
        self._results = results
        self._known: dict[str, dict[str, str]] = {}
        for reference in [] if results is None else results.references():
            blob = reference.rpartition(".")[0]
            job_id = blob.partition("_")[0]
            if job_id in unfinished:
                self._known.setdefault(job_id, {})[blob] = reference
            elif results is not None:
                results.delete(reference)

    def of(self, job_id: str) -> JobStages | None:
        """The stages of a job; None if none are kept."""
        if self._results is None:
            return None
        return JobStages(self._results, job_id, self._known.setdefault(job_id, {}))

    def drop(self, job_id: str) -> None:
        """The job has ended."""
        for reference in list(self._known.pop(job_id, {}).values()):
            if self._results is not None:
                self._results.delete(reference)
