"""Moves are read through: the same values and bits as by tasks of their own, and fewer tasks."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import agentic_ray.array as xp
from agentic_ray.array.core import evaluate, lower, views, windows
from agentic_ray.array.core import node as nodes
from agentic_ray.array.core.chunks import block_slices


def _moved(data: st.DataObject, ours: xp.Array, theirs: np.ndarray) -> tuple[Any, Any]:
    """Both after one move."""
    move = data.draw(st.sampled_from(["slice", "permute", "expand", "squeeze", "cut", "shape"]))
    ndim = theirs.ndim
    if move == "slice" and ndim:
        index = tuple(data.draw(st.slices(n)) for n in theirs.shape)
        return ours[index], theirs[index]
    if move == "permute" and ndim:
        order = tuple(data.draw(st.permutations(range(ndim))))
        return xp.permute_dims(ours, order), theirs.transpose(order)
    if move == "expand" and ndim < 4:
        axis = data.draw(st.integers(0, ndim))
        return xp.expand_dims(ours, axis=axis), np.expand_dims(theirs, axis)
    if move == "squeeze" and 1 in theirs.shape:
        axis = theirs.shape.index(1)
        return xp.squeeze(ours, axis=axis), np.squeeze(theirs, axis)
    if move == "cut" and ndim:
        return ours.rechunk(data.draw(st.integers(1, 7))), theirs
    if move == "shape":
        return ours.reshape(-1), theirs.reshape(-1)
    return ours + 1, theirs + 1


@given(st.data())
def test_chains_of_moves_have_the_bits_of_tasks_for_each_move(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    chunks = tuple(data.draw(st.integers(1, n)) for n in shape)
    values = np.random.default_rng(0).normal(size=shape)

    def made() -> tuple[Any, Any]:
        return xp.asarray(values, chunks=chunks), values

    found = made()
    for _ in range(data.draw(st.integers(1, 6))):
        found = _moved(data, *found)
    ours, theirs = found
    last = data.draw(st.sampled_from(["itself", "exp", "sum", "sort", "product"]))
    results = {
        "itself": lambda: (ours, theirs),
        "exp": lambda: (xp.exp(ours) * 2, np.exp(theirs) * 2),
        "sum": lambda: (xp.sum(ours * 3), np.sum(theirs * 3)),
        "sort": lambda: (xp.sort(ours, axis=-1), np.sort(theirs, axis=-1)) if theirs.ndim else
        (ours, theirs),
        "product": lambda: (ours @ xp.ones(theirs.shape[-1]), theirs @ np.ones(theirs.shape[-1]))
        if theirs.ndim and theirs.size else (ours, theirs),
    }  # fmt: skip
    result, expected = results[last]()
    with mock.patch.object(nodes, "SMALL_ELEMENTS", -1):
        read = _computed(result)
        with (
            mock.patch.object(lower, "window_of", return_value=None),
            mock.patch.object(lower, "reads_flat", return_value=False),
        ):
            by_tasks = _computed(result)
    assert read.tobytes() == by_tasks.tobytes()
    np.testing.assert_allclose(read, expected, rtol=1e-12, atol=1e-12)


def _computed(array: xp.Array) -> np.ndarray:
    """The value of an expression, which is not remembered."""
    tasks, (blocks,) = evaluate.plan([array._node])
    keys = [block.key for block in blocks if hasattr(block, "key")]
    made = evaluate.run_here(tasks, keys)
    found = [made[b.key] if hasattr(b, "key") else b for b in blocks]
    return evaluate._assemble(array._node, found)


def test_a_stencil_is_one_task_for_each_chunk() -> None:
    values = np.random.default_rng(1).normal(size=(90, 80))
    u = xp.asarray(values, chunks=(20, 80))

    def step(u: Any) -> Any:
        return u[1:-1, 1:-1] * -4 + u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]

    tasks, _ = evaluate.plan([step(u)._node])
    assert len(tasks) == 5
    assert max(len(task.dependencies) for task in tasks) <= 3
    np.testing.assert_allclose(np.asarray(step(u)), step(values), atol=1e-12)
    # the operand counts once, although five slices read it
    assert sum(task.cost.read_bytes for task in tasks) < 1.2 * values.nbytes


def test_a_gradient_has_no_tasks_for_moves() -> None:
    rng = np.random.default_rng(2)
    x, y, w = rng.normal(size=(4000, 30)), rng.normal(size=4000), rng.normal(size=30)

    def gradient(xp: Any, x: Any, y: Any, w: Any) -> Any:
        return x.T @ (1 / (1 + xp.exp(-(x @ w))) - y)

    ours = [xp.asarray(x, chunks=(500, 30)), xp.asarray(y, chunks=500), xp.asarray(w)]
    made = gradient(xp, *ours)
    tasks, _ = evaluate.plan([made._node])
    assert not [t for t in tasks if any(n in t.codelet.name for n in ("squeeze", "expand", "perm"))]
    np.testing.assert_allclose(np.asarray(made), gradient(np, x, y, w), rtol=1e-9)


def test_what_is_broadcast_is_not_computed_again_for_every_chunk() -> None:
    row = xp.asarray(np.linspace(0, 1, 5000))
    x = xp.asarray(np.ones((600, 5000)), chunks=(100, 5000))
    tasks, _ = evaluate.plan([(x * xp.exp(xp.sin(row))[None, :]).sum()._node])
    assert sum("sin" in task.codelet.name for task in tasks) == 1


def test_a_row_of_a_large_chunk_is_taken_once() -> None:
    x = xp.asarray(np.ones((1000, 5000)), chunks=(500, 5000))
    y = xp.asarray(np.ones((2000, 5000)), chunks=(100, 5000))
    tasks, _ = evaluate.plan([(y + x[3]).sum()._node])
    taken = [argument for task in tasks for argument in task.args
             if getattr(argument, "nbytes", 0) == 500 * 5000 * 8]  # fmt: skip
    assert len(taken) <= 1
    assert not any(
        windows.is_reading(argument) and getattr(argument[1], "nbytes", 0) > 10**6
        for task in tasks if "sum" in task.codelet.name for argument in task.args
    )  # fmt: skip


def test_reduced_stacks_of_images_are_cut_in_width() -> None:
    rng = np.random.default_rng(3)
    stack = rng.integers(0, 255, (40, 300, 300), dtype=np.uint8)
    x = xp.asarray(stack, chunks=(17, 300, 300))
    assert np.asarray(x.mean(axis=0)).tobytes() == stack.mean(axis=0).tobytes()
    assert np.asarray(x.sum(axis=0)).tobytes() == stack.sum(axis=0).tobytes()
    floats = rng.normal(size=(40, 300, 300))
    y = xp.asarray(floats, chunks=(17, 300, 300))
    for name in ("mean", "std", "max"):
        near = np.asarray(getattr(y * 2, name)(axis=0))
        np.testing.assert_allclose(near, getattr(floats * 2, name)(axis=0), rtol=1e-10, atol=1e-12)


@given(st.data())
def test_windows_on_windows_show_what_numpy_shows(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=3)))
    values = np.arange(np.prod(shape)).reshape(shape)
    below, seen = windows.broadcast(shape, shape), values
    for _ in range(data.draw(st.integers(1, 4))):
        order = tuple(data.draw(st.permutations(range(seen.ndim))))
        below, seen = windows.permuted(seen.shape, order).on(below), seen.transpose(order)
        index = []
        for n in seen.shape:
            part = range(n)[data.draw(st.slices(n))]
            index.append(("s", part.start, len(part), part.step) if len(part) else ("s", 0, n, 1))
        below = windows.indexed(tuple(index)).on(below)
        seen = seen[views.as_key(index)]
    assert below.shape == seen.shape
    cut = tuple((1,) * (n % 3) + (n - n % 3,) * (n >= 3) for n in seen.shape)
    chunks = tuple((1,) * (n % 2) + (n - n % 2,) * (n >= 2) for n in shape)
    blocks = [values[region].copy() for region in block_slices(chunks)]
    found = windows.Reading(below, chunks, cut).arguments(blocks)
    for region, argument in zip(block_slices(cut), found, strict=True):
        np.testing.assert_array_equal(windows.whole(argument, np), seen[region])
