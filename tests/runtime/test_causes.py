"""What Ray's exceptions mean to the Dispatcher."""

from __future__ import annotations

import pytest
from ray import exceptions as ray_errors

from agentic_ray.runtime.failures import cause_of


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ray_errors.OutOfMemoryError("killed by the memory monitor"), "pressure"),
        (ray_errors.WorkerCrashedError(), "crash"),
        (ray_errors.ActorDiedError(), "crash"),
        (ray_errors.ActorUnavailableError("unavailable", b"0" * 16), "crash"),
        (ray_errors.NodeDiedError("gone"), "node_lost"),
        (ray_errors.TaskCancelledError(), "system"),
        (ValueError("the user's"), None),
        (MemoryError("the user's"), None),
    ],
)
def test_causes(error: BaseException, cause: str | None) -> None:
    assert cause_of(error) == cause
