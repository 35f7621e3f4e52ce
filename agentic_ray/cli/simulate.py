"""The command ``simulate``: runs a policy on a made-up cluster, in virtual time. Needs no Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentic_ray.cli import options
from agentic_ray.errors import InvalidArgumentError

if TYPE_CHECKING:
    from agentic_ray.schedule.workloads import Workload

WORKLOAD_NAMES = ("kmeans", "map_reduce", "random_layered", "tiled_cholesky", "tsqr")
# (Named here, so that --help need not load the simulator and NumPy with it.)


@click.command()
@click.option(
    "--workload",
    required=True,
    metavar="NAME|FILE.json",
    help=f"One of {', '.join(WORKLOAD_NAMES)}, or a file in WfCommons' WfFormat.",
)
@click.option("--nodes", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--policy",
    default="predictive",
    show_default=True,
    help="A policy, or for comparison ray_hybrid, first_free or round_robin.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of speeds and noise.")
@click.option(
    "--noise",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Standard deviation of every duration, relative.",
)
@click.option("--learnt", is_flag=True, help="Let costs and speeds be learnt, not given.")
@options.pictures
@options.as_json
def simulate(
    workload: str,
    nodes: int,
    policy: str,
    seed: int,
    noise: float,
    learnt: bool,
    gantt: Path | None,
    timeline: Path | None,
    trace: Path | None,
    as_json: bool,
) -> None:
    """Simulate a workload on nodes of one slot, of mixed speeds, every fourth with a GPU."""
    from agentic_ray.schedule.simulate import simulate as run_simulation

    result = run_simulation(
        _workload(workload),
        nodes,
        policy,
        seed=seed,
        noise=noise,
        costs="learnt" if learnt else "given",
    )
    options.draw(result.picture(), gantt, timeline, trace)
    if as_json:
        options.print_json(result.to_dict())
        return
    bound = result.lower_bound_seconds
    ratio = result.makespan_seconds / bound if bound else 1.0
    click.echo(f"{result.workload}, {result.tasks} tasks on {nodes} nodes, {result.policy}")
    click.echo(f"makespan      {result.makespan_seconds:.6g} s, {ratio:.3f} x lower bound")
    click.echo(f"lower bound   {result.lower_bound_seconds:.6g} s")
    click.echo(f"utilisation   {result.utilization:.1%}")
    click.echo(f"imbalance L   {result.imbalance:.3f}")
    click.echo(f"deciding      {result.decision_microseconds_per_task:.1f} µs a task")


def _workload(name: str) -> Workload:
    from agentic_ray.schedule.wfformat import parse_wfformat
    from agentic_ray.schedule.workloads import get_workload

    if not name.endswith(".json"):
        return get_workload(name)
    try:
        document = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"{name} cannot be read as JSON: {error}") from error
    return parse_wfformat(document)
