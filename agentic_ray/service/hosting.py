"""`SessionHost`: the service's session, in a process of its own that is started anew when it ends.

No call of Ray's is made in the service's process, since some of them can end it.
"""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from agentic_ray.errors import SessionError
from agentic_ray.logged import PRINTED, tells_of_jobs
from agentic_ray.master.runners.process import clean_environment
from agentic_ray.telemetry import ClusterState
from agentic_ray.wire import Wire

_logger = logging.getLogger("agentic_ray")

State = Literal["starting", "ok", "degraded"]

_SECRETS: Final = frozenset(
    {"AGENTIC_RAY_TOKEN", "AGENTIC_RAY_WEBHOOK_SECRET", "PGPASSWORD"}
)  # (Ray needs its own token)
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0
_END_SECONDS: Final = 30.0
_ASK_SECONDS: Final = 15.0


class SessionHost:
    """Starts the process, and starts it again whenever it ends.

    Parameters
    ----------
    settings : mapping
        As for `agentic_ray.init`.
    changed : callable
        Told of each new `state`, from a thread of this object's.
    master : str, optional
        The process passes calls to the master of this name, too: see `gateway`.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        changed: Callable[[State], None],
        master: str | None = None,
    ) -> None:
        told = json.dumps(settings)
        self._command = ["agentic_ray.runtime.host", "", told]
        if master is not None:
            self._command = ["agentic_ray.master.gateway", "", told, master]
        self._changed = changed
        self._folder = tempfile.mkdtemp(prefix="agentic-ray-")
        self.path = self._command[1] = str(Path(self._folder, "session"))
        self.state: State = "starting"
        self.reason = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start it and wait until its session is there; from then on it is watched.

        Raises
        ------
        SessionError
            There can be no session.
        """
        self._start()
        threading.Thread(target=self._watch, name="session host", daemon=True).start()
        self._become("ok")

    def cluster(self) -> ClusterState:
        """The state of the cluster.

        Raises
        ------
        SessionError
            The session is not there now.
        """
        if self.state != "ok":
            raise SessionError(f"Ray is not there now: {self.reason or self.state}")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        wire = Wire(connection)
        try:
            connection.settimeout(_ASK_SECONDS)
            connection.connect(self.path)
            wire.send({"op": "cluster", "id": 1})
            frame = wire.receive()
        except OSError as error:
            raise SessionError(f"the session does not answer: {error}") from error
        finally:
            wire.close()
        if frame is None or frame.head.get("failed"):
            raise SessionError("the session could not tell of its cluster")
        state: ClusterState = pickle.loads(frame.parts[0])
        return state

    @property
    def pid(self) -> int | None:
        """The number of its process; None while there is none."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End it, and Ray with it if it was started here."""
        self._closing.set()
        with self._lock:
            process = self._process
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        with self._lock:
            if self._closing.is_set():
                raise SessionError("the service ends")
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", *self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=clean_environment(_SECRETS),
                start_new_session=True,
            )
        assert process.stdout is not None
        said: dict[str, str] = {}
        for line in process.stdout:
            try:
                said = json.loads(line)
                break
            except ValueError:  # Ray prints too
                _pass_on(line)
        if "ready" not in said:
            process.wait()
            raise SessionError(said.get("failed", "the process with the session has ended"))
        threading.Thread(target=self._hear, args=(process,), daemon=True).start()

    def _watch(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closing.is_set():
            process = self._process
            assert process is not None
            code = process.wait()
            if self._closing.is_set():
                return
            self.reason = f"the process with the session has ended (exit code {code})"
            _logger.warning("%s; it is started anew, jobs wait", self.reason)
            self._become("degraded")
            while not self._closing.is_set():
                began = time.monotonic()
                try:
                    self._start()
                except SessionError as error:
                    self.reason = str(error)
                    self._closing.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    continue
                _logger.warning("the session is back after %.1f s", time.monotonic() - began)
                self.reason, pause = "", _FIRST_PAUSE
                self._become("ok")
                break

    def _hear(self, process: subprocess.Popen[bytes]) -> None:
        """Read the process's words about the head; other text it prints goes where our output
        goes."""
        assert process.stdout is not None
        for line in process.stdout:
            try:
                head = json.loads(line)["head"]
            except (ValueError, KeyError, TypeError):
                _pass_on(line)
                continue
            if head == "away":
                self.reason = "the head of the Ray cluster does not answer"
                _logger.warning("%s; jobs wait", self.reason)
                self._become("degraded")
            elif process.poll() is None:
                self.reason = ""
                self._become("ok")

    def _become(self, state: State) -> None:
        self.state = state
        self._changed(state)


def _pass_on(line: bytes) -> None:
    """Write what the process has printed: into the log, if that has a format, else as it is."""
    if tells_of_jobs():
        text = line.decode("utf-8", "replace").rstrip()
        logging.getLogger(PRINTED).info("%s", text, extra={"stream": "stdout"})
        return
    sys.stdout.buffer.write(line)
    sys.stdout.flush()
