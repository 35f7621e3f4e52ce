"""Memory that executors keep for the next array."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from agentic_ray.runtime import allocator

PROGRAM = """
import resource, sys
import numpy as np
from agentic_ray.runtime.allocator import keep_freed_memory

def compute():
    x = np.ones(65536)
    y = x + 1
    return (y * 2).sum()

def new_pages():
    compute()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        compute()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert keep_freed_memory()
print(new_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this setting")
def test_arrays_of_a_cache_block_are_made_in_memory_that_was_freed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    # By default some 100 for every array of 512 KB: tens of thousands.
    assert int(done.stdout) < 1000


def test_other_systems_go_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    assert not allocator.keep_freed_memory()
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()
