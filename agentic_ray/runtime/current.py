"""The session that this process uses: made or found, lent to it by a master, shut down."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Mapping
from typing import Any

from agentic_ray.config import Settings
from agentic_ray.errors import SessionError
from agentic_ray.runtime.connection import check_process, forget_when_forked
from agentic_ray.runtime.leases import Lease, needs_of
from agentic_ray.runtime.session import Session
from agentic_ray.schedule.contract import Policy
from agentic_ray.telemetry.state import ClusterState
from agentic_ray.tracebacks import entry

_session: Session | None = None
_session_lock = threading.RLock()


@entry
def init(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    share: float | None = None,
    policy: str | Policy | None = None,
    **settings: Any,
) -> Session:
    """Join a Ray cluster, or start an embedded Ray; return the session, also if it exists already.

    Parameters
    ----------
    address : str, optional
        ``host:port`` of a running cluster, ``"auto"`` (the one that this machine is part of) or
        ``"local"`` (an embedded Ray). Default: ``RAY_ADDRESS`` if set, else the cluster that
        this machine is part of, else an embedded Ray. A Ray that this process has joined
        already is used.
    num_cpus : int, optional
        CPUs of an embedded Ray; default: all. Refused where a cluster would be joined for want of
        an address.
    share : float, optional
        Fraction of each node's CPUs to take; default: all when we started Ray, else those that are
        free.
    policy : str or Policy, optional
        Decides which node and device runs a bundle; default: ``"predictive"``.
    **settings
        Further fields of `agentic_ray.config.Settings`.

    Raises
    ------
    SessionError
        The cluster cannot be reached, there is a session with other settings, or this process was
        forked off one that uses Ray.
    InvalidArgumentError
        A setting is unknown or unusable, or is one of an embedded Ray while a cluster is joined.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> session = ar.init()
    >>> ar.init() is session
    True
    """
    global _session
    check_process()
    given = {"address": address, "num_cpus": num_cpus, "share": share, **settings}
    resolved = Settings.resolve(**given)
    given = {name: value for name, value in given.items() if value is not None}
    if _lent is not None:
        session = _lent()
        adopt = getattr(session, "adopt", None)
        if adopt is None:
            _check_same(session, given, policy)
        else:
            adopt(resolved, given, policy)
        return session
    with _session_lock:
        if _session is not None and _session.closed:
            _session.close()  # Ray was shut down, or replaced, behind its back
            _session = None
        if _session is None:
            _session = Session(resolved, "predictive" if policy is None else policy)
        else:
            _check_same(_session, given, policy)
        return _session


_lent: Callable[[], Session] | None = None


def lend_to_this_process(lent: Callable[[], Any] | None) -> Callable[[], Any] | None:
    """Make this process use a session of another one, which stands in for `Session`; see `lent`.
    ``lent`` is called when the session is first used. Return what stood in before."""
    global _lent
    before, _lent = _lent, lent
    return before


def get_session() -> Session:
    """Return the session, started with default settings if there is none.

    Raises
    ------
    SessionError
        There can be no session: this process was forked off one that uses Ray.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> ar.get_session() is ar.get_session()
    True
    """
    return current_session() or init()


def current_session() -> Session | None:
    """Return the session if there is one; start nothing."""
    if _lent is not None:
        return _lent()
    session = _session
    return None if session is None or session.closed else session


def shutdown() -> None:
    """End the session; Ray too, if we started it. Does nothing when there is none.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> ar.shutdown()
    >>> ar.shutdown()
    """
    global _session
    with _session_lock:
        if _session is not None:
            _session.close()
            _session = None


def cluster() -> ClusterState:
    """Return the cluster as it is now; prints as a table, renders in Jupyter.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> len(ar.cluster().alive_nodes) >= 1
    True
    """
    return get_session().cluster()


def _check_same(session: Session, given: Mapping[str, Any], policy: str | Policy | None) -> None:
    """Refuse settings that the existing session does not have."""
    others = [name for name, value in given.items() if getattr(session.settings, name) != value]
    if policy is not None and policy != session.policy:
        others.append("policy")
    if others:
        raise SessionError(
            f"there is a session already, with other values of {', '.join(others)}; call "
            "agentic_ray.shutdown() first"
        )


def _forget() -> None:
    """Forget the session in a forked process: it is the parent's."""
    global _session, _session_lock
    _inherited.append(_session)  # not to be destroyed here
    _session, _session_lock = None, threading.RLock()


_inherited: list[Session | None] = []
forget_when_forked(_forget)
atexit.register(shutdown)


@entry
def reserve(
    *,
    gpu_memory: int | str | None = None,
    gpus: float = 0.0,
    cpus: float = 0.0,
    memory: int | str | None = None,
    nodes: int = 1,
    timeout: float | None = 300.0,
) -> Lease:
    """Set GPUs aside for plain Ray actors and tasks, where their memory is really free.

    ``Actor.options(**lease.options).remote()`` then runs there: on the lease's node, seeing its
    cards only, by UUID. The lease is in the same books as the functions and arrays of this session,
    so none of them takes its memory; what other programs use is respected when it is granted. It
    ends with `Lease.release`, a ``with`` block, or the processes that use it.

    Parameters
    ----------
    gpu_memory : int or str
        Memory on each card, in bytes or as ``"6 GB"``; it shares the card with others.
    gpus : float
        Up to 1, a fraction of a card, whatever Ray could pack. 1 and more: so many whole cards of
        one node, those that NVLink and PCIe connect best.
    cpus : float
        CPUs on each node.
    memory : int or str
        Host memory on each node.
    nodes : int
        Nodes that each give all of this, all at once or none.
    timeout : float, optional
        Seconds to wait; None: as long as it takes.

    Returns
    -------
    Lease

    Raises
    ------
    LeaseTimeoutError
        It was not granted in time; the text says what each card lacked.
    NoSuitableDeviceError
        The cluster has no GPU.
    ImpossibleResourcesError
        No node or card is as large.
    InvalidArgumentError
        An argument cannot be used.
    SessionError
        The session has ended, or is lent by a master to the process of a job.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> with ar.reserve(gpu_memory="6 GB", cpus=1) as lease:  # doctest: +SKIP
    ...     model = Model.options(**lease.options).remote()
    """
    needs = needs_of(gpu_memory=gpu_memory, gpus=gpus, cpus=cpus, memory=memory, nodes=nodes)
    session = get_session()
    desk = getattr(session, "leases", None)
    if desk is None:
        raise SessionError("a job cannot reserve GPUs: its session belongs to the master")
    found: Lease = desk.reserve(timeout, **needs)
    return found
