"""The registry, schema checks, the worker, and files of workloads. No Ray is started."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from typing_extensions import TypedDict

from agentic_ray.errors import (
    InvalidArgumentError,
    InvalidParametersError,
    InvalidTypeError,
    UnknownWorkloadError,
    WorkloadFileError,
)
from agentic_ray.master import Registry, Worker, load_workloads
from agentic_ray.master import registry as process_registry
from agentic_ray.master.workloads import normalise


class Params(TypedDict):
    count: int
    names: list[str]


class Model(BaseModel):
    when: date
    ratio: float = 0.5


@dataclass
class Pair:
    left: int
    right: tuple[int, ...] = ()


def typed(params: Params) -> int:
    return params["count"]


def untyped(params):  # type: ignore[no-untyped-def]
    return params


@pytest.fixture
def registry() -> Registry:
    return Registry(process_registry.snapshot())


def prepare(registry: Registry, params: Any, **options: Any) -> Any:
    function = options.pop("function", untyped)
    return registry.register("w", function, **options).prepare(params)


def test_the_schema_is_by_default_the_type_of_the_parameter(registry: Registry) -> None:
    good = {"count": 1, "names": ["a"]}
    assert prepare(registry, good, function=typed) == good
    with pytest.raises(InvalidParametersError, match=r"params\.names\[1\]: .*valid string"):
        registry.get("w").prepare({"count": 1, "names": ["a", 2]})
    with pytest.raises(InvalidParametersError, match=r"params\.count: Field required"):
        registry.get("w").prepare({"names": []})


def test_without_a_type_anything_goes(registry: Registry) -> None:
    assert prepare(registry, [1, {"x": None}]) == [1, {"x": None}]


def test_text_is_not_taken_for_a_number_nor_a_flag_for_one(registry: Registry) -> None:
    for wrong in ("1", True, 1.5, None):
        with pytest.raises(InvalidParametersError, match=r"params\.count"):
            prepare(registry, {"count": wrong, "names": []}, function=typed, replace=True)


@pytest.mark.parametrize(
    ("schema", "params", "expected"),
    [
        (Model, {"when": "2020-02-03"}, Model(when=date(2020, 2, 3))),
        (Pair, {"left": 1, "right": [2, 3]}, Pair(1, (2, 3))),
        (TypeAdapter(list[int]), [1, 2], [1, 2]),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (int | None, None, None),
        (lambda params: sorted(params), [2, 1], [1, 2]),
    ],
)
def test_schemas_of_every_kind(registry: Registry, schema: Any, params: Any, expected: Any) -> None:
    assert prepare(registry, params, schema=schema) == expected


def test_an_error_of_a_schema_function_is_a_parameter_error(registry: Registry) -> None:
    def positive(params: Any) -> Any:
        if params < 0:
            raise ValueError("must not be negative")
        return params

    with pytest.raises(InvalidParametersError, match="params: must not be negative"):
        prepare(registry, -1, schema=positive)


def test_many_errors_are_shortened(registry: Registry) -> None:
    with pytest.raises(InvalidParametersError, match="and 95 more"):
        prepare(registry, ["x"] * 100, schema=list[int])


@pytest.mark.parametrize(
    "params",
    [
        {"data": [1, True]},
        {"data": ["1"]},
        {"data": [[1]]},
        {"data": [None]},
        {"data": 5},
        {"data": {"0": 1}},
        {"data": "12"},
        {"data": [], "more": 1},
        {},
        [1, 2],
        None,
    ],
)
def test_the_default_workload_takes_lists_of_numbers_only(params: Any) -> None:
    with pytest.raises(InvalidParametersError, match="workload 'default': params"):
        process_registry.get("default").prepare(params)


def test_the_default_workload_says_which_element_is_wrong() -> None:
    with pytest.raises(InvalidParametersError, match=r"params\.data\[2\]: should be a number"):
        process_registry.get("default").prepare({"data": [1, 2, "x", "y"]})


def test_integers_of_the_default_workload_stay_exact() -> None:
    data = [10**300 + 1, -5, 0.5]
    assert process_registry.get("default").prepare({"data": data})["data"] == data


def test_params_that_are_not_json_are_refused() -> None:
    with pytest.raises(InvalidParametersError, match=r"params\.x is of type set"):
        normalise({"x": {1}})


@pytest.mark.parametrize(
    "function",
    [lambda: 1, lambda a, b: 1, lambda *a: 1, lambda a, *, b: 1, 5, None],
)
def test_a_workload_is_a_function_of_one_parameter(registry: Registry, function: Any) -> None:
    with pytest.raises(InvalidTypeError):
        registry.register("w", function)


def test_a_coroutine_is_refused(registry: Registry) -> None:
    async def work(params: Any) -> int:
        return 1

    with pytest.raises(InvalidTypeError, match="coroutine"):
        registry.register("w", work)


def test_a_type_that_cannot_be_a_schema_is_refused(registry: Registry) -> None:
    class Opaque:
        pass

    with pytest.raises(InvalidTypeError, match="not usable as a schema"):
        registry.register("w", untyped, schema=Opaque)


def test_a_name_is_taken_once(registry: Registry) -> None:
    registry.register("w", untyped)
    with pytest.raises(InvalidArgumentError, match=r"registered already .*replace=True"):
        registry.register("w", typed)
    registry.register("w", typed, replace=True)
    assert registry.get("w").function is typed
    for name in ("", " w"):
        with pytest.raises(InvalidArgumentError, match="needs a name"):
            registry.register(name, untyped)


def test_the_built_in_default_may_be_replaced_once(registry: Registry) -> None:
    registry.register("default", untyped)
    with pytest.raises(InvalidArgumentError, match="registered already"):
        registry.register("default", typed)


def test_the_worker_replaces_the_default(registry: Registry) -> None:
    worker = Worker(registry)

    @worker.on_task
    def on_task_received(task_data):  # type: ignore[no-untyped-def]
        return len(task_data["data"])

    assert registry.get("default").function is on_task_received
    assert registry.get("default").prepare({"data": "anything"}) == {"data": "anything"}


def test_an_unknown_name_lists_the_known_ones(registry: Registry) -> None:
    with pytest.raises(UnknownWorkloadError, match="there are: default"):
        registry.get("nothing")
    with pytest.raises(UnknownWorkloadError, match="is not a workload"):
        registry.name_of(untyped)


# --- files -------------------------------------------------------------------------------

FILE = """
import agentic_ray as ar

FACTOR = 3

def times(x):
    return x * FACTOR

@ar.workload("tripled", version="2")
def tripled(params: list[int]) -> list[int]:
    return [times(x) for x in params]
"""


def test_a_file_is_loaded_under_a_name_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "json.py"  # a name that must not shadow the standard library's
    file.write_text(FILE)
    (made,) = load_workloads(file)
    assert (made.name, made.version) == ("tripled", "2")
    assert made.function([1, 2]) == [3, 6]
    assert made.function.__module__ in sys.modules
    assert "dumps" in dir(sys.modules["json"])


def test_functions_of_a_file_are_pickled_by_value(tmp_path: Path) -> None:
    import cloudpickle

    file = tmp_path / "mine.py"
    file.write_text(FILE)
    (made,) = load_workloads(file)
    pickled = tmp_path / "pickled"
    pickled.write_bytes(cloudpickle.dumps(made.function))
    file.unlink()
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb'))([2]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(pickled)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[6]\n", done.stderr


def test_a_package_directory_may_import_its_own_modules(tmp_path: Path) -> None:
    package = tmp_path / "my-work"
    package.mkdir()
    (package / "__init__.py").write_text("from . import first\n")
    (package / "first.py").write_text(FILE)
    (made,) = load_workloads(package)
    assert made.function([1]) == [3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "there is no file"),
        ("def broken(:\n", r"invalid syntax.*\(line 1\)"),
        ("x = 1\n\n1 / 0\n", r"it raises ZeroDivisionError on import: .*\(line 3\)"),
        ("import sys\nsys.exit(3)\n", "it raises SystemExit on import"),
        ("import no_such_module_at_all\n", "No module named 'no_such_module_at_all'"),
        ("x = 1\n", "it registers none"),
        (FILE + "\nraise ValueError('late')\n", "late"),
        (FILE + FILE, "registered already"),
    ],
)
def test_a_file_that_cannot_be_used_says_why_and_leaves_nothing(
    tmp_path: Path, text: str | None, says: str
) -> None:
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    before = process_registry.snapshot()
    modules = set(sys.modules)
    with pytest.raises(WorkloadFileError, match=says) as caught:
        load_workloads(file)
    assert str(file) in str(caught.value)
    assert process_registry.snapshot() == before
    assert not {name for name in set(sys.modules) - modules if "workloads_mine" in name}


def test_a_file_that_is_not_python_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("x = 1")
    with pytest.raises(WorkloadFileError, match=r"must end in \.py"):
        load_workloads(file)


def test_importing_the_master_loads_neither_ray_nor_the_web_framework() -> None:
    code = (
        "import sys, agentic_ray.master, agentic_ray.service;"
        "print(sorted({'ray', 'fastapi', 'uvicorn', 'cupy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
