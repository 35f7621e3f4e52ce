"""The journal in a real PostgreSQL server, started here; skipped where that cannot be done."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentic_ray.errors import JournalError, JournalFencedError, JournalLockedError
from agentic_ray.master import JobState, Journal, Master, Registry

pytest.importorskip("psycopg", reason="needs the extra postgres")


def programs() -> str | None:
    """Where initdb and pg_ctl are: on the PATH, or in the package pgserver."""
    found = shutil.which("initdb")
    if found is not None:
        return os.path.dirname(found)
    package = importlib.util.find_spec("pgserver")
    if package is None or package.origin is None:
        return None
    return str(Path(package.origin).parent / "pginstall" / "bin")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a fresh server that listens on a socket in its own directory."""
    folder = programs()
    if folder is None:
        pytest.skip("no PostgreSQL server (initdb, pg_ctl) on this machine")
    options: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        root = Path(name)
        if os.geteuid() == 0:  # the server refuses to run as root
            other = pwd.getpwnam("nobody")
            options |= {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
            os.chown(root, other.pw_uid, other.pw_gid)
        data = root / "data"
        initdb = [f"{folder}/initdb", "-D", str(data), "-U", "tester", "-A", "trust"]
        made = subprocess.run(initdb, cwd=root, **options)
        if made.returncode:
            pytest.skip(f"initdb does not work here: {made.stderr.strip()[-200:]}")
        log = root / "log"
        flags = f"-c listen_addresses='' -k {root}"
        start = [f"{folder}/pg_ctl", "-D", str(data), "-o", flags, "-l", str(log), "-w", "start"]
        begun = subprocess.run(start, cwd=root, **options)
        assert begun.returncode == 0, log.read_text() if log.exists() else begun.stderr
        try:
            yield f"postgresql://tester@/postgres?host={root}"
        finally:
            stop = [f"{folder}/pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop"]
            subprocess.run(stop, cwd=root, **options)


class Work:
    def __init__(self) -> None:
        self.open = threading.Event()
        self.started: list[Any] = []
        self.registry = Registry()
        self.registry.register("gate", self.gate)
        self.registry.register("effects", self.gate, effects=True)

    def gate(self, params: Any) -> Any:
        self.started.append(params)
        assert self.open.wait(30)
        return params


def test_jobs_outlive_the_master_and_a_second_one_is_fenced(server: str, tmp_path: Path) -> None:
    work = Work()
    first = Master(store=Journal(server, lease_seconds=1000), workloads=work.registry)
    jobs = [first.submit("gate", [i, "é"], idempotency_key=f"k{i}") for i in range(3)]
    once = first.submit("effects", "once")
    while len(work.started) < 4:
        pass
    again = Work()
    again.open.set()
    with Master(store=Journal(server, lease_seconds=0.5), workloads=again.registry) as second:
        with pytest.raises(JournalLockedError):
            Journal(server, lease_seconds=5)
        assert [second.job(job.id).result(60) for job in jobs] == [[i, "é"] for i in range(3)]
        assert second.record(once.id).state is JobState.FAILED
        assert second.submit("gate", [0, "é"], idempotency_key="k0").id == jobs[0].id
        with pytest.raises(JournalFencedError):
            first.submit("gate", "late")
    work.open.set()
    first.close()
    with Master(journal=server, workloads=again.registry) as third:
        assert [third.record(job.id).result for job in jobs] == [[i, "é"] for i in range(3)]
        assert len(third.jobs()) == 4
    assert len(again.started) == 3


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="PostgreSQL"):
        Journal(f"postgresql://nobody@/none?host={tmp_path}")
