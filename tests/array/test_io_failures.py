"""Files that are missing, cut off or of another shape; writes that fail half way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import agentic_ray.array as xp
from agentic_ray.array import io
from agentic_ray.array.core.node import Op, make

h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")


def cut(path: Path, by: int = 20) -> None:
    os.truncate(path, path.stat().st_size - by)


def test_missing_files(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for read in (
        io.from_npy,
        io.from_npz,
        io.from_zarr,
        io.from_parquet,
        lambda path: io.from_hdf5(path, "x"),
    ):
        with pytest.raises(FileNotFoundError, match="gone"):
            read(gone)
    with pytest.raises(TypeError, match="must be a str or os"):
        io.from_npy(7)  # type: ignore[arg-type]


def test_truncated_files_fail_at_the_call(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((10, 3)))
    cut(tmp_path / "a.npy")
    with pytest.raises(
        ValueError, match=r"a\.npy has 348 bytes; float64 of shape \(10, 3\) take 368"
    ):
        io.from_npy(tmp_path / "a.npy")
    os.truncate(tmp_path / "a.npy", 30)
    with pytest.raises(ValueError, match=r"a\.npy is not a readable npy file"):
        io.from_npy(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", x=np.zeros(5))
    cut(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.npz, of \d+ bytes, is not a whole npz"):
        io.from_npz(tmp_path / "a.npz")
    io.to_hdf5(tmp_path / "a.h5", "x", xp.zeros((1000,)))
    cut(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"a\.h5, of \d+ bytes, is not a whole HDF5 file"):
        io.from_hdf5(tmp_path / "a.h5", "x")
    pq.write_table(pa.table({"a": [1.0]}), tmp_path / "a.parquet")
    cut(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet, of \d+ bytes, is not a whole Parquet"):
        io.from_parquet(tmp_path / "a.parquet")


def test_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((10, 3)))
    x = io.from_npy(tmp_path / "a.npy")
    cut(tmp_path / "a.npy", 80)
    with pytest.raises(ValueError, match="had 368 bytes when it was opened and has 288 now"):
        x.compute()


def test_damaged_zarr(tmp_path: Path) -> None:
    io.to_zarr(tmp_path / "a", xp.arange(1000, chunks=100))
    chunk = next(path for path in (tmp_path / "a" / "c").iterdir())
    cut(chunk, chunk.stat().st_size - 3)
    with pytest.raises(ValueError, match="cannot be read"):
        io.from_zarr(tmp_path / "a").compute()
    (tmp_path / "a" / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match="no zarr array"):
        io.from_zarr(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no zarr array"):
        io.from_zarr(tmp_path / "empty")


def test_files_of_other_things(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([None, "x"], dtype=object), allow_pickle=True)
    np.save(tmp_path / "s.npy", np.array(["a", "b"]))
    for name in "os":
        with pytest.raises(TypeError, match="numbers"):
            io.from_npy(tmp_path / f"{name}.npy")
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(ValueError, match="not a readable npy file"):
        io.from_npy(tmp_path / "text.npy")
    with pytest.raises(IsADirectoryError):
        io.from_npy(tmp_path)
    io.to_hdf5(tmp_path / "a.h5", "deep/x", xp.zeros((3,)))
    with pytest.raises(KeyError, match="no dataset 'y'; it has: deep/x"):
        io.from_hdf5(tmp_path / "a.h5", "y")
    with pytest.raises(ValueError, match="zarr_format"):
        io.to_zarr(tmp_path / "z", xp.zeros((3,)), zarr_format=4)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        io.to_npy(tmp_path / "no" / "a.npy", xp.zeros((3,)))


def _explode(xp_: Any, x: Any) -> Any:
    if (x == 7).any():
        raise ArithmeticError("chunk 7")
    return x


_EXPLODE = Op("explode", "map", _explode)


@pytest.mark.parametrize("kind", ["npy", "hdf5", "zarr"])
def test_failed_write_leaves_the_old_data(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"

    def write(array: xp.Array) -> None:
        if kind == "npy":
            io.to_npy(path, array)
        elif kind == "hdf5":
            io.to_hdf5(path, "x", array)
        else:
            io.to_zarr(path, array)

    def read() -> Any:
        if kind == "npy":
            return np.load(path)
        if kind == "hdf5":
            with h5py.File(path) as store:
                return store["x"][:]
        return zarr.open_array(path)[:]

    write(xp.arange(10, chunks=1))
    node = xp.arange(20, chunks=1)._node
    bad = xp.Array(make(_EXPLODE, (node,), (), node.shape, node.dtype, node.chunks))
    with pytest.raises(ArithmeticError, match="chunk 7"):
        write(bad)
    np.testing.assert_array_equal(read(), np.arange(10))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    write(xp.arange(5, chunks=1))
    np.testing.assert_array_equal(read(), np.arange(5))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


SLOW_WRITER = """
import os, sys, time
import agentic_ray.array as xp
from agentic_ray.array import io
from agentic_ray.array.core.node import Op, make

def slow(xp_, x):
    os.write(1, b"at %d\\n" % int(x[0]))  # as a whole: several threads write
    time.sleep(0.5)
    return x

node = xp.arange(50, chunks=1)._node
slow = xp.Array(make(Op("slow", "map", slow), (node,), (), node.shape, node.dtype, node.chunks))
io.to_npy(sys.argv[1], slow) if sys.argv[1].endswith("npy") else io.to_zarr(sys.argv[1], slow)
"""


@pytest.mark.parametrize("name", ["a.npy", "a.zarr"])
def test_writer_killed_half_way_leaves_the_old_data(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    old = xp.arange(10)
    io.to_npy(path, old) if name.endswith("npy") else io.to_zarr(path, old)
    writer = subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert "at 2\n" in writer.stdout
    while len(list(tmp_path.iterdir())) < 2 and writer.poll() is None:
        time.sleep(0.01)  # until what is begun lies beside it
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    found = io.from_npy(path) if name.endswith("npy") else io.from_zarr(path)
    np.testing.assert_array_equal(np.asarray(found), np.arange(10))
