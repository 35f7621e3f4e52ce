"""Named workloads: what they make of lists and of uploaded files, against NumPy and Arrow."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_ray.errors import InvalidParametersError
from agentic_ray.master import Registry
from agentic_ray.master.named import register
from agentic_ray.master.named.reductions import _COMBINED, _of_block
from agentic_ray.master.named.uploads import (
    FOLDER,
    Upload,
    array_blocks,
    owner_folder,
    read_rows,
)

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def workloads() -> Registry:
    made = Registry()
    register(made)
    return made


@pytest.fixture
def run(workloads: Registry) -> Any:
    def of(name: str, params: Any) -> Any:
        workload = workloads.get(name)
        return workload.function(workload.prepare(params))

    return of


@pytest.fixture
def upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    folder = owner_folder(tmp_path, "me")
    folder.mkdir()
    count = 0

    def of(name: str, write: Any) -> Any:
        nonlocal count
        count += 1
        digest = f"{count:064x}"
        write(folder / digest)
        return Upload(name, name.rpartition(".")[2], digest, "me").params()

    return of


def npy(array: Any) -> Any:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, array)

    return write


TABLE = pa.table(
    {
        "kind": ["a", "b", None, "a", "c"] * 40_000,
        "n": list(range(200_000)),
        "x": [0.5, None, 2.0, math.pi, -1.0] * 40_000,
    }
)


def as_parquet(path: Path) -> None:
    parquet.write_table(TABLE, path)


def as_stream(path: Path) -> None:
    with pa.ipc.new_stream(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=50_000)


def as_arrow_file(path: Path) -> None:
    with pa.ipc.new_file(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=50_000)


def as_csv(path: Path) -> None:
    csv.write_csv(TABLE, path)


FILES = {"p.parquet": as_parquet, "s.arrow": as_stream, "f.arrow": as_arrow_file, "c.csv": as_csv}


# --- numbers ------------------------------------------------------------------------------

numbers = st.lists(
    st.integers(-(2**70), 2**70) | st.integers(-100, 100) | st.floats(-1e6, 1e6), max_size=30
)


def exact(name: str, values: list[Any]) -> Any:
    if name == "count":
        return len(values)
    if name == "mean":
        return sum(values) / len(values)
    return {"sum": sum, "product": math.prod, "min": min, "max": max}[name](values)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(-(2**70), 2**70) | st.integers(-100, 100), min_size=1, max_size=30),
    st.sampled_from(["identity", "square", "abs", "negative"]),
    st.sampled_from(["sum", "product", "min", "max"]),
    st.integers(1, 30),
)
def test_integers_are_exact_at_any_size(
    values: list[int], map_name: Any, reduce_name: Any, cut: int
) -> None:
    mapped = {
        "identity": values,
        "square": [x * x for x in values],
        "abs": [abs(x) for x in values],
        "negative": [-x for x in values],
    }[map_name]
    blocks = [np.array(part) for part in (values[:cut], values[cut:]) if part]
    found = [_of_block(map_name, reduce_name, block) for block in blocks]
    total = found[0] if len(found) == 1 else _COMBINED[reduce_name](*found)
    if all(block.dtype.kind in "iuO" for block in blocks):
        assert total == exact(reduce_name, mapped)
        assert type(total) is int


def test_lists_of_any_numbers(run: Any) -> None:
    assert run("sum_of_squares", {"data": [1, 2, 3, 4, 5]}) == 55
    assert run("sum_of_squares", {"data": [2**40, 1]}) == 2**80 + 1
    assert run("sum_of_squares", {"data": [10**30]}) == 10**60
    assert run("sum_of_squares", {"data": [2**60 + 1, 0.5]}) == pytest.approx((2.0**60) ** 2)
    assert run("sum_of_squares", {"data": []}) == 0
    assert run("map_reduce", {"data": [1, 2, 3], "reduce": "mean"}) == 2
    assert run("map_reduce", {"data": [4.0, 9.0], "map": "sqrt"}) == 5
    assert run("map_reduce", {"data": [1.5, float(2**63)], "reduce": "max"}) == 2.0**63
    assert run("map_reduce", {"data": [[1, 2], [3, 4]], "reduce": "product"}) == 24
    assert run("map_reduce", {"data": [], "reduce": "count"}) == 0


@pytest.mark.parametrize("data", [["a"], [True, "x"], [[1], [2, 3]], [None], [{}], [[1], 2]])
def test_what_is_no_number_is_refused(run: Any, data: Any) -> None:
    with pytest.raises(InvalidParametersError, match="no array of numbers"):
        run("sum_of_squares", {"data": data})


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"data": 5},
        {"data": [1], "more": 1},
        {"data": [1], "map": "eval"},
        {"data": [1], "reduce": "__class__"},
        {"data": {"ref": "x"}},
    ],
)
def test_what_does_not_fit_the_schema_is_refused(run: Any, params: Any) -> None:
    with pytest.raises(InvalidParametersError):
        run("map_reduce", params)


def test_min_and_max_of_nothing_are_refused(run: Any) -> None:
    with pytest.raises(InvalidParametersError, match="no min of no numbers"):
        run("map_reduce", {"data": [], "reduce": "min"})


@pytest.mark.parametrize(
    "array",
    [
        np.arange(200_000) - 5,
        np.linspace(0, 1, 150_001),
        np.arange(12.0).reshape(3, 4),
        np.array(3.5),
        np.array([250, 251], dtype=np.uint8),
        np.array([2**63, 2**64 - 1], dtype=np.uint64),
        np.array([True, False, True]),
        np.array([1.5, 2.5], dtype=np.float16),
        np.zeros((0, 3)),
    ],
)
def test_uploaded_arrays(run: Any, upload: Any, array: Any) -> None:
    data = upload("a.npy", npy(array))
    values = [int(x) if array.dtype.kind in "biu" else float(x) for x in array.ravel()]
    found = run("sum_of_squares", {"data": data})
    assert found == pytest.approx(math.fsum(x * x for x in values), rel=1e-12)
    if array.dtype.kind in "biu":
        assert found == sum(x * x for x in values)
    assert run("map_reduce", {"data": data, "reduce": "count"}) == len(values)


@pytest.mark.parametrize("name", FILES)
def test_columns_of_uploaded_tables(run: Any, upload: Any, name: str) -> None:
    data = upload(name, FILES[name])
    assert run("map_reduce", {"data": data, "column": "n"}) == 199_999 * 100_000
    with pytest.raises(InvalidParametersError, match="give a column, one of kind, n, x"):
        run("map_reduce", {"data": data})
    with pytest.raises(InvalidParametersError, match="missing values"):
        run("map_reduce", {"data": data, "column": "x"})
    with pytest.raises(InvalidParametersError, match=r"holds no numbers|missing values"):
        run("map_reduce", {"data": data, "column": "kind"})


def test_data_that_is_gone_is_told(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = Upload("a.npy", "npy", "0" * 64, "me").params()
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with pytest.raises(InvalidParametersError, match=r"'a.npy' is not there any more"):
        run("sum_of_squares", {"data": data})
    monkeypatch.delenv(FOLDER)
    with pytest.raises(InvalidParametersError, match="not there any more"):
        run("sum_of_squares", {"data": data})


def test_pickles_in_arrays_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        next(iter(read_rows(file, "npy")))


@pytest.mark.parametrize("shape", [(0,), (1,), (65_536,), (65_537,), (300_000, 2), (2, 100_000)])
def test_blocks_make_up_the_array(shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape)).reshape(shape)
    blocks = list(array_blocks(array))
    assert sum(len(block) for block in blocks) == shape[0]
    if blocks:
        assert np.array_equal(np.concatenate(blocks), array)


# --- arrays -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (["add", "x", 1], lambda x, y: x + 1),
        (["sum", ["multiply", "x", "x"]], lambda x, y: (x * x).sum()),
        (["mean", "y", 0], lambda x, y: y.mean(axis=0)),
        (["std", "y", -1], lambda x, y: y.std(axis=-1)),
        (["matmul", ["transpose", "y"], "y"], lambda x, y: y.T @ y),
        (
            ["where", ["greater", "x", 1], "x", ["negative", "x"]],
            lambda x, y: np.where(x > 1, x, -x),
        ),
        (["sqrt", 4], lambda x, y: 2.0),
        (["max", ["abs", ["subtract", "x", ["mean", "x"]]]], lambda x, y: abs(x - x.mean()).max()),
        (["divide", 1, "x"], lambda x, y: 1 / x),
        ("x", lambda x, y: x),
        (5, lambda x, y: 5.0),
    ],
)
def test_expressions(run: Any, upload: Any, expression: Any, expected: Any) -> None:
    x, y = np.array([1.0, 2.0, 3.0]), np.arange(1.0, 7.0).reshape(3, 2)
    arrays = {"x": x.tolist(), "y": upload("y.npy", npy(y))}
    found = run("array_expression", {"arrays": arrays, "expression": expression})
    np.testing.assert_allclose(np.asarray(found), expected(x, y), rtol=1e-12)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        (["__class__", "x"], "no function '__class__'"),
        (["eval", "x"], "no function"),
        (["load", "x"], "no function"),
        (["fromfile", "x", 1, 2], "no function"),
        (["config", "x"], "no function"),
        ([], "must begin with"),
        ([["add"], "x"], "must begin with"),
        ({"a": 1}, "not an expression"),
        (None, "not an expression"),
        (True, "not an expression"),
        ("z", "no array 'z'"),
        ("__class__", "no array"),
        (["add", "x"], "has 2 arguments, not 1"),
        (["sum", "x", "x"], "whole number"),
        (["sum", "x", 1], "no axis 1 of 1"),
        (["sum", "x", True], "whole number"),
        (["add", "x", [["y"]]], "must begin with"),
        (["add", "x", "w"], "add: "),
        (["matmul", "x", "w"], "matmul: "),
    ],
)
def test_expressions_that_are_refused(run: Any, expression: Any, says: str) -> None:
    arrays = {"x": [1, 2, 3], "w": [1, 2]}
    with pytest.raises(InvalidParametersError, match=says):
        run("array_expression", {"arrays": arrays, "expression": expression})


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        (["frobnicate", "x"], "there is no function 'frobnicate'"),
        (["add", "x", ["square", ["__import__", "os"]]], "there is no function '__import__'"),
        (["sum", ["add", "x", "z"]], "no array 'z'"),
        (["add", "x"], "add has 2 arguments, not 1"),
        (["where", "x", "x"], "where has 3 arguments, not 2"),
        (["sum", "x", 0.5], "an axis is a whole number"),
        (["add", "x", 10**400], "a number is out of range"),
        ([], "must begin with the name of a function"),
    ],
)
def test_what_is_no_expression_is_refused_when_it_is_submitted(
    workloads: Registry, expression: Any, says: str
) -> None:
    params = {"arrays": {"x": [1, 2]}, "expression": expression}
    workload = workloads.get("array_expression")
    for refuse in (workload.prepare, lambda each: workload.prepare_text(json.dumps(each))):
        with pytest.raises(InvalidParametersError, match=says):
            refuse(params)


def test_expressions_are_bounded(run: Any) -> None:
    deep: Any = "x"
    for _ in range(60):
        deep = ["negative", deep]
    wide: Any = "x"
    for _ in range(10):
        wide = ["add", wide, wide]
    for expression in (deep, wide):
        with pytest.raises(InvalidParametersError, match="up to 1000 parts"):
            run("array_expression", {"arrays": {"x": [1]}, "expression": expression})


def test_matmul(run: Any, upload: Any) -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12).reshape(3, 4)
    found = run("matmul", {"a": a.tolist(), "b": upload("b.npy", npy(b))})
    np.testing.assert_array_equal(found, a @ b)
    for wrong in ({"a": [1, 2], "b": [1, 2]}, {"a": [[1, 2]], "b": [[1, 2]]}):
        with pytest.raises(InvalidParametersError, match="cannot be multiplied"):
            run("matmul", wrong)


# --- tables and texts ---------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_describe(run: Any, upload: Any, name: str) -> None:
    found = run("describe", {"data": upload(name, FILES[name])})
    x = np.array([v for v in TABLE.column("x").to_pylist() if v is not None])
    assert found["n"]["count"] == 200_000
    assert (found["n"]["min"], found["n"]["max"]) == (0, 199_999)
    assert found["n"]["mean"] == pytest.approx(99_999.5)
    assert (found["x"]["count"], found["x"]["missing"]) == (160_000, 40_000)
    assert found["x"]["std"] == pytest.approx(x.std(ddof=1), rel=1e-12)
    assert "mean" not in found["kind"]
    if name != "c.csv":  # (a missing text is an empty one there)
        assert found["kind"]["missing"] == 40_000


def test_describe_of_rows(run: Any) -> None:
    found = run("describe", {"data": [{"a": 1}, {"a": 4}, {"a": None}]})
    assert found["a"] == {
        "type": "int64",
        "count": 2,
        "missing": 1,
        "mean": 2.5,
        "std": pytest.approx(math.sqrt(4.5)),
        "min": 1,
        "max": 4,
    }
    assert run("describe", {"data": []}) == {}


def test_word_count(run: Any, upload: Any) -> None:
    text = "To be, or not to be\nthat's the question: ÉTÉ été\n"
    expected = {"be": 2, "to": 2, "été": 2, "not": 1, "or": 1, "question": 1, "that's": 1, "the": 1}
    found = run("word_count", {"data": text.splitlines()})
    assert list(found.items()) == list(expected.items())
    data = upload("t.txt", lambda path: path.write_text(text * 30_000, encoding="utf-8"))
    assert run("word_count", {"data": data, "most": 2}) == {"be": 60_000, "to": 60_000}
    assert run("word_count", {"data": []}) == {}


@pytest.mark.parametrize("name", ["p.parquet", "s.arrow", "f.arrow"])
def test_group_by(run: Any, upload: Any, name: str) -> None:
    all_of = ["sum", "mean", "min", "max", "count"]
    params = {
        "data": upload(name, FILES[name]),
        "by": ["kind"],
        "aggregations": {"n": all_of, "x": all_of},
    }
    found = {row["kind"]: row for row in run("group_by", params)}
    frame = TABLE.to_pandas()
    frame["kind"] = frame["kind"].astype(object).where(frame["kind"].notna(), None)
    assert set(found) == {"a", "b", "c", None}
    for kind, row in found.items():
        part = frame[frame["kind"].isna()] if kind is None else frame[frame["kind"] == kind]
        assert row["n_sum"] == part["n"].sum()
        assert type(row["n_sum"]) is int
        assert row["n_mean"] == pytest.approx(part["n"].mean())
        assert (row["n_min"], row["n_max"]) == (part["n"].min(), part["n"].max())
        assert row["x_count"] == part["x"].count()
        if row["x_count"]:
            assert row["x_sum"] == pytest.approx(part["x"].sum())
            assert row["x_mean"] == pytest.approx(part["x"].mean())
        else:
            assert row["x_mean"] is None


def test_group_by_sums_integers_exactly(run: Any) -> None:
    rows = [{"k": 1, "v": 2**62}] * 4 + [{"k": 2, "v": -(2**63)}] * 3
    params = {"data": rows, "by": ["k"], "aggregations": {"v": ["sum"]}}
    assert run("group_by", params) == [{"k": 1, "v_sum": 2**64}, {"k": 2, "v_sum": -3 * 2**63}]


@pytest.mark.parametrize(
    ("by", "aggregations", "says"),
    [
        (["z"], {}, "no column z"),
        (["k"], {"z": ["sum"]}, "no column z"),
        (["k"], {"t": ["sum"]}, "holds no numbers"),
        (["k"], {"v": ["median"]}, "aggregations"),
        ([], {}, "by"),
    ],
)
def test_groups_that_cannot_be(run: Any, by: Any, aggregations: Any, says: str) -> None:
    params = {"data": [{"k": 1, "v": 1, "t": "x"}], "by": by, "aggregations": aggregations}
    with pytest.raises(Exception, match=says):
        run("group_by", params)


def test_names_that_are_taken_stay(workloads: Registry) -> None:
    own = Registry()
    own.register("describe", lambda params: 1)
    register(own)
    register(own)
    assert not own.get("describe").builtin
    assert own.get("matmul").builtin
