"""The same inputs, chunks and seed give the same bits, however they are computed.

Each expression of ``bits_cases`` is computed in several ways that a user does not see or may not
mind: operands that are one array or copies of it, in another memory order; intermediates that were
looked at, or persisted; blocks that are sent; whole arrays or tasks; in this process or by the
session, beside other work; several threads of BLAS; with the kernels of several processors.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import bits_cases as bits
import numpy as np
import pytest
import test_portable_kernels
from ray import cloudpickle

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray import blas

Results = dict[str, list[bytes]]


@pytest.fixture(scope="module")
def plain() -> tuple[Results, Results]:
    """Computed as it comes: expressions over all public names, and over larger operands."""
    return bits.small_results(), bits.large_results()


def test_copies_of_operands_give_the_bits_of_one_operand(plain: tuple[Results, Results]) -> None:
    small, large = plain
    assert not bits.different(small, bits.small_results(lambda at: bits.Copied(bits.Data(at))))
    copied = bits.large_results(lambda dtype: bits.Copied(bits.Operands(dtype)))
    assert not bits.different(large, copied)


def test_operands_in_another_memory_order_give_the_same_bits(
    plain: tuple[Results, Results],
) -> None:
    other = bits.large_results(lambda dtype: bits.Operands(dtype, fortran=True))
    assert not bits.different(plain[1], other)


WAYS = {
    "tasks": lambda: bits.as_tasks(sent=False),
    "tasks whose blocks are sent": lambda: bits.as_tasks(sent=True),
    "every intermediate looked at": lambda: bits.each_array(bits.look_at),
    "every intermediate persisted": lambda: bits.each_array(bits.persist),
}


@pytest.mark.parametrize("way", WAYS)
def test_how_it_is_computed_changes_no_bit(plain: tuple[Results, Results], way: str) -> None:
    with WAYS[way]():
        assert not bits.different(plain[0], bits.small_results())
        assert not bits.different(plain[1], bits.large_results())


@pytest.fixture
def busy(ray_session: ar.Session) -> Iterator[None]:
    """A loop for each core that does nothing useful, beside the session."""
    count = os.cpu_count() or 1
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ray_session")
def test_the_session_gives_the_same_bits(plain: tuple[Results, Results]) -> None:
    cloudpickle.register_pickle_by_value(test_portable_kernels)  # executors cannot import it
    assert not bits.different(plain[0], bits.small_results(here=False))


@pytest.mark.parametrize("persisted", [False, True], ids=["as it comes", "persisted"])
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("busy")
def test_the_session_gives_the_same_bits_beside_other_work(
    plain: tuple[Results, Results], persisted: bool
) -> None:
    chosen = ("f4", "c16") if persisted else ("f8",)
    with bits.each_array(bits.persist) if persisted else nullcontext():
        there = bits.large_results(dtypes=chosen, here=False)
    assert not bits.different({name: plain[1][name] for name in there}, there)


@pytest.mark.parametrize("kernels", ["Haswell", "Zen", "SkylakeX"])
def test_threads_of_blas_change_no_bit(kernels: str) -> None:
    """Other processors' kernels have other bits, but those with any number of threads."""
    env = {**os.environ, "OPENBLAS_CORETYPE": kernels, "OMP_NUM_THREADS": "4"}
    done = subprocess.run(
        [sys.executable, str(Path(bits.__file__))],
        env=env, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if "Illegal instruction" in done.stderr or done.returncode == -4:
        pytest.skip(f"this processor cannot run kernels for {kernels}")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_users_own_products_keep_their_threads() -> None:
    libraries = blas.loaded()
    before = [library.get_threads() for library in libraries]
    try:
        for library in libraries:
            library.set_threads(2)

        def looked(block: Any) -> Any:
            # Imported here: a library cannot be sent to where the function runs.
            from agentic_ray import blas

            return block * 0 + max(library.get_threads() for library in blas.loaded())

        x = xp.asarray(np.ones((300, 300)))
        assert (np.asarray(xp.map_blocks(looked, x, dtype="float64") @ x) == 300).all()
        assert [library.get_threads() for library in libraries] == [2] * len(libraries)
    finally:
        for library, threads in zip(libraries, before, strict=True):
            library.set_threads(threads)
