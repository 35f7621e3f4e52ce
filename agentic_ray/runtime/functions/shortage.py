"""Recognises errors of GPU frameworks that say that the card's memory did not suffice.

By the names of their classes and, where a framework has one class for all its errors, by their
text; no framework is imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agentic_ray.errors import OutOfDeviceMemoryError

_BY_NAME: Final = frozenset(
    {
        ("torch", "OutOfMemoryError"),  # torch.OutOfMemoryError, torch.cuda.OutOfMemoryError
        ("cupy", "OutOfMemoryError"),  # cupy.cuda.memory.OutOfMemoryError
        ("cupy_backends", "OutOfMemoryError"),
        ("tensorflow", "ResourceExhaustedError"),
        ("rmm", "OutOfMemoryError"),
        ("pycuda", "MemoryError"),
    }
)
"""Packages and names of the classes that say nothing else."""

_BY_TEXT: Final = {
    "jaxlib": r"RESOURCE_EXHAUSTED|[Oo]ut of memory",  # XlaRuntimeError and JaxRuntimeError
    "jax": r"RESOURCE_EXHAUSTED|[Oo]ut of memory",
    "cupy_backends": r"cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|_ALLOC_FAILED",
    "cupy": r"cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|_ALLOC_FAILED",
    "numba": r"CUDA_ERROR_OUT_OF_MEMORY",
    "onnxruntime": r"Failed to allocate memory|CUDA(?: error)?.*out of memory",
    "torch": r"CUDA(?: error)?:? ?out of memory|CU(?:BLAS|DNN|SPARSE)_STATUS_ALLOC_FAILED",
    # (older releases of PyTorch, and much C++ code, raise a plain RuntimeError)
    "builtins": r"CUDA(?: error)?:? ?out of memory|CU(?:BLAS|DNN|SPARSE)_STATUS_ALLOC_FAILED"
    r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|std::bad_alloc: .*out_of_memory: CUDA",
}
"""Texts of such errors by the package of the class, where the class is used for others too."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that it was raised from, says that a GPU lacked memory.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    True
    >>> is_out_of_memory(MemoryError("the host has none left"))
    False
    """
    return any(map(_says_so, _chain(error)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and the exceptions that it was explicitly raised from."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__


def _says_so(error: BaseException) -> bool:
    if isinstance(error, OutOfDeviceMemoryError):
        return True
    for kind in type(error).__mro__:
        package = kind.__module__.partition(".")[0]
        if (package, kind.__name__) in _BY_NAME:
            return True
        text = _BY_TEXT.get(package)
        named = package != "builtins" or kind is RuntimeError
        if text is not None and named and re.search(text, str(error)):
            return True
    return False
