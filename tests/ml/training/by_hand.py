"""A training loop, and the same loop in two processes of plain PyTorch, without Ray:
``by_hand.py RANK FOLDER CONFIG``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

_generator = np.random.default_rng(0)
X = _generator.normal(size=(240, 4)).astype(np.float32)
Y = X.sum(axis=1) + np.float32(0.5)


def loop(worker: Any) -> None:
    """Train a small network, with a checkpoint after every third batch. The second worker kills
    itself once, if it is to."""
    import torch

    inner = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1)
    )
    model = worker.prepare(inner)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    worker.restore(model=model, optimiser=optimiser)
    death = worker.config.get("death")
    for x, y in worker.batches(40, epochs=worker.config["epochs"]):
        assert len(x) == 40 // worker.world_size, "each worker has its share"
        loss = ((model(x)[:, 0] - y) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        states = {"model": model, "optimiser": optimiser} if worker.step % 3 == 2 else {}
        worker.report({"loss": worker.mean(loss)}, **states)
        dies = death and worker.rank == 1 and (worker.epoch, worker.step) == (1, 3)
        if dies and not os.path.exists(death):
            Path(death).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)


class ByHand:
    """In the place of a link: one of two processes, without checkpoints."""

    world_size = 2
    on_gpu = False

    def __init__(self, rank: int) -> None:
        self.rank = self.local_rank = rank
        self.curve: list[Any] = []

    def report(self, metrics: Mapping[str, Any], folder: str | None) -> None:
        """Keep nothing."""

    def tell(self, index: int, metrics: Mapping[str, Any]) -> None:
        assert index == len(self.curve)
        self.curve.append(dict(metrics))

    @contextmanager
    def checkpoint(self) -> Iterator[str | None]:
        yield None


def curve_by_hand(config: dict[str, Any], folder: Path) -> Any:
    """Return the curve of the loop in two processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder), json.dumps(config)], env=environment
        )
        for rank in (0, 1)
    ]
    try:
        assert [process.wait(240) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    return json.loads((folder / "curve").read_text())


def _main(rank: int, folder: Path, config: dict[str, Any]) -> None:
    import torch.distributed

    from agentic_ray.ml.training.feed import Feed
    from agentic_ray.ml.training.worker import run_loop

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    link = ByHand(rank)
    run_loop(link, loop, Feed(((X, Y),), (), (len(X),), None, True), config, 0)
    if rank == 0:
        (folder / "curve").write_text(json.dumps(link.curve))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
