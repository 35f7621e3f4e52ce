"""Joins this process to a Ray cluster, or starts an embedded Ray; no more than that."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

import ray
from ray._private import services
from ray._private import worker as ray_worker

from agentic_ray.config import Settings
from agentic_ray.errors import InvalidArgumentError, SessionError
from agentic_ray.runtime import tokens
from agentic_ray.runtime.embedded import init_embedded
from agentic_ray.runtime.finding import (
    CHOICE,
    cluster_of_this_machine,
    has_node_of,
    is_on_this_machine,
)
from agentic_ray.runtime.head import check_head

_logger = logging.getLogger("agentic_ray")
_END_SECONDS: Final = 60.0
# Ray ends a worker process that has had nothing to do for a second; the next task of a function
# then waits seconds for a new one. An embedded Ray keeps its processes for a pause of the user's.
_IDLE_SETTING: Final = "RAY_idle_worker_killing_time_threshold_ms"
_IDLE_MILLISECONDS: Final = 60_000
_NO_RAY_CLIENT: Final = (
    "a session cannot run through Ray Client; run the program on a node of the cluster, send it "
    "with `ray job submit`, or start `agentic-ray serve` there and submit jobs to it over HTTP"
)


def connection() -> tuple[str, str] | None:
    """Return the cluster that this process is connected to, and which connection to it this is."""
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    return context.gcs_address, context.get_job_id()


def connect(
    settings: Settings, patience_seconds: float = 0.0, *, start_again: bool = False
) -> bool:
    """Join or start Ray; return True if it was started here.

    Without an address, the cluster that this machine is part of is joined; an embedded Ray is
    started where there is none.

    Parameters
    ----------
    patience_seconds : float
        Seconds for which an embedded Ray that does not come up is started again and again, three
        times at least.
    start_again : bool
        Whether an embedded Ray has died, and another takes its place.

    Raises
    ------
    SessionError
        No cluster answers there, or no embedded Ray can be started.
    InvalidArgumentError
        The address is one of Ray Client, or settings are for an embedded Ray where a cluster runs.
    """
    refuse_ray_client()
    if ray.is_initialized():
        _refuse_settings_of_embedded(settings, "this process has joined a Ray cluster already")
        return False
    tokens.take_back()  # of an embedded Ray that somebody else has shut down
    address = None if start_again else _address(settings)
    if address is None:
        _start(settings, time.monotonic() + patience_seconds)
        return True
    if address.startswith("ray://"):
        raise InvalidArgumentError(f"{address}: {_NO_RAY_CLIENT}")
    try:
        _join(address)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise SessionError(
            f"no Ray cluster can be joined at {address!r}: {error}. Start one with "
            "`ray start --head`, or leave the address out to use an embedded Ray"
        ) from error
    return False


def _address(settings: Settings) -> str | None:
    """Return the address of the cluster to join; None: an embedded Ray is started."""
    address = _named_or_found(settings)
    if address is not None:
        _refuse_settings_of_embedded(settings, f"the Ray cluster {address} is joined")
    return address


def _named_or_found(settings: Settings) -> str | None:
    address = settings.address or os.environ.get("RAY_ADDRESS") or None
    if address == "local":
        return None
    if address not in (None, "auto"):
        return address
    named = os.environ.get("RAY_ADDRESS") or "auto"
    if named not in ("auto", "local"):
        return named
    found = cluster_of_this_machine()
    if address == "auto" and found is None:
        raise SessionError(
            "address 'auto': this machine is part of no Ray cluster; start one with `ray start "
            "--head`, or leave the address out to use an embedded Ray"
        )
    if address is None and found is not None:
        _logger.info("joining the Ray cluster %s, which this machine is part of", found)
    return found


def _refuse_settings_of_embedded(settings: Settings, because: str) -> None:
    """Raise InvalidArgumentError for settings that a joined cluster cannot honour."""
    names = [n for n in ("num_cpus", "object_store_memory_bytes") if getattr(settings, n)]
    if names:
        raise InvalidArgumentError(
            f"{' and '.join(names)} can be set for an embedded Ray only, but {because}; share= "
            f"sets which part of its CPUs is used. {CHOICE}"
        )


def _join(address: str) -> None:
    head = services.canonicalize_bootstrap_address(address)
    if head is None:
        raise ConnectionError("no cluster runs on this machine")
    if is_on_this_machine(head) or has_node_of(head):
        tokens.use_that_of_this_user()
    check_head(address)
    ray.init(address=head, logging_level=logging.ERROR)


def refuse_ray_client() -> None:
    """Raise SessionError where this process is a Ray Client: nothing of Ray's core is in it."""
    client: Any = sys.modules.get("ray.util.client")
    if client is not None and client.ray.is_connected():
        raise SessionError(f"ray.init was called with a ray:// address: {_NO_RAY_CLIENT}")


def _start(settings: Settings, until: float) -> None:
    """Start an embedded Ray, again and again until the clock shows ``until``."""
    options: dict[str, Any] = {}
    if settings.object_store_memory_bytes is not None:
        options["object_store_memory"] = settings.object_store_memory_bytes
    if _IDLE_SETTING not in os.environ:
        options["_system_config"] = {_IDLE_SETTING.removeprefix("RAY_"): _IDLE_MILLISECONDS}
    tokens.give_own()
    init_embedded(until, num_cpus=settings.num_cpus, logging_level=logging.ERROR, **options)


def address_here() -> str:
    """Return the address of this machine, as the cluster's other machines reach it."""
    return str(ray.util.get_node_ip_address())


def leave_dead_ray() -> None:
    """Call `ray.shutdown` when nobody is there to answer.

    Raises
    ------
    TimeoutError
        The call does not return in time.
    """
    thread = threading.Thread(target=ray.shutdown, name="agentic-ray-leaving", daemon=True)
    thread.start()
    thread.join(_END_SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"the dead one could not be left within {_END_SECONDS:.0f} s")


_told: weakref.WeakMethod[Callable[[], None]] | None = None


def call_before_leaving(tell: Callable[[], None]) -> None:
    """Register the method ``tell``, in place of an earlier one, to be called when `ray.shutdown`
    begins.

    Ray's core ends the process if any thread uses it while, or after, it is shut down. So threads
    that use Ray must be told first, and the references that they still hold are dropped into a
    `_Leaving`. (The method replaced here is the first that `ray.shutdown` calls; Ray offers no
    hook.)
    """
    global _told
    _told = weakref.WeakMethod(tell)
    worker: Any = ray_worker.global_worker
    if worker.shutdown_rdt_manager is not _before_leaving:
        worker.shutdown_rdt_manager = _before_leaving


def _before_leaving() -> None:
    worker: Any = ray_worker.global_worker
    tell = None if _told is None else _told()
    try:
        if tell is not None and hasattr(worker, "core_worker"):
            tell()
    finally:
        if hasattr(worker, "core_worker"):
            worker.core_worker = _Leaving(worker.core_worker)
        type(worker).shutdown_rdt_manager(worker)


class _Leaving:
    """Stand-in for Ray's core while one thread shuts that down; other threads are refused. Counts
    of references mean nothing any more."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        if threading.get_ident() != self._thread:
            raise SessionError("this process is leaving the Ray cluster: ray.shutdown() was called")
        return getattr(self._core, name)

    def remove_object_ref_reference(self, ref: object) -> None:
        pass

    def remove_actor_handle_reference(self, actor_id: object) -> None:
        pass
