"""Writing parts of stores, adding to files, patterns of names, and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import agentic_ray.array as xp
from agentic_ray.array.io import zarr as zarr_io
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError

h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")

RNG = np.random.default_rng(0)


# --- zarr --------------------------------------------------------------------------------


def test_chunks_of_the_file_are_the_ones_asked_for(tmp_path: Path) -> None:
    array = RNG.random((20, 9))
    xp.to_zarr(tmp_path / "a", xp.asarray(array, chunks=(6, 9)), chunks=(4, 5))
    stored = zarr.open_array(tmp_path / "a")
    assert stored.chunks == (4, 5)
    np.testing.assert_array_equal(stored[...], array)
    xp.to_zarr(tmp_path / "b", xp.asarray(array, chunks=3), chunks=7)
    assert zarr.open_array(tmp_path / "b").chunks == (7, 7)
    np.testing.assert_array_equal(np.asarray(xp.from_zarr(tmp_path / "b")), array)


@pytest.mark.parametrize("region", [np.s_[3:11], np.s_[3:11, 2:], np.s_[:, 4:5], np.s_[-5:, :3]])
@pytest.mark.parametrize("chunks", [2, 5, (13, 9)])
def test_a_region_is_written_and_nothing_else(region: Any, chunks: Any, tmp_path: Path) -> None:
    wanted = RNG.random((13, 9))
    xp.to_zarr(tmp_path / "a", wanted, chunks=4)
    part = RNG.random(wanted[region].shape)
    before = xp.from_zarr(tmp_path / "a")
    np.testing.assert_array_equal(np.asarray(before), wanted)
    xp.to_zarr(tmp_path / "a", xp.asarray(part, chunks=chunks), region=region)
    wanted[region] = part
    # Opened anew it is what is there now, although the expression of before is still known.
    np.testing.assert_array_equal(np.asarray(xp.from_zarr(tmp_path / "a")), wanted)


def test_no_two_tasks_write_to_one_chunk_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Any] = []
    real = zarr_io._ZarrTarget.write

    def note(self: Any, region: Any, *blocks: Any) -> None:
        begin = [part.start + at for part, at in zip(region, self.origin, strict=True)]
        end = [part.stop + at for part, at in zip(region, self.origin, strict=True)]
        written.append([range(b // 4, (e - 1) // 4 + 1) for b, e in zip(begin, end, strict=True)])
        real(self, region, *blocks)

    xp.to_zarr(tmp_path / "a", np.zeros((40, 40)), chunks=4)
    monkeypatch.setattr(zarr_io._ZarrTarget, "write", note)
    part = xp.asarray(np.ones((30, 23)), chunks=(7, 3))
    xp.to_zarr(tmp_path / "a", part, region=np.s_[5:35, 9:32])
    touched = [(i, j) for rows, columns in written for i in rows for j in columns]
    assert len(touched) == len(set(touched))
    assert zarr.open_array(tmp_path / "a")[...].sum() == 30 * 23


def test_an_array_is_made_longer(tmp_path: Path) -> None:
    first, second, third = RNG.random((5, 3)), RNG.random((7, 3)), RNG.random((12, 2))
    xp.to_zarr(tmp_path / "a", first, chunks=(4, 2))
    xp.to_zarr(tmp_path / "a", xp.asarray(second, chunks=2), append_axis=0)
    xp.to_zarr(tmp_path / "a", third, append_axis=-1)
    wanted = np.concatenate([np.concatenate([first, second]), third], axis=1)
    np.testing.assert_array_equal(np.asarray(xp.from_zarr(tmp_path / "a")), wanted)


def test_a_failed_append_leaves_the_old_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xp.to_zarr(tmp_path / "a", np.ones((5, 3)))
    real = zarr_io._ZarrTarget.write

    def fail_later(self: Any, region: Any, *blocks: Any) -> None:
        if region[0].start:
            raise OSError("no space left")
        real(self, region, *blocks)

    monkeypatch.setattr(zarr_io._ZarrTarget, "write", fail_later)
    with pytest.raises(OSError, match="no space"):
        xp.to_zarr(tmp_path / "a", xp.zeros((40, 3), chunks=5), append_axis=0)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a")[...], np.ones((5, 3)))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"region": np.s_[0:2]}, ValueError, "does not fit"),
        ({"region": np.s_[0:5:2]}, InvalidArgumentError, "step 1"),
        ({"region": 3}, InvalidArgumentError, "slices"),
        ({"region": np.s_[0:5], "append_axis": 0}, InvalidArgumentError, "together"),
        ({"region": np.s_[0:5], "chunks": 2}, InvalidArgumentError, "chunks"),
        ({"append_axis": 5}, ValueError, "axis"),
        ({"chunks": (2,)}, InvalidArgumentError, "fit"),
        ({"chunks": 0}, InvalidArgumentError, "fit"),
    ],
)
def test_what_does_not_fit_is_refused(
    options: Any, error: type[Exception], text: str, tmp_path: Path
) -> None:
    old = RNG.random((5, 3))
    xp.to_zarr(tmp_path / "a", old)
    with pytest.raises(error, match=text):
        xp.to_zarr(tmp_path / "a", np.ones((4, 3)), **options)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a")[...], old)
    with pytest.raises(InvalidTypeError, match="complex"):
        xp.to_zarr(tmp_path / "a", np.ones((5, 3)) * 1j, region=np.s_[:])
    with pytest.raises(FileNotFoundError):
        xp.to_zarr(tmp_path / "b", old, region=np.s_[:])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_components_of_a_group(zarr_format: Any, tmp_path: Path) -> None:
    u, v = RNG.random(5), RNG.random((3, 2))
    xp.to_zarr(tmp_path / "a", u, "run/u", zarr_format=zarr_format)
    xp.to_zarr(tmp_path / "a", v, "run/v", zarr_format=zarr_format)
    xp.to_zarr(tmp_path / "a", v + 1, "run/v", zarr_format=zarr_format)
    group = zarr.open_group(tmp_path / "a", mode="r")
    np.testing.assert_array_equal(group["run/u"][...], u)
    np.testing.assert_array_equal(np.asarray(xp.from_zarr(tmp_path / "a", "run/v")), v + 1)
    assert sorted(group["run"].array_keys()) == ["u", "v"]


# --- HDF5 --------------------------------------------------------------------------------


def test_a_dataset_is_added_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    u, v = RNG.random((6, 4)), RNG.random(9)
    with h5py.File(path, "w") as store:
        store["mine"] = [1, 2, 3]
        store.attrs["note"] = "kept"
    xp.to_hdf5(path, "group/u", xp.asarray(u, chunks=3))
    xp.to_hdf5(path, "group/v", v)
    xp.to_hdf5(path, "group/u", u + 1)
    with h5py.File(path) as store:
        assert store["mine"][...].tolist() == [1, 2, 3]
        assert store.attrs["note"] == "kept"
        np.testing.assert_array_equal(store["group/u"][...], u + 1)
        np.testing.assert_array_equal(store["group/v"][...], v)
    xp.to_hdf5(path, "only", v, mode="w")
    with h5py.File(path) as store:
        assert list(store) == ["only"]
    assert [found.name for found in tmp_path.iterdir()] == ["a.h5"]


def test_hdf5_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"something else")
    with pytest.raises(SourceError, match="no HDF5 file"):
        xp.to_hdf5(path, "u", [1.0])
    assert path.read_bytes() == b"something else"
    xp.to_hdf5(path, "group/u", [1.0], mode="w")
    with pytest.raises(SourceError, match="is a group"):
        xp.to_hdf5(path, "group", [1.0])
    with pytest.raises(InvalidArgumentError, match="mode"):
        xp.to_hdf5(path, "u", [1.0], mode="r")  # type: ignore[arg-type]
    with h5py.File(path) as store:
        assert list(store["group"]) == ["u"]


# --- patterns ----------------------------------------------------------------------------


def test_patterns_stand_for_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    parts = [RNG.random((n, 2)) for n in (3, 1, 4)]
    for name, part in zip(("b", "a", "c"), parts, strict=True):
        np.save(tmp_path / f"day-{name}.npy", part)
    found = xp.from_npy(f"{tmp_path}/day-*.npy", chunks=2)
    np.testing.assert_array_equal(np.asarray(found), np.concatenate([parts[1], parts[0], parts[2]]))
    found = xp.from_npy([tmp_path / "day-c.npy", f"{tmp_path}/day-[ab].npy"])
    np.testing.assert_array_equal(np.asarray(found), np.concatenate([parts[2], parts[1], parts[0]]))
    with pytest.raises(FileNotFoundError, match="night"):
        xp.from_npy(f"{tmp_path}/night-*.npy")
    np.save(tmp_path / "odd[1].npy", parts[0])  # a file of that very name comes first
    np.testing.assert_array_equal(np.asarray(xp.from_npy(tmp_path / "odd[1].npy")), parts[0])


def test_patterns_of_urls() -> None:
    import fsspec

    for name in "ba":
        with fsspec.open(f"memory://patterns/{name}.npy", "wb") as file:
            np.save(file, np.full(2, ord(name)))
    found = xp.from_npy("memory://patterns/*.npy")
    assert np.asarray(found).tolist() == [97, 97, 98, 98]


def test_dates_and_records_in_npy(tmp_path: Path) -> None:
    days = np.array(["2020-01-01", "NaT", "1999-12-31"], "datetime64[D]")
    records = np.array([(1, 2.5), (3, 4.5)], [("a", "i4"), ("b", "f8")])
    for array in days, records:
        xp.to_npy(tmp_path / "a.npy", xp.asarray(array, chunks=1))
        found = np.asarray(xp.from_npy(tmp_path / "a.npy"))
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)


# --- Parquet -----------------------------------------------------------------------------


def test_a_table_in_one_file(tmp_path: Path) -> None:
    array = RNG.random((10, 3))
    path = tmp_path / "a.parquet"
    xp.to_parquet(path, xp.asarray(array, chunks=4), ["x", "y", "z"], compression="zstd")
    frame = pd.read_parquet(path)
    assert list(frame.columns) == ["x", "y", "z"]
    np.testing.assert_array_equal(frame.to_numpy(), array)
    assert pq.ParquetFile(path).num_row_groups == 3
    np.testing.assert_array_equal(np.asarray(xp.from_parquet(path)), array)


def test_columns_of_their_own_dtypes_in_a_directory(tmp_path: Path) -> None:
    table = {
        "count": np.arange(10, dtype=np.int32),
        "when": np.arange("2020-01-01", "2020-01-11", dtype="datetime64[D]"),
        "flag": np.arange(10) % 3 == 0,
        "value": RNG.random(10).astype(np.float32),
    }
    path = tmp_path / "table"
    xp.to_parquet(path, {name: xp.asarray(v, chunks=3) for name, v in table.items()})
    assert len(list(path.iterdir())) == 4
    frame = pd.read_parquet(path)
    found = xp.from_parquet(path, separate=True)
    for name, values in table.items():
        np.testing.assert_array_equal(frame[name].to_numpy().astype(values.dtype), values)
        np.testing.assert_array_equal(np.asarray(found[name]).astype(values.dtype), values)
    assert found["count"].dtype == np.int32
    assert found["when"].dtype.kind == "M"


def test_an_empty_table_and_a_vector(tmp_path: Path) -> None:
    xp.to_parquet(tmp_path / "a.parquet", np.empty((0, 2)))
    assert pd.read_parquet(tmp_path / "a.parquet").shape == (0, 2)
    xp.to_parquet(tmp_path / "b.parquet", [1.0, 2.0], ["v"])
    assert pd.read_parquet(tmp_path / "b.parquet")["v"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("x", "columns", "error"),
    [
        (np.ones((2, 2)), ["a"], InvalidArgumentError),
        (np.ones((2, 2)), ["a", "a"], InvalidArgumentError),
        (np.ones((2, 2, 2)), None, InvalidArgumentError),
        ({"a": [1.0], "b": [1.0, 2.0]}, None, InvalidArgumentError),
        ({}, None, InvalidArgumentError),
        ({"a": [1j]}, None, InvalidTypeError),
    ],
)
def test_tables_that_do_not_fit(
    x: Any, columns: Any, error: type[Exception], tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"old")
    with pytest.raises(error):
        xp.to_parquet(path, x, columns)
    assert path.read_bytes() == b"old"
    with pytest.raises(InvalidArgumentError, match=r"\.parquet"):
        xp.to_parquet("memory://folder", [1.0])
