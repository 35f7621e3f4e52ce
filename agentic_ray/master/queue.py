"""Which job is next: strict priority, first in first out among equals. Pure, no locks."""

from __future__ import annotations

import heapq

from agentic_ray.master.jobs import JobRecord


class JobQueue:
    """Identifiers of waiting jobs in the order in which they are to run."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, str]] = []
        self._waiting: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._waiting

    def push(self, record: JobRecord) -> None:
        """Add a job. ``record.sequence`` orders jobs of equal priority."""
        heapq.heappush(self._heap, (-record.priority, record.sequence, record.id))
        self._waiting.add(record.id)

    def pop(self) -> str | None:
        """Take out the job that is next; None if none waits."""
        while self._heap:
            job_id = heapq.heappop(self._heap)[2]
            if job_id in self._waiting:
                self._waiting.remove(job_id)
                return job_id
        return None

    def remove(self, job_id: str) -> bool:
        """Take out this job; False if it does not wait."""
        if job_id not in self._waiting:
            return False
        self._waiting.remove(job_id)
        if len(self._heap) > 2 * len(self._waiting) + 8:
            # Removed jobs leave their entries behind; without this they could pile up.
            self._heap = [entry for entry in self._heap if entry[2] in self._waiting]
            heapq.heapify(self._heap)
        return True
