"""The command ``doctor``: is this machine fit to run, and what to do where it is not.

Each check reads one thing at the edge and judges it in a pure function.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from agentic_ray.cli import options

if TYPE_CHECKING:
    from agentic_ray.telemetry import GpuState

Level = Literal["ok", "warn", "fail"]
_GIB = 1 << 30
_NEEDED = ("ray", "numpy", "pyarrow", "psutil", "nvidia-ml-py")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. ``advice`` says what to do unless all is well."""

    name: str
    level: Level
    found: str
    advice: str = ""


@click.command()
@click.option("--quick", is_flag=True, help="Do not start Ray.")
@options.session
@options.as_json
@click.pass_context
def doctor(
    context: click.Context,
    quick: bool,
    address: str | None,
    num_cpus: int | None,
    as_json: bool,
) -> None:
    """Check this machine; exit code 1 if something will not work."""
    checks: list[Check] = []
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for check in _checks(quick, address, num_cpus):
        checks.append(check)
        if not as_json:
            level = click.style(f"{check.level:4}", fg=colours[check.level])
            click.echo(f"{level}  {check.name:14} {check.found}")
            if check.advice:
                click.echo(f"{'':21}-> {check.advice}")
    if as_json:
        options.print_json([asdict(check) for check in checks])
    context.exit(1 if any(check.level == "fail" for check in checks) else 0)


def _checks(quick: bool, address: str | None, num_cpus: int | None) -> Iterator[Check]:
    from agentic_ray import __version__
    from agentic_ray.config import cache_directory
    from agentic_ray.telemetry import NvmlProbe, probe_host

    yield Check("agentic_ray", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    yield judge_python(sys.version_info[:3], platform.system())
    yield judge_packages({name: _version(name) for name in _NEEDED})
    reading = NvmlProbe().read()
    cupy = next((name for name in ("cupy-cuda12x", "cupy-cuda13x", "cupy") if _version(name)), None)
    yield judge_gpus(reading.gpus, reading.reason, cupy)
    yield judge_shared_memory(_free(Path("/dev/shm")), probe_host().memory_total_bytes)
    scratch = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    yield judge_scratch(scratch, *_usage(scratch))
    yield judge_cache(cache_directory(), _try_to_write(cache_directory()))
    yield judge_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if not quick:
        yield _start_ray(address, num_cpus)


# --- judging: pure -----------------------------------------------------------------------


def judge_python(version: tuple[int, ...], system: str) -> Check:
    found = f"{'.'.join(map(str, version))} on {system}"
    if version < (3, 11):
        return Check("python", "fail", found, "use Python 3.11 or newer")
    if system != "Linux":
        return Check("python", "warn", found, "only Linux is tested")
    return Check("python", "ok", found)


def judge_packages(versions: dict[str, str | None]) -> Check:
    found = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Check("packages", "fail", found, f"pip install {' '.join(missing)}")
    return Check("packages", "ok", found)


def judge_gpus(gpus: tuple[GpuState, ...], reason: str | None, cupy: str | None) -> Check:
    if not gpus:
        # A machine without a GPU is a good machine; why none is seen may still be news.
        return Check("gpu", "ok", f"none: {reason or 'the driver reports none'}")
    found = ", ".join(f"{gpu.index}: {gpu.name}" for gpu in gpus)
    ill = [f"GPU {gpu.index}: {gpu.reason}" for gpu in gpus if not gpu.healthy]
    if ill:
        return Check("gpu", "fail", found, "; ".join(ill) + "; such a GPU is not used")
    if cupy is None:
        return Check(
            "gpu",
            "warn",
            f"{found}; no CuPy, so they are not used",
            "pip install 'agentic-ray[cuda12]' or 'agentic-ray[cuda13]', as the driver needs",
        )
    return Check("gpu", "ok", f"{found}; {cupy}")


def judge_shared_memory(free_bytes: int | None, memory_bytes: int | None) -> Check:
    name = "shared memory"
    if free_bytes is None:
        return Check(name, "fail", "no /dev/shm", "mount a tmpfs on /dev/shm")
    found = f"{free_bytes / _GIB:.1f} GiB free in /dev/shm"
    advice = "in a container: docker run --shm-size=8g (Kubernetes: an emptyDir with medium Memory)"
    if free_bytes < 64 << 20:
        return Check(name, "fail", found, advice)
    wanted = 0.3 * (memory_bytes or 0)  # the share of memory that Ray gives its object store
    if free_bytes < wanted:
        found += f", Ray's object store wants {wanted / _GIB:.1f} GiB"
        return Check(name, "warn", found, advice)
    return Check(name, "ok", found)


def judge_scratch(path: Path, free_bytes: int, total_bytes: int) -> Check:
    found = f"{free_bytes / _GIB:.1f} GiB free in {path}"
    advice = "free some, or point RAY_TMPDIR to another disk"
    if free_bytes < _GIB // 2:
        return Check("disk", "fail", found, advice)
    if free_bytes < 0.05 * total_bytes:
        return Check("disk", "warn", f"{found}; Ray stops at 95 % full", advice)
    return Check("disk", "ok", found)


def judge_cache(path: Path, problem: str | None) -> Check:
    if problem is None:
        return Check("cache", "ok", str(path))
    return Check(
        "cache",
        "warn",
        f"{path} cannot be written: {problem}",
        "set XDG_CACHE_HOME to a directory of yours; without it calibrations are lost",
    )


def judge_files(limit: int) -> Check:
    if limit == resource.RLIM_INFINITY:
        return Check("open files", "ok", "no limit")
    if limit < 1024:
        return Check("open files", "fail", f"at most {limit}", "ulimit -n 65536")
    if limit < 4096:
        return Check("open files", "warn", f"at most {limit}", "on a cluster: ulimit -n 65536")
    return Check("open files", "ok", f"at most {limit}")


# --- reading -----------------------------------------------------------------------------


def _version(distribution: str) -> str | None:
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
    """Why the directory cannot be written; None if it can."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x")
    except OSError as error:
        return error.strerror or str(error)
    return None


def _start_ray(address: str | None, num_cpus: int | None) -> Check:
    import agentic_ray as ar

    began = time.monotonic()
    try:
        session = ar.init(address, num_cpus=num_cpus)
        ready = time.monotonic() - began
        answer = ar.map_reduce(_square, range(100), _add)
        took = time.monotonic() - began - ready
        nodes = len(session.cluster().alive_nodes)
    except Exception as error:  # whatever it is that keeps Ray from working is the finding
        advice = "the reason is in the log under /tmp/ray/session_latest/logs"
        return Check("ray", "fail", f"{type(error).__name__}: {error}", advice)
    finally:
        ar.shutdown()
    found = f"ready in {ready:.1f} s with {nodes} node(s), first answer after {took:.2f} s"
    if answer != sum(x * x for x in range(100)):
        return Check("ray", "fail", f"wrong result {answer}", "please report this")
    return Check("ray", "ok", found)


def _square(x: int) -> int:
    return x * x


def _add(a: int, b: int) -> int:
    return a + b
