"""Arrays from files and into files, chunk by chunk in parallel.

Reading is lazy: a file's header is read at the call, its values when they are needed. Each format
has a module of its own; libraries that only one format needs are imported in it, when used.
"""

from agentic_ray.array.io.hdf5 import from_hdf5, to_hdf5
from agentic_ray.array.io.npy import from_npy, from_npz, to_npy
from agentic_ray.array.io.parquet import from_parquet, to_parquet
from agentic_ray.array.io.zarr import from_zarr, to_zarr

__all__ = [
    "from_hdf5",
    "from_npy",
    "from_npz",
    "from_parquet",
    "from_zarr",
    "to_hdf5",
    "to_npy",
    "to_parquet",
    "to_zarr",
]
