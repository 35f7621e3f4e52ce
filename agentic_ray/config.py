"""Settings of a session, read once: arguments first, then ``AGENTIC_RAY_*``, then defaults."""

from __future__ import annotations

import os
import tempfile
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that a session runs with. Every field is also ``AGENTIC_RAY_<NAME>`` in the
    environment.

    Parameters
    ----------
    address : str or None
        Ray cluster (``host:port``, or ``"auto"``: the one that this machine is part of) or
        ``"local"``, an embedded Ray of our own; None: ``RAY_ADDRESS`` if set, else the cluster
        that this machine is part of, else an embedded Ray.
    num_cpus : int or None
        CPUs of an embedded Ray; None: all of the machine.
    object_store_memory_bytes : int or None
        Object store of an embedded Ray; None: Ray's default.
    share : float or None
        Fraction (0, 1] of each node's CPUs this session takes; None: all when we started Ray, else
        those that are free.
    idle_release_seconds : float
        Seconds without work after which the session gives its CPUs back to Ray.
    poll_seconds : float
        Seconds between two looks at nodes and their telemetry.
    progress : bool or None
        Whether to show progress bars; None: where a person watches (a terminal or a notebook).
    progress_after_seconds : float
        Seconds of work before a bar appears; shorter work shows none.
    max_failures : int
        Deaths of its own executor that a bundle may survive.
    max_user_retries : int
        Exceptions of types in ``retry_on`` that a bundle may survive.
    second_copies : bool
        Whether a bundle that takes far longer than predicted is run a second time elsewhere.
    gpu_idle_release_seconds : float
        Seconds without work after which the session gives its GPUs back, on a cluster that it
        joined. Longer than for CPUs, because getting a GPU again takes seconds.
    node_idle_release_seconds : float
        Seconds without work after which the session ends its executors, on a cluster that it
        joined: then Ray's autoscaler can take the nodes down. The next work starts executors again,
        which takes a second or two.
    keep_costs : bool
        Whether learnt costs are kept for later sessions, in the user's cache directory.
    no_node_seconds : float
        Seconds that work waits while no node of the cluster takes any, before it fails with
        NoNodeError. An embedded Ray that has died is started anew for as long, and a GPU that the
        cluster's autoscaler may bring is waited for as long.
    memory_wait_seconds : float
        Seconds for which a bundle that was killed for want of memory is tried again while programs
        that are not ours hold that memory, before it fails with OutOfHostMemoryError.
    gpu_device : str
        Path ``package.module:Class`` of the class through which executors use their GPU, importable
        on the GPU nodes; it meets `agentic_ray.runtime.devices.Device`.
    namespace : str
        Ray's namespace in which masters have their names: teams that share a cluster take one each,
        so that one team's ``master`` is not the other's.
    record : str or None
        Folder in which each session writes a recording of its own, for ``agentic-ray replay``.
    in_process_transport : bool
        Whether the last small steps of a reduction are done in this process at once. They are sent
        to executors otherwise.
    socket_transport : bool
        Whether small bundles go to executors on this machine over sockets. All go through Ray
        otherwise.
    kept_events : int
        How many of the scheduler's last events and decisions a session keeps in memory (counted
        with the tasks and values in them; about 200 bytes each), for
        `Session.write_last_events` and for internal errors. 0: none.
    full_tracebacks : bool
        Whether exceptions show the frames of this package too, and those of its executors.
    """

    address: str | None = None
    num_cpus: int | None = None
    object_store_memory_bytes: int | None = None
    share: float | None = None
    idle_release_seconds: float = 2.0
    poll_seconds: float = 1.0
    progress: bool | None = None
    progress_after_seconds: float = 2.0
    max_failures: int = 4
    max_user_retries: int = 3
    second_copies: bool = True
    gpu_idle_release_seconds: float = 30.0
    node_idle_release_seconds: float = 300.0
    keep_costs: bool = True
    no_node_seconds: float = 300.0
    memory_wait_seconds: float = 300.0
    gpu_device: str = "agentic_ray.runtime.devices:CupyDevice"
    namespace: str = "agentic_ray"
    record: str | None = None
    in_process_transport: bool = True
    socket_transport: bool = True
    kept_events: int = 50_000
    full_tracebacks: bool = False

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for entry in fields(self):
            _check_type(entry.name, getattr(self, entry.name), hints[entry.name])
        size = self.object_store_memory_bytes
        if size is not None and size < 1:
            raise InvalidArgumentError(f"object_store_memory_bytes must be positive, not {size}")
        if self.num_cpus is not None and self.num_cpus < 1:
            raise InvalidArgumentError(f"num_cpus must be at least 1, not {self.num_cpus}")
        if self.share is not None and not 0 < self.share <= 1:
            raise InvalidArgumentError(f"share must be in (0, 1], not {self.share}")
        for name in (
            "idle_release_seconds",
            "gpu_idle_release_seconds",
            "node_idle_release_seconds",
            "progress_after_seconds",
            "no_node_seconds",
            "memory_wait_seconds",
            "max_failures",
            "max_user_retries",
            "kept_events",
        ):
            if not getattr(self, name) >= 0:
                raise InvalidArgumentError(f"{name} must be >= 0, not {getattr(self, name)}")
        if not self.namespace:
            raise InvalidArgumentError("namespace must not be empty")
        if not self.poll_seconds > 0:
            raise InvalidArgumentError(f"poll_seconds must be > 0, not {self.poll_seconds}")

    @classmethod
    def resolve(cls, environ: Mapping[str, str] | None = None, **arguments: Any) -> Settings:
        """Make settings from ``arguments`` that are not None, then the environment, then defaults.

        Raises
        ------
        InvalidArgumentError
            An argument is unknown, or a value cannot be read or used.
        """
        environ = os.environ if environ is None else environ
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(arguments) - known)
        if unknown:
            raise InvalidArgumentError(
                f"unknown setting {', '.join(unknown)}; there are: {', '.join(sorted(known))}"
            )
        types = typing.get_type_hints(cls)
        chosen: dict[str, Any] = {}
        for name in known:
            if arguments.get(name) is not None:
                chosen[name] = arguments[name]
            elif (text := environ.get(f"AGENTIC_RAY_{name.upper()}", "")) != "":
                chosen[name] = _parse(name, text, types[name])
        return cls(**chosen)


def _check_type(name: str, value: Any, hint: Any) -> None:
    allowed = typing.get_args(hint) or (hint,)
    if float in allowed:
        allowed = (*allowed, int)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        expected = " or ".join("None" if t is type(None) else t.__name__ for t in allowed)
        raise InvalidTypeError(f"{name} must be {expected}, not {value!r}")


def _parse(name: str, text: str, hint: Any) -> Any:
    wanted = next((t for t in typing.get_args(hint) if t is not type(None)), hint)
    try:
        if wanted is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
                text.lower()
            ]
        return wanted(text)
    except (KeyError, ValueError):
        raise InvalidArgumentError(
            f"AGENTIC_RAY_{name.upper()}={text!r} is not a {wanted.__name__}"
        ) from None


def cache_directory() -> Path:
    """Return the place of this user's calibrations, kernels and unpacked data (not created
    here)."""
    caches = os.environ.get("XDG_CACHE_HOME")
    if caches:
        return Path(caches) / "agentic_ray"
    try:
        return Path.home() / ".cache" / "agentic_ray"
    except RuntimeError:  # an account without a home, as in containers
        return Path(tempfile.gettempdir()) / f"agentic_ray-{os.getuid()}"
