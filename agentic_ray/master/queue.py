"""The queue of jobs: strict priority with ageing, then a fair share for each user. Pure, no locks.

Time comes in with the calls, from a clock that does not go back.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

from agentic_ray.errors import QueueFullError
from agentic_ray.master.jobs import JobRecord

QUEUED_BYTES = 512 << 20

_PER_JOB_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 60.0
_USERS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Limits on the jobs that wait and run, and the worth of waiting.

    Parameters
    ----------
    max_queued : int
        Jobs that may wait, of all users together.
    max_queued_per_user, max_running_per_user : int or None
        The same of one user; None: no limit of its own.
    ageing_seconds : float
        A job that has waited so long counts as one priority higher, and so on: no job waits
        for ever behind a stream of more important ones. `math.inf` turns it off.
    max_queued_bytes : int
        JSON text of the parameters of all jobs that wait.
    """

    max_queued: int = 10_000
    max_queued_per_user: int | None = None
    max_running_per_user: int | None = None
    ageing_seconds: float = 60.0
    max_queued_bytes: int = QUEUED_BYTES


@dataclass(slots=True)
class _User:
    """A user's waiting jobs and share.

    ``served`` is virtual time: jobs started, lifted to that of the others on return from
    having none, so that a pause earns no credit.
    """

    heap: list[tuple[float, int, str]] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)
    running: int = 0
    served: int = 0

    @property
    def active(self) -> bool:
        return bool(self.waiting or self.running)


class JobQueue:
    """Identifiers of waiting jobs, and who is next.

    The highest priority level goes first, counting one level for each ``ageing_seconds``
    waited. On one level the user with the fewest running jobs is next, then the one who was
    served least, then the job that came first. Of one user's jobs, those of equal priority run
    in the order of submission.
    """

    def __init__(self, limits: QueueLimits | None = None) -> None:
        self._limits = limits or QueueLimits()
        self._users: dict[str, _User] = {}
        self._owner: dict[str, str] = {}
        self._entered: dict[str, tuple[float, int, int]] = {}
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._now = -math.inf
        self._virtual = 0

    def __len__(self) -> int:
        return len(self._owner)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._owner

    def check_room(
        self,
        user: str,
        pending: int = 0,
        pending_of_user: int = 0,
        *,
        size_bytes: int = 0,
        pending_bytes: int = 0,
    ) -> None:
        """Refuse what would not fit.

        Parameters
        ----------
        pending, pending_of_user : int
            Jobs accepted that are not in the queue yet: of all, and of this user.
        size_bytes, pending_bytes : int
            Of the job itself, and of those that are accepted.

        Raises
        ------
        QueueFullError
            With the time after which to try again.
        """
        waiting = len(self) + pending
        if waiting >= self._limits.max_queued:
            raise QueueFullError(
                f"the queue is full: {waiting} jobs wait; try again later", retry_after(waiting)
            )
        held = self._bytes + pending_bytes
        if held + size_bytes > self._limits.max_queued_bytes:
            raise QueueFullError(
                f"the queue is full: {held:,} bytes of parameters wait and {size_bytes:,} more "
                f"would come, where {self._limits.max_queued_bytes:,} may; try again later",
                retry_after(waiting),
            )
        limit = self._limits.max_queued_per_user
        known = self._users.get(user)
        of_user = (0 if known is None else len(known.waiting)) + pending_of_user
        if limit is not None and of_user >= limit:
            raise QueueFullError(
                f"the queue is full for user {user!r}: {of_user} of the user's jobs wait; "
                "try again later",
                retry_after(of_user),
            )

    def push(self, record: JobRecord, entered: float) -> None:
        """Add a job that has waited since ``entered``, on the clock of `pop`.

        ``record.sequence`` orders jobs of equal priority.
        """
        self._now = max(self._now, entered)
        if len(self._users) > _USERS_KEPT:
            self._forget_idle()  # names come from outside: they must not pile up
        user = self._users.setdefault(record.user, _User())
        if not user.waiting:
            user.served = max(user.served, self._virtual)
        aged = entered / self._limits.ageing_seconds
        heapq.heappush(user.heap, (aged - record.priority, record.sequence, record.id))
        user.waiting.add(record.id)
        self._owner[record.id] = record.user
        self._entered[record.id] = (entered, record.priority, record.sequence)
        self._sizes[record.id] = record.size_bytes
        self._bytes += record.size_bytes

    def pop(self, now: float | None = None) -> str | None:
        """Take out the job that is next, as of ``now`` in seconds; None if none may run."""
        if now is not None:
            self._now = max(self._now, now)
        best: tuple[tuple[float, int, int, int], str] | None = None
        limit = self._limits.max_running_per_user
        for name, user in self._users.items():
            head = self._head(user)
            if head is None or (limit is not None and user.running >= limit):
                continue
            entered, priority, sequence = self._entered[head]
            level = priority + (self._now - entered) // self._limits.ageing_seconds
            rank = (-level, user.running, user.served, sequence)
            if best is None or rank < best[0]:
                best = rank, name
        if best is None:
            return None
        user = self._users[best[1]]
        job_id = heapq.heappop(user.heap)[2]
        self._take(user, job_id)
        self._virtual = max(self._virtual, user.served)
        user.served += 1
        user.running += 1
        return job_id

    def stopped(self, user: str) -> None:
        """A job of this user that `pop` gave out no longer runs."""
        self._users[user].running -= 1

    def remove(self, job_id: str) -> bool:
        """Take out this job; False if it does not wait."""
        name = self._owner.get(job_id)
        if name is None:
            return False
        user = self._users[name]
        self._take(user, job_id)
        if len(user.heap) > 2 * len(user.waiting) + 8:
            # Removed jobs leave their entries behind; without this they could pile up.
            user.heap = [entry for entry in user.heap if entry[2] in user.waiting]
            heapq.heapify(user.heap)
        return True

    @property
    def size_bytes(self) -> int:
        """Parameters of the jobs that wait, as JSON text."""
        return self._bytes

    def _head(self, user: _User) -> str | None:
        while user.heap:
            job_id = user.heap[0][2]
            if job_id in user.waiting:
                return job_id
            heapq.heappop(user.heap)
        return None

    def _take(self, user: _User, job_id: str) -> None:
        user.waiting.remove(job_id)
        del self._owner[job_id], self._entered[job_id]
        self._bytes -= self._sizes.pop(job_id)

    def _forget_idle(self) -> None:
        for name in [name for name, user in self._users.items() if not user.active]:
            del self._users[name]


def retry_after(waiting: int) -> float:
    """Seconds after which to try again when so many jobs wait."""
    return min(max(1.0, waiting * _PER_JOB_SECONDS), _LONGEST_RETRY_SECONDS)
