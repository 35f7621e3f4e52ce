"""Strict JSON: what is converted, what is refused and where it says the fault is."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentic_ray.errors import InvalidArgumentError, SerializationError
from agentic_ray.master.jsonvalues import MAX_DEPTH, dumps, loads, to_json

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Point(NamedTuple):
    x: int
    y: int


class Model(BaseModel):
    values: tuple[int, ...]


@dataclass
class Record:
    name: str
    inner: Any


class Colour(IntEnum):
    RED = 1


@given(json_values)
def test_json_comes_back_as_it_went(value: Any) -> None:
    assert to_json(value) == value
    assert loads(dumps(to_json(value))) == value
    assert loads(dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(5), 5),
        (np.array([1, None, "x"], dtype=object), [1, None, "x"]),
        (np.array([1.0, np.nan]), [1.0, "NaN"]),
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        (Record("a", np.arange(2)), {"name": "a", "inner": [0, 1]}),
        (Model(values=(1, 2)), {"values": [1, 2]}),
        ({1: "a", np.int64(2): "b"}, {"1": "a", "2": "b"}),
        ([math.inf, -math.inf, math.nan], ["Infinity", "-Infinity", "NaN"]),
        (Colour.RED, 1),
        (10**400, 10**400),
        (True, True),
    ],
)
def test_values_with_a_json_form_are_converted(value: Any, expected: Any) -> None:
    converted = to_json(value)
    assert converted == expected
    assert json.loads(dumps(converted)) == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": [1, {2, 3}]}, r"result\.a\[1\] is of type set"),
        (b"bytes", "result is of type bytes"),
        (1j, "complex"),
        (np.array([1j]), "numpy complex128"),
        ({(1, 2): 3}, "key of type tuple"),
        ({True: 3}, "key of type bool"),
        ({1: "a", "1": "b"}, "two keys"),
        ([10**5000], r"result\[0\] is an integer of more than 4300 digits"),
        ([-(10**5000)], "4300 digits"),
        (object, "type"),
    ],
)
def test_values_without_one_are_refused_with_their_place(value: Any, says: str) -> None:
    with pytest.raises(SerializationError, match=says):
        to_json(value)


def test_an_integer_of_just_the_longest_length_can_be_written() -> None:
    assert loads(dumps(to_json(10**4298))) == 10**4298


def test_a_value_that_contains_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(SerializationError, match="contains itself"):
        to_json(circle)
    nested: Any = 0
    for _ in range(MAX_DEPTH):
        nested = [nested]
    assert to_json(nested) == nested


def test_non_finite_numbers_are_refused_in_parameters() -> None:
    with pytest.raises(SerializationError, match=r"params\.x is NaN, which is not JSON"):
        to_json({"x": math.nan}, name="params", non_finite="refuse")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[1,]", "not valid JSON"),
        ("{'a': 1}", "not valid JSON"),
        ("[1] x", "not valid JSON"),
        ("NaN", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("[1e400]", "out of range"),
        ("1" * 5000, "not usable JSON"),
        ('{"a": 1, "a": 2}', "the name 'a' is given twice"),
        ("[" * 100_000, "nested too deep"),
        (b'"\xff"', "not UTF-8"),
        (b"\xef\xbb\xbf[]", "not valid JSON"),
        ("[]".encode("utf-16"), "not UTF-8"),
    ],
)
def test_text_that_is_not_strict_json_is_refused(text: str | bytes, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        loads(text)


def test_lone_surrogates_pass_through_as_escapes() -> None:
    assert dumps(loads(r'"\ud800"')) == r'"\ud800"'
