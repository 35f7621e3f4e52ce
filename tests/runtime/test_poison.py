"""Work that kills every process it runs in: found, named, and harmless to others."""

from __future__ import annotations

import operator
import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
from agentic_ray.errors import PoisonTaskError

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.slow]


def beside(job: Any) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(job.result()))
    thread.start()
    return thread, found


def test_one_element_of_a_thousand_is_named_and_another_job_goes_on() -> None:
    def lethal_step(x: int) -> int:
        if x == 613:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    other = ar.map_reduce_job(lambda x: (time.sleep(0.05), x)[1], range(100), operator.add)
    thread, found = beside(other)
    with pytest.raises(PoisonTaskError, match="lethal_step") as raised:
        ar.map_reduce(lethal_step, range(1000), operator.add, chunk_size=50)
    assert raised.value.element_index == 613
    assert raised.value.chunk_index == 12
    assert raised.value.exit_signal == "SIGKILL"
    assert raised.value.inputs == ("int",)
    thread.join(60)
    assert found == [sum(range(100))]
    assert other.metrics.failed == 0


def test_a_codelet_that_kills_its_executor_costs_its_neighbours_nothing() -> None:
    @ar.codelet
    def lethal_block(block: Any, *, xp: Any) -> float:
        if block[0] == 640.0:
            os.abort()
        return float(xp.sum(block))

    @ar.codelet
    def peaceful(block: Any, *, xp: Any) -> float:
        time.sleep(0.3)
        return float(xp.sum(block))

    data = np.arange(4096.0)
    other = ar.map_reduce_job(peaceful, data, operator.add, chunk_size=64)
    thread, found = beside(other)
    with pytest.raises(PoisonTaskError) as raised:
        ar.map_reduce(lethal_block, data, operator.add, chunk_size=64)
    assert raised.value.exit_signal == "SIGABRT"
    assert raised.value.element_index == 10, "the eleventh block"
    assert raised.value.inputs == ("ndarray of float64 (64,)",)
    thread.join(60)
    assert found == [data.sum()]
    assert other.metrics.recovery == 1.0
