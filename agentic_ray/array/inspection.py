"""Capabilities of the namespace: versions, devices, dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.array_object import DEVICES, check_device

API_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12", "2025.12")

_DTYPES: dict[str, tuple[str, ...]] = {
    "bool": ("bool",),
    "signed integer": ("int8", "int16", "int32", "int64"),
    "unsigned integer": ("uint8", "uint16", "uint32", "uint64"),
    "real floating": ("float32", "float64"),
    "complex floating": ("complex64", "complex128"),
}
_DTYPES["integral"] = _DTYPES["signed integer"] + _DTYPES["unsigned integer"]
_DTYPES["numeric"] = _DTYPES["integral"] + _DTYPES["real floating"] + _DTYPES["complex floating"]


class Info:
    """Answers of ``__array_namespace_info__``."""

    def capabilities(self) -> dict[str, Any]:
        """Return the capabilities that depend on the library: here everything is supported."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        return "cpu"

    def devices(self) -> tuple[str, ...]:
        """Return the devices that work can be meant for; without a GPU its work is done on CPUs."""
        return DEVICES

    def default_dtypes(self, *, device: str | None = None) -> dict[str, np.dtype[Any]]:
        check_device(device)
        return {
            "real floating": np.dtype(np.float64),
            "complex floating": np.dtype(np.complex128),
            "integral": np.dtype(np.int64),
            "indexing": np.dtype(np.int64),
        }

    def dtypes(
        self, *, device: str | None = None, kind: str | tuple[str, ...] | None = None
    ) -> dict[str, np.dtype[Any]]:
        """Return dtypes by name, of one kind or several.

        Raises
        ------
        ValueError
            There is no such kind.
        """
        check_device(device)
        kinds = ("bool", "numeric") if kind is None else kind
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        names: dict[str, None] = {}
        for entry in kinds:
            if entry not in _DTYPES:
                raise ValueError(f"no kind {entry!r}; there are {', '.join(_DTYPES)}")
            names.update(dict.fromkeys(_DTYPES[entry]))
        return {name: np.dtype(name) for name in names}


def __array_namespace_info__() -> Info:
    """Return information about this namespace, as the standard asks for."""
    return Info()
