"""Who may write to a journal: a lease row with a token that only grows.

No clocks are compared: a holder shows life by changing ``beat``, and whoever watches uses its
own clock. What a holder writes is in ``ledger``.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass

from agentic_ray.errors import JournalLockedError
from agentic_ray.master.database import CommitUnknownError, Database, Row, Transaction

_SLOW_SECONDS = 1.0
_STILL = 10


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, so that another on the same machine can tell whether it is alive.

    ``space`` names boot and process namespace: only within it do process numbers mean the same.
    ``started`` tells the process from a later one with its number, ``nonce`` this attempt to
    take the lease from any other.
    """

    host: str
    space: str
    pid: int
    started: str
    nonce: str = ""

    @classmethod
    def here(cls) -> Holder:
        pid = os.getpid()
        return cls(socket.gethostname(), _space(), pid, _started(pid), uuid.uuid4().hex)

    @classmethod
    def of(cls, text: str) -> Holder | None:
        """The holder of a lease's row; None if it is free."""
        return cls(**json.loads(text)) if text else None

    def text(self) -> str:
        """As it stands in the lease's row."""
        return json.dumps(asdict(self))

    def surely_dead(self) -> bool:
        """Whether it is of this machine and no such process runs."""
        if not self.space or self.space != _space():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # another user's process
        # Empty where /proc hides other users' processes (hidepid): then nothing is known.
        return bool(started := _started(self.pid)) and started != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def acquire(
    database: Database, ttl_seconds: float, pause: Callable[[float], None] = time.sleep
) -> int:
    """Take the lease; its token.

    A free lease, or one whose holder is known to be dead, is taken at once. Otherwise the
    holder is watched: it is alive as soon as it counts, and taken to be gone when it has not
    counted for ``ttl_seconds``. One statement takes the lease from exactly the holder that was
    seen, so that of two who take it at one instant one fails and looks again.

    Raises
    ------
    JournalLockedError
        The holder is alive.
    """
    mine = Holder.here().text()
    seen: Row | None = None
    since = looked = time.monotonic()
    stood_still = 0
    while True:
        try:
            with database.transaction() as transaction:
                now = _look(transaction)
                began, looked = looked, time.monotonic()
                if looked - began > ttl_seconds / 2 + _SLOW_SECONDS and stood_still < _STILL:
                    # A database that stood still has kept the holder from counting, too.
                    seen, since, stood_still = None, looked, stood_still + 1
                seen = seen or now
                token, _, text = now
                if text == mine:
                    return int(token)  # taken by an attempt whose answer was lost
                holder = Holder.of(text)
                if now != seen and holder is not None:
                    raise JournalLockedError(
                        f"another master ({holder}) has this journal and is alive; stop it, or "
                        "give this one a journal of its own"
                    )
                silent = looked - since >= ttl_seconds
                if (holder is None or silent or holder.surely_dead()) and _take(
                    transaction, now, mine
                ):
                    taken: int | None = int(token) + 1
                else:
                    taken = None
        except CommitUnknownError:
            taken = None  # the next look tells
        if taken is not None:
            return taken
        pause(min(0.1, ttl_seconds / 8))


def _look(transaction: Transaction) -> Row:
    """Token, beat and holder; nobody else may change them until the transaction ends."""
    transaction.change(
        "INSERT INTO lease (id, token, beat, holder) VALUES (1, 0, 0, :nobody) "
        "ON CONFLICT (id) DO NOTHING",
        {"nobody": ""},
    )
    return row(transaction)


def row(transaction: Transaction) -> Row:
    """Token, beat and holder, locked."""
    transaction.execute("UPDATE lease SET holder = holder WHERE id = 1")
    return transaction.execute("SELECT token, beat, holder FROM lease WHERE id = 1")[0]


def _take(transaction: Transaction, seen: Row, mine: str) -> bool:
    token, beat, holder = seen
    values = {"token": token, "next": token + 1, "beat": beat, "holder": holder, "mine": mine}
    return bool(
        transaction.change(
            "UPDATE lease SET token = :next, beat = 0, holder = :mine "
            "WHERE id = 1 AND token = :token AND beat = :beat AND holder = :holder",
            values,
        )
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
    """When the process began, in ticks since boot; empty if that cannot be seen."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    # A zombie has ended, though its parent has not asked yet.
    return "ended" if fields[0] in "ZX" else fields[19]
