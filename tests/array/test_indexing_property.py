"""Reading and assigning by any index that NumPy has, against NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import agentic_ray.array as xp
from agentic_ray.array.core import evaluate

Numbers = np.ndarray[Any, Any]

EXAMPLES = settings(max_examples=150, deadline=None)
SHAPES = st.lists(st.integers(0, 4), min_size=0, max_size=4).map(tuple)


def cut(array: Numbers, size: int) -> xp.Array:
    """``array`` as one of ours in chunks of ``size``."""
    return xp.asarray(array.copy(), chunks=size)


def numbered(shape: tuple[int, ...], dtype: Any = np.float64) -> Numbers:
    return np.arange(np.prod(shape, dtype=np.int64), dtype=dtype).reshape(shape)


@st.composite
def entries(draw: st.DrawFn, length: int) -> tuple[Any, int]:
    """One entry of an index and how many axes it takes; rarely one that is out of bounds."""
    kind = draw(st.sampled_from(["int", "slice", "slice", "array", "list", "numpy int", "mask"]))
    bound = max(length, 1)
    near = st.integers(-bound, bound - 1)
    far = st.integers(-bound - 1, bound)
    number = draw(st.sampled_from([near, near, near, near, far]))
    if kind == "int":
        return draw(number), 1
    if kind == "numpy int":
        return np.int64(draw(near)), 1
    if kind == "slice":
        ends = st.none() | st.integers(-6, 6)
        step = st.none() | st.integers(-3, 3).filter(bool)
        return slice(draw(ends), draw(ends), draw(step)), 1
    if kind == "mask":
        return draw(st.lists(st.booleans(), min_size=length, max_size=length).map(np.array)), 1
    shape = draw(st.sampled_from([(), (1,), (2,), (3,), (2, 3), (1, 3), (2, 1), (0,)]))
    count = int(np.prod(shape))
    found = np.array(draw(st.lists(number, min_size=count, max_size=count)), np.intp).reshape(shape)
    return (found.tolist() if kind == "list" else found), 1


def _has(used: list[Any], wanted: Callable[[Any], bool]) -> bool:
    return any(wanted(entry) for entry in used)


def _is_empty_mask(entry: Any) -> bool:
    return isinstance(entry, np.ndarray) and entry.dtype == bool and 0 in entry.shape


@st.composite
def keys(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    """An index of an array of ``shape``: mixes of all that NumPy knows."""
    used: list[Any] = []
    axis = 0
    while axis < len(shape) and draw(st.integers(0, 4)):
        extra = draw(st.integers(0, 11))
        if extra == 0:
            used.append(None)
        elif extra == 1:
            used.append(draw(st.sampled_from([True, False, np.True_, np.False_])))
        elif extra == 2 and axis + 1 < len(shape):
            count = shape[axis] * shape[axis + 1]
            mask = draw(st.lists(st.booleans(), min_size=count, max_size=count))
            used.append(np.array(mask, bool).reshape(shape[axis : axis + 2]))
            axis += 2
        else:
            entry, took = draw(entries(shape[axis]))
            used.append(entry)
            axis += took
    if draw(st.integers(0, 2)) == 0:
        used.insert(draw(st.integers(0, len(used))), Ellipsis)
    if draw(st.integers(0, 7)) == 0:
        used.insert(draw(st.integers(0, len(used))), None)
    # NumPy takes a mask of length 0 for an axis of any length; here it is refused.
    assume(not (_has(used, lambda e: e is Ellipsis) and _has(used, _is_empty_mask)))
    if len(used) == 1 and draw(st.booleans()):
        return used[0]
    return tuple(used)


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], int, Any, bool]:
    """A shape, the length of chunks, an index, and whether its arrays are ours."""
    shape = draw(SHAPES)
    return shape, draw(st.integers(1, 4)), draw(keys(shape)), draw(st.booleans())


def ours_in(key: Any, size: int) -> Any:
    """``key`` with arrays of this package in the place of NumPy's."""
    if isinstance(key, tuple):
        return tuple(ours_in(entry, size) for entry in key)
    return cut(key, size) if isinstance(key, np.ndarray) else key


def outcome(function: Callable[[], Any]) -> Any:
    """The value of a call, or the type of its exception."""
    try:
        found = function()
    except (IndexError, ValueError, TypeError) as error:
        return type(error)
    return found.compute() if isinstance(found, xp.Array) else found


def check(found: Any, wanted: Any) -> None:
    if isinstance(wanted, type):
        assert isinstance(found, type), f"no {wanted}"
        assert issubclass(found, wanted) or issubclass(wanted, found)
        return
    assert not isinstance(found, type), found
    assert np.shape(found) == np.shape(wanted)
    np.testing.assert_array_equal(found, wanted)


@EXAMPLES
@given(cases())
def test_reading(case: tuple[tuple[int, ...], int, Any, bool]) -> None:
    shape, size, key, is_ours = case
    array = numbered(shape)
    own = ours_in(key, size) if is_ours else key
    check(outcome(lambda: cut(array, size)[own]), outcome(lambda: array[key]))


VIEWS: list[Callable[[Any], Any]] = [
    lambda x: x,
    lambda x: x.T,
    lambda x: x[::-1],
    lambda x: x[..., 1:],
    lambda x: x[None],
    lambda x: x.reshape(-1),
    lambda x: x.T[1:],
    lambda x: x[:, ::2],
]


@st.composite
def assignments(draw: st.DrawFn) -> tuple[Any, ...]:
    """A shape, the length of chunks, a view, an index, a value and whether arrays are ours."""
    shape = draw(SHAPES)
    view = draw(st.sampled_from(VIEWS))
    try:
        seen = view(numbered(shape))
    except IndexError:
        view, seen = VIEWS[0], numbered(shape)
    key = draw(keys(seen.shape))
    region = outcome(lambda: seen[key])
    wanted = () if isinstance(region, type) else np.shape(region)
    kind = draw(st.sampled_from(["scalar", "same", "broadcast", "leading", "wrong"]))
    if kind == "scalar" or isinstance(region, type):
        value: Any = draw(st.sampled_from([-7, -7.5, True, np.float32(-3)]))
    else:
        given_shape = list(wanted)
        if kind == "broadcast":
            given_shape = [1 if draw(st.booleans()) else n for n in given_shape]
            given_shape = given_shape[draw(st.integers(0, len(given_shape))) :]
        elif kind == "leading":
            given_shape = [1] * draw(st.integers(1, 2)) + given_shape
        elif kind == "wrong":
            assume(0 not in wanted)  # NumPy looks at no shape where nothing is assigned to
            given_shape = draw(st.lists(st.integers(0, 3), max_size=3))
        value = -1.0 - numbered(tuple(given_shape))
        if draw(st.integers(0, 3)) == 0:
            value = value.tolist()
    return shape, draw(st.integers(1, 4)), view, key, value, draw(st.booleans())


@EXAMPLES
@given(assignments())
def test_assigning(case: tuple[Any, ...]) -> None:
    shape, size, view, key, value, is_ours = case
    array = numbered(shape)
    ours = cut(array, size)
    own = ours_in(key, size) if is_ours else key
    own_value = ours_in(value, size) if is_ours else value

    def assign(target: Any, index: Any, new: Any) -> Any:
        view(target)[index] = new
        return target

    wanted = outcome(lambda: assign(array, key, value))
    check(outcome(lambda: assign(ours, own, own_value)), wanted)
    if isinstance(wanted, type):
        np.testing.assert_array_equal(ours.compute(), numbered(shape))


@pytest.mark.parametrize(
    "key", ["a", 1.5, 1j, {}, (0, "a"), [1.5], [["a"]], slice(0, 1.5), object()]
)
def test_what_is_no_index(key: Any) -> None:
    array = numbered((3, 4))
    for ours in (cut(array, 2), cut(array, 9)):
        check(outcome(lambda x=ours: x[key]), outcome(lambda: array[key]))


# --- many assignments one after the other ------------------------------------------------


def _tasks(array: xp.Array) -> int:
    return len(evaluate.plan([array._node])[0])


def _chain(steps: int) -> tuple[xp.Array, Numbers]:
    ours, array = cut(np.zeros(2000), 500), np.zeros(2000)
    for i in range(steps):
        ours[i] = array[i] = i
    return ours, array


def test_a_chain_of_assignments_makes_a_task_for_each_chunk() -> None:
    for steps in (10, 100, 1000):
        ours, array = _chain(steps)
        assert _tasks(ours) <= 8 + steps // 100
        np.testing.assert_array_equal(ours.compute(), array)


def test_a_chain_that_reads_what_it_wrote() -> None:
    ours, array = cut(np.ones(40), 10), np.ones(40)
    for target in (ours, array):
        for i in range(1, 30):
            target[i] = target[i - 1] * 2 - target[39 - i]
    assert _tasks(ours) < 300
    np.testing.assert_array_equal(ours.compute(), array)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 3), st.booleans()),
                min_size=1, max_size=8), st.integers(1, 5))  # fmt: skip
def test_assignments_that_overlap_in_any_order(steps: list[Any], size: int) -> None:
    array = numbered((10, 10))
    ours = cut(array, size)
    seen = []
    for number, (row, column, step, reads) in enumerate(steps):
        for target in (ours, array):
            new = target[::-1, column] if reads else -1.0 - number
            target[row::step, column] = new[row::step] if reads else new
        if number % 3 == 1:
            seen.append((ours.copy(), array.copy()))
            seen.append((ours[row], array[row].copy()))
    for found, wanted in itertools.chain(seen[::2], [(ours, array)]):
        np.testing.assert_array_equal(found.compute(), wanted)
