"""The command ``top``: what a service does, on a screen that is drawn anew all the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agentic_ray.cli import options

if TYPE_CHECKING:
    from agentic_ray.service import Client

_MOST_JOBS = 200


@click.command()
@click.option(
    "--every",
    type=click.FloatRange(min=0.1, max=3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between two looks at the service.",
)
@options.server
def top(every: float, url: str, token: str | None) -> None:
    """Watch the nodes, GPUs and jobs of a running service in the terminal.

    Keys: s sorts, r reverses, / filters, l shows the log of a job, c cancels it, q quits.
    """
    try:
        from agentic_ray.cli.board import Board
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "textual":
            raise
        raise click.ClickException("this needs Textual: pip install 'agentic-ray[top]'") from error
    from agentic_ray.service import Client

    with Client(url, token) as client:
        client.cluster()  # a service that cannot be reached is told here, not on the screen
        Board(ServiceSource(client), url, every).run()


class ServiceSource:
    """Facts from a service; see `board.Source`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def cluster(self) -> dict[str, Any]:
        return self._client.cluster()

    def jobs(self) -> list[dict[str, Any]]:
        return self._client.jobs(limit=_MOST_JOBS)

    def cancel(self, task_id: str) -> dict[str, Any]:
        return self._client.cancel(task_id)

    def logs(self, task_id: str) -> list[str]:
        """Return all lines that a job has printed."""
        lines: list[str] = []
        first = 0
        while True:
            found, following, _ = self._client.logs(task_id, first)
            lines += [str(line["text"]) for line in found]
            if following <= first:
                return lines
            first = following
