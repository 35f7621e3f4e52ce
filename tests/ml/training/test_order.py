"""Order of the rows in training: a function of seed, epoch and step, whoever trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.ml.training.order import WINDOW, Order, gang, most_workers

lengths = st.lists(st.integers(0, 9), min_size=1, max_size=2 * WINDOW + 3).filter(sum)


def rows_of(order: Order, pieces: Sequence[object]) -> list[int]:
    """Numbers in the data of the rows of a batch."""
    edges = np.cumsum([0, *order.lengths])
    found: list[int] = []
    for piece in pieces:
        numbers = [
            np.arange(edges[chunk], edges[chunk + 1])
            for chunk in piece.window.chunks  # type: ignore[attr-defined]
        ]
        found += np.concatenate(numbers)[piece.rows].tolist()  # type: ignore[attr-defined]
    return found


def epoch_of(order: Order, epoch: int, batch: int, workers: int, first: int = 0) -> list[list[int]]:
    """Rows of each batch, of all workers together."""
    parts = [list(order.batches(epoch, batch, rank, workers, first)) for rank in range(workers)]
    return [
        [row for part in step for row in rows_of(order, part)] for step in zip(*parts, strict=True)
    ]


@given(lengths, st.integers(0, 3), st.integers(1, 4), st.integers(0, 6), st.booleans())
def test_each_row_comes_once_an_epoch_but_for_a_last_batch_that_is_too_small(
    lengths: list[int], epoch: int, workers: int, more: int, shuffle: bool
) -> None:
    order = Order(tuple(lengths), seed=7, shuffle=shuffle)
    batch = workers + more
    found = [row for step in epoch_of(order, epoch, batch, workers) for row in step]
    left_out = order.total % batch if order.total % batch < workers else 0
    assert len(found) == order.total - left_out
    assert len(set(found)) == len(found)
    if not shuffle:
        assert found == list(range(len(found)))


@given(lengths, st.integers(0, 3), st.integers(4, 9))
def test_batches_are_the_same_for_any_number_of_workers(
    lengths: list[int], epoch: int, batch: int
) -> None:
    order = Order(tuple(lengths), seed=1)
    alone = epoch_of(order, epoch, batch, 1)
    for workers in (2, 3, 4):
        together = epoch_of(order, epoch, batch, workers)
        assert together == alone[: len(together)]


@given(lengths, st.integers(1, 3), st.integers(0, 30))
def test_an_epoch_goes_on_at_any_step(lengths: list[int], workers: int, first: int) -> None:
    order = Order(tuple(lengths), seed=2)
    whole = epoch_of(order, 1, 4, workers)
    assert epoch_of(order, 1, 4, workers, first) == whole[first:]


def test_epochs_and_seeds_differ() -> None:
    found = {
        tuple(rows_of(order, next(order.batches(epoch, 20, 0, 1))))
        for order in (Order((10, 10)), Order((10, 10), seed=1))
        for epoch in (0, 1)
    }
    assert len(found) == 4


def test_rows_of_many_chunks_are_read_a_window_at_a_time() -> None:
    order = Order((5,) * (3 * WINDOW))
    windows = order.windows(0)
    assert [len(window.chunks) for window in windows] == [WINDOW] * 3
    assert all(len(pieces) <= 2 for pieces in order.batches(0, 5 * WINDOW, 0, 1))


@given(st.integers(1, 12), st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_a_gang_has_the_same_number_on_each_node_and_fits(workers: int, room: list[int]) -> None:
    found = gang(workers, room)
    if found is None:
        assert not any(
            workers % nodes == 0 and sum(count >= workers // nodes for count in room) >= nodes
            for nodes in range(1, len(room) + 1)
        )
        return
    each, nodes = found
    assert each * nodes == workers
    assert sum(count >= each for count in room) >= nodes
    assert workers <= most_workers(room)
