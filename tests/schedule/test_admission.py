"""GPU admission: budgets are never exceeded, every bundle gets somewhere or waits with reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.graph.task import Bundle, Codelet, CostHint, Ref, Resources, Task
from agentic_ray.schedule.admission import (
    MOST_PARTS,
    Fit,
    admit,
    budget_bytes,
    can_split,
    fit,
    reserve_bytes,
    working_set_bytes,
)
from agentic_ray.schedule.load import Offer
from agentic_ray.schedule.view import GPU_AHEAD_PER_SLOT, Executor

GIB = 2**30


def _nothing(x: object, *, xp: object) -> object:
    return x


def bundle(*tasks: Task, inputs: tuple[str, ...] = ()) -> Bundle:
    return Bundle(tasks[-1].key, tasks, inputs, (tasks[-1].key,))


def task(
    *args: object,
    resources: Resources | None = None,
    cost: CostHint | None = None,
    chunk_axis: int | None = None,
) -> Task:
    codelet = Codelet("nothing", _nothing, _nothing, chunk_axis=chunk_axis)
    return Task.of(codelet, *args, resources=resources, cost=cost, key="t")


def gpu(
    budget: int | None = None, total: int | None = None, used: int = 0, order: int = 0
) -> Executor:
    whole = budget if total is None else total
    offer = Offer(1, memory_bytes=budget, memory_total_bytes=whole)
    executor = Executor(f"n{order}", f"GPU-{order}", "gpu", offer, order)
    if used:
        executor.sent(0.0, 0.0, Resources(gpu_memory_bytes=used))
    return executor


# --- working sets ---------------------------------------------------------------------------


def test_what_is_declared_counts() -> None:
    declared = task(np.ones(1000), resources=Resources(gpu_memory_bytes=123))
    assert working_set_bytes(bundle(declared), {}) == 123


def test_hints_count_before_sizes_of_inputs() -> None:
    hinted = task(Ref("x"), cost=CostHint(read_bytes=1000, written_bytes=500))
    assert working_set_bytes(bundle(hinted, inputs=("x",)), {"x": 400}) == 2250
    assert working_set_bytes(bundle(hinted, inputs=("x",)), {"x": 4000}) == 6750
    plain = task(Ref("x"))
    assert working_set_bytes(bundle(plain, inputs=("x",)), {"x": 400}) == 1200


def test_an_array_in_several_arguments_counts_once() -> None:
    data = np.ones(1000)
    assert working_set_bytes(bundle(task([data, (data, {"a": data})], "text", b"x")), {}) == 24_000


def test_what_can_be_split() -> None:
    assert not can_split(bundle(task(1)))
    assert can_split(bundle(task(1, chunk_axis=0)))
    assert can_split(bundle(task(1), task(2)))


# --- budgets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "free", "held", "budget"),
    [
        (80 * GIB, 80 * GIB, 0, 79 * GIB),
        (80 * GIB, 20 * GIB, 10 * GIB, 29 * GIB),  # what our pool holds is ours to use
        (80 * GIB, 0, 0, 0),
        (100, 100, 0, 95),
    ],
)
def test_budget(total: int, free: int, held: int, budget: int) -> None:
    assert budget_bytes(total, free, held) == budget


def test_fit() -> None:
    assert fit(50, gpu(100)) is Fit.NOW
    assert fit(50, gpu(100, used=60)) is Fit.LATER
    assert fit(50, gpu(40, 100)) is Fit.BLOCKED
    assert fit(500, gpu(40, 100)) is Fit.NEVER
    assert fit(10**12, gpu()) is Fit.NOW  # nothing is known: the executor finds out


# --- decisions ----------------------------------------------------------------------------------


def test_it_moves_to_a_gpu_with_room() -> None:
    wanted, other = gpu(100, used=80), gpu(100, order=1)
    answer = admit(50, wanted, [wanted, other], split=True, cpu=True)
    assert answer.executor is other
    assert "moved" in answer.reason


def test_it_waits_for_our_own_work_to_end() -> None:
    wanted = gpu(100, used=80)
    answer = admit(50, wanted, [wanted], split=True, cpu=True)
    assert (answer.executor, answer.to_cpu) == (None, False)


def test_memory_of_others_sends_it_to_the_cpu_or_lets_it_wait() -> None:
    wanted = gpu(10, 100)
    answer = admit(50, wanted, [wanted], split=False, cpu=True)
    assert answer.to_cpu
    assert "other processes hold the rest" in answer.reason
    answer = admit(50, wanted, [wanted], split=False, cpu=False)
    assert (answer.executor, answer.to_cpu) == (None, False)


def test_what_is_larger_than_every_gpu_is_split_or_sent_to_the_cpu() -> None:
    wanted, larger = gpu(100), gpu(200, order=1)
    answer = admit(500, wanted, [wanted, larger], split=True, cpu=True)
    assert (answer.executor, answer.parts) == (larger, 3)
    answer = admit(500, wanted, [wanted, larger], split=False, cpu=True)
    assert answer.to_cpu
    assert "200 B of the largest GPU" in answer.reason
    answer = admit(500, wanted, [wanted, larger], split=False, cpu=False)
    assert answer.executor is larger
    assert "no other way" in answer.reason


@st.composite
def gpus(draw: st.DrawFn) -> list[Executor]:
    made = []
    for order in range(draw(st.integers(1, 4))):
        total = draw(st.none() | st.integers(0, 1000))
        budget = None if total is None else draw(st.integers(0, total - reserve_bytes(total)))
        made.append(gpu(budget, total, order=order))
    return made


@given(
    gpus(),
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 3), st.booleans(), st.booleans()),
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
def test_budgets_are_never_exceeded(
    executors: list[Executor], bundles: list[tuple[int, int, bool, bool]], random: object
) -> None:
    """Bundles come and go; each is started as admission says."""
    running: list[tuple[Executor, Resources]] = []
    for need, wanted, split, cpu in bundles:
        chosen = executors[wanted % len(executors)]
        answer = admit(need, chosen, executors, split=split, cpu=cpu)
        executor = answer.executor
        if executor is None or not executor.room():
            assert executor is not None or answer.reason
            if running:  # something ends, so that waiting has an end
                ended, resources = running.pop(random.randrange(len(running)))  # type: ignore[attr-defined]
                ended.ended(0.0, 0.0, resources)
            continue
        assert not answer.to_cpu
        assert 1 <= answer.parts <= MOST_PARTS
        assert answer.parts == 1 or split
        resources = Resources(gpu_memory_bytes=-(-need // answer.parts))
        alone = not executor.in_flight
        executor.sent(0.0, 0.0, resources)
        running.append((executor, resources))
        budget = executor.offer.memory_bytes
        within = budget is None or executor.held.memory_bytes <= budget
        # only what has no other way is tried beyond it, and alone
        no_way = not cpu and (not split or need > MOST_PARTS * (budget or 0))
        assert within or (alone and no_way and "no other way" in answer.reason), answer
        assert executor.in_flight <= 1 + GPU_AHEAD_PER_SLOT
