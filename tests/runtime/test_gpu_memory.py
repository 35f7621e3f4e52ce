"""The arena, bundles on a device, the memory ladder and kept values, without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from arena import ArenaDevice, DeviceArray
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_ray.errors import OutOfDeviceMemoryError
from agentic_ray.graph import Codelet, Ref
from agentic_ray.runtime.device_run import Job, run_job
from agentic_ray.runtime.execute import Step
from agentic_ray.runtime.oom import MOST_SPLITS, CannotSplitError, Note, climb
from agentic_ray.runtime.resident import ValueAbsentError, ValueTable

# --- the arena is honest --------------------------------------------------------------------


def test_host_and_device_arrays_do_not_mix() -> None:
    device = ArenaDevice(budget_bytes=2**20)
    x = device.to_device(np.arange(8.0))
    for wrong in (
        lambda: x + np.ones(8),
        lambda: np.ones(8) + x,
        lambda: np.sum(x),
        lambda: np.asarray(x),
        lambda: device.xp.sum(np.ones(8)),
        lambda: device.xp.add(x, np.ones(8)),
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(AttributeError):
        device.xp.nansum  # in NumPy and CuPy, but not in the standard
    assert float(device.xp.sum(x)) == 28.0


def test_device_memory_is_separate_and_limited() -> None:
    device = ArenaDevice(budget_bytes=4096)
    host = np.arange(256.0)
    x = device.to_device(host)
    host[:] = 0
    assert device.to_host(x)[255] == 255.0
    assert device.memory().used_bytes == 2048
    with pytest.raises(OutOfDeviceMemoryError):
        x * 2 + x * 3
    device.set_memory_limit(2048)
    with pytest.raises(OutOfDeviceMemoryError):
        x + 1
    del x
    assert device.memory().used_bytes == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 600)), max_size=60))
def test_the_arena_never_gives_memory_twice(steps: list[tuple[bool, int]]) -> None:
    device = ArenaDevice(budget_bytes=8192)
    held: list[tuple[int, DeviceArray]] = []
    for number, (keep, size) in enumerate(steps):
        if keep:
            try:
                held.append((number, device.to_device(np.full(size, number, np.int16))))
            except OutOfDeviceMemoryError:
                pass  # full: that is an answer too
        elif held:
            held.pop(size % len(held))
        assert device.memory().used_bytes <= 8192
        for mark, array in held:
            assert (device.to_host(array) == mark).all()


# --- bundles -------------------------------------------------------------------------------


def _double(x: Any, *, xp: Any) -> Any:
    return x * 2


def _add(x: Any, y: Any, *, xp: Any) -> Any:
    return x + y


def _sum(x: Any, *, xp: Any) -> Any:
    return xp.sum(x)


CODELETS = {
    "double": Codelet("double", _double, _double, chunk_axis=0),
    "columns": Codelet("columns", _double, _double, chunk_axis=1),
    "solid": Codelet("solid", _double, _double),
    "add": Codelet("add", _add, _add),
    "sum": Codelet("sum", _sum, _sum, chunk_axis=0),
}


def _run(
    budget: int, steps: Sequence[Step], needed: Sequence[str], parts: int = 1, **inputs: Any
) -> tuple[dict[str, Any], list[Note], ArenaDevice]:
    device = ArenaDevice(budget_bytes=budget)
    notes: list[Note] = []
    job = Job(device, steps, CODELETS, dict(inputs), frozenset(needed))
    run_job(job, make_room=lambda: "pool freed", note=notes.append, parts=parts)
    assert set(job.seconds) == {step.key for step in steps}
    values = {key: device.to_host(job.values[key]) for key in needed}
    return values, notes, device


def test_enough_memory_takes_no_step() -> None:
    steps = [Step("a", "double", (Ref("x"),), {}), Step("b", "add", (Ref("a"), Ref("x")), {})]
    values, notes, _ = _run(2**20, steps, ["b"], x=np.arange(100.0))
    assert np.array_equal(values["b"], np.arange(100.0) * 3)
    assert not notes


def test_intermediates_are_dropped_after_their_last_use() -> None:
    steps = [Step("s0", "double", (Ref("x"),), {})]
    steps += [Step(f"s{i}", "double", (Ref(f"s{i - 1}"),), {}) for i in range(1, 8)]
    values, notes, device = _run(3 * 8000 + 1024, steps, ["s7"], x=np.ones(1000))
    assert (values["s7"] == 2.0**8).all()
    assert not notes
    assert device.arena.peak_bytes <= 3 * 8000 + 1024


def test_inputs_left_on_the_host_may_be_larger_than_the_device() -> None:
    def part(x: Any, start: int, stop: int, *, xp: Any) -> Any:
        return xp.asarray(x[start:stop]) * 2

    steps = [Step("a", "part", (Ref("x"), 10, 20), {}), Step("b", "double", (Ref("a"),), {})]
    codelets = {**CODELETS, "part": Codelet("part", part, part, host_inputs=True)}
    device = ArenaDevice(budget_bytes=1024)
    job = Job(device, steps, codelets, {"x": np.arange(10_000.0)}, frozenset("b"))
    assert not job.to_upload().keys() & {"x"}
    run_job(job, make_room=lambda: "", note=lambda note: pytest.fail(note.text))
    assert np.array_equal(device.to_host(job.values["b"]), np.arange(10.0, 20.0) * 4)


@pytest.mark.parametrize(("codelet", "shape"), [("double", (4000,)), ("columns", (10, 400))])
def test_too_large_a_task_is_split_along_its_axis(codelet: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).random(shape)
    steps = [Step("a", codelet, (Ref("x"),), {})]
    values, notes, _ = _run(20_000, steps, ["a"], x=x)
    assert np.array_equal(values["a"], x * 2)
    assert [note.kind for note in notes][:2] == ["memory: freed", "memory: split"]


def test_parts_that_were_admitted_are_run_at_once() -> None:
    steps = [Step("a", "double", (Ref("x"),), {})]
    values, notes, _ = _run(2**20, steps, ["a"], parts=4, x=np.ones(100))
    assert (values["a"] == 2).all()
    assert [note.kind for note in notes] == ["memory: split"] * 3


@pytest.mark.parametrize("codelet", ["solid", "sum"])
def test_what_cannot_be_split_is_given_up_without_a_result(codelet: str) -> None:
    device = ArenaDevice(budget_bytes=10_000)
    job = Job(
        device,
        [Step("a", codelet, (Ref("x"),), {})],
        CODELETS,
        {"x": np.ones(2000)},
        frozenset("a"),
    )
    with pytest.raises(OutOfDeviceMemoryError):
        run_job(job, make_room=lambda: "pool freed", note=lambda note: None)
    assert set(job.values) == {"x"}
    assert device.memory().used_bytes == 0


def test_an_error_of_the_user_is_not_taken_for_lack_of_memory() -> None:
    def broken(x: Any, *, xp: Any) -> Any:
        raise MemoryError("on the host")

    job = Job(
        ArenaDevice(budget_bytes=10_000),
        [Step("a", "broken", (Ref("x"),), {})],
        {"broken": Codelet("broken", broken, broken, chunk_axis=0)},
        {"x": np.ones(10)},
        frozenset("a"),
    )
    with pytest.raises(MemoryError, match="on the host"):
        run_job(job, make_room=lambda: "", note=lambda note: None)
    assert job.running == "broken"


@settings(deadline=None)
@given(
    budget=st.integers(1_000, 60_000),
    rows=st.integers(1, 3000),
    chain=st.lists(st.sampled_from(["double", "solid", "add"]), min_size=1, max_size=6),
    parts=st.integers(1, 5),
)
def test_a_bundle_gives_the_right_result_or_none(
    budget: int, rows: int, chain: list[str], parts: int
) -> None:
    x = np.arange(float(rows))
    expected, steps, last = x, [], "x"
    for number, name in enumerate(chain):
        args = (Ref(last), Ref("x")) if name == "add" else (Ref(last),)
        steps.append(Step(f"s{number}", name, args, {}))
        expected = expected + x if name == "add" else expected * 2
        last = f"s{number}"
    try:
        values, _, device = _run(budget, steps, [last], parts, x=x)
    except OutOfDeviceMemoryError:
        return
    assert np.array_equal(values[last], expected)
    assert device.arena.peak_bytes <= budget


# --- the ladder by itself ---------------------------------------------------------------------


class _Rows:
    """Work on rows that needs as much memory as it has rows."""

    def __init__(self, world: dict[str, Any], start: int, stop: int) -> None:
        self.world = world
        self.start = start
        self.stop = stop
        self.label = f"rows {start}:{stop}"
        self.parts: tuple[_Rows, _Rows] | None = None
        self.result: list[int] | None = None

    def run(self) -> None:
        self.world["runs"] += 1
        assert self.result is None
        if self.stop - self.start > self.world["memory"]:
            raise OutOfDeviceMemoryError("full")
        self.result = list(range(self.start, self.stop))

    def halves(self) -> Any:
        if self.stop - self.start < 2:
            return None
        middle = (self.start + self.stop) // 2
        self.parts = (
            _Rows(self.world, self.start, middle),
            _Rows(self.world, middle, self.stop),
        )
        return self.parts

    def join(self) -> None:
        assert self.parts is not None
        first, second = self.parts
        assert first.result is not None
        assert second.result is not None
        if self.world["joinable"]:
            self.result = first.result + second.result
        else:
            raise CannotSplitError("they do not fit together")


@given(
    rows=st.integers(1, 300),
    memory=st.integers(0, 300),
    parts=st.integers(1, 8),
    joinable=st.booleans(),
)
def test_the_ladder_ends_whole_or_not_at_all(
    rows: int, memory: int, parts: int, joinable: bool
) -> None:
    world = {"memory": memory, "runs": 0, "joinable": joinable}
    freed: list[None] = []
    notes: list[Note] = []
    work = _Rows(world, 0, rows)

    def make_room() -> str:
        freed.append(None)
        return "freed"

    try:
        climb(
            work,
            ran_out=lambda error: isinstance(error, OutOfDeviceMemoryError),
            make_room=make_room,
            note=notes.append,
            parts=parts,
        )
    except OutOfDeviceMemoryError:
        assert work.result is None
        assert memory * 2**MOST_SPLITS < rows or not joinable
    else:
        assert work.result == list(range(rows))
    assert world["runs"] <= 2 * 2 ** (MOST_SPLITS + 1)
    assert all(note.text for note in notes)


def test_other_errors_are_raised_at_once() -> None:
    class Broken(_Rows):
        def run(self) -> None:
            raise ZeroDivisionError

    work = Broken({}, 0, 8)
    with pytest.raises(ZeroDivisionError):
        climb(work, ran_out=lambda e: False, make_room=lambda: "", note=lambda n: None)


# --- values that stay --------------------------------------------------------------------------


def test_kept_values_are_spilled_least_recently_used_first() -> None:
    device = ArenaDevice(budget_bytes=2**20)
    table = ValueTable(device)
    keys = [("g", str(i)) for i in range(3)]
    for number, key in enumerate(keys):
        assert table.keep(key, device.to_device(np.full(1000, float(number)))) == 8000
    with table.using(keys[:1]):
        pass  # the oldest is the newest now
    with table.using(keys[2:]):
        assert table.spill(1) == 8000
        assert table.device_bytes == 16000
        assert table.spill() == 8000  # all but the one in use
    assert table.device_bytes == 8000
    assert device.memory().used_bytes == 8000
    for number, key in enumerate(keys):
        assert (table.host_copy(key) == number).all()
        with table.using([key]) as values:
            assert (device.to_host(device.to_device(values[key])) == number).all()
    del values
    table.drop([*keys, ("g", "unknown")])
    assert device.memory().used_bytes == 0
    with pytest.raises(ValueAbsentError):
        table.host_copy(keys[0])
    assert table.absent(keys) == tuple(keys)
