"""The result cache: what counts as equal, bounds, damage, and how to do without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.master import Master, Registry
from agentic_ray.master.cache import ResultCache, cache_key
from agentic_ray.master.results import DirectoryResults

CALLS: list[Any] = []


def note(params: Any) -> Any:
    CALLS.append(params)
    return [params]


def note_otherwise(params: Any) -> Any:
    CALLS.append(params)
    return {"other": params}


@pytest.fixture
def registry() -> Registry:
    CALLS.clear()
    made = Registry()
    made.register("note", note)
    made.register("effects", note, effects=True)
    made.register("uncached", note, cache=False)
    return made


@pytest.mark.parametrize("journalled", [True, False])
def test_an_equal_job_is_answered_at_once_and_says_so(
    registry: Registry, tmp_path: Path, journalled: bool
) -> None:
    with Master(workloads=registry, journal=tmp_path if journalled else None) as master:
        first = master.submit("note", {"a": 1, "b": [2.5]})
        assert first.result(60) == [{"a": 1, "b": [2.5]}]
        again = master.submit("note", {"b": [2.5], "a": 1})
        assert again.status() == "succeeded"
        assert again.result(0) == first.result()
        assert again.id != first.id
        shown = master.get_task_status(again.id)
        assert (shown["cached"], shown["attempts"]) == (True, 0)
        assert not master.get_task_status(first.id)["cached"]
        for other in ({"a": 1, "b": [2]}, {"a": 1.0, "b": [2.5]}, {"a": True, "b": [2.5]}):
            assert not master.submit("note", other).record.cached
    assert len(CALLS) == 4
    if journalled:
        with Master(workloads=registry, journal=tmp_path) as later:
            assert later.submit("note", {"a": 1, "b": [2.5]}).record.cached


def test_what_may_differ_is_computed_again(registry: Registry) -> None:
    with Master(workloads=registry) as master:
        master.submit("note", 1).result(60)
        assert not master.submit("note", 1, cache=False).record.cached
        registry.register("note", note, version="2", replace=True)
        assert not master.submit("note", 1).record.cached
        registry.register("note", note_otherwise, version="2", replace=True)
        assert master.submit("note", 1).result(60) == {"other": 1}
        for name in ("effects", "uncached"):
            for _ in range(2):
                assert master.submit(name, 1).result(60) == [1]
                assert not any(r.cached for r in master.jobs())
    with Master(workloads=registry, cache_bytes=0) as master:
        for _ in range(2):
            master.submit("note", 5).result(60)
    assert CALLS.count(5) == 2


TABLE = np.ones(3)
RATES = {"a": 1}
STEPS = [1, 2]


def look(params: Any) -> Any:
    CALLS.append(params)
    return [float(TABLE.sum()), RATES["a"], len(STEPS)]


def count(params: Any) -> Any:
    STEPS.append(0)
    return len(STEPS)


def test_what_the_function_sees_is_part_of_the_key(registry: Registry) -> None:
    registry.register("look", look)
    registry.register("count", count)
    try:
        with Master(workloads=registry) as master:
            assert master.submit("look", 1).result(60) == [3.0, 1, 2]
            assert master.submit("look", 1).record.cached
            TABLE[0] = 5
            assert master.submit("look", 1).result(60) == [7.0, 1, 2]
            RATES["a"] = 2
            assert master.submit("look", 1).result(60) == [7.0, 2, 2]
            STEPS.append(3)
            assert master.submit("look", 1).result(60) == [7.0, 2, 3]
            assert master.submit("look", 1).record.cached
            # A function that changes what it sees is never answered from the cache.
            assert [master.submit("count", 1).result(60) for _ in range(3)] == [4, 5, 6]
    finally:
        TABLE[0], RATES["a"], STEPS[:] = 1, 1, [1, 2]


def test_the_schema_is_part_of_the_key(registry: Registry) -> None:
    def run(params: Any) -> float:
        return float(params.scale)

    for default in (2.0, 3.0, 2.0):

        @dataclass
        class Params:
            scale: float = default

        registry.register("run", run, schema=Params, replace=True)
        with Master(workloads=registry) as master:
            assert master.submit("run", {}).result(60) == default
    keys = set()
    for factor in (1, 2):
        registry.register("run", run, schema=lambda p, f=factor: p * f, replace=True)
        keys.add(cache_key(registry.get("run"), "user", "1"))
    assert len(keys) == 2


def test_a_damaged_entry_is_computed_anew(registry: Registry, tmp_path: Path) -> None:
    with Master(workloads=registry, journal=tmp_path) as master:
        master.submit("note", "hello").result(60)
        (entry,) = (tmp_path / "journal.sqlite3.cache").iterdir()
        entry.write_bytes(entry.read_bytes().replace(b"hello", b"hallo"))
        job = master.submit("note", "hello")
        assert job.result(60) == ["hello"]
        assert not job.record.cached
        assert master.submit("note", "hello").record.cached
    assert CALLS == ["hello", "hello"]


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 60), st.booleans()), max_size=40)
)
def test_it_is_bounded_and_forgets_what_was_used_longest_ago(steps: Any) -> None:
    cache = ResultCache(100)
    model: dict[str, int] = {}
    for key, size, is_put in steps:
        if is_put:
            cache.put(key, '"' + "x" * size + '"')
            model.pop(key, None)
            model[key] = size + 2
            while sum(model.values()) > 100:
                del model[next(iter(model))]
        else:
            expected = model.pop(key, None)
            found = cache.get(key)
            assert (found and found[1]) == expected
            if expected is not None:
                model[key] = expected
    cache.put("huge", "x" * 101)
    assert cache.get("huge") is None


def test_what_is_on_disk_is_found_and_bounded_again(tmp_path: Path) -> None:
    cache = ResultCache(100, DirectoryResults(tmp_path, sync=False))
    for key in "abc":
        cache.put(key, '"' + key * 28 + '"')
    smaller = ResultCache(60, DirectoryResults(tmp_path, sync=False))
    assert smaller.get("a") is None
    assert smaller.get("b") == ("b" * 28, 30)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_function_that_holds_what_cannot_be_looked_into_has_no_key(registry: Registry) -> None:
    import threading

    lock = threading.Lock()
    held = registry.register("held", lambda params: lock.locked())
    assert cache_key(held, "user", "1") is None
    note_1, note_2 = (cache_key(registry.get("note"), "user", text) for text in "12")
    assert note_1 != note_2
    assert note_1 != cache_key(registry.get("note"), "another", "1")


def test_a_journal_and_a_store_exclude_each_other(tmp_path: Path) -> None:
    from agentic_ray.master import MemoryStore

    with pytest.raises(InvalidArgumentError, match="either"):
        Master(journal=tmp_path, store=MemoryStore())
