"""`agentic-ray doctor`: the judging of what it reads, this machine, leftovers, a cluster."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentic_ray.cli.app import run_cli
from agentic_ray.diagnosis import findings, leftovers
from agentic_ray.runtime import Session
from agentic_ray.runtime.everywhere import addresses_of_nodes, call_everywhere, unreached
from agentic_ray.telemetry import GpuState
from tests.support.programs import ROOT, without_ray_settings

GIB = 1 << 30
ILL = GpuState("u", 0, "A", healthy=False, reason="XID 79")


GIB = 1 << 30
ILL = GpuState("u", 0, "A", healthy=False, reason="XID 79")


@pytest.mark.parametrize(
    ("check", "level", "says"),
    [
        (findings.judge_python((3, 10, 1), "Linux"), "fail", "3.11"),
        (findings.judge_python((3, 13, 0), "Darwin"), "warn", "Linux"),
        (findings.judge_python((3, 11, 0), "Linux"), "ok", ""),
        (findings.judge_packages({"ray": "2", "numpy": None}), "fail", "pip install numpy"),
        (findings.judge_packages({"ray": "2"}), "ok", ""),
        (findings.judge_gpus((), "no NVIDIA driver", None), "ok", "no NVIDIA driver"),
        (findings.judge_gpus((GpuState("u", 0, "H100"),), None, None), "warn", "cuda12"),
        (findings.judge_gpus((GpuState("u", 0, "H100"),), None, "cupy-cuda12x"), "ok", "H100"),
        (
            findings.judge_gpus((ILL,), None, "c"),
            "fail",
            "XID 79",
        ),
        (findings.judge_shared_memory(None, GIB), "fail", "mount"),
        (findings.judge_shared_memory(60 << 20, 16 * GIB), "fail", "--shm-size"),
        (findings.judge_shared_memory(GIB, 16 * GIB), "warn", "4.8 GiB"),
        (findings.judge_shared_memory(8 * GIB, 16 * GIB), "ok", ""),
        (findings.judge_scratch(Path("/tmp"), GIB // 4, 100 * GIB), "fail", "RAY_TMPDIR"),
        (findings.judge_scratch(Path("/tmp"), 2 * GIB, 100 * GIB), "warn", "95 %"),
        (findings.judge_scratch(Path("/tmp"), 20 * GIB, 100 * GIB), "ok", ""),
        (findings.judge_cache(Path("/c"), "Permission denied"), "warn", "XDG_CACHE_HOME"),
        (findings.judge_cache(Path("/c"), None), "ok", ""),
        (findings.judge_files(256), "fail", "ulimit"),
        (findings.judge_files(1024), "warn", "ulimit"),
        (findings.judge_files(65536), "ok", ""),
        (findings.judge_files(-1), "ok", "no limit"),
        (findings.judge_tokens("token", None), "ok", "token"),
        (findings.judge_tokens("", Path("/h/auth_token"), 0o644), "warn", "chmod 600"),
        (findings.judge_leftovers(3, GIB // 2), "ok", ""),
        (findings.judge_leftovers(3, 2 * GIB), "warn", "--fix"),
        (findings.judge_autoscaling((), (), ()), "ok", "no node is on its way"),
        (findings.judge_autoscaling(("2 × gpu",), (), (({"GPU": 1.0}, 3),)), "ok", "3 × GPU 1"),
        (findings.judge_autoscaling((), (), (({"GPU": 1.0}, 3),)), "warn", "max_workers"),
        (findings.judge_autoscaling((), ("1 × gpu: no quota",), ()), "fail", "no quota"),
    ],
)
def test_what_the_doctor_makes_of_what_it_finds(
    check: findings.Check, level: str, says: str
) -> None:
    assert check.level == level
    assert says in f"{check.found} {check.advice}"
    assert check.level == "ok" or check.advice


def test_the_doctor_reads_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    code = run_cli(["doctor", "--quick", "--json"])
    checks = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in checks][:3] == ["agentic_ray", "python", "packages"]
    assert code == (1 if any(check["level"] == "fail" for check in checks) else 0)
    run_cli(["doctor", "--quick"])
    assert "ok    python" in capsys.readouterr().out


@pytest.mark.slow
def test_the_doctor_starts_ray_and_gets_an_answer() -> None:
    program = [sys.executable, "-m", "agentic_ray.cli", "doctor", "--num-cpus", "1", "--json"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    ray = json.loads(done.stdout)[-1]
    assert (ray["name"], ray["level"]) == ("ray", "ok"), ray


@pytest.mark.slow
def test_the_doctor_looks_at_all_nodes_and_between_them() -> None:
    """In a process of its own, which joins a cluster of two raylets."""
    code = """
import sys
from tests.support.clusters import start_head
cluster = start_head(1)
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
from agentic_ray.cli.app import run_cli
code = run_cli(["doctor", "--address", cluster.address, "--json"])
cluster.shutdown()
sys.exit(code)
"""
    program = [sys.executable, "-c", code]
    done = subprocess.run(
        program, capture_output=True, text=True, check=False, env=without_ray_settings(), cwd=ROOT
    )
    checks = json.loads(done.stdout)
    found = {check["name"]: check for check in checks if not check["node"]}
    assert found["ports"]["found"] == "2 nodes reach each other", done.stderr
    assert found["versions"]["found"] == "the same on 2 nodes"
    assert "autoscaler" not in found, "there is none"


def test_clocks_are_judged_by_what_is_certain() -> None:
    assert findings.judge_clock("n", behind=30.0, error=31.0) is None
    late, early = findings.judge_clock("n", 40.0, 2.0), findings.judge_clock("n", -40.0, 2.0)
    assert late is not None
    assert late.node == "n"
    assert "38 s or more behind" in late.found
    assert early is not None
    assert "ahead" in early.found


def test_ports_that_a_node_does_not_reach_are_named() -> None:
    assert findings.judge_reach("n", []) is None
    check = findings.judge_reach("n", [f"10.0.0.{i}:80 (refused)" for i in range(7)])
    assert check is not None
    assert (check.level, check.node) == ("fail", "n")
    assert "10.0.0.4:80" in check.found
    assert "and others" in check.found
    with socket.socket() as closed, socket.socket() as listens:
        closed.bind(("127.0.0.1", 0))
        listens.bind(("127.0.0.1", 0))
        listens.listen()
        there, gone = listens.getsockname(), closed.getsockname()
        (found,) = unreached([there, gone])
    assert found.startswith(f"127.0.0.1:{gone[1]}")


def test_the_living_nodes_have_addresses_that_answer(ray_session: Session) -> None:
    (node,) = ray_session.cluster().alive_nodes
    addresses = addresses_of_nodes()[node.node_id]
    assert len(addresses) == 2
    assert unreached(addresses) == []


def test_versions_that_differ_are_named_by_node() -> None:
    same = {"ray": "2.60.0", "numpy": "2.1"}
    assert findings.judge_versions({"a": same, "b": same}) == []
    found = findings.judge_versions(
        {"a": same, "b": {"ray": "2.59.0", "numpy": None}, "c": dict(same)}
    )
    assert {(check.node, check.level) for check in found} == {("b", "warn"), ("b", "fail")}
    assert any("numpy is missing, most nodes have 2.1" in check.found for check in found)


def test_ended_sessions_are_found_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    token = tmp_path / "auth_token"
    token.write_text("secret")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    made = [tmp_path / "ray" / f"session_2026-01-0{i}_x" for i in range(1, 4)]
    for folder in made:
        (folder / "logs").mkdir(parents=True)
        (folder / "logs" / "a.log").write_bytes(b"x" * 1000)
    ended, used, fresh = made
    for folder in (ended, used):
        os.utime(folder, (time.time() - 7200,) * 2)
    user = subprocess.Popen([sys.executable, "-c", "input()", used.name], stdin=subprocess.PIPE)
    try:
        assert set(leftovers.ended_sessions()) == {ended, fresh}
        assert leftovers.ended_sessions(older_than_seconds=3600) == [ended]
        assert leftovers.size_bytes(ended) == 1000
        assert run_cli(["doctor", "--quick", "--fix"]) in (0, 1)
        assert str(ended) in capsys.readouterr().out
        assert [folder.exists() for folder in made] == [False, True, True]
        assert token.stat().st_mode & 0o777 == 0o600
    finally:
        user.communicate(b"\n")


def test_every_node_answers_and_errors_have_their_node(ray_session: Session) -> None:
    (node,) = ray_session.cluster().alive_nodes
    answer = call_everywhere(own_pid, [node.node_id], 60)[node.node_id]
    assert answer.value != os.getpid()
    assert answer.error == ""
    assert answer.sent_at <= answer.received_at
    failed = call_everywhere(abs_of_nothing, [node.node_id], 60)[node.node_id]
    assert "TypeError" in failed.error
    silent = call_everywhere(sleep_long, [node.node_id], 0.5)[node.node_id]
    assert silent.error == "no answer within 0.5 s"


def own_pid() -> int:
    return os.getpid()


def abs_of_nothing() -> int:
    return abs(None)  # type: ignore[arg-type]


def sleep_long() -> None:
    time.sleep(60)
