"""A process that has a session and lends it: whatever Ray's core does to it, its parent goes on.

    python -m agentic_ray.runtime.host PATH SETTINGS

It says in one line of JSON on standard output that the session is there, or why there is none, and
ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any, Final

import ray

from agentic_ray.errors import AgenticRayError
from agentic_ray.runtime.joining import connection
from agentic_ray.runtime.lending import Lender
from agentic_ray.runtime.session import Session, get_session, init, shutdown

_LOOK_SECONDS: Final = 1.0
_SESSION_ENDED: Final = 3


def main(path: str, settings: dict[str, Any]) -> int:
    """Have a session and lend it at ``path`` until nobody needs it; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with
    address = settings.pop("address", None)
    try:
        session = init(address, progress=False, **settings)
        lender = Lender(get_session, path)
    except (AgenticRayError, OSError) as error:
        _say(failed=str(error))
        return 1
    threading.Thread(target=_watch, args=(session,), name="watch", daemon=True).start()
    _say(ready=session.name)
    while sys.stdin.buffer.read(1 << 16):
        pass  # nothing is said there; it ends with the parent
    lender.close()
    shutdown()
    return 0


def _say(**what: str) -> None:
    print(json.dumps(what), flush=True)


def _watch(session: Session) -> None:
    """End this process once its session is of no use any more: another takes its place."""
    joined = connection()
    cluster_id = _cluster_id(joined[0]) if joined is not None else None
    while not session.closed:
        time.sleep(_LOOK_SECONDS)
        # (An embedded Ray is started anew by the session itself, at another address.)
        if cluster_id is None or connection() != joined or joined is None:
            continue
        found = _cluster_id(joined[0])
        if found is not None and found != cluster_id:
            print("the cluster's head was replaced by another", file=sys.stderr, flush=True)
            break
    os._exit(_SESSION_ENDED)


def _cluster_id(address: str) -> str | None:
    """Which cluster answers there; None if none does."""
    try:
        return str(ray._raylet.GcsClient(address=address).cluster_id.hex())
    except Exception:  # Ray raises many types for a head that is away
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))
