"""`ar.Pool`, after `multiprocessing.pool.Pool`."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentic_ray as ar
from agentic_ray.errors import JobCancelledError, PoolClosedError, PoolTimeoutError

_WAIT = 120


@pytest.fixture
def pool(ray_session: ar.Session) -> Iterator[ar.Pool]:
    with ar.Pool() as made:
        yield made


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def test_apply_map_and_starmap(pool: ar.Pool) -> None:
    assert pool.apply(pow, (2,), {"exp": 5}) == 32
    assert pool.map(abs, range(-20, 0)) == list(range(20, 0, -1))
    assert pool.map(abs, range(-20, 0), chunksize=7) == list(range(20, 0, -1))
    assert pool.map(abs, []) == []
    pairs = list(itertools.product(range(3), repeat=2))
    assert pool.starmap(pow, pairs) == list(itertools.starmap(pow, pairs))
    assert pool.map(len, [(1, 2), ()]) == [2, 0]
    assert pool.apply(os.getpid) != os.getpid()
    with pytest.raises(ValueError, match="chunksize"):
        pool.map(abs, [1], chunksize=0)


def test_imap(pool: ar.Pool) -> None:
    assert list(pool.imap(abs, range(-9, 9))) == [abs(i) for i in range(-9, 9)]
    assert sorted(pool.imap_unordered(abs, range(-9, 0), chunksize=2)) == list(range(1, 10))
    endless = pool.imap(abs, itertools.count())
    assert list(itertools.islice(endless, 5)) == [0, 1, 2, 3, 4]


def test_imap_goes_on_after_an_exception(pool: ar.Pool) -> None:
    results = pool.imap(lambda i: 1 // i, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert next(results) == 1
    with pytest.raises(StopIteration):
        next(results)


def test_imap_unordered_gives_what_is_there(pool: ar.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    results = pool.imap_unordered(lambda i: (i or _wait_for(gate), i)[1], [0, 7], chunksize=1)
    assert results.next(_WAIT) == 7
    with pytest.raises(PoolTimeoutError):
        results.next(0.1)
    gate.touch()
    assert results.next(_WAIT) == 0


def test_asynchronous_results(pool: ar.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    heard: list[object] = []
    result = pool.apply_async(_wait_for, (gate,), callback=heard.append)
    assert not result.ready()
    with pytest.raises(multiprocessing.TimeoutError) as caught:
        result.get(0.1)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    gate.touch()
    result.wait(_WAIT)
    assert (result.get(), result.successful(), heard) == (None, True, [None])

    failed = pool.starmap_async(divmod, [(1, 1), (1, 0)], error_callback=heard.append)
    with pytest.raises(ZeroDivisionError):
        failed.get(_WAIT)
    assert not failed.successful()
    assert isinstance(heard[1], ZeroDivisionError)
    mapped = pool.map_async(abs, [-1, -2], callback=heard.append)
    assert mapped.get(_WAIT) == [1, 2] == heard[2]


def test_closing(ray_session: ar.Session) -> None:
    pool = ar.Pool(2)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    result = pool.map_async(abs, range(100))
    pool.close()
    pool.join()
    assert result.get(0) == list(range(100))
    with pytest.raises(ValueError, match="not running") as caught:
        pool.apply(abs, (1,))
    assert isinstance(caught.value, PoolClosedError)


def test_terminating_ends_calls_under_way(ray_session: ar.Session, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def hang() -> None:
        begun.touch()
        threading.Event().wait()

    with ar.Pool(1) as pool:
        hanging = pool.apply_async(hang)
        waiting = pool.apply_async(abs, (1,))
        _wait_for(begun)
    with pytest.raises(JobCancelledError):
        hanging.get(_WAIT)
    with pytest.raises(RuntimeError):
        waiting.get(_WAIT)
    pool.join()


def test_initializer(ray_session: ar.Session) -> None:
    def begin(word: str) -> None:
        os.environ["POOL_SAYS"] = word

    with ar.Pool(initializer=begin, initargs=("hello",)) as pool:
        assert set(pool.map(lambda _: os.environ["POOL_SAYS"], range(20))) == {"hello"}


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("read", [0, 1, 20, 20_000])
def test_an_iterable_that_raises_loses_nothing_before_it(
    pool: ar.Pool, read: int, ordered: bool
) -> None:
    def numbers() -> Iterator[int]:
        yield from range(read)
        raise KeyError("unread")

    results = (pool.imap if ordered else pool.imap_unordered)(abs, numbers())
    found: list[int] = []
    with pytest.raises(KeyError, match="unread"):
        found.extend(results)
    assert sorted(found) == list(range(read))
    assert next(results, None) is None
