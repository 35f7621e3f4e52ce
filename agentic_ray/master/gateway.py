"""A process that has a session and passes calls to a master of its cluster: even if Ray's core ends
it, its parent goes on.

    python -m agentic_ray.master.gateway PATH SETTINGS NAME

As `runtime.host`, which it is too; the calls come in at ``PATH.master``. `distant` sends them.
"""

from __future__ import annotations

import json
import sys
import threading
from multiprocessing.connection import Connection, Listener
from typing import Any, Final, Protocol

from agentic_ray.errors import AgenticRayError, SessionError

CALLS: Final = frozenset(
    {
        "accept", "cancel", "catalogue", "count", "jobs", "logs", "outline", "page", "progress",
        "record", "retry", "statistics", "steps", "stored_result", "trace",
    }
)  # fmt: skip
"""Methods of `MasterActor` that may be called."""


class Asked(Protocol):
    """Whoever answers calls: `RemoteMaster`, or what stands for it in tests."""

    def ask(self, method: str, *arguments: Any) -> Any: ...


class Found:
    """The master of a name, looked for anew when it is gone."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: Asked | None = None

    def ask(self, method: str, *arguments: Any) -> Any:
        from agentic_ray.master.actor import find_master  # Ray is loaded in its own process only

        try:
            if self._found is None:
                self._found = find_master(self._name)
            return self._found.ask(method, *arguments)
        except SessionError:
            self._found = None
            raise


class Gateway:
    """Answers calls that come in at a Unix socket, each connection in a thread of its own.

    The socket is to lie in a folder that only this user can enter: what comes in is unpickled.
    """

    def __init__(self, path: str, master: Asked) -> None:
        self._master = master
        self._listener = Listener(path, "AF_UNIX", backlog=128)
        threading.Thread(target=self._accept, name="gateway", daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection[Any, Any]) -> None:
        with connection:
            while True:
                try:
                    method, arguments = connection.recv()
                except (EOFError, OSError):
                    return
                answer: tuple[bool, Any]
                try:
                    if method not in CALLS:
                        raise SessionError(f"no call {method!r}")
                    answer = True, self._master.ask(method, *arguments)
                except AgenticRayError as error:
                    answer = False, error
                except Exception as error:  # told as it is: whoever asks decides
                    answer = False, SessionError(f"{type(error).__name__}: {error}")
                try:
                    connection.send(answer)
                except OSError:  # whoever asked has gone
                    return


def main(path: str, settings: dict[str, Any], name: str) -> int:
    """Lend a session at ``path`` and pass calls on, until nobody needs it; the exit code."""
    from agentic_ray.runtime.host import main as host  # loads Ray

    return host(path, settings, lambda: Gateway(f"{path}.master", Found(name)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]))
