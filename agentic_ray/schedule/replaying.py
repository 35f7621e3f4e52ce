"""Reads recordings: feeds the recorded events to another Dispatcher and compares the decisions.

Also turns the graphs of a recording into workloads for the simulator, so that policies can be
compared on real runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agentic_ray.errors import InvalidArgumentError, PoisonTaskError
from agentic_ray.graph.task import (
    Bundle,
    Codelet,
    CostHint,
    Resources,
    Task,
    TaskGraph,
)
from agentic_ray.pictures import HeldBytes, Span
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.contract import Policy
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.noting import (
    CODELET_FIELDS,
    MOST_TEXT,
    RecordedError,
    RecordedRetry,
    told,
)
from agentic_ray.schedule.plain import Json
from agentic_ray.schedule.policies import get_policy
from agentic_ray.schedule.recording import DEFAULT_PARTS, FORMAT, PLAIN
from agentic_ray.schedule.virtual import SimCluster, SimNode
from agentic_ray.schedule.workloads import FLOPS_PER_SECOND, Workload


@dataclass(frozen=True, slots=True)
class Step:
    """An event of a recording, with the commands of both Dispatchers.

    ``raised`` names the exception that was recorded or seen at an event, "" if there was none.
    """

    number: int
    event: ev.Event
    recorded: tuple[Json, ...]
    replayed: tuple[Json, ...]
    recorded_raised: str = ""
    replayed_raised: str = ""

    @property
    def same(self) -> bool:
        """Whether both decided alike."""
        # (As text, where not-a-number equals itself.)
        agree = json.dumps(self.recorded) == json.dumps(self.replayed)
        return agree and self.recorded_raised == self.replayed_raised


@dataclass(slots=True)
class Replay:
    """A recording that is being read; iterate over it once.

    Parameters
    ----------
    lines : iterable of str
        Lines of the recording. A last line that was cut off is ignored.
    policy : Policy, optional
        Decides instead of the recorded one. Events that do not fit its decisions are taken for
        late reports, so only the first difference means something then.

    Attributes
    ----------
    dropped : int
        Notes before the first of this recording, which is of a session's last events. With any
        dropped, steps hold the recorded decisions alone: how the scheduler stood is not known.

    Raises
    ------
    InvalidArgumentError
        The lines are no recording, one of another version, or its policy is not known here.

    Examples
    --------
    >>> from agentic_ray.schedule.replaying import Replay
    >>> Replay(["{}"])
    Traceback (most recent call last):
    agentic_ray.errors.InvalidArgumentError: this is no recording of a session
    """

    lines: Iterable[str]
    policy: Policy | None = None
    about: dict[str, str] = field(default_factory=dict, init=False)
    dropped: int = field(default=0, init=False)
    policy_name: str = field(default="", init=False)
    _rows: Iterator[dict[str, Json]] = field(init=False, repr=False)
    _dispatcher: Dispatcher = field(init=False, repr=False)
    _codelets: dict[int, Codelet] = field(default_factory=dict, init=False, repr=False)
    _parts: dict[int, Resources | CostHint] = field(default_factory=dict, init=False, repr=False)
    _halves: dict[str, tuple[Task, ...]] = field(default_factory=dict, init=False, repr=False)
    _header: dict[str, Json] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._rows = _rows(self.lines)
        self._header = next(self._rows, {})
        found = self._header.get("format")
        if found is None:
            raise InvalidArgumentError("this is no recording of a session")
        if found != FORMAT:
            raise InvalidArgumentError(
                f"a recording in format {found!r:.20}; this version reads {FORMAT}"
            )
        with _reading("the first line"):
            self.about = dict(self._header["about"])
            self.dropped = int(self._header.get("dropped", 0))
            self.policy_name = str(self._header["policy"])
            self._begin(PLAIN.decode(self._header["model"]), self._header["next_bundle_id"])

    def _begin(self, model: Any, next_bundle_id: int) -> None:
        self._dispatcher = Dispatcher(
            self.policy or get_policy(self.policy_name),
            model,
            PLAIN.decode(self._header["retry"]),
            speculation=PLAIN.decode(self._header["speculation"]),
            report_seconds=self._header["report_seconds"],
        )
        self._dispatcher.next_bundle_id = next_bundle_id

    @property
    def model(self) -> CostModel:
        """Knowledge of this version's Dispatcher after the steps so far."""
        return self._dispatcher.model

    def __iter__(self) -> Iterator[Step]:
        events = 0
        for number, row in enumerate(self._rows, 2):
            if "event" in row:
                events += 1
                with _reading(f"line {number}"):
                    event = self._event(row["event"])
                    self._note_halves(row.get("splits", ()))
                    recorded = tuple(row.get("commands", ()))
                yield self._step(events, event, recorded, row.get("raised", ""))
                continue
            with _reading(f"line {number}"):
                self._beside(row)

    def _beside(self, row: dict[str, Json]) -> None:
        """Take in a line that holds no event."""
        model = self._dispatcher.model
        if "codelet" in row:
            self._codelets[row["codelet"]] = self._codelet(row)
        elif "calibration" in row:
            model.calibration = PLAIN.decode(row["calibration"])
        elif "call_seconds" in row:
            model.observe_call(row["call_seconds"])
        elif "next_bundle_id" in row:
            self._begin(model, row["next_bundle_id"])
        elif "ended" not in row:
            raise ValueError(f"it says {list(row)!r:.100}")

    def _note_halves(self, splits: Iterable[Json]) -> None:
        """Remember the tasks of the halves that the recorded Dispatcher cut bundles into."""
        for first, second in splits:
            self._parts = dict(enumerate(DEFAULT_PARTS))
            tasks = (*self._bundle(first).tasks, *self._bundle(second).tasks)
            self._halves[tasks[-1].key] = tasks

    def _step(self, number: int, event: ev.Event, recorded: tuple[Json, ...], raised: str) -> Step:
        if self.dropped:
            return Step(number, event, recorded, recorded, raised, raised)
        replayed_raised = ""
        try:
            replayed = tuple([told(command) for command in self._dispatcher.handle(event)])
        except Exception as error:  # as the recorded one may have raised too
            replayed, replayed_raised = (), f"{type(error).__name__}: {error}"[:MOST_TEXT]
        return Step(number, event, recorded, replayed, raised, replayed_raised)

    def _event(self, data: Json) -> ev.Event:
        kind = data.get("@")
        if kind == "GraphSubmitted":
            self._parts = dict(enumerate(DEFAULT_PARTS))
            return ev.GraphSubmitted(
                data["time"],
                data["graph_id"],
                tuple([self._bundle(one) for one in data["bundles"]]),
                tuple(data["outputs"]),
                data["priority"],
            )
        if kind == "BundleFailed":
            return ev.BundleFailed(
                data["time"],
                data["bundle_id"],
                data["attempt"],
                data["cause"],
                _error(data["kind"], data["error"], data["text"]),
                PLAIN.decode(data["memory"]),
                data["begun"],
                tuple((items, size) for items, size in data["device_peaks"]),
            )
        event: ev.Event = PLAIN.decode(data)
        return event

    def _bundle(self, data: Json) -> Bundle:
        key, tasks, inputs, outputs = data
        return Bundle(key, tuple(map(self._task, tasks)), tuple(inputs), tuple(outputs))

    def _task(self, data: Json) -> Task:
        key, codelet, dependencies, tag, resources, cost, priority = data
        return Task(
            key,
            self._codelets[codelet],
            (),
            {},
            tuple(dependencies),
            tag,
            self._part(resources, Resources),
            self._part(cost, CostHint),
            priority,
        )

    def _part(self, data: Json, cls: type[Any]) -> Any:
        if isinstance(data, int):
            return self._parts[data]
        number, fields = data
        made = self._parts[number] = cls(**fields)
        return made

    def _codelet(self, row: dict[str, Json]) -> Codelet:
        return Codelet(
            cpu=_recorded if row["cpu"] else None,
            gpu=_recorded if row["gpu"] else None,
            retry_on=(RecordedRetry,) if row["again"] else (),
            halve=lambda task: self._halves.get(task.key),
            **{name: row[name] for name in CODELET_FIELDS if name in row},
        )


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Name the place in the error if the lines there are not a recording's."""
    try:
        yield
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{where} of the recording: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InvalidArgumentError(
            f"{where} is not of a recording: {type(error).__name__}: {error}"
        ) from error


def _error(kind: str, name: str, text: str) -> Exception:
    if kind == "poison":
        return PoisonTaskError(text)
    return RecordedRetry(name, text) if kind == "again" else RecordedError(name, text)


def _recorded(*_: Any) -> None:
    """Stand in for the implementations of recorded codelets."""


def _rows(lines: Iterable[str]) -> Iterator[dict[str, Json]]:
    """Yield the lines as JSON objects; the last may be cut off, if its writer was killed."""
    waiting: ValueError | None = None
    for number, line in enumerate(lines, 1):
        if waiting is not None:
            raise InvalidArgumentError(f"line {number - 1} is not JSON: {waiting}") from waiting
        try:
            row = json.loads(line)
        except ValueError as error:
            waiting = error
            continue
        if not isinstance(row, dict):
            raise InvalidArgumentError("this is no recording of a session")
        yield row


# --- recorded runs, for pictures and for the simulator -------------------------------------


@dataclass(slots=True)
class Summary:
    """Overview of a recording's graphs: when each began and ended, and all tasks that ran.

    Feed it every step; ``spans``, ``held`` and ``graphs`` may be read at any time.
    ``process_calls`` are the seconds between the sending and the report of bundles that ran in
    worker processes, beside their own: such a bundle is sent when a process is free.
    """

    spans: list[Span] = field(default_factory=list)
    graphs: dict[str, RecordedGraph] = field(default_factory=dict)
    nodes: dict[str, SimNode] = field(default_factory=dict)
    held: HeldBytes = field(default_factory=HeldBytes)
    process_calls: list[float] = field(default_factory=list)
    _sent: dict[tuple[int, int], _Sent] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        """Take in one step."""
        event = step.event
        if isinstance(event, ev.GraphSubmitted):
            self.graphs[event.graph_id] = RecordedGraph(event)
        elif isinstance(event, ev.NodeUp):
            cpus = sum(d.slots for d in event.devices if d.kind == "cpu")
            cards = [
                d.memory_total_bytes or d.memory_bytes for d in event.devices if d.kind != "cpu"
            ]
            self.nodes[event.node.node_id] = SimNode(
                *(event.node.node_id, 1.0, max(cpus, 1), len(cards)),
                memory_bytes=event.node.memory_total_bytes,
                gpu_memory_bytes=min((size for size in cards if size is not None), default=None),
                labels=event.node.labels,
                custom=event.node.custom,
            )
        elif isinstance(event, ev.BundleFinished):
            self._finished(event)
        elif isinstance(event, ev.GraphReleased):
            self._released(event)
        elif isinstance(event, ev.BundleFailed):
            self._sent.pop((event.bundle_id, event.attempt), None)
        for command in step.recorded:
            graph = self.graphs.get(command[1])
            if command[0] == "Start":
                self._sent[command[2], command[3]] = _Sent.of(command, event.time)
                if graph is not None:
                    graph.running[command[2]] = command[4]
            elif command[0] in ("Release", "Recompute"):
                self.held.drop(event.time, [(command[1], key) for key in command[2]])
            elif command[0] in ("FinishGraph", "FailGraph") and graph is not None:
                graph.ended(event.time, failed=command[0] == "FailGraph")

    def _released(self, event: ev.GraphReleased) -> None:
        graph = self.graphs.get(event.graph_id)
        if graph is not None:
            made = [key for bundle in graph.bundles.values() for key in bundle.outputs]
            self.held.drop(event.time, [(event.graph_id, key) for key in made])

    def _finished(self, event: ev.BundleFinished) -> None:
        sent = self._sent.pop((event.bundle_id, event.attempt), None)
        if sent is None:
            return
        for graph_id, graph in self.graphs.items():
            key = graph.running.pop(event.bundle_id, None)
            bundle = None if key is None else graph.bundles.get(key)
            if key is None or bundle is None:
                continue
            sizes = {value.key: value.size_bytes for value in event.values}
            size = sum(sizes.values())
            self.spans.append(
                Span(
                    *(key, bundle.tasks[-1].codelet.name, sent.node_id, sent.device),
                    *(sent.seconds, max(sent.seconds, event.time - event.seconds), event.time),
                    predicted_seconds=sent.predicted_seconds,
                    made_bytes=size,
                    note=sent.reason,
                    retried=event.attempt > 0,
                )
            )
            for value in event.values:
                if value.node_id is not None:  # small values travel in the report itself
                    self.held.keep(event.time, (graph_id, value.key), value.size_bytes)
            graph.ran[key] = Ran(event.seconds, sent.device, size, event.task_seconds, sizes)
            if bundle.opaque:
                self.process_calls.append(event.time - sent.seconds - event.seconds)
            return


class Ran(NamedTuple):
    """A bundle that has run: its seconds, on which device, the bytes of its values together, the
    seconds of each task, and the bytes of each value."""

    seconds: float
    device: str
    made_bytes: int
    task_seconds: tuple[float, ...]
    sizes: dict[str, int]


class _Sent(NamedTuple):
    """A bundle that was sent: where to, when, and what was expected of it there."""

    node_id: str
    device: str
    seconds: float
    predicted_seconds: float | None
    reason: str

    @classmethod
    def of(cls, command: Json, seconds: float) -> _Sent:
        begin, end = command[7], command[8]
        known = begin is not None and end is not None
        return cls(command[5], command[6], seconds, end - begin if known else None, command[9])


@dataclass(slots=True)
class RecordedGraph:
    """A graph of a recording. ``ran``: what is known of each bundle that ended."""

    submitted: ev.GraphSubmitted
    finished_seconds: float | None = None
    failed: bool = False
    bundles: dict[str, Bundle] = field(init=False)
    running: dict[int, str] = field(default_factory=dict)
    ran: dict[str, Ran] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bundles = {bundle.key: bundle for bundle in self.submitted.bundles}

    def ended(self, time: float, *, failed: bool) -> None:
        """Note that it has finished or failed; values made again later change nothing."""
        if self.finished_seconds is None:
            self.finished_seconds = time - self.submitted.time
            self.failed = failed

    def workload(self) -> Workload | None:
        """Return the graph for the simulator, a task a bundle, each with the seconds that it took
        on its device. None if not all of it ran."""
        if self.ran.keys() != self.bundles.keys():
            return None
        makers = {value: one.key for one in self.bundles.values() for value in one.outputs}
        tasks = []
        for key, bundle in self.bundles.items():
            seconds, device, size, *_ = self.ran[key]
            name = bundle.tasks[-1].codelet.name
            on_cpu = device == "cpu"
            code = Codelet(name, _recorded if on_cpu else None, None if on_cpu else _recorded)
            cost = CostHint(flops=max(seconds, 1e-9) * FLOPS_PER_SECOND, written_bytes=size)
            inputs = tuple(dict.fromkeys(makers[value] for value in bundle.inputs))
            tasks.append(Task(key, code, (), {}, inputs, cost=cost))
        outputs = [one.key for one in self.bundles.values() if set(one.outputs) & set(self.outputs)]
        return Workload(self.submitted.graph_id, TaskGraph(tasks, outputs))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Keys of the values that the caller asked for."""
        return self.submitted.outputs


def cluster_of(summary: Summary) -> SimCluster:
    """Return a recording's nodes for the simulator: all there from the start, of one speed."""
    return SimCluster(tuple(summary.nodes.values()), gpu_speed=1.0)
