"""``agentic-ray master``: starts, reloads, shows and stops masters that run on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from agentic_ray.cli import options

if TYPE_CHECKING:
    from agentic_ray.master.actor import RemoteMaster

_name = click.argument("name", default="master")
_address = click.option(
    "--address",
    default="auto",
    show_default=True,
    metavar="ADDRESS",
    help="The Ray cluster: 'auto' or HOST:PORT.",
)


@click.group()
def master() -> None:
    """Masters that run on a Ray cluster, found by their NAME, and outlive the command."""


@master.command()
@_name
@click.option("--journal", required=True, metavar="PATH|URL", help="Where its jobs are kept.")
@options.workload_files
@click.option("--max-running", type=click.IntRange(min=1))
@click.option(
    "--data",
    type=click.Path(),
    metavar="FOLDER",
    help="Where `agentic-ray serve --master NAME --data FOLDER` keeps what users upload.",
)
@options.log_format
@click.option("--otel", is_flag=True, help="As of `agentic-ray serve`, by the cluster's variables.")
@_address
@options.namespace
def start(
    name: str,
    journal: str,
    files: tuple[str, ...],
    max_running: int | None,
    data: str | None,
    log_format: str | None,
    otel: bool,
    address: str,
    namespace: str | None,
) -> None:
    """Start a master, or find that it runs already with the same journal and workloads."""
    from agentic_ray.master.actor import start_master

    given: dict[str, Any] = {"max_running": max_running, "data": data and os.path.abspath(data)}
    given |= {"log_format": log_format, "otel": otel or None}
    further = {option: value for option, value in given.items() if value is not None}
    with _cluster(address, namespace):
        made = start_master(name, journal=journal, workloads=files, **further)
        click.echo(f"master {name} runs, process {made.pid()}")


@master.command()
@_name
@options.workload_files
@_address
@options.namespace
def reload(name: str, files: tuple[str, ...], address: str, namespace: str | None) -> None:
    """Let a master run these workloads from now on; jobs that run go on as they began."""
    with _found(name, address, namespace) as found:
        found.reload(workloads=files)
        click.echo(f"master {name} has {', '.join(found.describe().workloads) or 'no'} workloads")


@master.command()
@_name
@_address
@options.namespace
@options.as_json
def status(name: str, address: str, namespace: str | None, as_json: bool) -> None:
    """Show the journal and workloads of a master, and how many of its jobs wait and run."""
    with _found(name, address, namespace) as found:
        told, counts, pid = found.describe(), found.statistics(), found.pid()
    shown = {
        "name": name,
        "pid": pid,
        "journal": told.journal,
        "workloads": sorted(told.workloads),
        "queued": counts.queued,
        "running": counts.running,
        "finished": {state.value: count for state, count in counts.finished.items()},
    }
    if as_json:
        options.print_json(shown)
        return
    for key, value in shown.items():
        if isinstance(value, dict):
            value = ", ".join(f"{count} {state}" for state, count in value.items())
        elif isinstance(value, list):
            value = ", ".join(value)
        click.echo(f"{key}: {value}")


@master.command()
@_name
@click.option(
    "--drain-seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long jobs may go on; what is left stays in the journal.",
)
@_address
@options.namespace
def stop(name: str, drain_seconds: float, address: str, namespace: str | None) -> None:
    """End a master, for everybody. Its jobs stay in its journal."""
    with _found(name, address, namespace) as found:
        found.close(timeout_seconds=drain_seconds)
        click.echo(f"master {name} has stopped")


@contextmanager
def _cluster(address: str, namespace: str | None) -> Iterator[None]:
    import agentic_ray as ar

    ar.init(address, namespace=namespace)
    try:
        yield
    finally:
        ar.shutdown()


@contextmanager
def _found(name: str, address: str, namespace: str | None) -> Iterator[RemoteMaster]:
    from agentic_ray.master.actor import find_master

    with _cluster(address, namespace):
        yield find_master(name)
