"""Commands that use a session of their own: demo, nodes."""

from __future__ import annotations

import click

from agentic_ray.cli import options


@click.command()
@click.option("--check", is_flag=True, help="Recompute in one process and fail on a difference.")
@click.option("--file", "path", type=click.Path(), help="Another CSV file of flights.")
@click.option("--numbers", type=click.IntRange(min=1), help="How many numbers to square and sum.")
@click.option("--all-placements", is_flag=True, help="Print every row of the placement table.")
@options.session
@options.as_json
@click.pass_context
def demo(
    context: click.Context,
    check: bool,
    path: str | None,
    numbers: int | None,
    all_placements: bool,
    address: str | None,
    num_cpus: int | None,
    as_json: bool,
) -> None:
    """Run the main job on real data and show where each part of it ran.

    Delays of the 336,776 flights that left New York in 2013 by carrier and route, and a sum of
    squares of ten million numbers.
    """
    import agentic_ray as ar
    from agentic_ray.demo.run import NUMBERS, run_demo

    ar.init(address, num_cpus=num_cpus)
    try:
        code = run_demo(
            check=check,
            as_json=as_json,
            path=path,
            all_placements=all_placements,
            numbers=NUMBERS if numbers is None else numbers,
            progress=False if as_json else None,
        )
    finally:
        ar.shutdown()
    context.exit(code)


@click.command()
@options.session
@options.as_json
def nodes(address: str | None, num_cpus: int | None, as_json: bool) -> None:
    """Show the nodes of the cluster with their CPUs, memory and GPUs as they are now."""
    import agentic_ray as ar

    ar.init(address, num_cpus=num_cpus)
    try:
        state = ar.cluster()
    finally:
        ar.shutdown()
    if as_json:
        options.print_json(state.to_dict())
    else:
        click.echo(str(state))
