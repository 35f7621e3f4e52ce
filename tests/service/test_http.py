"""The HTTP API in-process, without sockets or Ray: routes, refusals, access, exposition."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from agentic_ray.errors import SessionError
from agentic_ray.master import Master, Registry
from agentic_ray.service.guard import is_loopback, parse_host
from agentic_ray.service.http import create_app
from agentic_ray.service.server import check_exposure
from agentic_ray.telemetry import ClusterState, GpuState, NodeState

JSON = {"Content-Type": "application/json"}
LIMIT = 2000


def total(params: dict[str, list[float]]) -> float:
    return sum(params["data"])


@pytest.fixture(scope="module")
def opened() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(scope="module")
def registry(opened: threading.Event) -> Registry:
    made = Registry()
    made.register("default", total)
    made.register("echo", lambda params: params)
    made.register("wait", lambda params: opened.wait(30))
    made.register("set", lambda params: {1})
    made.register("long", lambda params: 10**params)
    made.register("text", lambda params: "\ud800 é")
    return made


@pytest.fixture(scope="module")
def master(registry: Registry, opened: threading.Event) -> Iterator[Master]:
    with Master(workloads=registry, max_queued=100_000) as made:
        yield made
        opened.set()


def client_of(master: Master, **options: Any) -> TestClient:
    app = create_app(master, max_body_bytes=LIMIT, **options)
    return TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(master: Master) -> TestClient:
    gpu = GpuState("GPU-1", 0, 'A "card"', memory_total_bytes=10, memory_free_bytes=4)
    state = ClusterState((NodeState("n", "h", 2.0, 1.5, gpus=(gpu,)),), 1.0)
    return client_of(master, cluster=lambda: state)


def finished(client: httpx.Client, task_id: str) -> dict[str, Any]:
    while True:
        status: dict[str, Any] = client.get(f"/status/{task_id}").json()
        if status["state"] not in ("queued", "running"):
            return status


def submit(client: httpx.Client, body: Any) -> dict[str, Any]:
    answer = client.post("/submit", json=body)
    assert answer.status_code == 202, answer.text
    task_id = answer.json()["task_id"]
    assert answer.headers["location"] == f"/status/{task_id}"
    return finished(client, task_id)


def refusal(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    error = told["error"]
    assert set(error) == {"type", "message"}
    assert told["type"] == f"urn:agentic-ray:error:{error['type']}"
    assert (told["status"], told["detail"]) == (status, error["message"])
    assert told["title"]
    assert "Traceback" not in answer.text
    return f"{error['type']}: {error['message']}"


def test_both_forms_of_submitting(client: TestClient) -> None:
    assert submit(client, {"data": [1, 2, 3]})["result"] == 6
    status = submit(client, {"workload": "echo", "params": {"x": None}, "priority": 3})
    assert (status["state"], status["result"], status["priority"]) == ("succeeded", {"x": None}, 3)
    assert submit(client, {"params": {"data": [2]}})["result"] == 2
    assert submit(client, {"workload": "echo", "params": None})["result"] is None


def test_charset_in_the_content_type_is_fine(client: TestClient) -> None:
    for kind in ("application/json; charset=utf-8", 'Application/JSON;Charset="UTF-8"'):
        answer = client.post("/submit", content=b'{"data": []}', headers={"Content-Type": kind})
        assert answer.status_code == 202


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/jsonp", "application/json; charset=latin-1"]
)
def test_other_content_types_are_refused(client: TestClient, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    refusal(client.post("/submit", content=b'{"data": []}', headers=headers), 415)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ("", 400, "not valid JSON"),
        ("{", 400, "not valid JSON"),
        ('{"data": [NaN]}', 400, "NaN is not JSON"),
        ('{"data": [Infinity]}', 400, "Infinity is not JSON"),
        ('{"data": [1e999]}', 400, "out of range"),
        ('{"data": [1], "data": [2]}', 400, "given twice"),
        ("[" * 1900, 400, "not"),
        ("[1]", 422, "must be a JSON object, not an array"),
        ("null", 422, "not null"),
        ("{}", 422, "the body lacks data"),
        ('{"workload": "echo"}', 422, "the body lacks params"),
        ('{"data": [1], "params": {}}', 422, "not both"),
        ('{"data": [1], "workload": "echo"}', 422, "not both"),
        ('{"data": [1], "more": 1}', 422, "'more': not a field"),
        ('{"data": ["1"]}', 422, r"params.data[0]"),
        ('{"data": 5}', 422, r"params.data"),
        ('{"data": [true]}', 422, r"params.data[0]"),
        ('{"workload": "nope", "params": 1}', 422, "UnknownWorkloadError: no workload 'nope'"),
        ('{"workload": 5, "params": 1}', 422, "workload: Input should be a valid string"),
        ('{"data": [], "priority": "1"}', 422, "priority"),
        ('{"data": [], "priority": 1.5}', 422, "priority"),
        ('{"data": ["1"], "priority": 2.0}', 422, "params.data[0]"),
        ('{"data": [], "priority": 99999999}', 422, "priority: Input should be less than"),
        ('{"data": [], "timeout_seconds": -1}', 422, "timeout_seconds"),
        ('{"data": [], "timeout_seconds": 1e300}', 422, "timeout_seconds"),
        (f'{{"workload": "echo", "params": {"[" * 150}1{"]" * 150}}}', 422, "nested deeper"),
    ],
)
def test_a_bad_body_is_refused_with_a_reason(
    client: TestClient, body: str, status: int, says: str
) -> None:
    assert says in refusal(client.post("/submit", content=body, headers=JSON), status)


def test_a_body_in_another_encoding_is_refused(client: TestClient) -> None:
    body = '{"data": [1]}'.encode("utf-16")
    assert "UTF-8" in refusal(client.post("/submit", content=body, headers=JSON), 400)


def test_a_body_over_the_limit_is_refused_whether_announced_or_not(client: TestClient) -> None:
    body = json.dumps({"data": [1] * LIMIT}).encode()
    assert "larger than 2000 bytes" in refusal(
        client.post("/submit", content=body, headers=JSON), 413
    )
    parts = iter([body[:1500], body[1500:]])
    refusal(client.post("/submit", content=parts, headers=JSON), 413)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/status/unknown", 404),
        ("POST", "/cancel/unknown", 404),
        ("GET", "/status/%00%ff", 404),
        ("GET", "/status/../jobs/x", 404),
        ("POST", "/", 405),
        ("GET", "/status", 404),
        ("GET", "/jobs/", 404),
        ("GET", "/docs", 404),
        ("GET", "/submit", 405),
        ("PUT", "/submit", 405),
        ("OPTIONS", "/submit", 405),
        ("DELETE", "/status/x", 405),
        ("GET", "/jobs?limit=0", 422),
        ("GET", "/jobs?limit=x", 422),
        ("GET", "/jobs?state=lost", 422),
    ],
)
def test_wrong_addresses_and_methods(
    client: TestClient, method: str, path: str, status: int
) -> None:
    refusal(client.request(method, path), status)


def test_results_that_are_not_json_fail_the_job_and_not_the_request(client: TestClient) -> None:
    status = submit(client, {"workload": "set", "params": 1})
    assert (status["state"], status["result"]) == ("failed", None)
    assert status["error"]["message"] == "result is of type set and has no JSON form"
    status = submit(client, {"workload": "long", "params": 5000})
    assert "4300 digits" in status["error"]["message"]
    assert submit(client, {"workload": "long", "params": 4000})["result"] == 10**4000
    assert submit(client, {"workload": "text", "params": 1})["result"] == "\ud800 é"


def test_cancel_and_list(client: TestClient, master: Master, opened: threading.Event) -> None:
    for _ in range(8):
        client.post("/submit", json={"workload": "wait", "params": 1})
    queued = client.post("/submit", json={"workload": "echo", "params": 1}).json()["task_id"]
    listed = client.get("/jobs", params={"state": "queued"}).json()
    assert [job["task_id"] for job in listed["jobs"]] == [queued]
    assert "result" not in listed["jobs"][0]
    assert client.post(f"/cancel/{queued}").json()["state"] == "cancelled"
    assert client.post(f"/cancel/{queued}").json()["state"] == "cancelled"
    opened.set()
    assert client.get("/jobs?limit=2").json()["total"] == len(master.jobs())


def test_a_full_queue_answers_503_with_a_hint(registry: Registry) -> None:
    held = threading.Event()
    busy = Registry(registry.snapshot())
    busy.register("held", lambda params: held.wait(30))
    with Master(workloads=busy, max_running=1, max_queued=1) as small:
        client = client_of(small)
        for _ in range(2):
            client.post("/submit", json={"workload": "held", "params": 1})
        answer = client.post("/submit", json={"workload": "held", "params": 1})
        assert "QueueFullError" in refusal(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
        held.set()


def test_health_cluster_metrics_and_description(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/cluster").json()["nodes"][0]["cpus_free"] == 1.5
    text = client.get("/metrics").text
    assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'agentic_ray_jobs_finished_total{state="succeeded"}' in text
    for line in text.splitlines():
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2
    families = {family.name: family for family in text_string_to_metric_families(text)}
    free = families["agentic_ray_node_cpus_free"].samples[0]
    assert (free.labels["node"], free.value) == ("n", 1.5)
    card = families["agentic_ray_gpu_memory_free_bytes"].samples[0]
    assert (card.labels["uuid"], card.labels["model"], card.value) == ("GPU-1", 'A "card"', 4)
    assert families["agentic_ray_cluster_up"].samples[0].value == 1
    schema = client.get("/openapi.json").json()
    assert "data" in str(schema["paths"]["/submit"]["post"]["requestBody"])


def test_while_ray_starts_jobs_are_accepted() -> None:
    with Master(held=True) as held:
        client = client_of(held)
        assert client.get("/healthz").json() == {"status": "starting"}
        assert "Ray is starting" in refusal(client.get("/cluster"), 503)
        answer = client.post("/submit", json={"data": []})
        assert answer.status_code == 202
        status = client.get(f"/status/{answer.json()['task_id']}").json()
        assert status["state"] == "queued"
        held.cancel(answer.json()["task_id"])


def test_an_error_inside_is_told_without_its_traceback(master: Master) -> None:
    def broken() -> ClusterState:
        raise RuntimeError("secret detail")

    text = refusal(client_of(master, cluster=broken).get("/cluster"), 500)
    assert "secret" not in text

    def ended() -> ClusterState:
        raise SessionError("the session is shut down")

    assert "shut down" in refusal(client_of(master, cluster=ended).get("/cluster"), 503)


# --- access ------------------------------------------------------------------------------

ROUTES = [
    ("POST", "/submit"),
    ("GET", "/status/x"),
    ("POST", "/cancel/x"),
    ("GET", "/jobs"),
    ("GET", "/cluster"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/nothing"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer wrong", "Basic s3cret", "s3cret", "Bearer s3cret x", "Bearer é"],
)
def test_every_route_but_health_needs_the_token(
    master: Master, method: str, path: str, given: str | None
) -> None:
    client = client_of(master, token="s3cret")
    headers = {} if given is None else {"Authorization": given.encode()}
    answer = client.request(method, path, headers=headers)  # type: ignore[arg-type]
    assert "Unauthorized" in refusal(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_right_token_opens(master: Master) -> None:
    client = client_of(master, token="s3cret")
    assert client.get("/healthz").status_code == 200
    for scheme in ("Bearer", "bearer"):
        headers = {"Authorization": f"{scheme} s3cret", "Host": "any.example"}
        assert client.get("/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "",
        "10.0.0.1",
        "[::2]:80",
        "[::1]evil.com",
        "localhost:evil.com",
        "localhost:80:evil.com",
        "evil.com#localhost",
    ],
)
def test_without_a_token_other_host_names_are_refused(client: TestClient, host: str) -> None:
    for method, path in (*ROUTES, ("GET", "/healthz")):
        assert "WrongHost" in refusal(client.request(method, path, headers={"Host": host}), 421)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080", "[::1]"]
)
def test_loopback_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("a:1", ("a", 1)),
        ("A", ("a", None)),
        ("[::1]:5", ("::1", 5)),
        ("[::1]", ("::1", None)),
        ("a_b.example:65535", ("a_b.example", 65535)),
        ("", None),
        ("[", None),
        ("[::1]evil.com", None),
        ("[::1]:1x", None),
        ("[::1", None),
        ("[a]", None),
        ("localhost:evil.com", None),
        ("localhost:", None),
        ("localhost:65536", None),
        ("localhost:1:2", None),
        ("localhost\n", None),
        ("user@localhost", None),
        ("localhost/", None),
        ("localhost\u0661", None),
        (":80", None),
    ],
)
def test_parse_host(header: str, name: tuple[str, int | None] | None) -> None:
    assert parse_host(header) == name


def test_exposure_needs_a_token() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", ""):
        assert not is_loopback(host)
        with pytest.raises(SessionError, match="AGENTIC_RAY_TOKEN"):
            check_exposure(host, None, tls=True)
        for tokens in ({"token": "s3cret"}, {"token": None, "tokens": True}):
            with pytest.raises(SessionError, match="without TLS"):
                check_exposure(host, **tokens)
            check_exposure(host, **tokens, tls=True)
            check_exposure(host, **tokens, proxy=True)
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        check_exposure(host, None)
    for token in ("", "  ", "a b", "é"):
        with pytest.raises(SessionError, match="token must be"):
            check_exposure("127.0.0.1", token)


# --- anything at all ---------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=15,
)
likely = st.fixed_dictionaries(
    {},
    optional={
        "data": values | st.lists(st.integers() | st.floats()),
        "workload": st.sampled_from(["default", "echo", "set", "text"]) | values,
        "params": values,
        "priority": st.integers() | values,
        "timeout_seconds": st.floats() | values,
        "extra": values,
    },
)


@settings(max_examples=300, deadline=None)
@given(likely | values)
def test_no_json_body_breaks_the_service(client: TestClient, body: Any) -> None:
    answer = client.post("/submit", content=json.dumps(body), headers=JSON)
    if answer.status_code == 202:
        status = finished(client, answer.json()["task_id"])
        assert status["state"] in ("succeeded", "failed")
    else:
        refusal(answer, answer.status_code)
        assert answer.status_code < 500


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass"))
)
def test_no_bytes_break_the_service(client: TestClient, body: bytes) -> None:
    answer = client.post("/submit", content=body, headers=JSON)
    refusal(answer, answer.status_code)
    assert 400 <= answer.status_code < 500


def test_query_names_that_nobody_reads_are_refused(client: TestClient) -> None:
    assert "there is no parameter 'statee'" in refusal(client.get("/jobs?statee=failed"), 422)
    assert "there are: none" in refusal(client.get("/workloads?name=x"), 422)
    assert "2 times" in refusal(client.get("/jobs?limit=1&limit=2"), 422)
    assert client.get("/jobs?tag=a&tag=b&limit=1").status_code == 200
    for path in ("/healthz", "/metrics", "/"):
        assert client.get(path, params={"probe": 1}).status_code == 200
    before = client.get("/jobs").json()["jobs"]
    answer = client.post("/submit?priority=3", json={"data": [1.0]})
    assert "'priority'" in refusal(answer, 422)
    assert client.get("/jobs").json()["jobs"] == before
