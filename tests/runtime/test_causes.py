"""What Ray's exceptions mean to the Dispatcher."""

from __future__ import annotations

import pytest
from ray import exceptions as ray_errors

from agentic_ray.runtime.failures import cause_of, is_of_an_input


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


@pytest.mark.parametrize(
    "error",
    [
        ray_errors.ActorDiedError(),
        ray_errors.ActorUnschedulableError("its node does not exist any more"),
        ray_errors.WorkerCrashedError(),
    ],
)
def test_wrapped_it_is_the_death_of_another(error: Exception) -> None:
    assert not is_of_an_input(error)
    wrapped = ray_errors.RayTaskError("CpuExecutor.run", "", error)
    assert is_of_an_input(wrapped)
    assert is_of_an_input(wrapped.as_instanceof_cause()), "what Ray gives: it is both"


def test_what_the_user_raises_is_of_no_input() -> None:
    error = ray_errors.RayTaskError("CpuExecutor.run", "", ValueError("the user's"))
    assert not is_of_an_input(error)
