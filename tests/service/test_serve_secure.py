"""`agentic-ray serve` with TLS, tokens of users, uploads and an audit log, as a real process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentic_ray import Client
from agentic_ray.errors import ServiceError, UnknownJobError

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not there"
)


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentic_ray.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("secure")
    line = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    line += " -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run(line.split(), check=True, capture_output=True, cwd=made)
    return made


def made_token(folder: Path, *arguments: str) -> str:
    told = command("token", "create", *arguments, "--tokens", str(folder / "tokens"))
    assert told.returncode == 0, told.stderr
    return told.stdout.strip()


@pytest.fixture(scope="module")
def tokens(folder: Path) -> dict[str, str]:
    return {
        "alice": made_token(folder, "alice"),
        "bob": made_token(folder, "bob", "--rate", "1000"),
        "root": made_token(folder, "root", "--scope", "admin", "--days", "1"),
    }


@pytest.fixture(scope="module")
def url(folder: Path, tokens: dict[str, str]) -> Iterator[str]:
    arguments = ["serve", "--port", "0", "--host", "0.0.0.0", "--num-cpus", "2"]
    arguments += ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]
    arguments += ["--tokens", str(folder / "tokens"), "--audit", str(folder / "audit")]
    arguments += ["--journal", str(folder / "j.sqlite3")]
    with subprocess.Popen(
        [sys.executable, "-m", "agentic_ray.cli", *arguments], stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        found = re.fullmatch(r"serving on https://0\.0\.0\.0:(\d+)\n", service.stdout.readline())
        assert found
        yield f"https://localhost:{found[1]}"
        service.send_signal(signal.SIGTERM)


def client(folder: Path, url: str, token: str) -> Client:
    return Client(url, token, ca_file=str(folder / "cert.pem"))


def test_uploads_and_named_workloads_over_tls(
    folder: Path, url: str, tokens: dict[str, str]
) -> None:
    np.save(folder / "a.npy", np.arange(1000))
    (folder / "words.txt").write_text("to be or not to be\n" * 100)
    with client(folder, url, tokens["alice"]) as alice:
        alice.upload("a.npy", folder / "a.npy")
        alice.upload("words.txt", folder / "words.txt")
        ref: dict[str, Any] = {"data": {"ref": "a.npy"}}
        assert alice.result(alice.submit(ref), 250) == sum(i * i for i in range(1000))
        assert alice.result(alice.submit(ref | {"reduce": "max"}, workload="map_reduce"), 60) == 999
        counted = alice.submit({"data": {"ref": "words.txt"}, "most": 1}, workload="word_count")
        assert alice.result(counted, 60) == {"be": 200}
        product = alice.submit(
            {"a": [[1, 2], [3, 4]], "b": [[1, 0], [0, 1]]}, workload="matmul", tags=["m"]
        )
        assert alice.result(product, 60) == [[1, 2], [3, 4]]
        assert alice.result(product, form="numpy").tolist() == [[1, 2], [3, 4]]
        assert [job["task_id"] for job in alice.jobs(tag="m")] == [product]
    with client(folder, url, tokens["bob"]) as bob:
        assert bob.jobs() == []
        with pytest.raises(UnknownJobError):
            bob.status(product)
        with pytest.raises(ServiceError, match="UnknownData"):
            bob.submit(ref)
    with client(folder, url, tokens["root"]) as root:
        assert root.status(product)["user"] == "alice"
    listed = command(
        "jobs", "--url", url, "--token", tokens["alice"], AGENTIC_RAY_CA_FILE=f"{folder}/cert.pem"
    )
    assert product in listed.stdout, listed.stderr


def opens(client: Client) -> bool:
    try:
        client.jobs()
    except ServiceError as error:
        if "401" not in str(error):
            raise
        return False
    return True


def test_a_revoked_token_opens_nothing(folder: Path, url: str) -> None:
    told = json.loads(made_token(folder, "carol", "--scope", "read", "--json"))
    with client(folder, url, told["token"]) as carol:
        # A running service notices both within a second.
        assert any(opens(carol) or time.sleep(0.1) for _ in range(300))
        revoked = command("token", "revoke", told["id"], "--tokens", str(folder / "tokens"))
        assert "of carol" in revoked.stdout
        assert any(not opens(carol) or time.sleep(0.1) for _ in range(300))
    listed = command("token", "list", "--tokens", str(folder / "tokens"))
    assert "alice" in listed.stdout
    assert "carol" not in listed.stdout


def test_a_certificate_that_is_not_trusted_is_refused(url: str, tokens: dict[str, str]) -> None:
    with Client(url, tokens["alice"]) as wary, pytest.raises(ServiceError, match="certificate"):
        wary.jobs()
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" not in plain.recv(100)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as raw,
        context.wrap_socket(raw) as wrapped,
    ):
        assert wrapped.version() == "TLSv1.2"


def test_what_it_wrote_is_its_users_alone_and_the_audit_log_is_whole(
    folder: Path, url: str, tokens: dict[str, str]
) -> None:
    with client(folder, url, tokens["alice"]) as alice:
        alice.result(alice.submit({"data": [1]}), 250)
    for path in [folder / "audit", folder / "tokens", *folder.glob("j.sqlite3*")]:
        for each in (path, *path.rglob("*")):
            assert stat.S_IMODE(each.stat().st_mode) in (0o600, 0o700), each
    told = command("audit", "verify", str(folder / "audit"), "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["lines"] >= 1
    entries = [json.loads(line) for line in (folder / "audit").read_text().splitlines()]
    assert "alice" in {entry["user"] for entry in entries}
    assert not any(token in (folder / "audit").read_text() for token in tokens.values())
    (folder / "changed").write_text((folder / "audit").read_text().replace("alice", "mallory"))
    told = command("audit", "verify", str(folder / "changed"))
    assert (told.returncode, told.stdout.partition(":")[0]) == (1, "line 1")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tls-cert", "CERT"], "both a certificate and its key"),
        (["--tls-cert", "CERT", "--tls-key", "CERT"], "TLS with"),
        (["--tls-cert", "nowhere.pem", "--tls-key", "KEY"], "No such file"),
        (["--host", "0.0.0.0", "--tls-cert", "CERT", "--tls-key", "KEY"], "without a token"),
        (["--host", "0.0.0.0", "--token", "t"], "without TLS"),
        (["--journal", ""], "a journal needs a path"),
        (["--journal", "CERT"], "is not a journal"),
        (["--webhook", "http://a.example"], "need a secret"),
        (["--webhook", "file:///x", "--webhook-secret", "s"], "a webhook is"),
    ],
)
def test_what_cannot_be_served_is_told(folder: Path, arguments: list[str], says: str) -> None:
    files = {"CERT": str(folder / "cert.pem"), "KEY": str(folder / "key.pem")}
    given = [files.get(each, each) for each in arguments]
    told = command("serve", "--port", "0", *given)
    assert told.returncode == 1
    assert says in told.stderr
