"""The command ``doctor``: checks whether a machine or a cluster can run, and names remedies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from agentic_ray.cli import options

if TYPE_CHECKING:
    from agentic_ray.diagnosis.findings import Check


@click.command()
@click.option("--quick", is_flag=True, help="Do not start or join Ray.")
@click.option(
    "--fix",
    is_flag=True,
    help="Then do what is safe: shut the token's file off from others, remove folders of Ray "
    "sessions that ended more than an hour ago.",
)
@options.session
@options.as_json
@click.pass_context
def doctor(
    context: click.Context,
    quick: bool,
    fix: bool,
    address: str | None,
    num_cpus: int | None,
    as_json: bool,
) -> None:
    """Check this machine, and all nodes of a cluster; exit code 1 if something will not work."""
    checks: list[Check] = []
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for check in _checks(quick, address, num_cpus):
        checks.append(check)
        if not as_json:
            level = click.style(f"{check.level:4}", fg=colours[check.level])
            where = f"[{check.node}] " if check.node else ""
            click.echo(f"{level}  {check.name:14} {where}{check.found}")
            if check.advice:
                click.echo(f"{'':21}-> {check.advice}")
    if fix:
        _fix(quiet=as_json)
    if as_json:
        options.print_json([asdict(check) for check in checks])
    context.exit(1 if any(check.level == "fail" for check in checks) else 0)


def _checks(quick: bool, address: str | None, num_cpus: int | None) -> Iterator[Check]:
    # Imported here: these load pyarrow, NVML and Ray, which `agentic-ray --help` does not use.
    from agentic_ray.diagnosis.machine import check_machine

    yield from check_machine()
    if not quick:
        from agentic_ray.diagnosis.cluster import check_cluster

        yield from check_cluster(address, num_cpus)


def _fix(*, quiet: bool) -> None:
    from agentic_ray.diagnosis.machine import repair

    done = list(repair())
    if not quiet:
        click.echo("\n".join(f"fixed {line}" for line in done) or "nothing to fix")
