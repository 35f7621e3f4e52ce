"""`map_overlap` against NumPy's `pad`, and what it refuses."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import evaluate
from agentic_ray.errors import BlockResultError, InvalidArgumentError, InvalidTypeError

ARRAY = np.arange(35.0).reshape(5, 7)
MODES = {"reflect": "symmetric", "nearest": "edge", "periodic": "wrap"}


@pytest.fixture(autouse=True)
def _here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "ray_session" not in request.fixturenames:
        monkeypatch.setattr(evaluate, "runs_locally", lambda roots: True)


def cut(array: Any = ARRAY, chunks: Any = (2, 3)) -> xp.Array:
    return xp.asarray(array, chunks=chunks)


def padded(array: Any, depths: Any, ways: Any) -> Any:
    """NumPy's margins, axis by axis; and how wide they are."""
    widths = []
    for axis, ((before, after), way) in enumerate(zip(depths, ways, strict=True)):
        pair = (0, 0) if way == "none" else (before, after)
        widths.append(pair)
        one = [(0, 0)] * array.ndim
        one[axis] = pair
        if way in MODES:
            array = np.pad(array, one, mode=MODES[way])
        elif way != "none":
            array = np.pad(array, one, constant_values=way)
    return array, widths


def blocks_with_margins(array: Any, chunks: Any, depths: Any, ways: Any) -> dict[Any, Any]:
    """Each block of the grid with its margins, by position."""
    wide, widths = padded(array, depths, ways)
    result = {}
    edges = [np.cumsum([0, *axis]) for axis in chunks]
    for index in itertools.product(*[range(len(axis)) for axis in chunks]):
        region = []
        for axis, at in enumerate(index):
            low, high = edges[axis][at], edges[axis][at + 1]
            shift = widths[axis][0]
            first = max(low - depths[axis][0] + shift, 0)
            region.append(slice(first, high + depths[axis][1] + shift))
        result[index] = wide[tuple(region)]
    return result


depths = st.integers(0, 4) | st.tuples(st.integers(0, 4), st.integers(0, 4))
boundaries = st.sampled_from(["none", None, "reflect", "periodic", "nearest", 0, 2.5, -1])


@given(st.data())
def test_blocks_are_given_numpys_margins(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple))
    array = np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape) * 1.0
    x = xp.asarray(array, chunks=tuple(data.draw(st.integers(1, 3)) for _ in shape))
    given_depths = tuple(data.draw(depths) for _ in shape)
    ways = tuple(data.draw(boundaries) for _ in shape)
    pairs = [d if isinstance(d, tuple) else (d, d) for d in given_depths]
    wanted = blocks_with_margins(
        array, x.chunks, pairs, ["none" if way is None else way for way in ways]
    )

    def look(block: Any, block_id: Any = None) -> Any:
        np.testing.assert_array_equal(block, wanted[block_id])
        return block * 2

    if data.draw(st.booleans()):
        depth: Any = dict(enumerate(given_depths))
        boundary: Any = dict(enumerate(ways))
    else:
        depth, boundary = given_depths, ways
    found = xp.map_overlap(look, x, depth=depth, boundary=boundary, dtype=float)
    assert found.chunks == x.chunks
    np.testing.assert_array_equal(found.compute(), array * 2)
    wide = x.map_overlap(look, depth, boundary, trim=False, dtype=float)
    rows = {index: block.shape for index, block in wanted.items()}
    for index, (number, shape_of) in zip(rows, enumerate(rows.values()), strict=True):
        assert shape_of == tuple(n[i] for n, i in zip(wide.chunks, index, strict=True)), number
    assert wide.compute().shape == wide.shape


def test_a_stencil(ray_session: ar.Session) -> None:
    values = np.random.default_rng(1).random((60, 50))
    x = xp.asarray(values, chunks=(17, 19)).persist()

    def smooth(b: Any) -> Any:
        return b[1:-1] + b[:-2] + b[2:]

    def step(b: Any) -> Any:
        return np.pad(smooth(b), ((1, 1), (0, 0)))

    found = xp.map_overlap(step, x, depth={0: 1}, boundary="periodic")
    wanted = values + np.roll(values, 1, axis=0) + np.roll(values, -1, axis=0)
    np.testing.assert_allclose(found.compute(), wanted)
    with pytest.raises(BlockResultError, match=r"smooth: block .*margins"):
        xp.map_overlap(smooth, x, depth={0: 1}, boundary="periodic").compute()


def test_several_arrays_lie_under_each_other() -> None:
    x = cut()
    y = xp.asarray(ARRAY * 10, chunks=(5, 2))
    row = xp.asarray(ARRAY[0], chunks=4)
    column = xp.asarray(ARRAY[:, :1])

    def both(a: Any, b: Any) -> Any:
        np.testing.assert_array_equal(a * 10, b)
        return a + b

    for boundary in ("none", "reflect", "periodic"):
        found = xp.map_overlap(both, x, y, depth=2, boundary=boundary, dtype=float)
        np.testing.assert_array_equal(found.compute(), ARRAY * 11)

    def centre(a: Any, r: Any, c: Any) -> Any:
        assert r.shape == a.shape[1:]
        assert c.shape == (a.shape[0], 1)
        return a + r + c

    found = xp.map_overlap(
        centre, x, row, column, depth=[{0: 1, 1: 1}, 1, 1], boundary=["nearest"] * 3,
        dtype=float,
    )  # fmt: skip
    np.testing.assert_array_equal(found.compute(), ARRAY + ARRAY[0] + ARRAY[:, :1])
    with pytest.raises(InvalidArgumentError, match="align_arrays"):
        xp.map_overlap(both, x, y, depth=1, align_arrays=False, dtype=float)


def test_axes_that_are_lost_and_won_with_margins() -> None:
    x = cut()
    found = xp.map_overlap(
        lambda b: b.sum(axis=1), x, depth=(1, 0), boundary="nearest", drop_axis=1
    )
    np.testing.assert_array_equal(found.compute(), ARRAY.sum(axis=1))
    found = xp.map_overlap(
        lambda b: np.stack([b, -b], axis=1), x, depth=1, boundary=0.0, new_axis=1,
        chunks=((4, 4, 3), 2, (5, 5, 3)),
    )  # fmt: skip
    np.testing.assert_array_equal(found.compute(), np.stack([ARRAY, -ARRAY], axis=1))


def test_constants_are_told_apart() -> None:
    x = cut(np.ones(4), 2)
    for value in (0.0, -0.0, 1, True):
        signs = xp.map_overlap(
            lambda b: np.full(b.shape, np.signbit(b[0])), x, depth=1, boundary=value, dtype=bool
        )
        assert signs.compute()[0] == np.signbit(value if value is not True else 1)


def test_bad_depths_and_boundaries_are_refused_at_the_call() -> None:
    x = cut()

    def f(b: Any) -> Any:
        return b

    bad: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({}, InvalidArgumentError, "needs depth="),
        ({"depth": -1}, InvalidArgumentError, "negative"),
        ({"depth": 1.5}, InvalidTypeError, "depth"),
        ({"depth": True}, InvalidTypeError, "depth"),
        ({"depth": (1, 2, 3)}, InvalidArgumentError, "2 axes"),
        ({"depth": {2: 1}}, np.exceptions.AxisError, "2"),
        ({"depth": [1, 2]}, InvalidArgumentError, "list of 2 for 1"),
        ({"depth": ((1, 2, 3), 0)}, InvalidTypeError, "before, after"),
        ({"depth": 1, "boundary": "mirror"}, InvalidArgumentError, "reflect"),
        ({"depth": 1, "boundary": [[1]]}, InvalidTypeError, "number"),
        ({"depth": 1, "boundary": 1j}, InvalidArgumentError, "float64"),
        ({"depth": 3, "allow_rechunk": False}, InvalidArgumentError, "chunk of 1"),
        ({"depth": 2, "boundary": 0, "chunks": (1, 1)}, InvalidArgumentError, "trim=False"),
    ]
    for options, kind, text in bad:
        with pytest.raises(kind, match=text):
            xp.map_overlap(f, x, **options)
    with pytest.raises(InvalidTypeError, match="function first"):
        xp.map_overlap(x, f, depth=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="at least one array"):
        xp.map_overlap(lambda: 1, depth=1)
    with pytest.raises(InvalidArgumentError, match="int64"):
        xp.map_overlap(f, cut(ARRAY.astype(int)), depth=1, boundary=np.nan)
    with pytest.raises(InvalidArgumentError, match="empty"):
        xp.map_overlap(f, xp.zeros((0, 3)), depth=1, boundary="reflect")
    np.testing.assert_array_equal(
        xp.map_overlap(f, xp.zeros((0, 3)), depth=1, boundary=0).compute(), np.zeros((0, 3))
    )
