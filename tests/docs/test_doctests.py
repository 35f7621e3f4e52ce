"""The examples in docstrings give what they say, and each public function has one."""

from __future__ import annotations

import doctest
import inspect
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import uvicorn

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray import sources, testing
from agentic_ray.array.ufuncs import Ufunc
from agentic_ray.service.http import create_app

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
RUN_ALONE = {
    "AsyncClient": "it needs a service",
    "Client": "it needs a service",
    "shutdown": "it would end the session that the tests share",
}
"""Examples of the facade that have a test of their own."""
DATA_ONLY = {"Part", "Unit", "Source", "TextLines", "Csv", "Parquet", "Kill"}
"""What functions give, and nobody makes: their functions have the example."""

FACADE = sorted(set(ar.__all__) - {"__version__", "errors", "sources"})
MAKERS = sorted(set(sources.__all__) - DATA_ONLY)
ARRAY_MODULES = (xp, xp.linalg, xp.fft, xp.random, xp.lib.stride_tricks)


def own(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Public functions and classes of an array module that are not NumPy's own objects."""
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value) and not is_numpys(value):
            yield name, value


def is_numpys(value: Any) -> bool:
    """Whether it is NumPy's function or class as it is there."""
    code = getattr(inspect.unwrap(value), "__code__", None)
    if code is not None:
        return Path(np.__file__).parent in Path(code.co_filename).parents
    return str(getattr(value, "__module__", "")).startswith("numpy")


def numpy_has(module: ModuleType, name: str) -> bool:
    """Whether NumPy has a name that this one stands for, in the same place or above it."""
    place: Any = np
    for part in module.__name__.split(".")[2:]:
        place = getattr(place, part)
    return hasattr(place, name) or hasattr(np, name)


def run(docstring: str, name: str) -> None:
    test = doctest.DocTestParser().get_doctest(docstring, {"__name__": "__main__"}, name, None, 0)
    told: list[str] = []
    assert doctest.DocTestRunner(optionflags=FLAGS).run(test, out=told.append).failed == 0, told


def test_each_public_name_has_an_example() -> None:
    for name in FACADE:
        assert ">>>" in (getattr(ar, name).__doc__ or ""), name
    for name in MAKERS:
        assert ">>>" in (getattr(sources, name).__doc__ or ""), name
    assert ">>>" in (testing.Chaos.__doc__ or "")


def test_an_array_function_without_an_example_is_one_of_numpys() -> None:
    without = [
        f"{module.__name__}.{name}"
        for module in ARRAY_MODULES
        for name, value in own(module)
        if ">>>" not in (inspect.getdoc(value) or "")
        and not isinstance(value, Ufunc)
        and not numpy_has(module, name)
    ]
    assert without == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FACADE if name not in RUN_ALONE])
def test_an_example_of_the_facade(
    name: str, ray_session: ar.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(inspect.getdoc(getattr(ar, name)) or "", f"agentic_ray.{name}")


@pytest.mark.slow
def test_the_example_of_client(ray_session: ar.Session) -> None:
    with ar.Master() as master:
        server = uvicorn.Server(uvicorn.Config(create_app(master), port=0, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
            for kind in (ar.Client, ar.AsyncClient):
                docstring = inspect.getdoc(kind) or ""
                assert "Client()" in docstring
                docstring = docstring.replace("Client()", f"Client({url!r})")
                run(docstring, f"agentic_ray.{kind.__name__}")
        finally:
            server.should_exit = True
            thread.join()


def test_the_example_of_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentic_ray.runtime.current._session", None)
    run(inspect.getdoc(ar.shutdown) or "", "agentic_ray.shutdown")


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_an_example_of_a_source(name: str, ray_session: ar.Session) -> None:
    run(inspect.getdoc(getattr(sources, name)) or "", f"agentic_ray.sources.{name}")


@pytest.mark.slow
@pytest.mark.parametrize("module", ARRAY_MODULES, ids=lambda module: module.__name__)
def test_the_examples_of_arrays(
    module: ModuleType, ray_session: ar.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in own(module):
        docstring = inspect.getdoc(value) or ""
        if ">>>" in docstring:
            run(docstring, f"{module.__name__}.{name}")


def test_the_examples_of_arrays_methods(ray_session: ar.Session) -> None:
    for kind in (xp.Array, xp.random.Generator):
        for name in dir(kind):
            docstring = inspect.getdoc(getattr(kind, name)) or ""
            if not name.startswith("_") and ">>>" in docstring:
                run(docstring, f"{kind.__name__}.{name}")
