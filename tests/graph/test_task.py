"""Resources, codelets, tasks and their references: validation and meaning."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections import namedtuple
from typing import Any

import pytest

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph import Bundle, Codelet, CostHint, Ref, Resources, Task, codelet
from agentic_ray.graph.reduce import accepts_xp
from agentic_ray.graph.task import find_refs, replace_refs


def work(*_: Any) -> None: ...


CPU = Codelet("cpu", work)
GPU = Codelet("gpu", None, work)
BOTH = Codelet("both", work, work)
Pair = namedtuple("Pair", "left right")


@pytest.mark.parametrize("name", ["cpus", "memory_bytes", "gpus", "gpu_memory_bytes"])
@pytest.mark.parametrize("value", [-1, math.nan])
def test_resources_are_not_negative(name: str, value: float) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        Resources(**{name: value})


def test_the_union_of_resources_is_enough_for_either() -> None:
    assert Resources(2, 10).union(Resources(1, 20, 0.5, 7)) == Resources(2, 20, 0.5, 7)


def test_costs_add_up() -> None:
    assert CostHint(1, 2, 3, 4) + CostHint(10, 20, 30, 40) == CostHint(11, 22, 33, 44)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("", work), "name"),
        (("f", None), "cpu or a gpu"),
        (("f", 3), "cpu implementation of codelet 'f' is not callable"),
        (("f", None, 3), "gpu implementation of codelet 'f' is not callable"),
    ],
)
def test_a_codelet_needs_a_name_and_something_to_call(arguments: Any, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        Codelet(*arguments)


def test_a_codelet_cannot_be_changed_and_survives_pickling_and_replace() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CPU.name = "other"  # type: ignore[misc]
    key = Task.of(BOTH, 1).key
    assert pickle.loads(pickle.dumps(BOTH)) == BOTH
    assert Task.of(pickle.loads(pickle.dumps(BOTH)), 1).key == key
    assert Task.of(dataclasses.replace(BOTH, version="2"), 1).key != key


@pytest.mark.parametrize(
    ("made_of", "tag", "kinds"),
    [
        (CPU, "any", ("cpu",)),
        (CPU, "cpu", ("cpu",)),
        (CPU, "gpu", ("cpu",)),
        (GPU, "any", ("gpu",)),
        (GPU, "gpu", ("gpu",)),
        (GPU, "cpu", ()),
        (BOTH, "any", ("gpu", "cpu")),
        (BOTH, "gpu", ("gpu", "cpu")),
        (BOTH, "cpu", ("cpu",)),
    ],
)
def test_the_tag_and_the_implementations_decide_the_device(
    made_of: Codelet, tag: Any, kinds: tuple[str, ...]
) -> None:
    task = Task.of(made_of, tag=tag)
    assert task.kinds() == kinds
    assert Bundle("b", (task,)).kinds() == kinds


def test_an_unknown_tag_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="'tpu'"):
        Task.of(CPU, tag="tpu")  # type: ignore[arg-type]


def test_references_anywhere_in_the_arguments_become_dependencies_once() -> None:
    pair = Pair(Ref("e"), [Ref("f")])
    task = Task.of(CPU, Ref("a"), [Ref("b"), (Ref("a"),)], {"k": Ref("c")}, pair, x=Ref("d"))
    assert task.dependencies == ("a", "b", "c", "e", "f", "d")


def test_every_reference_that_is_found_is_replaced() -> None:
    value = [Ref("a"), (Ref("b"), {"k": Ref("c")}), Pair(Ref("d"), 1), "Ref", {3}]
    replaced = replace_refs(value, str.upper)
    assert replaced == ["A", ("B", {"k": "C"}), Pair("D", 1), "Ref", {3}]
    assert isinstance(replaced[2], Pair)
    assert list(find_refs(replaced)) == []
    assert list(find_refs(value)) == ["a", "b", "c", "d"]


def test_the_key_of_a_task_is_its_content() -> None:
    assert Task.of(CPU, 1, x=2).key == Task.of(CPU, 1, x=2).key
    different = [
        Task.of(CPU, 1),
        Task.of(CPU, 2),
        Task.of(CPU, x=1),
        Task.of(CPU, Ref("1")),
        Task.of(BOTH, 1),
    ]
    assert len({task.key for task in different}) == len(different)
    assert Task.of(CPU, 1, priority=7).key == Task.of(CPU, 1).key, "when is not what"
    assert Task.of(CPU, 1, key="mine").key == "mine"


def test_the_cost_of_a_codelet_is_the_default_of_its_tasks() -> None:
    hinted = Codelet("hinted", work, cost=CostHint(flops=5))
    assert Task.of(hinted).cost.flops == 5
    assert Task.of(hinted, cost=CostHint(flops=6)).cost.flops == 6


def test_a_bundle_is_as_demanding_as_its_most_demanding_task() -> None:
    bundle = Bundle(
        "b",
        (
            Task.of(BOTH, key="a", priority=1, resources=Resources(2, 5), cost=CostHint(items=3)),
            Task.of(CPU, key="b", priority=4, resources=Resources(1, 9), cost=CostHint(items=4)),
        ),
    )
    assert (bundle.priority, bundle.resources, bundle.items) == (4, Resources(2, 9), 7)
    assert bundle.kinds() == ("cpu",)


def test_the_cpu_form_of_a_bundle_is_the_same_work() -> None:
    bundle = Bundle("b", (Task.of(BOTH, Ref("a"), key="b", tag="gpu"),), ("a",), ("b",))
    on_cpu = bundle.on_cpu()
    assert on_cpu.kinds() == ("cpu",)
    assert (on_cpu.key, on_cpu.inputs, on_cpu.outputs) == ("b", ("a",), ("b",))
    assert on_cpu.tasks[0].args == bundle.tasks[0].args


def test_the_decorator_makes_a_kernel_of_either_kind() -> None:
    @codelet
    def twice(block: Any, *, xp: Any) -> Any:
        return xp.add(block, block)

    @codelet(name="mine", version="3")
    def plain(block: int) -> int:
        return block + 1

    assert twice(2) == 4
    assert twice.codelet.gpu is not None
    assert plain(2) == 3
    assert (plain.codelet.name, plain.codelet.version, plain.codelet.gpu) == ("mine", "3", None)
    plain.gpu(work)
    assert plain.codelet.gpu is work


def test_xp_is_looked_for_in_any_callable() -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, block: Any, *, xp: Any) -> None: ...

    assert accepts_xp(Unhashable())
    assert accepts_xp(lambda block, xp=None: block)
    assert not accepts_xp(lambda xp, /: xp)
    assert not accepts_xp(max)
