"""Small graphs in the caller's process: which, and that it does not show in their values."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

import agentic_ray as ar
from agentic_ray.graph.task import Codelet, Task, TaskGraph
from agentic_ray.runtime.local import run_locally
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.metrics import CALLER


def factors(seed: int) -> Any:
    x = np.random.default_rng(seed).standard_normal((150, 150))
    return np.linalg.cholesky(x.T @ x)


def graph() -> TaskGraph:
    return TaskGraph([Task.of(Codelet("factors", factors), 7, key="factors")], ["factors"])


def test_the_same_bits_here_as_on_an_executor(ray_session: ar.Session) -> None:
    away = ray_session.submit(graph())
    (expected,) = away.result()
    assert away.placements()[0].node_id != CALLER
    here = run_locally(graph(), {"factors": 1e-4}, ray_session.model)
    assert here is not None
    (found,) = here.result()
    assert found.tobytes() == expected.tobytes()


def known() -> CostModel:
    model = CostModel()
    model.observe(next(iter(graph())), "cpu", 1e-4)
    return model


def test_only_what_is_quick_and_called_from_the_main_thread() -> None:
    model = known()
    assert run_locally(graph(), {"factors": 1.0}, model) is None
    assert run_locally(graph(), {"factors": 1e-4}, CostModel()) is None
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append(run_locally(graph(), {"factors": 1e-4}, model))
    )
    thread.start()
    thread.join()
    assert found == [None]
    assert run_locally(graph(), {"factors": 1e-4}, model) is not None
