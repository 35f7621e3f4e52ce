"""`reserve`: cards set aside for plain Ray actors and tasks, in the same books as all other work.

The session's Dispatcher decides; this module asks it, gives out options for Ray, and notices when
the processes that use a lease have ended.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import psutil
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agentic_ray.errors import (
    ImpossibleResourcesError,
    InvalidArgumentError,
    LeaseLostError,
    LeaseTimeoutError,
    NoSuitableDeviceError,
    SessionError,
)
from agentic_ray.graph.sizes import parse_bytes
from agentic_ray.schedule.events import (
    Event,
    LeaseEnded,
    LeaseGranted,
    LeaseReleased,
    LeaseRequested,
)
from agentic_ray.telemetry.devices import DEVICE_ORDER, VISIBLE_DEVICES

LEASE_VARIABLE: Final = "AGENTIC_RAY_LEASE"
"""Environment variable of the processes that use a lease: its name, and the bytes set aside on the
card."""
_QUIET_LOOKS: Final = 3
"""A lease ends when its processes were seen, and then not for so many looks."""


class Lease:
    """Cards set aside until `release`, the end of a ``with`` block, or the end of the processes
    that use them. Made by `reserve`.

    Attributes
    ----------
    id : str
    cards : tuple of (str, str)
        Node and UUID of each card.
    ended : str
        Why it has ended; empty while it holds.
    kept : bool
        Whether it outlasts its processes: only `release` ends it then.
    """

    def __init__(
        self,
        lease_id: str,
        places: tuple[tuple[str, str], ...],
        sizes: tuple[int, ...],
        release: Callable[[str], None],
    ) -> None:
        self.id = lease_id
        self.cards = places
        self._sizes = sizes
        self._release = release
        self.ended = ""
        self.kept = False

    @property
    def options(self) -> dict[str, Any]:
        """Options for one actor or task of plain Ray: ``Actor.options(**lease.options).remote()``.

        Raises
        ------
        LeaseLostError
            The lease has ended.
        InvalidArgumentError
            It is of several nodes: see `node_options`.
        """
        everywhere = self.node_options
        if len(everywhere) > 1:
            raise InvalidArgumentError(
                f"this lease is of {len(everywhere)} nodes; use its node_options, one for each"
            )
        return everywhere[0]

    @property
    def node_options(self) -> list[dict[str, Any]]:
        """Options for one actor or task on each node of the lease.

        Each puts the process on the lease's node and shows it the lease's cards only, by UUID. Ray
        counts no GPU and no CPU for it: those are held by this session already, so Ray gives them
        to nobody else.
        """
        if self.ended:
            raise LeaseLostError(f"the lease has ended: {self.ended}")
        nodes: dict[str, list[str]] = {}
        for node_id, device in self.cards:
            # (a lease of CPUs shows no card)
            nodes.setdefault(node_id, []).extend([] if device == "cpu" else [device])
        size = max(self._sizes, default=0)
        return [
            {
                "num_cpus": 0,
                "num_gpus": 0,
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
                "runtime_env": {
                    "env_vars": {
                        VISIBLE_DEVICES: ",".join(devices),
                        DEVICE_ORDER: "PCI_BUS_ID",
                        "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
                        LEASE_VARIABLE: f"{self.id}:{size}",
                    }
                },
            }
            for node_id, devices in nodes.items()
        ]

    def release(self) -> None:
        """Give the cards back. Processes that still use them are not ended."""
        self._release(self.id)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        cards = ", ".join(device for _, device in self.cards)
        return f"<lease of {cards}{f', ended: {self.ended}' if self.ended else ''}>"


@dataclass(slots=True)
class _Asked:
    """A request that waits for its answer."""

    done: threading.Event
    granted: LeaseGranted | None = None
    ended: LeaseEnded | None = None


class LeaseDesk:
    """The session's leases: asks the Dispatcher for them and hears how they end.

    Parameters
    ----------
    post : callable
        Hands an event to the Dispatcher.
    hold, let_go : callable
        ``hold(lease_id, gpus)`` is called when the session has to hold devices for a lease, with
        whether GPUs are among them; ``let_go(lease_id)`` when it need not any more.
    users : callable
        ``users(node_id, device)``: asks the executor of a card for the ids of the leases whose
        processes are alive on its node; returns None if it does not answer.
    poll_seconds : float
        Seconds between two looks.
    """

    def __init__(
        self,
        post: Callable[[Event], None],
        hold: Callable[[str, bool], None],
        let_go: Callable[[str], None],
        users: Callable[[str, str], frozenset[str] | None],
        poll_seconds: float,
    ) -> None:
        self._post = post
        self._hold = hold
        self._let_go = let_go
        self._users = users
        self._poll_seconds = poll_seconds
        self._lock = threading.Lock()
        self._asked: dict[str, _Asked] = {}
        self._leases: dict[str, Lease] = {}
        self._quiet: dict[str, int] = {}
        self._watcher: threading.Thread | None = None
        self._closed = False

    def reserve(self, timeout: float | None, **needs: Any) -> Lease:
        """Request a lease and wait for it; see `reserve`."""
        lease_id = f"lease-{uuid.uuid4().hex[:12]}"
        asked = _Asked(threading.Event())
        with self._lock:
            if self._closed:
                raise SessionError("the session is shut down")
            self._asked[lease_id] = asked
        try:
            self._hold(lease_id, bool(needs.get("cards", 1)))
            now = time.monotonic()
            until = math.inf if timeout is None else now + timeout
            self._post(LeaseRequested(now, lease_id, until_seconds=until, **needs))
            while not asked.done.wait(0.2):
                pass  # short waits, so that a main thread notices Ctrl-C at once
        except BaseException:
            self._post(LeaseReleased(time.monotonic(), lease_id))
            self._let_go(lease_id)
            raise
        finally:
            with self._lock:
                self._asked.pop(lease_id, None)
        if asked.granted is None:
            self._let_go(lease_id)
            raise _refusal(asked.ended)
        with self._lock:
            return self._leases[lease_id]

    def granted(self, command: LeaseGranted) -> None:
        """Take in a grant (in the loop's thread)."""
        lease = Lease(command.lease_id, command.places, command.sizes, self._released)
        with self._lock:
            asked = self._asked.get(command.lease_id)
            if asked is not None:
                self._leases[command.lease_id] = lease
        if asked is None:  # the caller has given up meanwhile
            self._post(LeaseReleased(time.monotonic(), command.lease_id))
            return
        self._watch()
        asked.granted = command
        asked.done.set()

    def ended(self, command: LeaseEnded) -> None:
        """Take in that a lease has ended or is refused (in the loop's thread)."""
        with self._lock:
            asked = self._asked.get(command.lease_id)
            lease = self._leases.pop(command.lease_id, None)
            self._quiet.pop(command.lease_id, None)
        if lease is not None:
            lease.ended = command.reason
            self._let_go(command.lease_id)
        if asked is not None and lease is None:
            asked.ended = command
            asked.done.set()

    def close(self, reason: str) -> None:
        """End all leases, because the session ends."""
        with self._lock:
            self._closed = True
            leases, self._leases = list(self._leases.values()), {}
            asked = list(self._asked.items())
        for lease in leases:
            lease.ended = reason
        for lease_id, one in asked:
            one.ended = LeaseEnded(lease_id, reason)
            one.done.set()

    def _released(self, lease_id: str) -> None:
        with self._lock:
            known = lease_id in self._leases
        if known:
            self._post(LeaseReleased(time.monotonic(), lease_id))

    # --- the processes that use leases -----------------------------------------------------

    def _watch(self) -> None:
        with self._lock:
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = threading.Thread(target=self._look, name="leases", daemon=True)
                self._watcher.start()

    def _look(self) -> None:
        """Release the leases whose processes were there and are gone."""
        while True:
            time.sleep(self._poll_seconds)
            with self._lock:
                leases = [lease for lease in self._leases.values() if not lease.kept]
                if not leases or self._closed:
                    self._watcher = None
                    return
            seen: dict[tuple[str, str], frozenset[str] | None] = {}
            for lease in leases:
                node_ids = {node_id for node_id, _ in lease.cards}
                answers = []
                for node_id in node_ids:
                    place = next(place for place in lease.cards if place[0] == node_id)
                    if place not in seen:
                        seen[place] = self._users(*place)
                    answers.append(seen[place])
                self._judge(lease, answers)

    def _judge(self, lease: Lease, answers: list[frozenset[str] | None]) -> None:
        if any(answer is not None and lease.id in answer for answer in answers):
            self._quiet[lease.id] = 0
        elif lease.id in self._quiet and None not in answers:
            self._quiet[lease.id] += 1
            if self._quiet[lease.id] >= _QUIET_LOOKS:
                why = "the processes that used it have ended"
                self._post(LeaseReleased(time.monotonic(), lease.id, why))


def _refusal(ended: LeaseEnded | None) -> Exception:
    """Return the error for a request that was not granted."""
    reason = "the session is shut down" if ended is None else ended.reason
    if ended is None or not (ended.impossible or ended.timed_out):
        return SessionError(reason)
    if ended.timed_out:
        return LeaseTimeoutError(reason)
    if "no GPU" in reason:
        return NoSuitableDeviceError(f"a lease needs a GPU, and {reason}")
    return ImpossibleResourcesError(reason)


def needs_of(
    *,
    gpu_memory: int | str | None,
    gpus: float,
    cpus: float,
    memory: int | str | None,
    nodes: int,
) -> dict[str, Any]:
    """Return the fields of a request for these arguments of `reserve`.

    Raises
    ------
    InvalidArgumentError
        They make no sense.
    """
    for name, value in (("gpus", gpus), ("cpus", cpus)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and 0 <= value < math.inf):
            raise InvalidArgumentError(f"{name} must be a number >= 0, not {value!r}")
    if gpus > 1 and gpus != int(gpus):
        raise InvalidArgumentError(f"gpus above 1 must be a whole number, not {gpus!r}")
    if isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 1:
        raise InvalidArgumentError(f"nodes must be a number >= 1, not {nodes!r}")
    size = _size("gpu_memory", gpu_memory)
    if not (gpus or size):
        raise InvalidArgumentError(
            "a lease is of a GPU: say gpu_memory or gpus (Ray itself reserves CPUs)"
        )
    return {
        "cards": max(1, int(gpus)),
        "share": min(1.0, float(gpus)),
        "gpu_memory_bytes": size,
        "cpus": float(cpus),
        "memory_bytes": _size("memory", memory),
        "nodes": nodes,
    }


def _size(name: str, value: int | str | None) -> int:
    if value is None:
        return 0
    if isinstance(value, str):
        return parse_bytes(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidArgumentError(f"{name} must be bytes or a size such as '6 GB', not {value!r}")
    return value


# --- on the node of a card --------------------------------------------------------------------


def lease_of(pid: int) -> tuple[str, int] | None:
    """Return the lease that a process of this machine uses, and the bytes set aside for it on each
    card; None if it uses none, or another user's process cannot be looked into."""
    try:
        found = psutil.Process(pid).environ().get(LEASE_VARIABLE, "")
    except (psutil.Error, OSError):
        return None
    lease_id, _, size = found.partition(":")
    return (lease_id, int(size)) if lease_id and size.isdigit() else None


def leases_in_use() -> frozenset[str]:
    """Return the ids of the leases that living processes of this machine use."""
    found = (lease_of(pid) for pid in psutil.pids())
    return frozenset(one[0] for one in found if one is not None)


def leased_bytes(held: Mapping[int, int], ours: frozenset[int]) -> int:
    """Return the memory of a card that users of leases hold, up to what is set aside for each.

    Parameters
    ----------
    held : mapping
        Bytes on the card by process id.
    ours : frozenset of int
        Processes that certainly use no lease.
    """
    by_lease: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for pid, size in held.items():
        lease = None if pid in ours else lease_of(pid)
        if lease is not None:
            by_lease.setdefault(lease[0], []).append(size)
            sizes[lease[0]] = lease[1]
    return sum(min(sum(used), sizes[name]) for name, used in by_lease.items())
