"""`Worker`: what a training loop is given, one in each worker's process."""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.distributed

from agentic_ray.errors import CheckpointError, InvalidArgumentError, InvalidTypeError
from agentic_ray.graph import loaded
from agentic_ray.ml.training.feed import Columns, Feed, Reader
from agentic_ray.ml.training.order import Order
from agentic_ray.runtime.training.link import Link

FORMAT: Final = 1
STATES: Final = "states.pt"
ABOUT: Final = "training.json"


class Worker:
    """A worker of a training; the loop is called with it, in a process of its own.

    Attributes
    ----------
    rank, world_size : int
        Number of this worker, from 0, and of all workers.
    device : torch.device
        Its card, or the CPU.
    config : dict
        As given to `train`.
    epoch, step : int
        Number of the epoch, and of the batch in it, that `batches` gave last.
    """

    def __init__(self, link: Link, feed: Feed | None, config: dict[str, Any], seed: int) -> None:
        self.rank = link.rank
        self.world_size = link.world_size
        self.device = torch.device("cuda", link.local_rank) if link.on_gpu else torch.device("cpu")
        if link.on_gpu:
            torch.cuda.set_device(self.device)
        self.config = config
        self.epoch = 0
        self.step = -1
        self._link = link
        self._feed = feed
        self._seed = seed
        self._curve: list[dict[str, Any]] = []
        self._next = (0, 0)
        self._about: dict[str, Any] = {
            "format": FORMAT,
            "rows": None if feed is None else sum(feed.lengths),
            "seed": seed,
        }
        self._found: dict[str, Any] | None = None
        self._restored = False
        self._begun = False
        with link.checkpoint() as folder:
            if folder is not None:
                self._found = read_about(folder)

    @property
    def rows(self) -> int:
        """Rows of the data, of all workers."""
        return sum(self._data().lengths)

    def prepare(self, model: torch.nn.Module, **options: Any) -> torch.nn.Module:
        """Move a model to the device, and have its gradients averaged over the workers.

        Parameters
        ----------
        model : torch.nn.Module
        **options
            For `torch.nn.parallel.DistributedDataParallel`, which wraps it if there are several
            workers.
        """
        model = model.to(self.device)
        if self.world_size == 1:
            return model
        if self.device.type == "cuda":
            options.setdefault("device_ids", [self.device.index])
        return torch.nn.parallel.DistributedDataParallel(model, **options)

    def restore(self, **states: Any) -> bool:
        """Load the last checkpoint, if there is one, into these objects; `batches` goes on after
        it, with the random numbers as they were. Return whether there was one.

        Parameters
        ----------
        **states
            Objects with ``load_state_dict``, by the names that they are reported with.

        Raises
        ------
        CheckpointError
            The checkpoint is of other objects, data or seed, or damaged.
        """
        self._restored = True
        if self._found is None:
            return False
        self._compare(self._about)
        with self._link.checkpoint() as folder:
            assert folder is not None, "it was there when the worker began"
            kept = read_states(folder)
            if set(kept) != set(states):
                raise CheckpointError(
                    f"the checkpoint holds {', '.join(sorted(kept))}; the loop restores "
                    f"{', '.join(sorted(states)) or 'nothing'}"
                )
            for name, part in states.items():
                _bare(part).load_state_dict(kept[name])
            self._restore_random(folder)
        self._curve = list(self._found["curve"])
        epoch, step = self._found["next"]
        self._next = (epoch, step)
        if self.rank == 0:
            for index, metrics in enumerate(self._curve):
                self._link.tell(index, metrics)
        return True

    def batches(self, batch_size: int, *, epochs: int = 1, shuffle: bool = True) -> Iterator[Any]:
        """Iterate over this worker's part of each batch of the data, on its device.

        Order and batches depend on the seed, the epoch and the number of the batch alone. After a
        restart they go on after the last checkpoint.

        Parameters
        ----------
        batch_size : int
            Rows of a batch, of all workers together: each gets its share of them.
        epochs : int
            Times to go through the data.
        shuffle : bool
            Whether each epoch has an order of its own. Rows are mixed within eight chunks at a
            time, and the chunks among each other.

        Returns
        -------
        iterator of tensors, or of tuples or dicts of them
            As the data were given; a table's rows are a dict of its columns. What PyTorch has no
            type for, such as text, is an array.
        """
        return self._batches(self._begin(batch_size, epochs, shuffle), batch_size, epochs)

    def mean(self, value: Any) -> float:
        """Return the mean of a number over the workers, which must all call this."""
        number = value.detach() if isinstance(value, torch.Tensor) else value
        total = torch.as_tensor(float(number), dtype=torch.float64, device=self.device)
        if self.world_size > 1:
            torch.distributed.all_reduce(total)
        return float(total) / self.world_size

    def report(self, metrics: Mapping[str, Any], **states: Any) -> None:
        """Add metrics to the curve and, with states, write a checkpoint.

        All workers must call this at the same batches; the metrics of the first one count.

        Parameters
        ----------
        metrics : mapping of str to number or str
        **states
            Objects with ``state_dict``, such as models, optimisers and schedulers. They are written
            by the first worker, with the position in the data, the curve, and each worker's random
            state.

        Raises
        ------
        InvalidTypeError
            A metric is neither a number nor a string, or a state has no ``state_dict``.
        InvalidArgumentError
            There is a checkpoint which the loop has not restored.
        """
        plain = {name: _plain(name, value) for name, value in metrics.items()}
        for name, part in states.items():
            if not hasattr(part, "state_dict"):
                raise InvalidTypeError(f"{name} is a {type(part).__name__} without a state_dict")
        self._check_restored()
        index = len(self._curve)
        self._curve.append({"epoch": self.epoch, "step": self.step, **plain})
        if states:
            with tempfile.TemporaryDirectory(prefix="agentic-ray-checkpoint-") as folder:
                self._write(folder, states)
                self._link.report(plain, folder)
        else:
            self._link.report(plain, None)
        if self.rank == 0:
            self._link.tell(index, self._curve[-1])

    # --- inside ------------------------------------------------------------------------

    def _begin(self, batch_size: int, epochs: int, shuffle: bool) -> Order:
        for name, value in (("batch_size", batch_size), ("epochs", epochs)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgumentError(f"{name} must be a number >= 1, not {value!r}")
        feed = self._data()
        if batch_size < self.world_size:
            raise InvalidArgumentError(
                f"a batch of {batch_size} rows has less than one for each of {self.world_size} "
                "workers"
            )
        if self._begun:
            raise InvalidArgumentError(
                "batches were asked for already; say epochs= to go through the data several times"
            )
        self._begun = True
        self._check_restored()
        self._about |= {"batch_size": batch_size, "shuffle": bool(shuffle)}
        self._compare(self._about)
        return Order(feed.lengths, self._seed, shuffle)

    def _batches(self, order: Order, size: int, epochs: int) -> Iterator[Any]:
        reader = Reader(self._data())
        steps = order.steps(size, self.world_size)
        epoch, first = self._next
        while epoch < epochs:
            found = reader.batches(order, epoch, size, self.rank, self.world_size, first)
            for step, values in enumerate(found, first):
                self.epoch, self.step = epoch, step
                self._next = (epoch, step + 1) if step + 1 < steps else (epoch + 1, 0)
                yield self._tensors(values)
            epoch, first = epoch + 1, 0

    def _data(self) -> Feed:
        if self._feed is None:
            raise InvalidArgumentError("no data were given: agentic_ray.ml.train(loop, data=...)")
        return self._feed

    def _check_restored(self) -> None:
        if self._found is not None and not self._restored:
            raise InvalidArgumentError(
                "there is a checkpoint, and the loop would begin anew beside it: call "
                "worker.restore(model=model, ...) before the first batch and report"
            )

    def _compare(self, about: Mapping[str, Any]) -> None:
        """Refuse a checkpoint of another training."""
        found = self._found or {}
        for name, value in about.items():
            if name in found and found[name] != value:
                raise CheckpointError(
                    f"the checkpoint is of a training with {name} {found[name]!r}, and now it is "
                    f"{value!r}; give another folder for another training"
                )

    def _write(self, folder: str, states: Mapping[str, Any]) -> None:
        torch.save(_random_state(self.device), os.path.join(folder, f"random-{self.rank}.pt"))
        if self.rank:
            return
        kept = {name: _safe(name, _bare(part).state_dict()) for name, part in states.items()}
        torch.save(kept, os.path.join(folder, STATES))
        about = {**self._about, "next": self._next, "curve": self._curve}
        Path(folder, ABOUT).write_text(json.dumps(about))

    def _restore_random(self, folder: str) -> None:
        """Set the random state of this worker as it was; a worker that is new begins one of its
        own."""
        path = os.path.join(folder, f"random-{self.rank}.pt")
        if os.path.exists(path):
            _set_random_state(torch.load(path, weights_only=True), self.device)
        else:
            begin_random((self._seed, self.rank, *(self._found or {})["next"]))

    def _tensors(self, values: Columns) -> Any:
        if isinstance(values, tuple):
            return tuple([self._tensors(part) for part in values])
        if isinstance(values, dict):
            return {name: self._tensors(part) for name, part in values.items()}
        try:
            found = torch.from_numpy(values)
        except TypeError:  # a type that PyTorch has not
            return values
        return found.to(self.device)


def run_loop(
    link: Link, loop: Callable[[Worker], Any], feed: Feed | None, config: dict[str, Any], seed: int
) -> None:
    """Call a training loop in a worker's process."""
    begin_random((seed,))
    loaded(loop)(Worker(link, feed, config, seed))


def begin_random(numbers: tuple[int, ...]) -> None:
    """Seed PyTorch's, NumPy's and Python's generators from some numbers."""
    drawn = np.random.SeedSequence(numbers).generate_state(3)
    torch.manual_seed(int(drawn[0]))
    np.random.seed(int(drawn[1]))
    random.seed(int(drawn[2]))


def read_about(folder: str) -> dict[str, Any]:
    """Return a checkpoint's description of its training, its curve and its place in the data."""
    try:
        found: dict[str, Any] = json.loads(Path(folder, ABOUT).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint has no readable {ABOUT}; it is damaged, or of another program: {error}"
        ) from error
    return found


def read_states(folder: str) -> dict[str, Any]:
    """Return the states of a checkpoint by their names, on the CPU."""
    path = os.path.join(folder, STATES)
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises anything for a damaged file
        raise CheckpointError(f"the checkpoint's {STATES} cannot be read: {error}") from error
    return found


def _safe(name: str, value: Any) -> Any:
    """Return a state, of which every part can be read without unpickling objects: others may write
    to the folder of checkpoints.

    Raises
    ------
    InvalidTypeError
        It holds something else than tensors, numbers, strings, and lists and dicts of these.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {_safe(name, key): _safe(name, part) for key, part in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)([_safe(name, part) for part in value])
    if value is None or isinstance(
        value, torch.Tensor | bool | int | float | complex | str | bytes
    ):
        return value
    raise InvalidTypeError(
        f"the state of {name!r} holds a {type(value).__name__}; a checkpoint holds tensors, "
        "numbers, strings, and lists and dicts of these"
    )


def _bare(part: Any) -> Any:
    """Return a model without what spreads it over workers, so that its names do not tell of it."""
    return part.module if isinstance(part, torch.nn.parallel.DistributedDataParallel) else part


def _plain(name: str, value: Any) -> float | int | str | bool:
    if isinstance(value, str | bool | int | float):
        return value
    try:
        found: float | int | bool = value.item()
    except (AttributeError, ValueError, RuntimeError):
        found = []  # type: ignore[assignment]
    if not isinstance(found, bool | int | float):
        raise InvalidTypeError(
            f"the metric {name!r} must be a number or a string, not {type(value).__name__}"
        )
    return found


def _random_state(device: torch.device) -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "python": random.getstate(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
