"""Content keys: equal content has an equal key in every process, other content another."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.errors import SerializationError
from agentic_ray.graph import Codelet, CostHint, Ref, Task, content_key


def key_of(*parts: Any) -> str:
    return content_key("k", *parts)


@dataclass(frozen=True)
class Point:
    x: float
    y: float


@dataclass
class Unhashable:
    factor: int

    def __call__(self, value: int) -> int:
        return value * self.factor


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value

    def method(self) -> Any:
        return self.value


DIFFERENT: list[Any] = [
    None,
    False,
    True,
    0,
    1,
    -1,
    10**5000,
    0.0,
    -0.0,
    1.0,
    float("nan"),
    float("inf"),
    1j,
    "",
    "1",
    "\udc80",
    b"",
    b"1",
    (),
    [],
    {},
    set(),
    frozenset(),
    (1,),
    [1],
    {1: 1},
    {1},
    frozenset({1}),
    (1, 2),
    (1, (2,)),
    ((1, 2),),
    ((), ()),
    ("ab", "c"),
    ("a", "bc"),
    {"a": 1, "b": 2},
    {"a": 2, "b": 1},
    {"a": {"b": 1}},
    {"a", "b"},
    range(3),
    range(0, 3, 2),
    slice(3),
    Point(1.0, 2.0),
    Point(2.0, 1.0),
    Plain(1),
    Plain(2),
    Plain({1, 2}),
    Ref("a"),
    Ref("b"),
    Plain,
    Point,
    np.float32(1),
    np.float64(1),
    len,
    sum,
    np.add,
    np.mean,
    np,
]


def test_different_content_has_different_keys() -> None:
    keys = [key_of(value) for value in DIFFERENT]
    clashes = [
        (DIFFERENT[i], DIFFERENT[j])
        for i, j in itertools.combinations(range(len(keys)), 2)
        if keys[i] == keys[j]
    ]
    assert clashes == []


def test_keys_do_not_run_into_each_other_at_the_borders_of_parts() -> None:
    assert key_of("ab", "c") != key_of("a", "bc") != key_of("abc")
    assert key_of((1,), 2) != key_of((1, 2))
    assert content_key("a") != content_key("b")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(values, values)
def test_two_values_share_a_key_only_if_they_print_alike(one: Any, other: Any) -> None:
    assert (key_of(one) == key_of(other)) == (repr(one) == repr(other))


# --- arrays ------------------------------------------------------------------------------

GRID = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize(
    "same",
    [
        GRID.copy(),
        np.asfortranarray(GRID),
        np.repeat(GRID, 2, axis=1)[:, ::2],
        GRID.T.copy().T,
        GRID[::-1].copy()[::-1],
    ],
    ids=["copy", "fortran", "strided", "transposed", "reversed"],
)
def test_the_layout_of_an_array_does_not_matter(same: np.ndarray) -> None:
    assert key_of(same) == key_of(GRID)
    assert key_of(Plain(same)) == key_of(Plain(GRID))


def test_arrays_that_differ_in_anything_else_differ() -> None:
    record = np.dtype([("a", "i4"), ("b", "f4")])
    zeros = np.zeros(4, "i4")
    masked = [np.ma.masked_array([1, 2], mask) for mask in ([0, 1], [1, 0])]
    arrays: list[Any] = [
        GRID,
        GRID.T,
        GRID.ravel(),
        GRID.astype("f4"),
        GRID.astype(">f8"),
        GRID + 1,
        zeros,
        zeros.astype("u4"),
        zeros.reshape(2, 2),
        zeros[:0],
        zeros[:0].reshape(0, 3),
        np.zeros((), "i4"),
        np.array([0.0]),
        np.array([-0.0]),
        np.array([0], "M8[s]"),
        np.array([0], "M8[ns]"),
        np.array(["ab", "c"]),
        np.array(["a", "bc"]),
        np.array([1, "a"], object),
        np.array(["1", "a"], object),
        np.zeros(2, record),
        np.ones(2, record),
        np.zeros(2, [("b", "i4"), ("a", "f4")]),
        np.rec.fromrecords([(0, 0.0)], dtype=record),
        np.zeros(1, record),
        *masked,
    ]
    keys = [key_of(array) for array in arrays]
    assert len(set(keys)) == len(keys)


def test_the_padding_of_structured_arrays_does_not_matter() -> None:
    padded = np.dtype([("a", "i1"), ("b", "i8")], align=True)
    filled, other = np.zeros(3, padded), np.zeros(3, padded)
    other.view(np.uint8)[1] = 77  # a byte between the fields
    assert key_of(filled) == key_of(other)
    other["a"][2] = 1
    assert key_of(filled) != key_of(other)


def test_a_file_behind_an_array_does_not_matter(tmp_path: Any) -> None:
    np.save(tmp_path / "grid.npy", GRID)
    assert key_of(np.load(tmp_path / "grid.npy", mmap_mode="r")) == key_of(GRID)


# --- functions ---------------------------------------------------------------------------


def test_lambdas_count_by_what_they_do() -> None:
    assert key_of(lambda x: x + 1) == key_of(lambda x: x + 1)
    assert key_of(lambda x: x + 1) != key_of(lambda x: x + 2)
    assert key_of(lambda x: x + 1) != key_of(lambda x: x + 1.0)
    assert key_of(lambda x: x + 1) != key_of(lambda x: x - 1)


def test_the_signature_counts() -> None:
    same_code = [
        lambda x: x,
        lambda *x: x,
        lambda **x: x,
        lambda *, x: x,
        lambda x, /: x,
        lambda x=1: x,
        lambda x=2: x,
        lambda *, x=2: x,
    ]
    assert len({key_of(function) for function in same_code}) == len(same_code)


def scaled(factor: Any) -> Callable[[Any], Any]:
    return lambda x: x * factor


def wrapped(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def call(x: Any) -> Any:
        return function(x)

    return call


def test_closures_count_however_deep() -> None:
    assert key_of(scaled(2)) == key_of(scaled(2))
    assert key_of(scaled(2)) != key_of(scaled(3))
    assert key_of(wrapped(scaled(2))) == key_of(wrapped(scaled(2)))
    assert key_of(wrapped(scaled(2))) != key_of(wrapped(scaled(3)))
    assert key_of(scaled({"a", "b"})) != key_of(scaled({"a", "c"}))


def test_partials_and_bound_methods_count_by_their_parts() -> None:
    partials = [
        functools.partial(pow, 2),
        functools.partial(pow, 3),
        functools.partial(pow, exp=2),
        functools.partial(scaled(2), 2),
        functools.partial(scaled(3), 2),
    ]
    assert len({key_of(partial) for partial in partials}) == len(partials)
    assert key_of(functools.partial(scaled(2), 2)) == key_of(functools.partial(scaled(2), 2))
    assert key_of(Plain(1).method) == key_of(Plain(1).method) != key_of(Plain(2).method)


def make(source: str, **names: Any) -> Any:
    """The function ``f`` of a script."""
    scope: dict[str, Any] = {"__name__": "__main__", **names}
    exec(source, scope)
    return scope["f"]


def test_the_globals_that_a_function_of_the_main_script_uses_count() -> None:
    source = "def f(x): return x * n"
    assert key_of(make(source, n=1)) == key_of(make(source, n=1))
    assert key_of(make(source, n=1)) != key_of(make(source, n=2))
    assert key_of(make(source, n=1, m=1)) == key_of(make(source, n=1, m=2)), "m is not used"
    assert key_of(make("def f(x): return x.n", n=1)) == key_of(make("def f(x): return x.n", n=2))


def test_helpers_and_their_globals_count() -> None:
    source = "def g(x): return x * n\ndef f(x): return g(x)"
    assert key_of(make(source, n=1)) != key_of(make(source, n=2))
    assert key_of(make(source, n=1)) != key_of(make(source.replace("x * n", "x + n"), n=1))


def test_a_global_that_changes_changes_the_key_of_a_new_codelet() -> None:
    function = make("def f(x): return x * n", n=1)
    before = Task.of(Codelet("f", function), 1).key
    function.__globals__["n"] = 2
    assert Task.of(Codelet("f", function), 1).key != before


def test_functions_that_call_each_other_have_keys() -> None:
    source = "def g(x): return f(x)\ndef f(x): return g(x) if x else n"
    assert key_of(make(source, n=1)) == key_of(make(source, n=1)) != key_of(make(source, n=2))


def imported(x: int, y: int = 2) -> int:
    return x * y * FACTOR


FACTOR = 3


def test_defaults_and_constants_of_an_imported_function_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {key_of(imported)}
    monkeypatch.setattr(imported, "__defaults__", (4,))
    keys.add(key_of(imported))
    monkeypatch.setitem(imported.__globals__, "FACTOR", 5)
    keys.add(key_of(imported))
    assert len(keys) == 3


def test_classes_of_the_main_script_count_by_what_they_do() -> None:
    source = "class A:\n  def m(self): return super().__init__() or {}\nf = A"
    one, same, other = (make(source.format(n)) for n in (1, 1, 2))
    assert key_of(one) == key_of(same) != key_of(other)
    assert key_of(one()) == key_of(same()) != key_of(other())


def test_unhashable_callables_have_keys_by_content() -> None:
    keys = [Task.of(Codelet("f", Unhashable(n)), 1).key for n in (2, 2, 3)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"},
        {"version": "2"},
        {"cpu": max},
        {"gpu": max},
        {"cost": CostHint(flops=1)},
        {"opaque": True},
        {"has_effects": True},
        {"speculative": False},
        {"chunk_axis": 0},
        {"host_inputs": True},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_field_of_a_codelet_is_part_of_its_key(changed: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"name": "f", "cpu": min}
    assert key_of(Codelet(**plain)) == key_of(Codelet(**plain))
    assert key_of(Codelet(**plain)) != key_of(Codelet(**{**plain, **changed}))


def test_objects_may_name_their_own_content() -> None:
    class File:
        def __init__(self, path: str, stamp: int) -> None:
            self.lock = threading.Lock()  # cannot be pickled
            self.name = f"{path}@{stamp}"

        def __content_key__(self) -> str:
            return self.name

    assert key_of(File("a", 1)) == key_of(File("a", 1)) != key_of(File("a", 2))


# --- across processes, and what has no key -----------------------------------------------

SCRIPT = """
import functools
import numpy as np
from agentic_ray.graph import Codelet, Ref, Task, content_key

N = 3
class Model:
    def __init__(self):
        self.names = {"alpha", "beta", "gamma"}
        self.twice = ["".join(["a", "b"]), "ab"]
        self.predict = lambda x: helper(x) * N
def helper(x):
    return x in {"one", "two", "three"} or x in ("one", "two")
values = [
    {"alpha", "beta", "gamma"}, frozenset("abcdef"), {"a": {"b", "c"}}, helper, lambda x: helper(x),
    functools.partial(helper, {"a", "b"}), Model, Model(), Model().predict, np.arange(5)[::2],
    np.mean, np.array(["a", {"x", "y"}], dtype=object), Codelet("c", helper),
]
print(*(content_key("k", value) for value in values), Task.of(Codelet("c", helper), Ref("a")).key)
"""


def test_equal_content_has_an_equal_key_in_every_process(tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    answers = [
        subprocess.run(
            [sys.executable, script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert answers[0] == answers[1]
    assert len(set(answers[0].split())) == 14


def test_equal_strings_need_not_be_one_object() -> None:
    joined = "".join(["al", "pha"])
    assert key_of(Plain(["alpha", "alpha"])) == key_of(Plain(["alpha", joined]))


@pytest.mark.parametrize(
    "value", [threading.Lock(), (i for i in ()), [threading.Lock()], Plain(threading.Lock())]
)
def test_what_cannot_be_pickled_has_no_key(value: Any) -> None:
    with pytest.raises(SerializationError, match="cannot make a content key"):
        key_of(value)


def test_a_function_over_something_unpicklable_has_no_key() -> None:
    with pytest.raises(SerializationError):
        key_of(scaled(threading.Lock()))


def test_what_is_in_itself_has_no_key() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(SerializationError, match="in itself"):
        key_of(endless)


# --- what functions see --------------------------------------------------------------------


TABLE = np.ones(3)
NAMES = ["a"]
SEEN: list[int] = []


class Weighted:
    weight = 1

    def of(self, x: float) -> float:
        return x * self.weight + float(TABLE.sum()) + len(NAMES)


def of_weighted(x: float) -> float:
    SEEN.append(1)
    return Weighted().of(x)


def test_all_that_a_function_of_a_module_sees_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys() -> set[str]:
        return {key_of(of_weighted), key_of(Weighted), key_of(Weighted().of), key_of([Weighted()])}

    first = keys()
    assert keys() == first
    SEEN.append(2)
    assert keys() == first, "a list that is only added to makes no difference"
    monkeypatch.setattr(Weighted, "weight", 2)
    second = keys()
    assert not first & second
    TABLE[0] = 5.0
    third = keys()
    TABLE[0] = 1.0
    assert not second & third
    assert keys() == second
    monkeypatch.setattr(sys.modules[__name__], "NAMES", ["a", "b"])
    assert not second & keys()
    monkeypatch.undo()
    assert keys() == first


def test_a_list_that_is_added_to_and_read_counts() -> None:
    log: list[int] = []

    def both(x: int) -> int:
        NAMES.append("x")
        return len(NAMES)

    def inner(x: int) -> Any:
        def add() -> int:
            return len(SEEN)

        SEEN.append(x)
        return add

    def closed(x: int) -> None:
        log.append(x)

    for function, changed in ((both, NAMES), (inner, SEEN), (closed, log)):
        before = key_of(function)
        changed.append(0)  # type: ignore[attr-defined]
        try:
            assert key_of(function) != before
        finally:
            changed.pop()  # type: ignore[attr-defined]
