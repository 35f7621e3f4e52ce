"""``agentic-ray join``: what it makes of its options. A real node is in tests/deploy."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from agentic_ray.cli import join as module
from agentic_ray.cli.app import run_cli
from agentic_ray.errors import InvalidArgumentError


class Replaced(Exception):
    """The process would have become another program."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The program that the command becomes."""
    found: dict[str, Any] = {}

    def become(program: str, arguments: list[str], environ: dict[str, str]) -> None:
        found.update(arguments=arguments, environ=environ)
        raise Replaced

    monkeypatch.setattr(os, "execve", become)
    monkeypatch.setenv("HOME", str(tmp_path))
    return found


def test_a_small_machine_offers_what_it_has(started: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Replaced):
            run_cli(
                f"join {address} --cpus 1 --gpus 0 --memory 512MB --label site=edge "
                "--label rack=3 --resource camera=2".split()
            )
    shown = started["arguments"][started["arguments"].index("start") :]
    assert shown[:3] == ["start", f"--address={address}", "--block"]
    assert {"--num-cpus=1", "--num-gpus=0", "--labels=site=edge,rack=3"} <= set(shown)
    assert {"--memory=358400000", "--object-store-memory=153600000"} <= set(shown)
    (own,) = [text for text in shown if text.startswith("--resources=")]
    assert json.loads(own.partition("=")[2]) == {"camera": 2.0}
    assert "RAY_ADDRESS" not in started["environ"]


@pytest.mark.parametrize("megabytes", [200, 250, 300, 1000, 64_000])
def test_the_memory_is_shared_out_whole(megabytes: int) -> None:
    size = megabytes * 1_000_000
    shares = dict(text.split("=") for text in module.Offer(memory_bytes=size).arguments())
    tasks, store = int(shares["--memory"]), int(shares["--object-store-memory"])
    assert tasks + store == size
    assert store >= 80_000_000
    assert tasks >= store


def test_nothing_said_is_left_to_ray() -> None:
    assert module.Offer().arguments() == []


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="200 MB"):
        module.Offer(memory_bytes=100_000_000)


@pytest.mark.parametrize(
    "options",
    [
        *("--memory much", "--label site", "--label site=", "--label a=1 --label a=2"),
        *("--label a=1,b=2", "--resource a=x", "--resource a=0", "--resource a=inf"),
    ],
)
def test_what_cannot_be_read_is_wrong_usage(started: dict[str, Any], options: str) -> None:
    assert run_cli(["join", "127.0.0.1:1", *options.split()]) == 2
    assert started == {}


def test_a_cluster_that_does_not_answer_is_named(
    started: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["join", "127.0.0.1:1"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
    assert started == {}


def test_a_token_is_sent_where_there_is_one_and_no_mode_was_chosen(tmp_path: Path) -> None:
    token = tmp_path / "auth_token"
    assert "RAY_AUTH_MODE" not in module.environment({}, token)
    token.write_text("0" * 64)
    assert module.environment({}, token)["RAY_AUTH_MODE"] == "token"
    assert module.environment({"RAY_AUTH_MODE": "disabled"}, token)["RAY_AUTH_MODE"] == "disabled"
