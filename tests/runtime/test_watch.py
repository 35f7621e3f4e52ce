"""The watched child process: what it brings home when it lives and when it dies. Needs no Ray."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from ray import cloudpickle

from agentic_ray.errors import OutOfHostMemoryError, PoisonTaskError
from agentic_ray.graph.task import Codelet, Ref
from agentic_ray.mapreduce.kernels import chunk_codelet
from agentic_ray.runtime.execute import Payload, Step, describe
from agentic_ray.runtime.outcomes import Failed, Finished, Report
from agentic_ray.runtime.watch import poison_error, run_watched


def watched(*tasks: tuple[str, Codelet, Sequence[Any]], inputs: dict[str, Any]) -> tuple[Any, ...]:
    """Run these tasks, (key, codelet, arguments), under watch."""
    steps = tuple(Step(key, codelet.name, tuple(args), {}) for key, codelet, args in tasks)
    codelets = {codelet.name: cloudpickle.dumps(codelet) for _, codelet, _ in tasks}
    payload = Payload(cloudpickle.dumps(steps), codelets, tuple(inputs), {}, (tasks[-1][0],))
    return run_watched(payload, tuple(inputs.values()), node_id="n1")


DOUBLE = Codelet("double", lambda x: 2 * x)


def dying(end: Callable[[], object]) -> Codelet:
    def die(_: Any) -> None:
        end()

    return Codelet("die", die)


def test_what_lives_gives_its_values() -> None:
    data = np.arange(100_000.0)
    tasks = (("a", DOUBLE, [Ref("x")]), ("b", DOUBLE, [Ref("a")]))
    report, value = watched(*tasks, inputs={"x": data})
    assert isinstance(report, Report)
    assert isinstance(report.outcome, Finished)
    assert np.array_equal(value, 4 * data)


def test_an_exception_is_no_death() -> None:
    report, _ = watched(("a", DOUBLE, [None]), inputs={})
    assert isinstance(report.outcome, Failed)
    assert isinstance(report.outcome.error.rebuild(), TypeError)


@pytest.mark.parametrize(
    ("end", "code", "name"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), -9, "SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), -11, "SIGSEGV"),
        (lambda: os._exit(3), 3, None),
        (lambda: os._exit(0), 0, None),
    ],
)
def test_a_death_is_told_with_its_task_and_signal(end: Any, code: int, name: str | None) -> None:
    tasks = (("a", DOUBLE, [Ref("x")]), ("b", dying(end), [Ref("a")]))
    report, value = watched(*tasks, inputs={"x": np.zeros((3, 4))})
    assert value is None
    error = poison_error(report.outcome)
    assert isinstance(error, PoisonTaskError)
    assert (error.task, error.exit_code, error.exit_signal) == ("die", code, name)
    assert error.inputs == ("ndarray of float64 (3, 4)",)
    assert (error.chunk_index, error.element_index) == (None, None)
    assert "'die'" in str(error)
    assert (name or f"code {code}") in str(error)


@pytest.mark.parametrize(("counts", "memory"), [((4, 5), True), ((4, 4), False), ((None,), False)])
def test_a_process_that_the_kernel_killed_for_want_of_memory_is_no_poison(
    monkeypatch: pytest.MonkeyPatch, counts: tuple[int | None, ...], memory: bool
) -> None:
    told = itertools.chain(counts, itertools.repeat(counts[-1]))
    monkeypatch.setattr("agentic_ray.runtime.watch.oom_kills", lambda: next(told))
    kill = dying(lambda: os.kill(os.getpid(), signal.SIGKILL))
    error = poison_error(watched(("a", kill, [np.zeros(3)]), inputs={})[0].outcome)
    assert isinstance(error, OutOfHostMemoryError if memory else PoisonTaskError)
    assert ("needs more memory than there is" in str(error)) is memory
    assert "float64 (3,)" in str(error)


def chunk(map_fn: Any, reduce_fn: Any = None) -> Any:
    codelet = chunk_codelet(map_fn, reduce_fn)
    pieces = [(list(range(100, 200)), 0, 50, None), (list(range(100, 200)), 50, 100, None)]
    return watched(("c", codelet, [7, 100, pieces]), inputs={})[0].outcome


def test_a_chunk_names_the_element() -> None:
    death = chunk(lambda x: os.kill(os.getpid(), 9) if x == 173 else x)
    assert (death.chunk, death.element, death.inputs) == (7, 173, ("int",))


def test_a_reduce_function_that_dies_is_no_elements_fault() -> None:
    death = chunk(lambda x: x, lambda a, b: os.kill(os.getpid(), 9) if b > 150 else a + b)
    assert (death.chunk, death.element) == (7, None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((2, 3), "i4"), "ndarray of int32 (2, 3)"),
        ([1, 2], "list of 2"),
        ("abc", "str of 3"),
        (1.5, "float"),
    ],
)
def test_descriptions_tell_shapes_and_no_content(value: Any, text: str) -> None:
    assert describe(value) == text
