"""Options and output that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentic_ray.logged import FORMATS, VARIABLE

if TYPE_CHECKING:
    from agentic_ray.pictures import Timeline

_F = TypeVar("_F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

workload_files = click.option(
    "--workloads",
    "files",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Python file or package directory that registers workloads; may be repeated.",
)

namespace = click.option(
    "--namespace",
    metavar="NAME",
    envvar="AGENTIC_RAY_NAMESPACE",
    show_envvar=True,
    help="Ray's namespace in which the masters have their names; teams may take one each.",
)

log_format = click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    envvar=VARIABLE,
    show_envvar=True,
    help="Write the log in this format, each line with the ids of its request, job and bundle, and "
    "the lines that jobs print too.  [default: warnings only]",
)

otel = click.option(
    "--otel/--no-otel",
    default=None,
    help="Send spans of requests, jobs, graphs and bundles by OpenTelemetry (agentic-ray[otel]), "
    "as its variables OTEL_... say.  [default: if OTEL_EXPORTER_OTLP_ENDPOINT or "
    "OTEL_TRACES_EXPORTER is set]",
)


def session(command: _F) -> _F:
    """Add the options that say where a command's session runs."""
    for option in (
        click.option(
            "--num-cpus",
            type=click.IntRange(min=1),
            help="CPUs of an embedded Ray.  [default: all of this machine]",
        ),
        click.option(
            "--address",
            metavar="ADDRESS",
            help="Ray cluster to join: HOST:PORT, 'auto' (the one that this machine is part of) "
            "or 'local' (an embedded Ray).  [default: $RAY_ADDRESS, else as 'auto', else 'local']",
        ),
    ):
        command = option(command)
    return command


def server(command: _F) -> _F:
    """Add the options that say which running service a command talks to."""
    for option in (
        click.option(
            "--token",
            envvar="AGENTIC_RAY_TOKEN",
            help="Token of the service.  [default: $AGENTIC_RAY_TOKEN]",
        ),
        click.option(
            "--url",
            envvar="AGENTIC_RAY_URL",
            default="http://127.0.0.1:8080",
            show_default=True,
            help="The running service.",
        ),
    ):
        command = option(command)
    return command


def pictures(command: _F) -> _F:
    """Add the options that draw what ran where and when; `draw` carries them out."""
    for name, kind, told in (
        ("--trace", "FILE.json", "Write the run as a trace for Perfetto and chrome://tracing."),
        ("--timeline", "FILE.html", "Draw it as a page: zoom, and all about each task."),
        ("--gantt", "FILE.svg", "Draw what ran where and when."),
    ):
        path = click.Path(dir_okay=False, path_type=Path)
        command = click.option(name, type=path, metavar=kind, help=told)(command)
    return command


def draw(picture: Timeline, gantt: Path | None, timeline: Path | None, trace: Path | None) -> None:
    """Write a picture in the forms that the options of `pictures` ask for."""
    for path, form in ((gantt, picture.svg), (timeline, picture.html), (trace, picture.trace)):
        if path is not None:
            path.write_text(form(), encoding="utf-8")


def print_json(value: Any) -> None:
    """Print a JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
