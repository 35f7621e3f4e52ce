"""A process that has a session and lends it: even if Ray's core ends it, its parent goes on.

    python -m agentic_ray.runtime.host PATH SETTINGS

It reports in one line of JSON on standard output that the session is there, or why there is none.
It ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import ray

from agentic_ray.errors import AgenticRayError
from agentic_ray.logged import set_up_as_told
from agentic_ray.runtime.current import get_session, init, shutdown
from agentic_ray.runtime.joining import connection
from agentic_ray.runtime.lending import Lender
from agentic_ray.runtime.session import Session

_LOOK_SECONDS: Final = 1.0
_AWAY_LOOKS: Final = 3
_SESSION_ENDED: Final = 3
_ORPHANED: Final = 4


class Closing(Protocol):
    """Something that is closed in the end."""

    def close(self) -> None: ...


def main(path: str, settings: dict[str, Any], beside: Callable[[], Closing] | None = None) -> int:
    """Start a session and lend it at ``path`` until nobody needs it; return the exit code.

    ``beside`` makes what is served beside it, once it is there.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with
    set_up_as_told()
    ready, orphaned = threading.Event(), threading.Event()
    threading.Thread(target=_await_parent, args=(ready, orphaned), daemon=True).start()
    address = settings.pop("address", None)
    try:
        session = init(address, progress=False, **settings)
        lender = Lender(get_session, path)
        more = None if beside is None else beside()
    except (AgenticRayError, OSError) as error:
        _say(failed=str(error))
        return 1
    # (After Ray, which has set its own. A service manager may send it to all processes at once.)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    threading.Thread(target=_watch, args=(session, orphaned), name="watch", daemon=True).start()
    ready.set()
    _say(ready=session.name)
    orphaned.wait()
    if more is not None:
        more.close()
    lender.close()
    shutdown()
    return 0


def _await_parent(ready: threading.Event, orphaned: threading.Event) -> None:
    """Wait until standard input ends, as it does with the parent. If Ray is still starting, which
    may take minutes, end at once: the kernel ends Ray's processes along with the process that
    started them."""
    while os.read(sys.stdin.fileno(), 1 << 16):
        pass  # nothing is written to it
    orphaned.set()
    if not ready.is_set():
        os._exit(_ORPHANED)


def _say(**what: str) -> None:
    print(json.dumps(what), flush=True)


def _watch(session: Session, orphaned: threading.Event) -> None:
    """End this process once its session is of no use any more: another takes its place.

    Logs when the head of a joined cluster does not answer, and when it does again.
    """
    joined = connection()
    # (An embedded Ray is started anew by the session itself, at another address.)
    cluster_id = None if joined is None or session.started_ray else _cluster_id(joined[0])
    away = 0
    while not session.closed:
        time.sleep(_LOOK_SECONDS)
        if cluster_id is None or joined is None:
            continue
        found = _cluster_id(joined[0])
        if found is not None and found != cluster_id:
            print("the cluster's head was replaced by another", file=sys.stderr, flush=True)
            break
        before, away = away, 0 if found is not None else away + 1
        if away == _AWAY_LOOKS or (before >= _AWAY_LOOKS and not away):
            _say(head="away" if away else "there")
    if not orphaned.is_set():  # (else it is being shut down)
        os._exit(_SESSION_ENDED)


def _cluster_id(address: str) -> str | None:
    """Return the id of the cluster that answers there; None if none does."""
    host, _, port = address.rpartition(":")
    try:
        # (Ray's own client would wait for it for most of a minute.)
        socket.create_connection((host, int(port)), _LOOK_SECONDS).close()
        return str(ray._raylet.GcsClient(address=address).cluster_id.hex())
    except Exception:  # Ray raises many types for a head that is away
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))
