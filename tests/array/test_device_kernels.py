"""Fused kernels for CuPy, whose C++ is compiled here for the CPU behind CuPy's two classes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentic_ray.array as xp
from agentic_ray.array.core import device_kernels, evaluate

_C = {"float64": ("double", ctypes.c_double), "float32": ("float", ctypes.c_float)}


class Kernels:
    """NumPy with CuPy's classes for kernels, as CuPy documents them."""

    def __init__(self, folder: Path) -> None:
        self.compiler = shutil.which("c++") or shutil.which("g++")
        if self.compiler is None:
            pytest.skip("needs a C++ compiler (c++ or g++)")
        self.folder = folder
        self.made: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def _compiled(self, inputs: str, out: str, call: str, name: str, rest: Any) -> Any:
        assert name.isidentifier()
        assert rest["options"] == ("--fmad=false",)
        dtype = out.split()[0]
        ctype, number = _C[dtype]
        names = [parameter.split()[1] for parameter in inputs.split(", ")]
        assert [parameter.split()[0] for parameter in inputs.split(", ")] == [dtype] * len(names)
        takes = ", ".join(f"const {ctype}* p_{n}" for n in names)
        reads = " ".join(f"const {ctype} {n} = p_{n}[i];" for n in names)
        source = self.folder / f"{name}.cpp"
        source.write_text(
            "#include <cmath>\nusing namespace std;\n#define __device__ static\n"
            f"{rest['preamble']}\n"
            f'extern "C" void run({takes}, {ctype}* p_out, long n) {{\n'
            f"  for (long i = 0; i < n; i++) {{ {reads} p_out[i] = {call}; }}\n}}\n"
        )
        library = source.with_suffix(".so")
        subprocess.run(
            [self.compiler, "-shared", "-fPIC", "-O2", "-ffp-contract=off", "-o", library, source],
            check=True,
        )
        function = ctypes.CDLL(str(library)).run
        self.made.append(name)

        def apply(*blocks: Any) -> Any:
            whole = [np.ascontiguousarray(b) for b in np.broadcast_arrays(*blocks)]
            result = np.empty(whole[0].shape, blocks[0].dtype)
            assert result.dtype == dtype
            assert ctypes.sizeof(number) == result.itemsize
            function(*[ctypes.c_void_p(b.ctypes.data) for b in [*whole, result]], whole[0].size)
            return result

        return apply

    def ElementwiseKernel(
        self, in_params: str, out_params: str, operation: str, name: str, **rest: Any
    ) -> Any:
        target, _, call = operation.partition(" = ")
        assert target == out_params.split()[1]
        return self._compiled(in_params, out_params, call, name, rest)

    def ReductionKernel(
        self,
        in_params: str,
        out_params: str,
        map_expr: str,
        reduce_expr: str,
        post_map_expr: str,
        identity: str,
        name: str,
        **rest: Any,
    ) -> Any:
        assert (reduce_expr, post_map_expr, identity) == ("a + b", "out = a", "0")
        apply = self._compiled(in_params, out_params, map_expr, name, rest)
        return lambda *blocks, axis, keepdims: np.sum(apply(*blocks), axis, keepdims=keepdims)


@pytest.fixture
def kernels(tmp_path: Path) -> Kernels:
    device_kernels._kernel.cache_clear()
    return Kernels(tmp_path)


def program(x: xp.Array) -> Any:
    """The one program that ``x`` becomes, with its scalars bound."""
    (task,) = evaluate.plan([x._node])[0]

    def run(*blocks: Any, xp: Any) -> Any:
        return task.codelet.gpu(*blocks, *task.args[len(blocks) :], xp=xp)  # type: ignore[misc]

    return run


ROWS, COLUMNS = 1024, 512


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_chain_is_one_kernel_with_the_bits_of_its_steps(kernels: Kernels, dtype: Any) -> None:
    table = np.random.default_rng(1).standard_normal((ROWS, COLUMNS)).astype(dtype)
    row = np.linspace(0.5, 2, COLUMNS).astype(dtype)
    x, y = xp.asarray(table, chunks=-1), xp.asarray(row, chunks=-1)
    chain = program(-((x - y) / y) * xp.sqrt(xp.abs(x)) + 3 - xp.square(x) * 1e-3)
    got = chain(table, row, xp=kernels)
    assert kernels.made
    assert got.dtype == dtype
    plain = chain(table, row, xp=np)
    assert got.tobytes() == plain.tobytes()


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_sum_of_a_chain_is_one_kernel(kernels: Kernels, axis: int | None) -> None:
    table = np.random.default_rng(2).standard_normal((ROWS, COLUMNS))
    summed = program(xp.sum(xp.exp(xp.asarray(table, chunks=-1)) * 2, axis=axis))
    got = summed(table, xp=kernels)
    assert len(kernels.made) == 1
    np.testing.assert_allclose(got, (np.exp(table) * 2).sum(axis), rtol=1e-13)
    summed(table, xp=kernels)
    assert len(kernels.made) == 1  # the second time it is there


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scalars_are_arguments_of_a_kernel(kernels: Kernels, dtype: Any) -> None:
    table = np.random.default_rng(2).standard_normal((ROWS, COLUMNS)).astype(dtype)
    x = xp.asarray(table, chunks=-1)
    for number in (2.5, -0.0, 7, True, np.pi, 1e-40, float("inf"), 16777217, 2**60 + 1):
        chain = program((x - number) * 3 + 1)
        total = program(xp.sum(x * number))
        with np.errstate(all="ignore"):
            got, plain = chain(table, xp=kernels), chain(table, xp=np)
            total(table, xp=kernels)
        assert got.tobytes() == plain.tobytes()
    assert len(kernels.made) == 2


def test_special_values_go_through(kernels: Kernels) -> None:
    values = np.tile([0.0, -0.0, np.inf, -np.inf, np.nan, 1e308, 5e-324, -1.5], 1 << 16)
    x = xp.asarray(values, chunks=-1)
    chain = program(xp.floor(-x * 2) + xp.abs(x))
    with np.errstate(all="ignore"):
        got, plain = chain(values, xp=kernels), chain(values, xp=np)
    assert kernels.made
    np.testing.assert_array_equal(got, plain)
    assert (np.signbit(got) == np.signbit(plain))[~np.isnan(plain)].all()


def test_what_is_not_for_a_fused_kernel_runs_step_by_step(kernels: Kernels) -> None:
    table = np.random.default_rng(3).standard_normal((ROWS, COLUMNS))
    x = xp.asarray(table, chunks=-1)
    for expression in (
        xp.where(x > 0, x, 0 * x) + 1,  # truth values between
        xp.max(x * 2 + 1),  # another reduction
        xp.sum(x * 2 + 1, dtype=xp.float32),  # in another dtype
    ):
        made = program(expression)
        np.testing.assert_allclose(made(table, xp=kernels), made(table, xp=np), rtol=1e-12)
    small = program(xp.asarray(table[:8], chunks=-1) * 2 + 1)
    small(table[:8], xp=kernels)
    assert not kernels.made
