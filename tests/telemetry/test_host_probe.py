"""Control-group limits over real directory trees, and the host itself."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentic_ray.telemetry.host import CgroupLimits, oom_kills, probe_host, read_cgroup

GIB = 2**30
UNLIMITED_V1 = 9223372036854771712


def tree(root: Path, files: Mapping[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def test_v2_container_at_the_root_of_its_namespace(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "cgroup.controllers": "cpu memory",
            "cpu.max": "150000 100000",
            "cpu.stat": "usage_usec 2500000\nuser_usec 2000000",
            "memory.max": 4 * GIB,
            "memory.current": 3 * GIB,
            "memory.stat": f"anon 1\ninactive_file {GIB}\nactive_file 5",
        },
    )
    assert read_cgroup(tmp_path, "0::/\n") == CgroupLimits(1.5, 4 * GIB, 2 * GIB, 2.5)


def test_v2_nested_groups_the_tightest_wins(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "cgroup.controllers": "cpu memory",
            "a/cpu.max": "400000 100000",
            "a/memory.max": 8 * GIB,
            "a/memory.current": 7 * GIB + GIB // 2,  # siblings use it
            "a/b/cpu.max": "200000 100000",
            "a/b/cpu.stat": "usage_usec 1000000",
            "a/b/memory.max": 2 * GIB,
            "a/b/memory.current": GIB,
            "a/b/c/cpu.max": "max 100000",
            "a/b/c/memory.max": "max",
            "a/b/c/memory.current": GIB,
        },
    )
    limits = read_cgroup(tmp_path, "0::/a/b/c")
    assert limits == CgroupLimits(2.0, 2 * GIB, GIB // 2, 1.0)


@pytest.mark.parametrize(
    ("files", "membership", "found"),
    [
        ({"cgroup.controllers": "", "a/memory.events": "oom 9\noom_kill 3\n"}, "0::/a/b\n", 3),
        ({"cgroup.controllers": "", "memory.events": "oom_kill 0\n"}, "0::/\n", 0),
        ({"memory/a/memory.oom_control": "under_oom 0\noom_kill 7\n"}, "5:memory:/a\n", 7),
        ({"cgroup.controllers": "", "a/memory.events": "high 1\n"}, "0::/a\n", None),
        ({}, "", None),
    ],
)
def test_how_many_processes_the_kernel_killed_for_want_of_memory(
    tmp_path: Path, files: dict[str, str], membership: str, found: int | None
) -> None:
    tree(tmp_path, files)
    assert oom_kills(tmp_path, membership) == found


def test_v2_without_limits(tmp_path: Path) -> None:
    tree(tmp_path, {"cgroup.controllers": "cpu", "a/cpu.max": "max 100000", "a/memory.max": "max"})
    assert read_cgroup(tmp_path, "0::/a") == CgroupLimits()


def test_v1_with_controllers_mounted_together(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "cpu,cpuacct/docker/x/cpu.cfs_quota_us": 50000,
            "cpu,cpuacct/docker/x/cpu.cfs_period_us": 100000,
            "cpu,cpuacct/docker/x/cpuacct.usage": 3_000_000_000,
            "cpu,cpuacct/cpu.cfs_quota_us": -1,
            "cpu,cpuacct/cpu.cfs_period_us": 100000,
            "memory/docker/x/memory.limit_in_bytes": GIB,
            "memory/docker/x/memory.usage_in_bytes": GIB // 2,
            "memory/docker/x/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 4}",
            "memory/memory.limit_in_bytes": UNLIMITED_V1,
        },
    )
    membership = "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n"
    assert read_cgroup(tmp_path, membership) == CgroupLimits(0.5, GIB, GIB * 3 // 4, 3.0)


def test_v1_container_that_sees_the_paths_of_the_host(tmp_path: Path) -> None:
    # Docker mounts the container's own group at the root, and /proc names it by its full path
    tree(
        tmp_path,
        {
            "memory/memory.limit_in_bytes": 2 * GIB,
            "memory/memory.usage_in_bytes": GIB,
            "cpu/cpu.cfs_quota_us": 300000,
            "cpu/cpu.cfs_period_us": 100000,
        },
    )
    limits = read_cgroup(tmp_path, "2:memory:/docker/abc\n1:cpu:/docker/abc\n")
    assert limits == CgroupLimits(3.0, 2 * GIB, GIB, None)


def test_hybrid_reads_limits_from_v1_beside_an_empty_v2(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "unified/cgroup.controllers": "",
            "memory/a/memory.limit_in_bytes": GIB,
            "memory/a/memory.usage_in_bytes": 0,
        },
    )
    limits = read_cgroup(tmp_path, "4:memory:/a\n1:cpu:/\n0::/a\n")
    assert limits == CgroupLimits(None, GIB, GIB, None)


def test_a_group_outside_of_the_namespace_leaves_its_root(tmp_path: Path) -> None:
    tree(tmp_path, {"cgroup.controllers": "memory", "memory.max": GIB, "memory.current": 1})
    assert read_cgroup(tmp_path, "0::/../../other").memory_total_bytes == GIB


@pytest.mark.parametrize(
    "membership", ["", "nonsense", "0::", "::", "1:cpu", "0::/gone/deeper", "9:cpu,cpuacct:/x"]
)
def test_unusable_membership_is_no_limit(tmp_path: Path, membership: str) -> None:
    assert read_cgroup(tmp_path, membership) == CgroupLimits()


@pytest.mark.parametrize("content", ["", "garbage", "0 0", "100000", "1 2 3", "max max", "5 x"])
def test_unusable_files_are_no_limit(tmp_path: Path, content: str) -> None:
    tree(tmp_path, {"cpu.max": content, "memory.max": "??", "memory.current": ""})
    assert read_cgroup(tmp_path, "0::/") == CgroupLimits()


def test_usage_above_the_limit_leaves_nothing(tmp_path: Path) -> None:
    tree(tmp_path, {"memory.max": 10, "memory.current": 30, "memory.stat": "inactive_file 100"})
    assert read_cgroup(tmp_path, "0::/").memory_free_bytes == 10
    tree(tmp_path, {"memory.stat": "inactive_file 5"})
    assert read_cgroup(tmp_path, "0::/").memory_free_bytes == 0


@given(
    limits=st.lists(
        st.tuples(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_path_of_groups(
    tmp_path_factory: pytest.TempPathFactory, limits: list[tuple[int, int, int]]
) -> None:
    root = tmp_path_factory.mktemp("cgroup")
    path = ""
    for depth, (limit, current, cache) in enumerate(limits):
        files = {"memory.max": limit, "memory.current": current}
        files_with_stat = {**files, "memory.stat": f"inactive_file {cache}"}
        path += f"/{depth}"
        tree(root / path.lstrip("/"), files_with_stat)
    found = read_cgroup(root, f"0::{path}")
    assert found.memory_total_bytes == min(limit for limit, _, _ in limits)
    assert found.memory_free_bytes == min(
        max(0, limit - max(0, current - cache)) for limit, current, cache in limits
    )


def test_limits_cap_the_host(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "cpu.max": "50000 100000",
            "cpu.stat": "usage_usec 0",
            "memory.max": 10 * 2**20,
            "memory.current": 2**20,
        },
    )
    first = probe_host(cgroup_root=tmp_path, cgroup_membership="0::/")
    assert (first.cpus, first.cpu_limit) == (0.5, 0.5)
    assert first.memory_total_bytes == first.memory_limit_bytes == 10 * 2**20
    assert first.memory_free_bytes == 9 * 2**20
    time.sleep(0.05)
    # the busy fraction is of the quota: a lot of CPU time in a short while is all of it
    tree(tmp_path, {"cpu.stat": "usage_usec 60000000"})
    second = probe_host(first, cgroup_root=tmp_path, cgroup_membership="0::/")
    assert second.cpu_fraction == 1.0


def test_huge_limits_do_not_raise_the_host(tmp_path: Path) -> None:
    tree(tmp_path, {"cpu.max": "100000000 100", "memory.max": 2**60, "memory.current": 0})
    limited = probe_host(cgroup_root=tmp_path, cgroup_membership="0::/")
    free = probe_host(cgroup_root=tmp_path, cgroup_membership="")
    assert limited.cpus == free.cpus
    assert limited.memory_total_bytes == free.memory_total_bytes


def test_this_host() -> None:
    first = probe_host()
    assert first.cpu_fraction is None  # no earlier sample to compare with
    assert 0 < first.cpus <= first.cpus_host
    assert 0 < first.memory_free_bytes <= first.memory_total_bytes
    assert first.hostname
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:  # be busy
        math.factorial(500)
    second = probe_host(first)
    assert second.cpu_fraction is not None
    assert 0 < second.cpu_fraction <= 1
