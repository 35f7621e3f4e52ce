"""Importing the package costs little and starts nothing; every public name is there."""

from __future__ import annotations

import json
import subprocess
import sys

import agentic_ray as ar


def inspect(statement: str) -> dict[str, list[str]]:
    """What ``statement`` loads, in a fresh process."""
    source = (
        "import json, sys, threading\n"
        f"{statement}\n"
        "import psutil\n"
        "print(json.dumps({\n"
        "    'modules': sorted({name.partition('.')[0] for name in sys.modules}),\n"
        "    'threads': [thread.name for thread in threading.enumerate()],\n"
        "    'children': [child.name() for child in psutil.Process().children(recursive=True)],\n"
        "}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


HEAVY = {"cupy", "pandas", "pyarrow", "fastapi", "uvicorn", "httpx", "rich", "numba", "pynvml"}


def test_importing_the_package_loads_and_starts_nothing() -> None:
    found = inspect("import agentic_ray")
    assert not {*HEAVY, "ray", "numpy"} & set(found["modules"])
    assert found["threads"] == ["MainThread"]
    assert found["children"] == []


def test_the_main_entry_loads_ray_and_starts_nothing() -> None:
    found = inspect("import agentic_ray; agentic_ray.map_reduce; agentic_ray.codelet")
    plain = inspect("import ray, numpy")
    assert not (HEAVY & set(found["modules"])) - set(plain["modules"])
    assert found["threads"] == plain["threads"]
    assert found["children"] == []


def test_every_public_name_resolves_and_is_listed() -> None:
    for name in ar.__all__:
        assert getattr(ar, name) is not None
    assert set(ar.__all__) <= set(dir(ar))
    assert ar.__all__ == sorted(set(ar.__all__))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(ar, "no_such_name")
    assert getattr(ar, "no_such_name", 5) == 5
