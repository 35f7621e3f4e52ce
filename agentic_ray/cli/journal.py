"""``agentic-ray journal``: backs up, verifies, migrates and compacts the journals of masters."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from agentic_ray.cli import options

if TYPE_CHECKING:
    from agentic_ray.master.upkeep import Findings

_results = click.option(
    "--results",
    metavar="PATH|URL",
    help="Where the journal has its large results, if that is not beside its file.",
)


@click.group()
def journal() -> None:
    """Look after the journal of a master: a file, its directory, or a postgresql:// URL."""


@journal.command()
@click.argument("where")
@click.argument("to", type=click.Path())
@_results
@options.as_json
def backup(where: str, to: str, results: str | None, as_json: bool) -> None:
    """Copy the journal WHERE, as it is now, to the new directory TO.

    A master may be using it. The copy has the large results and finished stages too, and is a
    journal by itself: to restore it, name it in place of the old one, or put it into a server with
    `agentic-ray journal migrate TO --to URL`. Delete values that belong to no job of the journal
    WHERE, and give unused space back.
    """
    # imported when it is used: it takes a while to import
    from agentic_ray.master import upkeep

    _tell(upkeep.backup(where, to, results), f"copied to {to}", as_json)


@journal.command()
@click.argument("where")
@_results
@options.as_json
@click.pass_context
def verify(context: click.Context, where: str, results: str | None, as_json: bool) -> None:
    """Read all of the journal WHERE and compare checksums; exit code 1 if something is damaged.

    A master may be using it. Nothing is changed.
    """
    from agentic_ray.master import upkeep

    found = upkeep.verify(where, results)
    _tell(found, "damaged" if found.damage else "intact", as_json)
    context.exit(1 if found.damage else 0)


@journal.command()
@click.argument("where")
@click.option("--to", metavar="PATH|URL", help="Copy it to this new file, or empty database.")
@_results
@click.option("--to-results", metavar="PATH|URL", help="Where the copy has its large results.")
@options.as_json
def migrate(
    where: str, to: str | None, results: str | None, to_results: str | None, as_json: bool
) -> None:
    """Bring the journal WHERE up to this version, or with --to copy it to another database.

    No master may be using it. (A master brings its journal up to date itself when it starts.)
    """
    from agentic_ray.master import upkeep

    found = upkeep.migrate(where, to, results, to_results)
    _tell(found, "up to date" if to is None else "copied", as_json)


@journal.command()
@click.argument("where")
@_results
@options.as_json
def compact(where: str, results: str | None, as_json: bool) -> None:
    """Delete data that belong to no job of the journal WHERE, and give unused space back.

    No master may be using it.
    """
    from agentic_ray.master import upkeep

    _tell(upkeep.compact(where, results), "compacted", as_json)


def _tell(found: Findings, done: str, as_json: bool) -> None:
    if as_json:
        options.print_json(asdict(found))
        return
    click.echo(
        f"{done}: {found.jobs} jobs ({found.unfinished} unfinished), {found.results} large "
        f"results, {found.stages} stages, {found.strays} strays, schema {found.schema}"
    )
    for line in found.damage:
        click.echo(f"  {line}")
