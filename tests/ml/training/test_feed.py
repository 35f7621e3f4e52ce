"""Training data in all their forms, held in the cluster and read back batch by batch."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ray import cloudpickle

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray import ml
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.ml.training.feed import Reader, hold
from agentic_ray.ml.training.order import Order

pytestmark = pytest.mark.usefixtures("ray_session")
generator = np.random.default_rng(1)
X = generator.normal(size=(90, 3, 2))
Y = np.arange(90)


def batches(data: Any, size: int = 20, shuffle: bool = False) -> list[Any]:
    """All batches of two workers, which get the feed as a pickle."""
    held = hold(data)
    feed = pickle.loads(cloudpickle.dumps(held.feed))
    order = Order(feed.lengths, 0, shuffle)
    parts = [list(Reader(feed).batches(order, 0, size, rank, 2, 0)) for rank in (0, 1)]
    return [one for step in zip(*parts, strict=True) for one in step]


@pytest.mark.parametrize("chunk", [90, 40, 7])
def test_arrays_computed_or_not(chunk: int) -> None:
    lazy = xp.asarray(X, chunks=(chunk, 3, 1)) * 2.0
    assert np.array_equal(np.concatenate(batches(lazy)), X * 2)
    (kept,) = ar.persist(lazy + 1)
    assert np.array_equal(np.concatenate(batches(kept)), X * 2 + 1)
    assert np.array_equal(np.concatenate(batches(X)), X)


def test_large_arrays_are_sent_as_references() -> None:
    large = np.arange(1_200_000.0).reshape(300_000, 4)
    held = hold((xp.asarray(large, chunks=(100_000, 4)) + 0.5, large[:, 0]))
    assert held.feed.lengths == (100_000,) * 3
    assert len(cloudpickle.dumps(held.feed)) < 50_000
    x, y = Reader(held.feed)._chunk(1)
    assert np.array_equal(x, large[100_000:200_000] + 0.5)
    assert np.array_equal(y, large[100_000:200_000, 0])


def test_several_data_stay_together_in_any_order() -> None:
    found = batches({"x": xp.asarray(X, chunks=(25, 3, 2)), "y": Y}, shuffle=True)
    y = np.concatenate([batch["y"] for batch in found])
    assert sorted(y) == list(range(90))
    assert list(y) != list(range(90))
    assert np.array_equal(np.concatenate([batch["x"] for batch in found]), X[y])
    pairs = batches((X, Y), shuffle=True)
    assert np.array_equal(
        np.concatenate([x for x, _ in pairs]), X[np.concatenate([y for _, y in pairs])]
    )


def test_tables_and_files_with_steps(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": Y, "b": Y * 0.5})
    for n, part in enumerate((table[:50], table[50:])):
        part.to_parquet(tmp_path / f"{n}.parquet")
    for data in (table, str(tmp_path / "*.parquet"), ar.sources.parquet(tmp_path)):
        found = batches(data)
        assert np.array_equal(np.concatenate([batch["a"] for batch in found]), Y)
    both = ml.rows(str(tmp_path / "*.parquet"))
    x = both[["a", "b"]].map(lambda frame: frame.to_numpy() + 1)
    found = batches((x, both["b"]))
    assert np.array_equal(np.concatenate([x for x, _ in found])[:, 0], Y + 1)
    assert np.array_equal(np.concatenate([b for _, b in found]), Y * 0.5)


def test_what_has_no_rows_is_refused() -> None:
    for wrong in ((), {}, {1: X}):
        with pytest.raises(InvalidArgumentError):
            hold(wrong)
    with pytest.raises(InvalidTypeError, match="no rows"):
        hold(object())
    with pytest.raises(ValueError, match="inconsistent"):
        hold((X, Y[:-1]))
