"""The command ``replay``: reads a recording of a session. Needs no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentic_ray.cli import options

if TYPE_CHECKING:
    from agentic_ray.schedule.replaying import Step, Summary


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--decisions", is_flag=True, help="Print every event and what was decided on it.")
@click.option(
    "--policy",
    metavar="NAME",
    help="Simulate what ran under this policy too, and compare the time it takes.",
)
@options.pictures
@click.option(
    "--most",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Differences to print.",
)
@options.as_json
def replay(
    file: Path,
    decisions: bool,
    policy: str | None,
    gantt: Path | None,
    timeline: Path | None,
    trace: Path | None,
    most: int,
    as_json: bool,
) -> None:
    """Feed a recording to this version's scheduler and compare the decisions.

    FILE comes from `session.record("run.jsonl")`, from `session.write_last_events("run.jsonl")`,
    from the setting AGENTIC_RAY_RECORD=FOLDER, or from a session that met an internal error.
    Ends with status 1 if a decision differs.
    """
    from agentic_ray.pictures import Timeline
    from agentic_ray.schedule.replaying import Replay, Summary

    summary = Summary()
    events, differing = 0, []
    with file.open(encoding="utf-8") as lines:
        recorded = Replay(lines)
        for step in recorded:
            events += 1
            summary.add(step)
            if decisions:
                click.echo(_told(step))
            if not step.same:
                differing.append(step)
    compared = [] if policy is None else _compared(summary, recorded.policy_name, policy)
    picture = Timeline(file.name, tuple(summary.spans), tuple(summary.held.levels))
    options.draw(picture, gantt, timeline, trace)
    if as_json:
        options.print_json(
            {
                "about": recorded.about,
                "policy": recorded.policy_name,
                "events": events,
                "dropped_events": recorded.dropped,
                "graphs": len(summary.graphs),
                "bundles": len(summary.spans),
                "differences": [_told(step) for step in differing[:most]],
                "differing_events": len(differing),
                "compared": compared,
            }
        )
    else:
        about = ", ".join(f"{name} {value}" for name, value in recorded.about.items())
        click.echo(f"{file.name}: {about}, policy {recorded.policy_name}")
        ran = f"{len(summary.spans)} bundles of {len(summary.graphs)} graphs ran"
        click.echo(f"{events} events; {ran}")
        if recorded.dropped:
            click.echo(
                f"{recorded.dropped} earlier events are not in it: decisions are shown as they "
                "were made, and not compared"
            )
        elif not differing:
            click.echo("this version decides the same, event by event")
        for step in differing[:most]:
            click.echo(_difference(step))
        if len(differing) > most:
            click.echo(f"... and {len(differing) - most} more events with differences")
        for row in compared:
            click.echo(
                f"graph {row['graph']}, {row['bundles']} bundles: "
                f"took {row['recorded_seconds']:.4g} s; simulated "
                + ", ".join(f"{name} {s:.4g} s" for name, s in row["simulated_seconds"].items())
            )
    if differing:
        raise SystemExit(1)


def _told(step: Step) -> str:
    time = step.event.time
    head = f"{step.number} at {time:.6f} s: {type(step.event).__name__}"
    lines = [f"    {_command(command)}" for command in step.recorded]
    if step.recorded_raised:
        lines.append(f"    raised {step.recorded_raised}")
    return "\n".join([head, *lines])


def _difference(step: Step) -> str:
    lines = [f"event {step.number}, {type(step.event).__name__}, is decided otherwise:"]
    for name, commands, raised in (
        ("recorded", step.recorded, step.recorded_raised),
        ("now", step.replayed, step.replayed_raised),
    ):
        shown = [_command(command) for command in commands] or ["nothing"]
        lines += [f"  {name}: {text}" for text in ([f"raised {raised}"] if raised else shown)]
    return "\n".join(lines)


def _command(command: list[Any]) -> str:
    if command[0] == "Start":
        _, graph, bundle, attempt, key, node, device, _, _, reason, copy, process = command
        what = "second copy of" if copy else "start"
        return (
            f"{what} bundle {bundle} ({key}, graph {graph}), attempt {attempt + 1}, on {device} "
            f"of {node}, process {process}: {reason}"
        )
    return " ".join(str(part) for part in command)


def _compared(summary: Summary, recorded: str, policy: str) -> list[dict[str, Any]]:
    from agentic_ray.schedule.policies import get_policy
    from agentic_ray.schedule.replaying import cluster_of
    from agentic_ray.schedule.simulate import simulate

    get_policy(policy)
    rows = []
    for name, graph in summary.graphs.items():
        workload = graph.workload()
        if workload is None or graph.failed or graph.finished_seconds is None:
            continue
        seconds = {
            chosen: simulate(workload, cluster_of(summary), chosen, timeline=False).makespan_seconds
            for chosen in dict.fromkeys((recorded, policy))
        }
        rows.append(
            {
                "graph": name,
                "bundles": len(graph.bundles),
                "recorded_seconds": graph.finished_seconds,
                "simulated_seconds": seconds,
            }
        )
    return rows
