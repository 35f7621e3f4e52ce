"""Runs of MLflow for jobs: their parameters, figures and timelines.

Needs the extra ``agentic-ray[mlflow]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from agentic_ray.errors import InvalidTypeError
from agentic_ray.interop.reporting import Reports, figures

if TYPE_CHECKING:
    from agentic_ray.master.jobs import JobRecord

_STATUS: Final = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
_MOST_TEXT: Final = 500
_MOST_PARAMS: Final = 100


def log(work: Any, *, timeline: bool = True) -> None:
    """Add the figures of finished work, and its timeline, to the active run of MLflow.

    Parameters
    ----------
    work : job, run or map-reduce
        Anything with ``metrics``.
    timeline : bool
        Whether to add the page ``timeline.html``, where anything is known of what ran.

    Raises
    ------
    InvalidTypeError
        It has no metrics.

    Examples
    --------
    >>> import agentic_ray as ar, mlflow
    >>> from agentic_ray.interop.mlflow import log
    >>> job = ar.map_reduce_job(len, ["a", "bb"])
    >>> with mlflow.start_run():  # doctest: +SKIP
    ...     job.result()
    ...     log(job)
    """
    if not hasattr(work, "metrics"):
        raise InvalidTypeError(f"a {type(work).__name__} has no metrics")
    mlflow.log_metrics(figures(work.metrics))
    if timeline and work.placements():
        mlflow.log_text(work.timeline().html(), "timeline.html")


def on_end(experiment: str = "agentic_ray", tracking_uri: str | None = None) -> Reports:
    """Return a callback for ``Master(on_end=...)``: every job becomes a run of an experiment.

    The run has the job's top-level parameters, its figures E, L, D and F and what they are made of,
    its times and its state. It is written in a thread of its own.

    Parameters
    ----------
    experiment : str
        Name of the experiment; it is made if there is none.
    tracking_uri : str, optional
        Server or file of MLflow; default: MLflow's own.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> from agentic_ray.interop.mlflow import on_end
    >>> master = ar.Master(on_end=on_end("nightly", "http://mlflow:5000"))  # doctest: +SKIP
    """
    client = MlflowClient(tracking_uri)

    def report(record: JobRecord) -> None:
        found = client.get_experiment_by_name(experiment)
        number = client.create_experiment(experiment) if found is None else found.experiment_id
        began, ended = record.started_at or record.created_at, record.finished_at
        run = client.create_run(
            number,
            start_time=int(began * 1000),
            run_name=f"{record.workload} {record.id[:8]}",
            tags={"agentic_ray.job": record.id, "agentic_ray.user": record.user},
        ).info.run_id
        at = int((began if ended is None else ended) * 1000)
        values = figures(record.metrics)
        if ended is not None:
            values["seconds"] = ended - began
        client.log_batch(
            run,
            metrics=[Metric(name, value, at, 0) for name, value in values.items()],
            params=[Param(name, value) for name, value in _params(record)],
            tags=[RunTag(f"tag.{word}", "true") for word in record.tags],
        )
        client.set_terminated(run, _STATUS.get(record.state.value, "FAILED"), at)

    return Reports(report)


def _params(record: JobRecord) -> list[tuple[str, str]]:
    """Return the job's workload and its top-level parameters as MLflow takes them."""
    load = getattr(record.params, "load", None)  # a master keeps them as their JSON text
    params = load() if callable(load) else record.params
    given = params if isinstance(params, Mapping) else {"params": params}
    named = [("workload", record.workload), ("version", record.version)]
    named += [(f"params.{_name(name)}", str(value)) for name, value in given.items()]
    return [(name, text[:_MOST_TEXT]) for name, text in named[:_MOST_PARAMS]]


def _name(name: Any) -> str:
    """Return a name with the characters that MLflow allows."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in str(name))[:200]
