"""One request's ids in all lines of its job, and one trace of it: a real service, real Ray, a real
receiver of OTLP on loopback."""

from __future__ import annotations

import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .test_serve import Server

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"

WORKLOADS = """
import contextlib, io, logging, os
import agentic_ray as ar

def loud(x):
    print(f"task {x}", end="" if x else "\\n")
    logging.getLogger("mine").warning("logged %s", x)
    return x

@ar.workload("talk")
def talk(params: int) -> str:
    print("before")
    ar.map_reduce(loud, range(params), lambda a, b: a + b)
    print("after")
    logging.getLogger("mine").info("done")
    return os.environ.get("TRACEPARENT", "")

@ar.workload("redirected")
def redirected(params: int) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as own:
        ar.map_reduce(loud, range(params), lambda a, b: a + b)
    return own.getvalue()

@ar.workload("boom")
def boom(params: int) -> None:
    raise ValueError("on purpose")
"""


class Receiver:
    """A collector that keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                request = ExportTraceServiceRequest.FromString(body)
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        receiver.spans += scope.spans
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Seen:
    """What a service has done when it has ended."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.spans: list[Any] = []
        self.jobs: dict[str, str] = {}
        self.statuses: dict[str, dict[str, Any]] = {}
        self.printed: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}


def _ended(http: httpx.Client, job_id: str) -> dict[str, Any]:
    """The job's status once it has ended."""
    for _ in range(1200):
        status: dict[str, Any] = http.get(f"/status/{job_id}").json()
        if status["finished_at"] is not None:
            return status
        time.sleep(0.1)
    raise AssertionError(status)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("service")
    file = folder / "mine.py"
    file.write_text(WORKLOADS)
    receiver, found = Receiver(), Seen()
    errors = folder / "stderr"
    server = Server(
        *("--workloads", str(file), "--log-format", "json", "--journal", str(folder / "journal")),
        environment={
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "AGENTIC_RAY_WEBHOOK_SECRET": "never-shown",
            "AGENTIC_RAY_ADDRESS": "local",
        },
    )
    assert server.process.stderr is not None
    stderr = server.process.stderr
    reader = threading.Thread(target=lambda: errors.write_text(stderr.read()))
    reader.start()
    try:
        with httpx.Client(base_url=server.url, timeout=30) as http:
            for name, params in (("talk", 3), ("redirected", 2), ("boom", 0)):
                answer = http.post(
                    "/submit",
                    json={"workload": name, "params": params},
                    headers={"X-Request-ID": f"ask-{name}", "traceparent": PARENT},
                )
                assert answer.status_code == 202, answer.text
                found.headers[name] = answer.headers["X-Request-ID"]
                found.jobs[name] = answer.json()["task_id"]
                found.statuses[name] = _ended(http, found.jobs[name])
            found.printed = http.get(f"/logs/{found.jobs['talk']}").json()["lines"]
            refused = http.get("/status/none", headers={"Host": "evil.example"})
            found.headers["refused"] = refused.headers["X-Request-ID"]
        assert server.stop() == 0
        reader.join(30)
    finally:
        server.kill()
        receiver.close()
    found.lines = [json.loads(line) for line in errors.read_text().splitlines()]
    found.spans = receiver.spans
    return found


def test_callers_get_the_id_that_they_gave(seen: Seen) -> None:
    assert {name: seen.headers[name] for name in seen.jobs} == {n: f"ask-{n}" for n in seen.jobs}
    assert len(seen.headers["refused"]) == 32
    assert seen.statuses["talk"]["request_id"] == "ask-talk"


def test_each_line_of_a_job_has_its_request_and_job(seen: Seen) -> None:
    of_talk = [line for line in seen.lines if line.get("job_id") == seen.jobs["talk"]]
    assert {line["request_id"] for line in of_talk} == {"ask-talk"}
    assert {line["trace_id"] for line in of_talk} == {TRACE}
    messages = [line["message"] for line in of_talk]
    for expected in ("before", "task 0", "task 1", "logged 2", "after", "INFO mine: done"):
        assert expected in messages
    asked = [line for line in seen.lines if line["logger"] == "agentic_ray.requests"]
    assert any(
        line["request_id"] == "ask-talk" and line["message"].startswith("POST '/submit': 202")
        for line in asked
    )
    failed = [line for line in seen.lines if "failed:\nTraceback" in line["message"]]
    assert [line["request_id"] for line in failed] == ["ask-boom"]
    assert "never-shown" not in json.dumps(seen.lines)


def test_lines_of_tasks_have_their_bundle_and_come_in_order(seen: Seen) -> None:
    by_text = {line["text"]: line for line in seen.printed}
    for number in range(3):
        for text in (f"task {number}", f"logged {number}"):
            line = by_text[text]
            assert line["bundle"]
            assert line["request"] == "ask-talk"
    assert by_text["before"]["bundle"] == by_text["after"]["bundle"] == ""
    texts = [line["text"] for line in seen.printed]
    assert texts.index("before") < texts.index("task 0") < texts.index("after")
    assert {line["number"] for line in seen.printed} == set(range(len(texts)))


def test_streams_that_a_job_puts_in_place_get_what_tasks_print(seen: Seen) -> None:
    result = seen.statuses["redirected"]["result"]
    # Either bundle may end first, and the text of task 1 has no end of line.
    assert result in ("task 0\ntask 1", "task 1task 0\n")


def test_one_trace_has_request_job_graph_and_bundles(seen: Seen) -> None:
    spans = {span.span_id: span for span in seen.spans}
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}

    def fact(span: Any, name: str) -> Any:
        for entry in span.attributes:
            if entry.key == name:
                return entry.value.string_value or entry.value.int_value
        return None

    submits = [span for span in spans.values() if span.name == "POST /submit"]
    assert len(submits) == 3
    assert {span.parent_span_id.hex() for span in submits} == {SPAN}
    (job,) = (span for span in spans.values() if fact(span, "agentic_ray.job") == seen.jobs["talk"])
    assert job.name == "job talk"
    assert fact(spans[job.parent_span_id], "agentic_ray.request") == "ask-talk"
    assert seen.statuses["talk"]["result"] == f"00-{TRACE}-{job.span_id.hex()}-01"
    graphs = [span for span in spans.values() if span.parent_span_id == job.span_id]
    assert graphs
    bundles = [s for s in spans.values() for g in graphs if s.parent_span_id == g.span_id]
    assert {fact(span, "agentic_ray.bundle") for span in bundles} >= {
        line["bundle"] for line in seen.printed if line["bundle"]
    }
    for span in (*graphs, *bundles):
        assert job.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= job.end_time_unix_nano
    (failed,) = (span for span in spans.values() if span.name == "job boom")
    assert "on purpose" in failed.status.message
