"""Both clients and the webhooks, against an application in-process or answers made up here."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from agentic_ray.cli.app import run_cli
from agentic_ray.errors import (
    IdempotencyError,
    InvalidArgumentError,
    QueueFullError,
    ServiceError,
    TaskError,
    UnknownJobError,
)
from agentic_ray.master import Master, Registry
from agentic_ray.service import AsyncClient, Client, calls
from agentic_ray.service.http import create_app
from agentic_ray.service.webhooks import SIGNATURE, Webhooks, sign


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A service on a real socket, whose jobs run in threads and need no Ray."""
    import socket

    import uvicorn

    registry = Registry()
    registry.register("echo", lambda params: params)
    registry.register("fail", lambda params: 1 / 0)
    with Master(workloads=registry) as master:
        app = create_app(master)
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
        listener = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()
        app.state.close()


def test_results_in_several_forms(url: str) -> None:
    with Client(url) as client:
        task_id = client.submit([1, 2, 3], workload="echo", tags=["a"])
        assert client.result(task_id, progress=True) == [1, 2, 3]
        found = client.result(task_id, form="numpy")
        assert isinstance(found, np.ndarray)
        assert found.tolist() == [1, 2, 3]
        rows = client.submit([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], workload="echo")
        assert client.result(rows, form="arrow").to_pydict() == {"a": [1, 2], "b": ["x", "y"]}
        assert client.result(rows, form="pandas")["a"].tolist() == [1, 2]
        with pytest.raises(ServiceError, match="406"):
            client.result(rows, form="numpy")
        with pytest.raises(InvalidArgumentError, match="form must be"):
            client.result(rows, form="xml")  # type: ignore[arg-type]
        assert [job["task_id"] for job in client.jobs(tag="a")] == [task_id]
        again = client.retry(task_id)
        assert client.result(again) == [1, 2, 3]
        with pytest.raises(UnknownJobError):
            client.retry("x")
        assert "matmul" in [each["name"] for each in client.workloads()]


def test_what_has_no_json_form_or_is_no_address_is_said_before_anything_is_sent(url: str) -> None:
    for number in (float("nan"), float("inf")):
        with Client(url) as client:
            for options in ({"timeout_seconds": number}, {"deadline_seconds": number}):
                with pytest.raises(InvalidArgumentError, match=next(iter(options))):
                    client.submit(1, workload="echo", **options)
            with pytest.raises(InvalidArgumentError, match="priority"):
                client.submit(1, workload="echo", priority=object())  # type: ignore[arg-type]
    for address in ("http://[::1", "http://a:b"):
        with pytest.raises(InvalidArgumentError, match="url"):
            Client(address)
    with pytest.raises(InvalidArgumentError, match="printable ASCII"):
        Client(url, "sécret")


def test_the_command_line_says_that_a_job_goes_on(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "result", interrupted)
    assert run_cli(["submit", "echo", "--params", "{}", "--wait", "--url", url]) == 130
    assert "the job goes on" in capsys.readouterr().err
    assert run_cli(["submit", "--data", "[1]", "--timeout", "nan", "--url", url]) == 1
    assert "timeout_seconds" in capsys.readouterr().err


def test_uploads(url: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5))
    with Client(url) as client:
        told = client.upload("a.npy", tmp_path / "a.npy")
        content = (tmp_path / "a.npy").read_bytes()
        assert told["sha256"] == hashlib.sha256(content).hexdigest()
        (tmp_path / "b.npy").write_text("nonsense")
        with pytest.raises(ServiceError, match="NotThisFormat"):
            client.upload("b.npy", tmp_path / "b.npy")


def test_the_asynchronous_client(url: str) -> None:
    async def all_of() -> None:
        async with AsyncClient(url) as client:
            made = [await client.submit(i, workload="echo") for i in range(5)]
            assert await asyncio.gather(*map(client.result, made)) == list(range(5))
            failed = await client.submit(1, workload="fail")
            with pytest.raises(TaskError, match="ZeroDivisionError"):
                await client.result(failed)
            again = await client.retry(made[2])
            assert await client.result(again, 60) == 2
            assert (await client.cancel(again))["state"] == "succeeded"
            with pytest.raises(UnknownJobError):
                await client.status("x")
            assert [job["task_id"] for job in await client.jobs(limit=1)] == [again]
            await client.submit(1, workload="echo", idempotency_key="k")
            with pytest.raises(IdempotencyError):
                await client.submit(2, workload="echo", idempotency_key="k")

    asyncio.run(all_of())


Answers = Callable[[httpx.Request], httpx.Response]


def mocked(client: Client, answers: Answers) -> None:
    client._http = httpx.Client(base_url=client.url, transport=httpx.MockTransport(answers))


def test_a_submit_whose_answer_is_lost_is_sent_again_with_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "_FIRST_PAUSE", 0.001)
    keys: list[str] = []

    def answers(request: httpx.Request) -> httpx.Response:
        keys.append(json.loads(request.content)["idempotency_key"])
        if len(keys) == 1:
            raise httpx.ReadError("the connection was lost")
        if len(keys) == 2:
            return httpx.Response(503, json={"error": {"type": "JournalError", "message": "x"}})
        return httpx.Response(202, json={"task_id": "t"})

    client = Client()
    mocked(client, answers)
    assert client.submit(1) == "t"
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_what_must_not_happen_twice_is_not_sent_again() -> None:
    count = 0

    def answers(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        raise httpx.ReadError("the connection was lost")

    client = Client()
    mocked(client, answers)
    with pytest.raises(ServiceError, match="the connection was lost"):
        client.retry("x")
    assert count == 1


def test_a_full_queue_is_told_at_once() -> None:
    body = {"error": {"type": "QueueFullError", "message": "full"}}
    client = Client()
    mocked(client, lambda request: httpx.Response(503, json=body, headers={"Retry-After": "7"}))
    with pytest.raises(QueueFullError) as error:
        client.submit(1)
    assert error.value.retry_after_seconds == 7


def test_events_go_on_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_FIRST_PAUSE", 0.001)
    seen: list[str | None] = []

    def answers(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("last-event-id"))
        if len(seen) == 1:
            return httpx.Response(
                200, text='retry: 1\nevent: job\nid: 7\ndata: {"a":\ndata: 1}\n\n'
            )
        if len(seen) == 2:
            return httpx.Response(200, text=': comment\n\nid: 8\ndata: 5\n\ndata: "cut off"\n')
        return httpx.Response(404, json={"error": {"type": "UnknownJobError", "message": "x"}})

    client = Client()
    mocked(client, answers)
    events = client.events()
    assert next(events) == {"event": "job", "id": "7", "data": {"a": 1}}
    assert next(events) == {"event": "message", "id": "8", "data": 5}
    with pytest.raises(UnknownJobError):
        next(events)
    assert seen == [None, "7", "8"]


# --- webhooks -----------------------------------------------------------------------------


def told_by(answers: Answers, urls: list[str], jobs: int = 1, workload: str = "echo") -> Webhooks:
    registry = Registry()
    registry.register("echo", lambda params: params)
    registry.register("fail", lambda params: 1 / 0)
    transport = httpx.MockTransport(answers)
    webhooks = Webhooks(urls, "s3cret", transport=transport, pause=lambda seconds: None)
    with Master(workloads=registry, on_end=webhooks.ended) as master:
        for i in range(jobs):
            master.wait(master.submit(workload, i).id)
    webhooks.close(30)
    return webhooks


def test_a_job_that_has_ended_is_told_with_a_signature() -> None:
    got: list[httpx.Request] = []

    def answers(request: httpx.Request) -> httpx.Response:
        got.append(request)
        return httpx.Response(204)

    told_by(answers, ["https://a.example/hook", "http://b.example/"], jobs=3, workload="fail")
    assert sorted(str(request.url) for request in got) == [
        *["http://b.example/"] * 3,
        *["https://a.example/hook"] * 3,
    ]
    for request in got:
        stamp, mac = (part.partition("=")[2] for part in request.headers[SIGNATURE].split(","))
        expected = hmac.new(b"s3cret", f"{stamp}.".encode() + request.content, "sha256")
        assert mac == expected.hexdigest()
        assert abs(time.time() - int(stamp)) < 60
        told: dict[str, Any] = json.loads(request.content)
        assert told["state"] == "failed"
        assert "result" not in told


def test_webhooks_are_tried_again_and_given_up(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    def answers(request: httpx.Request) -> httpx.Response:
        tries.append(1)
        if len(tries) == 1:
            raise httpx.ConnectError("refused")
        return httpx.Response(500 if len(tries) < 4 else 200)

    told_by(answers, ["http://a.example/"])
    assert len(tries) == 4
    tries.clear()
    told_by(lambda request: (tries.append(1), httpx.Response(404))[1], ["http://a.example/"])
    assert len(tries) == 1
    assert "did not take a message: status 404" in caplog.text


@pytest.mark.parametrize("urls", [["file:///etc/passwd"], ["a.example"], ["http://"], ["ftp://a"]])
def test_webhooks_that_cannot_be(urls: list[str]) -> None:
    with pytest.raises(InvalidArgumentError, match="a webhook is"):
        Webhooks(urls, "s")
    with pytest.raises(InvalidArgumentError, match="need a secret"):
        Webhooks(["http://a.example"], "")


def test_a_signature_is_of_time_and_body() -> None:
    assert sign(b"k", 1, b"x") != sign(b"k", 2, b"x")
    assert sign(b"k", 1, b"x") == sign(b"k", 1, b"x")
