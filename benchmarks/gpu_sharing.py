"""Four cards that a function shares with another program: Ray's fractions, a fixed plan, and ours.

The cards are stand-ins: an NVML built from C over files, and a framework that takes their memory
and raises PyTorch's error when there is none. Processes, Ray and pynvml are real. Two of the cards
are about half full by another program, whose memory changes every second. 10,000 items go through
a function, sixteen at a time, that holds a model and takes memory for each batch.

Ray's fractions count cards and do not look at them; a batch that runs out of memory is tried three
times. The fixed plan is what somebody would choose who knows the other program's largest memory:
as many processes on each card as fit even then. Needs a C compiler; no GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
MIB = 2**20
CARD = 64 * MIB
MODEL, BATCH = 6 * MIB, 8 * MIB
ITEMS_A_BATCH = 16
SECONDS_AN_ITEM = 0.01
OTHERS = (24, 36, 30, 40, 28)
"""MiB that the other program holds, second by second."""
TRIES = 3
UUIDS = tuple(f"GPU-{i}{i}{i}{i}bbbb-0000-0000-0000-00000000000{i}" for i in range(4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.inside:
        sys.exit(_begin_inside(sys.argv[1:]))
    if not given.json:
        print(
            f"{'':22}{'items/s':>9}{'done':>8}{'lost':>7}{'out of memory':>15}{'actors lost':>13}"
        )
    rows = []
    for row in measured(given.items):
        rows.append(row)
        if not given.json:
            print(
                f"{row['name']:22}{row['rate']:9.0f}{row['done']:8}{row['lost']:7}"
                f"{row['out_of_memory']:15}{row['actors_lost']:13}",
                flush=True,
            )
    if given.json:
        print(json.dumps(rows))
        return
    by_name = {row["name"]: row["rate"] for row in rows}
    print(f"ours / the fixed plan: {by_name['ours'] / by_name['fixed plan']:.2f}")


def _begin_inside(arguments: Sequence[str]) -> int:
    """Run this again where the stand-in NVML is found."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("this needs a C compiler (cc or gcc), and there is none")
        return 0
    with tempfile.TemporaryDirectory(prefix="agentic-ray-cards-") as folder:
        library = Path(folder, "libnvidia-ml.so.1")
        source = TESTS / "telemetry" / "nvml_standin" / "nvml_standin.c"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True
        )
        Path(folder, "cards").mkdir()
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": _joined(folder, os.environ.get("LD_LIBRARY_PATH")),
            "PYTHONPATH": _joined(str(TESTS / "runtime"), os.environ.get("PYTHONPATH")),
            "NVML_STANDIN_STATE": str(Path(folder, "state")),
            "STANDIN_CARDS": str(Path(folder, "cards")),
            "AGENTIC_RAY_GPU_DEVICE": "absent_cupy:AbsentDevice",
            "AGENTIC_RAY_KEEP_COSTS": "0",
            "RAY_ADDRESS": "local",
        }
        command = [sys.executable, __file__, "--inside", *arguments]
        return subprocess.run(command, env=environment, check=False).returncode


def _joined(first: str, rest: str | None) -> str:
    return os.pathsep.join(filter(None, [first, rest]))


# --- the scene --------------------------------------------------------------------------------


def make_cards() -> None:
    """Make four empty cards that NVML tells of."""
    import standin_torch as torch

    lines = [f"gpus={len(UUIDS)}"]
    for i, uuid in enumerate(UUIDS):
        figures = {
            "uuid": uuid,
            "name": "NVIDIA Test",
            "total": CARD,
            "free": CARD,
            "used": 0,
            "reserved": 0,
            "mig": 0,
            "bus": f"00000000:0{i + 1}:00.0",
            "allocations": torch.make_card(uuid, CARD),
        }
        lines += [f"gpu.{i}.{field}={value}" for field, value in figures.items()]
    Path(os.environ["NVML_STANDIN_STATE"]).write_text("\n".join(lines) + "\n")


@contextmanager
def another_program() -> Iterator[None]:
    """Let another program hold about half of two cards, with other figures every second."""
    import standin_torch as torch

    ended = threading.Event()
    sizes = itertools.cycle(OTHERS)

    def change() -> None:
        size = next(sizes) * MIB
        for uuid in UUIDS[:2]:
            torch.set_others(uuid, size)  # (it takes more only if that is free, as any program)

    def hold() -> None:
        while not ended.wait(1.0):
            change()

    change()
    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for uuid in UUIDS[:2]:
            torch.set_others(uuid, 0)


def out_of_memory() -> int:
    """Return how often memory of a card was asked for that was not there."""
    paths = [Path(os.environ["STANDIN_CARDS"], uuid, "failures") for uuid in UUIDS]
    return sum(len(path.read_text().splitlines()) for path in paths if path.exists())


def load() -> Any:
    """Make the model: memory that a process holds as long as it lives."""
    import standin_torch as torch

    return torch.empty(MODEL)


def compute(model: Any, numbers: Sequence[int]) -> list[int]:
    """Take memory for a batch, and the time of a card."""
    import standin_torch as torch

    room = torch.empty(BATCH * len(numbers) // ITEMS_A_BATCH)
    time.sleep(SECONDS_AN_ITEM * len(numbers))
    assert room.size_bytes
    assert model.size_bytes == MODEL
    return [3 * number for number in numbers]


# --- the ways ---------------------------------------------------------------------------------


class OnCard:
    """A plain Ray actor with the model."""

    def __init__(self, uuid: str | None) -> None:
        import ray

        found = UUIDS[int(ray.get_gpu_ids()[0])] if uuid is None else uuid
        os.environ["CUDA_VISIBLE_DEVICES"] = found
        self._model = load()

    def ready(self) -> bool:
        return True

    def compute(self, numbers: Sequence[int]) -> list[int]:
        return compute(self._model, numbers)


def by_actors(actors: Sequence[Any], items: int) -> dict[str, Any]:
    """Send batches to actors, one at a time to each; what runs out of memory is tried again."""
    import ray

    alive = []
    for actor in actors:
        try:
            ray.get(actor.ready.remote(), timeout=120)
        except ray.exceptions.RayActorError:  # the model did not fit
            continue
        alive.append(actor)
    began = time.perf_counter()
    waiting = deque(
        (list(range(at, min(items, at + ITEMS_A_BATCH))), 1)
        for at in range(0, items, ITEMS_A_BATCH)
    )
    idle, under_way = list(alive), {}
    done: list[int] = []
    lost = 0
    while (waiting and alive) or under_way:
        while idle and waiting:
            actor, (numbers, attempt) = idle.pop(), waiting.popleft()
            under_way[actor.compute.remote(numbers)] = (actor, numbers, attempt)
        (ready,), _ = ray.wait(list(under_way), num_returns=1)
        actor, numbers, attempt = under_way.pop(ready)
        idle.append(actor)
        try:
            done += ray.get(ready)
        except ray.exceptions.RayTaskError:
            if attempt < TRIES:
                waiting.append((numbers, attempt + 1))
            else:
                lost += len(numbers)
    lost += sum(len(numbers) for numbers, _ in waiting)
    seconds = time.perf_counter() - began
    for actor in actors:
        ray.kill(actor)
    return _row(done, lost, seconds, len(actors) - len(alive), items)


def by_fraction(share: float) -> Callable[[int], dict[str, Any]]:
    """Return the way of Ray's own fractions of cards: as many actors as Ray packs."""

    def run(items: int) -> dict[str, Any]:
        import ray

        actor = ray.remote(OnCard).options(num_cpus=0, num_gpus=share)
        count = len(UUIDS) * int(1 / share)
        return by_actors([actor.remote(None) for _ in range(count)], items)

    return run


def by_fixed_plan(items: int) -> dict[str, Any]:
    """Return the figures of so many actors on each card as fit whatever the other program does."""
    import ray

    need = MODEL + BATCH
    free = [CARD - max(OTHERS) * MIB] * 2 + [CARD] * 2
    actor = ray.remote(OnCard).options(num_cpus=0, num_gpus=0)
    actors = [
        actor.remote(uuid)
        for uuid, size in zip(UUIDS, free, strict=True)
        for _ in range(size // need)
    ]
    return by_actors(actors, items)


def by_us(items: int) -> dict[str, Any]:
    """Return the figures of `agentic_ray.map`."""
    import agentic_ray as ar

    ar.init(poll_seconds=0.2)
    function = ar.function(gpu_memory=MODEL + BATCH, setup=load, batch_size=ITEMS_A_BATCH)(compute)
    try:
        # (the other ways have their processes before the clock starts, too)
        list(ar.map(function, range(40 * ITEMS_A_BATCH)))
        began = time.perf_counter()
        done = list(ar.map(function, range(items)))
        return _row(done, items - len(done), time.perf_counter() - began, 0, items)
    finally:
        ar.shutdown()


def _row(
    done: list[int], lost: int, seconds: float, actors_lost: int, items: int
) -> dict[str, Any]:
    assert len(set(done)) == len(done), "an item came twice"
    assert set(done) <= {3 * i for i in range(items)}, "an item has a wrong result"
    return {
        "done": len(done),
        "lost": lost,
        "rate": len(done) / seconds,
        "seconds": seconds,
        "actors_lost": actors_lost,
    }


WAYS: dict[str, Callable[[int], dict[str, Any]]] = {
    "Ray, num_gpus=1": by_fraction(1.0),
    "Ray, num_gpus=0.5": by_fraction(0.5),
    "Ray, num_gpus=0.25": by_fraction(0.25),
    "fixed plan": by_fixed_plan,
    "ours": by_us,
}


def measured(items: int) -> Iterator[dict[str, Any]]:
    """Go through all ways, one after the other, on one Ray; yield the figures of each."""
    import ray

    make_cards()
    ray.init(
        "local",
        num_cpus=8,
        num_gpus=len(UUIDS),
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
    )
    try:
        for name, run in WAYS.items():
            before = out_of_memory()
            with another_program():
                row = run(items)
            yield {"name": name, **row, "out_of_memory": out_of_memory() - before}
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
