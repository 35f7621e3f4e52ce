"""Jobs in MLflow (files) and OpenTelemetry (an exporter in memory): the real libraries."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

import agentic_ray as ar
from agentic_ray.errors import InvalidTypeError, NothingRanError
from agentic_ray.interop import mlflow as tracking
from agentic_ray.interop import opentelemetry as spans
from agentic_ray.interop.reporting import Reports
from agentic_ray.master.jobs import JobRecord


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "runs").as_uri()


@pytest.fixture
def exported() -> tuple[Tracer, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test"), exporter


@pytest.fixture
def half() -> Callable[[Any], float]:
    """A workload that puts nothing on the cluster: no Ray is needed."""

    @ar.workload("tracking-half")
    def half(params: dict[str, Any]) -> float:
        if params["number"] < 0:
            raise ValueError("on purpose")
        return float(params["number"]) / 2

    return half


def test_work_is_logged_in_the_active_run(ray_session: ar.Session, uri: str) -> None:
    job = ar.map_reduce_job(abs, range(100), lambda a, b: a + b)
    assert job.result() == 4950
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run() as run:
            tracking.log(job)
        found = MlflowClient(uri).get_run(run.info.run_id)
        names = [one.path for one in MlflowClient(uri).list_artifacts(run.info.run_id)]
    finally:
        mlflow.set_tracking_uri(before)
    assert found.data.metrics["efficiency"] == pytest.approx(job.metrics.efficiency)
    assert found.data.metrics["bundles"] == job.metrics.bundles
    assert names == ["timeline.html"]
    with pytest.raises(InvalidTypeError):
        tracking.log(object())


def test_every_job_of_a_master_becomes_a_run(uri: str, half: Callable[[Any], float]) -> None:
    tell = tracking.on_end("nightly", uri)
    with ar.Master(on_end=tell) as master:
        good = master.submit(half, {"number": 28}, tags=["fine"])
        assert good.result(60) == 14
        bad = master.submit(half, {"number": -1})
        with pytest.raises(ValueError, match="on purpose"):
            bad.result(60)
    assert tell.flush(60)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("nightly")
    runs = {
        r.data.tags["agentic_ray.job"]: r for r in client.search_runs([experiment.experiment_id])
    }
    assert set(runs) == {good.id, bad.id}
    run = runs[good.id]
    assert run.info.status == "FINISHED"
    assert run.data.params["workload"] == "tracking-half"
    assert run.data.params["params.number"] == "28"
    assert run.data.tags["tag.fine"] == "true"
    assert run.data.metrics["seconds"] >= 0
    assert runs[bad.id].info.status == "FAILED"


def test_spans_of_bundles_are_in_the_span_of_their_work(
    ray_session: ar.Session, exported: tuple[Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = exported
    job = ar.map_reduce_job(abs, range(100), lambda a, b: a + b)
    with pytest.raises(NothingRanError):
        spans.export(job, tracer=tracer)
    job.result()
    with tracer.start_as_current_span("program"):
        spans.export(job, "sum", tracer=tracer)
    found = exporter.get_finished_spans()
    program, whole = found[-1], found[-2]
    assert [whole.name, program.name] == ["sum", "program"]
    assert whole.parent.span_id == program.context.span_id
    bundles = found[:-2]
    assert len(bundles) == len(job.placements())
    for span in bundles:
        assert span.parent.span_id == whole.context.span_id
        assert whole.start_time <= span.start_time <= span.end_time <= whole.end_time
        assert span.attributes["agentic_ray.device"] == "cpu"
    assert whole.attributes["agentic_ray.bundles"] == len(bundles)
    with pytest.raises(InvalidTypeError):
        spans.export(object(), tracer=tracer)


def test_every_job_of_a_master_becomes_a_span(
    exported: tuple[Tracer, InMemorySpanExporter], half: Callable[[Any], float]
) -> None:
    tracer, exporter = exported
    tell = spans.on_end(tracer)
    with ar.Master(on_end=tell) as master:
        good = master.submit(half, {"number": 10})
        assert good.result(60) == 5
        bad = master.submit(half, {"number": -1})
        with pytest.raises(ValueError, match="on purpose"):
            bad.result(60)
    assert tell.flush(60)
    found = {span.attributes["agentic_ray.job"]: span for span in exporter.get_finished_spans()}
    assert set(found) == {good.id, bad.id}
    assert found[good.id].status.is_ok or found[good.id].status.is_unset
    assert not found[bad.id].status.is_ok
    assert found[bad.id].attributes["agentic_ray.state"] == "failed"


def test_a_report_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    first = threading.Event()

    def report(record: JobRecord) -> None:
        if not first.is_set():
            first.set()
            raise ConnectionError("the server is away")
        told.append(record.id)

    tell = Reports(report)
    for name in ("a", "b", "c"):
        tell(JobRecord(name, "w", "1", None, 0, 0, 0.0))
    assert tell.flush(60)
    assert told == ["b", "c"]
    assert "job a could not be reported" in caplog.text
