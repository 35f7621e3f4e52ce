"""The command lines at the top of examples and benchmarks work as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import ROOT, Shell, copy_checkout

pytestmark = pytest.mark.slow

START = """
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
ray start --head --num-cpus=2 --port=6379 --ray-client-server-port=10001 \\
  --dashboard-host=127.0.0.1 --dashboard-port=8265
export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
until ray job submit -- true > ready.log 2>&1; do sleep 1; done
"""


def header_lines(path: Path) -> list[str]:
    """The indented command lines in the text at the top of a module."""
    top = path.read_text().split('"""')[1]
    return [line.strip() for line in top.splitlines() if re.match(r" {4}(python|ray) ", line)]


@pytest.mark.timeout(600)
@pytest.mark.skipif("AGENTIC_RAY_LONG" not in os.environ, reason="set AGENTIC_RAY_LONG=1")
def test_the_headers_of_examples(tmp_path: Path) -> None:
    """In one cluster; the lines that start with `python` join it."""
    work = tmp_path / "work"
    copy_checkout(work)
    (work / "points.csv").write_text(
        "speed,distance\n" + "".join(f"{x},{3 * x * x - x}\n" for x in range(-50, 51))
    )
    shell = Shell(work, tmp_path)
    try:
        shell.run(START, "the cluster")
        seen = 0
        for path in sorted((ROOT / "examples").glob("*.py")):
            for line in header_lines(path):
                joined = "RAY_ADDRESS=127.0.0.1:6379 " if line.startswith("python") else ""
                printed = shell.run(joined + line, f"{path.name}: {line}")
                assert printed.strip(), line
                seen += 1
        assert seen >= 6
    finally:
        shell.close()


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.name)
def test_the_headers_of_benchmarks_name_options_that_exist(path: Path) -> None:
    lines = header_lines(path)
    if not lines:
        pytest.skip("its header has no command line")
    told = subprocess.run(
        [sys.executable, str(path), "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    for line in lines:
        assert f"benchmarks/{path.name}" in line
        assert [o for o in re.findall(r"--[\w-]+", line) if o not in told] == []


def test_no_benchmark_hides_a_module_of_the_standard_library() -> None:
    """Python looks beside a script first, so `array.py` there would be everybody's `array`."""
    names = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    names |= {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert names & sys.stdlib_module_names == set()
