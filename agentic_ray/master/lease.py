"""Who may write to a journal: a lease row with a token that only grows.

No clocks are compared: a holder shows life by counting, and whoever watches uses its own clock.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from agentic_ray.errors import JournalFencedError, JournalLockedError
from agentic_ray.master.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, so that another on the same machine can tell whether it is alive.

    ``space`` names boot and process namespace: only within it do process numbers mean the same.
    ``started`` tells the process from a later one with its number.
    """

    host: str
    space: str
    pid: int
    started: str

    @classmethod
    def here(cls) -> Holder:
        pid = os.getpid()
        return cls(socket.gethostname(), _space(), pid, _started(pid))

    def surely_dead(self) -> bool:
        """Whether it is of this machine and no such process runs."""
        return bool(self.space) and self.space == _space() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def acquire(
    database: Database, ttl_seconds: float, pause: Callable[[float], None] = time.sleep
) -> int:
    """Take the lease; its token.

    A free lease, or one whose holder is known to be dead, is taken at once. Otherwise the
    holder is watched: it is alive as soon as it counts, and taken to be gone when it has not
    counted for ``ttl_seconds``.

    Raises
    ------
    JournalLockedError
        The holder is alive.
    """
    mine = json.dumps(asdict(Holder.here()))
    seen: tuple[int, int] | None = None
    since = time.monotonic()
    while True:
        with database.transaction() as transaction:
            rows = transaction.execute("SELECT token, beat, holder FROM lease WHERE id = 1")
            if not rows:
                transaction.change(
                    "INSERT INTO lease (id, token, beat, holder) VALUES (1, 1, 0, :holder)",
                    {"holder": mine},
                )
                return 1
            token, beat, text = rows[0]
            holder = Holder(**json.loads(text)) if text else None
            if seen is None:
                seen = token, beat
            if seen != (token, beat) and holder is not None:
                raise JournalLockedError(
                    f"another master ({holder}) has this journal and is alive; stop it, or give "
                    "this one a journal of its own"
                )
            silent = time.monotonic() - since >= ttl_seconds
            if holder is None or silent or holder.surely_dead():
                transaction.change(
                    "UPDATE lease SET token = :token, beat = 0, holder = :holder WHERE id = 1",
                    {"token": token + 1, "holder": mine},
                )
                return int(token) + 1
        pause(min(0.1, ttl_seconds / 8))


def confirm(transaction: Transaction, token: int) -> None:
    """Show life, and be sure that the lease is still ours: part of every write.

    Raises
    ------
    JournalFencedError
        It is another's.
    """
    if not transaction.change(
        "UPDATE lease SET beat = beat + 1 WHERE id = 1 AND token = :token", {"token": token}
    ):
        raise JournalFencedError(
            "another master has taken this journal over; this one writes no more and stops"
        )


def release(transaction: Transaction, token: int) -> None:
    """Let the next master take the lease at once."""
    transaction.change(
        "UPDATE lease SET holder = '' WHERE id = 1 AND token = :token", {"token": token}
    )


def _space() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""  # no such thing here: nobody is ever surely dead


def _started(pid: int) -> str:
    """When the process began, in ticks since boot; empty if it does not run."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    # A zombie has ended, though its parent has not asked yet.
    return "" if fields[0] in "ZX" else fields[19]
