"""The command ``serve``; what it starts is in ``service.server``."""

from __future__ import annotations

import click

from agentic_ray.cli import options


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--token",
    envvar="AGENTIC_RAY_TOKEN",
    help="Token that requests must carry; needed for a --host that other machines reach. Better "
    "given as $AGENTIC_RAY_TOKEN: arguments can be seen by other users.",
)
@click.option(
    "--workloads",
    "files",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Python file or package directory that registers workloads; may be repeated.",
)
@click.option("--max-running", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--max-queued", default=10_000, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--drain-seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long accepted jobs may go on after SIGTERM.",
)
@options.session
@click.pass_context
def serve(
    context: click.Context,
    host: str,
    port: int,
    token: str | None,
    files: tuple[str, ...],
    max_running: int,
    max_queued: int,
    drain_seconds: float,
    address: str | None,
    num_cpus: int | None,
) -> None:
    """Run jobs that come in over HTTP, until SIGTERM or Ctrl-C.

    \b
    agentic-ray serve --port 8080
    curl -X POST -H 'Content-Type: application/json' -d '{"data": [1, 2, 3, 4, 5]}' \\
         http://127.0.0.1:8080/submit
    """
    from agentic_ray.service.server import ServerSettings
    from agentic_ray.service.server import serve as serve_until_signal

    settings = ServerSettings(
        host=host,
        port=port,
        token=token,
        workloads=files,
        address=address,
        num_cpus=num_cpus,
        max_running=max_running,
        max_queued=max_queued,
        drain_seconds=drain_seconds,
    )
    context.exit(serve_until_signal(settings, lambda line: click.echo(line)))
