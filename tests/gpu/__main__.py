"""A card's first minutes: the tests that need one, then the benchmark, in one report.

    python tests/gpu [--out build/gpu] [--minutes 8]

The order gives the most in the time: facts about the machine, the tests, the measurements. A step
that exceeds its part of the time is ended, and the report says so. Nothing is fetched. Writes
``report.json`` and prints a table. Exit codes: 0 all passed, 1 something failed, 2 there is no
usable GPU here.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from agentic_ray.errors import NoSuitableDeviceError
from agentic_ray.runtime.devices import CupyDevice
from agentic_ray.telemetry.nvml import NvmlProbe

ROOT = Path(__file__).resolve().parents[2]
TESTS_SHARE = 0.6
"""Part of the time that the tests may take; the benchmark has the rest."""
PACKAGES = ("ray", "numpy", "cupy-cuda12x", "cupy-cuda13x", "torch", "nvidia-ml-py")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "kernel": platform.release()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cards() -> list[dict[str, Any]]:
    """What NVML says of each card."""
    state = NvmlProbe().read()
    return [
        {"uuid": gpu.uuid, "name": gpu.name, "memory_total_bytes": gpu.memory_total_bytes}
        for gpu in state.gpus
    ]


def why_not() -> str | None:
    """Why no card can be used here; None if one can."""
    try:
        CupyDevice()
    except NoSuitableDeviceError as error:
        return str(error)
    return None


def step(command: list[str], seconds: float) -> dict[str, Any]:
    """Run a program with a time limit; return its exit code (None: ended by us), time and words."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=max(seconds, 1), check=False
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, out, err = None, _text(late.stdout), _text(late.stderr)
    return {
        "exit_code": code, "seconds": round(time.monotonic() - began, 1), "out": out, "err": err,
    }  # fmt: skip


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def tests(out: Path, seconds: float) -> dict[str, Any]:
    """Run the tests of this folder; return the outcome of each."""
    results = out / "tests.xml"
    results.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "gpu")]
    ran = step([*command, f"--junitxml={results}", "-p", "no:cacheprovider"], seconds)
    outcomes: dict[str, str] = {}
    if results.exists():
        for case in ElementTree.parse(results).iter("testcase"):
            kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
            outcomes[str(case.get("name"))] = kinds[0] if kinds else "passed"
    return ran | {"outcomes": outcomes}


def benchmark(seconds: float) -> dict[str, Any]:
    """Run benchmarks/gpu.py; return what it measured."""
    ran = step([sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--json"], seconds)
    try:
        return ran | {"measured": json.loads(ran["out"])}
    except json.JSONDecodeError:
        return ran | {"measured": None}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python tests/gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=8.0)
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"versions": versions(), "no_gpu": why_not()}
    target = options.out / "report.json"

    def keep() -> None:
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps(report, indent=2) + "\n")
        os.replace(partial, target)

    if report["no_gpu"] is not None:
        keep()
        print(f"no usable GPU here: {report['no_gpu']}\nnothing was run; the report is {target}")
        return 2
    report["cards"] = cards()
    keep()
    report["tests"] = tests(options.out, (until - time.monotonic()) * TESTS_SHARE)
    keep()  # whatever happens to the machine next, this much is known
    report["benchmark"] = benchmark(until - time.monotonic())
    keep()
    for card in report["cards"]:
        print(f"{card['name']}  {card['uuid']}  {card['memory_total_bytes']:,} bytes")
    for name, outcome in report["tests"]["outcomes"].items():
        print(f"{outcome:<8} {name}")
    for name in ("tests", "benchmark"):
        ran = report[name]
        end = "out of time" if ran["exit_code"] is None else f"exit code {ran['exit_code']}"
        print(f"{name}: {ran['seconds']} s, {end}")
    print(f"the report is {target}")
    good = all(report[name]["exit_code"] == 0 for name in ("tests", "benchmark"))
    return 0 if good and report["tests"]["outcomes"] else 1


if __name__ == "__main__":
    sys.exit(main())
