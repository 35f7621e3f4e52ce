"""Bodies of requests: linear to read at any size, read apart when large, told in short messages."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.errors import InvalidArgumentError, InvalidParametersError
from agentic_ray.master import Master, Registry
from agentic_ray.master.checks import TEXT_PATTERN, check_text
from agentic_ray.master.jsonvalues import canonical_text, dumps
from agentic_ray.master.workloads import Parameters
from agentic_ray.service import reading
from agentic_ray.service.bodies import RequestError, Submission, SubmitBody, read_submission
from agentic_ray.service.reading import SMALL_BYTES, Reader, read_body

KINDS: dict[str, Callable[[int], str]] = {
    "numbers": lambda n: '{"data": [' + ",".join(["1"] * n) + "]}",
    "floats": lambda n: '{"data": [' + ",".join(["1.5e3"] * n) + "]}",
    "texts": lambda n: '{"params": [' + ",".join(['"é\\n"'] * n) + "]}",
    "one long text": lambda n: '{"params": "' + "x" * n + '"}',
    "one long number": lambda n: '{"data": [' + "1" * n + "]}",
    "names": lambda n: '{"params": {' + ",".join(f'"n{i}": 1' for i in range(n)) + "}}",
    "unknown fields": lambda n: "{" + ",".join(f'"n{i}": 1' for i in range(n)) + "}",
    "one long name": lambda n: '{"' + "n" * n + '": 1}',
    "the same name": lambda n: "{" + ",".join(['"n": 1'] * n) + "}",
    "the last name twice": lambda n: "{" + ",".join(f'"n{i}": 1' for i in range(n)) + ',"n0":2}',
    "nested": lambda n: '{"data": ' + "[" * n + "]" * n + "}",
    "objects": lambda n: '{"params": [' + ",".join(['{"a": {"b": 1}}'] * n) + "]}",
    "the same names in each": lambda n: '{"params": [' + ",".join(['{"a":1,"a":2}'] * n) + "]}",
    "spaces": lambda n: " " * n + '{"data": []}' + " " * n,
    "not JSON": lambda n: "{" * n,
    "escapes": lambda n: '{"params": "' + "\\u00e9" * n + '"}',
    "not finite": lambda n: '{"data": [' + ",".join(["1"] * n) + ",1e999]}",
}


def seconds_of(body: bytes) -> float:
    best = 1e9
    for _ in range(2):
        began = time.process_time()
        try:
            read_submission(body)
        except RequestError:
            pass  # (most kinds are to be refused)
        best = min(best, time.process_time() - began)
    return best


@pytest.mark.parametrize("kind", KINDS)
def test_reading_takes_time_in_proportion_to_the_size(kind: str) -> None:
    # Four doublings: 16 times the time where it is linear, 256 times where it is quadratic.
    sizes = [2_000 << step for step in range(5)]
    times = [seconds_of(KINDS[kind](size).encode()) for size in sizes]
    assert times[-1] < 0.05 + 64 * max(times[0], 1e-3), times


@pytest.mark.parametrize("kind", ["unknown fields", "the last name twice", "one long name"])
def test_a_refusal_names_a_few_names_and_cuts_them(kind: str) -> None:
    with pytest.raises(RequestError) as refused:
        read_submission(KINDS[kind](50_000).encode())
    assert len(str(refused.value)) < 1000
    assert "n" in str(refused.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=5)
        ),
        max_leaves=30,
    )
)
def test_text_made_in_pieces_is_that_made_at_once(value: object) -> None:
    text = json.dumps(value, separators=(",", ":"))
    if "Infinity" not in text:
        assert dumps(value) == text
    assert canonical_text(value) == json.dumps(value, separators=(",", ":"), sort_keys=True)


@pytest.mark.parametrize("size", [9_999, 10_000, 10_001, 20_000, 20_001])
def test_long_lists_and_objects_are_written_whole(size: int) -> None:
    for value in ([1.5] * size, {f"k{i}": [i] for i in range(size, 0, -1)}, [[[{}] * size]]):
        assert dumps(value) == json.dumps(value, separators=(",", ":"))
        assert canonical_text(value) == json.dumps(value, separators=(",", ":"), sort_keys=True)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.close()


def test_large_bodies_are_read_apart_and_come_out_the_same(reader: Reader) -> None:
    data = list(range(30_000))
    body = json.dumps({"params": {"z": data, "a": 10**30}, "workload": "w", "priority": 2})
    assert len(body) > SMALL_BYTES
    here, there = read_submission(body.encode()), read_body(reader, body.encode())
    assert there == here
    assert json.loads(there.parameters.text) == {"z": data, "a": 10**30}
    assert there.parameters.canonical.startswith('{"a":')
    for kind in ("unknown fields", "the last name twice", "not finite", "nested"):
        bad = KINDS[kind](40_000).encode()
        with pytest.raises(RequestError) as here_refused:
            read_submission(bad)
        with pytest.raises(RequestError) as there_refused:
            read_body(reader, bad)
        assert str(there_refused.value) == str(here_refused.value)
        assert there_refused.value.status == here_refused.value.status


def test_a_reader_that_died_is_started_anew(reader: Reader) -> None:
    body = json.dumps({"data": [1] * 50_000}).encode()
    read_body(reader, body)
    os.kill(reader.pid, signal.SIGKILL)
    assert read_body(reader, body).body == SubmitBody()


def test_what_kills_its_reader_or_takes_for_ever_is_refused() -> None:
    reader = Reader(seconds=1)
    try:
        with pytest.raises(RequestError, match="has died of it"):
            reader.call(os._exit, 1)
        with pytest.raises(RequestError, match="not be read within 1 seconds"):
            reader.call(time.sleep, 600)
        assert reader.call(len, "abc") == 3
    finally:
        reader.close()


def test_a_reader_that_does_not_begin_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(multiprocessing.active_children())
    monkeypatch.setattr(reading, "_begin", signal.pause)
    reader = Reader(start_seconds=0.5)
    with pytest.raises(RequestError, match="no process that reads") as refused:
        reader.call(len, "abc")
    assert refused.value.status == 503
    reader.close()
    for _ in range(3000):
        if not set(multiprocessing.active_children()) - before:
            return
        time.sleep(0.01)
    raise AssertionError("a process is left")


def test_what_fits_is_read_as_before_and_what_does_not_is_refused_early() -> None:
    builtin = frozenset({"default", "word_count"})
    body = b'{"workload": "word_count", "params": {"most": 2.0, "data": ["b a"]}}'
    read = read_submission(body, builtin)
    assert read == read_submission(body)
    assert read.parameters.text == '{"most":2.0,"data":["b a"]}'
    assert read.parameters.canonical == '{"data":["b a"],"most":2.0}'
    for bad in (b'{"data": [1, true]}', b'{"workload": "word_count", "params": {"data": [1]}}'):
        assert isinstance(read_submission(bad), Submission)  # the master is to refuse it
        with pytest.raises(RequestError, match=r"params\.data") as refused:
            read_submission(bad, builtin)
        assert (refused.value.status, refused.value.kind) == (422, "InvalidParametersError")
    uploaded = b'{"workload": "word_count", "params": {"data": {"ref": "a.txt"}}}'
    assert read_submission(uploaded, builtin).has_refs


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_parameters_that_were_read_are_those_of_any_value(value: object) -> None:
    assert Parameters.of_read(value) == Parameters.of(value)


@given(st.text(min_size=1, max_size=20) | st.text("\n\u202e\u200bab", min_size=1, max_size=3))
def test_texts_are_those_that_the_document_describes(text: str) -> None:
    described = re.search(TEXT_PATTERN, text) is not None and not text.endswith("\n")
    try:
        check_text("user", text)
    except InvalidArgumentError:
        assert not described
    else:
        assert described


def test_many_values_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    registry = Registry()
    registry.register("numbers", lambda params: 1, schema=list[int])
    with Master(workloads=registry) as master:
        with pytest.raises(InvalidParametersError, match="20,000 values in params do not fit"):
            master.submit("numbers", ["x"] * 20_000)
        with pytest.raises(InvalidParametersError, match=r"params\[0\]: Input should be"):
            master.submit("numbers", ["x"] * 20)
