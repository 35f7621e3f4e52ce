"""Commands that talk to a running service: submit, status, result, logs, cancel, jobs."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentic_ray.cli import options

if TYPE_CHECKING:
    from agentic_ray.service import Client

_FOLLOW_SECONDS = 0.3


def _client(url: str, token: str | None) -> Client:
    from agentic_ray.service import Client

    return Client(url, token)


@click.command()
@click.argument("workload", default="default")
@click.option("--data", metavar="JSON", help="Short for --params '{\"data\": JSON}'.")
@click.option("--params", metavar="JSON", help="Parameters: JSON, @FILE, or - for standard input.")
@click.option("--priority", default=0, show_default=True, help="Higher runs first.")
@click.option(
    "--timeout", "timeout_seconds", type=float, metavar="SECONDS", help="Longest running time."
)
@click.option(
    "--deadline", "deadline_seconds", type=float, metavar="SECONDS", help="Longest time from now."
)
@click.option("--user", help="On whose behalf; users share the queue fairly.")
@click.option(
    "--idempotency-key", metavar="KEY", help="The same submit with the same key is the same job."
)
@click.option("--no-cache", is_flag=True, help="Compute it also if an equal job has a result.")
@click.option("--wait", is_flag=True, help="Wait for the result and print it.")
@options.server
@options.as_json
def submit(
    workload: str,
    data: str | None,
    params: str | None,
    priority: int,
    timeout_seconds: float | None,
    deadline_seconds: float | None,
    user: str | None,
    idempotency_key: str | None,
    no_cache: bool,
    wait: bool,
    url: str,
    token: str | None,
    as_json: bool,
) -> None:
    """Submit a job to a running service and print its identifier.

    WORKLOAD is the name of a registered workload.

    \b
    agentic-ray submit --data '[1, 2, 3, 4, 5]' --wait
    agentic-ray submit my_workload --params @params.json
    """
    if (data is None) == (params is None):
        raise click.UsageError("give either --data or --params")
    given = {"data": _parse("--data", data)} if data is not None else _parse("--params", params)
    with _client(url, token) as client:
        task_id = client.submit(
            given,
            workload=workload,
            priority=priority,
            timeout_seconds=timeout_seconds,
            deadline_seconds=deadline_seconds,
            user=user,
            idempotency_key=idempotency_key,
            cache=not no_cache,
        )
        if wait:
            try:
                found = client.result(task_id)
            except KeyboardInterrupt:
                click.echo(
                    f"the job goes on: `agentic-ray result {task_id}` waits for it, "
                    f"`agentic-ray cancel {task_id}` ends it",
                    err=True,
                )
                raise
            _print_result(task_id, found, as_json)
        elif as_json:
            options.print_json({"task_id": task_id})
        else:
            click.echo(task_id)


@click.command()
@click.argument("task_id", metavar="ID")
@options.server
@options.as_json
def status(task_id: str, url: str, token: str | None, as_json: bool) -> None:
    """Print the state and the details of a job."""
    with _client(url, token) as client:
        found = client.status(task_id)
    if as_json:
        options.print_json(found)
        return
    for name, value in found.items():
        if value is None or (name == "result" and found["state"] != "succeeded"):
            continue
        if name.endswith("_at"):
            value = _moment(value)
        elif name == "error":
            value = f"{value['type']}: {value['message']}"
        click.echo(f"{name.replace('_', ' '):16} {value}")


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("--timeout", type=float, metavar="SECONDS", help="Wait no longer than this.")
@options.server
@options.as_json
def result(task_id: str, timeout: float | None, url: str, token: str | None, as_json: bool) -> None:
    """Wait for a job and print its result as JSON; exit code 1 if it has none."""
    with _client(url, token) as client:
        _print_result(task_id, client.result(task_id, timeout), as_json)


@click.command()
@click.argument("task_id", metavar="ID")
@options.server
@options.as_json
def cancel(task_id: str, url: str, token: str | None, as_json: bool) -> None:
    """Cancel a job. A job that has finished stays as it is."""
    with _client(url, token) as client:
        found = client.cancel(task_id)
    if as_json:
        options.print_json(found)
    elif found["state"] == "running":
        click.echo("it runs and has been told to stop")
    else:
        click.echo(found["state"])


@click.command()
@click.argument("task_id", metavar="ID")
@options.server
@options.as_json
def retry(task_id: str, url: str, token: str | None, as_json: bool) -> None:
    """Submit again what an ended job was submitted with; prints the new identifier."""
    with _client(url, token) as client:
        made = client.retry(task_id)
    if as_json:
        options.print_json({"task_id": made, "retry_of": task_id})
    else:
        click.echo(made)


@click.command()
@click.argument("task_id", metavar="[ID]", required=False)
@options.server
@options.as_json
def events(task_id: str | None, url: str, token: str | None, as_json: bool) -> None:
    """Print what happens to jobs, or to the job ID, line by line, until it has ended or Ctrl-C."""
    with _client(url, token) as client:
        for event in client.events(task_id):
            if as_json:
                click.echo(json.dumps(event, ensure_ascii=False))
            else:
                told = " ".join(f"{name}={value}" for name, value in event["data"].items())
                click.echo(f"{event['event']}  {told}")


@click.command()
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@options.server
@options.as_json
def upload(name: str, file: str, url: str, token: str | None, as_json: bool) -> None:
    """Upload FILE as NAME, for jobs: --params '{"data": {"ref": "NAME"}}'.

    NAME ends with the format: .npy, .arrow, .parquet, .csv or .txt.
    """
    with _client(url, token) as client:
        told = client.upload(name, file)
    if as_json:
        options.print_json(told)
    else:
        click.echo(f"{told['name']}: {told['size']:,} bytes, sha256 {told['sha256']}")


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has finished.")
@options.server
@options.as_json
def logs(task_id: str, follow: bool, url: str, token: str | None, as_json: bool) -> None:
    """Print the lines that a job has printed, each with its time, node and job."""
    first = 0
    with _client(url, token) as client:
        while True:
            lines, following, finished = client.logs(task_id, first)
            for line in lines:
                if as_json:
                    options.print_json(line)
                    continue
                text = f"{_moment(line['time'])} {line['node']} {task_id[:8]} {line['text']}"
                click.echo(text, err=line["stream"] == "stderr")
            if following > first:
                first = following
                continue  # there may be more
            if finished or not follow:
                return
            time.sleep(_FOLLOW_SECONDS)


@click.command()
@click.option(
    "--state",
    type=click.Choice(["queued", "running", "succeeded", "failed", "cancelled"]),
    help="Only jobs in this state.",
)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@options.server
@options.as_json
def jobs(state: str | None, limit: int, url: str, token: str | None, as_json: bool) -> None:
    """List the newest jobs, newest first."""
    with _client(url, token) as client:
        found = client.jobs(state=state, limit=limit)
    if as_json:
        options.print_json(found)
        return
    row = "{:32}  {:10}  {:>8}  {:19}  {:>9}  {}"
    click.echo(row.format("id", "state", "priority", "submitted", "seconds", "workload"))
    for job in found:
        started, finished = job["started_at"], job["finished_at"]
        seconds = f"{finished - started:.3f}" if started and finished else ""
        click.echo(
            row.format(
                job["task_id"],
                job["state"],
                job["priority"],
                _moment(job["created_at"]),
                seconds,
                job["workload"],
            )
        )


def _parse(option: str, text: str | None) -> Any:
    from agentic_ray.errors import InvalidArgumentError
    from agentic_ray.master.jsonvalues import loads

    assert text is not None
    try:
        if text == "-":
            return loads(sys.stdin.buffer.read())
        if text.startswith("@"):
            return loads(Path(text[1:]).read_bytes())
        return loads(text)
    except OSError as error:
        raise click.UsageError(f"{option}: cannot read {text[1:]}: {error.strerror}") from error
    except InvalidArgumentError as error:
        raise click.UsageError(f"{option}: {error}") from error


def _print_result(task_id: str, value: Any, as_json: bool) -> None:
    options.print_json({"task_id": task_id, "result": value} if as_json else value)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
