"""NumPy's functions for files: load, save, savez, loadtxt, savetxt, genfromtxt."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.conversion import asarray
from agentic_ray.array.core import evaluate
from agentic_ray.array.io.npy import from_npy, from_npz, to_npy


class Archive(Mapping[str, Array]):
    """Arrays of an npz archive by name, as `load` returns them: NumPy's ``NpzFile``.

    Attributes
    ----------
    files : list of str
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = dict(arrays)
        self.files = list(self._arrays)

    def __getitem__(self, key: str) -> Array:
        return self._arrays[key.removesuffix(".npy") if key not in self._arrays else key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: no file is open, and later reads open it themselves."""

    def __repr__(self) -> str:
        return f"Archive with keys: {', '.join(self.files)}"


def load(
    file: Any,
    mmap_mode: str | None = None,
    allow_pickle: bool = False,
    fix_imports: bool = True,
    encoding: str = "ASCII",
    *,
    max_header_size: int = 10000,
) -> Any:
    """Load the array of an npy file, or the arrays of an npz archive.

    Files up to 32 MB, and open files, are read now. Larger files that are given by name are read
    chunk by chunk when they are computed with (see `from_npy`): they must not change until then, or
    an error says so.

    Parameters
    ----------
    file : path or file
    mmap_mode : {None, "r", "c"}
        ``"r"`` and ``"c"``: read chunk by chunk whatever the size.
    allow_pickle, fix_imports, encoding, max_header_size
        Arguments as in NumPy; arrays of objects are refused in any case.

    Returns
    -------
    Array or Archive

    Raises
    ------
    ValueError
        ``mmap_mode`` asks to write to the file: assign, and `save` the array.
    """
    if mmap_mode not in (None, "r", "c"):
        raise ValueError(f"mmap_mode {mmap_mode!r}: arrays do not write to files; see save")
    options: dict[str, Any] = {
        "allow_pickle": allow_pickle,
        "fix_imports": fix_imports,
        "encoding": encoding,
        "max_header_size": max_header_size,
    }
    named = isinstance(file, str | os.PathLike)
    if not named or (mmap_mode is None and os.path.getsize(file) <= evaluate.LOCAL_BYTES):
        found = np.load(file, **options)
        if isinstance(found, np.lib.npyio.NpzFile):
            with found:
                return Archive({name: asarray(found[name], copy=False) for name in found.files})
        return asarray(found, copy=False)
    with open(file, "rb") as opened:
        is_archive = opened.read(2) == b"PK"
    return Archive(from_npz(os.fspath(file))) if is_archive else from_npy(os.fspath(file))


def save(file: Any, arr: Any, allow_pickle: bool = True) -> None:
    """Write an array to an npy file; to a name chunk by chunk, as `to_npy` does.

    Parameters
    ----------
    file : path or file
        File; ``.npy`` is added to a name without it.
    arr : array_like
    allow_pickle : bool
        Ignored; there are no arrays of objects.
    """
    if isinstance(file, str | os.PathLike):
        name = os.fspath(file)
        to_npy(name if name.endswith(".npy") else name + ".npy", asarray(arr))
    else:
        np.save(file, np.asarray(arr))


class _Brought:
    """An array whose values are brought here when NumPy asks for them."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.asarray(self.array, dtype=dtype)


def savez(file: Any, *args: Any, allow_pickle: bool = True, **kwds: Any) -> None:
    """Write several arrays to an npz archive, named by keyword or ``arr_0``, ``arr_1``, …; they are
    brought here one after the other."""
    named = {name: _Brought(value) for name, value in kwds.items()}
    np.savez(file, *map(_Brought, args), allow_pickle=allow_pickle, **named)


def savez_compressed(file: Any, *args: Any, allow_pickle: bool = True, **kwds: Any) -> None:
    """Write as `savez` does, compressed."""
    named = {name: _Brought(value) for name, value in kwds.items()}
    np.savez_compressed(file, *map(_Brought, args), allow_pickle=allow_pickle, **named)


def _read_here(name: str, text: str) -> Callable[..., Any]:
    """Make the function that reads a text file in this process by NumPy's of this name."""
    own: Callable[..., Any] = getattr(np, name)

    @functools.wraps(own)
    def read(*args: Any, **kwargs: Any) -> Any:
        if isinstance(kwargs.get("like"), Array):
            del kwargs["like"]
        found = own(*args, **kwargs)
        return [asarray(part) for part in found] if isinstance(found, list) else asarray(found)

    read.__doc__ = text
    read.__module__ = __name__
    read.__signature__ = inspect.signature(own)  # type: ignore[attr-defined]
    return read


loadtxt = _read_here(
    "loadtxt",
    """The numbers of a text file, read in this process at the call; arguments as in NumPy.

    For larger tables see `from_parquet`, or ``agentic_ray.sources``.
    """,
)
genfromtxt = _read_here(
    "genfromtxt",
    """The numbers of a text file with gaps, read in this process; arguments as in NumPy.

    Columns of text are refused, as all arrays of text are.
    """,
)


def savetxt(
    fname: Any,
    X: Any,
    fmt: Any = "%.18e",
    delimiter: str = " ",
    newline: str = "\n",
    header: str = "",
    footer: str = "",
    comments: str = "# ",
    encoding: str | None = None,
) -> None:
    """Write a vector or matrix as text, in this process; arguments as in NumPy."""
    np.savetxt(fname, np.asarray(X), fmt, delimiter, newline, header, footer, comments, encoding)
