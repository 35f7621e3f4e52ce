"""A small CNN and a small transformer on generated data, two workers on CPUs: ours and plain Ray
Train, in rows a second inside the loop; and with ``--kills N`` that many deaths of a worker, each
of which must leave the losses as they are.

Needs PyTorch: ``pip install 'agentic-ray[torch]'``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import ray

import agentic_ray as ar

BATCH = 64
WORKERS = 2


def images(rows: int) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 3, 16, 16)).astype(np.float32)
    return x, (x.mean(axis=(1, 2, 3)) > 0).astype(np.int64)


def texts(rows: int) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 50, size=(rows, 24))
    return x, (x.sum(axis=1) % 2).astype(np.int64)


def cnn() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 2),
    )


def transformer() -> Any:
    from torch import nn

    class Mean(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.mean(dim=1)

    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
    return nn.Sequential(
        nn.Embedding(50, 32), nn.TransformerEncoder(layer, 2), Mean(), nn.Linear(32, 2)
    )


MODELS = {"cnn": (cnn, images), "transformer": (transformer, texts)}


def steps(model: Any, optimiser: Any, batches: Iterator[Any]) -> Iterator[Any]:
    """Train on batches; yield the loss of each."""
    import torch

    for x, y in batches:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield loss.detach()


def our_loop(worker: Any) -> None:
    import torch

    model = worker.prepare(MODELS[worker.config["model"]][0]())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    worker.restore(model=model, optimiser=optimiser)
    every, kill = worker.config["every"], worker.config.get("kill")
    batches = worker.batches(BATCH, epochs=worker.config["epochs"])
    began, count = time.perf_counter(), 0
    for loss in steps(model, optimiser, batches):
        count += 1
        if every and worker.step % every == every - 1:
            worker.report({"loss": worker.mean(loss)}, model=model, optimiser=optimiser)
        dies = kill and worker.rank == kill["rank"] and count == kill["at"]
        if dies and not os.path.exists(kill["mark"]):
            Path(kill["mark"]).write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
    seconds = time.perf_counter() - began
    if not every:
        worker.report({"rate": count * BATCH / seconds})


def plain_loop(config: dict[str, Any]) -> None:
    import ray.train
    import ray.train.torch
    import torch

    context = ray.train.get_context()
    rank = context.get_world_rank()
    x, y = (torch.from_numpy(part) for part in ray.get(config["data"]))
    torch.manual_seed(0)
    model = ray.train.torch.prepare_model(MODELS[config["model"]][0]())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)

    def batches() -> Iterator[Any]:
        own = BATCH // WORKERS
        for epoch in range(config["epochs"]):
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
            for at in range(0, len(x) - BATCH + 1, BATCH):
                part = order[at + rank * own : at + (rank + 1) * own]
                yield x[part], y[part]

    began = time.perf_counter()
    count = sum(1 for _ in steps(model, optimiser, batches()))
    seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        kept = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"rate": count * BATCH / seconds}, checkpoint=kept)


def ours(name: str, rows: int, epochs: int) -> float:
    config = {"model": name, "epochs": epochs, "every": 0}
    trained = ar.ml.train(our_loop, MODELS[name][1](rows), workers=WORKERS, config=config)
    return float(trained.metrics["rate"])


def plain(name: str, rows: int, epochs: int) -> float:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    with tempfile.TemporaryDirectory() as folder:
        trainer = TorchTrainer(
            plain_loop,
            train_loop_config={
                "model": name,
                "epochs": epochs,
                "data": ray.put(MODELS[name][1](rows)),
            },
            scaling_config=ScalingConfig(WORKERS, resources_per_worker={"memory": 1}),
            run_config=RunConfig(storage_path=folder, name="plain"),
        )
        return float(trainer.fit().metrics["rate"])


def kills(count: int, rows: int) -> int:
    """Return in how many of so many deaths, at random batches, the losses stayed as they are."""
    config: dict[str, Any] = {"model": "transformer", "epochs": 2, "every": 4}
    data = texts(rows)
    whole = ar.ml.train(our_loop, data, workers=WORKERS, config=config)
    same = 0
    for number in range(count):
        dice = random.Random(number)
        with tempfile.TemporaryDirectory() as folder:
            at = dice.randint(1, 2 * rows // BATCH - 1)
            kill = {"rank": dice.randrange(WORKERS), "at": at, "mark": f"{folder}/mark"}
            found = ar.ml.train(our_loop, data, workers=WORKERS, config={**config, "kill": kill})
        assert found.restarts == 1, "no worker died"
        same += found.curve == whole.curve
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if find_spec("torch") is None:
        print("this needs PyTorch: pip install 'agentic-ray[torch]'")
        return
    ar.init(num_cpus=WORKERS)
    result: dict[str, Any] = {}
    for name in given.models if given.runs else ():
        pairs = [
            (ours(name, given.rows, given.epochs), plain(name, given.rows, given.epochs))
            for _ in range(given.runs)
        ]
        result[name] = {
            "ours": statistics.median(rate for rate, _ in pairs),
            "plain Ray Train": statistics.median(rate for _, rate in pairs),
            "ratio": statistics.median(a / b for a, b in pairs),
        }
    if given.kills:
        result["kills"] = {"same losses": kills(given.kills, given.rows), "of": given.kills}
    print(json.dumps(result) if given.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
