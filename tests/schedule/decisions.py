"""Digests of the Dispatcher's decisions, to compare a change of its code with the code before it.

``python tests/schedule/decisions.py --write`` stores them anew in ``decisions.json`` after a change
that was meant to decide otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import simulation

from agentic_ray.schedule.simulate import SimCluster, SimNode, simulate
from agentic_ray.schedule.workloads import (
    Workload,
    kmeans,
    map_reduce,
    random_layered,
    tiled_cholesky,
    tsqr,
)

STORED = Path(__file__).with_name("decisions.json")
SEEDS = range(100)
WORKLOADS = (map_reduce(200), tiled_cholesky(8), tsqr(64), kmeans(40, 2), random_layered(150, 8))
POLICIES = ("predictive", "load_balance", "priority", "ray_hybrid", "first_free", "round_robin")


def platform() -> str:
    """A digest that differs where logarithms, powers of e or partitions come out otherwise.

    The cost model computes with these, so that predictions which are equal on one machine may
    differ in the last bit on another, and so may a decision between them.
    """
    rng = random.Random(0)
    numbers = [rng.lognormvariate(0.0, 3.0) for _ in range(2000)]
    seen = [math.log(x) for x in numbers] + [math.exp(math.log(x)) for x in numbers]
    partition = np.argpartition(np.array(numbers).round(1), 64)[:64].tolist()
    return _digest([*map(float.hex, seen), *map(str, partition)])


def decisions() -> dict[str, str]:
    """The digest of each case, by name."""
    found = {f"seed {seed}": simulation.replay(seed).digest() for seed in SEEDS}
    for workload in WORKLOADS:
        for policy in POLICIES:
            for faults in (False, True):
                name = f"{workload.name}, {policy}{', faults' * faults}"
                found[name] = _digest(_run(workload, policy, faults))
    return found


def _run(workload: Workload, policy: str, faults: bool) -> Iterable[str]:
    """Where and when each task ran, and why there."""
    cluster = SimCluster(tuple(_node(i, faults) for i in range(12)))
    how = {"noise": 0.2, "costs": "learnt"} if faults else {}
    result = simulate(workload, cluster, policy, seed=1, **how)  # type: ignore[arg-type]
    return [
        f"{span.task} {span.node_id} {span.device} {span.sent_seconds:.6f} {span.note}"
        for span in result.timeline
    ]


def _node(number: int, faults: bool) -> SimNode:
    """A node; with faults some come late, slow down or die."""
    rng = random.Random(number)
    name, speed, slots = f"n{number}", rng.uniform(1, 8), rng.choice((1, 2, 8))
    if not faults or not number:
        return SimNode(name, speed, slots, gpus=number % 3 == 0)
    late, dies, slows = (rng.choice((None, rng.uniform(1, 20))) for _ in range(3))
    return SimNode(
        *(name, speed, slots, int(number % 3 == 0)),
        from_seconds=late or 0.0,
        until_seconds=math.inf if dies is None else (late or 0.0) + dies,
        slow_from_seconds=math.inf if slows is None else slows,
        slow_factor=20.0,
    )


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="store the digests")
    found = {"platform": platform(), **decisions()}
    if parser.parse_args().write:
        STORED.write_text(json.dumps(found, indent=0) + "\n")
    before = json.loads(STORED.read_text())
    differ = [name for name in found if found[name] != before.get(name)]
    print(f"{len(found)} digests, {len(differ)} differ from {STORED.name}: {differ}")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
