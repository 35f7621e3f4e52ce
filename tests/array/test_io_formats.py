"""Every format: values, dtypes, slices and joins as the file has them, and both ways."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array import io
from agentic_ray.array.core.rewrite import optimize
from agentic_ray.array.io.reading import READ

h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")

RNG = np.random.default_rng(0)


def write(kind: str, path: Path, array: Any) -> None:
    if kind == "npy":
        io.to_npy(path, array)
    elif kind == "hdf5":
        io.to_hdf5(path, "group/data", array)
    else:
        io.to_zarr(path, array, zarr_format=int(kind[-1]))


def read(kind: str, path: Path, **options: Any) -> xp.Array:
    if kind == "npy":
        return io.from_npy(path, **options)
    if kind == "hdf5":
        return io.from_hdf5(path, "group/data", **options)
    return io.from_zarr(path, **options)


KINDS = ["npy", "hdf5", "zarr2", "zarr3"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0), (10, 6), (5, 4, 3)])
@pytest.mark.parametrize("dtype", ["float64", "int16", "bool", "complex128"])
def test_what_is_written_is_read(kind: str, shape: Any, dtype: str, tmp_path: Path) -> None:
    array = (RNG.random(shape) * 50).astype(dtype)
    write(kind, tmp_path / "a", xp.asarray(array, chunks=3 if shape else ()))
    found = read(kind, tmp_path / "a", chunks=4 if shape else ())
    assert found.shape == array.shape
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(np.asarray(found), array)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", KINDS)
def test_slices_are_read_alone(kind: str, tmp_path: Path) -> None:
    array = RNG.random((40, 30))
    write(kind, tmp_path / "a", xp.asarray(array, chunks=8))
    found = read(kind, tmp_path / "a", chunks=(11, 30))
    for key in np.s_[3:17:2, 5], np.s_[35:, ::7], np.s_[4], np.s_[20:20], np.s_[::-1, 2:]:
        np.testing.assert_array_equal(np.asarray(found[key]), array[key])
    (node,) = optimize([found[3:17:2, 5][1:4]._node])
    assert node.op is READ
    (node,) = optimize([found[10:30]._node])
    assert node.op is READ


def test_rechunk_moves_into_reading_unless_pieces_would_be_read_twice(tmp_path: Path) -> None:
    io.to_zarr(tmp_path / "a", xp.zeros((40,), chunks=10))
    found = io.from_zarr(tmp_path / "a")
    (node,) = optimize([found.rechunk(20)._node])
    assert node.op is READ
    (node,) = optimize([found.rechunk(15)._node])
    assert node.op is not READ


def test_default_chunks_are_made_of_pieces_of_the_file(tmp_path: Path) -> None:
    io.to_zarr(tmp_path / "a", xp.zeros((100, 4), chunks=(7, 4)))
    with xp.config(chunk_elements=80):
        assert io.from_zarr(tmp_path / "a").chunks[0] == (14,) * 6 + (16,)


def test_through_the_cluster(ray_session: ar.Session, tmp_path: Path) -> None:
    array = RNG.random((2_200_000, 2))  # more than the caller computes by itself
    x = xp.asarray(array, chunks=(300_000, 2))
    for kind in KINDS:
        write(kind, tmp_path / kind, x + 1)
        back = read(kind, tmp_path / kind)
        np.testing.assert_array_equal(np.asarray(back), array + 1)
        assert float((back - 1).sum()) == pytest.approx(array.sum())


@pytest.mark.parametrize("dtype", [">f8", "<i4", ">i2", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("url", [False, True])
def test_npy_of_other_byte_and_axis_order(
    dtype: str, order: Any, url: bool, tmp_path: Path
) -> None:
    array = np.array(RNG.integers(0, 2, (9, 7)), dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    path: Any = tmp_path / "a.npy"
    if url:
        path = _in_memory(path)
    found = io.from_npy(path, chunks=(4, 3))
    assert found.dtype.isnative
    np.testing.assert_array_equal(np.asarray(found), array)
    np.testing.assert_array_equal(np.asarray(found[2:8:3, ::2]), array[2:8:3, ::2])


def _in_memory(path: Path) -> str:
    import fsspec

    url = f"memory://{path.name}"
    with fsspec.open(url, "wb") as file:
        file.write(path.read_bytes())
    return url


def test_urls(tmp_path: Path) -> None:
    array = RNG.random((20, 3))
    x = xp.asarray(array, chunks=(6, 3))
    io.to_npy("memory://written.npy", x)
    np.testing.assert_array_equal(np.asarray(io.from_npy("memory://written.npy")), array)
    io.to_npy(f"file://{tmp_path}/b.npy", x)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), array)
    io.to_hdf5(tmp_path / "c.h5", "x", x)
    found = io.from_hdf5(_in_memory(tmp_path / "c.h5"), "x")
    np.testing.assert_array_equal(np.asarray(found), array)
    pq.write_table(pa.table({"a": array[:, 0]}), tmp_path / "d.parquet")
    found = io.from_parquet(_in_memory(tmp_path / "d.parquet"), "a")
    np.testing.assert_array_equal(np.asarray(found), array[:, 0])
    with pytest.raises(FileNotFoundError, match=r"memory://nothing\.npy"):
        io.from_npy("memory://nothing.npy")


def test_files_are_joined(tmp_path: Path) -> None:
    parts = [RNG.random((n, 3)) for n in (4, 1, 6)]
    for i, part in enumerate(parts):
        np.save(tmp_path / f"{i}.npy", part)
    paths = sorted(tmp_path.iterdir())
    np.testing.assert_array_equal(np.asarray(io.from_npy(paths)), np.concatenate(parts))
    np.save(tmp_path / "9.npy", np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"9\.npy holds float64 of shape \(2, 5\).*\(n, 3,?\)"):
        io.from_npy([*paths, tmp_path / "9.npy"])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(save: Any, tmp_path: Path) -> None:
    one, two = RNG.random((50, 4)), np.arange(9)
    save(tmp_path / "a.npz", one=one, two=two)
    found = io.from_npz(tmp_path / "a.npz", chunks="auto")
    assert sorted(found) == ["one", "two"]
    np.testing.assert_array_equal(np.asarray(found["one"][7:30:3]), one[7:30:3])
    np.testing.assert_array_equal(np.asarray(found["two"]), two)


def test_parquet(tmp_path: Path) -> None:
    a, b = RNG.random(100), np.arange(100)
    for i, rows in enumerate((slice(0, 60), slice(60, 100))):
        table = pa.table({"a": a[rows], "b": b[rows], "t": ["x"] * (rows.stop - rows.start)})
        pq.write_table(table, tmp_path / f"{i}.parquet", row_group_size=16)
    paths = sorted(tmp_path.iterdir())
    both = io.from_parquet(paths, ["b", "a"])
    assert both.dtype == np.float64
    np.testing.assert_array_equal(np.asarray(both), np.stack([b, a], 1))
    np.testing.assert_array_equal(np.asarray(both[50:77:5, 1]), a[50:77:5])
    one = io.from_parquet(paths, "b", chunks=13)
    assert one.dtype == np.int64
    np.testing.assert_array_equal(np.asarray(one[::-1]), b[::-1])
    apart = io.from_parquet(paths, ["a", "b"], separate=True)
    assert apart["b"].dtype == np.int64
    np.testing.assert_array_equal(np.asarray(apart["a"]), a)
    with xp.config(chunk_elements=20):
        assert io.from_parquet(paths, "a").chunks[0][:2] == (16, 16)
    with pytest.raises(TypeError, match="column 't' holds string"):
        io.from_parquet(paths)
    with pytest.raises(KeyError, match="no column 'z'; it has: a, b, t"):
        io.from_parquet(paths, "z")


def test_nulls_in_parquet_are_nan(tmp_path: Path) -> None:
    table = pa.table({"i": [1, None, 3], "b": [True, None, False], "f": [0.5, None, 2.0]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = io.from_parquet(tmp_path / "a.parquet")
    nan = np.nan
    wanted = [[1, 1, 0.5], [nan, nan, nan], [3, 0, 2]]
    np.testing.assert_array_equal(np.asarray(found), wanted)


def test_heavy_libraries_are_imported_when_used() -> None:
    code = (
        "import sys, agentic_ray.array.io\n"
        "heavy = {'zarr', 'h5py', 'fsspec', 'pyarrow.parquet'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
