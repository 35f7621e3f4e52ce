"""Idempotency keys: what makes two submits with one key the same."""

from __future__ import annotations

import hashlib

from agentic_ray.master.jsonvalues import dumps

Seconds = int | float | None


def body_digests(
    workload: str, priority: int, seconds: tuple[Seconds, ...], canonical_params: str
) -> frozenset[str]:
    """Digests of what is submitted; an earlier submit is the same if it has one of them.

    Numbers of seconds count by their value: 5 and 5.0 are one. There are two digests, since
    journals of the first schema have digests of seconds as they were written.

    Parameters
    ----------
    seconds : tuple of number or None
        Time-out and deadline.
    """

    def digest(each: tuple[Seconds, ...]) -> str:
        body = dumps([workload, priority, *each, canonical_params])
        return hashlib.sha256(body.encode()).hexdigest()

    whole = tuple(int(s) if isinstance(s, float) and s.is_integer() else s for s in seconds)
    exact = tuple(None if s is None else float(s) for s in seconds)
    return frozenset({digest(whole), digest(exact)})
