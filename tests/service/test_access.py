"""Who may what: tokens of users, whose jobs and results are whose, pages of other sites."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from agentic_ray.errors import InvalidArgumentError, ServiceError
from agentic_ray.master import Master, Registry
from agentic_ray.service.audit import Audit, verify
from agentic_ray.service.bodies import RequestError
from agentic_ray.service.guard import check_headers, check_origin
from agentic_ray.service.http import create_app
from agentic_ray.service.tokens import Keyring, TokenFile, hash_of


@pytest.fixture
def master() -> Iterator[Master]:
    registry = Registry()
    registry.register("echo", lambda params: params)
    registry.register("fail", lambda params: 1 / 0)
    with Master(workloads=registry) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens")


class Users:
    """A client for each token."""

    def __init__(self, master: Master, file: TokenFile, audit: Audit | None = None) -> None:
        made = {
            name: file.create(name.partition("-")[0], scope)[0]
            for name, scope in (
                ("alice", "submit"),
                ("alice-read", "read"),
                ("bob", "submit"),
                ("root", "admin"),
            )
        }
        self.app = create_app(master, tokens=file, audit=audit)
        for name, token in made.items():
            headers = {"Authorization": f"Bearer {token}"}
            setattr(self, name.replace("-", "_"), TestClient(self.app, headers=headers))

    def __getattr__(self, name: str) -> TestClient:
        raise AttributeError(name)


def submit(client: TestClient, body: Any = None, **headers: str) -> str:
    answer = client.post("/submit", json=body or {"workload": "echo", "params": 1}, headers=headers)
    assert answer.status_code == 202, answer.text
    task_id: str = answer.json()["task_id"]
    for _ in range(1000):
        if client.get(f"/status/{task_id}").json()["state"] not in ("queued", "running"):
            return task_id
        time.sleep(0.01)
    raise AssertionError("it does not end")


def test_users_see_and_change_their_own_jobs_only(master: Master, file: TokenFile) -> None:
    users = Users(master, file)
    task_id = submit(users.alice)
    for client in (users.alice, users.root, users.alice_read):
        assert client.get(f"/status/{task_id}").json()["user"] == "alice"
        assert client.get(f"/result/{task_id}").json() == 1
        assert client.get("/jobs").json()["total"] == 1
    unknown = users.bob.get(f"/status/{'0' * 32}").json()["detail"]
    for method, path in (
        ("GET", "/status/"),
        ("GET", "/result/"),
        ("GET", "/logs/"),
        ("POST", "/cancel/"),
        ("POST", "/retry/"),
    ):
        answer = users.bob.request(method, path + task_id)
        assert answer.status_code == 404
        # It is as unknown as one that never was.
        assert answer.json()["detail"] == unknown.replace("0" * 32, task_id)
    assert users.bob.get("/jobs").json() == {"jobs": [], "total": 0, "next": None}
    assert users.bob.get("/jobs", params={"user": "alice"}).json()["total"] == 0


def test_what_one_user_computed_answers_no_other(master: Master, file: TokenFile) -> None:
    users = Users(master, file)
    body = {"workload": "echo", "params": {"a": 1}}
    submit(users.alice, body)
    assert users.alice.post("/submit", json=body).json()["cached"]
    assert "cached" not in users.bob.post("/submit", json=body).json()


def test_idempotency_keys_are_each_users_own(master: Master, file: TokenFile) -> None:
    users = Users(master, file)
    mine = submit(users.alice, **{"Idempotency-Key": "k"})
    assert submit(users.alice, **{"Idempotency-Key": "k"}) == mine
    other = submit(users.bob, {"workload": "echo", "params": 2}, **{"Idempotency-Key": "k"})
    assert other != mine


def test_scopes(master: Master, file: TokenFile) -> None:
    users = Users(master, file)
    task_id = submit(users.alice)
    for method, path in (("POST", "/submit"), ("POST", f"/cancel/{task_id}"), ("PUT", "/data/a")):
        answer = users.alice_read.request(method, path)
        assert answer.status_code == 403
        assert "scope submit" in answer.json()["detail"]
    body = {"workload": "echo", "params": 1, "user": "bob"}
    assert users.alice.post("/submit", json=body).status_code == 403
    assert users.root.post("/submit", json=body).status_code == 202
    assert users.bob.get("/jobs").json()["total"] == 1


def test_tokens_are_kept_as_hashes_and_can_be_revoked(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens")
    text, token = file.create("alice", "read", days=1)
    content = file.path.read_text()
    assert text not in content
    assert text.rpartition("_")[2] not in content
    assert json.loads(content)["tokens"][0]["hash"] == hash_of(text)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert "hash" not in token.shown()
    now = time.time()
    ring = Keyring(file, clock=lambda: now)
    assert (ring.caller(text).user, ring.caller(text).scope) == ("alice", "read")
    now += 86_401
    with pytest.raises(RequestError, match="holds no longer"):
        ring.caller(text)
    now -= 86_401
    file.revoke(token.id)
    ring._looked = -1e9
    with pytest.raises(RequestError, match="not known"):
        ring.caller(text)
    with pytest.raises(InvalidArgumentError, match="no token"):
        file.revoke(token.id)


def test_a_token_made_while_the_service_runs_is_valid(file: TokenFile) -> None:
    ring = Keyring(file)
    text, _ = file.create("alice", "read")
    ring._looked = -1e9
    assert ring.caller(text).user == "alice"


def test_a_file_of_tokens_open_to_others_or_broken_is_refused(file: TokenFile) -> None:
    file.create("alice", "read")
    file.path.chmod(0o644)
    with pytest.raises(ServiceError, match="chmod 600"):
        Keyring(file)
    file.path.chmod(0o600)
    file.path.write_text("{")
    with pytest.raises(ServiceError, match="cannot be read"):
        Keyring(file)


def test_a_rate_is_kept(file: TokenFile) -> None:
    now = 1000.0
    text, _ = file.create("alice", "read", rate=5)
    ring = Keyring(file, clock=lambda: now)
    for _ in range(10):
        ring.caller(text)
    with pytest.raises(RequestError, match="5 requests a second") as refused:
        ring.caller(text)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    now += 1
    for _ in range(5):
        ring.caller(text)
    with pytest.raises(RequestError):
        ring.caller(text)


@pytest.mark.parametrize(
    ("owner", "scope", "further"),
    [
        ("", "read", {}),
        ("a\n", "read", {}),
        ("a", "write", {}),
        ("a", "read", {"days": 0}),
        ("a", "read", {"days": float("nan")}),
        ("a", "read", {"rate": -1}),
    ],
)
def test_tokens_that_cannot_be(file: TokenFile, owner: str, scope: Any, further: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        file.create(owner, scope, **further)
    assert file.read() == []


@pytest.mark.parametrize(
    ("host", "origin", "fine"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", True),
        ("localhost:8080", "http://LOCALHOST:8080", True),
        ("jobs.example", "https://jobs.example", True),
        ("jobs.example", "https://jobs.example:443", True),
        ("[::1]:80", "http://[::1]", True),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("127.0.0.1:8080", "http://127.0.0.1:8081", False),
        ("127.0.0.1:8080", "http://localhost:8080", False),
        ("127.0.0.1:8080", "http://evil.example", False),
        ("127.0.0.1:8080", "null", False),
        ("127.0.0.1:8080", "", False),
        ("127.0.0.1:8080", "file://127.0.0.1:8080", False),
        ("127.0.0.1:8080", "http://[127.0.0.1:8080", False),
        ("127.0.0.1:8080", "http://127.0.0.1:8080@evil.example", False),
        ("127.0.0.1:8080", "http://evil.example#127.0.0.1:8080", False),
        ("127.0.0.1:8080", "https://ok.example", True),
    ],
)
def test_origins(host: str, origin: str, fine: bool) -> None:
    headers = [(b"host", host.encode()), (b"origin", origin.encode())]
    if fine:
        check_origin(headers, ["https://ok.example"])
    else:
        with pytest.raises(RequestError) as refused:
            check_origin(headers, ["https://ok.example"])
        assert refused.value.status == 403


def test_pages_of_other_sites_can_change_nothing(master: Master) -> None:
    client = TestClient(create_app(master), base_url="http://127.0.0.1:8080")
    for method, path in (("POST", "/submit"), ("POST", "/cancel/x"), ("POST", "/retry/x")):
        answer = client.request(method, path, headers={"Origin": "http://evil.example"})
        assert answer.status_code == 403
        assert answer.json()["error"]["type"] == "WrongOrigin"
    mine = {"Origin": "http://127.0.0.1:8080"}
    assert client.post("/cancel/x", headers=mine).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status", "says"),
    [
        ([(b"idempotency-key", b"a"), (b"idempotency-key", b"a")], 400, "idempotency-key is given"),
        ([(b"content-type", b"a"), (b"content-type", b"a")], 400, "content-type is given twice"),
        ([(b"content-encoding", b"gzip")], 415, "'gzip' is not understood"),
        ([(b"content-length", b"101")], 413, "larger than 100"),
        ([(b"content-length", b"9" * 30)], 413, "larger than 100"),
    ],
)
def test_headers(headers: list[tuple[bytes, bytes]], status: int, says: str) -> None:
    with pytest.raises(RequestError, match=says) as refused:
        check_headers(headers, 100)
    assert refused.value.status == status
    check_headers([(b"accept", b"a"), (b"accept", b"b"), (b"content-encoding", b"identity")], 100)


# --- the audit log ------------------------------------------------------------------------


def test_the_audit_log_tells_who_did_what(master: Master, file: TokenFile, tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit")
    users = Users(master, file, audit)
    task_id = submit(users.alice)
    users.alice.post(f"/retry/{task_id}")
    users.root.post(f"/cancel/{task_id}")
    TestClient(users.app).get("/jobs")
    audit.close()
    entries = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert [(e["user"], e["action"]) for e in entries] == [
        ("alice", "submit"),
        ("alice", "retry"),
        ("root", "cancel"),
        ("", "refused"),
    ]
    assert entries[0]["what"] == task_id
    assert entries[0]["token"] in {token.id for token in file.read()}
    assert verify(tmp_path / "audit").lines == 4


def written(path: Path, count: int = 5) -> list[bytes]:
    audit = Audit(path)
    for i in range(count):
        audit.note("alice", "t", "submit", f"job {i}", {"é": "\n"})
    audit.close()
    return path.read_bytes().splitlines(keepends=True)


def test_a_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    written(path)
    written(path)
    found = verify(path)
    assert (found.lines, found.problem) == (10, "")
    assert path.stat().st_mode & 0o777 == 0o600


def test_refusals_do_not_fill_the_log(tmp_path: Path) -> None:
    now = 1000.0
    audit = Audit(tmp_path / "audit", clock=lambda: now)
    for _ in range(1000):
        audit.refused("/jobs", 401)
    now += 1
    audit.refused("/jobs", 401)
    audit.close()
    lines = (tmp_path / "audit").read_text().splitlines()
    assert len(lines) == 11
    assert json.loads(lines[-1])["details"] == {"status": 401, "left_out": 990}


def test_two_processes_do_not_write_one_log(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit")
    with pytest.raises(ServiceError, match="another process writes"):
        Audit(tmp_path / "audit")
    audit.close()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: [*lines[:2], lines[2].replace(b"job 2", b"job 9"), *lines[3:]], 3),
        (lambda lines: lines[:2] + lines[3:], 3),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),
        (lambda lines: [lines[0], lines[0], *lines[1:]], 2),
        (lambda lines: [*lines[:4], b"{}\n"], 5),
        (lambda lines: [*lines[:4], b"\xff\n"], 5),
        (lambda lines: [*lines[:4], lines[4][:-1]], 5),
    ],
)
def test_a_log_that_was_changed_is_found(tmp_path: Path, change: Any, line: int) -> None:
    path = tmp_path / "audit"
    path.write_bytes(b"".join(change(written(path))))
    found = verify(path)
    assert found.problem.startswith(f"line {line}: ")
    assert found.lines == line - 1


def test_a_line_that_a_crash_cut_off_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    lines = written(path)
    path.write_bytes(b"".join(lines)[:-10])
    written(path, 1)
    found = verify(path)
    assert (found.lines, found.problem) == (5, "")
