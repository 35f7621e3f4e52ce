"""Reads a submission: checks its arguments, makes the record of its job, finds an equal one.

Nothing is kept here; `Master.submit` accepts the job.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentic_ray.errors import IdempotencyError
from agentic_ray.ids import current_ids
from agentic_ray.master.checks import check_priority, check_seconds, check_tags, check_text
from agentic_ray.master.core import MasterCore
from agentic_ray.master.jobs import JobRecord
from agentic_ray.master.jsonvalues import JsonText, digest_of
from agentic_ray.master.keys import body_digests
from agentic_ray.master.store import JobStore
from agentic_ray.master.workloads import Parameters, Workload


@dataclass(frozen=True, slots=True)
class Submission:
    """A submission whose arguments are sound.

    Parameters
    ----------
    record : JobRecord
        The job, still without its place in the order of jobs.
    params_digest : str
        Digest of the parameters, for the cache of results.
    body_digests : frozenset of str
        Digests of all that an idempotency key stands for: by this version of the library, and by
        earlier ones. Empty without a key.
    """

    record: JobRecord
    params_digest: str
    body_digests: frozenset[str]


def read_submission(
    workload: Workload,
    params: Any,
    now: float,
    *,
    priority: int,
    timeout_seconds: float | None,
    deadline_seconds: float | None,
    user: str,
    idempotency_key: str | None,
    tags: Sequence[str],
    retry_of: str,
) -> Submission:
    """Check what `Master.submit` was given at ``now`` (seconds, wall clock).

    Raises
    ------
    InvalidParametersError, InvalidTypeError, InvalidArgumentError
        As `Master.submit`.
    """
    check_priority(priority)
    check_seconds("timeout_seconds", timeout_seconds)
    check_seconds("deadline_seconds", deadline_seconds)
    check_text("user", user)
    tags = check_tags(tags)
    if idempotency_key is not None:
        check_text("idempotency_key", idempotency_key)
    read = params if isinstance(params, Parameters) else Parameters.of(params)
    workload.prepare_text(read.text)
    digest = digest_of(read.canonical)
    ids = current_ids()
    record = JobRecord(
        id=uuid.uuid4().hex,
        workload=workload.name,
        version=workload.version,
        params=JsonText(read.text, digest),
        priority=priority,
        sequence=0,
        created_at=now,
        timeout_seconds=timeout_seconds,
        size_bytes=len(read.text),
        user=user,
        deadline_at=None if deadline_seconds is None else now + deadline_seconds,
        idempotency_key=idempotency_key or "",
        effects=workload.effects,
        tags=tags,
        retry_of=retry_of,
        request_id=ids.request,
        traceparent=ids.trace,
    )
    digests: frozenset[str] = frozenset()
    if idempotency_key is not None:
        digests = body_digests(
            workload.name, priority, (timeout_seconds, deadline_seconds), read.canonical
        )
        record = replace(record, body_digest=min(digests))
    return Submission(record, digest, digests)


def same_submission(
    asked: Submission, old: JobRecord | None, core: MasterCore, store: JobStore
) -> JobRecord | None:
    """Return the job that was submitted with the same idempotency key, None if there is none.

    Called with the master's lock held; ``old`` is the job that was found without the lock, a
    moment before.

    Raises
    ------
    IdempotencyError
        The key was given before with something else.
    """
    key, user = asked.record.idempotency_key, asked.record.user
    if not key:
        return None
    if old is not None:
        # A job that was withdrawn meanwhile has given its key back.
        old = core.live_record(old.id) or store.known(old.id) or old
        old = old if old.idempotency_key == key else None
    earlier = core.job_of_key(user, key) or store.known_key(user, key) or old
    if earlier is not None and earlier.body_digest not in asked.body_digests:
        raise IdempotencyError(
            f"idempotency key {key!r} was used for job {earlier.id}, which is another one "
            "(workload, params, priority, timeout or deadline differ); use a new key"
        )
    return earlier
