"""`train`: a PyTorch training loop on workers of the cluster."""

from __future__ import annotations

import functools
import inspect
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Final, Literal

from agentic_ray.errors import (
    ImpossibleResourcesError,
    InvalidArgumentError,
    InvalidTypeError,
    NoSuitableDeviceError,
    SessionError,
    TrainingError,
)
from agentic_ray.graph import capture
from agentic_ray.ml.training.feed import Held, hold
from agentic_ray.ml.training.order import gang, most_workers
from agentic_ray.ml.training.storage import fetched, storage_at
from agentic_ray.runtime import Session, get_session
from agentic_ray.runtime.leases import Lease
from agentic_ray.runtime.progress import ProgressBar
from agentic_ray.runtime.scope import current_scope
from agentic_ray.runtime.training import Group, News, Storage, begin_training
from agentic_ray.tracebacks import entry

_LOOK_SECONDS: Final = 0.2
_KEPT_CHECKPOINTS: Final = 2


@dataclass(frozen=True)
class Training:
    """Outcome of a training; made by `train`.

    Attributes
    ----------
    curve : list of dict
        The metrics of each report, in order, with ``epoch`` and ``step``; those of an earlier call
        that this one went on from come first.
    states : dict
        State dicts of the last checkpoint, by the names they were reported with.
    checkpoint : str or None
        Path of the last checkpoint, if it is kept.
    workers : int
        Workers at the end.
    restarts : int
        Times that the workers were begun anew.
    seconds : float
    """

    curve: list[dict[str, Any]]
    states: dict[str, Any] = field(repr=False)
    checkpoint: str | None
    workers: int
    restarts: int
    seconds: float

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the last report; empty if there was none."""
        return self.curve[-1] if self.curve else {}

    def __repr__(self) -> str:
        return (
            f"<training on {self.workers} workers, {self.seconds:.1f} s, {self.restarts} "
            f"restarts: {_line(self.metrics) or 'no report'}>"
        )


@entry
def train(
    loop: Callable[[Any], Any],
    data: Any = None,
    *,
    workers: int | Literal["auto"] = "auto",
    gpus_per_worker: int = 0,
    cpus_per_worker: int = 1,
    checkpoint: Any = None,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    retries: int = 3,
    timeout: float | None = 300.0,
    progress: bool | None = None,
) -> Training:
    """Run a PyTorch training loop on several workers at once, by Ray Train.

    Each worker is a process. Their CPUs and cards are leased from this session, all at once, as by
    `agentic_ray.reserve`; gradients are averaged by gloo on CPUs and NCCL on cards. When a worker
    dies all begin anew after the last checkpoint, with the same batches and random numbers: on CPUs
    the losses are those of a training that was never interrupted.

    Parameters
    ----------
    loop : callable
        ``loop(worker)``; see `agentic_ray.ml.training.worker.Worker`.
    data : array, Array, table, path, Source, Rows, Ray Dataset, or a tuple or dict of these
        What `agentic_ray.ml.rows` takes. Several data belong together row by row. Chunks are read
        by the workers where they are; those of a lazy array are computed first, and kept in the
        cluster.
    workers : int or "auto"
        ``"auto"``: as many as the cluster has CPUs or cards for, the same number on each node.
    gpus_per_worker : 0 or 1
    cpus_per_worker : int
    checkpoint : path or URL of a folder, optional
        Where checkpoints are kept, so that a later call goes on from there; on several nodes a
        place that all of them reach. Default: a temporary folder of this machine.
    config : mapping, optional
        For the loop, as ``worker.config``.
    seed : int
        Seeds the order of the data, and PyTorch, NumPy and Python in each worker.
    retries : int
        Times that the workers may be begun anew.
    timeout : float, optional
        Seconds to wait for the CPUs and cards; None: as long as it takes.
    progress : bool, optional
        Whether a progress line is shown; default: in a terminal or notebook.

    Returns
    -------
    Training

    Raises
    ------
    ModuleNotFoundError
        PyTorch is not installed.
    InvalidTypeError
        The loop takes other arguments than one worker.
    InvalidArgumentError
        An argument cannot be used, or the data have less rows than there are workers.
    CheckpointFolderError
        The folder of checkpoints cannot be written to.
    CheckpointError
        It holds checkpoints of another training.
    NoSuitableDeviceError
        Cards are asked for, and the cluster has none.
    ImpossibleResourcesError
        No nodes hold so many workers, the same number on each.
    LeaseTimeoutError
        CPUs or cards were not free in time.
    TrainingError
        Workers died more often than ``retries``.
    The user's own exception
        Exception that the loop raised, with ``remote_traceback``.

    Examples
    --------
    >>> import agentic_ray as ar, numpy as np
    >>> def loop(worker):
    ...     import torch
    ...     model = worker.prepare(torch.nn.Linear(3, 1))
    ...     optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    ...     worker.restore(model=model, optimiser=optimiser)
    ...     for x, y in worker.batches(batch_size=50, epochs=2):
    ...         loss = ((model(x)[:, 0] - y) ** 2).mean()
    ...         optimiser.zero_grad()
    ...         loss.backward()
    ...         optimiser.step()
    ...     worker.report({"loss": loss}, model=model, optimiser=optimiser)
    >>> x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    >>> trained = ar.ml.train(loop, (x, x.sum(axis=1)), workers=2)  # doctest: +SKIP
    >>> trained.metrics["loss"] < 1  # doctest: +SKIP
    True
    """
    _check_loop(loop)
    _check(workers, gpus_per_worker, cpus_per_worker, retries, seed)
    _check_torch()
    began = time.monotonic()
    storage = None if checkpoint is None else storage_at(checkpoint)
    session = get_session()
    if getattr(session, "leases", None) is None:
        raise SessionError("a job cannot train: its session belongs to the master")
    room = _Room(session, workers, gpus_per_worker, cpus_per_worker)
    room.check()
    held = None if data is None else hold(data)
    if held is not None:
        room.check_rows(sum(held.feed.lengths))
    with _storage(storage) as place:
        asked = _Asked(loop, held, dict(config or {}), seed, retries, timeout)
        with ProgressBar("training", None, progress, session.settings) as bar:
            outcome = _trained(asked, room, place, bar, kept=storage is not None)
        states: dict[str, Any] = {}
        if outcome.checkpoint is not None:
            from agentic_ray.ml.training.worker import read_states  # it imports PyTorch

            with fetched(place, outcome.checkpoint) as folder:
                states = read_states(folder)
    curve = [outcome.reports[index] for index in sorted(outcome.reports)]
    return Training(
        curve,
        states,
        outcome.checkpoint if storage is not None else None,
        outcome.workers,
        outcome.restarts,
        time.monotonic() - began,
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """Loop and data of a training, with the arguments that all its groups of workers share."""

    loop: Callable[[Any], Any]
    held: Held | None
    config: dict[str, Any]
    seed: int
    retries: int
    timeout: float | None


@dataclass(slots=True)
class _Outcome:
    """Progress and outcome of a training, over all groups of workers."""

    reports: dict[int, dict[str, Any]] = field(default_factory=dict)
    workers: int = 0
    restarts: int = 0
    checkpoint: str | None = None


class _Room:
    """Places for workers in the cluster as it is.

    Parameters
    ----------
    session : Session
    workers : int or "auto"
    gpus, cpus : int
        Needs of one worker.
    """

    def __init__(
        self, session: Session, workers: int | Literal["auto"], gpus: int, cpus: int
    ) -> None:
        self._session = session
        self._workers = workers
        self._gpus = gpus
        self._cpus = cpus
        self._most = math.inf

    def check(self) -> None:
        """Refuse what this cluster can never hold."""
        self.group()

    def check_rows(self, count: int) -> None:
        """Refuse data with less rows than workers; ``"auto"`` takes no more workers than rows."""
        if not count:
            raise InvalidArgumentError("the data have no rows")
        if isinstance(self._workers, int) and count < self._workers:
            raise InvalidArgumentError(
                f"the data have {count} rows, less than one for each of {self._workers} workers"
            )
        self._most = count

    def group(self) -> tuple[int, int]:
        """Return how many workers each of how many nodes takes."""
        counts = self._counts()
        if self._gpus and not any(counts):
            raise NoSuitableDeviceError("gpus_per_worker is 1, and this cluster has no GPU")
        wanted = self._workers
        if wanted == "auto":
            wanted = int(min(most_workers(counts), self._most)) or 1
        found = gang(wanted, counts)
        while found is None and self._workers == "auto" and wanted > 1:
            wanted -= 1  # fewer rows than places: nodes of different sizes
            found = gang(wanted, counts)
        if found is None:
            kind = "GPUs" if self._gpus else "CPUs"
            raise ImpossibleResourcesError(
                f"{wanted} workers need the same number of {kind} on each of their nodes; the "
                f"nodes have room for {', '.join(map(str, counts)) or 'none'}"
            )
        return found

    def lease(self, timeout: float | None) -> Group:
        """Lease the places of a group; it lasts until it is released."""
        each, nodes = self.group()
        lease: Lease = self._session.leases.reserve(
            timeout,
            cards=each * self._gpus,
            share=float(self._gpus),
            cpus=float(each * self._cpus),
            nodes=nodes,
        )
        lease.kept = True
        return Group(lease, each, self._cpus, bool(self._gpus))

    def _counts(self) -> list[int]:
        """Return how many workers each node has room for, when nothing else is there."""
        counts: list[int] = []
        own = self._session.started_ray
        for node in self._session.cluster().alive_nodes:
            # (on a cluster that others use, "auto" leaves them what they have)
            free = node.cpus_total if own or self._workers != "auto" else node.cpus_free
            count = int(free // self._cpus)
            if self._gpus:
                count = min(count, sum(gpu.healthy for gpu in node.gpus))
            counts.append(count)
        return counts


def _trained(asked: _Asked, room: _Room, place: Storage, bar: ProgressBar, kept: bool) -> _Outcome:
    """Train to the end, on one lease after another if nodes are lost."""
    outcome = _Outcome()
    while True:
        group = room.lease(asked.timeout)
        try:
            if not kept and len(group.environments) > 1:
                raise InvalidArgumentError(
                    "workers on several nodes need a checkpoint=, a folder or URL that all reach"
                )
            why = _on_lease(asked, group, place, bar, outcome)
        finally:
            group.lease.release()
        if not why:
            return outcome
        outcome.restarts += 1
        if outcome.restarts > asked.retries:
            raise TrainingError(
                f"the workers were begun anew {asked.retries} times, and the training failed "
                f"again: {why}"
            )


def _on_lease(
    asked: _Asked, group: Group, place: Storage, bar: ProgressBar, outcome: _Outcome
) -> str:
    """Train on the nodes of a lease; return why it has to go on elsewhere, or nothing if it is
    done."""
    call = functools.partial(
        _run_loop,
        loop=capture(asked.loop),
        feed=None if asked.held is None else asked.held.feed,
        config=asked.config,
        seed=asked.seed,
    )
    left = asked.retries - outcome.restarts
    before = outcome.restarts
    scope = current_scope()
    with begin_training(
        call, group, place, retries=left, kept_checkpoints=_KEPT_CHECKPOINTS
    ) as fitting:
        while True:
            if scope is not None:
                scope.check()
            over = fitting.over  # (before the news, which are complete then)
            news = fitting.news()
            _take_in(outcome, news, before)
            if outcome.reports:
                last = outcome.reports[max(outcome.reports)]
                bar.update(len(outcome.reports), note=f"{_line(last)}, {outcome.workers} workers")
            if news.failure is not None:
                raise news.failure.rebuild()
            if over and not fitting.error:
                outcome.checkpoint = fitting.checkpoint
                return ""
            if group.lease.ended:
                return group.lease.ended
            if over:
                outcome.restarts = asked.retries
                return fitting.error
            time.sleep(_LOOK_SECONDS)


def _run_loop(link: Any, **given: Any) -> None:
    from agentic_ray.ml.training.worker import run_loop  # it imports PyTorch

    run_loop(link, **given)


def _take_in(outcome: _Outcome, news: News, before: int) -> None:
    outcome.reports.update(news.reports)
    if news.workers:
        outcome.workers = len(news.workers)
    outcome.restarts = max(outcome.restarts, before + max(0, news.groups - 1))


@contextmanager
def _storage(given: Storage | None) -> Iterator[Storage]:
    """The folder of checkpoints: the given one, or one for the time of a call."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(
        prefix="agentic-ray-training-", ignore_cleanup_errors=True
    ) as folder:
        yield storage_at(f"{folder}/training")


def _line(metrics: Mapping[str, Any]) -> str:
    """Return metrics as one line of text."""
    shown = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in metrics.items()]
    return ", ".join(shown)


def _check_loop(loop: Any) -> None:
    if not callable(loop):
        raise InvalidTypeError(f"loop must be a function of a worker, not {type(loop).__name__}")
    try:
        signature = inspect.signature(loop)
    except (TypeError, ValueError):  # a function written in C
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise InvalidTypeError(
            f"the loop is called with one argument, the worker, and takes {signature}: {error}"
        ) from None


def _check(workers: Any, gpus: Any, cpus: Any, retries: Any, seed: Any) -> None:
    counts: Sequence[tuple[str, Any, int]] = [
        ("cpus_per_worker", cpus, 1),
        ("retries", retries, 0),
        ("seed", seed, 0),
    ]
    if workers != "auto":
        counts = [("workers", workers, 1), *counts]
    for name, value, least in counts:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidArgumentError(f"{name} must be a number >= {least}, not {value!r}")
    if gpus not in (0, 1) or isinstance(gpus, bool):
        raise InvalidArgumentError(f"gpus_per_worker must be 0 or 1, not {gpus!r}")


def _check_torch() -> None:
    for name in ("torch", "pandas", "fsspec"):  # (Ray Train needs the others)
        if find_spec(name) is None:
            raise ModuleNotFoundError(
                f"agentic_ray.ml.train needs {name}: pip install 'agentic-ray[torch]'", name=name
            )
