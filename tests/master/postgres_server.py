"""A real PostgreSQL server of our own: started, killed, frozen and restarted by tests."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any


def programs() -> str | None:
    """Where initdb and pg_ctl are: on the PATH, Debian's folder, or in the package pgserver."""
    found = shutil.which("initdb")
    if found is not None:
        return os.path.dirname(found)
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if debian:
        return str(debian[-1].parent)
    package = importlib.util.find_spec("pgserver")
    if package is None or package.origin is None:
        return None
    return str(Path(package.origin).parent / "pginstall" / "bin")


class Server:
    """A server that listens on a socket in its own directory.

    Parameters
    ----------
    folder : str
        Where its programs are.
    root : Path
        An empty directory with a short name; a socket's path has room for some 100 characters.
    """

    def __init__(self, folder: str, root: Path) -> None:
        self._folder = folder
        self._root = root
        self._options: dict[str, Any] = {
            "capture_output": True,
            "text": True,
            "check": False,
            "cwd": root,
        }
        if os.geteuid() == 0:  # the server refuses to run as root
            other = pwd.getpwnam("nobody")
            self._options |= {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
            os.chown(root, other.pw_uid, other.pw_gid)
        made = self._run("initdb", "-D", "data", "-U", "tester", "-A", "trust")
        if made.returncode:
            raise OSError(f"initdb does not work here: {made.stderr.strip()[-200:]}")
        self.start()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://tester@/{database}?host={self._root}"

    def start(self) -> None:
        flags = f"-c listen_addresses='' -k {self._root} -c max_connections=50"
        begun = self._run(
            *("pg_ctl", "-D", "data", "-o", flags, "-l", "log", "-w", "-t", "120", "start")
        )
        log = self._root / "log"
        assert begun.returncode == 0, log.read_text() if log.exists() else begun.stderr

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", "data", "-m", mode, "-w", "stop")

    def restart(self) -> None:
        self.stop("fast")
        self.start()

    def processes(self) -> list[int]:
        """The server's own process first, then those of its connections."""
        first = int((self._root / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def freeze(self) -> list[int]:
        """Stop all its processes where they are."""
        stopped = self.processes()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        return stopped

    @staticmethod
    def thaw(stopped: list[int]) -> None:
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([f"{self._folder}/{program}", *arguments], **self._options)
