"""A function with effects is begun at most once, whatever dies."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import agentic_ray as ar
from agentic_ray.errors import InterruptedJobError


def _noted(folder: Path) -> list[str]:
    return (folder / "effects").read_text().split()


@pytest.mark.usefixtures("ray_session")
def test_a_process_that_dies_with_an_effect_ends_the_job(tmp_path: Path) -> None:
    def pay(x: int) -> int:
        with open(tmp_path / "effects", "a") as file:
            file.write(f"{x}\n")
        if x == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    with pytest.raises(InterruptedJobError, match="look up whether its effect happened"):
        ar.map_reduce(pay, range(4), has_effects=True, chunk_size=1)
    assert _noted(tmp_path).count("3") == 1


def test_an_executor_that_dies_with_an_effect_ends_the_graph(
    ray_session: ar.Session, tmp_path: Path
) -> None:
    @ar.codelet(has_effects=True)
    def pay(block: np.ndarray) -> float:
        with open(tmp_path / "effects", "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(60)
        return float(block.sum())

    job = ar.map_reduce_job(pay, np.arange(4.0), chunk_size=4)
    with ThreadPoolExecutor() as pool:
        result = pool.submit(job.result, timeout=120)
        while not (tmp_path / "effects").exists() or not _noted(tmp_path):
            assert not result.done(), result.exception()
            time.sleep(0.05)
        (pid,) = map(int, _noted(tmp_path))
        assert pid != os.getpid()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(InterruptedJobError, match="not run again"):
            result.result()
    assert float(ar.map_reduce(float, [1, 2, 3], lambda a, b: a + b)) == 6.0
    assert len(_noted(tmp_path)) == 1


@pytest.mark.usefixtures("ray_session")
def test_an_error_that_is_to_be_tried_again_is(tmp_path: Path) -> None:
    def pay(x: int) -> int:
        try:
            os.close(os.open(tmp_path / f"seen-{x}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return x
        raise ConnectionError("refused")

    found = ar.map_reduce(pay, range(3), has_effects=True, retry_on=ConnectionError)
    assert found == [0, 1, 2]
