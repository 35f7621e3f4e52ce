"""Over HTTP, in-process: idempotency keys, users, deadlines, the cache, a journal that fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from agentic_ray import Client
from agentic_ray.errors import IdempotencyError, JournalError, QueueFullError
from agentic_ray.master import Journal, Master, Registry
from agentic_ray.service.http import create_app

OPEN = threading.Event()


def wait(params: Any) -> Any:
    assert OPEN.wait(30)
    return params


def plain(params: Any) -> Any:
    return params


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    OPEN.clear()
    registry = Registry()
    registry.register("wait", wait, cache=False)
    registry.register("plain", plain)
    made = Master(workloads=registry, journal=tmp_path, max_running=1, max_queued=2)
    yield made
    OPEN.set()
    made.close()


@pytest.fixture
def http(master: Master) -> TestClient:
    return TestClient(create_app(master), base_url="http://127.0.0.1:8080")


def submit(http: httpx.Client, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return http.post("/submit", json={"workload": "wait", **body}, headers=headers)


def test_the_key_in_header_or_body(http: TestClient) -> None:
    first = submit(http, "k", params=1)
    assert first.status_code == 202
    assert submit(http, "k", params=1).json() == first.json()
    assert submit(http, params=1, idempotency_key="k").json() == first.json()
    assert submit(http, "k", params=1, idempotency_key="k").json() == first.json()
    assert submit(http, "k", params=1, idempotency_key="other").status_code == 409
    answer = submit(http, "k", params=2)
    assert answer.status_code == 409
    assert answer.json()["error"]["type"] == "IdempotencyError"
    assert submit(http, "", params=1).status_code == 422
    assert submit(http, "x" * 300, params=1).status_code == 422


def test_an_equal_job_says_that_it_was_cached(http: TestClient) -> None:
    first = submit(http, workload="plain", params=[1])
    assert "cached" not in first.json()
    while http.get(f"/status/{first.json()['task_id']}").json()["state"] != "succeeded":
        pass
    second = submit(http, workload="plain", params=[1]).json()
    assert second["cached"] is True
    status = http.get(f"/status/{second['task_id']}").json()
    assert (status["state"], status["result"], status["cached"]) == ("succeeded", [1], True)
    assert "cached" not in submit(http, workload="plain", params=[1], cache=False).json()


def test_users_are_named_or_taken_from_the_token(http: TestClient, master: Master) -> None:
    def user_of(answer: httpx.Response) -> str:
        return master.record(answer.json()["task_id"]).user

    assert user_of(submit(http, params=1)) == "anonymous"
    assert user_of(submit(http, params=2, user="ada")) == "ada"
    assert submit(http, params=3, user="").status_code == 422
    headers = {"Authorization": "Bearer s3cret"}
    guarded = TestClient(create_app(master, token="s3cret"), headers=headers)
    user = user_of(submit(guarded, params=4))
    assert user.startswith("token-")
    assert "s3cret" not in user


def test_a_deadline_that_passes_fails_the_job(http: TestClient) -> None:
    submit(http, params=1)
    task_id = submit(http, params=2, deadline_seconds=0.05).json()["task_id"]
    while (status := http.get(f"/status/{task_id}").json())["state"] == "queued":
        pass
    assert status["error"]["type"] == "JobTimeoutError"
    assert status["deadline_at"] > status["created_at"]


def test_refusals_say_when_to_come_back(http: TestClient, master: Master) -> None:
    for i in range(3):
        assert submit(http, params=i).status_code == 202
    answer = submit(http, params=4)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1


def test_a_journal_that_cannot_be_written_refuses(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Journal, batch: Any) -> None:
        raise JournalError("database or disk is full")

    monkeypatch.setattr(Journal, "_commit", full)
    answer = submit(http, params=1)
    assert answer.status_code == 503
    assert answer.json()["error"]["type"] == "JournalError"
    assert int(answer.headers["retry-after"]) >= 1
    monkeypatch.undo()
    assert http.get("/jobs").json()["total"] == 0


@pytest.mark.parametrize(
    ("status", "kind", "raised"),
    [(409, "IdempotencyError", IdempotencyError), (503, "QueueFullError", QueueFullError)],
)
def test_the_client_raises_what_the_master_would(
    status: int, kind: str, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []

    def answer(self: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
        sent.append(options["json"])
        body = {"error": {"type": kind, "message": "no"}}
        return httpx.Response(status, json=body, headers={"Retry-After": "7"})

    monkeypatch.setattr(httpx.Client, "request", answer)
    with Client("http://127.0.0.1:1") as client, pytest.raises(raised, match="no") as caught:
        client.submit(1, idempotency_key="k", user="ada", deadline_seconds=5, cache=False)
    assert sent[0]["idempotency_key"] == "k"
    assert (sent[0]["user"], sent[0]["deadline_seconds"], sent[0]["cache"]) == ("ada", 5, False)
    if isinstance(caught.value, QueueFullError):
        assert caught.value.retry_after_seconds == 7


def test_status_waits_for_no_thread_and_no_lock(http: TestClient, master: Master) -> None:
    task_id = http.post("/submit", json={"workload": "plain", "params": 5}).json()["task_id"]
    assert master.job(task_id).result(60) == 5
    with master._changed:  # as while a job is accepted
        told: list[int] = []
        asking = threading.Thread(
            target=lambda: told.append(http.get(f"/status/{task_id}").status_code)
        )
        asking.start()
        asking.join(30)
    assert told == [200]
    assert http.get("/status/none").status_code == 404
