"""``agentic-ray token``: make, list and revoke tokens of a service; ``agentic-ray audit``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from agentic_ray.cli import options

if TYPE_CHECKING:
    from agentic_ray.service.access import Scope

_file = click.option(
    "--tokens",
    "file",
    envvar="AGENTIC_RAY_TOKENS",
    required=True,
    type=click.Path(),
    metavar="FILE",
    help="The file that `agentic-ray serve --tokens` has.  [default: $AGENTIC_RAY_TOKENS]",
)


@click.group()
def token() -> None:
    """Tokens of users: each sees and changes the owner's jobs only."""


@token.command()
@click.argument("owner")
@click.option(
    "--scope",
    type=click.Choice(["read", "submit", "admin"]),
    default="submit",
    show_default=True,
    help="read: see one's own jobs; submit: submit and cancel too; admin: all of everybody's.",
)
@click.option("--days", type=float, help="How long it holds.  [default: until it is revoked]")
@click.option("--rate", type=float, help="Requests a second, on average.  [default: any]")
@_file
@options.as_json
def create(
    owner: str, scope: Scope, days: float | None, rate: float | None, file: str, as_json: bool
) -> None:
    """Make a token for OWNER and print it. It is shown this once; the file has its hash."""
    # imported when it is used: it takes a while to import
    from agentic_ray.service.tokens import TokenFile

    text, made = TokenFile(file).create(owner, scope, days=days, rate=rate)
    if as_json:
        options.print_json({"token": text} | made.shown())
    else:
        click.echo(text)


@token.command("list")
@_file
@options.as_json
def list_tokens(file: str, as_json: bool) -> None:
    """List tokens: who has which, and until when. The tokens themselves are not known."""
    from agentic_ray.service.tokens import TokenFile

    found = TokenFile(file).read()
    if as_json:
        options.print_json([each.shown() for each in found])
        return
    for each in found:
        until = "" if each.expires_at is None else f"  until {_moment(each.expires_at)}"
        rate = "" if each.rate is None else f"  {each.rate:g}/s"
        click.echo(f"{each.id}  {each.scope:6}  {each.owner}{until}{rate}")


@token.command()
@click.argument("token_id", metavar="ID")
@_file
def revoke(token_id: str, file: str) -> None:
    """Make the token ID hold no longer; a running service notices within a second."""
    from agentic_ray.service.tokens import TokenFile

    gone = TokenFile(file).revoke(token_id)
    click.echo(f"revoked {gone.id} of {gone.owner}")


@click.group()
def audit() -> None:
    """The audit log of a service (`agentic-ray serve --audit FILE`)."""


@audit.command()
@click.argument("file", type=click.Path())
@options.as_json
@click.pass_context
def verify(context: click.Context, file: str, as_json: bool) -> None:
    """Follow the chain of the log FILE; exit code 1 if a line was changed, added or removed.

    Lines cut off at the end are noticed by comparing the count and the last hash with earlier ones.
    """
    from agentic_ray.service.audit import verify as follow

    found = follow(file)
    if as_json:
        told = {"lines": found.lines, "last": found.last, "problem": found.problem or None}
        options.print_json(told)
    else:
        click.echo(found.problem or f"{found.lines} lines, intact; the last has hash {found.last}")
    context.exit(1 if found.problem else 0)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "minutes")
