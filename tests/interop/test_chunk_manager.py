"""What xarray asks of a chunk manager, called as xarray and its users call it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import agentic_ray.array as xp
from agentic_ray.errors import BlockResultError, InvalidArgumentError, InvalidTypeError

pytest.importorskip("xarray")

from xarray.namedarray.parallelcompat import list_chunkmanagers

MATRIX = np.random.default_rng(0).normal(size=(20, 6))


@pytest.fixture(scope="module")
def manager() -> Any:
    return list_chunkmanagers()["agentic_ray"]


def cut(chunks: Any = (7, 4)) -> xp.Array:
    return xp.asarray(MATRIX, chunks=chunks)


def test_normalize_chunks(manager: Any) -> None:
    for given, more, wanted in [
        (5, {}, ((5, 5, 5, 5), (5, 1))),
        ((5, -1), {}, ((5, 5, 5, 5), (6,))),
        ({0: 10}, {}, ((10, 10), (6,))),
        ({0: 10}, {"previous_chunks": (4, 3)}, ((10, 10), (3, 3))),
        (((8, 12), (6,)), {}, ((8, 12), (6,))),
        ("auto", {}, ((20,), (6,))),
        ("auto", {"limit": 6 * 8 * 7, "previous_chunks": (2, 6)}, ((6, 6, 6, 2), (6,))),
        (("auto", 3), {"previous_chunks": ((8, 12), 3)}, ((20,), (3, 3))),
    ]:
        found = manager.normalize_chunks(given, shape=(20, 6), dtype=np.dtype(float), **more)
        assert found == wanted, given
    assert manager.normalize_chunks(((2, 3),)) == ((2, 3),)
    assert manager.normalize_chunks((2, 3), shape=(5,)) == ((2, 3),)
    with pytest.raises(InvalidArgumentError):
        manager.normalize_chunks((5, 5, 5), shape=(20, 6))
    with pytest.raises(InvalidArgumentError):
        manager.normalize_chunks(5)


def test_arguments_that_nothing_is_done_with_are_refused(manager: Any) -> None:
    x = cut()
    for call in (
        lambda: manager.from_array(MATRIX, 5, lock=True),
        lambda: manager.rechunk(x, 5, spam=1),
        lambda: manager.compute(x, scheduler="threads"),
        lambda: manager.persist(x, scheduler="threads"),
        lambda: manager.store(x, np.empty((20, 6)), return_stored=True),
        lambda: manager.scan(np.cumsum, np.add, 0, x, axis=0, spam=1),
    ):
        with pytest.raises(InvalidTypeError, match="has no argument"):
            call()
    with pytest.raises(InvalidArgumentError, match="auto"):
        manager.shuffle(x, [[0]], 0, 5)
    assert manager.from_array(MATRIX, 10, name="x", inline_array=True, meta=None).shape == (20, 6)


def test_from_array_does_not_see_later_changes(manager: Any) -> None:
    array = MATRIX.copy()
    made = manager.from_array(array, (5, -1))
    array[:] = 0
    np.testing.assert_array_equal(made, MATRIX)


def test_compute_and_rechunk(manager: Any) -> None:
    x = cut()
    first, other, third = manager.compute(x, MATRIX, x + 1)
    assert other is MATRIX
    np.testing.assert_array_equal(first, MATRIX)
    np.testing.assert_array_equal(third, MATRIX + 1)
    assert manager.rechunk(x, {0: 10, 1: None}).chunks == ((10, 10), (4, 2))
    assert manager.rechunk(x, (None, 6)).chunks == ((7, 7, 6), (6,))


def test_shuffle(manager: Any) -> None:
    groups = [[3, 4, 0], [1], [5, 19, 2, 2, 2], [], [7, 8]]
    made = manager.shuffle(cut(), groups, 0, "auto")
    assert made.chunks[0] == (4, 7)
    np.testing.assert_array_equal(made, MATRIX[[i for group in groups for i in group]])


def test_store_here(manager: Any) -> None:
    one, other = np.zeros((20, 6)), np.zeros((22, 6))
    manager.store([cut(), cut() * 2], [one, other], regions=[None, (slice(2, 22), slice(0, 6))])
    np.testing.assert_array_equal(one, MATRIX)
    np.testing.assert_array_equal(other[2:], MATRIX * 2)
    assert not other[:2].any()
    with pytest.raises(ValueError, match="does not fit"):
        manager.store(cut(), np.zeros((3, 6)))


def test_unify_chunks(manager: Any) -> None:
    x, y = cut(), xp.asarray(MATRIX[:, 0], chunks=10)
    chunks, (first, second, third) = manager.unify_chunks(x, "ij", y, "i", 5, None)
    assert chunks == {"i": (7, 3, 4, 6), "j": (4, 2)}
    assert (first.chunks, second.chunks, third) == (((7, 3, 4, 6), (4, 2)), ((7, 3, 4, 6),), 5)
    with pytest.raises(InvalidArgumentError, match="6 and 20"):
        manager.unify_chunks(x, "ij", y, "j")


# --- functions of several chunks: executors call them --------------------------------------------


def _first(x: Any, axis: Any, keepdims: bool) -> Any:
    taken = np.take(x, [0], axis=axis[0])
    return taken if keepdims else taken.squeeze(axis)


def test_reduction(manager: Any, ray_session: object) -> None:
    x = cut((1, 4))  # 20 partial results: combined in two steps
    for axis in 0, 1, (0, 1), None:
        for keepdims in False, True:
            made = manager.reduction(
                x, np.sum, np.sum, np.sum, axis=axis, dtype=float, keepdims=keepdims
            )
            np.testing.assert_allclose(made, MATRIX.sum(axis=axis, keepdims=keepdims))
    made = manager.reduction(x, _first, aggregate_func=_first, axis=0, dtype=float)
    np.testing.assert_array_equal(made, MATRIX[0])
    wrong = manager.reduction(
        x, lambda x, axis, keepdims: x[:0], aggregate_func=np.sum, axis=0, dtype=float
    )
    with pytest.raises(BlockResultError):
        wrong.compute()


def test_scan(manager: Any, ray_session: object) -> None:
    made = manager.scan(np.cumsum, np.add, 0, cut(), axis=0, dtype=float, method="blelloch")
    np.testing.assert_allclose(made, MATRIX.cumsum(axis=0))
    made = manager.scan(np.maximum.accumulate, np.maximum, 0, cut(), axis=1)
    np.testing.assert_array_equal(made, np.maximum.accumulate(MATRIX, axis=1))


def test_blockwise(manager: Any, ray_session: object) -> None:
    x, row, column = cut(), xp.asarray(MATRIX[0], chunks=2), xp.asarray(MATRIX[:, 0], chunks=5)
    for found, wanted in [
        (manager.blockwise(np.add, "ij", x, "ij", x, "ij", dtype=float), MATRIX * 2),
        (manager.blockwise(np.transpose, "ji", x, "ij"), MATRIX.T),
        (manager.blockwise(np.multiply.outer, "ij", column, "i", row, "j"),
         np.multiply.outer(MATRIX[:, 0], MATRIX[0])),
        (manager.blockwise(np.dot, "ik", x, "ij", x.T, "jk", concatenate=True, dtype=float),
         MATRIX @ MATRIX.T),
        (manager.blockwise(lambda a, n: a * n, "ij", x, "ij", 3, None), MATRIX * 3),
        (manager.blockwise(lambda a: np.repeat(a, 2, axis=0), "ij", x, "ij",
                           adjust_chunks={"i": lambda n: 2 * n}), np.repeat(MATRIX, 2, axis=0)),
        (manager.blockwise(lambda a: np.stack([a, a], 1), "ikj", x, "ij", new_axes={"k": 2}),
         np.stack([MATRIX, MATRIX], 1)),
        (manager.blockwise(lambda a: a.sum(axis=1), "i", x, "ij", concatenate=True),
         MATRIX.sum(axis=1)),
    ]:  # fmt: skip
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted)
    with pytest.raises(InvalidArgumentError, match="concatenate"):
        manager.blockwise(np.sum, "i", x, "ij")
    with pytest.raises(InvalidArgumentError, match="align_arrays"):
        manager.blockwise(np.add, "ij", x, "ij", cut(5), "ij", align_arrays=False)
    with pytest.raises(InvalidArgumentError, match="new_axes"):
        manager.blockwise(np.add, "ijk", x, "ij")
