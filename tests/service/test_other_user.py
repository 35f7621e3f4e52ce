"""Another user of the machine, while a service has everything open: `nobody` gets at nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentic_ray.master import Journal, Master, Registry
from agentic_ray.master.gateway import Gateway
from agentic_ray.master.named.uploads import owner_folder
from agentic_ray.service.audit import Audit
from agentic_ray.service.data import DataShelf
from agentic_ray.service.hosting import SessionHost
from agentic_ray.service.tokens import TokenFile

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")

NOBODY = """
import os, pathlib, socket, sys
os.setgroups([]); os.setgid({gid}); os.setuid({uid})
place = pathlib.Path(sys.argv[1])
done = []
def attempt(what, act):
    try:
        act()
    except OSError:
        return
    done.append(what)
def connect(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(str(path))
for path in [place / name for name in sys.argv[2:]]:
    attempt(f"read {{path}}", lambda: path.read_bytes() if path.is_file() else os.listdir(path))
    attempt(f"write {{path}}", lambda: path.open("ab").close())
    attempt(f"plant {{path}}", lambda: (path / "planted").write_text("x"))
    attempt(f"move {{path}}", lambda: path.rename(place / "mine"))
    attempt(f"delete {{path}}", lambda: path.unlink())
    attempt(f"open {{path}}", lambda: path.chmod(0o777))
    attempt(f"connect {{path}}", lambda: connect(path))
print(done)
"""


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as /tmp is: all may make files there."""
    made = Path(tempfile.mkdtemp(prefix="agentic-ray-test-", dir="/tmp"))
    made.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    yield made
    shutil.rmtree(made)


def test_nobody_gets_at_nothing_of_a_running_service(shared: Path) -> None:
    registry = Registry()
    registry.register("echo", lambda params: params)
    before = os.umask(0o077)  # as the service does
    try:
        host = SessionHost({}, lambda state: None)
        with (
            Master(workloads=registry, store=Journal(shared / "j", inline_bytes=100)) as master,
            contextlib.closing(Audit(shared / "audit")) as audit,
        ):
            for size in (1, 1000):
                master.submit("echo", {"secret": "s3cret" * size}).result(60)
            text, _ = TokenFile(shared / "tokens").create("ada", "submit")
            audit.note("ada", "id", "submit", "job", {})
            shelf = DataShelf(shared / "data")
            upload(shelf)
            gateway = Gateway(f"{host.path}.master", Answers())
            lender = socket.socket(socket.AF_UNIX)
            lender.bind(host.path)
            lender.listen()
            try:
                tried = everything(shared)
                names = {Path(name).name for name in tried}
                assert {"j", "j-wal", "j.results", "j.cache", "tokens", "audit", "data"} <= names
                assert {"session", "session.master", "n.txt.json"} <= names
                assert text.encode() not in (shared / "tokens").read_bytes()
                assert as_nobody(shared, tried) == "[]"
                assert everything(shared) >= tried
                for name in tried:
                    found = (shared / name).lstat()
                    assert found.st_uid == os.geteuid()
                    assert not stat.S_IMODE(found.st_mode) & 0o077, name
            finally:
                lender.close()
                gateway.close()
                shelf.close()
        host.close()
    finally:
        os.umask(before)


class Answers:
    def ask(self, method: str, *arguments: Any) -> Any:
        return None


def upload(shelf: DataShelf) -> None:
    content = b"some words"
    folder = owner_folder(shelf.folder, "ada")
    folder.mkdir(mode=0o700)
    draft = folder / ".draft.tmp"
    draft.write_bytes(content)
    shelf.keep("ada", "n.txt", draft, "txt", hashlib.sha256(content).hexdigest())


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def as_nobody(folder: Path, names: set[str]) -> str:
    nobody = pwd.getpwnam("nobody")
    script = NOBODY.format(uid=nobody.pw_uid, gid=nobody.pw_gid)
    command = ["/usr/bin/env", "python3", "-c", script, str(folder), *sorted(names)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
