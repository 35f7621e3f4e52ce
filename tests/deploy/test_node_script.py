"""The image's entry point with programs that stand in for `ray` and `agentic-ray`: what it starts,
in which order it ends it, and how it ends itself. `test_image.py` has the real ones.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deploy_manifests import ROOT
from deploy_parts import surroundings, until

NODE = ROOT / "deploy" / "docker" / "node.sh"

# Writes what happens to it into the log: started with which words, told to end, ended.
STAND_IN = """#!/usr/bin/env bash
name=$(basename "$0")
if [[ $1 == health-check ]]; then
  [[ -e $FOLDER/head-answers ]] || { sleep 0.2; exit 1; }
  exit 0
fi
trap 'echo "$name told" >>"$FOLDER/log"; sleep 0.3; echo "$name ended" >>"$FOLDER/log"; exit 0' TERM
echo "$name $*" >>"$FOLDER/log"
while [[ ! -e $FOLDER/$name-dies ]]; do sleep 0.05; done
exit "$(cat "$FOLDER/$name-dies")"
"""


class Node:
    """The script under way."""

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        for name in ("ray", "agentic-ray"):
            (programs / name).write_text(STAND_IN)
            (programs / name).chmod(0o755)
        (folder / "log").touch()
        self.process = subprocess.Popen(
            ["bash", str(NODE), *words],
            env=surroundings()
            | {
                "FOLDER": str(folder),
                "TMPDIR": str(folder),
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                "AGENTIC_RAY_TOKEN": "t",
            }
            | environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()

    def started(self, count: int) -> list[str]:
        until(lambda: len(self.log) >= count, f"{count} programs: {self.log}", 30)
        return self.log

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(*words: str, **environment: str) -> Node:
        made.append(Node(tmp_path, *words, **environment))
        return made[-1]

    yield make
    for one in made:
        one.process.kill()
        for name in ("ray", "agentic-ray"):
            (tmp_path / f"{name}-dies").write_text("1")
        one.process.communicate(timeout=30)


def test_a_master_is_a_head_and_then_the_service_and_ends_in_reverse(
    node: Callable[..., Node], tmp_path: Path
) -> None:
    one = node("master", "--max-running=3", AGENTIC_RAY_HEAD_PORT="7000")
    (head,) = one.started(1)
    assert "start --block" in head
    assert "--head --port=7000 --num-cpus=0 --dashboard-host=127.0.0.1" in head
    time.sleep(1)
    assert len(one.log) == 1, "the service waits for the head"
    (tmp_path / "head-answers").touch()
    service = one.started(2)[1]
    assert service.startswith(
        "agentic-ray serve --host 0.0.0.0 --behind-proxy --port 8080 --journal"
    )
    assert service.endswith("--address 127.0.0.1:7000 --max-running=3")
    assert (tmp_path / "agentic-ray-role").read_text() == "master\n"
    assert one.end() == 0
    assert one.log[2:] == ["agentic-ray told", "agentic-ray ended", "ray told", "ray ended"]


def test_serve_joins_a_head_with_a_node_that_computes_nothing(
    node: Callable[..., Node], tmp_path: Path
) -> None:
    (tmp_path / "head-answers").touch()
    one = node("serve", AGENTIC_RAY_HEAD="far:6379", AGENTIC_RAY_JOURNAL="none")
    ray, service = sorted(one.started(2), reverse=True)
    assert "--address=far:6379 --num-cpus=0 --num-gpus=0" in ray
    assert "--journal none --address far:6379" in service
    assert one.end() == 0


def test_a_worker_takes_options_of_ray(node: Callable[..., Node], tmp_path: Path) -> None:
    (tmp_path / "head-answers").touch()
    one = node("worker", "--num-cpus=3", AGENTIC_RAY_RAY_OPTIONS="--labels=a=b --num-gpus=0")
    (ray,) = one.started(1)
    assert ray.endswith("--labels=a=b --num-gpus=0 --address=master:6379 --num-cpus=3")
    assert one.end() == 0
    assert one.log[1:] == ["ray told", "ray ended"]


def test_only_a_head_is_given_the_password_of_redis(
    node: Callable[..., Node], tmp_path: Path
) -> None:
    one = node("head", RAY_REDIS_PASSWORD="word")
    assert "--redis-password=word" in one.started(1)[0]


@pytest.mark.parametrize(
    ("dies", "status", "expected"),
    [("ray", "7", 7), ("ray", "0", 1), ("agentic-ray", "3", 3), ("agentic-ray", "0", 1)],
)
def test_when_a_part_ends_the_other_is_ended_and_that_is_an_error(
    node: Callable[..., Node], tmp_path: Path, dies: str, status: str, expected: int
) -> None:
    (tmp_path / "head-answers").touch()
    one = node("master")
    one.started(2)
    (tmp_path / f"{dies}-dies").write_text(status)
    assert one.process.wait(30) == expected
    other = {"ray": "agentic-ray", "agentic-ray": "ray"}[dies]
    assert one.log[2:] == [f"{other} told", f"{other} ended"]


def test_a_head_that_ends_before_it_answers_ends_the_master(
    node: Callable[..., Node], tmp_path: Path
) -> None:
    one = node("master")
    one.started(1)
    (tmp_path / "ray-dies").write_text("5")
    assert one.process.wait(30) != 0
    assert not [line for line in one.log if line.startswith("agentic-ray serve")]


@pytest.mark.parametrize("word", ["master", "serve", "worker"])
def test_the_wait_for_a_head_can_be_ended(node: Callable[..., Node], word: str) -> None:
    one = node(word)
    until((one.folder / "agentic-ray-role").exists, "its start", 30)
    time.sleep(0.5)
    assert one.end() == 0


def test_the_wait_for_a_head_has_an_end(node: Callable[..., Node]) -> None:
    one = node("worker", AGENTIC_RAY_WAIT_SECONDS="1")
    assert one.process.wait(30) == 1
    assert one.process.stderr is not None
    assert "no Ray head answers at master:6379" in one.process.stderr.read()


@pytest.mark.parametrize("word", ["master", "serve"])
def test_the_service_does_not_start_without_its_token(node: Callable[..., Node], word: str) -> None:
    one = node(word, AGENTIC_RAY_TOKEN="")
    assert one.process.wait(30) == 2
    assert one.process.stderr is not None
    assert "set AGENTIC_RAY_TOKEN" in one.process.stderr.read()
    assert one.log == []


def test_other_commands_are_run_as_they_are(node: Callable[..., Node]) -> None:
    one = node("bash", "-c", 'test "$1" = "a b"; exit $((4 + $?))', "-", "a b")
    assert one.process.wait(30) == 4
