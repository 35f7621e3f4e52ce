"""Which cluster a session joins without an address, and whose token an embedded Ray asks for.

That programs on a node of a real cluster join it is tested in tests/deploy/test_ray_up.py.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentic_ray.config import Settings
from agentic_ray.errors import InvalidArgumentError, SessionError
from agentic_ray.runtime import finding
from agentic_ray.runtime.joining import _address

Make = Callable[[str], "object"]


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which `ray start` notes the cluster, here in a folder of the test's."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


@pytest.fixture
def head() -> Iterator[str]:
    """The address of something that answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def nobody() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


def test_without_a_note_there_is_no_cluster(note: Path) -> None:
    assert finding.cluster_of_this_machine() is None
    assert _address(Settings()) is None
    note.write_text("\n")
    assert finding.cluster_of_this_machine() is None
    with pytest.raises(SessionError, match="ray start --head"):
        _address(Settings(address="auto"))


def test_the_cluster_that_the_note_names_is_joined(note: Path, head: str) -> None:
    note.write_text(head)
    assert _address(Settings()) == head
    assert _address(Settings(address="auto")) == head


def test_who_names_a_cluster_or_none_gets_that(
    note: Path, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    note.write_text(head)
    assert _address(Settings(address="local")) is None
    assert _address(Settings(address="10.0.0.1:6379")) == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert _address(Settings()) is None
    assert _address(Settings(address="auto")) == head
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert _address(Settings()) == "10.0.0.2:6379"
    assert _address(Settings(address="auto")) == "10.0.0.2:6379"


@pytest.mark.parametrize("setting", ["num_cpus", "object_store_memory_bytes"])
def test_what_is_for_an_embedded_ray_is_refused_where_a_cluster_runs(
    note: Path, head: str, setting: str
) -> None:
    note.write_text(head)
    with pytest.raises(InvalidArgumentError, match=f"{setting}.*{head}.*'local'"):
        _address(Settings(**{setting: 1}))
    assert _address(Settings(**{setting: 1}, address="local")) is None


def test_a_note_of_a_cluster_that_has_ended_counts_for_nothing(note: Path, nobody: str) -> None:
    note.write_text(nobody)
    assert _address(Settings()) is None


def test_a_node_whose_head_is_gone_is_said_to_be_one(
    note: Path, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    note.write_text(nobody)
    monkeypatch.setattr(finding, "has_node_of", lambda address: address == nobody)
    with pytest.raises(SessionError, match=f"{nobody}.*'local'"):
        _address(Settings())


def test_a_note_by_another_user_is_not_followed(
    note: Path, head: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    note.write_text(head)
    user = os.getuid() + 1 if os.getuid() else 4711
    if os.getuid():
        monkeypatch.setattr(os, "getuid", lambda: user)
    else:
        os.chown(note, user, -1)
    with caplog.at_level(logging.WARNING, "agentic_ray"):
        assert _address(Settings()) is None
    assert head in caplog.text
    assert "'local'" in caplog.text


def test_raylets_are_known_by_their_cluster() -> None:
    assert not finding.has_node_of("192.0.2.1:1")


@pytest.mark.slow
def test_an_embedded_ray_is_nobodys_cluster_and_leaves_no_token(
    program: Callable[..., object], tmp_path: Path
) -> None:
    one = program(
        """
        import os, pathlib, subprocess, sys
        import agentic_ray as ar
        token = pathlib.Path.home() / ".ray" / "auth_token"
        before = {k: v for k, v in os.environ.items() if "RAY_AUTH" in k}
        ask = '''
        import sys
        import agentic_ray as ar
        try:
            ar.init(sys.argv[1])
        except ar.errors.SessionError as error:
            print("refused", error)
        else:
            print("INSIDE")
        '''
        def joins(address, **environment):
            done = subprocess.run(
                [sys.executable, "-c", ask, address],
                capture_output=True, text=True, timeout=100,
                env={**os.environ, **environment},
            )
            return "INSIDE" in done.stdout
        for _ in range(2):
            ar.init(num_cpus=1)
            import ray
            address = ray.get_runtime_context().gcs_address
            assert ar.map_reduce(abs, [-1, 2], max) == 2
            assert not joins("auto"), "another program took it for the machine's cluster"
            assert joins(address), "a program that this one starts has its token"
            assert not joins(address, RAY_AUTH_TOKEN="0" * 64), "it asks for no token"
            ar.shutdown()
            assert not token.exists()
            assert before == {k: v for k, v in os.environ.items() if "RAY_AUTH" in k}
        # A user's own token is used, and stays.
        token.parent.mkdir(mode=0o700)
        token.write_text("1" * 64)
        ar.init(num_cpus=1)
        assert "RAY_AUTH_TOKEN" not in os.environ
        ar.shutdown()
        assert token.read_text() == "1" * 64
        print("fine")
        """
    )
    # Of Ray's own, with a short name: paths of sockets have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ar-", dir="/tmp") as short:
        assert "fine" in one.run(timeout=280, HOME=str(tmp_path), RAY_TMPDIR=short)
        assert one.leftovers() == []
