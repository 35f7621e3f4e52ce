"""xarray's files over our arrays: read chunk by chunk, written by the tasks that make chunks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentic_ray.array as xp
from agentic_ray.errors import InvalidArgumentError

xr = pytest.importorskip("xarray")
zarr = pytest.importorskip("zarr")
pd = pytest.importorskip("pandas")

RNG = np.random.default_rng(0)
PLAIN = xr.Dataset(
    {
        "t": (("time", "lat"), RNG.normal(280, 10, size=(24, 5)), {"units": "K"}),
        "p": (("time", "lat"), RNG.random((24, 5)).astype(np.float32)),
        "n": ("lat", RNG.integers(0, 5, 5).astype(np.int32)),
        "one": ((), 3.5),
    },
    coords={"time": pd.date_range("2024-01-30", periods=24, freq="36h"), "lat": np.arange(5.0)},
)


@pytest.fixture
def wanted(tmp_path: Path) -> Any:
    """What xarray reads back after it wrote NumPy's arrays."""
    PLAIN.to_zarr(tmp_path / "plain.zarr")
    return xr.open_zarr(tmp_path / "plain.zarr", chunks=None).load()


def chunked(chunks: Any) -> Any:
    return PLAIN.chunk(chunks, chunked_array_type="agentic_ray")


def lazily(path: Any, **options: Any) -> Any:
    return xr.open_zarr(path, chunked_array_type="agentic_ray", **options)


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunks", [{}, "auto", {"time": 8}, {"time": -1, "lat": 2}, {"lat": "1 kB"}]
)
def test_read(chunks: Any, wanted: Any, tmp_path: Path) -> None:
    chunked({"time": 8, "lat": 5}).to_zarr(tmp_path / "a.zarr")
    opened = lazily(tmp_path / "a.zarr", chunks=chunks)
    assert isinstance(opened.t.data, xp.Array)
    if chunks == {}:
        assert opened.t.chunks == ((8, 8, 8), (5,))
    xr.testing.assert_identical(opened.load(), wanted)
    other = xr.open_dataset(
        tmp_path / "a.zarr", engine="zarr", chunks=chunks, chunked_array_type="agentic_ray"
    )
    xr.testing.assert_identical(other.compute(), wanted)


def test_only_what_is_used_is_read(tmp_path: Path) -> None:
    chunked({"time": 8}).to_zarr(tmp_path / "a.zarr")
    opened = lazily(tmp_path / "a.zarr", chunks={})
    for file in (tmp_path / "a.zarr" / "t" / "c").rglob("*"):
        if file.is_file() and file.parent.name != "1":
            file.unlink()  # a chunk that is not there reads as the fill value
    part = opened.t.isel(time=slice(8, 16)) - 1
    np.testing.assert_array_equal(part.values, PLAIN.t[8:16].values - 1)
    assert np.isnan(opened.t.isel(time=0).values).all()


def test_a_file_that_was_written_to_is_read_anew(tmp_path: Path) -> None:
    for number in (1.0, 2.0):
        xr.Dataset({"x": ("i", np.full(6, number))}).to_zarr(tmp_path / "a.zarr", mode="w")
        opened = lazily(tmp_path / "a.zarr", chunks={"i": 3})
        assert opened.x.mean().item() == number
        assert (opened.x * 2).values.tolist() == [2 * number] * 6


def test_decoded_values_are_read_chunk_by_chunk(tmp_path: Path) -> None:
    packing = {"t": {"scale_factor": 0.01, "add_offset": 280.0, "dtype": "int16", "_FillValue": -1}}
    for dataset in PLAIN, chunked({"time": 8}):
        dataset.where(dataset.t > 270).to_zarr(tmp_path / "a.zarr", mode="w", encoding=packing)
        opened = lazily(tmp_path / "a.zarr", chunks={"time": 8})
        xr.testing.assert_identical(
            opened.compute(), xr.open_zarr(tmp_path / "a.zarr", chunks=None).load()
        )
        np.testing.assert_allclose(opened.t.values, PLAIN.t.where(PLAIN.t > 270), atol=0.01)


def test_netcdf(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    chunked({"time": 7}).to_netcdf(tmp_path / "a.nc", engine="scipy")
    PLAIN.to_netcdf(tmp_path / "b.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "b.nc", engine="scipy") as read:
        wanted = read.load()
    for chunks in ({"time": 5}, {}, "auto"):
        with xr.open_dataset(
            tmp_path / "a.nc", engine="scipy", chunks=chunks, chunked_array_type="agentic_ray"
        ) as opened:
            assert isinstance(opened.t.data, xp.Array)
            xr.testing.assert_identical(opened.compute(), wanted)
            np.testing.assert_allclose(opened.t.mean("time"), wanted.t.mean("time"))


def test_many_files(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    for i in range(3):
        part = PLAIN.isel(time=slice(8 * i, 8 * i + 8))
        part.to_netcdf(tmp_path / f"{i}.nc", engine="scipy")
    with xr.open_mfdataset(
        str(tmp_path / "*.nc"), engine="scipy", combine="by_coords", data_vars="minimal",
        coords="minimal", compat="override", join="outer", chunked_array_type="agentic_ray",
    ) as opened:  # fmt: skip
        assert isinstance(opened.t.data, xp.Array)
        np.testing.assert_array_equal(opened.t.values, PLAIN.t.values)


# --- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [{"time": 7, "lat": 2}, {"time": 8}, {}])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_write(chunks: Any, zarr_format: int, wanted: Any, tmp_path: Path) -> None:
    chunked(chunks).to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format)
    found = xr.open_zarr(tmp_path / "a.zarr", chunks=None).load()
    for name in wanted.variables:
        np.testing.assert_array_equal(found[name].values, wanted[name].values)
        assert found[name].dtype == wanted[name].dtype


def test_append_and_region(wanted: Any, tmp_path: Path) -> None:
    path, dataset = tmp_path / "a.zarr", chunked({"time": 8})
    dataset.isel(time=slice(0, 16)).to_zarr(path)
    dataset[["t", "p"]].isel(time=slice(16, 24)).to_zarr(path, append_dim="time")
    xr.testing.assert_identical(xr.open_zarr(path, chunks=None).load(), wanted)
    part = (dataset[["t"]] * 0).isel(time=slice(8, 16)).drop_vars(["lat"])
    part.to_zarr(path, region={"time": slice(8, 16)})
    wanted.t[8:16] = 0
    np.testing.assert_array_equal(xr.open_zarr(path, chunks=None).t.values, wanted.t.values)


def test_pieces_of_a_file_are_written_by_one_task_each(wanted: Any, tmp_path: Path) -> None:
    """Chunks that share pieces of the file would overwrite each other's part of them."""
    chunked({"time": 7, "lat": 2}).to_zarr(
        tmp_path / "a.zarr", encoding={"t": {"chunks": (5, 3)}}, safe_chunks=False
    )
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "a.zarr", chunks=None).load(), wanted)


def test_stores_that_other_processes_cannot_write_to(wanted: Any, tmp_path: Path) -> None:
    """A copy of such a store in a task would take the chunk, and be lost."""
    memory = zarr.storage.MemoryStore()
    chunked({"time": 8}).to_zarr(memory)
    xr.testing.assert_identical(xr.open_zarr(memory, chunks=None).load(), wanted)
    xr.testing.assert_identical(lazily(memory, chunks={}).load(), wanted)
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="w") as archive:
        chunked({"time": 8}).to_zarr(archive)
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="r") as archive:
        xr.testing.assert_identical(lazily(archive, chunks={}).load(), wanted)
    pytest.importorskip("fsspec")
    chunked({"time": 8}).to_zarr("memory://agentic_ray_test.zarr")
    xr.testing.assert_identical(
        xr.open_zarr("memory://agentic_ray_test.zarr", chunks=None).load(), wanted
    )


def test_executors_read_and_write(ray_session: object, tmp_path: Path) -> None:
    """Large enough that no chunk passes through this process."""
    numbers = np.arange(6_000_000.0).reshape(3000, 2000)
    dataset = xr.Dataset({"x": (("i", "j"), numbers)}).chunk(
        {"i": 1000}, chunked_array_type="agentic_ray"
    )
    (dataset + 1).to_zarr(tmp_path / "a.zarr")
    opened = lazily(tmp_path / "a.zarr", chunks={})
    assert opened.x.chunks == ((1000,) * 3, (2000,))
    assert opened.x.sum().item() == numbers.sum() + numbers.size
    np.testing.assert_array_equal(opened.x[::500, 7].values, numbers[::500, 7] + 1)
    memory = zarr.storage.MemoryStore()
    (opened * 2).to_zarr(memory)
    np.testing.assert_array_equal(xr.open_zarr(memory, chunks=None).x.values, (numbers + 1) * 2)


def test_later_needs_dask(tmp_path: Path) -> None:
    try:
        import dask  # noqa: F401
    except ImportError:
        with pytest.raises(InvalidArgumentError, match="Dask"):
            chunked({"time": 8}).to_zarr(tmp_path / "a.zarr", compute=False)
        return
    later = chunked({"time": 8}).to_zarr(tmp_path / "a.zarr", compute=False)
    assert np.isnan(xr.open_zarr(tmp_path / "a.zarr", chunks=None).t.values).all()
    later.compute()
    np.testing.assert_array_equal(
        xr.open_zarr(tmp_path / "a.zarr", chunks=None).t.values, PLAIN.t.values
    )


def test_only_the_plug_imports_xarray() -> None:
    program = "import sys, agentic_ray, agentic_ray.array; assert 'xarray' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=170)
