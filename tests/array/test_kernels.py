"""Compiled kernels: numbers are their arguments, their bits are NumPy's, their tables are bounded,
and whatever fails about them is not noticed in a result."""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agentic_ray.array as xp
from agentic_ray.array.core import compiled, evaluate, kernel_build, kernel_store, threads
from agentic_ray.array.core import program as programs
from agentic_ray.array.core.compile_queue import MOST_WAITING, THREAD_NAME, CompileQueue, compiling
from agentic_ray.array.core.program import Call, codelet
from agentic_ray.recent import Recent
from agentic_ray.runtime.values import CodeletTable

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="numba is not installed"
)
LENGTH = 100_000  # several cache blocks


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], list[Any]]]:
    """Everything is worth compiling; gives the kernels that there are once all is compiled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "WORTH_ELEMENTS", 0)
    monkeypatch.setattr(compiled, "_kernels", Recent(256))
    monkeypatch.setattr(compiled, "_seen", Recent(1024))
    monkeypatch.setattr(kernel_build, "_warned", set())

    def ready() -> list[Any]:
        assert compiling.wait(timeout=150)
        return [kernel for kernel in compiled._kernels.values() if kernel is not None]

    yield ready
    assert compiling.wait(timeout=150)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "agentic_ray" / "kernels").glob("*"))


def random(*shape: int, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def same_bits(ours: Any, theirs: Any) -> None:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.dtype == theirs.dtype
    nan = np.isnan(theirs)
    assert np.array_equal(np.isnan(ours), nan)
    assert np.where(nan, 0, ours).tobytes() == np.where(nan, 0, theirs).tobytes()


# --- numbers are arguments -----------------------------------------------------------------


def test_a_loop_over_step_sizes_compiles_once(kernels: Any, tmp_path: Path) -> None:
    a = random(LENGTH)
    most = 0
    for step in range(40):
        dt = 1.0 if step == 7 else 0.01 * (step + 1)  # also one that is another constant's value
        x = xp.asarray(a)
        same_bits(x + dt * (x * 0.5 - 1.0), a + dt * (a * 0.5 - 1.0))
        most = max(most, sum(t.name == THREAD_NAME for t in threading.enumerate()))
        if step == 20:
            assert len(kernels()) == 1
    assert most <= 1
    assert len(kernels()) == 1
    assert len(files(tmp_path)) == 1


def test_an_equation_of_heat_compiles_once_with_changing_steps(kernels: Any) -> None:
    ours, theirs = xp.asarray(random(LENGTH)), random(LENGTH)
    for step in range(12):
        dt = 0.1 / (step + 1)
        for u in (ours, theirs):
            u[1:-1] = u[1:-1] + dt * (u[2:] - 2 * u[1:-1] + u[:-2])
        ours = xp.asarray(ours.compute())
        kernels()
    same_bits(ours, theirs)
    assert len(kernels()) == 1


def test_a_value_that_was_looked_at_is_an_argument_too(kernels: Any) -> None:
    for seed in range(5):
        a = np.random.default_rng(seed).random((300, 500))
        x = xp.asarray(a)
        mean = x.mean()
        float(mean)  # now it is known
        np.asarray((x - mean) * 2)
        np.asarray((x - xp.asarray(a[0, 0])) * 2)  # an array of no axes
        kernels()
    chains = [kernel for kernel in kernels() if not kernel.reduces]
    assert len(chains) == 1


def test_a_new_number_makes_no_new_codelet() -> None:
    x, table = xp.asarray(random(40, 6), chunks=(10, 6)), CodeletTable()

    def codelets(number: float, count: int) -> set[Any]:
        made = [
            x * number + count,
            xp.std(x, axis=0, correction=number),
            xp.clip(x, -number, number),
            xp.round(x, count),
            x[count : 30 + count],
            xp.roll(x, count, axis=0),
            xp.full((40,), number, chunks=10) + count,
            xp.linspace(0, number, 40, chunks=10) + 1,
            xp.arange(count, count + 40, chunks=10) * 2,
            xp.nan_to_num(x, nan=number) + 1,
            xp.random.default_rng(count).normal(number, 1.0, 40, chunks=10) + 1,
            (x * number).sum(axis=0),
            xp.cumsum(x * number, axis=0),
            xp.quantile(x, number / 10, axis=0),
        ]
        plans = [evaluate.plan([y._node])[0] for y in made]
        return {table.source(task.codelet)[0] for tasks in plans for task in tasks}

    first = codelets(0.5, 1)
    assert codelets(0.75, 2) == first
    assert codelets(1.5, 3) == first


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_equal_numbers_that_differ_are_told_apart(zero: float) -> None:
    others = [xp.full(3, z) for z in (0.0, -0.0)]  # alive, so that they might be taken for it
    sign = np.signbit(zero)
    assert np.signbit(np.asarray(xp.full(3, zero))).all() == sign
    holes = xp.asarray(np.array([np.nan, 1.0]))
    assert [np.signbit(np.asarray(xp.nan_to_num(holes, nan=z)))[0] for z in (0.0, -0.0)] == [0, 1]
    assert [xp.full(2, one).dtype.kind for one in (1, 1.0, True)] == ["i", "f", "b"]
    big = xp.asarray(np.full(LENGTH, -0.0), chunks=1000)
    assert np.signbit(np.asarray(big + zero)).all() == sign
    del others


# --- bits ------------------------------------------------------------------------------------

_UNARY: list[Callable[[Any, Any], Any]] = [
    lambda m, x: -x,
    lambda m, x: +x,
    lambda m, x: abs(x),
    lambda m, x: m.sqrt(abs(x)),
    lambda m, x: m.square(x),
]
_BINARY: list[Callable[[Any, Any], Any]] = [
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: x * y,
    lambda x, y: x / y,
]
_ENDS: list[Callable[[Any, Any], Any]] = [
    lambda m, x: x,
    lambda m, x: m.sum(x),
    lambda m, x: m.sum(x, axis=0),
    lambda m, x: m.mean(x, axis=0),
    lambda m, x: m.max(x, axis=1),
]
_SCALARS = (
    st.floats(allow_nan=True, allow_infinity=True, width=64)
    | st.integers(-(2**70), 2**70)
    | st.booleans()
    | st.sampled_from([0.0, -0.0, 1 / 3, 3, float("nan"), float("inf"), 1e-320, 16777217])
)
_STEP = st.one_of(
    st.tuples(st.just("unary"), st.sampled_from(range(len(_UNARY)))),
    st.tuples(st.just("scalar"), st.sampled_from(range(4)), st.booleans()),
    st.tuples(st.just("row"), st.sampled_from(range(4))),
)
_VALUES = random(300, 450)
_VALUES[::7, ::5] = [[0.0] * 90]
_VALUES[3, :6] = [np.inf, -np.inf, np.nan, -0.0, 1e308, 5e-324]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(_STEP, min_size=1, max_size=4),
    end=st.sampled_from(_ENDS),
    numbers=st.lists(st.lists(_SCALARS, min_size=4, max_size=4), min_size=3, max_size=3),
    dtype=st.sampled_from([np.float64, np.float32]),
)
def test_compiled_programs_have_numpys_bits_for_all_scalars(
    kernels: Any, steps: list[Any], end: Any, numbers: list[list[Any]], dtype: Any
) -> None:
    """The first numbers have a program compiled; the other ones, of other types, then use it."""
    with np.errstate(all="ignore"):
        a = _VALUES.astype(dtype)

        def chain(x: Any, row: Any, own: list[Any], m: Any) -> Any:
            left = iter(own)
            for step in steps:
                if step[0] == "unary":
                    x = _UNARY[step[1]](m, x)
                elif step[0] == "row":
                    x = _BINARY[step[1]](x, row)
                else:
                    number = next(left)
                    x = _BINARY[step[1]](*((number, x) if step[2] else (x, number)))
            return end(m, x)

        def plain(own: list[Any]) -> np.ndarray:
            """By the form that runs while nothing is compiled."""
            worth, compiled.WORTH_ELEMENTS = compiled.WORTH_ELEMENTS, 1 << 60
            kept, compiled._kernels = compiled._kernels, Recent(1)
            try:
                return np.asarray(chain(xp.asarray(a), xp.asarray(a[1]), own, xp))
            finally:
                compiled.WORTH_ELEMENTS, compiled._kernels = worth, kept

        for own in numbers:
            wanted = plain(own)
            if end is _ENDS[0]:
                same_bits(wanted, chain(a, a[1], own, np))
            same_bits(chain(xp.asarray(a), xp.asarray(a[1]), own, xp), wanted)
            kernels()
            same_bits(chain(xp.asarray(a), xp.asarray(a[1]), own, xp), wanted)


def test_errors_that_were_asked_for_are_raised_once_there_is_a_kernel(kernels: Any) -> None:
    values = random(LENGTH)
    values[77] = 0.0

    def divided() -> Any:
        return np.asarray(1 / xp.asarray(values.copy()))  # a value that is not known yet

    with np.errstate(divide="ignore"):
        for _ in range(2):
            same_bits(divided(), 1 / values)
            assert kernels()
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        divided()
    heard: list[str] = []
    with np.errstate(divide="call", call=lambda kind, flag: heard.append(kind)):
        same_bits(divided(), 1 / values)
    assert "divide by zero" in heard


@pytest.mark.parametrize("form", ["", "total", "rows", "spread"])
def test_threads_share_the_cache_blocks_of_compiled_programs(kernels: Any, form: str) -> None:
    """Parts begin in the middle of what is read, whole, by row and by column."""
    values, column = random(9_001, 60), random(9_001, 1)
    x = xp.asarray(values, chunks=values.shape)
    beside = xp.asarray(column, chunks=column.shape)
    made = (x - x[1]) * 2 + (beside if form != "total" else x)
    end: Any = {
        "": lambda: made,
        "total": lambda: made.sum(),
        "rows": lambda: made.sum(axis=0),
        "spread": lambda: made.std(axis=0),
    }[form]
    tasks, (blocks,) = evaluate.plan([end()._node])

    def run(count: int) -> bytes:
        found: bytes = threads.run(tasks, [blocks[0].key], count).values[blocks[0].key].tobytes()
        return found

    plain = run(1)
    assert any(kernel._form == form for kernel in kernels())
    assert {run(count) for count in (1, 2, 3, 5)} == {plain}


@given(
    value=st.integers(-(2**66), 2**66) | _SCALARS | st.complex_numbers(),
    dtype=st.sampled_from([*"?bBhHiIlLefdFD"]),
    name=st.sampled_from(["add", "multiply", "maximum", "divide", "less", "power", "remainder"]),
    reverse=st.booleans(),
)
def test_the_dtype_beside_a_scalar_is_numpys(
    value: Any, dtype: str, name: str, reverse: bool
) -> None:
    empty = np.empty(0, dtype)
    ours, theirs = getattr(xp, name), getattr(np, name)

    def called(function: Any, array: Any) -> Any:
        with np.errstate(all="ignore"):
            try:
                made = function(value, array) if reverse else function(array, value)
            except (TypeError, OverflowError) as error:
                return type(error)
        return made.dtype

    assert called(ours, xp.asarray(empty)) == called(theirs, empty)


def test_read_only_blocks_need_no_second_kernel(kernels: Any) -> None:
    a = random(LENGTH)
    shared = a.copy()
    shared.flags.writeable = False
    made = (task,) = evaluate.plan([(xp.asarray(a) * 2 + 1)._node])[0]
    wanted = task.codelet.cpu(a, *task.args[1:], xp=np)  # type: ignore[misc]
    assert len(kernels()) == len(made)
    (kernel,) = kernels()
    same_bits(task.codelet.cpu(shared, *task.args[1:], xp=np), wanted)  # type: ignore[misc]
    assert kernels() == [kernel]  # it was not given up


# --- tables ----------------------------------------------------------------------------------


def test_tables_stay_bounded_after_many_programs(
    kernels: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    block = random(BLOCK + 1)
    refused: list[Any] = []
    monkeypatch.setattr(compiling, "submit", lambda job: refused.append(job) or False)
    table = CodeletTable()
    before = set(threading.enumerate())
    (task,) = evaluate.plan([(xp.asarray(block) * 2)._node])[0]
    program = task.codelet.cpu
    for number in range(10_000):
        other = type(program)(  # type: ignore[misc]
            program.located, program.scalars, program.steps * (1 + number % 2), program.dtype,
            program.reducing,
        )  # fmt: skip
        inputs = type("Inputs", (), {"blocks": [block], "scalars": [2.0], "given": ()})
        # Programs are told apart by what is in them; a name tells these apart as well.
        key = compiled.wanted(_Named(other, number), inputs, block.shape, 10)
        assert key is None
        if number < 600:
            table.source(codelet(f"c{number}", Call(_kernel)))
    assert len(compiled._kernels) <= compiled._kernels.most
    assert len(compiled._seen) <= compiled._seen.most
    assert len(table._known) <= table._known.most
    assert len(programs._codelets) <= programs._codelets.most
    assert set(threading.enumerate()) == before
    assert not files(tmp_path)


BLOCK = 65_536


def _kernel(xp: Any, x: Any) -> Any:
    return x


class _Named:
    """A program that equals no other of another number."""

    def __init__(self, program: Any, number: int) -> None:
        self._program = program
        self._number = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._program, name)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Named) and other._number == self._number


def test_the_queue_has_one_thread_and_refuses_what_is_too_much() -> None:
    queue, go = CompileQueue(), threading.Event()
    ran: list[int] = []
    most: list[int] = []

    def job(number: int) -> None:
        go.wait(30)
        most.append(sum(t.name == THREAD_NAME for t in threading.enumerate()))
        ran.append(number)
        if number == 3:
            raise ValueError("a job that fails is not the end")

    taken = [n for n in range(100) if queue.submit(lambda n=n: job(n))]  # type: ignore[misc]
    go.set()
    assert queue.wait(60)
    assert MOST_WAITING <= len(taken) <= MOST_WAITING + 1  # one may have begun
    assert ran == taken
    assert max(most) == 1
    assert queue.submit(lambda: job(100))
    assert queue.wait(60)
    assert ran[-1] == 100


# --- files -----------------------------------------------------------------------------------


def store(folder: Path) -> tuple[kernel_store.KernelStore, list[str]]:
    said: list[str] = []
    return kernel_store.KernelStore(folder, said.append), said


def test_what_was_written_is_read_whatever_it_is(tmp_path: Path) -> None:
    kept, said = store(tmp_path / "deep" / "down")
    assert kept.read("a") is None
    for content in (b"", b"x", os.urandom(100_000)):
        kept.write("a", content)
        assert kept.read("a") == content
    assert [path.name for path in kept.folder.iterdir()] == ["a.kernel"]
    assert kept.folder.stat().st_mode & 0o777 == 0o700
    assert (kept.folder / "a.kernel").stat().st_mode & 0o777 == 0o600
    assert not said


@given(data=st.data())
def test_a_damaged_file_is_removed_and_replaced(
    data: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kept, said = store(tmp_path_factory.mktemp("kernels"))
    kept.write("a", b"some machine code")
    path = kept.folder / "a.kernel"
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert kept.read("a") is None
    assert not path.exists()
    kept.write("a", b"new")
    assert kept.read("a") == b"new"
    assert not said


def test_the_files_used_last_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_store, "MOST_FILES", 5)
    kept, _ = store(tmp_path / "kernels")
    for number in range(20):
        kept.write(f"k{number}", b"code")
        before = time.time() - 1000 + number
        os.utime(kept.folder / f"k{number}.kernel", (before, before))
        kept.read("k0")  # counts as used
    left = {path.stem for path in kept.folder.iterdir()}
    assert left == {"k0", "k16", "k17", "k18", "k19"}
    monkeypatch.setattr(kernel_store, "MOST_BYTES", 3000)
    kept.write("large", bytes(2500))
    assert sum(path.stat().st_size for path in kept.folder.iterdir()) <= 3000


def test_old_files_and_what_was_left_half_written_go(tmp_path: Path) -> None:
    kept, _ = store(tmp_path / "kernels")
    kept.write("old", b"code")
    (kept.folder / "xyz.partial").write_bytes(b"half")
    (kept.folder / "a note").write_text("not ours to remove")
    for path in kept.folder.iterdir():
        os.utime(path, (1, 1))
    kept.write("new", b"code")
    assert {path.name for path in kept.folder.iterdir()} == {"new.kernel", "a note"}


def test_what_others_may_have_written_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, said = store(tmp_path / "kernels")
    kept.write("a", b"code")
    path = kept.folder / "a.kernel"
    path.chmod(0o666)
    assert kept.read("a") is None
    assert said
    path.chmod(0o600)
    assert kept.read("a") == b"code"
    moved = path.rename(tmp_path / "elsewhere")
    path.symlink_to(moved)
    assert kept.read("a") is None
    path.unlink()
    moved.rename(path)
    said.clear()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert kept.read("a") is None
    kept.write("b", b"code")
    assert said
    assert not (kept.folder / "b.kernel").exists()


def _write_and_read(folder: Path, seed: int) -> None:
    kept, said = store(folder)
    rng = np.random.default_rng(seed)
    for _ in range(150):
        name = f"k{rng.integers(12)}"
        found = kept.read(name)
        assert found is None or found == name.encode() * 1000
        kept.write(name, name.encode() * 1000)
    assert not said


def test_processes_may_use_the_folder_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_store, "MOST_FILES", 4)
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_write_and_read, args=(tmp_path / "kernels", seed))
        for seed in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4


# --- failures --------------------------------------------------------------------------------


def run(kernels: Any, log: pytest.LogCaptureFixture) -> list[str]:
    """Compute a chain before and after it would be compiled; what was logged."""
    a = random(LENGTH)
    with log.at_level(logging.WARNING, logger="agentic_ray"):
        for step in range(4):
            same_bits(xp.asarray(a) * (step + 2) - 1, a * (step + 2) - 1)
            kernels()
    return [record.getMessage() for record in log.records if record.name == "agentic_ray"]


def test_a_kernel_on_disk_is_loaded_by_the_next_process(
    kernels: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(kernels, caplog) == []
    compiled._kernels.clear()  # as in another process
    loaded: list[bool] = []
    load = kernel_build._load
    monkeypatch.setattr(kernel_build, "_load", lambda *a: loaded.append(load(*a)) or loaded[-1])
    assert run(kernels, caplog) == []
    assert loaded == [True]
    assert len(kernels()) == 1


def test_a_file_of_another_kind_is_replaced(
    kernels: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(kernels, caplog)
    (path,) = files(tmp_path)
    kept, _ = store(path.parent)
    good = kept.read(path.stem)
    for content in (b"no pickle", b"(I1\nI2\nt."):  # whole, as far as the check sum knows
        kept.write(path.stem, content)
        compiled._kernels.clear()
        assert run(kernels, caplog) == []
        assert len(kernels()) == 1
        assert len(kept.read(path.stem) or b"") == len(good or b"")


@pytest.mark.parametrize("why", ["file in the way", "no home", "full"])
def test_without_a_folder_kernels_are_kept_in_memory(
    why: str,
    kernels: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if why == "file in the way":
        (tmp_path / "agentic_ray").write_text("")
    elif why == "no home":
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing/can/be/made/here")
    else:

        def full(*args: Any) -> Any:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(kernel_store.os, "replace", full)
    said = run(kernels, caplog)
    assert len(said) == 1
    assert "not kept on disk" in said[0]
    assert len(kernels()) == 1
    if why == "full":
        assert files(tmp_path) == []


def test_what_cannot_be_compiled_stays_in_numpy(
    kernels: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "kernel_source", lambda *_: "this is no Python")
    said = run(kernels, caplog)
    a = random(LENGTH)
    same_bits(xp.asarray(a) / 3 + 2, a / 3 + 2)  # another one: that is not said again
    assert kernels() == []
    assert len(said) == 1
    assert "stay in NumPy" in said[0]


def test_a_kernel_that_raises_is_given_up(
    kernels: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(kernels, caplog)
    (kernel,) = kernels()

    def broken(*args: Any) -> None:
        args[-4][:] = 17.0  # what it wrote by then counts for nothing
        raise RuntimeError("out of order")

    kernel._function = broken
    said = run(kernels, caplog)
    assert kernels() == []
    assert len(said) == 1
    assert "out of order" in said[0]


def test_a_kernel_with_other_bits_is_not_used(
    kernels: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = compiled.kernel_source
    monkeypatch.setattr(
        compiled, "kernel_source", lambda *a: (source(*a) or "").replace(" * ", " * 1.0000001 * ")
    )
    said = run(kernels, caplog)
    assert kernels() == []
    assert len(said) == 1
