"""`OwnSession`: this process's session, lent to the runners of its jobs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentic_ray.runtime.lending import Lender


class OwnSession:
    """Call it for the path at which the session is lent. Ray is loaded with the first call, and
    started when a job first uses the session."""

    def __init__(self) -> None:
        self._lender: Lender | None = None
        self._lock = threading.Lock()

    def __call__(self) -> str:
        from agentic_ray.runtime import get_session
        from agentic_ray.runtime.lending import Lender

        with self._lock:
            if self._lender is None:
                self._lender = Lender(get_session)
            return self._lender.path

    def close(self) -> None:
        """Lend it no more."""
        with self._lock:
            if self._lender is not None:
                self._lender.close()
                self._lender = None
