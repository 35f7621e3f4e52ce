"""NumPy's names that are left out here, their replacements, and the error for unknown names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_TEXT = "arrays hold numbers: keep text in a pandas, polars or Arrow table"
_SHOWN = "numpy.{name}(numpy.asarray(x)); print(x) shows small arrays"
_MATRIX = "arrays of two axes, and x @ y"
_DAYS = "numpy.{name} on NumPy's dates, or pandas' calendars"
_LONG = "float64: its size depends on the machine, and chunks move between machines"
_LONG_COMPLEX = "complex128: its size depends on the machine, and chunks move between machines"
_NUMPYS = "numpy.{name}: it is about NumPy itself"
_RECORDS = "arrays of records: x['field']"

LEFT_OUT: dict[str, str] = {
    "array2string": _SHOWN,
    "array_repr": "repr(x)",
    "array_str": "str(x)",
    "asmatrix": _MATRIX,
    "base_repr": "numpy.{name}",
    "binary_repr": "numpy.{name}",
    "bmat": "block",
    "busday_count": _DAYS,
    "busday_offset": _DAYS,
    "busdaycalendar": _DAYS,
    "bytes_": _TEXT,
    "char": _TEXT,
    "character": _TEXT,
    "clongdouble": _LONG_COMPLEX,
    "complex256": _LONG_COMPLEX,
    "ctypeslib": "numpy.{name} on numpy.asarray(x): chunks have no address",
    "datetime_as_string": _SHOWN,
    "datetime_data": "numpy.datetime_data(x.dtype)",
    "emath": "arrays of complex numbers: xp.sqrt(x.astype(complex))",
    "exceptions": "numpy.exceptions: the exceptions are NumPy's",
    "f2py": _NUMPYS,
    "fft.test": _NUMPYS,
    "flatiter": "x.flat",
    "float128": _LONG,
    "format_float_positional": 'numpy.{name}, or f"{{x:.3f}}"',
    "format_float_scientific": 'numpy.{name}, or f"{{x:.3e}}"',
    "get_include": _NUMPYS,
    "getbufsize": "config, which sizes chunks",
    "info": "help(function)",
    "is_busday": _DAYS,
    "lib.stride_tricks.as_strided": "sliding_window_view or broadcast_to: chunks have no strides",
    "linalg.test": _NUMPYS,
    "longdouble": _LONG,
    "ma": "NaN and the functions nansum, nanmean, …, or a mask with where=",
    "matrix": _MATRIX,
    "memmap": "from_npy, from_zarr, from_hdf5: files are read chunk by chunk",
    "ndarray": "Array, and asarray to make one",
    "nested_iters": "ndindex, or functions over whole arrays",
    "object_": "numbers: arrays of objects are refused; map_reduce goes over Python objects",
    "poly1d": "vectors of coefficients with polyval, polyfit, polyadd, …",
    "polynomial": "vectors of coefficients with polyval, polyfit, polyadd, …",
    "rec": _RECORDS,
    "recarray": _RECORDS,
    "record": _RECORDS,
    "setbufsize": "config, which sizes chunks",
    "show_config": _NUMPYS,
    "show_runtime": _NUMPYS,
    "str_": _TEXT,
    "strings": _TEXT,
    "test": _NUMPYS,
    "testing": "numpy.testing: it takes these arrays, too",
    "typing": "numpy.typing",
    "ufunc": "frompyfunc or vectorize to make one; functions such as xp.add are ufuncs",
}
"""Names that are left out on purpose, and their replacements."""

_FORMER = {
    "Inf": "inf", "Infinity": "inf", "NAN": "nan", "NaN": "nan", "alltrue": "all",
    "complex_": "complex128", "cumproduct": "cumprod", "float_": "float64", "in1d": "isin",
    "infty": "inf", "product": "prod", "round_": "round", "sometrue": "any", "trapz": "trapezoid",
}  # fmt: skip
"""Names that NumPy had once, and their present names."""


def instead_of(name: str) -> str:
    """Return the replacement for a name that is left out."""
    return LEFT_OUT[name].format(name=name)


def refusal(space: str, name: str, there: Iterable[str]) -> AttributeError:
    """Make the error for a name that ``space``, such as ``"agentic_ray.array"``, lacks.

    Parameters
    ----------
    space : str
    name : str
    there : iterable of str
        Names that the space has.
    """
    part = space.removeprefix("agentic_ray.array").lstrip(".")
    known = f"{part}.{name}" if part else name
    text = f"module {space!r} has no attribute {name!r}"
    if known in LEFT_OUT:
        text += f"; NumPy's is left out, use instead: {instead_of(known)}"
    elif name in _FORMER:
        text += f"; it is called {_FORMER[name]!r}"
    elif not name.startswith("_"):
        near = difflib.get_close_matches(name.lower(), there, n=1, cutoff=0.6)
        text += f". Did you mean {near[0]!r}?" if near else ""
    return AttributeError(text, name=name)


def as_markdown() -> str:
    """Return `LEFT_OUT` as the table that is in the documentation."""
    rows = [f"| `{name}` | {instead_of(name)} |" for name in sorted(LEFT_OUT, key=str.lower)]
    return "\n".join(["| NumPy's name | use instead |", "| --- | --- |", *rows])
