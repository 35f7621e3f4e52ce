"""The one place where a job meets the runtime: its graphs are tagged, counted and cancelled."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def job_graphs(job_id: str) -> Iterator[None]:
    """Graphs that this thread submits inside belong to the job."""
    # imported when first run: importing the master must not start to load Ray
    from agentic_ray.runtime import job_scope

    with job_scope(job_id):
        yield


def cancel_graphs(job_id: str) -> None:
    """Cancel the job's graphs, those to come too. Starts no session to do so."""
    runtime = sys.modules.get("agentic_ray.runtime.session")
    session = None if runtime is None else runtime._session
    if session is not None and not session.closed:
        session.cancel_scope(job_id)
