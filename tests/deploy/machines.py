"""Machines of our own inside this one: each has its network, processes, /tmp, /dev/shm and home.

`ray up` calls `ray stop`, which ends every Ray process that it sees. So each machine is a set of
namespaces of Linux, and what runs in one sees nothing of the others, nor of this machine. They hang
on a bridge that is in the namespace of the first of them, the laptop; the network of this machine
stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("setpriv", "unshare", "nsenter", "ps", "ip", "ssh", "ssh-keygen", "sshd", "rsync")
_SECONDS = 30
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NAMESPACES = ("--net", "--pid", "--mount", "--uts", "--ipc")

_BOOT = """
set -e
mount --make-rprivate /
hostname {name}
mkdir -p {base}/home
mount --bind {base}/{name}/home {base}/home
for file in passwd shadow hosts; do mount --bind {base}/$file /etc/$file; done
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd
{hide_tmp}
touch {base}/{name}/booted
{forever}
"""
_SSHD = """
Port 22
HostKey {base}/host_key
AuthorizedKeysFile {base}/laptop/home/.ssh/id_ed25519.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
MaxStartups 100
PrintMotd no
"""


def missing() -> str | None:
    """Why machines cannot be made here; None if they can."""
    if os.geteuid() != 0:
        return "making network and process namespaces needs root"
    for program in PROGRAMS:
        if shutil.which(program, path=_PATH) is None:
            return f"{program} is not installed (Debian: openssh-server, iproute2, procps, rsync)"
    tried = subprocess.run(
        ["unshare", *_NAMESPACES, "--fork", "--mount-proc", "ip", "link", "add", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine.

    Attributes
    ----------
    pid : int
        Its first process, as this machine counts.
    """

    name: str
    address: str
    pid: int
    home: Path
    """Where its home really is; the machine itself sees it at ``base / "home"``."""

    def command(self, line: str) -> list[str]:
        """The command that runs ``line`` in a login shell of this machine."""
        inside = ("--net", "--pid", "--mount", "--uts", "--ipc")
        clean = ["env", "-i", f"PATH={_PATH}", f"HOME={self.home.parents[1] / 'home'}"]
        shell = ["bash", "-c", f"cd; . ~/.bashrc; {line}"]
        return ["nsenter", "-t", str(self.pid), *inside, *clean, *shell]

    def run(
        self, line: str, timeout: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``line`` there; what it printed, errors included, is ``stdout``."""
        return subprocess.run(
            self.command(line),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def processes(self, word: str) -> list[str]:
        """The command lines there that have ``word`` in them."""
        shown = self.run("ps -ww -e -o args=").stdout.splitlines()
        return [line for line in shown if word in line]


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder for the machines, which all of them see; it is removed in the end."""
    base = Path(tempfile.mkdtemp(prefix="agentic-ray-", dir="/var/tmp"))
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


@contextlib.contextmanager
def made(
    base: Path, addresses: Mapping[str, str], bashrc: Mapping[str, str]
) -> Iterator[dict[str, Machine]]:
    """Machines by name. The one called laptop has a key that opens all the others.

    Parameters
    ----------
    base : Path
        From `folder`.
    addresses : mapping
        The IPv4 address of each in one network of 24 bits, the laptop's first.
    bashrc : mapping
        What stands in the ``.bashrc`` of each; ``"*"``: of all.
    """
    with contextlib.ExitStack() as stack:
        _furnish(base, addresses, bashrc)
        machines: dict[str, Machine] = {}
        for name, address in addresses.items():
            pid = stack.enter_context(_booted(base, name, laptop=name == "laptop"))
            machines[name] = Machine(name, address, pid, base / name / "home")
            _plug(machines["laptop"], machines[name])
        yield machines


def _furnish(base: Path, addresses: Mapping[str, str], bashrc: Mapping[str, str]) -> None:
    """Write what the machines have on their disks when they are new."""
    home = base / "home"
    (base / "bin").mkdir()
    # Not a link: a virtual environment is to find its base where that really is.
    python = base / "bin" / "python3"
    python.write_text(f'#!/bin/sh\nexec {_base_python()} "$@"\n')
    python.chmod(0o755)
    (base / "passwd").write_text(
        f"root:x:0:0:root:{home}:/bin/bash\nubuntu:x:0:0::{home}:/bin/bash\n"
        "sshd:x:101:65534::/run/sshd:/usr/sbin/nologin\nnobody:x:65534:65534::/:/bin/false\n"
    )
    (base / "shadow").write_text("root:*:19000::::::\nubuntu:*:19000::::::\nsshd:*:19000::::::\n")
    (base / "hosts").write_text(
        "127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, ip in addresses.items())
    )
    (base / "sshd_config").write_text(_SSHD.format(base=base))
    for name in addresses:
        (base / name / "home" / ".ssh").mkdir(parents=True, mode=0o700)
        settings = (f"export PATH={base}/bin:$PATH", bashrc["*"], bashrc.get(name, ""))
        (base / name / "home" / ".bashrc").write_text("\n".join(settings) + "\n")
    for key in (base / "host_key", base / "laptop" / "home" / ".ssh" / "id_ed25519"):
        _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))


def _base_python() -> str:
    return str(getattr(sys, "_base_executable", sys.executable))


@contextlib.contextmanager
def _booted(base: Path, name: str, *, laptop: bool) -> Iterator[int]:
    """One machine's first process; all its processes end with it."""
    script = _BOOT.format(
        base=base,
        name=name,
        hide_tmp=_hide_tmp(base) if laptop else "mount -t tmpfs -o mode=1777 tmpfs /tmp",
        # The shell stays the first process: it waits for orphans, as `init` does.
        forever="sleep infinity & wait"
        if laptop
        else f"/usr/sbin/sshd -D -e -f {base}/sshd_config & wait",
    )
    flags = ("--fork", "--kill-child", "--mount-proc")
    log = base / name / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            # Should this process be killed, the machine goes too.
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                "unshare",
                *_NAMESPACES,
                *flags,
                "bash",
                "-c",
                script,
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": _PATH},
        ) as process,
    ):
        try:
            deadline = time.monotonic() + _SECONDS
            while not (base / name / "booted").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"machine {name} does not start: {log.read_text()}")
                time.sleep(0.05)
            yield _first_of(process)
        finally:
            # `unshare` ends when the first process and all others of the machine have ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(_first_of(process), signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS)
            process.kill()


def _first_of(unshare: subprocess.Popen[bytes]) -> int:
    """The number here of the first process of a machine."""
    try:
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
    except FileNotFoundError:
        children = []
    if not children:
        raise ProcessLookupError
    return int(children[0])


def _hide_tmp(base: Path) -> str:
    """Commands that give the laptop a /tmp of its own, with the environment of the tests in it
    where that lies in /tmp."""
    own = base / "laptop" / "tmp"
    lines = [f"mkdir -m 1777 {own}"]
    prefix = Path(sys.prefix)
    if prefix.is_relative_to("/tmp"):
        place = shlex.quote(str(own / prefix.relative_to("/tmp")))
        lines += [f"mkdir -p {place}", f"mount --bind {shlex.quote(sys.prefix)} {place}"]
    return "\n".join((*lines, f"mount --rbind {own} /tmp"))


def _plug(laptop: Machine, machine: Machine) -> None:
    """Connect ``machine`` with the bridge in the laptop."""
    hub = ("nsenter", "-t", str(laptop.pid), "--net", "ip")
    own = ("nsenter", "-t", str(machine.pid), "--net", "ip")
    _do(*own, "link", "set", "lo", "up")
    if machine is laptop:
        _do(*hub, "link", "add", "hub", "type", "bridge")
        _do(*hub, "address", "add", f"{machine.address}/24", "dev", "hub")
        _do(*hub, "link", "set", "hub", "up")
        return
    cable = ("name", "eth0", "netns", str(machine.pid))
    _do(*hub, "link", "add", machine.name, "type", "veth", "peer", *cable)
    _do(*hub, "link", "set", machine.name, "master", "hub", "up")
    _do(*own, "address", "add", f"{machine.address}/24", "dev", "eth0")
    _do(*own, "link", "set", "eth0", "up")
    # A way out, without which Ray does not find its own address. Nothing is there.
    _do(*own, "route", "add", "default", "via", laptop.address)


def _do(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PATH": _PATH}, timeout=_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {done.stderr or done.stdout}")
