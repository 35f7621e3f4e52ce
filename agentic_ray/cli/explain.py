"""The command ``explain``: the plan of a script, and how long it would take on other clusters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentic_ray.cli import options
from agentic_ray.cli.scripts import become, compiled, show
from agentic_ray.errors import AgenticRayError
from agentic_ray.pictures.wording import bytes_text, counted, cut, seconds_text, short_name

if TYPE_CHECKING:
    from agentic_ray.cli.following import Followed
    from agentic_ray.schedule.described import Machine
    from agentic_ray.schedule.forecast import Forecast, Work
    from agentic_ray.schedule.recutting import Part
    from agentic_ray.schedule.virtual import SimCluster

_SUFFIX = ".jsonl"
Interval = tuple[float, float]


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--run", "runs", is_flag=True, help="Run the script, and explain what it did.")
@click.option(
    "--recording",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.jsonl",
    help="With --run: keep the recording there. Without: explain this recording of the script.",
)
@click.option(
    "--what-if",
    "what_ifs",
    multiple=True,
    metavar="nodes=64,gpus=8",
    help="Predict the time on a cluster: nodes, and of each cpus, gpus, memory, gpu_memory (64GB), "
    "link (10Gbit) and speed (1: as here); what is not said is as here. `+` joins kinds of nodes. "
    "May be repeated.",
)
@click.option("--policy", default="predictive", show_default=True, help="Policy of the scheduler.")
@options.session
@options.pictures
@options.as_json
@click.pass_context
def explain(
    context: click.Context,
    file: Path,
    arguments: tuple[str, ...],
    runs: bool,
    recording: Path | None,
    what_ifs: tuple[str, ...],
    policy: str,
    address: str | None,
    num_cpus: int | None,
    gantt: Path | None,
    timeline: Path | None,
    trace: Path | None,
    as_json: bool,
) -> None:
    """Show the work that a script would send to a cluster, line by line, and predict its time.

    FILE is a Python script, or a recording (FILE.jsonl). A script is followed without its heavy
    work as far as it needs no result; the first line that does is told. Its own lines do run.
    With --run it runs to its end, and the predictions are made from measured seconds.

    \b
    agentic-ray explain my_script.py --what-if nodes=8 -- --my-option 3
    agentic-ray explain my_script.py --run --recording run.jsonl --what-if nodes=64,gpus=8
    agentic-ray explain run.jsonl --what-if nodes=64,gpus=8
    """
    from agentic_ray.schedule.described import describe_cluster
    from agentic_ray.schedule.policies import get_policy

    get_policy(policy)
    for text in what_ifs:
        describe_cluster(text)  # nonsense is told before anything runs
    failed = False
    if file.suffix == _SUFFIX or (recording is not None and not runs):
        if runs:
            raise click.UsageError(f"{file} is a recording: it cannot be run")
        if file.suffix == _SUFFIX and recording is not None:
            raise click.UsageError("FILE is a recording already; --recording is another one")
        if arguments or address is not None or num_cpus is not None:
            raise click.UsageError(
                "arguments, --address and --num-cpus are of a script that runs, not of a recording"
            )
        source = file if recording is None else recording
        if not source.exists():
            raise click.UsageError(f"{source} does not exist; --run --recording {source} makes it")
        explained = _of_recording(source.name, source.read_text(encoding="utf-8"), policy)
    else:
        followed, explained = _of_script(
            file, arguments, policy, runs=runs, recording=recording,
            address=address, num_cpus=num_cpus,
        )  # fmt: skip
        failed = followed.failed
    answers = [_answer(explained, text, policy) for text in what_ifs]
    drawn = next((one for one in answers if one.forecast is not None), explained.here)
    if drawn.forecast is not None:
        picture = drawn.forecast.picture(f"{explained.title} on {drawn.cluster}")
        options.draw(picture, gantt, timeline, trace)
    if as_json:
        options.print_json(_json(explained, answers))
    else:
        click.echo("\n".join(_told(explained, answers)))
    context.exit(1 if failed else 0)


# --- gathering -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """Prediction for one cluster. ``error``: the reason why there is none."""

    text: str
    cluster: str
    forecast: Forecast | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Explained:
    """The graphs that a script sends, with the times and the machine that predictions use.

    Parameters
    ----------
    lines : mapping
        Line of the script that sent each graph; 0: not known.
    measured : mapping
        Beginning and end of each graph, where it ran.
    machine : Machine
        A node of the cluster here.
    beside : list of tuple
        Line, and text, of what was computed in this process while the script was followed.
    """

    title: str
    work: Work
    here: Answer
    machine: Machine
    lines: Mapping[str, int]
    sources: Mapping[int, str]
    measured: Mapping[str, Interval]
    beside: Sequence[tuple[int, str]] = ()
    stop: str = ""


def _of_script(
    file: Path,
    arguments: tuple[str, ...],
    policy: str,
    *,
    runs: bool,
    recording: Path | None,
    address: str | None,
    num_cpus: int | None,
) -> tuple[Followed, Explained]:
    from agentic_ray.cli.following import follow, run_recorded, source_line

    try:
        code = compiled(file)
    except OSError as error:
        raise click.UsageError(f"cannot read {file}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        show(error.with_traceback(None))
        raise click.exceptions.Exit(1) from error
    main = become(file, arguments)
    if runs:
        given = {"AGENTIC_RAY_ADDRESS": address, "AGENTIC_RAY_NUM_CPUS": num_cpus}
        settings = {name: str(value) for name, value in given.items() if value is not None}
        followed, text = run_recorded(file, code, main, settings)
        if recording is not None:
            recording.write_text(text, encoding="utf-8")
        explained = _of_recording(file.name, text, policy, lines=followed.watch.lines, file=file)
        return followed, explained
    if address is not None:
        raise click.UsageError("--address is of a real run: add --run, or describe it: --what-if")
    from agentic_ray.runtime.planning import PlanningSession
    from agentic_ray.schedule.described import Described

    machine = _this_machine(num_cpus)
    session = PlanningSession(Described("here", (machine,)))
    followed = follow(file, code, main, session)
    machine = session.described.machines[0]  # as the script asked for it
    work = session.work()
    lines = followed.watch.lines
    stop = followed.stop
    told = ""
    if stop is not None:
        told = (
            f"line {stop.line} needs {stop.needs}: {stop.source}\n"
            "run once with --run to see the rest"
        )
    cluster = session.described.cluster(work.calibration.store_bytes_per_second)
    beside = [
        (line, f"{span.task}: computed here at once, {seconds_text(span.seconds)}")
        for line, span in zip(followed.watch.here_lines, followed.watch.here, strict=True)
    ]
    every = {*lines.values(), *followed.watch.here_lines}
    return followed, Explained(
        file.name,
        work,
        _predicted("here", str(machine), work, cluster, policy),
        machine,
        lines,
        {line: source_line(file, line) for line in every},
        {},
        beside,
        told,
    )


def _of_recording(
    title: str,
    text: str,
    policy: str,
    *,
    lines: Mapping[str, int] | None = None,
    file: Path | None = None,
) -> Explained:
    from agentic_ray.cli.following import source_line
    from agentic_ray.schedule.described import Described, Machine
    from agentic_ray.schedule.forecast import read, summed_work
    from agentic_ray.schedule.replaying import Replay, cluster_of

    replay = Replay(text.splitlines())
    summary = read(replay)
    work = summed_work(replay, summary)
    kinds = Counter(
        Machine(1, node.slots, node.gpus, node.memory_bytes, node.gpu_memory_bytes)
        for node in summary.nodes.values()
    )
    machine = next(iter(kinds), Machine())
    nodes = Described(
        "here",
        tuple(
            Machine(count, one.cpus, one.gpus, one.memory_bytes, one.gpu_memory_bytes)
            for one, count in kinds.items()
        ),
    )
    measured = {
        name: (graph.submitted.time, graph.submitted.time + graph.finished_seconds)
        for name, graph in summary.graphs.items()
        if graph.finished_seconds is not None
    }
    lines = lines or {}
    sources = {} if file is None else {n: source_line(file, n) for n in set(lines.values())}
    here = _predicted("here", str(nodes), work, cluster_of(summary), policy)
    return Explained(title, work, here, machine, lines, sources, measured)


def _this_machine(num_cpus: int | None) -> Machine:
    from agentic_ray.schedule.described import Machine
    from agentic_ray.telemetry.host import probe_host
    from agentic_ray.telemetry.nvml import NvmlProbe

    host = probe_host()
    with NvmlProbe() as probe:
        gpus = [gpu for gpu in probe.read().gpus if gpu.healthy]
    memory = min((g.memory_total_bytes for g in gpus if g.memory_total_bytes), default=None)
    cpus = max(1, int(host.cpus)) if num_cpus is None else num_cpus
    return Machine(1, cpus, len(gpus), host.memory_total_bytes, memory)


def _answer(explained: Explained, text: str, policy: str) -> Answer:
    from agentic_ray.schedule.described import describe_cluster

    described = describe_cluster(text, explained.machine)
    cluster = described.cluster(explained.work.calibration.store_bytes_per_second)
    return _predicted(text, str(described), explained.work, cluster, policy)


def _predicted(text: str, name: str, work: Work, cluster: SimCluster, policy: str) -> Answer:
    from agentic_ray.schedule.forecast import forecast

    try:
        return Answer(text, name, forecast(work, cluster, policy) if work.stages else None)
    except AgenticRayError as error:
        return Answer(text, name, None, str(error))


# --- telling -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Piece:
    """The graphs that one line of the script sent."""

    line: int
    source: str
    graphs: tuple[Part, ...]

    @property
    def tasks(self) -> int:
        return sum(len(graph.tasks) for graph in self.graphs)

    @property
    def operations(self) -> dict[str, int]:
        """Number of tasks by operation, the most frequent first."""
        return dict(
            Counter(
                short_name(task.codelet.name) for graph in self.graphs for task in graph.tasks
            ).most_common()
        )

    @property
    def devices(self) -> str:
        kinds = {kind for graph in self.graphs for task in graph.tasks for kind in task.kinds()}
        return " or ".join(
            name for name, of in (("CPU", {"cpu"}), ("GPU", {"gpu", "card"})) if kinds & of
        )

    @property
    def made_bytes(self) -> int:
        return sum(
            graph.sizes.get(task.key, task.cost.written_bytes)
            for graph in self.graphs
            for task in graph.tasks
        )

    @property
    def read_bytes(self) -> int:
        return sum(task.cost.read_bytes for graph in self.graphs for task in graph.tasks)

    @property
    def is_guessed(self) -> bool:
        """Whether there are tasks of which neither the seconds nor the work are known."""
        return any(
            task.cost.items
            and not (task.cost.flops or task.cost.read_bytes or task.cost.written_bytes)
            and not any(graph.costs.get(task.key, ()))
            for graph in self.graphs
            for task in graph.tasks
        )

    def seconds(self, times: Mapping[str, Interval]) -> float | None:
        """Return the time during which any of the graphs was under way; None if it is not
        known."""
        known = [times[graph.graph_id] for graph in self.graphs if graph.graph_id in times]
        return _union(known) if known else None


def pieces_of(explained: Explained) -> list[Piece]:
    """Return the work by the lines that sent it, in order; without lines, by what ran together."""
    groups: dict[int, list[Part]] = {}
    for number, stage in enumerate(explained.work.stages, 1):
        for graph in stage.graphs:
            line = explained.lines.get(graph.graph_id, 0) if explained.lines else -number
            groups.setdefault(line, []).append(graph)
    return [
        Piece(line, explained.sources.get(line, ""), tuple(graphs))
        for line, graphs in groups.items()
    ]


def _union(intervals: Iterable[Interval]) -> float:
    total, until = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _told(explained: Explained, answers: Sequence[Answer]) -> list[str]:
    lines = [f"{explained.title}: {counted(len(explained.work.graphs), 'graph')}"]
    pieces = pieces_of(explained)
    for piece in pieces:
        lines += _piece_lines(piece, explained)
    for line, text in explained.beside:
        lines.append(f"line {line}: {cut(explained.sources.get(line, ''), 70)}\n    {text}")
    if not pieces:
        lines.append("no work for a cluster was found")
    if explained.stop:
        lines += ["", explained.stop]
    if not pieces:
        return lines
    lines.append("")
    rows: list[tuple[str, ...]] = [
        ("", "cluster", "time", "beside here", "busy", "moved", "held at most")
    ]
    measured = _union(explained.measured.values()) if explained.measured else None
    if measured is not None:
        span = list(explained.measured.values())
        whole = max(end for _, end in span) - min(begin for begin, _ in span)
        rows.append(("measured", explained.here.cluster, seconds_text(whole), "", "", "", ""))
    rows += [_row(answer, explained.here.forecast) for answer in (explained.here, *answers)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    for answer in (explained.here, *answers):
        if answer.error:
            lines.append(f"{answer.text}: cannot run there: {answer.error}")
    forecasts = [one.forecast for one in (explained.here, *answers) if one.forecast is not None]
    for note in dict.fromkeys(note for one in forecasts for note in one.notes):
        lines.append(f"note: {note}")
    return lines


def _row(answer: Answer, here: Forecast | None) -> tuple[str, ...]:
    found = answer.forecast
    if found is None:
        return (answer.text, answer.cluster, "-", "", "", "", "")
    times = ""
    if here is not None and answer.text != "here" and found.seconds:
        times = f"{here.seconds / found.seconds:.3g} × as fast"
    return (
        answer.text,
        answer.cluster,
        seconds_text(found.seconds),
        times,
        f"{found.utilization:.0%}",
        bytes_text(found.moved_bytes),
        bytes_text(found.held_bytes),
    )


def _piece_lines(piece: Piece, explained: Explained) -> list[str]:
    head = f"line {piece.line}: {cut(piece.source, 80)}" if piece.line > 0 else "in another thread"
    if piece.line < 0:
        head = f"step {-piece.line}"
    times = {} if explained.here.forecast is None else explained.here.forecast.graphs
    predicted, measured = piece.seconds(times), piece.seconds(explained.measured)
    facts = [f"{counted(piece.tasks, 'task')} for {piece.devices}"]
    if predicted is not None:
        how = "guessed" if piece.is_guessed else "predicted"
        facts.append(f"{how} {seconds_text(predicted)} here")
    if measured is not None:
        facts.append(f"took {seconds_text(measured)}")
    if piece.read_bytes:
        facts.append(f"{bytes_text(piece.read_bytes)} read")
    facts.append(f"{bytes_text(piece.made_bytes)} made")
    operations = [f"{count:,} × {name}" for name, count in piece.operations.items()]
    if len(operations) > 4:
        operations = [*operations[:4], f"and {len(operations) - 4} more operations"]
    return [head, f"    {'; '.join(facts)}", f"    {', '.join(operations)}"]


def _json(explained: Explained, answers: Sequence[Answer]) -> dict[str, Any]:
    times = {} if explained.here.forecast is None else explained.here.forecast.graphs
    return {
        "title": explained.title,
        "stopped": explained.stop or None,
        "pieces": [
            {
                "line": piece.line if piece.line > 0 else None,
                "source": piece.source,
                "graphs": len(piece.graphs),
                "tasks": piece.tasks,
                "devices": piece.devices,
                "operations": piece.operations,
                "read_bytes": piece.read_bytes,
                "made_bytes": piece.made_bytes,
                "predicted_seconds": piece.seconds(times),
                "guessed": piece.is_guessed,
                "measured_seconds": piece.seconds(explained.measured),
            }
            for piece in pieces_of(explained)
        ],
        "here": _answer_json(explained.here),
        "what_if": [_answer_json(answer) for answer in answers],
    }


def _answer_json(answer: Answer) -> dict[str, Any]:
    forecast = None if answer.forecast is None else answer.forecast.to_dict()
    found = {"asked": answer.text, "cluster": answer.cluster, "forecast": forecast}
    return {**found, "error": answer.error} if answer.error else found
