"""A short measurement of the node this runs on, stored per host and reused.

An executor on the node measures the rates; a session times calls by themselves on its own calls.
`schedule.calibration` tells what the figures mean.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray

from agentic_ray.config import cache_directory

_logger = logging.getLogger("agentic_ray")
_ROUNDS = 5
_MATRIX = 512
_COPY_BYTES = 64 << 20  # larger than the caches
_STORED_BYTES = 16 << 20
_VERSION = 2


@dataclass(frozen=True, slots=True)
class HostRates:
    """Work that one CPU slot of a host does a second.

    Parameters
    ----------
    flops_per_second : float
        Rate of a float64 matrix product on one core.
    bytes_per_second : float
        Rate of memory, read and written bytes counted.
    store_bytes_per_second : float
        Rate of a value into the object store and out of it.
    """

    flops_per_second: float
    bytes_per_second: float
    store_bytes_per_second: float


@dataclass(frozen=True, slots=True)
class HostCalls:
    """Measured time of calls from this host to executors.

    Parameters
    ----------
    overhead_seconds : float
        Seconds of one call there and back, beside its work.
    """

    overhead_seconds: float


_Figures = TypeVar("_Figures", HostRates, HostCalls)


def through_store(value: Any) -> Any:
    """Put a value in Ray's object store and take it out again."""
    return ray.get(ray.put(value))


def host_rates(
    directory: Path | None = None, store: Callable[[Any], Any] = through_store
) -> HostRates:
    """Return the rates of this host: measured once (about 0.5 s), then read from the user's cache.

    A stored file that cannot be used is set aside with a warning and measured anew; a cache
    that cannot be written costs the measurement each time.
    """
    path = _path(directory, "")
    stored = _read(path, HostRates)
    if stored is not None:
        return stored
    measured = measure(store)
    _write(path, measured)
    return measured


def unstored_host_rates() -> HostRates:
    """Return the rates of this host without Ray: as an earlier session measured them, else measured
    now, with a copy for the object store, and not stored."""
    return _read(_path(None, ""), HostRates) or measure(np.copy)


def host_calls(directory: Path | None = None) -> HostCalls | None:
    """Return the calls as an earlier session on this host measured them; None if none did."""
    return _read(_path(directory, "-calls"), HostCalls)


def keep_host_calls(calls: HostCalls, directory: Path | None = None) -> None:
    """Store this session's measurement of its calls, for later ones on this host."""
    _write(_path(directory, "-calls"), calls)


def measure(store: Callable[[Any], Any] = through_store) -> HostRates:
    """Measure now. The best of a few rounds counts, since other load only slows rounds down."""
    rng = np.random.default_rng(0)
    matrix = rng.random((_MATRIX, _MATRIX))
    product = np.empty_like(matrix)
    gemm = _best(lambda: np.matmul(matrix, matrix, out=product))
    source = np.ones(_COPY_BYTES // 8)
    target = np.empty_like(source)
    copy = _best(lambda: np.copyto(target, source))
    stored = np.ones(_STORED_BYTES // 8)
    put = _best(lambda: store(stored))
    return HostRates(2.0 * _MATRIX**3 / gemm, 2.0 * source.nbytes / copy, stored.nbytes / put)


def _best(function: Callable[[], Any]) -> float:
    function()  # touch pages and start threads outside the measured time
    times = []
    for _ in range(_ROUNDS):
        before = time.perf_counter()
        function()
        times.append(time.perf_counter() - before)
    return max(min(times), 1e-9)


def _path(directory: Path | None, what: str) -> Path:
    folder = (directory or cache_directory()) / "calibration"
    return folder / f"{platform.node() or 'host'}-{os.cpu_count()}{what}.json"


def _write(path: Path, measured: HostRates | HostCalls) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps({"version": _VERSION, **asdict(measured)}))
        draft.replace(path)
    except OSError as error:
        _logger.warning("the calibration of this host cannot be stored: %s", error)


def _read(path: Path, kind: type[_Figures]) -> _Figures | None:
    try:
        stored = json.loads(path.read_text())
        if stored.get("version") != _VERSION:
            return None
        found = kind(*(float(stored[entry.name]) for entry in fields(kind)))
        if not all(0 < figure < 1e18 for figure in asdict(found).values()):
            raise ValueError("a figure is out of range")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _logger.warning("%s is not a calibration (%s); it is set aside", path, error)
        try:
            path.replace(path.with_suffix(".bad"))
        except OSError:
            return None  # a read-only cache: measured anew each time
        return None
    return found
