"""Reads this machine. Runs on every node of a cluster too, so it starts nothing."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from agentic_ray import __version__
from agentic_ray.config import cache_directory
from agentic_ray.diagnosis import findings, leftovers
from agentic_ray.diagnosis.findings import Check
from agentic_ray.telemetry import NvmlProbe, probe_host

NEEDED = ("ray", "numpy", "pyarrow", "psutil", "nvidia-ml-py")
"""Distributions without which nothing works."""
COMPARED = (*NEEDED, "cloudpickle", "agentic-ray")
"""Distributions that must have one version on all nodes."""


def check_machine() -> Iterator[Check]:
    """Yield all findings about this machine, each as soon as it is there."""
    yield Check("agentic_ray", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    yield findings.judge_python(sys.version_info[:3], platform.system())
    yield findings.judge_packages({name: version(name) for name in NEEDED})
    reading = NvmlProbe().read()
    cupy = next((name for name in ("cupy-cuda12x", "cupy-cuda13x", "cupy") if version(name)), None)
    yield findings.judge_gpus(reading.gpus, reading.reason, cupy)
    yield findings.judge_shared_memory(_free(Path("/dev/shm")), probe_host().memory_total_bytes)
    scratch = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    yield findings.judge_scratch(scratch, *_usage(scratch))
    yield findings.judge_cache(cache_directory(), _try_to_write(cache_directory()))
    yield findings.judge_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    exposed = exposed_token()
    yield findings.judge_tokens(
        os.environ.get("RAY_AUTH_MODE", ""),
        exposed,
        0 if exposed is None else stat.S_IMODE(exposed.stat().st_mode),
    )
    ended = leftovers.ended_sessions()
    yield findings.judge_leftovers(len(ended), sum(map(leftovers.size_bytes, ended)))


def exposed_token() -> Path | None:
    """Return the file of this user's Ray token if others may read or write it."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    return path if mode & 0o077 else None


def repair() -> Iterator[str]:
    """Mend the findings that can be mended safely; yield a sentence for each thing mended."""
    exposed = exposed_token()
    if exposed is not None:
        exposed.chmod(0o600)
        yield f"{exposed} can be read by its owner only"
    for folder in leftovers.ended_sessions(older_than_seconds=3600):
        size = leftovers.size_bytes(folder)
        shutil.rmtree(folder, ignore_errors=True)
        yield f"removed {folder} ({size / 2**20:.0f} MiB)"


def version(distribution: str) -> str | None:
    """Return the installed version; None: it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _free(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def _usage(path: Path) -> tuple[int, int]:
    while not path.exists():
        path = path.parent
    usage = shutil.disk_usage(path)
    return usage.free, usage.total


def _try_to_write(directory: Path) -> str | None:
    """Return why the directory cannot be written; None if it can."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x")
    except OSError as error:
        return error.strerror or str(error)
    return None
