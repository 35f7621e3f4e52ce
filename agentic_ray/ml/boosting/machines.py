"""LightGBM's distributed training: each machine holds the rows of some chunks.

How many machines there are, and which chunks each has, depends on the data alone; so do the trees,
bit by bit. A process of the cluster is one machine or several, each in a thread of its own, as
many processes as run at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.blas import computing
from agentic_ray.errors import ExecutorLostError, LostDataError
from agentic_ray.graph import Codelet, CostHint, Resources, Task, TaskGraph, find_refs
from agentic_ray.ml.boosting.meeting import Meeting, NotAllCameError, Place, come, free_ports
from agentic_ray.ml.chunks import loaded
from agentic_ray.ml.cluster.lloyd import generator
from agentic_ray.ml.passes import Check, Passes

MACHINE_BYTES = 32 << 20
"""A machine has at least so much of the data."""
MOST_MACHINES = 64
_WAIT = 60.0
"""Seconds that processes wait for each other."""


@dataclass(frozen=True)
class Growing:
    """The work that all machines share.

    Parameters
    ----------
    params : dict
        LightGBM's.
    rounds : int
    baseline : ndarray of shape (outputs,)
    class_weight : ndarray or None
    outside : float
        The share of rows that are kept for validation.
    seed : int
    """

    params: dict[str, Any]
    rounds: int
    baseline: Any
    class_weight: Any
    outside: float
    seed: int


def kept_outside(count: int, share: float, seed: int, number: int) -> Any:
    """Mark the rows of a chunk that are kept for validation; never all of them."""
    if not share:
        return np.zeros(count, bool)
    chosen = generator((seed, number)).random(count) < share
    if chosen.all() and count:
        chosen[0] = False
    return chosen


def own_weights(y: Any, w: Any, class_weight: Any) -> Any:
    """The weights of rows times those of their classes; None if there are none."""
    if class_weight is None:
        return None if w is None else np.asarray(w, np.float64)
    found = np.asarray(class_weight)[np.asarray(y).astype(np.int64)]
    return found if w is None else found * w


class _Chunk:
    """A chunk as LightGBM reads it: by rows, loaded when they are asked for. It is made a
    `lightgbm.Sequence` by `_sequence`, since the package may not be installed."""

    def __init__(self, machine: _Machine, at: int, length: int) -> None:
        self._machine, self._at, self._length = machine, at, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        return self._machine.rows_of(self._at)[index]


def _sequence(machine: _Machine, at: int, length: int) -> Any:
    import lightgbm

    kind = type("Chunk", (_Chunk, lightgbm.Sequence), {"batch_size": 4096})
    return kind(machine, at, length)


class _Machine:
    """The rows of one machine; one chunk at a time is in memory."""

    def __init__(self, chunks: Sequence[Any], steps: Any, check: Check, growing: Growing) -> None:
        self._chunks, self._steps, self._check, self._growing = chunks, steps, check, growing
        self._held: tuple[int, Any] = (-1, None)
        targets: list[Any] = []
        weights: list[Any] = []
        for number, (_, y, w) in chunks:
            own = check.of_y(loaded(y, steps[1]))
            inside = ~kept_outside(len(own), growing.outside, growing.seed, number)
            weight = None if w is None else loaded(w, steps[2])
            found = own_weights(own, weight, growing.class_weight)
            targets.append(own[inside])
            weights.append(None if found is None else found[inside])
        self.lengths = [len(y) for y in targets]
        self.y = np.concatenate(targets)
        self.weight = None if weights[0] is None else np.concatenate(weights)

    def rows_of(self, at: int) -> Any:
        """The rows of a chunk that are trained on."""
        if self._held[0] != at:
            number, (x, _, _) = self._chunks[at]
            block = self._check.of_x(loaded(x, self._steps[0]))
            out = kept_outside(block.shape[0], self._growing.outside, self._growing.seed, number)
            self._held = (at, block[~out] if out.any() else block)
        return self._held[1]

    def grow(self, machines: list[str], rank: int) -> str:
        """Train, and give the model as a text."""
        import lightgbm

        params = dict(self._growing.params)
        if len(machines) > 1:
            params |= {
                "tree_learner": "data", "num_machines": len(machines), "pre_partition": True,
                "machines": ",".join(machines), "time_out": 2,
                "local_listen_port": int(machines[rank].rsplit(":", 1)[1]),
            }  # fmt: skip
        start = np.tile(self._growing.baseline, (len(self.y), 1))
        data = lightgbm.Dataset(
            [_sequence(self, at, length) for at, length in enumerate(self.lengths) if length],
            self.y, weight=self.weight, params=params,
            init_score=start.ravel(order="F") if start.shape[1] > 1 else start[:, 0],
        )  # fmt: skip
        booster = lightgbm.train(params, data, self._growing.rounds)
        return str(booster.model_to_string())


def grow_here(shares: Any, steps: Any, check: Check, growing: Growing, meeting: Any) -> str:
    """Be some of the machines, each in a thread of its own; the model as a text.

    Parameters
    ----------
    shares : list of lists of (number, (x, y, w))
        The chunks of each of these machines.
    meeting : tuple (Place, number of this process) or None
        Where all processes meet; None: there are no others.
    """
    machines = [_Machine(chunks, steps, check, growing) for chunks in shares]
    ports = free_ports(len(machines))
    host, first = "127.0.0.1", 0
    addresses = [f"{host}:{port}" for port in ports]
    if meeting is not None:
        place, number = meeting
        host = _host()
        addresses = [f"{host}:{port}" for port in ports]
        everyone = come(place, number, addresses, 2 * _WAIT)
        first = sum(map(len, everyone[:number]))
        addresses = [address for part in everyone for address in part]
    models: list[Any] = [None] * len(machines)

    def be(at: int) -> None:
        try:
            models[at] = machines[at].grow(addresses, first + at)
        except BaseException as error:  # a thread has nobody else to tell
            models[at] = error

    threads = [threading.Thread(target=be, args=(at,)) for at in range(len(machines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in models:
        if isinstance(model, BaseException):
            if meeting is not None and type(model).__name__ == "LightGBMError":
                # Another process has gone, or this one cannot reach it.
                raise NotAllCameError(f"LightGBM: {model}") from model
            raise model
    return str(models[0])


def _host() -> str:
    from agentic_ray.runtime import address_here

    return address_here()


def machines_of(run: Passes, one: bool) -> int:
    """Return the number of machines: a function of the data alone."""
    wanted = max(1, int(run.x.source.nbytes) // MACHINE_BYTES)
    return 1 if one else min(len(run.x.lengths), wanted, MOST_MACHINES)


def grown(run: Passes, growing: Growing, one: bool) -> str:
    """Train on the rows of a run; the model as a text.

    Raises
    ------
    NotAllCameError
        A process could not be reached; with half as many, and with one, it was tried again.
    """
    count = machines_of(run, one)
    numbers = [list(range(rank, len(run.x.lengths), count)) for rank in range(count)]
    steps = tuple([() if column is None else column.steps for column in run.columns])
    if run.is_here:
        columns = [None if c is None else c.source.arguments(True)[1] for c in run.columns]
        shares = [[_chunk(columns, i) for i in own] for own in numbers]
        with computing:
            return grow_here(shares, steps, run.check, growing, None)
    from agentic_ray.runtime import get_session

    processes = min(count, get_session().slots)
    while True:
        try:
            return _on_processes(run, growing, numbers, steps, processes)
        except (NotAllCameError, ExecutorLostError, LostDataError):
            if processes == 1:
                raise
            processes = max(1, processes // 2)


def _chunk(columns: list[Any], at: int) -> Any:
    return at, tuple([None if column is None else column[at] for column in columns])


_COST = CostHint(flops=1e11)
_GROW = Codelet("ml.boosting", grow_here, opaque=True, speculative=False, cost=_COST)


def _on_processes(
    run: Passes, growing: Growing, numbers: list[list[int]], steps: Any, processes: int
) -> str:
    from agentic_ray.runtime import get_session, put

    columns: list[Any] = []
    tasks: list[Task] = []
    for column in run.columns:
        made, chunks = ([], None) if column is None else column.source.arguments(False)
        tasks += made
        columns.append(chunks)
    held, sent = put(steps), put(growing)
    edges = np.linspace(0, len(numbers), processes + 1).astype(int)
    each = sum(int(c.source.nbytes) for c in run.columns if c is not None) // processes
    # Bins take a byte for each value; and a chunk or two as they are.
    resources = Resources(memory_bytes=each // 4 + (64 << 20))

    def graph(place: Place | None) -> TaskGraph:
        grow, keys = list(tasks), []
        for number in range(processes):
            own = numbers[edges[number] : edges[number + 1]]
            shares = [[_chunk(columns, i) for i in part] for part in own]
            key = f"ml.boosting@{os.urandom(8).hex()}"
            meeting = None if place is None else (place, number)
            args = (shares, held, run.check, sent, meeting)
            found = tuple(dict.fromkeys(find_refs(shares)))
            grow.append(Task(key, _GROW, args, {}, found, "any", resources, _COST))
            keys.append(key)
        return TaskGraph(list({task.key: task for task in grow}.values()), keys)

    session = get_session()
    if processes == 1:
        return str(session.submit(graph(None)).result()[0])
    with Meeting(_host(), processes, _WAIT) as place:
        return str(session.submit(graph(place)).result()[0])


__all__ = ["Growing", "NotAllCameError", "grown", "kept_outside", "own_weights"]
