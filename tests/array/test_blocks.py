"""`map_blocks`: what functions see, where blocks lie, and what they may return."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import evaluate
from agentic_ray.errors import (
    BlockResultError,
    InvalidArgumentError,
    InvalidTypeError,
    SerializationError,
)

ARRAY = np.arange(35.0).reshape(5, 7)
FACTOR = 7


def scaled(block: Any) -> Any:
    return block * FACTOR


class Scale:
    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, block: Any) -> Any:
        return block * self.by


@pytest.fixture(autouse=True)
def _here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a session several blocks are computed here, which is as good for most of this."""
    if "ray_session" not in request.fixturenames:
        monkeypatch.setattr(evaluate, "runs_locally", lambda roots: True)


@pytest.fixture
def factor() -> Iterator[Callable[[int], None]]:
    def change(value: int) -> None:
        globals()["FACTOR"] = value

    yield change
    globals()["FACTOR"] = 7


def cut(array: Any = ARRAY, chunks: Any = (2, 3)) -> xp.Array:
    return xp.asarray(array, chunks=chunks)


def same(found: xp.Array, wanted: Any) -> None:
    value = found.compute()
    wanted = np.asarray(wanted)
    assert found.dtype == value.dtype == wanted.dtype
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(value, wanted)


# --- what the function sees ----------------------------------------------------------------


@pytest.mark.parametrize("chunks", [(2, 3), (5, 7)], ids=["several", "one"])
@pytest.mark.parametrize("name", ["map_blocks", "map_overlap", "apply_gufunc"])
def test_a_function_is_taken_at_the_call(
    name: str, chunks: Any, factor: Callable[[int], None]
) -> None:
    x = cut(chunks=chunks)
    call: dict[str, Any] = {
        "map_blocks": lambda f: xp.map_blocks(f, x),
        "map_overlap": lambda f: xp.map_overlap(f, x, depth=1, boundary="reflect"),
        "apply_gufunc": lambda f: xp.apply_gufunc(f, "()->()", x),
    }
    made = call[name](scaled)
    factor(9)
    same(made, ARRAY * 7)
    same(call[name](scaled), ARRAY * 9)
    table = np.array([1.0, 2.0])
    with_table = call[name](lambda b: b + table[0])
    table[0] = 100
    same(with_table, ARRAY + 1)
    same(call[name](lambda b: b + table[0]), ARRAY + 100)
    scale = Scale(2.0)
    with_scale = call[name](scale)
    scale.by = 3.0
    same(with_scale, ARRAY * 2)
    same(call[name](scale), ARRAY * 3)


def test_distributed_functions_are_taken_at_the_call(
    ray_session: ar.Session, factor: Callable[[int], None]
) -> None:
    x = cut()
    made = xp.map_blocks(scaled, x)
    same(made, ARRAY * 7)
    factor(9)
    same(xp.map_blocks(scaled, x), ARRAY * 9)
    same(made + 0, ARRAY * 7)
    scale = Scale(2.0)
    part = functools.partial(np.add, 1.0)
    first = xp.map_blocks(scale, x), xp.map_blocks(part, x)
    scale.by = 5.0
    same(first[0], ARRAY * 2)
    same(xp.map_blocks(scale, x), ARRAY * 5)
    same(first[1], ARRAY + 1)

    def make() -> Callable[[Any], Any]:
        class Local:
            offset = 1

            def of(self, block: Any) -> Any:
                return block + self.offset

        def f(block: Any) -> Any:
            return Local().of(block)

        f.kind = Local  # type: ignore[attr-defined]
        return f

    f = make()
    same(xp.map_blocks(f, x), ARRAY + 1)
    f.kind.offset = 2  # type: ignore[attr-defined]
    same(xp.map_blocks(f, x), ARRAY + 2)


def test_map_reduce_takes_its_functions_at_the_call(
    ray_session: ar.Session, factor: Callable[[int], None]
) -> None:
    def add(a: int, b: int) -> int:
        return a + b + FACTOR

    job = ar.map_reduce_job(scaled, range(4), add, initial=0, chunk_size=1)
    factor(100)
    assert job.result() == (0 + 1 + 2 + 3) * 7 + 4 * 7
    assert ar.map_reduce(scaled, [1]) == [100]
    codelet = ar.Codelet("by_hand", scaled)
    for value in (3, 4):
        factor(value)
        task = ar.Task.of(codelet, 10, key="only")
        assert ray_session.submit(ar.TaskGraph([task], ["only"])).result() == [10 * value]


def test_arguments_are_taken_at_the_call() -> None:
    weights = np.ones(3)
    made = xp.map_blocks(
        lambda b, w, *, more: b + w.sum() + more["k"], cut(), weights, more={"k": 1}
    )
    weights[:] = 50
    same(made, ARRAY + 4)
    same(xp.map_blocks(lambda b, k: b + k, cut(), k=xp.asarray(2.0)), ARRAY + 2)


@given(st.sampled_from([0.0, -0.0, 1, 1.0, True, False, 0]), st.data())
def test_arguments_that_are_equal_but_not_the_same(one: Any, data: st.DataObject) -> None:
    other = data.draw(st.sampled_from([0.0, -0.0, 1, 1.0, True, False, 0]))
    for value in (one, other):
        found = xp.map_blocks(
            lambda b, k: np.full(b.shape, repr(k).encode(), "S8").view("V8"),
            cut(),
            k=value,
            dtype="V8",
        )
        seen = {np.void(number).tobytes().rstrip(b"\0") for number in found.compute().ravel()}
        assert seen == {repr(value).encode()}


def test_a_function_that_writes_to_its_block_changes_nothing_else() -> None:
    array = ARRAY.copy()
    x = xp.from_numpy(array, chunks=(2, 3))

    def doubled(block: Any) -> Any:
        block *= 2
        return block

    for z in (x, x + 0, cut(chunks=(5, 7))):
        same(xp.map_blocks(doubled, z) + z, ARRAY * 3)
    np.testing.assert_array_equal(array, ARRAY)


def test_what_cannot_be_captured_is_refused_at_the_call() -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="lock"):
        xp.map_blocks(lambda b: lock and b, cut(chunks=(5, 7)))


# --- shapes ----------------------------------------------------------------------------------


def test_axes_that_are_lost_and_won() -> None:
    x = cut()
    same(xp.map_blocks(lambda b: b.mean(axis=0), x, drop_axis=0), ARRAY.mean(axis=0))
    same(xp.map_blocks(lambda b: b.sum(axis=(0, 1)), x, drop_axis=(0, -1)), ARRAY.sum())
    same(xp.map_blocks(lambda b: b[:, None], x, new_axis=1), ARRAY[:, None])
    same(x.map_blocks(lambda b: b[None, ..., None], new_axis=[0, -1]), ARRAY[None, ..., None])
    stacked = xp.map_blocks(
        lambda b: np.stack([b, -b]), x, new_axis=0, chunks=(2, x.chunks[0], x.chunks[1])
    )
    same(stacked, np.stack([ARRAY, -ARRAY]))
    swapped = xp.map_blocks(lambda b: b.sum(axis=1)[None], x, drop_axis=1, new_axis=0)
    same(swapped, ARRAY.sum(axis=1)[None])
    several = xp.map_blocks(
        lambda b, block_id: b[None] * block_id[0], x, new_axis=0, chunks=((1, 1), *x.chunks)
    )
    same(several, np.stack([ARRAY * 0, ARRAY]))


def test_chunks_of_the_result() -> None:
    x = cut()
    total = xp.map_blocks(lambda b: b.sum(keepdims=True), x, chunks=(1, 1))
    assert total.chunks == ((1, 1, 1), (1, 1, 1))
    assert float(total.sum()) == ARRAY.sum()
    twice = xp.map_blocks(lambda b: np.repeat(b, 2, axis=0), x, chunks=((4, 4, 2), x.chunks[1]))
    same(twice, np.repeat(ARRAY, 2, axis=0))
    ends = xp.map_blocks(lambda b: b[:, :1], x, chunks=(x.chunks[0], (1, 1, 1)))
    same(ends, ARRAY[:, ::3])


def test_blocks_made_from_nothing() -> None:
    made = xp.map_blocks(
        lambda block_info: np.arange(*block_info[None]["array-location"][0]),
        chunks=((4, 2, 3),), dtype=int,
    )  # fmt: skip
    same(made, np.arange(9))
    same(xp.map_blocks(lambda block_id: np.full((2, 1), block_id[1]), chunks=((2,), (1, 1))), [
        [0, 1], [0, 1]])  # fmt: skip


def test_arguments_that_are_no_arrays() -> None:
    x = cut()
    same(xp.map_blocks(lambda k, b, w: k * b + w.sum(), 2, x, np.ones(4)), ARRAY * 2 + 4)
    same(xp.map_blocks(lambda b, c: b + c, x, xp.asarray(ARRAY[0], chunks=2)), ARRAY + ARRAY[0])
    same(xp.map_blocks(lambda b: b + 1, ARRAY), ARRAY + 1)
    same(xp.map_blocks(lambda b, none: b, x, None), ARRAY)


def test_where_blocks_lie() -> None:
    x = cut()
    row = xp.asarray(ARRAY[0], chunks=3)
    ids = xp.map_blocks(lambda b, block_id: np.full(b.shape, 10 * block_id[0] + block_id[1]), x)
    wanted = np.add.outer([0, 0, 10, 10, 20], [0, 0, 0, 1, 1, 1, 2])
    same(ids, wanted)
    seen: dict[Any, Any] = {}

    def noted(k: int, b: Any, c: Any, block_info: Any = None) -> Any:
        if block_info[None]["chunk-location"] == (1, 2):
            return np.full(b.shape, repr(block_info).encode(), "S900").view("V900")
        return np.zeros(b.shape, "V900")

    found = xp.map_blocks(noted, 3, x, row, dtype="V900").compute()
    seen = eval(found[2, 6].tobytes().rstrip(b"\0"), {"dtype": np.dtype})
    common = {"array-location": [(2, 4), (6, 7)], "chunk-location": (1, 2), "shape": (5, 7)}
    common["num-chunks"] = (3, 3)
    assert seen[1] == common
    assert seen[2] == {
        "shape": (7,), "num-chunks": (3,), "array-location": [(6, 7)], "chunk-location": (2,),
    }  # fmt: skip
    assert seen[None] == {**common, "chunk-shape": (2, 1), "dtype": np.dtype("V900")}
    assert set(seen) == {1, 2, None}


@given(st.data())
def test_any_grid_gives_what_one_block_gives(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple))
    array = np.arange(float(np.prod(shape))).reshape(shape)
    chunks = tuple(data.draw(st.integers(1, 3)) for _ in shape)
    x = xp.asarray(array, chunks=chunks)
    axis = data.draw(st.integers(0, len(shape) - 1))
    with_axes = xp.map_blocks(
        lambda b: np.expand_dims(b.sum(axis=axis), axis), x, drop_axis=axis, new_axis=axis
    )
    same(with_axes, array.sum(axis=axis, keepdims=True))
    position = xp.map_blocks(
        lambda b, block_info: b * 0 + block_info[0]["array-location"][axis][0], x
    )
    starts = np.arange(shape[axis]) // chunks[axis] * chunks[axis]
    grid = np.broadcast_to(
        np.expand_dims(starts, [a for a in range(len(shape)) if a != axis]), shape
    )
    same(position, grid.astype(float))


# --- what is refused ---------------------------------------------------------------------------


def test_a_block_of_another_shape_is_refused() -> None:
    def means(block: Any) -> Any:
        return block.mean(axis=0, keepdims=True)

    for chunks in ((2, 3), (5, 7)):
        with pytest.raises(BlockResultError, match=r"means: block \(0, 0\).*drop_axis="):
            xp.map_blocks(means, cut(chunks=chunks), dtype=float).compute()
    with pytest.raises(BlockResultError, match=r"\(1, 3\), expected \(2, 3\)"):
        float(xp.map_blocks(means, cut(), dtype=float).sum())
    with pytest.raises(BlockResultError, match="list"):
        xp.map_blocks(lambda b: [[1], [2, 3]], cut(), dtype=float).compute()


def test_a_refused_block_is_an_error_of_the_session_too(ray_session: ar.Session) -> None:
    with pytest.raises(BlockResultError, match=r"block \([01], \d\)"):
        xp.map_blocks(lambda b: b[:1], cut(), dtype=float).compute()
    with pytest.raises(BlockResultError, match=r"block \(2, \d\).*int64"):
        xp.map_blocks(lambda b: b * (1.5 if len(b) == 1 else 1), cut(ARRAY.astype(int)), dtype=int
        ).compute()  # fmt: skip


dtypes = st.sampled_from(["bool", "int8", "int64", "uint8", "float32", "float64", "complex128"])


@given(dtypes, dtypes)
def test_dtypes_are_converted_only_if_that_is_safe(returned: str, said: str) -> None:
    made = xp.map_blocks(lambda b: np.ones(b.shape, returned), cut(), dtype=said)
    if np.can_cast(returned, said, "same_kind"):
        same(made, np.ones(ARRAY.shape, said))
    else:
        with pytest.raises(BlockResultError, match=f"dtype {returned}, expected {said}"):
            made.compute()


def test_bad_arguments_are_refused_at_the_call() -> None:
    x = cut()

    def f(b: Any) -> Any:
        return b

    with pytest.raises(InvalidTypeError, match="function first"):
        xp.map_blocks(x, f)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match=r"f: .*'k'"):
        xp.map_blocks(f, x, k=1)
    with pytest.raises(InvalidTypeError, match="f: too many"):
        xp.map_blocks(f, x, x, dtype=float)
    with pytest.raises(InvalidArgumentError, match="an array"):
        xp.map_blocks(lambda: 1)
    with pytest.raises(InvalidArgumentError, match="2 entries for a result of 1"):
        xp.map_blocks(f, x, drop_axis=0, chunks=(1, 1))
    with pytest.raises(InvalidArgumentError, match="3 blocks go in, 2"):
        xp.map_blocks(f, x, chunks=((1, 1), (3, 3, 1)))
    with pytest.raises(InvalidTypeError, match="chunks"):
        xp.map_blocks(f, x, chunks=(1.5, 2))
    with pytest.raises(np.exceptions.AxisError):
        xp.map_blocks(f, x, drop_axis=2)
    with pytest.raises(InvalidArgumentError, match="repeated"):
        xp.map_blocks(f, x, drop_axis=(0, 0))
    with pytest.raises(InvalidTypeError):
        xp.map_blocks(f, x, new_axis="a")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="objects"):
        xp.map_blocks(f, x, dtype=object)
    with pytest.raises(InvalidTypeError, match="meta"):
        xp.map_blocks(f, x, meta=[1])
    with pytest.raises(InvalidArgumentError, match="meta has 1"):
        xp.map_blocks(f, x, meta=np.empty(0))
    with pytest.raises(InvalidArgumentError, match="give dtype="):
        xp.map_blocks(lambda b: b[:, 1], x, drop_axis=1)
    with pytest.raises(ValueError, match="broadcast"):
        xp.map_blocks(lambda a, b: a, x, xp.ones(4))


def test_meta_says_the_dtype() -> None:
    made = xp.map_blocks(lambda b: b, cut(), meta=np.empty((0, 0), np.float32))
    same(made, ARRAY.astype(np.float32))


# --- chunks ----------------------------------------------------------------------------------


def test_rechunk_understands_what_dask_users_write() -> None:
    x = xp.zeros((1000, 400), chunks=(1000, 400))
    for size, most in (("1 MB", 10**6), ("64KiB", 65536), ("0.1MB", 10**5)):
        for chunks in (size, (size, -1), {0: size}, (None, size)):
            y = x.rechunk(chunks)
            assert max(n * m for n, m in itertools.product(*y.chunks)) * 8 <= most
            assert y.shape == x.shape
    assert x.rechunk({0: 300}).chunks == ((300, 300, 300, 100), (400,))
    assert x.rechunk((300, -1)).rechunk({-1: 200}).chunks == ((300, 300, 300, 100), (200, 200))
    assert x.rechunk((300, None), balance=True).chunks == ((250,) * 4, (400,))
    assert x.rechunk(-1).chunks == x.rechunk(None).chunks == ((1000,), (400,))
    assert x.rechunk((100, "auto")).chunks[0] == (100,) * 10
    for bad in ("1 xB", "0.1", "none", (1, "x")):
        with pytest.raises(InvalidArgumentError, match=r"1 MB|at least one byte"):
            x.rechunk(bad)
    with pytest.raises(np.exceptions.AxisError):
        x.rechunk({2: 1})
    with pytest.raises(InvalidTypeError):
        x.rechunk(1.5)
    with pytest.raises(InvalidTypeError):
        x.rechunk(((500.0, 500.0), 400))
