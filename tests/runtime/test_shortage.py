"""Errors of GPU frameworks that say that memory was short, recognised without the frameworks."""

from __future__ import annotations

from typing import Any

import pytest

from agentic_ray.errors import OutOfDeviceMemoryError
from agentic_ray.runtime.functions.shortage import is_out_of_memory


def error_of(module: str, name: str, text: str, base: type[Exception] = RuntimeError) -> Exception:
    """An error whose class says that it is of another package."""
    made: Any = type(name, (base,), {"__module__": module})
    error: Exception = made(text)
    return error


SHORT = [
    error_of("torch", "OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
    error_of("torch.cuda", "OutOfMemoryError", "CUDA out of memory."),
    error_of("torch", "AcceleratorError", "CUDA error: out of memory"),
    error_of(
        "jaxlib.xla_extension", "XlaRuntimeError", "RESOURCE_EXHAUSTED: Out of memory while trying"
    ),
    error_of("jax.errors", "JaxRuntimeError", "RESOURCE_EXHAUSTED: Failed to allocate request"),
    error_of("cupy.cuda.memory", "OutOfMemoryError", "Out of memory allocating", MemoryError),
    error_of("cupy_backends.cuda.api.runtime", "CUDARuntimeError", "cudaErrorMemoryAllocation"),
    error_of("tensorflow.python.framework.errors_impl", "ResourceExhaustedError", "OOM when"),
    error_of("numba.cuda.cudadrv.driver", "CudaAPIError", "[2] CUDA_ERROR_OUT_OF_MEMORY"),
    error_of("onnxruntime.capi", "RuntimeException", "Failed to allocate memory for requested"),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    OutOfDeviceMemoryError("ours"),
]
OTHER = [
    MemoryError("the host has none left"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ValueError("CUDA out of memory"),
    error_of("torch", "AcceleratorError", "CUDA error: an illegal memory access was encountered"),
    error_of("jaxlib.xla_extension", "XlaRuntimeError", "INVALID_ARGUMENT: shapes"),
    error_of("mine", "OutOfMemoryError", "my own bucket is full"),
    KeyError("out of memory"),
]


@pytest.mark.parametrize("error", SHORT, ids=lambda e: f"{type(e).__module__}.{type(e).__name__}")
def test_memory_did_not_suffice(error: Exception) -> None:
    assert is_out_of_memory(error)
    derived: Any = type("Mine", (type(error),), {"__module__": "mine"})
    assert is_out_of_memory(derived(str(error)))
    wrapped = ValueError("a batch failed")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize("error", OTHER, ids=repr)
def test_something_else(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_causes_in_a_circle_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_out_of_memory(first)
